"""What a training was spared because what leaves its frozen layers was kept: a figure of its record, and a sentence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

PASSES = "kept_passes"


def pass_figures(visits: tuple[int, int] | None, first: int, layers: int, processes: int) -> dict[str, Any]:
    """Figures for the record of a stage; none where nothing was kept.

    Args:
        visits: Passes of a row through the upper layers alone, and all of them, on one process.
        first: Index of the first layer that was trained.
        layers: How many the language model has.
        processes: How many trained.
    """
    if visits is None:
        return {}
    found, every = visits
    figures = {"upper_alone": found, "all": every, "layers_trained": layers - first, "layers": layers}
    return {PASSES: figures | {"processes": processes}}


def describe_passes(summary: Mapping[str, Any]) -> str:
    """A clause on the passes that were spared the lower layers, from the record of a stage; empty where none were.

    Args:
        summary: The summary of the record.
    """
    figures = summary.get(PASSES)
    if not figures or not figures["all"]:
        return ""
    alone, passes = figures["upper_alone"], figures["all"]
    say = (
        f"{alone} of {passes} passes of a row ({alone / passes:.0%}) computed the upper {figures['layers_trained']} of "
        f"{figures['layers']} layers alone; what leaves those below was kept"
    )
    return say + (" (on the first process)" if figures["processes"] > 1 else "")
