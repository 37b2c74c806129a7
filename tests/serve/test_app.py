"""The JSON interface: what comes in is bounded and always removed, what goes out is exact, strangers are refused."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from fastapi.testclient import TestClient

from rbft.errors import VideoError
from rbft.serve.app import make_app
from rbft.serve.model import About, Answered
from rbft.serve.request_queue import BusyError, Turns

ORIGIN = "http://127.0.0.1:8420"
HOSTILE = "<img src=x onerror='alert(1)'>\x1b[31m.mp4"


class Model:
    """Stands in for the model: keeps what it was shown, and answers or fails by the file's content."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.seen = folder, []

    def __call__(self, video: Path, *, rationale: bool) -> Answered:
        content, name = video.read_bytes(), video.relative_to(self.folder).as_posix()
        self.seen.append((name, content))
        if content == b"bad":
            raise VideoError(name, "is text, not a video")
        if content == b"bug":
            raise RuntimeError("a secret path /home/me")
        frames = torch.full((2, 3, 4, 6), 200, dtype=torch.uint8)
        chances = (("a", 0.75), ("b", 0.25))
        return Answered("a", chances, False, "because" if rationale else None, frames, (0.0, 0.5), 1.0)


@pytest.fixture
def model(tmp_path: Path) -> Model:
    return Model(tmp_path)


@pytest.fixture
def turns() -> Turns:
    return Turns(2)


@pytest.fixture
def client(model: Model, turns: Turns) -> Iterator[TestClient]:
    told = About(
        "x / <b>rbft</b> / seed0", "builtin/tiny", ("a", "b<i>"), {"test/accuracy": None}, ("worth <nothing>",)
    )
    app = make_app(model, told, model.folder, 0.1, turns, ["my.host"])
    with TestClient(app, base_url=ORIGIN, raise_server_exceptions=False) as client:
        yield client
    assert list(model.folder.iterdir()) == [], "what was sent is removed, whatever became of it"


def send(client: TestClient, content: bytes, name: str = "clip.mp4", **fields: str):
    return client.post("/api/predict", files={"video": (name, content)}, data=fields)


def test_an_answer_has_everything(client: TestClient, model: Model) -> None:
    answer = send(client, b"good", rationale="1", frames="1")
    assert answer.status_code == 200
    told = answer.json()
    frames = told.pop("frames")
    assert told.pop("seconds") >= 0
    assert told == {
        "video": "clip.mp4",
        "predicted": "a",
        "probability": 0.75,
        "probabilities": [{"label": "a", "probability": 0.75}, {"label": "b", "probability": 0.25}],
        "calibrated": False,
        "rationale": "because",
        "duration": 1.0,
    }
    assert [frame["time"] for frame in frames] == [0.0, 0.5]
    assert all(frame["image"].startswith("data:image/jpeg;base64,/9j/") for frame in frames)
    bare = send(client, b"good").json()
    assert bare["rationale"] is None and "frames" not in bare
    assert [content for _, content in model.seen] == [b"good", b"good"]


@pytest.mark.parametrize(
    ("said", "wanted"), [("True", True), ("YES", True), ("on", True), ("False", False), ("0", False)]
)
def test_a_wish_may_be_said_as_programs_say_it(client: TestClient, said: str, wanted: bool) -> None:
    told = send(client, b"good", rationale=said, frames=said).json()
    assert (told["rationale"] is not None, "frames" in told) == (wanted, wanted)


def test_a_wish_that_is_neither_yes_nor_no_is_refused(client: TestClient, model: Model) -> None:
    answer = send(client, b"good", rationale="please")
    assert (answer.status_code, answer.json()) == (400, {"detail": "the field rationale is 'please'; say 1 or 0."})
    assert not model.seen


def test_an_unreadable_video_costs_only_its_own_request(client: TestClient) -> None:
    answer = send(client, b"bad", HOSTILE)
    assert answer.status_code == 422
    assert answer.json()["detail"] == "<img src=x onerror='alert(1)'>\\x1b[31m.mp4: is text, not a video"
    assert answer.headers["content-type"] == "application/json"
    assert send(client, b"good").status_code == 200


def test_a_fault_of_ours_says_nothing_of_the_machine(client: TestClient, caplog: pytest.LogCaptureFixture) -> None:
    answer = send(client, b"bug")
    assert (answer.status_code, "secret" in answer.text) == (500, False)
    assert "a secret path" in caplog.text, "the log has it all"
    assert send(client, b"good").status_code == 200


