"""Unlabelled videos: which are meant, and that validation and test know none of them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from rich.console import Console
from tests.support.scenes import write_scene

from rbft.data.datamodule import VideoDataModule
from rbft.data.formats import Table
from rbft.errors import ConfigError, DataError
from rbft.pipeline.video_check import inspect_videos


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of six labelled videos by a table with groups, and a folder of three without labels."""
    root = tmp_path_factory.mktemp("unlabelled") / "data"
    rows = ["path,label,split,group"]
    for number in range(12):
        label, split = ("run", "sit")[number % 2], ("train", "train", "train", "train", "val", "test")[number // 2]
        write_scene(root / "clips" / f"{number}.mp4", number)
        rows.append(f"clips/{number}.mp4,{label},{split},g{number}")
    (root / "labels.csv").write_text("\n".join(rows) + "\n")
    for number in range(3):
        write_scene(root / "more" / "deep" / f"{number}.mp4", 100 + number)
    (root / "more" / "notes.txt").write_text("no video")
    return root


@pytest.fixture
def root(made: Path, tmp_path: Path) -> Path:
    """A copy to change."""
    return Path(shutil.copytree(made, tmp_path / "data"))


def module(root: Path, where: str | None, **settings) -> VideoDataModule:
    cache = str(root.parent / "cache")
    return VideoDataModule(str(root), Table(), num_frames=4, shots=2, cache_dir=cache, unlabelled=where, **settings)


def inspected(root: Path, where: str, **settings) -> tuple[VideoDataModule, str]:
    data, console = module(root, where, **settings), Console(record=True, width=300)
    inspect_videos([data], console)
    return data, console.export_text()


def paths(data: VideoDataModule) -> list[str]:
    return [record.path for record in data.unlabelled_videos]


def test_none_unless_named(root):
    assert module(root, None).unlabelled_videos == ()


def test_a_folder_with_all_its_videos(root):
    data, _ = inspected(root, "more")
    assert paths(data) == ["more/deep/0.mp4", "more/deep/1.mp4", "more/deep/2.mp4"]
    assert {record.label for record in data.unlabelled_videos} == {""}
    assert all(data.facts[path].readable for path in paths(data))
    before = data.fingerprint("train", "unlabelled")
    write_scene(root / "more" / "deep" / "1.mp4", 7777)
    assert module(root, "more").fingerprint("train", "unlabelled") != before
    assert module(root, "more").fingerprint("train") == module(root, None).fingerprint("train")


def test_what_a_format_makes_of_that_folder_is_no_class(root, tmp_path):
    for name in ("run", "sit"):
        (tmp_path / "folders" / name).mkdir(parents=True)
    for number in range(12):
        shutil.copy(root / "clips" / f"{number}.mp4", tmp_path / "folders" / ("run", "sit")[number % 2])
    shutil.copytree(root / "more", tmp_path / "folders" / "more")
    data = VideoDataModule(str(tmp_path / "folders"), num_frames=4, shots=2, unlabelled="more")
    assert data.labels.names == ("run", "sit")
    assert len(data.unlabelled_videos) == 3


def test_a_table(root):
    (root / "more.csv").write_text("path,group\nmore/deep/2.mp4,new\nclips/0.mp4,\n")
    data = module(root, "more.csv")
    taken = {record.id for record in data.splits.train}
    if "clips/0.mp4" in taken:
        pytest.fail("choose another draw: the test needs a labelled video that does not train")
    found = data.unlabelled_videos
    (root / "more.csv").write_text("File_Name,Group\nmore/deep/2.mp4,new\nclips/0.mp4,\n")
    assert module(root, "more.csv").unlabelled_videos == found
    # a labelled video keeps its group, and loses its label
    assert [(r.path, r.group, r.label) for r in found] == [("clips/0.mp4", "g0", ""), ("more/deep/2.mp4", "new", "")]


def test_what_the_protocol_leaves_over(root):
    data = module(root, "unused")
    left = {record.id for record in data.splits.unused if record.split == "train"}
    assert {record.id for record in data.unlabelled_videos} == left and len(left) == 4
    assert {record.label for record in data.unlabelled_videos} == {""}


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("clips/8.mp4", r"clips/8\.mp4 is in val; take it off"),
        ("clips/10.mp4", r"clips/10\.mp4 is in test; take it off"),
        ("more/deep/0.mp4\nmore/deep/0.mp4", r"more\.csv, row 3: more/deep/0\.mp4 is named twice"),
        ("more/deep/9.mp4", r"1 of 1 listed videos are not on disk \(more/deep/9\.mp4\)"),
        ("../else.mp4", r"leads out of its folder"),
    ],
)
def test_wrong_rows_are_refused(root, table, message):
    (root / "more.csv").write_text(f"path\n{table}\n")
    with pytest.raises(DataError, match=message):
        _ = module(root, "more.csv").unlabelled_videos


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("nowhere", r"data\.unlabelled: .*nowhere is neither a folder nor a table"),
        ("../data", "leads out"),
        ("empty", r"data\.unlabelled: empty holds no video"),
    ],
)
def test_wrong_places_are_refused(root, where, message):
    (root / "empty").mkdir()
    with pytest.raises((DataError, ConfigError), match=message):
        _ = module(root, where).unlabelled_videos


@pytest.mark.parametrize(("number", "side"), [(8, "val"), (10, "test")])
def test_a_copy_of_what_is_held_out_is_refused(root, number, side):
    shutil.copy(root / "clips" / f"{number}.mp4", root / "more" / "copy.mp4")
    with pytest.raises(DataError, match=rf"1 videos are the same files as videos of {side} \(more/copy\.mp4 is clips/"):
        inspected(root, "more")


def test_a_group_of_what_is_held_out_is_refused(root):
    (root / "more.csv").write_text("path,group\nmore/deep/0.mp4,g10\n")
    with pytest.raises(DataError, match=r"the group 'g10' is on 2 sides.*more/deep/0\.mp4 in unlabelled; .* in test"):
        inspected(root, "more.csv")


def test_what_looks_like_it_is_warned_of_and_so_is_a_copy_of_a_training_video(root):
    data = module(root, None)
    shutil.copy(root / data.splits.train[0].path, root / "more" / "copy.mp4")
    write_scene(root / "more" / "again.mp4", 10, crf=30)
    _, told = inspected(root, "more")
    assert "more/again.mp4 (unlabelled)" in told and "clips/10.mp4 (test) looks like" in told
    assert "1 videos are the same files as labelled training videos (more/copy.mp4" in told


def test_unreadable_ones_follow_the_policy(root):
    (root / "more" / "torn.mp4").write_bytes(b"no video")
    with pytest.raises(DataError, match=r"1 of 4 videos cannot be read, first more/torn\.mp4.*on_bad_video"):
        inspected(root, "more")
    data, told = inspected(root, "more", on_bad_video="skip")
    assert len(data.unlabelled_videos) == 3 and "1 videos cannot be read and are left out" in told


def test_a_stand_in_for_a_bad_training_video_is_no_longer_unlabelled(root):
    data = module(root, "unused")
    (root / data.splits.train[0].path).write_bytes(b"no video")
    data, _ = inspected(root, "unused", on_bad_video="replace_same_class")
    trains = {record.path for record in data.splits.train}
    assert len(trains) == 4 and len(data.unlabelled_videos) == 3
    assert not trains & set(paths(data))
