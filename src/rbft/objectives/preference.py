"""Direct preference optimisation: the model's rationales that conclude rightly over those that do not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from rbft.data.dataset import Example
from rbft.data.prompt_templates import PromptBook
from rbft.data.records import VideoRecord
from rbft.errors import ConfigError, StageError
from rbft.objectives.base import ClassWeights, Objective, class_weights
from rbft.objectives.closed_set import answer_scores, answer_weights
from rbft.rationales.store import Rationale
from rbft.vlm.batch import Batch
from rbft.vlm.model import VLM
from rbft.vlm.shared_prefix import answer_logits


class PreferenceObjective(Objective):
    """DPO loss of pairs of rationales about one video (Rafailov et al., arXiv 2305.18290, equation 7).

    The preferred text concludes with the class of its video and is kept, the other one with another class or with
    something that is none; both are texts of the model about the same clip, and the question that they are learned
    under names no class. The reference are the weights that the stage starts from. All texts about a clip are read in
    one row.

    Args:
        between: which texts make a pair. `conclusions`: texts that were asked for without the class, by what they
            conclude with. `hints`: a text that was hinted to the video's class and concludes with it is preferred to
            one that was hinted to another class (`model.writer.contrast`) and does not conclude with the video's. So
            every video may have pairs, whether the model errs about it or not (contrasting prompts as in RLCD, Yang et
            al., arXiv 2307.12950).
        beta: how strongly the model is held to the reference; the loss looks at differences of log-likelihoods times
            this.
        pairs: most pairs of a video; all pairs of a video together weigh as much as one.
        nll: weight of the language-model loss of the preferred text, a mean over its tokens (Pang et al., Iterative
            Reasoning Preference Optimization, arXiv 2404.19733, equation 1); it keeps that text from becoming less
            likely together with the other.
        class_weights: `balanced` weighs clips so that all classes count the same.
    """

    learns = "rationale"
    anchor_at = "start"
    needs_reference = True

    def __init__(
        self,
        beta: float = 0.1,
        pairs: int = 4,
        nll: float = 0.0,
        class_weights: ClassWeights = "none",
        between: Literal["conclusions", "hints"] = "conclusions",
    ) -> None:
        self.contrasts = between == "hints"
        if not 0 < beta < float("inf"):
            raise ConfigError(f"model.objective.beta: {beta} must be above 0.")
        if pairs < 1:
            raise ConfigError(f"model.objective.pairs: {pairs} must be at least 1.")
        if not 0 <= nll < float("inf"):
            raise ConfigError(f"model.objective.nll: {nll} must be at least 0.")
        self.beta, self.pairs, self.nll = beta, pairs, nll
        self.class_weights: ClassWeights = class_weights

    def examples(
        self, records: Sequence[VideoRecord], book: PromptBook, rationales: Sequence[Rationale]
    ) -> list[Example]:
        """Two rows for each pair, the preferred text first; it carries the weight of the pair.

        Raises:
            StageError: No video has texts of both kinds, or one is of no training video.
        """
        weights, by_id = class_weights(records, self.class_weights), {record.id: record for record in records}
        texts: dict[str, tuple[list[str], list[str]]] = {}
        for rationale in rationales:
            if not rationale.labelled or not rationale.text:
                continue
            if rationale.id not in by_id:
                raise StageError(f"a rationale is of {rationale.id!r}, which is not a training video of this run.")
            right = rationale.stated == rationale.label
            if right and not rationale.kept:
                continue
            # a text counts for the side that it was written for, and where it concludes so
            if bool(rationale.hinted_to) != (self.contrasts and not right):
                continue
            of_video = texts.setdefault(rationale.id, ([], []))[0 if right else 1]
            # of a text that names no class, what it concludes with instead is what is to become less likely
            answer = rationale.written if rationale.stated is None else book.concluded(rationale.text, rationale.stated)
            # a control token may be spelt in plain letters after the text, where nobody looked for it
            if answer not in of_video and not any(token in answer for token in self.processor.special_tokens):
                of_video.append(answer)
        rows: list[Example] = []
        for name, (good, bad) in texts.items():
            record, chosen = by_id[name], _pairs(good, bad)[: self.pairs]
            for preferred, other in chosen:
                weight = weights[record.label] / len(chosen)
                rows.append(Example(record, book.blind_prompt(), preferred, weight, whole=True))
                rows.append(Example(record, book.blind_prompt(), other, 0.0, whole=True))
        if not rows:
            raise StageError(
                "no training video has both a rationale that concludes rightly and one that does not. Have more "
                "written "
                + ("with other random numbers" if self.contrasts else "without the class")
                + " (model.writer.samples and temperature"
                + ("" if self.contrasts else ", and model.prompts.hint blind")
                + ", in the layer of the write stage before this one)."
            )
        return rows

    def loss(self, vlm: VLM, batch: Batch) -> Tensor:
        """This batch's share of the step's loss: a sum over weighted pairs, divided by the pairs of the step."""
        assert vlm.reference is not None, "the weights of the start were not kept"
        with torch.no_grad(), vlm.reference.active():
            before = answer_scores(answer_logits(vlm, batch), len(batch))
        after = answer_scores(answer_logits(vlm, batch), len(batch))
        preferred, other = (after - before).reshape(-1, 2).unbind(1)
        weights = answer_weights(batch).reshape(-1, 2)[:, 0]
        each = -F.logsigmoid(self.beta * (preferred - other))
        if self.nll:
            tokens = torch.tensor([len(target) for target in batch.targets[::2]], device=after.device)
            each = each - self.nll * after.reshape(-1, 2)[:, 0] / tokens
        return (each * weights).sum() / batch.normalizer


def _pairs(good: Sequence[str], bad: Sequence[str]) -> list[tuple[str, str]]:
    """All pairs; the first ones are of as many different texts as there are."""
    if len(good) < len(bad):
        return [(first, second) for second, first in _pairs(bad, good)]
    turns = range(len(bad))
    return [(text, bad[(place + turn) % len(bad)]) for turn in turns for place, text in enumerate(good)]
