"""The figures of an overview in other forms: a Markdown table, and event files for TensorBoard."""

from __future__ import annotations

import re
from pathlib import Path

from rbft.evaluation.comparison import interval_words, point_words
from rbft.report.overview import Overview, method_of, shots_of, shots_words


def markdown(overview: Overview) -> str:
    """The table of methods by shots, with the cautions that belong to it, as Markdown."""
    several = any("experiment" in group.point for group in overview.groups)
    heads = [*(["experiment"] if several else []), "method", "shots", "runs", "accuracy", "95% interval"]
    heads += ["chance", "majority"]
    counted = any(group.labelled is not None for group in overview.groups)
    heads += ["labels"] if counted else []
    if overview.baseline is not None:
        heads += [f"points over {point_words(overview.baseline)}", "95% interval", "p (Holm)", "detectable"]
    lines = ["| " + " | ".join(_plain(head) for head in heads) + " |", "|" + " --- |" * len(heads)]
    for group in overview.groups:
        accuracy, comparison = group.accuracy, group.comparison
        cells = [*([str(group.point.get("experiment"))] if several else []), method_of(group.point)]
        cells += [
            shots_words(group.point),
            f"{accuracy.count if accuracy else 0}/{group.runs}",
            f"{accuracy.mean:.1%}" if accuracy else "-",
            interval_words(accuracy),
            *("-" if floor is None else f"{floor:.1%}" for floor in (group.chance, group.majority)),
            *([group.labelled_words] if counted else []),
        ]
        if overview.baseline is not None and comparison is not None:
            change, detectable = comparison.difference.difference, comparison.detectable
            cells += [
                f"{100 * change.mean:+.1f}",
                interval_words(change, points=True),
                "-" if comparison.p is None else f"{comparison.p:.3f}",
                "-" if detectable is None else f"{100 * detectable:.1f}",
            ]
        cells += ["-"] * (len(heads) - len(cells))
        lines.append("| " + " | ".join(_plain(cell) for cell in cells) + " |")
    notes = [f"- {_plain(who)}: chosen on validation videos: {_plain(what)}" for who, what in overview.choices]
    notes += [f"- {_plain(who)}: {_plain(caution)}" for who, caution in overview.cautions]
    return "\n".join([*lines, *(["", *notes] if notes else [])]) + "\n"


def _plain(text: str) -> str:
    """Names are data: what Markdown or a renderer of HTML in it would read is escaped."""
    text = re.sub(r"([\\`*_\[\]|<>])", r"\\\1", text)
    return " ".join(text.split())


def write_tensorboard(overview: Overview, folder: Path) -> None:
    """Write event files: a curve of accuracy over shots for each method, the table as text, and hyper-parameters.

    Args:
        overview: the figures to write.
        folder: folder for the event files; each method gets a folder of its own in it, as TensorBoard expects.
    """
    # torch takes seconds to import, and no other form needs it
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(folder / "methods")) as writer:
        writer.add_text("methods", markdown(overview))
    for number, name in enumerate(overview.methods):
        with SummaryWriter(str(folder / f"{number:02d}-{re.sub(r'[^A-Za-z0-9.=-]+', '_', name)[:80]}")) as writer:
            for group in overview.groups:
                accuracy, shots = group.accuracy, group.point.get("data.shots")
                if method_of(group.point) != name or accuracy is None:
                    continue
                experiment = group.point.get("experiment")
                tag = "accuracy" if experiment is None else f"accuracy/{experiment}"
                step = int(shots_of(group.point)) if isinstance(shots, (int, float)) else 0
                writer.add_scalar(tag, accuracy.mean, step)
                if accuracy.low is not None and accuracy.high is not None:
                    writer.add_scalar(f"{tag}_low", accuracy.low, step)
                    writer.add_scalar(f"{tag}_high", accuracy.high, step)
                settings = {
                    key: value if isinstance(value, (int, float, str, bool)) else str(value)
                    for key, value in group.point.items()
                }
                writer.add_hparams(
                    settings, {"hparam/accuracy": accuracy.mean}, run_name=f"shots-{shots_words(group.point)}"
                )
