"""Soft labels on disk: the probabilities that a model gave each class of a clip after rationales of its own."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rbft.data.records import VideoRecord
from rbft.errors import DataError, StageError
from rbft.files import append_jsonl, read_jsonl, write_jsonl
from rbft.runs.names import SOFT_LABELS


@dataclass(frozen=True)
class SoftLabel:
    """What a model answered about one clip.

    Args:
        id: id of the video.
        view: number of the clip among those of its video, from 0.
        video: path of the video under the data root, with its part if it is one.
        label: class of the video; empty where it is not known.
        frames_seed: seed that the clip's frames were drawn by; None for the frames that a stage takes by default.
        model: model that answered, with the lineage of its weights.
        classes: names of the classes.
        probabilities: probability of each class, averaged over the rationales.
        texts: rationales that it was answered after.
    """

    id: str
    view: int
    video: str
    label: str
    frames_seed: int | None
    model: str
    classes: list[str]
    probabilities: list[float]
    texts: list[str]

    @property
    def key(self) -> tuple[str, int]:
        """What makes it the same answer when the stage goes on after an interruption."""
        return self.id, self.view

    @property
    def predicted(self) -> str:
        """The likeliest class."""
        return self.classes[self.probabilities.index(max(self.probabilities))]


_KINDS: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(("id", "video", "label", "model"), (str,)),
    "view": (int,),
    "frames_seed": (int, type(None)),
    **dict.fromkeys(("classes", "probabilities", "texts"), (list,)),
}


def read_soft_labels(path: Path) -> list[SoftLabel]:
    """Read a file of soft labels; where a key stands twice, the first line wins.

    Raises:
        StageError: The file does not exist.
        DataError: A line is none; names file and line.
    """
    if not path.is_file():
        raise StageError(f"{path} does not exist; run the stage that answers first.")
    found: dict[tuple[str, int], SoftLabel] = {}
    for number, row in read_jsonl(path):
        where = f"{path}, line {number}"
        try:
            answer = SoftLabel(**row)
        except TypeError as error:
            raise DataError(f"{where}: {error}; run the stage again with --restart.") from error
        for name, kinds in _KINDS.items():
            if not isinstance(getattr(answer, name), kinds) or isinstance(getattr(answer, name), bool):
                raise DataError(f"{where}: {name!r} cannot be {getattr(answer, name)!r}.")
        chances = answer.probabilities
        fair = all(isinstance(chance, (int, float)) and 0 <= chance <= 1 for chance in chances)
        if not fair or len(chances) != len(answer.classes) or not math.isclose(sum(chances), 1, abs_tol=1e-4):
            raise DataError(f"{where}: 'probabilities' must be one of each class and sum to 1, found {chances!r}.")
        found.setdefault(answer.key, answer)
    return list(found.values())


class SoftLabelStore:
    """The folder that an answer stage fills: `parts/rank<r>.jsonl` meanwhile, `soft_labels.jsonl` when all are there.

    Args:
        folder: folder of the stage.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._parts = folder / "parts"

    def written(self) -> dict[tuple[str, int], SoftLabel]:
        """All that was answered so far, whichever process did."""
        written: dict[tuple[str, int], SoftLabel] = {}
        for part in sorted(self._parts.glob("rank*.jsonl")):
            for answer in read_soft_labels(part):
                written.setdefault(answer.key, answer)
        return written

    def append(self, answers: Iterable[SoftLabel], rank: int) -> None:
        """Add answers; they survive a kill from here on."""
        append_jsonl(self._parts / f"rank{rank}.jsonl", [dataclasses.asdict(answer) for answer in answers])

    def collect(self, records: Sequence[VideoRecord], views: int) -> list[SoftLabel]:
        """The answers about each view of each record, in order.

        Raises:
            StageError: One is missing; names how many and the first video.
        """
        written = self.written()
        wanted = [(record.id, view) for record in records for view in range(views)]
        if missing := [key for key in wanted if key not in written]:
            raise StageError(f"{self.folder}: {len(missing)} answers are missing, first about {missing[0][0]!r}.")
        return [written[key] for key in wanted]

    def save(self, answers: Sequence[SoftLabel]) -> None:
        """Write `soft_labels.jsonl`, whole or not at all."""
        write_jsonl(self.folder / SOFT_LABELS, [dataclasses.asdict(answer) for answer in answers])
