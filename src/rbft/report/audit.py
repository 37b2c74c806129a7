"""How an audit of rationales is shown: tables on the terminal, and a page that opens offline."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from rbft.files import write_atomic
from rbft.rationales.audit import Audit
from rbft.report.templates import render

# What is shown of each set: a short name, and what it means; shares but for the last three.
FIGURES = {
    "fails_label_parse": ("other label", "state another class than the video's, or none"),
    "no_conclusion": ("no label", "state no class"),
    "fails_contradiction": ("contradict", "argue for another class, as the model reads them"),
    "answered": ("answers", "of all texts argue for this class, as the model reads them"),
    "fails_leak": ("leak", "show that the answer was given"),
    "names_label": ("named", "name their own class before they conclude"),
    "prompt_names_label": ("label given", "are trained on under a prompt that names the answer"),
    "reconstructed": ("recovered", "let a classifier of words find their class, class names hidden"),
    "fails_reconstruction": ("misread", "read clearly like another class to that classifier"),
    "fails_grounding": ("ungrounded", "are no likelier under their own video than under others"),
    "fails_repetition": ("repeat", "go in circles"),
    "fails_truncation": ("cut", "are cut short"),
    "nats_over_other_videos": ("over others", "nats a token above other videos"),
    "nats_over_blank_video": ("over blank", "nats a token above a blank video"),
    "median_words": ("words", "words, in the median"),
}
_PLAIN = ("nats_over_other_videos", "nats_over_blank_video", "median_words")
_CLASSES_SHOWN, _SHORTENED = 12, 200


def _shown(key: str, value: float | int | None) -> str:
    if value is None:
        return "-"
    if key == "median_words":
        return f"{value:.0f}"
    return f"{value:+.2f}" if key in _PLAIN else f"{value:.1%}"


def _measured(audit: Audit) -> list[str]:
    rows = [audit.overall, *audit.per_class.values()]
    return [key for key in FIGURES if any(figures.get(key) is not None for figures in rows)]


def summary(audit: Audit) -> str:
    """The set in one sentence."""
    overall = audit.overall
    text = f"{overall['rationales']} rationales of {overall['classes']} classes, {overall['empty']} empty"
    if (auroc := overall["reconstruction_auroc"]) is not None:
        text += (
            f"; from the text alone a classifier recovers {overall['reconstructed']:.1%} of them "
            f"(always the commonest class: {overall['majority']:.1%}), AUROC {auroc:.3f}"
        )
    return text + "."


def print_audit(audit: Audit, console: Console) -> None:
    """Print the figures, what is said most, and the worst examples."""
    console.print(f"[bold]{escape(audit.source)}[/]: {summary(audit)}")
    keys = _measured(audit)
    table = Table(box=None, pad_edge=False, show_header=False)
    for key in (key for key in keys if audit.overall[key] is not None):
        name, meaning = FIGURES[key]
        table.add_row(name, _shown(key, audit.overall[key]), meaning)
    console.print(table)
    table = Table(box=None, pad_edge=False)
    for name in ("class", "texts", *(FIGURES[key][0] for key in keys)):
        table.add_column(name, justify="left" if name == "class" else "right", overflow="fold")
    for label, figures in list(audit.per_class.items())[:_CLASSES_SHOWN]:
        table.add_row(escape(label), str(figures["rationales"]), *(_shown(key, figures[key]) for key in keys))
    console.print(table)
    if (more := len(audit.per_class) - _CLASSES_SHOWN) > 0:
        console.print(f"... and {more} more classes (--json has them all)")
    for doubt in audit.doubts:
        console.print(f"[yellow]contradiction: {escape(doubt)}[/]")
    for what, why in audit.not_measured.items():
        console.print(f"not measured: {escape(what)}: {escape(why)}")
    if not audit.lengths:
        return
    words = ", ".join(f"{name} {value:.0f}" for name, value in audit.lengths.items())
    variety = ", ".join(f"{n}: {value:.3f}" for n, value in audit.distinct.items() if value is not None)
    console.print(f"words: {words}\ndistinct runs of 1 to 4 words: {variety}")
    said = ", ".join(f"{opening!r} {share:.1%}" for opening, share in audit.openings)
    console.print(f"commonest openings: {escape(said)}")
    console.print(f"word for word as for another video: {audit.overall['duplicates']:.1%}")
    if audit.leaks:
        console.print(f"leaks: {escape(', '.join(f'{quote!r} x{count}' for quote, count in audit.leaks))}")
    for example in audit.examples:
        remark = f", {example.remark}" if example.remark else ""
        text = example.text if len(example.text) <= _SHORTENED else f"{example.text[:_SHORTENED]}..."
        console.print(
            f"[bold]{example.check}[/] {example.score:.2f}: {escape(f'{example.id} ({example.label}{remark})')}\n"
            f"  {escape(text)}",
            soft_wrap=True,
        )


def audit_view(audit: Audit) -> dict[str, Any]:
    """What the template `audit_part.html.j2` shows of an audit, as its variable `shown`."""
    keys = _measured(audit)
    rows = [
        {"name": name, "count": figures["rationales"], "cells": [_shown(key, figures[key]) for key in keys]}
        for name, figures in {"all": audit.overall, **audit.per_class}.items()
    ]
    return {"audit": audit, "summary": summary(audit), "figures": [FIGURES[key] for key in keys], "rows": rows}


def write_audit_page(path: Path, audit: Audit) -> None:
    """Write the page of an audit."""
    write_atomic(path, render("audit.html.j2", shown=audit_view(audit)))
