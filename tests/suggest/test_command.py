"""`rbft suggest` on a finished run: what is left, what is left out, and what is refused."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pytest
import yaml
from tests.support.runs import CLASSES, Run

from rbft.__main__ import main
from rbft.evaluation.predictions import read_predictions
from rbft.suggest.suggestions import held_out_answers

pytest_plugins = ["tests.support.run_fixtures"]


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


@pytest.fixture
def unlabelled(clips: Path, tmp_path: Path) -> Path:
    """Three clips that differ from those of the data set, a copy of a labelled one, and a file that is no video."""
    folder = tmp_path / "new <b>clips"
    folder.mkdir()
    for number, clip in enumerate(sorted((clips / "train").rglob("*.mp4"))[:3]):
        # another file of the same pictures: bytes behind the last box are no part of a video
        (folder / f"{number}.mp4").write_bytes(clip.read_bytes() + bytes([0, 0, 0, 8]) + b"free")
    shutil.copy(next((clips / "test").rglob("*.mp4")), folder / "copy.mp4")
    (folder / "broken.mp4").write_text("no video")
    return folder


def test_clips_to_label_and_labels_to_doubt(
    finished: Run, unlabelled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    to = tmp_path / "found"
    assert main(["suggest", "--run", str(finished.folder), str(unlabelled), "--to", str(to), "--count", "2"]) == 1
    said = capsys.readouterr().out
    assert "13 labelled clips in the run's data set" in said
    assert "4 clips without a label; 1 more have a label, or are copies of clips that have" in said
    assert "1 videos cannot be read, first broken.mp4: is text, not a video" in said
    rows = table(to / "label_next.csv")
    assert len(rows) == 2 and {row["path"] for row in rows} <= {"0.mp4", "1.mp4", "2.mp4"}
    assert all(row["predicted"] in CLASSES and 0.5 <= float(row["probability"]) <= 1 for row in rows)
    assert rows[0]["path"] in said
    page = (to / "suggestions.html").read_text()
    assert page.count("data:image/jpeg") == 2 + len(table(to / "look_again.csv"))
    assert "A linear probe that was fitted to other clips judged" in page and "<b>clips" not in page
    for row in table(to / "look_again.csv"):
        assert row["label"] != row["rather"] and row["judged_by"] in ("test", "validation", "probe")
    assert main(["suggest", "--run", str(finished.folder), str(unlabelled), "--to", str(to)]) == 1
    assert (tmp_path / "found.old-1" / "label_next.csv").is_file(), "earlier suggestions are kept"
    assert len(table(to / "label_next.csv")) == 3, "no more than there are"


def test_labelled_clips_that_were_moved_are_found_where_a_flag_says(
    copy: Run, clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = copy.folder / "experiment.yaml"
    content = yaml.safe_load(path.read_text())
    content["data"]["root"] = "my clips"
    path.write_text(yaml.safe_dump(content))
    monkeypatch.chdir(tmp_path)
    command = ["suggest", "--run", str(copy.folder), "--simulate", "2", "--count", "2"]
    assert main(command) == 1
    said = capsys.readouterr().err
    assert f"no folder {tmp_path / 'my clips'}" in said and "starts at the current folder" in said
    for flags in (["--data.root", str(clips)], [f"--data.root={clips}"]):
        assert main([*command, *flags]) == 0
        assert "13 labelled clips in the run's data set" in capsys.readouterr().out
    assert main([*command, "--data.root", "gone"]) == 1
    assert f"data.root: no folder {tmp_path / 'gone'}" in capsys.readouterr().err
    shutil.copytree(clips, tmp_path / "my clips")
    assert main(command) == 0


def test_a_folder_that_holds_anything_else_is_refused_and_left_as_it_is(
    finished: Run, unlabelled: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    line = ["suggest", "--run", str(finished.folder), str(unlabelled), "--count", "1", "--to"]
    before = sorted(path.name for path in unlabelled.iterdir())
    assert main([*line, str(unlabelled)]) == 2
    assert "holds something else than earlier suggestions (0.mp4, 1.mp4" in capsys.readouterr().err
    monkeypatch.chdir(unlabelled)
    assert main([*line, "."]) == 2
    assert "--to .: is the folder you are in" in capsys.readouterr().err
    assert main([*line, "broken.mp4"]) == 2
    assert "broken.mp4: is a file; name another place for the folder" in capsys.readouterr().err
    assert sorted(path.name for path in unlabelled.iterdir()) == before


def test_answers_that_the_weights_were_not_trained_on_are_taken_from_the_run(finished: Run) -> None:
    found = held_out_answers(finished.folder)
    assert found["test"] == read_predictions(finished.folder / "predictions.jsonl")
    assert {said.video.split("/")[0] for said in found["validation"]} == {"val"}


def test_methods_are_measured_on_the_labelled_clips(
    finished: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    to = tmp_path / "found"
    line = ["suggest", "--run", str(finished.folder), "--simulate", "3", "--to", str(to)]
    assert main([*line, "--count", "2"]) == 0
    said = capsys.readouterr().out
    assert "accuracy of a linear probe, by labels" in said and "diverse: " in said and "points over random" in said
    document = json.loads((to / "simulation.json").read_text())
    assert (document["draws"], document["clips"], document["labels"][:2]) == (3, 13, [2, 4])
    assert len(document["typiclust"]["accuracy"]) == 3
    assert main(line) == 1
    assert "13 labelled clips are too few for batches of 20" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--count", "0"], "--count 0: must be at least 1"),
        (["--simulate", "1"], "--simulate 1: at least 2 draws"),
        (["--simulate", "3", "clips"], "name no videos"),
        (["--method", "guess"], "invalid choice: 'guess'"),
        (["--model.vlm", "x"], "--model.vlm: a run is predicted with as it was tested"),
        (["--seed", "-1"], "--seed -1: must not be negative"),
    ],
)
def test_wrong_flags_are_refused_before_anything_is_read(
    finished: Run, flags: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["suggest", "--run", str(finished.folder), *flags]) == 2
    assert message in capsys.readouterr().err
