"""Rationales of a world whose truth is known, with faults planted in some of them.

`python -m tests.support.planted 1 2` prints what each check finds in the worlds of these seeds.
"""

from __future__ import annotations

import dataclasses
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np

from rbft.data.labels import LabelSet
from rbft.data.prompt_templates import PromptBook, Prompts
from rbft.files import read_jsonl
from rbft.rationales.checks.base import Check, Judge, Material
from rbft.rationales.checks.contradiction import Contradiction
from rbft.rationales.checks.grounding import Grounding
from rbft.rationales.checks.leak import Leak
from rbft.rationales.checks.reconstruction import Reconstruction
from rbft.rationales.checks.text import LabelParse, Repetition, Truncation
from rbft.rationales.store import Rationale
from rbft.video.clip import read_clip
from rbft.video.clip_spec import ClipSpec
from rbft.video.sampling import FrameSampling
from rbft.vlm.loading import load_model
from rbft.vlm.model import VLM
from rbft.vlm.processing import ClipProcessor
from rbft.worlds import language
from rbft.worlds.domain import write_domain
from rbft.worlds.events import TARGETS, Domain, phrase
from rbft.worlds.scenes import Style

PROMPTS = Prompts(
    label_question=language.LABEL,
    rationale_question=language.RATIONALE,
    hinted_question=language.HINTED.format(name="{label}"),
    conclusion=language.CONCLUSION.format(name="{label}"),
    separator=" ",
    judge_question=language.JUDGE.format(description="{rationale}"),
)
LEAKS = (
    "the event is {label} . {text}",
    "{text} the given label is {label} .",
    "the ground truth of this video is known . {text}",
    "{text} as stated in the prompt .",
)
CHECKS: list[Check] = [Leak(), Repetition(), Truncation(), LabelParse(), Reconstruction(), Contradiction(), Grounding()]
WORLDS: dict[Domain, tuple[Style, int]] = {"pairs": ("plain", 24), "unions": ("textured", 48)}  # 192 clips each
EACH = 16
Row = dict[str, Any]


@dataclass(frozen=True)
class Planted:
    """Rationales with what is wrong with each; an empty kind means nothing is."""

    material: Material
    kinds: tuple[str, ...]

    def of(self, kind: str) -> list[int]:
        return [place for place, found in enumerate(self.kinds) if found == kind]


def rationale(row: Row, text: str, book: PromptBook, *, truncated: bool = False) -> Rationale:
    written = book.rationale_target(text, row["label"])
    return Rationale(
        row["path"], 0, row["path"], row["label"], "", "hint_stripped", "truth", text, row["label"], written, truncated
    )


def contradicting(row: Row, rows: list[Row], domain: Domain, rng: np.random.Generator) -> str:
    """The truth, but that the labelled object does what makes another class."""
    others = [event for name, events in TARGETS[domain].items() if name != row["label"] for event in events]
    thing = row["objects"][0]
    told = phrase(*others[rng.integers(len(others))])
    return row["description"].replace(phrase(thing["first"], thing["second"]), told)


def ungrounded(row: Row, rows: list[Row], domain: Domain, rng: np.random.Generator) -> str:
    """The truth about another video, every other time one of the same class."""
    same = bool(rng.integers(2))
    others = [r for r in rows if r is not row and (r["label"] == row["label"]) == same]
    return str(others[rng.integers(len(others))]["description"])


def leaking(row: Row, rows: list[Row], domain: Domain, rng: np.random.Generator) -> str:
    return LEAKS[rng.integers(len(LEAKS))].format(label=row["label"], text=row["description"])


def repeating(row: Row, rows: list[Row], domain: Domain, rng: np.random.Generator) -> str:
    """All of it, or its end, over and over."""
    text, times = str(row["description"]), int(rng.integers(3, 9))
    if rng.integers(2):
        return " ".join([text] * times)
    return text.removesuffix(" .") + " then waits then goes left" * times + " ."


