"""From written rationales to those that are trained on: checks are run, and a policy keeps, weighs or drops."""

from __future__ import annotations

import dataclasses
import math
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from typing import Literal

from rbft.data.prompt_templates import PromptBook
from rbft.errors import ConfigError, StageError
from rbft.rationales.checks.base import Check, Material
from rbft.rationales.checks.leak import Leak
from rbft.rationales.checks.text import LabelParse, Repetition, Truncation
from rbft.rationales.store import Rationale

OnEmptyClass = Literal["error", "keep_best"]


def text_checks() -> list[Check]:
    """The checks that cost nothing: they need no model and no other rationales."""
    return [LabelParse(), Leak(), Repetition(), Truncation()]


def require_distinct(checks: Sequence[Check]) -> None:
    """Refuse two checks that would write the same score.

    Raises:
        ConfigError: Names the check.
    """
    counts = Counter(check.name for check in checks)
    if twice := [name for name, count in counts.items() if count > 1]:
        raise ConfigError(f"model.checks: {twice[0]!r} stands twice; a rationale has one score of each check.")


def unusable(rationale: Rationale, book: PromptBook) -> str:
    """Why a rationale is never trained on, whatever the policy; empty where it may be.

    Under `blind_then_hint` a text that was written without the label counts only if it states that label (the filter of
    STaR, arXiv 2203.14465); of an unlabelled video one that states no class has none to learn.
    """
    if not rationale.text:
        return rationale.reason or "empty"
    own_way = rationale.hint == "blind" and book.prompts.hint == "blind_then_hint"
    if (own_way or not rationale.labelled) and rationale.stated is None:
        return "unstated class"
    if own_way and rationale.stated != rationale.label:
        return f"misstated class: {rationale.stated}"
    return ""


def score(checks: Sequence[Check], material: Material, standing: int = 0) -> list[Rationale]:
    """The rationales with their scores; cheap checks run first, so that what is missing for the others shows early.

    Args:
        checks: checks that score them; unusable texts are not scored.
        material: The rationales.
        standing: number of them, from the first on, that keep their scores: those of earlier attempts.

    Raises:
        ConfigError: A check needs a model or videos that are not there.
    """
    scores = [dict(r.scores) if place < standing else {} for place, r in enumerate(material.rationales)]
    usable = [place for place, r in enumerate(material.rationales) if not unusable(r, material.book)]
    fresh = [place for place in usable if place >= standing]
    for check in sorted(checks, key=lambda check: (check.needs_videos, check.needs_model)) if fresh else []:
        places = usable if check.compares else fresh
        part = dataclasses.replace(material, rationales=tuple(material.rationales[place] for place in places))
        for place, value in zip(places, check.scores(part), strict=True):
            if value is not None and place >= standing:
                scores[place][check.name] = value
    return [
        dataclasses.replace(rationale, scores=scored)
        for rationale, scored in zip(material.rationales, scores, strict=True)
    ]


def product(rationale: Rationale) -> float:
    """All scores of a rationale in one; 1 for one that was not checked."""
    return math.prod(rationale.scores.values())


RESCUED = "best of a class that lost all"
"""How the reason of a rationale begins that is kept only because its class would have none."""


def _dropped(rationale: Rationale, reason: str) -> Rationale:
    return dataclasses.replace(rationale, kept=False, reason=reason)


