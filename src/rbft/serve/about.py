"""What is said about the run that is served: its name, classes and figures, read from its folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rbft import __version__
from rbft.files import read_json
from rbft.runs.names import METRICS


@dataclass(frozen=True)
class About:
    """The run behind the page.

    Args:
        title: `experiment / variant / seed`.
        model: The base model's name.
        labels: The classes.
        metrics: metrics of its test; empty where the folder has none.
        cautions: reasons against using it.
    """

    title: str
    model: str
    labels: tuple[str, ...]
    metrics: dict[str, Any]
    cautions: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The answer of `GET /api/run`."""
        return {
            "run": self.title,
            "model": self.model,
            "labels": list(self.labels),
            "metrics": self.metrics,
            "warnings": list(self.cautions),
            "rbft": __version__,
        }


def about(run: Path, model: str, labels: tuple[str, ...], cautions: Sequence[str] = ()) -> About:
    """Read a run's folder.

    Args:
        run: The folder.
        model: The base model's name.
        labels: The classes.
        cautions: reasons against using it.

    Raises:
        DataError: Its metrics.json is damaged.
    """
    file = run / METRICS
    metrics = read_json(file) if file.is_file() else {}
    title = " / ".join(run.resolve().parts[-3:])
    return About(title, model, labels, metrics if isinstance(metrics, dict) else {}, tuple(cautions))