def truncated(row: Row, rows: list[Row], domain: Domain, rng: np.random.Generator) -> str:
    words = str(row["description"]).split()
    return " ".join(words[: rng.integers(2, len(words) - 1)])


def empty(row: Row, rows: list[Row], domain: Domain, rng: np.random.Generator) -> str:
    return ""


KINDS: dict[str, Callable[[Row, list[Row], Domain, np.random.Generator], str]] = {
    "contradiction": contradicting,
    "grounding": ungrounded,
    "leak": leaking,
    "repetition": repeating,
    "truncation": truncated,
    "empty": empty,
}


def plant(
    root: Path,
    domain: Domain,
    style: Style,
    per_class: int,
    each: int,
    seed: int = 0,
    kinds: tuple[str, ...] = tuple(KINDS),
) -> Planted:
    """True descriptions of new clips; in `each` of them every kind of fault."""
    write_domain(
        root, domain=domain, style=style, seed=seed, train_per_class=per_class, val_per_class=0, test_per_class=0
    )
    rows = [row for _, row in read_jsonl(root / "truth.jsonl")]
    rng = np.random.default_rng([seed, get_args(Domain).index(domain)])
    book = PromptBook(PROMPTS, LabelSet(tuple(TARGETS[domain])))
    found, names = [rationale(row, row["description"], book) for row in rows], [""] * len(rows)
    drawn = rng.permutation(len(rows))[: each * len(kinds)].reshape(len(kinds), each)
    for kind, places in zip(kinds, drawn.tolist(), strict=True):
        for number, place in enumerate(places):
            text = KINDS[kind](rows[place], rows, domain, rng)
            made = rationale(rows[place], text, book)
            if kind == "truncation":
                # what is cut states no class; one tool in two says that it was cut
                made = dataclasses.replace(made, stated=None, written=text, truncated=bool(number % 2))
            found[place], names[place] = made, kind
    return Planted(Material(tuple(found), book, built_in_judge(root)), tuple(names))


def built_in_judge(root: Path) -> Judge:
    """The built-in model over the videos of a folder."""
    processor = ClipProcessor("builtin/tiny")
    vlm = VLM(load_model("builtin/tiny", None, "float32", None), processor.pad_id, processor.end_ids).eval()
    spec = ClipSpec(FrameSampling(num_frames=8))
    return Judge(
        vlm, processor, lambda video, prompt: processor.prompt_inputs(prompt, read_clip(video, spec, root)), 32
    )


def failures(planted: Planted, check: Check) -> dict[str, tuple[int, int]]:
    """Of each kind how many score below the check's threshold, and how many there are; '' for true descriptions."""
    failed = [score is not None and score < check.threshold for score in check.scores(planted.material)]
    return {
        kind: (sum(failed[place] for place in places), len(places))
        for kind in ("", *KINDS)
        if (places := planted.of(kind))
    }


def print_failures(title: str, found: dict[str, dict[str, tuple[int, int]]]) -> None:
    """A line for each check."""
    print(f"\n{title}")
    for name, row in found.items():
        shares = (f"{kind or 'true'} {bad}/{all} ({bad / all:.1%})" for kind, (bad, all) in row.items())
        print(f"{name:>15}", *shares, sep="  ")


def main(seeds: list[int]) -> None:
    for domain, (style, per_class) in WORLDS.items():
        pooled: dict[str, dict[str, tuple[int, int]]] = {check.name: {} for check in CHECKS}
        for seed in seeds:
            with tempfile.TemporaryDirectory() as folder:
                planted = plant(Path(folder, "clips"), domain, style, per_class, EACH, seed)
                for check in CHECKS:
                    for kind, (bad, count) in failures(planted, check).items():
                        before = pooled[check.name].get(kind, (0, 0))
                        pooled[check.name][kind] = (before[0] + bad, before[1] + count)
        print_failures(f"{domain}, {style}, seeds {seeds}", pooled)


if __name__ == "__main__":
    main([int(seed) for seed in sys.argv[1:]])
