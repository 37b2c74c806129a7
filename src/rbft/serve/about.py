"""What is said about the run that is served: its name, classes and figures, read from its folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rbft import __version__
from rbft.files import read_json

METRICS = "metrics.json"


@dataclass(frozen=True)
class About:
    """The run behind the page.

    Args:
        title: `experiment / variant / seed`.
        model: The base model's name.
        labels: The classes.
        metrics: Of its test; empty where the folder has none.
    """

    title: str
    model: str
    labels: tuple[str, ...]
    metrics: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        """The answer of `GET /api/run`."""
        return {
            "run": self.title,
            "model": self.model,
            "labels": list(self.labels),
            "metrics": self.metrics,
            "rbft": __version__,
        }


def about(run: Path, model: str, labels: tuple[str, ...]) -> About:
    """Read a run's folder.

    Raises:
        DataError: Its metrics.json is damaged.
    """
    file = run / METRICS
    metrics = read_json(file) if file.is_file() else {}
    return About(" / ".join(run.resolve().parts[-3:]), model, labels, metrics if isinstance(metrics, dict) else {})
