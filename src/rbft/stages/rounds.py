"""What each round of writing was worth: a row for each write stage, for the run's figures and its last words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape

from rbft.runs.stage_record import read_record

if TYPE_CHECKING:
    from rbft.stages.context import Prepared


@dataclass(frozen=True)
class Round:
    """A finished write stage.

    Args:
        stage: Its name.
        weights: The stage whose weights wrote; None for the base model.
        rationales: How many it wrote, all attempts together.
        kept: How many are trained on.
        agreement: Part of those of labelled videos that state the right class; None where there are none.
        scores: Mean score by check.
        unlabelled: Unlabelled videos with a rationale that is kept; None where there were no such videos.
    """

    stage: str
    weights: str | None
    rationales: int
    kept: int
    agreement: float | None
    scores: dict[str, float]
    unlabelled: int | None


def read_rounds(run_dir: Path, prepared: Sequence[Prepared]) -> list[Round]:
    """The rounds of a run, in order; a write stage of other settings, or of none yet, is left out."""
    found = []
    for entry in prepared:
        record = read_record(run_dir / entry.stage.name) if entry.stage.kind == "write" else None
        if record is None or record.fingerprint != entry.fingerprint:
            continue
        told = record.summary
        labelled = told["labelled_rationales"]
        found.append(
            Round(
                entry.stage.name,
                entry.stage.weights_from,
                told["rationales"],
                told["kept"],
                told["state_the_right_class"] / labelled if labelled else None,
                told["scores"],
                told.get("unlabelled_kept"),
            )
        )
    return found


def round_metrics(rounds: Sequence[Round]) -> dict[str, Any]:
    """Figures for `metrics.json`: those of each round, and how many unlabelled videos were learned from."""
    found: dict[str, Any] = {}
    for one in rounds:
        found |= {
            f"{one.stage}/rationales": one.rationales,
            f"{one.stage}/rationales_kept": one.kept,
            f"{one.stage}/agreement": one.agreement,
        }
        found |= {f"{one.stage}/score_{name}": score for name, score in one.scores.items()}
    return found | ({"train/unlabelled_videos": used} if (used := unlabelled_used(rounds)) is not None else {})


def unlabelled_used(rounds: Sequence[Round]) -> int | None:
    """The most unlabelled videos that a round gave rationales of; None where there were none to write about."""
    return max((one.unlabelled for one in rounds if one.unlabelled is not None), default=None)


def tell_rounds(rounds: Sequence[Round], console: Console) -> None:
    """Several rounds one below the other; and unlabelled videos, so that no result hides them."""
    if (used := unlabelled_used(rounds)) is not None:
        console.print(f"unlabelled clips used: {used}")
    if len(rounds) < 2:
        return
    console.print("rounds of writing:")
    for one in rounds:
        right = [] if one.agreement is None else [f"{one.agreement:.1%} state the right class"]
        told = [f"{one.kept} of {one.rationales} kept", *right, *(f"{k} {v:.2f}" for k, v in one.scores.items())]
        by = one.weights or "the base model"
        console.print(f"  {escape(one.stage)}, by {escape(by)}: {escape(', '.join(told))}", soft_wrap=True)
