"""No list, table or link of a data set leads out of its folder."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.support.videos import write_video

from rbft.data.datamodule import VideoDataModule
from rbft.data.formats import (
    UCF101,
    ClassFolders,
    Conversations,
    DatasetFormat,
    Kinetics,
    MMAction,
    Table,
    VideoFolder,
)
from rbft.data.records import VideoRecord
from rbft.data.splits import Splits
from rbft.data.survey import survey
from rbft.data.unlabelled import read_unlabelled
from rbft.errors import DataError, RBFTError, VideoError
from rbft.experiment import read_experiment
from rbft.rationales.store import Rationale
from rbft.terminal import make_console
from rbft.training.logging import log_rationales
from rbft.video.clip import read_clip
from rbft.video.clip_spec import ClipSpec
from rbft.video.container import resolve_inside
from rbft.video.sampling import FrameSampling


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A data root beside a video that is not part of it, in a folder whose name begins alike."""
    for folder in ("data", "data2", "elsewhere"):
        (tmp_path / folder).mkdir()
        write_video(tmp_path / folder / "secret.mp4", num_frames=4, size=(48, 64))
    return tmp_path / "data"


def ways_out(root: Path) -> dict[str, str]:
    """Paths to the video beside the root, by kind."""
    outside = root.parent / "elsewhere" / "secret.mp4"
    return {
        "up": "../elsewhere/secret.mp4",
        "up from below": "a/../../elsewhere/secret.mp4",
        "sibling that begins alike": "../data2/secret.mp4",
        "absolute": str(outside),
        "home": "~/secret.mp4",
        "file URL": f"file://{outside}",
        "file protocol": f"file:{outside}",
        "http": "http://127.0.0.1:9/secret.mp4",
        "concat": f"concat:{outside}|{outside}",
        "subfile": f"subfile,,start,0,end,0,,:{outside}",
        "pipe": "pipe:0",
        "data URL": "data:video/mp4;base64,AAAA",
        "backslash": "..\\elsewhere\\secret.mp4",
        "drive": "C:/secret.mp4",
        "NUL": "a.mp4\0../elsewhere/secret.mp4",
        "escape": "\x1b[2J.mp4",
        "nothing": ".",
    }


KINDS = [*ways_out(Path("/x/data"))]


