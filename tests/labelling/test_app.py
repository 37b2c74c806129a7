"""The requests of the page: labels go to the disk at once, nothing but files of the folder is sent."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image
from tests.support.videos import write_video

from rbft.labelling.app import make_app
from rbft.labelling.clips import find_clips
from rbft.labelling.opinions import Opinions, Superseded
from rbft.labelling.session import Session
from rbft.predict import Answer

ORIGIN = "http://127.0.0.1:8421"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "<b>clips"
    root.mkdir()
    rng = np.random.default_rng(0)
    for name in ("a.mp4", "b.mp4"):
        write_video(root / name, rng.integers(0, 256, (8, 32, 32, 3), np.uint8), fps=4)
    (root / "c.mp4").write_text("no video")
    return root


@pytest.fixture
def client(folder: Path) -> TestClient:
    return TestClient(make_app(Session(find_clips(folder), classes=["fall", "sit"])), base_url=ORIGIN)


def give(client: TestClient, clip: Any, label: Any, **headers: str):
    return client.post("/api/label", json={"clip": clip, "label": label}, headers=headers)


def test_a_label_is_on_the_disk_when_it_is_answered(client: TestClient, folder: Path) -> None:
    assert client.get("/api/state").json()["order"] == [0, 1, 2]
    answer = give(client, 1, " fall ").json()
    assert (folder / "labels.csv").read_text() == "path,label\nb.mp4,fall\n"
    assert (answer["before"], answer["label"], answer["labelled"]) == ("", "fall", 1)
    assert give(client, 1, "stand").json()["before"] == "fall"
    state = client.get("/api/state").json()
    assert [entry["label"] for entry in state["clips"]] == ["", "stand", ""]
    assert [entry["name"] for entry in state["classes"]] == ["fall", "sit", "stand"], "a new class is known from now on"
    assert give(client, 1, "").json()["labelled"] == 0
    assert (folder / "labels.csv").read_text() == "path,label\n"


@pytest.mark.parametrize(
    ("clip", "label", "status", "detail"),
    [
        (9, "fall", 404, "no such clip"),
        (-1, "fall", 404, "no such clip"),
        (0, "Fall", 400, "reads the same as 'fall'"),
        (0, "a\nb", 400, "holds a line break"),
        (0, "<|im_end|>", 400, "control token"),
        (0, "x" * 101, 400, "100 are the most"),
        (0, None, 400, "needs a clip (a number) and a label (text)"),
        (True, "fall", 400, "needs a clip"),
        (0, "x" * 5000, 400, "too long"),
    ],
)
def test_what_no_class_can_be_is_refused(
    client: TestClient, folder: Path, clip: Any, label: Any, status: int, detail: str
) -> None:
    answer = give(client, clip, label)
    assert answer.status_code == status and detail in answer.json()["detail"]
    assert not (folder / "labels.csv").exists()


def test_videos_are_sent_in_ranges_and_nothing_else_is(client: TestClient, folder: Path, tmp_path: Path) -> None:
    whole = client.get("/api/media/0")
    assert whole.content == (folder / "a.mp4").read_bytes() and whole.headers["content-type"] == "video/mp4"
    part = client.get("/api/media/0", headers={"range": "bytes=4-7"})
    assert (part.status_code, part.content) == (206, whole.content[4:8])
    assert "media-src 'self'" in whole.headers["content-security-policy"]
    assert client.get("/api/media/7").status_code == 404
    (tmp_path / "secret.mp4").write_text("secret")
    (folder / "b.mp4").unlink()
    (folder / "b.mp4").symlink_to(tmp_path / "secret.mp4")
    answer = client.get("/api/media/1")
    assert answer.status_code == 422 and "outside of the data folder" in answer.json()["detail"]
    assert client.get("/api/media/..%2Fsecret.mp4").status_code in (404, 422)


def test_frames_stand_in_for_what_cannot_be_played(client: TestClient) -> None:
    frames = client.get("/api/frames/0").json()
    assert len(frames) == 8 and frames[0]["image"].startswith("data:image/jpeg;base64,")
    assert [frame["time"] for frame in frames] == sorted({frame["time"] for frame in frames})
    broken = client.get("/api/frames/2")
    assert broken.status_code == 422 and "is text, not a video" in broken.json()["detail"]
    assert client.get("/api/answer/0").json()["detail"].startswith("there is no run to ask")


def test_strangers_are_refused_and_names_are_escaped(client: TestClient, folder: Path) -> None:
    assert give(client, 0, "fall", origin="https://evil.example").status_code == 403
    assert give(client, 0, "fall", host="evil.example").status_code == 403
    assert not (folder / "labels.csv").exists()
    assert "<b>clips" not in client.get("/").text and "&lt;b&gt;clips" in client.get("/").text


def test_two_pages_at_once_lose_nothing(folder: Path) -> None:
    found = [find_clips(folder) for _ in range(2)]
    sessions = [Session(entry, classes=["fall", "sit"]) for entry in found]

    def work(session: Session, number: int) -> None:
        for turn in range(12):
            session.label(number, ("fall", "sit")[turn % 2])

    threads = [threading.Thread(target=work, args=(session, number)) for number, session in enumerate(sessions)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {row.path: row.label for row in found[0].table.read()} == {"a.mp4": "sit", "b.mp4": "sit"}


class _Asked:
    """Stands in for a run: takes until it is let go, and keeps what it was asked."""

    def __init__(self) -> None:
        self.begun, self.go, self.asked = threading.Event(), threading.Event(), []
        self.model = self.labels = self
        self.book, self.names = self, ("fall", "sit")

    def blind_prompt(self) -> str:
        return "why"

    def label_prompt(self) -> str:
        return "what"

    def predict(self, videos, *, rationale):
        self.asked.append((videos[0].path, rationale))
        self.begun.set()
        assert self.go.wait(10)
        words = "because" if rationale else None
        return [Answer(videos[0].name, "sit", 0.75, rationale=words, raw=(0.25, 0.75))]


def test_a_run_is_asked_about_the_clip_that_is_looked_at(folder: Path) -> None:
    run, found, results = _Asked(), find_clips(folder), {}
    opinions = Opinions(run, found.root)

    def ask(number: int) -> None:
        try:
            results[number] = opinions.of(found.clips[number], rationale=number == 2)
        except Superseded:
            results[number] = None

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(3)]
    threads[0].start()
    assert run.begun.wait(10)
    for thread, asked in ((threads[1], 1), (threads[2], 2)):
        before = opinions._asked
        thread.start()
        while opinions._asked is before:
            pass
        assert asked
    run.go.set()
    for thread in threads:
        thread.join()
    assert run.asked == [("a.mp4", False), ("c.mp4", True)], "nobody waits for the second any more"
    assert results[1] is None
    assert results[2]["rationale"] == "because"
    assert [entry["label"] for entry in results[0]["probabilities"]] == ["sit", "fall"]
    opinions.of(found.clips[0], rationale=False)
    assert len(run.asked) == 2, "what is known is not asked again"


def test_a_folder_of_images_is_shown_as_frames(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    folder.mkdir()
    for number in range(3):
        Image.new("RGB", (32, 32), (80 * number, 0, 0)).save(folder / f"{number}.png")
    page = TestClient(make_app(Session(find_clips(tmp_path, frame_rate=2))), base_url=ORIGIN)
    refused = page.get("/api/media/0")
    assert (refused.status_code, refused.json()["detail"]) == (422, "is a folder of images, which no browser plays")
    assert [frame["time"] for frame in page.get("/api/frames/0").json()] == [0.0, 0.5, 1.0]
    assert give(page, 0, "fall").status_code == 200
    assert (tmp_path / "labels.csv").read_text() == "path,label\na#fps=2,fall\n"
