"""What a run left in its folder, read back without a model, torch or the experiment's own files."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from rbft.errors import DataError
from rbft.experiment import METHODS, TEST_KINDS
from rbft.files import read_json, read_yaml
from rbft.runs.names import EXPERIMENT, LABELS, METRICS, PREDICTIONS, PUBLISHED, VALIDATION
from rbft.runs.stage_record import StageRecord, read_record

REPLICATES = ("seed_everything", "data.draw")
"""Keys that repeat a run rather than change its method."""


def find_runs(folder: Path) -> list[Path]:
    """The run folders in `folder` and below it, behind links too, each once and by name; archived ones are left out."""
    runs = []
    seen: set[Path] = set()
    for path, folders, files in os.walk(folder, followlinks=True):
        # a link may lead back to a folder above
        if (place := Path(path).resolve()) in seen:
            folders.clear()
            continue
        seen.add(place)
        folders[:] = sorted(name for name in folders if ".old-" not in name and not name.startswith("."))
        if EXPERIMENT in files:
            runs.append(Path(path))
            folders.clear()
    return runs


def stage_records(folder: Path) -> Iterator[tuple[Path, StageRecord]]:
    """The folder and the record of each finished stage of a run.

    Raises:
        StageError: A record is not one of this version.
    """
    for path in sorted(folder.glob("*/stage.json")):
        if ".old-" not in path.parent.name and (record := read_record(path.parent)) is not None:
            yield path.parent, record


def read_accuracy(folder: Path) -> float | None:
    """The accuracy that a run published; None where it tested nothing.

    Raises:
        DataError: metrics.json holds a value that is not an accuracy.
    """
    path = folder / METRICS
    if not path.is_file():
        return None
    metrics = read_json(path)
    value = metrics.get("test/accuracy") if isinstance(metrics, dict) else "no figures"
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
        raise DataError(f"{path}: 'test/accuracy' must be a number from 0 to 1, found {value!r}.")
    return float(value)


def has_results(folder: Path, stages: Sequence[str]) -> bool:
    """Whether what a run leaves at the end is there, and is of these very stages.

    Args:
        folder: folder of the run.
        stages: names of the stages, in order.
    """
    if not all((folder / name).is_file() for name in PUBLISHED):
        return False
    try:
        return RunFolder(folder).listed == tuple(stages)
    except DataError:
        return False  # which stages they are of cannot be read, so they are made anew


@dataclass(frozen=True)
class RunFolder:
    """A run's folder, finished or not.

    Args:
        path: the folder.
    """

    path: Path

    @cached_property
    def config(self) -> dict[str, Any]:
        """Its resolved experiment file.

        Raises:
            DataError: The file is not an experiment of a run.
        """
        path = self.path / EXPERIMENT
        content = read_yaml(path)
        if not isinstance(content, dict) or not isinstance(content.get("data"), dict):
            raise DataError(f"{path}: not the experiment of a run: it has no keys and values under `data`.")
        return content

    @property
    def experiment(self) -> str:
        """The experiment's name."""
        return str(self.config.get("experiment") or self.path.resolve().parent.parent.name)

    @property
    def method(self) -> str:
        """The method that was chosen."""
        return str(self.config.get("method") or self.path.resolve().parent.name)

    @property
    def data(self) -> dict[str, Any]:
        """The settings of its data."""
        section: dict[str, Any] = self.config["data"]
        return section

    def setting(self, key: str) -> Any:
        """The value of a dotted key; None where it is not set."""
        value: Any = self.config
        for part in key.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        return value

    @cached_property
    def accuracy(self) -> float | None:
        """Accuracy of its test; None while the run is not finished."""
        return read_accuracy(self.path)

    @cached_property
    def metrics(self) -> dict[str, Any]:
        """All its metrics; empty while the run is not finished."""
        return {} if self.accuracy is None else dict(read_json(self.path / METRICS))

    @property
    def floors(self) -> tuple[float | None, float | None]:
        """Accuracy of guessing, and of always answering the class most frequent in training; None where not known."""
        values = (self.metrics.get("chance/accuracy"), self.metrics.get("majority/accuracy"))
        chance, majority = (float(value) if isinstance(value, (int, float)) else None for value in values)
        return chance, majority

    @property
    def labelled(self) -> float | None:
        """Labelled videos that it used, for training and for choosing; None where it does not say."""
        value = self.metrics.get("labels/videos")
        return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None

    @property
    def predictions(self) -> Path:
        """Its predictions, once it is finished."""
        return self.path / PREDICTIONS

    @property
    def validation(self) -> Path | None:
        """Its last test's predictions of the validation videos; None where there is no such file."""
        paths = [path / VALIDATION for path, _ in self.stages_of(*TEST_KINDS)]
        return paths[-1] if paths and paths[-1].is_file() else None

    @cached_property
    def labels(self) -> tuple[str, ...]:
        """Its classes, in the order of its probabilities.

        Raises:
            DataError: There is no list of names.
        """
        path = self.path / LABELS
        names = read_json(path) if path.is_file() else None
        if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
            raise DataError(f"{path}: expected the list of the run's classes; a run leaves it before its first stage.")
        return tuple(names)

    @property
    def listed(self) -> tuple[str, ...]:
        """The stages of its method, in order; empty where its file does not say."""
        methods = self.config.get("methods")
        configured = methods.get(self.method) if isinstance(methods, dict) else None
        return tuple(map(str, configured or METHODS.get(self.method, ())))

    @cached_property
    def stages(self) -> dict[str, tuple[Path, StageRecord]]:
        """Folder and record of each finished stage, by name, in the order of its method.

        Where its file says which stages these are, others are none of its: an earlier experiment left them.
        """
        records = {record.stage: (path, record) for path, record in stage_records(self.path)}
        return {name: records[name] for name in self.listed if name in records} if self.listed else records

    def stages_of(self, *kinds: str) -> list[tuple[Path, StageRecord]]:
        """The finished stages of some kinds."""
        return [entry for entry in self.stages.values() if entry[1].kind in kinds]

    @property
    def seconds(self) -> float | None:
        """Seconds that its finished stages took together; None where it has none."""
        seconds = [record.seconds for _, record in self.stages.values()]
        return sum(seconds) if seconds else None
