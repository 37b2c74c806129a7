"""Rationales on disk: one JSON object a line, appended as they are written, merged when all are there."""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rbft.data.records import VideoRecord
from rbft.errors import DataError, StageError
from rbft.files import append_jsonl, read_json, read_jsonl, write_json, write_jsonl
from rbft.runs.names import CONTRASTS, RATIONALES
from rbft.vlm.prompt import Prompt


@dataclass(frozen=True)
class Rationale:
    """One written rationale with where it comes from.

    Args:
        id: The video's id.
        sample: number of the video's text, from 0; attempt n of k samples has those from n * k on.
        video: The video's path under the data root.
        label: Its class; of an unlabelled video the one that the text states, and empty if it states none.
        prompt_hash: hash of the prompt it was written for.
        hint: The hint policy it was written under.
        model: The model that wrote it, with its revision or the lineage of its weights.
        text: The rationale without its conclusion.
        stated: The class the text itself concluded, None if none could be read.
        written: The whole text as generated.
        truncated: Whether it ran into the length limit.
        scores: Verification scores in [0, 1] by check.
        weight: weight in the stage-1 loss.
        kept: Whether stage 1 uses it.
        reason: Why it was dropped, or kept all the same; else empty.
        labelled: Whether the class was known before; else it is what the model said itself.
        hinted_to: Class that the prompt named where it is another one than the video's; else empty. Such a text
            is never learned as it is: it only stands against those that were hinted to the right class.
    """

    id: str
    sample: int
    video: str
    label: str
    prompt_hash: str
    hint: str
    model: str
    text: str
    stated: str | None
    written: str
    truncated: bool
    scores: dict[str, float] = dataclasses.field(default_factory=dict)
    weight: float = 1.0
    kept: bool = True
    reason: str = ""
    labelled: bool = True
    hinted_to: str = ""

    @property
    def key(self) -> tuple[str, int]:
        """What makes it the same rationale when writing resumes."""
        return self.id, self.sample


_KINDS: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(
        ("id", "video", "label", "prompt_hash", "hint", "model", "text", "written", "reason", "hinted_to"), (str,)
    ),
    "sample": (int,),
    "stated": (str, type(None)),
    **dict.fromkeys(("truncated", "labelled"), (bool,)),
    "scores": (dict,),
    "weight": (int, float),
    "kept": (bool,),
}


def prompt_hash(prompt: Prompt) -> str:
    """A short stable name of a prompt."""
    text = "\x1e".join([prompt.system or "", prompt.question])
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def parse_rationale(where: str, row: dict[str, Any]) -> Rationale:
    """The rationale of one object of a file.

    Raises:
        DataError: A key is missing, unknown or of the wrong kind; begins with `where`.
    """
    names = {field.name for field in dataclasses.fields(Rationale)}
    if unknown := sorted(set(row) - names):
        raise DataError(f"{where}: unknown key {unknown[0]!r}; keys are {', '.join(sorted(names))}.")
    try:
        rationale = Rationale(**row)
    except TypeError as error:
        raise DataError(f"{where}: {error}. Keys are {', '.join(sorted(names))}.") from error
    for name, kinds in _KINDS.items():
        value = getattr(rationale, name)
        if not isinstance(value, kinds) or (isinstance(value, bool) and kinds != (bool,)):
            raise DataError(f"{where}: {name!r} cannot be {value!r}.")
    if not 0 <= rationale.weight < math.inf:
        raise DataError(f"{where}: 'weight' must be a number of at least 0, found {rationale.weight!r}.")
    return rationale


def read_rationales(path: Path) -> list[Rationale]:
    """Read a rationale file; where a key stands twice, the first valid line wins.

    Raises:
        StageError: The file does not exist.
        DataError: A line is not a rationale; names file and line.
    """
    if not path.is_file():
        raise StageError(f"{path} does not exist; run the stage that writes the rationales first.")
    rationales: dict[tuple[str, int], Rationale] = {}
    for number, row in read_jsonl(path):
        rationale = parse_rationale(f"{path}, line {number}", row)
        rationales.setdefault(rationale.key, rationale)
    return list(rationales.values())


def spread(rationales: Sequence[Rationale], count: int = 8) -> list[Rationale]:
    """A few rationales from all over the list, so from all classes, to show to people."""
    return list(rationales[:: max(1, len(rationales) // count)][:count])


class RationaleStore:
    """The folder a write stage fills: `parts/rank<r>.jsonl` while writing, `rationales.jsonl` when all are there.

    Texts that were hinted to another class than their video's are in `contrasts.jsonl`, apart from all others.

    `parts/again<n>.json` says which videos the first process wants attempt n of; the others read it there.

    Args:
        folder: The stage's folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.parts = folder / "parts"
        self.path = folder / RATIONALES
        self.contrasts = folder / CONTRASTS

    def written(self) -> dict[tuple[str, int], Rationale]:
        """Everything written so far, whichever rank wrote it."""
        written: dict[tuple[str, int], Rationale] = {}
        for part in sorted(self.parts.glob("rank*.jsonl")):
            for rationale in read_rationales(part):
                written.setdefault(rationale.key, rationale)
        return written

    def append(self, rationales: Iterable[Rationale], rank: int) -> None:
        """Add rationales; they survive a kill from here on."""
        append_jsonl(self.parts / f"rank{rank}.jsonl", [dataclasses.asdict(r) for r in rationales])

    def collect(self, records: Sequence[VideoRecord], samples: Sequence[int]) -> list[Rationale]:
        """These samples of each record, in the order of the records.

        Raises:
            StageError: A rationale is missing; names how many and the first video.
        """
        written = self.written()
        wanted = [(record.id, sample) for record in records for sample in samples]
        if missing := [key for key in wanted if key not in written]:
            raise StageError(f"{self.folder}: {len(missing)} rationales are missing, first for {missing[0][0]!r}.")
        return [written[key] for key in wanted]

    def ask_again(self, attempt: int, ids: Collection[str]) -> None:
        """Say which videos are to be written about in an attempt."""
        write_json(self.parts / f"again{attempt}.json", sorted(ids))

    def asked_again(self, attempt: int) -> frozenset[str]:
        """The videos to be written about in an attempt.

        Raises:
            StageError: The first process has not said so, or the file is none of this program's.
        """
        path = self.parts / f"again{attempt}.json"
        ids = read_json(path) if path.is_file() else None
        if not isinstance(ids, list) or not all(isinstance(name, str) for name in ids):
            raise StageError(f"{path} does not list the videos of attempt {attempt}; run the same command again.")
        return frozenset(ids)

    def save(self, rationales: Sequence[Rationale]) -> None:
        """Write `rationales.jsonl`, whole or not at all."""
        write_jsonl(self.path, [dataclasses.asdict(r) for r in rationales])

    def save_contrasts(self, rationales: Sequence[Rationale]) -> None:
        """Write `contrasts.jsonl`, whole or not at all."""
        write_jsonl(self.contrasts, [dataclasses.asdict(r) for r in rationales])
