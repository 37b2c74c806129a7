"""The quality of each round of writing: a row for each write stage, for the metrics and the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape

from rbft.runs.stage_record import read_record

if TYPE_CHECKING:
    from rbft.stages.read_stage import ReadStage


@dataclass(frozen=True)
class Round:
    """A finished write stage.

    Args:
        stage: name of the stage.
        weights: stage whose weights wrote; None for the base model.
        rationales: number of rationales, all attempts together.
        kept: number of rationales that are trained on.
        agreement: share of those of labelled videos that state the right class; None where there are none.
        scores: mean score by check.
        unlabelled: number of unlabelled videos with a kept rationale; None where there were no such videos.
    """

    stage: str
    weights: str | None
    rationales: int
    kept: int
    agreement: float | None
    scores: dict[str, float]
    unlabelled: int | None


def read_rounds(run_dir: Path, prepared: Sequence[ReadStage]) -> list[Round]:
    """The rounds of a run, in order; a write stage of other settings, or of none yet, is left out."""
    finished = []
    for entry in prepared:
        record = read_record(run_dir / entry.stage.name) if entry.stage.kind == "write" else None
        if record is None or record.fingerprint != entry.fingerprint:
            continue
        summary = record.summary
        labelled = summary["labelled_rationales"]
        finished.append(
            Round(
                entry.stage.name,
                entry.stage.weights_from,
                summary["rationales"],
                summary["kept"],
                summary["state_the_right_class"] / labelled if labelled else None,
                summary["scores"],
                summary.get("unlabelled_kept"),
            )
        )
    return finished


def round_metrics(rounds: Sequence[Round]) -> dict[str, Any]:
    """Metrics for `metrics.json`: those of each round, and the number of unlabelled videos that were learned from."""
    figures: dict[str, Any] = {}
    for finished in rounds:
        figures |= {
            f"{finished.stage}/rationales": finished.rationales,
            f"{finished.stage}/rationales_kept": finished.kept,
            f"{finished.stage}/agreement": finished.agreement,
        }
        figures |= {f"{finished.stage}/score_{name}": score for name, score in finished.scores.items()}
    return figures | ({"train/unlabelled_videos": used} if (used := unlabelled_used(rounds)) is not None else {})


def unlabelled_used(rounds: Sequence[Round]) -> int | None:
    """Most unlabelled videos with kept rationales in one round; None where there were none to write about."""
    return max((finished.unlabelled for finished in rounds if finished.unlabelled is not None), default=None)


def print_rounds(rounds: Sequence[Round], console: Console) -> None:
    """Print several rounds one below the other, and always the number of unlabelled videos that were used."""
    if (used := unlabelled_used(rounds)) is not None:
        console.print(f"unlabelled clips used: {used}")
    if len(rounds) < 2:
        return
    console.print("rounds of writing:")
    for finished in rounds:
        right = [] if finished.agreement is None else [f"{finished.agreement:.1%} state the right class"]
        figures = [
            f"{finished.kept} of {finished.rationales} kept",
            *right,
            *(f"{k} {v:.2f}" for k, v in finished.scores.items()),
        ]
        by = finished.weights or "the base model"
        console.print(f"  {escape(finished.stage)}, by {escape(by)}: {escape(', '.join(figures))}", soft_wrap=True)
