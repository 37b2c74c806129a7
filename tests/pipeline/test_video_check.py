"""`rbft check`, and what a run does about bad videos before a model is loaded."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from tests.support.scenes import scene, write_scene
from tests.support.videos import write_video

from rbft.__main__ import main
from rbft.data.formats import ClassFolders
from rbft.pipeline import video_check

CLASSES = ("run", "walk")


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """Four train, one validation and four test clips a class, all different."""
    root = tmp_path / "clips"
    seed = 0
    for side, count in (("train", 4), ("val", 1), ("test", 4)):
        for label in CLASSES:
            for number in range(count):
                path = root / side / label / f"{number}.mp4"
                path.parent.mkdir(parents=True, exist_ok=True)
                write_scene(path, seed)
                seed += 1
    return root


@pytest.fixture
def command(tmp_path: Path, dataset: Path, family_folder: Callable[[str], Path]) -> Callable[..., int]:
    """Run a command on an experiment over the data set."""
    content = {
        "data": {"root": str(dataset), "format": {"class_path": "ClassFolders"}, "shots": 3, "num_frames": 4},
        "model": {"vlm": str(family_folder("qwen2_5_vl"))},
        "trainer": {"accelerator": "cpu", "devices": 1, "max_steps": 1},
        "stages": {"classification": {}, "test": {}},
        "method": "sft",
    }
    file = tmp_path / "small.yaml"
    file.write_text(yaml.safe_dump(content))
    return lambda name, *flags: main([name, "--config", str(file), "--run_root", str(tmp_path / "runs"), *flags])


def findings(tmp_path: Path) -> set[str]:
    report = json.loads((tmp_path / "runs/small/sft/seed0/check.json").read_text())
    return {finding["kind"] for finding in report["findings"]}


def test_a_sound_data_set_passes(command, tmp_path, capsys):
    assert command("check") == 0
    assert findings(tmp_path) == set()
    assert "nothing is wrong" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["check", "fit"])
def test_no_file_vanishes_without_a_word(name, command, dataset, tmp_path, capsys):
    for file in ("train/run/._0.mp4", "train/run/.trash/9.mp4", "train/walk/cover.jpg", "spare/0.mp4", "notes.txt"):
        (dataset / file).parent.mkdir(exist_ok=True)
        (dataset / file).write_bytes(b"whatever")
    video = dataset / "train/run/9.MTS"
    write_video(video, scene(99), container="mpegts")
    assert command(name, "--data.format.skip", "[spare]") == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "1 video that the data set does not name (spare/0.mp4)" in said
    kinds = (
        "2 files without a video's suffix (.txt 1, .jpg 1)" if name == "check" else "1 file without a video's suffix"
    )
    assert kinds in said and "2 hidden files or folders (._0.mp4, .trash)" in said
    if name == "check":
        counts = json.loads((tmp_path / "runs/small/sft/seed0/check.json").read_text())["counts"]
        assert sum(counts["train"].values()) == 6, "three of each class, as asked for"
        report = json.loads((tmp_path / "runs/small/sft/seed0/check.json").read_text())
        assert any("left out are" in note for note in report["notes"])
    assert "train/run/9.MTS" in json.dumps([record.path for record in ClassFolders(skip=("spare",)).read(dataset)])


def test_a_table_that_was_read_is_not_left_out(command, dataset, capsys):
    videos = [path.relative_to(dataset).as_posix() for path in sorted(dataset.rglob("*.mp4"))]
    rows = [f"{video},{video.split('/')[1]},{video.split('/')[0]}" for video in videos]
    (dataset / "all.csv").write_text("\n".join(["path,label,split", *rows]))
    assert command("check", "--data.format", "Table", "--data.format.file", "all.csv") == 0
    assert "left out" not in capsys.readouterr().out
    (dataset / "other.csv").touch()
    assert command("check", "--data.format", "Table", "--data.format.file", "all.csv") == 0
    assert "left out are 1 file without a video's suffix (.csv 1)" in " ".join(capsys.readouterr().out.split())


def test_everything_wrong_is_reported_at_once(command, dataset, tmp_path, capsys):
    (dataset / "train/run/0.mp4").write_bytes(b"")
    (dataset / "test/walk/1.mp4").write_text("no video at all")
    shutil.copy(dataset / "train/walk/2.mp4", dataset / "test/walk/2.mp4")
    assert command("check") == 1
    assert findings(tmp_path) >= {"empty", "unreadable", "duplicate_across_splits"}
    said = capsys.readouterr().out
    assert "train/run/0.mp4" in said and "test/walk/1.mp4" in said


def test_unlabelled_videos_are_checked_too(command, dataset, tmp_path, capsys):
    spare = ("--data.format.skip", "[spare]", "--data.unlabelled", "spare")
    write_scene(dataset / "spare" / "new.mp4", 500)
    assert command("check", *spare) == 0
    shutil.copy(dataset / "test/run/0.mp4", dataset / "spare" / "known.mp4")
    assert command("check", *spare) == 1
    assert findings(tmp_path) == {"splits"}
    assert "the same files as videos of test (spare/known.mp4 is test/run/0.mp4)" in " ".join(
        capsys.readouterr().out.split()
    )
    assert command("fit", *spare) == 1
    assert "data.unlabelled: 1 videos are the same files" in capsys.readouterr().err
    assert not list(tmp_path.glob("runs/**/stage.json"))


def test_labels_that_collide_are_a_finding(command, dataset, tmp_path):
    (dataset / "train/run").rename(dataset / "train/Walk_")
    assert command("check") == 1
    assert "label" in findings(tmp_path)


def test_what_a_run_will_cost_is_reported(command, tmp_path, capsys):
    assert command("check", "--data.max_visual_tokens", "5") == 0
    document = json.loads((tmp_path / "runs/small/sft/seed0/check.json").read_text())["estimate"]
    assert [stage["name"] for stage in document["stages"]] == ["classification", "test"]
    assert document["stages"][0]["memory"]["training"] > 0
    assert document["clips"]["ranges"]["visual tokens"]["max"] == document["clips"]["most_tokens"] <= 5
    said = capsys.readouterr().out
    assert "most visual tokens: " in said and "estimate for CPU" in said


def unscorable(tmp_path: Path) -> list[tuple[str, int, str]]:
    report = json.loads((tmp_path / "runs/small/sft/seed0/check.json").read_text())
    assert report["estimate"]["stages"] == []
    return [(finding["kind"], len(finding["ids"]), finding["message"]) for finding in report["findings"]]


def test_a_label_with_a_special_token_of_the_model_is_a_finding(command, tmp_path):
    assert command("check", "--model.prompts.label_texts", '{"run": "run <|im_end|>", "walk": "<|im_end|>"}') == 1
    (first, videos, message), (second, *_) = unscorable(tmp_path)
    assert (first, second, videos) == ("unscorable", "unscorable", 9)
    assert "'run'" in message and "'<|im_end|>'" in message and "model.prompts.label_texts" in message


def test_labels_that_are_the_same_for_the_model_are_a_finding(command, dataset, tmp_path):
    for side in ("train", "val", "test"):
        (dataset / side / "run").rename(dataset / side / "日")
        (dataset / side / "walk").rename(dataset / side / "月")
    # words that the built-in model does not know
    assert command("check", "--model.vlm", "builtin/tiny") == 1
    ((kind, videos, message),) = unscorable(tmp_path)
    assert (kind, videos) == ("unscorable", 18)
    assert "'日', '月' as the same tokens" in message


def test_labels_of_one_text_are_a_finding(command, tmp_path):
    assert command("check", "--model.prompts.label_texts", '{"run": "go", "walk": "Go"}') == 1
    found = unscorable(tmp_path)
    assert [kind for kind, *_ in found] == ["label", "unscorable"]
    assert all("model.prompts.label_texts" in message for *_, message in found)


def test_odd_names_are_asked_about_and_names_that_read_alike_may_be_written_apart(command, dataset, tmp_path):
    for split in ("train", "val", "test"):
        (dataset / split / "run").rename(dataset / split / "none")
        (dataset / split / "walk").rename(dataset / split / "None")
    assert command("check") == 1
    (path,) = tmp_path.rglob("check.json")
    messages = [finding["message"] for finding in json.loads(path.read_text())["findings"]]
    assert any("'none' reads the same as 'None'" in message for message in messages)
    assert sum("a class? Tables and folders hold it where a label is missing" in message for message in messages) == 2
    assert command("check", "--model.prompts.label_texts", '{"none": "nothing", "None": "nobody"}') == 0


def test_folders_of_splits_are_no_classes(command, dataset, capsys):
    (dataset / "train").rename(dataset / "training_set")
    (dataset / "test").rename(dataset / "testing_set")
    (dataset / "val").rename(dataset / "val_set")
    assert command("check") == 1
    said = capsys.readouterr().err
    assert "testing_set, training_set, val_set classes or splits? Rename splits to train, val and test" in said


def test_a_model_that_cannot_be_had_is_a_finding_beside_the_others(command, dataset, tmp_path):
    (dataset / "train/run/0.mp4").write_bytes(b"")
    assert command("check", "--model.vlm", "nobody/nothing") == 1
    kinds = [kind for kind, *_ in unscorable(tmp_path)]
    assert kinds[0] == "empty" and kinds[-1] == "model"


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("--trainer.precision", "64"),
        ("--model.dtype", "float16"),
        ("--stages.test.model.robustness.swap", "true"),
        ("--model.quantize", "4bit"),
    ],
)
def test_settings_that_a_run_refuses_are_a_finding(command, tmp_path, capsys, flag, value):
    assert command("fit", flag, value) != 0
    refusal = " ".join(capsys.readouterr().err.split()).removeprefix("rbft: ")
    assert command("check", flag, value) == 1
    report = json.loads((tmp_path / "runs/small/sft/seed0/check.json").read_text())
    assert refusal in {" ".join(finding["message"].split()) for finding in report["findings"]}


def test_a_leak_stops_a_run(command, dataset, capsys):
    shutil.copy(dataset / "train/walk/2.mp4", dataset / "test/walk/2.mp4")
    assert command("fit") == 1
    said = capsys.readouterr().err
    assert "train/walk/2.mp4" in said and "test/walk/2.mp4" in said and "rbft check" in said


def test_a_bad_video_stops_a_run_by_default(command, dataset, capsys, monkeypatch):
    monkeypatch.setattr("rbft.training.module.load_model", lambda *_: pytest.fail("a model was loaded"))
    (dataset / "test/run/3.mp4").write_bytes(b"")
    assert command("fit") == 1
    said = capsys.readouterr().err
    assert "test/run/3.mp4" in said and "data.on_bad_video" in said


def test_a_skipped_test_video_counts_as_wrong(command, dataset, tmp_path, capsys):
    (dataset / "test/run/3.mp4").write_bytes(b"")
    assert command("fit", "--data.on_bad_video", "skip") == 0
    run = tmp_path / "runs/small/sft/seed0"
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["test/num_videos"] == 8
    assert metrics["test/num_unreadable"] == 1
    rows = [json.loads(line) for line in (run / "predictions.jsonl").read_text().splitlines()]
    right = sum(row["predicted"] == row["label"] for row in rows)
    assert metrics["test/accuracy"] == right / 8
    assert [row["predicted"] for row in rows if row["video"] == "test/run/3.mp4"] == [None]
    assert "counts as wrong" in capsys.readouterr().out


def test_a_bad_training_video_is_replaced_by_its_own_class(command, dataset, tmp_path):
    assert command("fit", "--dry_run") == 0
    assert command("fit") == 0
    run = tmp_path / "runs/small/sft/seed0"
    before = json.loads((run / "splits.json").read_text())["train"]
    bad = next(path for path in before if path.startswith("train/run"))
    (dataset / bad).write_bytes(b"")
    assert command("fit", "--data.on_bad_video", "skip") == 1  # three shots were asked for
    assert command("fit", "--data.on_bad_video", "replace_same_class") == 0
    after = json.loads((run / "splits.json").read_text())["train"]
    assert set(before) - set(after) == {bad}
    (new,) = set(after) - set(before)
    assert new.startswith("train/run")


def test_what_is_looked_at_is_not_decoded_a_second_time(command, tmp_path, monkeypatch):
    monkeypatch.setattr("rbft.video.clip_cache.read_clip", None)  # whoever needs it fails
    assert command("fit", "--data.cache_dir", str(tmp_path / "cache"), "--data.max_pixels", "4096") == 0


@pytest.mark.parametrize(
    ("flags", "kept"),
    [
        ((), 16),
        (("--data.on_bad_video", "replace_same_class"), 0),
        (("--data.cache_clips", "false"), 0),
    ],
)
def test_clips_are_kept_of_the_videos_that_stages_read_only(command, tmp_path, flags, kept):
    assert command("fit", "--dry_run", "--data.cache_dir", str(tmp_path / "cache"), *flags) == 0
    assert len(list((tmp_path / "cache").glob("*.clip"))) == kept


def test_stages_that_share_their_videos_are_checked_once(command, monkeypatch):

    calls: list[int] = []
    original = video_check.check_dataset
    monkeypatch.setattr(video_check, "check_dataset", lambda *a, **k: calls.append(1) or original(*a, **k))
    assert command("fit", "--dry_run") == 0
    assert calls == [1]


def test_taking_an_unreadable_video_off_the_list_makes_another_test(command, dataset, tmp_path):
    bad = dataset / "test/run/3.mp4"
    bad.write_bytes(b"")
    assert command("fit", "--data.on_bad_video", "skip") == 0
    bad.unlink()
    assert command("fit", "--data.on_bad_video", "skip") == 0
    metrics = json.loads((tmp_path / "runs/small/sft/seed0/metrics.json").read_text())
    assert (metrics["test/num_videos"], metrics["test/num_unreadable"]) == (7, 0)


def test_what_the_table_alone_shows_is_said_before_a_video_is_opened(command, dataset, capsys, monkeypatch):
    monkeypatch.setattr("rbft.pipeline.video_check.survey", lambda *_, **__: pytest.fail("a video was looked at"))
    for name, *flags in (("fit",), ("fit", "--dry_run")):
        assert command(name, *flags, "--data.shots", "5") == 1
        assert "data.shots: the class 'run' has 4 training videos, 5 are asked for" in capsys.readouterr().err


def test_check_says_what_the_table_shows_first_and_looks_all_the_same(command, dataset, tmp_path, capsys, monkeypatch):
    said: list[str] = []
    inspect = video_check.survey

    def looking(*args, **settings):
        said.append(capsys.readouterr().out)
        return inspect(*args, **settings)

    monkeypatch.setattr("rbft.pipeline.video_check.survey", looking)
    (dataset / "train/run/0.mp4").write_bytes(b"")
    assert command("check", "--data.shots", "5") == 1
    assert "the class 'run' has 4 training videos, 5 are asked for" in " ".join(said[0].split())
    assert findings(tmp_path) >= {"empty", "too_few"}


def test_validation_shots_beside_a_stated_split_are_not_ignored_in_silence(command, capsys):
    assert command("check", "--data.val_shots", "1") == 0
    assert "data.val_shots (1) has no effect" in " ".join(capsys.readouterr().out.split())
    assert command("fit", "--dry_run", "--data.val_shots", "1") == 0
    assert "data.val_shots (1) has no effect" in " ".join(capsys.readouterr().out.split())


def test_stages_over_one_data_set_read_it_once(command, dataset, tmp_path, monkeypatch):
    reads = []
    read = ClassFolders.read
    monkeypatch.setattr(ClassFolders, "read", lambda self, root: reads.append((root, self.skip)) or read(self, root))
    assert command("fit", "--dry_run") == 0
    assert reads == [(dataset, ())]
    reads.clear()
    other = Path(shutil.copytree(dataset, tmp_path / "other"))
    assert command("fit", "--dry_run", "--stages.test.data.root", str(other)) == 0
    assert reads == [(dataset, ()), (other, ())], "another folder is another data set"
    reads.clear()
    skip = ("--stages.test.data.format.init_args.skip", '["nothing"]')
    assert command("fit", "--dry_run", *skip) == 0
    assert reads == [(dataset, ()), (dataset, ("nothing",))], "read in another way it is, too"
