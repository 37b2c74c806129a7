"""`rbft label` as a process: what it says, that a kill loses no label, and that `rbft fit` takes what it left."""

from __future__ import annotations

import csv
import signal
import threading
from pathlib import Path

import httpx
import pytest
from tests.support.runs import Run, fit, write_clips
from tests.support.server import served

from rbft.__main__ import main
from rbft.labelling.table import LabelTable

pytest_plugins = ["tests.support.run_fixtures"]


@pytest.fixture
def loose(tmp_path: Path) -> Path:
    """Ten clips in one folder without classes."""
    write_clips(tmp_path / "made", {"train": (5, 5)})
    folder = tmp_path / "clips"
    folder.mkdir()
    for number, clip in enumerate(sorted((tmp_path / "made").rglob("*.mp4"))):
        clip.rename(folder / f"{number}.mp4")
    return folder


def rows(path: Path) -> dict[str, str]:
    with path.open(newline="", encoding="utf-8") as stream:
        return {row["path"]: row["label"] for row in csv.DictReader(stream)}


def test_a_folder_without_classes_is_sent_to_the_page(loose: Path) -> None:
    result = fit(str(loose))
    assert result.code == 1
    assert f"holds 10 videos and nothing that says their classes. Give them classes with `rbft label {loose}`" in (
        result.err
    )


@pytest.mark.slow
def test_a_kill_loses_no_label_that_was_answered(loose: Path) -> None:
    """Killed three times in the middle of a stream of labels: all that was answered stands in a whole table."""
    table = loose / "labels.csv"
    expected: dict[str, str] = {}
    for turn in range(3):
        with served("label", str(loose), "--classes", "fall,sit") as server:
            kept = {row.path: row.label for row in LabelTable(table).read()}
            assert {path: kept.get(path) for path in expected} == expected
            killer = threading.Timer(0.03 + 0.05 * turn, server.process.kill)
            for number in range(10_000):
                clip, label = number % 10, ("fall", "sit", "stand")[(number // 10 + turn) % 3]
                try:
                    assert server.client.post("/api/label", json={"clip": clip, "label": label}).status_code == 200
                except httpx.TransportError:
                    # whether this one was written is not known, and nobody was told that it was
                    expected.pop(f"{clip}.mp4", None)
                    break
                expected[f"{clip}.mp4"] = label
                if number == 3:
                    killer.start()
            killer.join()
            server.process.wait(30)
        found = rows(table)
        assert expected and {path: found[path] for path in expected} == expected


@pytest.mark.slow
def test_labels_of_the_page_are_what_fit_trains_on(loose: Path, tmp_path: Path) -> None:
    with served("label", str(loose), "--classes", "fall,sit") as server:
        assert "10 clips, from a folder without labels" in server.log
        for number in range(8):
            server.client.post("/api/label", json={"clip": number, "label": ("fall", "sit")[number % 2]})
        code, said = server.stop(signal.SIGINT)
    assert code == 130 and f"stopped; 8 of 10 clips have a label, in {loose / 'labels.csv'}." in said
    result = fit(str(loose), "--run_root", str(tmp_path / "runs"), "--dry_run")
    assert result.code == 0, result.err
    assert "8 clips of 2 classes, from the table labels.csv" in result.out


@pytest.mark.slow
def test_a_run_is_asked_and_orders_the_clips(finished: Run, loose: Path) -> None:
    LabelTable(loose / "labels.csv").set("0.mp4", None, "moves left")
    with served("label", str(loose), "--run", str(finished.folder)) as server:
        assert "the run looks at 9 clips without a label" in server.log
        state = server.client.get("/api/state").json()
        assert (state["wanted"], state["order"][-1], state["run"]) == (9, 0, True)
        assert {entry["name"] for entry in state["classes"]} == {"moves left", "turns around quickly"}
        answer = server.client.get("/api/answer/3?rationale=true").json()
        assert sum(entry["probability"] for entry in answer["probabilities"]) == pytest.approx(1)
        assert isinstance(answer["rationale"], str)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--port", "70000"], "--port lies between 0 and 65535"),
        (["--speed", "9"], "--speed is no flag of it"),
        (["--classes", "a,<|end|>"], "control token"),
    ],
)
def test_wrong_flags_are_refused(loose: Path, flags: list[str], message: str, capsys) -> None:
    assert main(["label", str(loose), *flags]) in (1, 2)
    assert message in capsys.readouterr().err
