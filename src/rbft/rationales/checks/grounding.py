"""The check that a rationale is about its own video and not about any video."""

from __future__ import annotations

import dataclasses
import hashlib
import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rbft.errors import ConfigError
from rbft.rationales.checks.base import Check, Judge, Material
from rbft.rationales.store import Rationale
from rbft.vlm.batch import PromptInputs
from rbft.vlm.finite import require_finite

_FEWEST_OTHERS = 4


@dataclass(frozen=True)
class Margin:
    """How much more likely a rationale is under its own video.

    Args:
        own: Log-probability of the text given its own video, in nats.
        others: log-likelihoods given other videos.
        blank: log-likelihood given a clip of its own video's shape that shows one colour.
        tokens: Tokens of the text.
    """

    own: float
    others: tuple[float, ...]
    blank: float
    tokens: int

    @property
    def over_others(self) -> float:
        """Nats a token above the mean of the other videos."""
        return (self.own - statistics.fmean(self.others)) / self.tokens

    @property
    def over_blank(self) -> float:
        """Nats a token above the blank clip."""
        return (self.own - self.blank) / self.tokens

    @property
    def score(self) -> float:
        """One minus the p-value of "its own video is just another one", 0 where the blank clip explains it as well.

        Under an unrelated video the log-probability is taken as normally distributed over videos (Student's t of one
        new observation), so an ungrounded text passes a threshold of 0.95 in about 5% of cases.
        """
        if self.own <= self.blank:
            return 0.0
        spread = statistics.stdev(self.others) * math.sqrt(1 + 1 / len(self.others))
        distance = self.own - statistics.fmean(self.others)
        if spread == 0:
            return float(distance > 0)
        from scipy.stats import t as student

        return float(student.cdf(distance / spread, len(self.others) - 1))


class Grounding(Check):
    """Whether the model finds a rationale likelier given its own video than given other videos and a blank clip.

    About half of the others are videos of the same class: against other classes alone a text passes that only knows the
    class. The question is the one that does not name the class. The idea is that of
    cross-clip shuffling; log p(rationale | video) - log p(rationale | other video) is their pointwise mutual
    information.

    Args:
        others: Other videos of the set to compare with, where it has as many; a few more may be taken. As many rows are
            computed for each rationale. With fewer than four others nothing is scored.
        threshold: Lowest score that passes.
    """

    name = "grounding"
    needs_model = True
    needs_videos = True
    compares = True

    def __init__(self, others: int = 12, threshold: float = 0.95) -> None:
        super().__init__(threshold)
        if others < _FEWEST_OTHERS:
            raise ConfigError(f"model.checks: others of Grounding is {others}; it must be at least {_FEWEST_OTHERS}.")
        self.others = others

    def _scores(self, material: Material) -> list[float | None]:
        return [None if margin is None else margin.score for margin in self.margins(material)]

    def margins(self, material: Material) -> list[Margin | None]:
        """What each rationale gains from its own video; None where there are too few videos to compare with."""
        judge, question = material.judge, material.book.blind_prompt()
        assert judge is not None and judge.ask is not None, "Check.scores refuses to go on without"
        margins: dict[int, Margin] = {}
        of_video: dict[str, list[int]] = {}
        for place, rationale in enumerate(material.rationales):
            of_video.setdefault(rationale.video, []).append(place)
        for group in self._groups(material.rationales):
            if len(group) <= _FEWEST_OTHERS:
                continue
            with torch.no_grad():
                clips = [judge.ask(video, question).to(judge.vlm.device) for video in group]
                seen = _Encoded(judge, clips)
                for column, video in enumerate(group):
                    blank = _Encoded(judge, [_blank(clips[column])])
                    for place in of_video[video]:
                        target = judge.processor.target_ids(question, material.rationales[place].text)
                        # without the end of the turn: a text that lacks its conclusion should not end here
                        target = target[:-1].to(judge.vlm.device)
                        chances = seen.log_probabilities(target)
                        own = chances.pop(column)
                        (nothing,) = blank.log_probabilities(target)
                        margins[place] = Margin(own, tuple(chances), nothing, len(target))
                    judge.report(self.name, len(margins), len(material.rationales))
        return [margins.get(place) for place in range(len(material.rationales))]

    def _groups(self, rationales: Sequence[Rationale]) -> Iterator[list[str]]:
        """The videos in groups within which they are compared: each clip is encoded once.

        A group is made of runs of videos of one class, each up to half of what is compared with. Which videos meet
        follows from their names alone.
        """
        by_class: dict[str, set[str]] = {}
        for rationale in rationales:
            by_class.setdefault(rationale.label, set()).add(rationale.video)
        length = self.others // 2 + 1
        runs = []
        for videos in by_class.values():
            drawn = sorted(videos, key=_draw)
            runs += [drawn[start : start + length] for start in range(0, len(drawn), length)]
        groups: list[list[str]] = [[]]
        for run in sorted(runs, key=lambda run: _draw(run[0])):
            if len(groups[-1]) > self.others:
                groups.append([])
            groups[-1] += run
        if len(groups) > 1 and len(groups[-1]) <= self.others:
            last = groups.pop()
            groups[-1] += last
        yield from groups


class _Encoded:
    """Clips of one question, their visual features computed once."""

    def __init__(self, judge: Judge, clips: Sequence[PromptInputs]) -> None:
        self.judge = judge
        size = judge.batch_size
        self.parts: list[tuple[Sequence[PromptInputs], dict[str, Any]]] = [
            (clips[start : start + size], judge.vlm.encode(clips[start : start + size]))
            for start in range(0, len(clips), size)
        ]

    def log_probabilities(self, target: Tensor) -> list[float]:
        """Of one text given each of the clips."""
        scores: list[float] = []
        for clips, visual in self.parts:
            chances, rows = self.judge.vlm.target_log_probs(clips, [target] * len(clips), visual)
            sums = torch.zeros(len(clips), device=chances.device).index_add_(0, rows, chances)
            require_finite(sums, clips, "the log-probabilities of a rationale", self.judge.vlm)
            scores += sums.tolist()
        return scores


def _blank(inputs: PromptInputs) -> PromptInputs:
    """The same question about a clip of one colour: the processor's mean."""
    pixels = {name: torch.zeros_like(value) for name, value in inputs.vision.items() if name.startswith("pixel_values")}
    return dataclasses.replace(inputs, vision=inputs.vision | pixels, key=None)


def _draw(name: str) -> bytes:
    return hashlib.blake2b(name.encode(), digest_size=8).digest()
