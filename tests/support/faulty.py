"""A sound folder of videos, and every fault that a check of it has to find."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from rich.console import Console
from tests.support.scenes import scene, write_scene
from tests.support.videos import write_video

from rbft.data.check import check_dataset
from rbft.data.labels import LabelSet
from rbft.data.records import VideoRecord
from rbft.data.splits import Splits, make_splits
from rbft.data.survey import survey
from rbft.errors import DataError
from rbft.video.sampling import FrameSampling

CLASSES = ("jump", "run")
SAMPLING = FrameSampling(num_frames=8)


class Folder:
    """A sound data set of 3 + 1 + 2 clips a class, and what is done to it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.shots: int | None = None
        self.records = [
            VideoRecord(f"{side}-{label}-{i}", f"{side}/{label}{i}.mp4", label, side, f"{side}-{label}-{i}")
            for side, count in (("train", 3), ("val", 1), ("test", 2))
            for label in CLASSES
            for i in range(count)
        ]

    def path(self, record_id: str) -> Path:
        return self.root / next(record.path for record in self.records if record.id == record_id)

    def change(self, record_id: str, **fields: str) -> None:
        self.records = [replace(r, **fields) if r.id == record_id else r for r in self.records]

    def check(self, **options):
        """As the command does: what cannot be made is handed on as the reason."""
        labels: LabelSet | DataError
        splits: Splits | DataError
        try:
            labels = LabelSet.from_records(self.records)
        except DataError as error:
            labels = splits = error
        else:
            try:
                splits = make_splits(self.records, labels, shots=self.shots)
            except DataError as error:
                splits = error
        facts = survey(
            self.root,
            [record.path for record in self.records],
            cache=self.root.parent / "cache",
            console=Console(quiet=True),
            workers=1,
        )
        options = {"shots": self.shots, "sampling": SAMPLING} | options
        return check_dataset(self.root, self.records, splits, labels, facts, **options)


def empty(folder):
    folder.path("train-jump-0").write_bytes(b"")


def missing(folder):
    folder.path("train-run-0").unlink()


def unreadable(folder):
    folder.path("test-jump-0").write_text("<html>404 not found</html>")


def damaged(folder):
    path = write_video(folder.path("test-run-0"), num_frames=60, container_options={"movflags": "faststart"})
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def duplicate(folder):
    add(folder, VideoRecord("copy", "train/copy.mp4", "jump", "train"), folder.path("train-jump-1"))


def duplicate_across_splits(folder):
    add(folder, VideoRecord("leak", "val/leak.mp4", "run", "val"), folder.path("train-run-1"))


def conflicting_labels(folder):
    add(folder, VideoRecord("other", "test/other.mp4", "run", "test"), folder.path("test-jump-1"))


def near_duplicate(folder):
    folder.records.append(VideoRecord("again", "test/again.mp4", "jump", "test"))
    seed = [record.id for record in folder.records].index("train-jump-2")
    write_scene(folder.root / "test/again.mp4", seed, crf=32, size=(72, 96))


def group_across_splits(folder):
    for name in ("train-run-2", "test-run-1"):
        folder.change(name, group="camera 7")


def odd_group(folder):
    folder.change("train-jump-1", group="Ward 3")
    folder.change("test-jump-1", group="ward3")


def label(folder):
    for number, side in enumerate(("train", "test")):
        add(folder, VideoRecord(f"spelt-{side}", f"{side}/spelt.mp4", "Jump", side), 50 + number)


def too_few(folder):
    for number, side in enumerate(("train", "train", "test")):
        add(folder, VideoRecord(f"rare-{number}", f"{side}/rare{number}.mp4", "rare", side), 60 + number)
    folder.shots = 3


def listed_twice(folder):
    add(folder, VideoRecord("once", "train/once.mp4", "jump", "train"), 75)
    folder.records.append(replace(folder.records[-1], id="twice"))


def blank(folder):
    write_video(folder.path("val-jump-0"), scene_of_black())


def reshaped(folder):
    """A recorder that is turned on its side on the way."""
    content = folder.path("test-run-1")
    lying, standing = (content.with_name(f"{name}.h264") for name in ("lying", "standing"))
    write_video(lying, scene(90)[:8])
    write_video(standing, scene(91)[:8].transpose(0, 2, 1, 3))
    content.write_bytes(lying.read_bytes() + standing.read_bytes())
    lying.unlink()
    standing.unlink()


def short(folder):
    write_scene(folder.path("val-run-0"), 70, num_frames=5)


def imbalance(folder):
    for i in range(4):
        add(folder, VideoRecord(f"more-{i}", f"test/more{i}.mp4", "run", "test"), 80 + i)


def scene_of_black():
    return np.zeros((16, 96, 128, 3), np.uint8)


def add(folder: Folder, record: VideoRecord, content: Path | int) -> None:
    """A new video: a copy of a file, or a scene."""
    folder.records.append(record)
    if isinstance(content, Path):
        (folder.root / record.path).write_bytes(content.read_bytes())
    else:
        write_scene(folder.root / record.path, content)


FAULTS: dict[str, tuple[Callable[[Folder], None], set[str]]] = {
    "empty": (empty, {"train-jump-0"}),
    "missing": (missing, {"train-run-0"}),
    "unreadable": (unreadable, {"test-jump-0"}),
    "damaged": (damaged, {"test-run-0"}),
    "duplicate": (duplicate, {"train-jump-1", "copy"}),
    "duplicate_across_splits": (duplicate_across_splits, {"train-run-1", "leak"}),
    "conflicting_labels": (conflicting_labels, {"test-jump-1", "other"}),
    "near_duplicate": (near_duplicate, {"train-jump-2", "again"}),
    "group_across_splits": (group_across_splits, {"train-run-2", "test-run-1"}),
    "odd_group": (odd_group, {"train-jump-1", "test-jump-1"}),
    "label": (label, {"spelt-train", "spelt-test"}),
    "too_few": (too_few, {"rare-0", "rare-1"}),
    "listed_twice": (listed_twice, {"once", "twice"}),
    "blank": (blank, {"val-jump-0"}),
    "reshaped": (reshaped, {"test-run-1"}),
    "short": (short, {"val-run-0"}),
    "imbalance": (imbalance, set()),
}
WARNINGS = {"odd_group", "duplicate", "near_duplicate", "blank", "reshaped", "short", "imbalance"}
