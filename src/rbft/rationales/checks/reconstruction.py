"""The check whether a classifier trained on the other rationales recovers the class from the text alone."""

from __future__ import annotations

from collections import Counter

from rbft.errors import ConfigError
from rbft.rationales.checks.base import Check, Material, own_against_best_other
from rbft.rationales.checks.text_classifier import cross_validated
from rbft.rationales.checks.wording import LabelMask


class Reconstruction(Check):
    """Whether other rationales tell the class of this one: p(own) / (p(own) + p(strongest other)).

    A classifier of word runs, trained on the rationales of other videos with the words of all classes hidden, guesses
    the class. It needs no model and sees what is systematic in a set; it cannot see that a whole class argues the wrong
    way, which `Contradiction` can. Of a set with fewer videos than asked for in a class, nothing is scored.

    Args:
        min_videos: Fewest videos a class must have.
        folds: Parts of the cross-validation.
        threshold: Lowest score that passes.
    """

    name = "reconstruction"
    compares = True

    def __init__(self, min_videos: int = 8, folds: int = 5, threshold: float = 0.35) -> None:
        super().__init__(threshold)
        if folds < 2 or min_videos < 2:
            raise ConfigError("model.checks: folds and min_videos of Reconstruction must be at least 2.")
        self.min_videos, self.folds = min_videos, folds

    def _scores(self, material: Material) -> list[float | None]:
        guesses = self.guessed(material)
        if guesses is None:
            return [None] * len(material.rationales)
        own = [material.book.labels.index(rationale.label) for rationale in material.rationales]
        return list(own_against_best_other(guesses, own))

    def guessed(self, material: Material) -> list[list[float]] | None:
        """Probability of each class, in their order, for each rationale; None where a class has too few videos."""
        book = material.book
        videos = Counter(label for label, _ in {(r.label, r.id) for r in material.rationales})
        if min(videos[name] for name in book.labels.names) < self.min_videos:
            return None
        mask = LabelMask(book.texts)
        guesses = cross_validated(
            [mask.hide(rationale.text) for rationale in material.rationales],
            [book.labels.index(rationale.label) for rationale in material.rationales],
            [rationale.id for rationale in material.rationales],
            len(book.labels),
            self.folds,
        )
        return [list(row) for row in guesses.tolist()]
