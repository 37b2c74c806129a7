"""The check that asks a model, without the video, which class a rationale argues for."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rbft.data.prompt_templates import PromptBook
from rbft.rationales.checks.base import Check, Judge, Material, own_against_best_other
from rbft.rationales.checks.wording import MASK, LabelMask
from rbft.vlm.label_scorer import LabelScorer

_CONTENT_FREE = ("", MASK, "N/A")
_STATED = 16  # classes that are stated to the judge
_ONE_SIDED, _FEWEST = 0.95, 10


@dataclass(frozen=True)
class Verdicts:
    """What a judge makes of texts.

    Args:
        chances: for each text the probability of each class, in their order, that it argues for it.
        names: the classes.
        labels: the class of each text.
        stated: how many texts were planted that do nothing but name a class.
        found: in how many of them the judge found that class.
    """

    chances: list[list[float]]
    names: tuple[str, ...]
    labels: list[str]
    stated: int
    found: int

    @property
    def answers(self) -> dict[str, float]:
        """The share of the texts that argue for each class."""
        counts = Counter(self.names[max(range(len(row)), key=row.__getitem__)] for row in self.chances)
        return {name: counts[name] / max(1, len(self.chances)) for name in self.names}

    def doubts(self) -> list[str]:
        """Why these verdicts are not to be trusted, in sentences; empty where nothing speaks against them."""
        from scipy.stats import binomtest

        reasons, chance = [], 1 / len(self.names)
        if binomtest(self.found, self.stated, chance, alternative="greater").pvalue > 0.05:
            reasons.append(
                f"the judge finds the class in {self.found} of {self.stated} texts that do nothing but name one, and "
                f"guessing finds {chance * self.stated:.0f}: it does not read these classes. Name another model, or "
                "leave the check out."
            )
        name, share = max(self.answers.items(), key=lambda answer: answer[1])
        true_share = self.labels.count(name) / max(1, len(self.labels))
        if len(self.labels) >= _FEWEST and share >= _ONE_SIDED and true_share <= 0.8:
            reasons.append(
                f"the judge says {name!r} of {share:.1%} of the texts, and {true_share:.1%} are of that class: read "
                "some of them before you believe it."
            )
        return reasons


class Contradiction(Check):
    """Whether a rationale argues for its own class: p(own) / (p(own) + p(strongest other)), 0.5 where they tie.

    The model reads `judge_question` with the rationale, without its conclusion and with the words of all classes
    hidden, and its answers are the classes. So what counts is what the text tells, not which class it names: the class
    has to be recovered from the rationale alone (annotation to reasoning to annotation, as in RISE, arXiv 2508.13229).
    What the model answers to texts without content is taken out (contextual calibration, Zhao et al., arXiv
    2102.09690). Against the strongest other class the score does not depend on how many there are.

    Args:
        mask_labels: Whether the words of classes are hidden. Keep them where classes are seen things (horse riding).
        threshold: Lowest score that passes.
    """

    name = "contradiction"
    needs_model = True

    def __init__(self, mask_labels: bool = True, threshold: float = 0.5) -> None:
        super().__init__(threshold)
        self.mask_labels = mask_labels

    def _scores(self, material: Material) -> list[float | None]:
        own = [material.book.labels.index(rationale.label) for rationale in material.rationales]
        verdicts = self.verdicts(material)
        self.doubts = verdicts.doubts()
        return list(own_against_best_other(verdicts.chances, own))

    def verdicts(self, material: Material) -> Verdicts:
        """What the judge makes of each rationale, and of texts whose class is known."""
        book, judge = material.book, _judge(material)
        mask = LabelMask(book.texts)
        texts = [mask.hide(r.text) if self.mask_labels else r.text for r in material.rationales]
        stated = [(name, text) for name in book.labels.names[:_STATED] for text in _statements(book, name)]
        asked = [*_CONTENT_FREE, *(text for _, text in stated), *texts]
        videos = ["a text without content"] * len(_CONTENT_FREE) + [f"a text that names {name}" for name, _ in stated]
        scores = self._ask(judge, book, asked, [*videos, *(r.video for r in material.rationales)])
        prior = scores[: len(_CONTENT_FREE)].softmax(-1).mean(0).log()
        chances = (scores[len(_CONTENT_FREE) :] - prior).softmax(-1).tolist()
        right = [
            book.labels.names[max(range(len(row)), key=row.__getitem__)] == name
            for row, (name, _) in zip(chances, stated, strict=False)
        ]
        labels = [rationale.label for rationale in material.rationales]
        return Verdicts(chances[len(stated) :], book.labels.names, labels, len(stated), sum(right))

    def _ask(self, judge: Judge, book: PromptBook, texts: Sequence[str], videos: Sequence[str]) -> Tensor:
        """Log-likelihood (N, C) of each class after each text."""
        questions = [book.judge_prompt(text) for text in texts]
        answers = tuple(judge.processor.target_ids(questions[0], text) for text in book.texts)
        inputs = [
            dataclasses.replace(judge.processor.prompt_inputs(question, None), video=video)
            for question, video in zip(questions, videos, strict=True)
        ]
        # rows are padded to the longest of a batch, so neighbours should be of like length
        order = sorted(range(len(inputs)), key=lambda row: len(inputs[row].ids))
        scorer = LabelScorer(answers)
        scores = torch.empty((len(inputs), len(answers)), dtype=torch.float64)
        for start in range(0, len(order), judge.batch_size):
            rows = order[start : start + judge.batch_size]
            scores[rows] = scorer(judge.vlm, [inputs[row].to(judge.vlm.device) for row in rows]).cpu().double()
            judge.report(self.name, start + len(rows), len(inputs))
        return scores


def _statements(book: PromptBook, name: str) -> list[str]:
    """Texts that do nothing but name a class."""
    text = book.text(name)
    criteria = [book.prompts.criteria[name]] if name in book.prompts.criteria else []
    return [text, book.concluded("", name), f"{text} .", f"The video shows {text}.", *criteria]


def _judge(material: Material) -> Judge:
    assert material.judge is not None, "Check.scores refuses to go on without"
    return material.judge