def write_table(root: Path, path: str) -> DatasetFormat:
    with (root / "labels.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([["path", "label"], [path, "a"], ["secret.mp4", "b"]])
    return Table()


def write_jsonl(root: Path, path: str) -> DatasetFormat:
    (root / "labels.jsonl").write_text(json.dumps({"path": path, "label": "a"}) + "\n")
    return Table("labels.jsonl")


def write_metadata(root: Path, path: str) -> DatasetFormat:
    (root / "metadata.jsonl").write_text(json.dumps({"file_name": path, "label": "a"}) + "\n")
    return VideoFolder()


def write_conversations(root: Path, path: str) -> DatasetFormat:
    turns = [{"role": "user", "content": "which?"}, {"role": "assistant", "content": "a"}]
    (root / "train.json").write_text(json.dumps([{"messages": turns, "videos": [path]}]))
    return Conversations()


def write_list(root: Path, path: str) -> DatasetFormat:
    (root / "train.txt").write_text(f"{path} 0\n")
    (root / "classes.txt").write_text("a\nb\n")
    return MMAction()


def write_ucf101(root: Path, path: str) -> DatasetFormat:
    lists = root / "ucfTrainTestlist"
    lists.mkdir()
    (lists / "classInd.txt").write_text("1 A\n2 B\n")
    (lists / "trainlist01.txt").write_text(f"{path} 1\n")
    (lists / "testlist01.txt").write_text("A/v_A_g01_c01.avi\n")
    return UCF101()


def write_kinetics(root: Path, path: str) -> DatasetFormat:
    with (root / "train.csv").open("w", newline="") as stream:
        rows = [["label", "youtube_id", "time_start", "time_end", "split"], ["a", path, "0", "10", "train"]]
        csv.writer(stream).writerows(rows)
    return Kinetics()


WRITERS = [write_table, write_jsonl, write_metadata, write_conversations, write_list, write_ucf101, write_kinetics]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("write", WRITERS)
def test_rows_that_lead_out(write: Callable[[Path, str], DatasetFormat], kind: str, root: Path) -> None:
    layout = write(root, ways_out(root)[kind])
    with pytest.raises(RBFTError) as caught:
        layout.read(root)
    assert str(root) in str(caught.value) or "annotation" in str(caught.value), "the message names the file"
    assert "\x1b" not in str(caught.value)


@pytest.mark.parametrize("kind", KINDS)
def test_files_of_a_format_that_lie_elsewhere(kind: str, root: Path) -> None:
    way = ways_out(root)[kind]
    for layout in (Table(file=way), Conversations(train=way), MMAction(train=way), UCF101(lists=way)):
        with pytest.raises(DataError):
            layout.read(root)


@pytest.mark.parametrize("kind", KINDS)
def test_videos_that_lie_elsewhere(kind: str, root: Path) -> None:
    with pytest.raises(VideoError):
        resolve_inside(root, ways_out(root)[kind])
    with pytest.raises(VideoError):
        read_clip(ways_out(root)[kind], ClipSpec(FrameSampling(num_frames=2)), root=root)


def test_links_out_of_the_root(root: Path) -> None:
    outside = root.parent / "elsewhere"
    (root / "secret.mp4").unlink()
    for name in ("a", "b"):
        (root / name).mkdir()
        (root / name / "link.mp4").symlink_to(outside / "secret.mp4")
    (root / "c").symlink_to(outside, target_is_directory=True)
    records = ClassFolders().read(root)
    assert {record.path for record in records} >= {"a/link.mp4", "c/secret.mp4"}, "a link is a file until it is opened"
    for record in records:
        with pytest.raises(VideoError, match="outside of the data folder"):
            read_clip(record.path, ClipSpec(FrameSampling(num_frames=2)), root=root)
    facts = survey(root, [r.path for r in records], cache=root.parent / "cache", console=make_console(), workers=1)
    assert {fact.problem for fact in facts.values()} == {"missing"}
    assert not {fact.digest for fact in facts.values()} - {""}, "not even its hash is told"


def test_links_to_annotation_files_of_others(root: Path) -> None:
    """What is wrong with a table is told with what stands in it, so that a foreign one is not read."""
    foreign = root.parent / "elsewhere" / "notes.csv"
    foreign.write_text("password=hunter2\n1\n")
    ways: dict[str, DatasetFormat] = {
        "labels.csv": Table(),
        "metadata.csv": VideoFolder(),
        "train.txt": MMAction(),
    }
    (root / "classes.txt").write_text("a\n")
    for name, layout in ways.items():
        (root / name).symlink_to(foreign)
        with pytest.raises(DataError, match="outside of the data root") as caught:
            layout.read(root)
        assert "hunter2" not in str(caught.value)
    for name in ("unlabelled.csv", "unlabelled"):
        (root / name).symlink_to(foreign if "." in name else foreign.parent)
        with pytest.raises(DataError, match="outside of the data root"):
            read_unlabelled(root, name, [], Splits((), (), (), ()))
    (root / "own.csv").symlink_to("below/labels.csv")
    (root / "below").mkdir()
    (root / "below" / "labels.csv").write_text("path,label\nsecret.mp4,a\n")
    assert len(Table("own.csv").read(root)) == 1


def test_a_rationale_file_cannot_show_other_files(root: Path, tmp_path: Path) -> None:
    data = VideoDataModule(str(root), num_frames=2, cache_clips=False)
    for way in ways_out(root).values():
        foreign = Rationale("1", 0, way, "a", "00", "blind", "me", "text", None, "text", False)
        with pytest.raises(VideoError):
            log_rationales(tmp_path / "log", data, [foreign])


@pytest.mark.parametrize("name", ["..", "../up", "/tmp/x", "a/b", "", ".", "a\\b", "a\0b"])
@pytest.mark.parametrize("key", ["experiment", "variant", "stage"])
def test_names_of_run_folders_are_no_paths(key: str, name: str, tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    content: dict[str, object] = {"stages": {"test": {}}, "methods": {"m": ["test"]}, "method": "m"}
    if key == "stage":
        content |= {"stages": {name: {"kind": "test"}}, "methods": {"m": [name]}}
    else:
        content |= {key: name}
    path.write_text(json.dumps(content))
    with pytest.raises(RBFTError, match=r"becomes a folder name|not valid YAML"):
        read_experiment(["--config", str(path)])


def test_a_record_is_checked_again_when_it_is_opened(root: Path) -> None:
    record = VideoRecord("1", "../elsewhere/secret.mp4", "a")
    with pytest.raises(VideoError, match="outside of the data folder"):
        read_clip(record.path, ClipSpec(FrameSampling(num_frames=2)), root=root)