@pytest.mark.parametrize(
    "name", ["../../../etc/passwd.mp4", "/abs/x.mp4", "..\\..\\x.mp4", "a" * 4000 + ".mp4", "\0.mp4"]
)
def test_the_senders_name_is_no_path(client: TestClient, model: Model, name: str) -> None:
    answer = send(client, b"good", name)
    assert answer.status_code == 200, answer.text
    (shown,) = [row[0] for row in model.seen]
    assert Path(shown).name == "video.mp4" and len(Path(shown).parts) == 2
    assert "/" not in answer.json()["video"] and "\\" not in answer.json()["video"].replace("\\x00", "")
    assert len(answer.json()["video"]) <= 200


def test_only_known_suffixes_are_kept(client: TestClient, model: Model) -> None:
    for name in ("x.MKV", "x.m3u8", "x"):
        assert send(client, b"good", name).status_code == 200
    assert [Path(name).name for name, _ in model.seen] == ["video.mkv", "video", "video"]


def test_a_video_over_the_limit_is_refused_before_it_is_read(client: TestClient, model: Model) -> None:
    assert send(client, b"x" * 100_000).status_code == 200
    told = send(client, b"x" * 100_001)
    assert told.status_code == 413 and "larger than 0.1 MB" in told.json()["detail"]
    received = []

    def endless() -> Iterator[bytes]:
        yield b'--B\r\nContent-Disposition: form-data; name="video"; filename="x.mp4"\r\n\r\n'
        for _ in range(200):
            received.append(1)
            yield b"x" * 10_000

    headers = {"content-type": "multipart/form-data; boundary=B"}
    assert client.post("/api/predict", content=endless(), headers=headers).status_code == 413, "no length was stated"
    fields = [b'--B\r\nContent-Disposition: form-data; name="a"\r\n\r\n' + b"x" * 1000 + b"\r\n"] * 1000
    assert client.post("/api/predict", content=iter(fields), headers=headers).status_code == 413, "no file at all"
    lying = {**headers, "content-length": str(10**12)}
    assert client.post("/api/predict", content=b"", headers=lying).status_code == 413
    assert len(model.seen) == 1


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"--B--\r\n", 400),
        (b"nonsense", 400),
        (b'--B\r\nContent-Disposition: form-data; name="video"; filename="x.mp4"\r\n\r\nhalf a file', 400),
        (b'--B\r\nContent-Disposition: form-data; name="other"; filename="x.mp4"\r\n\r\nx\r\n--B--\r\n', 400),
        (b'--B\r\nContent-Disposition: form-data; name="a"\r\n\r\n' + b"x" * 2000 + b"\r\n--B--\r\n", 400),
        (b'--B\r\nContent-Disposition: form-data; name="a"\r\n\r\n\xff\r\n--B--\r\n', 400),
        (2 * b'--B\r\nContent-Disposition: form-data; name="video"; filename="x.mp4"\r\n\r\nx\r\n' + b"--B--\r\n", 400),
    ],
)
def test_forms_that_are_none_are_refused(client: TestClient, model: Model, body: bytes, status: int) -> None:
    answer = client.post("/api/predict", content=body, headers={"content-type": "multipart/form-data; boundary=B"})
    assert answer.status_code == status, answer.text
    assert model.seen == []


def test_what_is_no_form_is_refused(client: TestClient) -> None:
    assert client.post("/api/predict", json={"path": "/etc/passwd"}).status_code == 415
    assert client.get("/api/predict").status_code == 405
    assert client.post("/api/predict", content=b"", headers={"content-type": "multipart/form-data"}).status_code == 415


def dripping(seconds: float) -> Iterator[bytes]:
    """A form of bytes that come now and then."""
    yield b'--B\r\nContent-Disposition: form-data; name="video"; filename="x.mp4"\r\n\r\n'
    for _ in range(100):
        time.sleep(seconds)
        yield b"x"


