"""From written rationales to those that are trained on: checks are run, and a policy keeps, weighs or drops."""

from __future__ import annotations

import dataclasses
import math
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from typing import Literal

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


def score(checks: Sequence[Check], material: Material) -> list[Rationale]:
    """The rationales with their scores; cheap checks run first, so that what is missing for the others shows early.

    Raises:
        ConfigError: A check needs a model or videos that are not there.
    """
    scores: list[dict[str, float]] = [{} for _ in material.rationales]
    for check in sorted(checks, key=lambda check: (check.needs_videos, check.needs_model)):
        for mine, value in zip(scores, check.scores(material), strict=True):
            if value is not None:
                mine[check.name] = value
    return [
        dataclasses.replace(rationale, scores=mine) for rationale, mine in zip(material.rationales, scores, strict=True)
    ]


def product(rationale: Rationale) -> float:
    """All scores of a rationale in one; 1 for one that was not checked."""
    return math.prod(rationale.scores.values())


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

    def apply(self, rationales: Sequence[Rationale], checks: Sequence[Check]) -> list[Rationale]:
        """The rationales with `kept`, `reason` and `weight` set.

        Args:
            rationales: All of them, scored.
            checks: Those that scored them.

        Raises:
            StageError: Nothing of a class is left, and the policy says `error` or has nothing to fall back on.
        """
        fresh = [dataclasses.replace(r, kept=True, reason="", weight=1.0) for r in rationales]
        filled = iter(self._judge([r for r in fresh if r.text], {check.name: check.threshold for check in checks}))
        judged = [
            next(filled) if new.text else _dropped(new, old.reason or "empty")
            for old, new in zip(rationales, fresh, strict=True)
        ]
        covered = {r.label for r in judged if r.kept}
        for label in dict.fromkeys(r.label for r in judged):
            if label not in covered:
                judged = self._rescue(judged, label)
        return judged

    @abstractmethod
    def _judge(self, rationales: Sequence[Rationale], thresholds: dict[str, float]) -> list[Rationale]:
        """The same for rationales none of which is empty, one for each in order; classes may lose all of theirs."""

    def _rescue(self, rationales: list[Rationale], label: str) -> list[Rationale]:
        mine = [r for r in rationales if r.label == label]
        reasons = Counter(r.reason.split(" ")[0] for r in mine).most_common(3)
        told = f"{len(mine)} of {len(mine)} rationales of the class {label!r} are dropped " \
               f"({', '.join(f'{reason}: {count}' for reason, count in reasons)})"  # fmt: skip
        if self.on_empty_class == "error" or not any(r.text for r in mine):
            raise StageError(
                f"{told}. Write more of them (model.writer.samples), lower the thresholds in model.checks, "
                "or set model.keep.on_empty_class to keep_best."
            )
        best = _best_of_each_video([r for r in mine if r.text], 1)
        return [
            dataclasses.replace(r, kept=True, weight=1.0, reason=f"best of a class that lost all; {r.reason}")
            if r.key in best
            else r
            for r in rationales
        ]


def _best_of_each_video(rationales: Sequence[Rationale], count: int) -> set[tuple[str, int]]:
    """Keys of the `count` rationales of each video with the greatest product of scores; earlier samples win ties."""
    ranked = sorted(rationales, key=lambda r: (-product(r), r.sample))
    taken: Counter[str] = Counter()
    found = set()
    for rationale in ranked:
        if taken[rationale.id] < count:
            taken[rationale.id] += 1
            found.add(rationale.key)
    return found


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
        count: How many of each video.
        on_empty_class: As of every policy; here a class loses all only if all its texts are empty.
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
    """Score rationales and decide about them."""
    return keep.apply(score(checks, material), checks)