class Keep(ABC):
    """Decides which rationales stage 1 is trained on. Empty ones never are.

    Args:
        on_empty_class: What happens where nothing of a class would be left: `error`, or `keep_best` keeps the best of
            each of its videos, and says so as the reason.
    """

    def __init__(self, on_empty_class: OnEmptyClass = "error") -> None:
        self.on_empty_class: OnEmptyClass = on_empty_class

    def judge(self, rationales: Sequence[Rationale], checks: Sequence[Check], book: PromptBook) -> list[Rationale]:
        """The rationales with `kept`, `reason` and `weight` set; classes may have lost all of theirs.

        Args:
            rationales: all rationales, scored.
            checks: Those that scored them.
            book: The prompts they were written for.
        """
        fresh = [dataclasses.replace(r, kept=True, reason="", weight=1.0) for r in rationales]
        refused = [unusable(r, book) for r in rationales]
        left = [r for r, why in zip(fresh, refused, strict=True) if not why]
        judged = iter(self._judge(left, {check.name: check.threshold for check in checks}))
        return [_dropped(r, why) if why else next(judged) for r, why in zip(fresh, refused, strict=True)]

    def settle(self, judged: Sequence[Rationale], book: PromptBook) -> list[Rationale]:
        """The last word: no class of the labelled videos is left without a rationale.

        Args:
            judged: result of `judge`.
            book: The prompts they were written for.

        Raises:
            StageError: Nothing of a class is left, and the policy says `error` or has nothing to fall back on.
        """
        settled = list(judged)
        covered = {r.label for r in judged if r.kept and r.labelled}
        for label in dict.fromkeys(r.label for r in judged if r.labelled):
            if label not in covered:
                settled = self._rescue(settled, label, book)
        return settled

    @abstractmethod
    def _judge(self, rationales: Sequence[Rationale], thresholds: dict[str, float]) -> list[Rationale]:
        """The same for rationales none of which is empty, one for each in order; classes may lose all of theirs."""

    def _rescue(self, rationales: list[Rationale], label: str, book: PromptBook) -> list[Rationale]:
        of_class = [r for r in rationales if r.label == label and r.labelled]
        usable = [r for r in of_class if not unusable(r, book)]
        reasons = Counter(r.reason.split(" ")[0] for r in of_class).most_common(3)
        problem = (
            f"{len(of_class)} of {len(of_class)} rationales of the class {label!r} are dropped "
            f"({', '.join(f'{reason}: {count}' for reason, count in reasons)})"
        )
        if self.on_empty_class == "error" or not usable:
            raise StageError(
                f"{problem}. Write more of them (model.writer.samples, model.writer.regenerate), lower the thresholds "
                "in model.checks, or set model.keep.on_empty_class to keep_best."
            )
        best = _best_of_each_video(usable, 1)
        return [
            dataclasses.replace(r, kept=True, weight=1.0, reason=f"{RESCUED}; {r.reason}") if r.key in best else r
            for r in rationales
        ]


def _best_of_each_video(rationales: Sequence[Rationale], count: int) -> set[tuple[str, int]]:
    """Keys of the `count` rationales of each video with the greatest product of scores; earlier samples win ties."""
    ranked = sorted(rationales, key=lambda r: (-product(r), r.sample))
    taken: Counter[str] = Counter()
    best = set()
    for rationale in ranked:
        if taken[rationale.id] < count:
            taken[rationale.id] += 1
            best.add(rationale.key)
    return best


class KeepAll(Keep):
    """Keeps every rationale that is not empty; scores are stored and change nothing."""

    def _judge(self, rationales: Sequence[Rationale], thresholds: dict[str, float]) -> list[Rationale]:
        return list(rationales)


class Filter(Keep):
    """Drops a rationale that scores below the threshold of any check; what a check could not score passes it."""

    def _judge(self, rationales: Sequence[Rationale], thresholds: dict[str, float]) -> list[Rationale]:
        return [_dropped(r, reason) if (reason := _failure(r, thresholds)) else r for r in rationales]


def _failure(rationale: Rationale, thresholds: dict[str, float]) -> str:
    failed = [
        f"{name} {rationale.scores[name]:.2f} below {limit:.2f}"
        for name, limit in thresholds.items()
        if rationale.scores.get(name, 1.0) < limit
    ]
    return ", ".join(failed)


class BestOf(Keep):
    """Keeps the rationales of each video with the greatest product of scores.

    Args:
        count: number of texts kept for each video.
        on_empty_class: as in every policy; here a class loses all only if all its texts are empty.
    """

    def __init__(self, count: int = 1, on_empty_class: OnEmptyClass = "error") -> None:
        super().__init__(on_empty_class)
        if count < 1:
            raise ConfigError(f"model.keep.count: {count} must be at least 1.")
        self.count = count

    def _judge(self, rationales: Sequence[Rationale], thresholds: dict[str, float]) -> list[Rationale]:
        best = _best_of_each_video(rationales, self.count)
        reason = f"not among the best {self.count} of its video"
        return [r if r.key in best else _dropped(r, reason) for r in rationales]


class SoftWeights(Keep):
    """Weighs each rationale in the stage-1 loss by the product of its scores; what weighs nothing is dropped."""

    def _judge(self, rationales: Sequence[Rationale], thresholds: dict[str, float]) -> list[Rationale]:
        weighed = [dataclasses.replace(r, weight=product(r)) for r in rationales]
        return [r if r.weight > 0 else _dropped(r, "weight 0: " + _zeros(r)) for r in weighed]


def _zeros(rationale: Rationale) -> str:
    return ", ".join(name for name, value in rationale.scores.items() if value == 0) or "product of scores"


def verify(checks: Sequence[Check], keep: Keep, material: Material) -> list[Rationale]:
    """Score rationales and decide about them.

    Raises:
        ConfigError: A check needs a model or videos that are not there.
        StageError: A class has lost all of its rationales.
    """
    return keep.settle(keep.judge(score(checks, material), checks, material.book), material.book)
