"""What a set of rationales is worth: do they argue for their classes, and what do they say."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from statistics import fmean
from typing import Any

import numpy as np

from rbft.data.prompt_templates import PromptBook
from rbft.rationales import statistics
from rbft.rationales.checks.base import Check, Judge, Material, own_against_best_other
from rbft.rationales.checks.leak import Leak
from rbft.rationales.checks.reconstruction import Reconstruction
from rbft.rationales.checks.text import LabelParse, Repetition, Truncation
from rbft.rationales.checks.wording import LabelMask
from rbft.rationales.import_export import RationaleFile
from rbft.rationales.store import Rationale

_EXAMPLES = 3
Figures = dict[str, float | int | None]


@dataclass(frozen=True)
class Example:
    """One of the worst rationales by a check.

    Args:
        check: name of the check.
        score: its score.
        id: The video's id.
        label: class of the video.
        text: The rationale.
        remark: What the check found, in words; may be empty.
    """

    check: str
    score: float
    id: str
    label: str
    text: str
    remark: str


@dataclass(frozen=True)
class Audit:
    """The result; every share is of the rationales that are not empty, unless it says otherwise.

    Args:
        source: The file.
        overall: Figures of all rationales.
        per_class: figures of each class.
        lengths: Words of a text.
        distinct: Distinct runs of 1 to 4 words, as a share of all.
        openings: The commonest first words, with their shares.
        duplicates: The commonest texts that several videos share, with how many do.
        leaks: The commonest phrases that betray a given answer, with how often.
        examples: The worst rationales by each check.
        not_measured: What could not be measured, and why.
        doubts: Why what a model says of the rationales is not to be trusted.
    """

    source: str
    overall: Figures
    per_class: dict[str, Figures]
    lengths: dict[str, float] = field(default_factory=dict)
    distinct: dict[str, float | None] = field(default_factory=dict)
    openings: list[tuple[str, float]] = field(default_factory=list)
    duplicates: list[tuple[str, int]] = field(default_factory=list)
    leaks: list[tuple[str, int]] = field(default_factory=list)
    examples: list[Example] = field(default_factory=list)
    not_measured: dict[str, str] = field(default_factory=dict)
    doubts: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


@dataclass
class _Row:
    """What is known of one rationale that is not empty."""

    rationale: Rationale
    text: statistics.Text
    scores: dict[str, float]
    remarks: dict[str, str]
    values: dict[str, float]


def audit_stored(
    source: str,
    rationales: Sequence[Rationale],
    book: PromptBook,
    checks: Sequence[Check],
    doubts: Sequence[str] = (),
) -> Audit:
    """Audit what a write stage left by the scores that its own checks gave, so that no model is asked again.

    Args:
        source: name of the set.
        rationales: rationales of the stage.
        book: The stage's prompts.
        checks: The stage's checks.
        doubts: doubts of the checks about their own scores.
    """
    # of an unlabelled video a text that states no class is of none
    known = tuple(rationale for rationale in rationales if rationale.label)
    questions = tuple(book.training_prompt(r.label, labelled=r.labelled).question for r in known)
    file = RationaleFile(known, questions, labels_stated_apart=True, book=book)
    return replace(audit(source, file, stored=checks), doubts=list(doubts))


def audit(source: str, file: RationaleFile, judge: Judge | None = None, stored: Sequence[Check] | None = None) -> Audit:
    """Audit a set of rationales.

    Args:
        source: name of the set.
        file: rationales of the set.
        judge: The model that reads them, for contradiction, and watches their videos, for grounding.
        stored: Without a judge, the checks whose scores stand with the rationales already.
    """
    missing: dict[str, str] = {}
    doubts: list[str] = []
    answers: dict[str, float] = {}
    auroc: float | None = None
    filled = tuple(rationale for rationale in file.rationales if rationale.text)
    rows = [_Row(r, statistics.Text.of(r.id, r.label, r.text), {}, {}, {}) for r in filled]
    material = Material(filled, file.book, judge)
    if rows:
        _check_texts(rows, material, file, missing)
        auroc = _check_reconstruction(rows, material, missing)
        if stored is None:
            answers, doubts = _check_with_model(rows, material, missing)
        else:
            _check_as_stored(rows, stored, missing)
    _find_prompt_leaks(rows, file, missing)
    names = file.book.labels.names
    per_class = {
        name: _figures(
            [row for row in rows if row.rationale.label == name], [r for r in file.rationales if r.label == name]
        )
        | {"answered": answers.get(name)}
        for name in names
    }
    counts = Counter(row.rationale.label for row in rows)
    overall = _figures(rows, file.rationales) | {
        "answered": None,
        "classes": len(names),
        "majority": max(counts.values()) / len(rows) if rows else None,
        "reconstruction_auroc": auroc,
    }
    if not rows:
        return Audit(source, overall, per_class, not_measured={"texts": "every rationale is empty"})
    texts = [row.text for row in rows]
    shared, commonest = statistics.duplicates(texts)
    leaks = Counter(
        quote.casefold() for row in rows if "leak" in row.remarks for quote in row.remarks["leak"].split(" | ")
    )
    return Audit(
        source,
        overall | {"duplicates": shared},
        per_class,
        statistics.lengths(texts),
        statistics.distinct(texts),
        statistics.openings(texts),
        commonest,
        leaks.most_common(5),
        _examples(rows),
        missing,
        doubts,
    )


def _note(rows: Sequence[_Row], check: Check, scores: Sequence[float | None]) -> None:
    for row, score in zip(rows, scores, strict=True):
        if score is not None:
            row.scores[check.name] = score
            row.values[f"fails_{check.name}"] = float(score < check.threshold)


def _check_texts(rows: Sequence[_Row], material: Material, file: RationaleFile, missing: dict[str, str]) -> None:
    for check in (Repetition(), Truncation()):
        _note(rows, check, check.scores(material))
    leak = Leak()
    _note(rows, leak, leak.scores(material))
    for row, quotes in zip(rows, leak.leaks(material), strict=True):
        if quotes:
            row.remarks["leak"] = " | ".join(quotes)
    own = {name: LabelMask([file.book.text(name)]) for name in file.book.labels.names}
    for row in rows:
        row.values["no_conclusion"] = float(row.rationale.stated is None)
        row.values["names_label"] = float(bool(own[row.rationale.label].found(row.rationale.text)))
        if row.rationale.stated is not None:
            row.remarks["label_parse"] = f"states {row.rationale.stated}"
    if file.labels_stated_apart:
        parse = LabelParse()
        _note(rows, parse, parse.scores(material))
    else:
        missing["agreement"] = "the file names no class apart from what each answer concludes"


def _guess(row: _Row, names: Sequence[str], chances: Sequence[float], verb: str) -> tuple[str, float]:
    best = names[max(range(len(names)), key=lambda place: chances[place])]
    return f"{verb} {best}", float(best == row.rationale.label)


def _check_reconstruction(rows: Sequence[_Row], material: Material, missing: dict[str, str]) -> float | None:
    """Notes what each text reads like; the area under the ROC curve of each class against the rest, averaged."""
    check, names = Reconstruction(), material.book.labels.names
    guesses = check.guessed(material)
    if guesses is None:
        missing["reconstruction"] = f"a class has fewer than {check.min_videos} videos with a text"
        return None
    own = [names.index(row.rationale.label) for row in rows]
    _note(rows, check, own_against_best_other(guesses, own))
    for row, chances in zip(rows, guesses, strict=True):
        row.remarks[check.name], row.values["reconstructed"] = _guess(row, names, chances, "reads like")
    # sklearn takes a second to import; a training run that audits nothing never pays it
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(np.eye(len(names))[own], np.array(guesses), average="macro"))


def _check_with_model(
    rows: Sequence[_Row], material: Material, missing: dict[str, str]
) -> tuple[dict[str, float], list[str]]:
    """Notes what the judge says; the share of texts that argue for each class, and why that is not to be trusted."""
    names, judge = material.book.labels.names, material.judge
    if judge is None:
        missing |= {"contradiction": "no model was named (--model)", "grounding": "no model was named (--model)"}
        return {}, []
    # torch comes with them; without a model an audit starts at once
    from rbft.rationales.checks.contradiction import Contradiction
    from rbft.rationales.checks.grounding import Grounding

    check = Contradiction()
    verdicts = check.verdicts(material)
    argued, result = verdicts.chances, (verdicts.answers, verdicts.doubts())
    _note(rows, check, own_against_best_other(argued, [names.index(row.rationale.label) for row in rows]))
    for row, chances in zip(rows, argued, strict=True):
        row.remarks[check.name], _ = _guess(row, names, chances, "argues for")
    if judge.ask is None:
        missing["grounding"] = "no folder of videos was named (--videos)"
        return result
    grounding = Grounding()
    for row, margin in zip(rows, grounding.margins(material), strict=True):
        if margin is not None:
            row.scores[grounding.name] = margin.score
            row.values |= {
                "fails_grounding": float(margin.score < grounding.threshold),
                "nats_over_other_videos": margin.over_others,
                "nats_over_blank_video": margin.over_blank,
            }
            row.remarks[grounding.name] = f"{margin.over_others:+.2f} nats a token over other videos"
    if not any("fails_grounding" in row.values for row in rows):
        missing["grounding"] = "there are too few other videos to compare with"
    return result


def _check_as_stored(rows: Sequence[_Row], checks: Sequence[Check], missing: dict[str, str]) -> None:
    """The scores of checks that a model gave when the rationales were written."""
    for check in checks:
        if check.needs_model:
            _note(rows, check, [row.rationale.scores.get(check.name) for row in rows])
    for name in ("contradiction", "grounding"):
        if not any(name in row.scores for row in rows):
            missing[name] = "the stage that wrote them has no such check (model.checks), or it scored none"


def _find_prompt_leaks(rows: Sequence[_Row], file: RationaleFile, missing: dict[str, str]) -> None:
    """A question that names its own class more often than any other hands over the answer."""
    masks = {name: LabelMask([file.book.text(name)]) for name in file.book.labels.names}
    counted: dict[str, dict[str, int]] = {}
    questions = [question for r, question in zip(file.rationales, file.questions, strict=True) if r.text]
    for row, question in zip(rows, questions, strict=True):
        if question is None:
            continue
        if question not in counted:
            counted[question] = {name: len(mask.found(question)) for name, mask in masks.items()}
        counts = counted[question]
        rest = max(count for name, count in counts.items() if name != row.rationale.label)
        row.values["prompt_names_label"] = float(counts[row.rationale.label] > rest)
    if all(question is None for question in questions):
        missing["leaks in prompts"] = "the prompts are not known (--config)"


_SHARES = (
    "fails_label_parse",
    "no_conclusion",
    "fails_contradiction",
    "fails_leak",
    "names_label",
    "prompt_names_label",
    "reconstructed",
    "fails_reconstruction",
    "fails_grounding",
    "nats_over_other_videos",
    "nats_over_blank_video",
    "fails_repetition",
    "fails_truncation",
)


def _figures(rows: Sequence[_Row], rationales: Sequence[Rationale]) -> Figures:
    """Counts and means; None for what was not measured."""
    figures: Figures = {"rationales": len(rationales), "empty": sum(not r.text for r in rationales)}
    for key in _SHARES:
        values = [row.values[key] for row in rows if key in row.values]
        figures[key] = fmean(values) if values else None
    lengths = statistics.lengths([row.text for row in rows]) if rows else {}
    return figures | {"median_words": lengths.get("median")}


def _examples(rows: Sequence[_Row]) -> list[Example]:
    """The lowest scores below its threshold by each check; of equal ones those of different classes and texts."""
    examples: list[Example] = []
    for check in dict.fromkeys(name for row in rows for name in row.scores):
        failed = [row for row in rows if row.values.get(f"fails_{check}")]
        failed.sort(key=lambda row: row.scores[check])
        texts: set[tuple[str, ...]] = set()
        for row in failed:
            if len(texts) < _EXAMPLES and row.text.words not in texts:
                texts.add(row.text.words)
                r = row.rationale
                examples.append(Example(check, row.scores[check], r.id, r.label, r.text, row.remarks.get(check, "")))
    return examples
