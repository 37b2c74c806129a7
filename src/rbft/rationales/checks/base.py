"""What a check of rationales is, and what it is given to look at."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from rbft.data.prompt_templates import PromptBook
from rbft.errors import ConfigError
from rbft.rationales.store import Rationale
from rbft.vlm.prompt import Prompt

if TYPE_CHECKING:  # checks of the text alone start without torch
    from rbft.vlm.batch import PromptInputs
    from rbft.vlm.model import VLM
    from rbft.vlm.processing import ClipProcessor


@dataclass(frozen=True)
class Judge:
    """A model that reads rationales, and watches their videos where `ask` is given.

    Args:
        vlm: The model, in evaluation mode.
        processor: processor of the model.
        ask: The inputs, with pixels, of a question about a video, named by its path under the data root; None where
            there are no videos.
        batch_size: Rows with a video that are computed at a time; bounds memory.
        report: function that is called with the name of a check, the number of scored rationales and of all.
    """

    vlm: VLM
    processor: ClipProcessor
    ask: Callable[[str, Prompt], PromptInputs] | None = None
    batch_size: int = 8
    report: Callable[[str, int, int], None] = lambda check, done, total: None


@dataclass(frozen=True)
class Material:
    """What checks look at.

    Args:
        rationales: all rationales of a set; some checks compare them with each other.
        book: The prompts they were written for.
        judge: Who reads them; None for the checks that need no model.
    """

    rationales: tuple[Rationale, ...]
    book: PromptBook
    judge: Judge | None = None


class Check(ABC):
    """Scores rationales; below its threshold a rationale is not to be trusted.

    Args:
        threshold: Lowest score that passes, in [0, 1].
    """

    name: ClassVar[str]
    """Key of the score in `Rationale.scores`."""
    needs_model: ClassVar[bool] = False
    needs_videos: ClassVar[bool] = False
    compares: ClassVar[bool] = False
    """Whether a score depends on the other rationales of the set."""

    def __init__(self, threshold: float) -> None:
        if not 0 <= threshold <= 1:
            raise ConfigError(f"model.checks: the threshold {threshold} of {type(self).__name__} must lie in [0, 1].")
        self.threshold = threshold
        self.doubts: list[str] = []
        """Why the scores that were given last are not to be trusted, in sentences."""

    def scores(self, material: Material) -> list[float | None]:
        """One score for each rationale; None where there is nothing to judge, as in an empty text.

        Raises:
            ConfigError: The check needs a model or videos and there are none.
        """
        judge = material.judge
        if self.needs_model and judge is None:
            raise ConfigError(f"the check {self.name!r} asks a model; name one, or leave the check out.")
        if self.needs_videos and (judge is None or judge.ask is None):
            raise ConfigError(f"the check {self.name!r} watches the videos; say where they are, or leave it out.")
        places = [place for place, rationale in enumerate(material.rationales) if rationale.text]
        scores: list[float | None] = [None] * len(material.rationales)
        if places:
            filled = dataclasses.replace(material, rationales=tuple(material.rationales[place] for place in places))
            for place, score in zip(places, self._scores(filled), strict=True):
                scores[place] = score
        return scores

    @abstractmethod
    def _scores(self, material: Material) -> list[float | None]:
        """The scores of rationales none of which is empty."""


def own_against_best_other(probabilities: Sequence[Sequence[float]], own: Sequence[int]) -> list[float]:
    """p(own) / (p(own) + p(strongest other)) for each row of probabilities."""
    shares = []
    for row, own_chance in zip(probabilities, own, strict=True):
        other = max(value for place, value in enumerate(row) if place != own_chance)
        shares.append(row[own_chance] / (row[own_chance] + other))
    return shares
