"""The check that asks a model, without the video, which class a rationale argues for."""

from __future__ import annotations

import dataclasses

from torch import Tensor

from rbft.rationales.checks.base import Check, Judge, Material, own_against_best_other
from rbft.rationales.checks.wording import LabelMask
from rbft.vlm.label_scorer import LabelScorer


class Contradiction(Check):
    """Whether a rationale argues for its own class: p(own) / (p(own) + p(strongest other)), 0.5 where they tie.

    The model reads `judge_question` with the rationale, without its conclusion and with the words of all classes
    hidden, and its answers are the classes. So what counts is what the text tells, not which class it names: the class
    has to be recovered from the rationale alone (annotation to reasoning to annotation, as in RISE, arXiv 2508.13229).
    Against the strongest other class the score does not depend on how many there are.

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
        return list(own_against_best_other(self.argued(material), own))

    def argued(self, material: Material) -> list[list[float]]:
        """Probability of each class, in their order, that each rationale argues for it."""
        book, judge = material.book, _judge(material)
        mask = LabelMask(book.texts)
        texts = [mask.hide(r.text) if self.mask_labels else r.text for r in material.rationales]
        questions = [book.judge_prompt(text) for text in texts]
        answers = tuple(judge.processor.target_ids(questions[0], text) for text in book.texts)
        inputs = [
            dataclasses.replace(judge.processor.prompt_inputs(question, None), video=rationale.video)
            for question, rationale in zip(questions, material.rationales, strict=True)
        ]
        # rows are padded to the longest of a batch, so neighbours should be of like length
        order = sorted(range(len(inputs)), key=lambda row: len(inputs[row].ids))
        scorer, found = LabelScorer(answers), dict[int, list[float]]()
        for start in range(0, len(order), judge.batch_size):
            rows = order[start : start + judge.batch_size]
            scores: Tensor = scorer(judge.vlm, [inputs[row].to(judge.vlm.device) for row in rows])
            found |= dict(zip(rows, scores.double().softmax(-1).tolist(), strict=True))
            judge.told(self.name, len(found), len(inputs))
        return [found[row] for row in range(len(inputs))]


def _judge(material: Material) -> Judge:
    assert material.judge is not None, "Check.scores refuses to go on without"
    return material.judge