def test_a_slow_sender_is_let_go(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rbft.serve.upload._PATIENCE", 0.2)
    headers = {"content-type": "multipart/form-data; boundary=B"}
    answer = client.post("/api/predict", content=dripping(0.02), headers=headers)
    assert (answer.status_code, "comes too slowly" in answer.json()["detail"]) == (408, True)
    assert send(client, b"good").status_code == 200


def test_an_upload_has_a_deadline(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    async def never(*_: object) -> None:
        await asyncio.sleep(60)

    with monkeypatch.context() as patch:
        patch.setattr("rbft.serve.app.UPLOAD_SECONDS", 0.1)
        patch.setattr("rbft.serve.app.receive", never)
        answer = send(client, b"good")
    assert (answer.status_code, answer.json()["detail"]) == (408, "the video was not here after 0.1 s.")
    assert send(client, b"good").status_code == 200


def test_a_full_line_is_503_with_a_time(client: TestClient, turns: Turns, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise BusyError(7, "9 videos are in work or waiting; try again in 7 s.")

    monkeypatch.setattr(turns, "use", full)
    answer = send(client, b"good")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "7")
    turns.close()
    assert send(client, b"good").json()["detail"] == "the server is stopping."


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"host": "localhost:9"}, 200),
        ({"host": "[::1]:8420"}, 200),
        ({"host": "192.168.1.5"}, 200),
        ({"host": "MY.host:8420"}, 200),
        ({"host": "evil.example:8420"}, 403),
        ({"host": "127.0.0.1.evil.example"}, 403),
        ({"host": "[::1"}, 403),
        ({"host": ""}, 403),
        ({"origin": ORIGIN}, 200),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "https://127.0.0.1:8420"}, 403),
        ({"origin": "http://127.0.0.1:9999"}, 403),
        ({"origin": "null"}, 403),
        ({"sec-fetch-site": "same-origin"}, 200),
        ({"sec-fetch-site": "none"}, 200),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"sec-fetch-site": "same-site"}, 403),
    ],
)
def test_other_sites_and_other_names_are_refused(
    client: TestClient, model: Model, headers: dict[str, str], status: int
) -> None:
    assert client.get("/api/run", headers=headers).status_code == status
    answer = client.post("/api/predict", files={"video": ("x.mp4", b"good")}, headers=headers)
    assert answer.status_code == status
    assert len(model.seen) == (status == 200)
    assert "default-src 'none'" in answer.headers["content-security-policy"], "refusals carry the headers as well"


def test_every_answer_is_guarded_and_the_page_is_escaped(client: TestClient) -> None:
    page = client.get("/")
    assert "&lt;b&gt;rbft&lt;/b&gt;" in page.text and "b&lt;i&gt;" in page.text and "<b>rbft" not in page.text
    assert "style=" not in page.text and "<style" not in page.text and not page.text.count("onclick")
    for path in ("/", "/page.css", "/page.js", "/api/run", "/api/health", "/nothing"):
        headers = client.get(path).headers
        assert headers["x-content-type-options"] == "nosniff" and headers["cache-control"] == "no-store"
        assert "'unsafe" not in headers["content-security-policy"] and "http" not in headers["content-security-policy"]
    assert client.get("/docs").status_code == client.get("/openapi.json").status_code == 404
    assert client.get("/api/run").json()["labels"] == ["a", "b<i>"]
    assert client.get("/api/run").json()["warnings"] == ["worth <nothing>"]
    assert "<strong>Warning:</strong> worth &lt;nothing&gt;" in client.get("/").text
    assert client.get("/api/health").json() == {"status": "ok", "in_work_or_waiting": 0}


def test_the_accuracy_stands_beside_chance_and_majority(model: Model, turns: Turns) -> None:
    figures = {
        "test/accuracy": 0.5,
        "test/accuracy_ci95": [0.25, 0.75],
        "test/num_videos": 12,
        "chance/accuracy": 0.5,
        "majority/accuracy": None,
    }
    told = About("run", "builtin/tiny", ("a", "b"), figures)
    with TestClient(make_app(model, told, model.folder, 0.1, turns), base_url=ORIGIN) as asked:
        page = " ".join(asked.get("/").text.split())
    assert "50.0% of 12 test videos (95% interval 25.0 to 75.0; guessing: 50.0)." in page


def test_a_folder_that_takes_no_more_is_told_in_a_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    gone = tmp_path / "gone"
    app = make_app(Model(gone), About("x", "y", ("a",), {}), gone, 0.1, Turns(2), [])
    with TestClient(app, base_url=ORIGIN, raise_server_exceptions=False) as client:
        answer = send(client, b"good")
        assert (answer.status_code, "no room to receive a video" in answer.json()["detail"]) == (507, True)
        assert str(gone) in caplog.text and "Traceback" not in caplog.text
        gone.mkdir()
        assert send(client, b"good").status_code == 200
