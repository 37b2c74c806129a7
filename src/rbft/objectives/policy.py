"""Policy gradient: rationales that the model writes are made likelier by how well the true class follows from them."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import Literal

import torch
from torch import Tensor

from rbft.data.dataset import Example
from rbft.data.prompt_templates import PromptBook
from rbft.data.records import VideoRecord
from rbft.errors import ConfigError
from rbft.objectives.base import ClassWeights, check_anchor, class_weights
from rbft.objectives.on_policy import OnPolicyObjective, answered, per_row
from rbft.rationales.concluding import Concluder
from rbft.rationales.store import Rationale
from rbft.vlm.base_weights import without_dropout
from rbft.vlm.batch import Batch, PromptInputs
from rbft.vlm.label_scorer import LabelScorer, Scoring
from rbft.vlm.model import VLM
from rbft.vlm.processing import ClipProcessor
from rbft.vlm.shared_prefix import answer_logits

Advantage = Literal["mean", "leave_one_out", "standardized"]


class PolicyObjective(OnPolicyObjective):
    """Group-relative policy gradient on rationales, with the closed set's probability of the true class as reward.

    Each clip gets a group of texts. A text's reward is the probability of the true class after it, as a test would
    score it (probability of the reference answer as reward: RLPR, arXiv 2506.18254; NOVER, arXiv 2505.16022). What is
    learned is the likelihood of the texts, weighted by how far each reward is from those of its group. The policy is
    updated once for each group, so no ratio of policies has to be clipped.

    Args:
        samples: texts in a group.
        max_new_tokens: length limit of a text, in tokens.
        reward: `probability` of the true class after the text, or `exact`: 1 where the text itself states that class.
        advantage: `mean` subtracts the mean reward of the group (GRPO without the division by its standard deviation:
            Dr. GRPO, Liu et al., arXiv 2503.20783); `leave_one_out` the mean of the other texts (RLOO, Ahmadian et al.,
            arXiv 2402.14740); `standardized` divides by the standard deviation, too, and averages over a text's own
            tokens (GRPO, Shao et al., arXiv 2402.03300).
        grounding: weight of the same reward with the text left as it is and the video swapped for one of another
            class, which is subtracted: how much of the answer comes from the video itself. Only for `probability`.
        format_reward: reward of a text that states a class.
        length_penalty: what is subtracted from the reward of a text of `max_new_tokens` tokens, in proportion less
            from a shorter one.
        anchor: weight of the divergence from the weights that the stage starts from, estimated at the sampled tokens
            (Schulman's estimator k3, as in GRPO).
        class_weights: `balanced` weighs clips so that all classes count the same.
    """

    def __init__(
        self,
        samples: int = 8,
        max_new_tokens: int = 256,
        reward: Literal["probability", "exact"] = "probability",
        advantage: Advantage = "mean",
        grounding: float = 0.0,
        format_reward: float = 0.0,
        length_penalty: float = 0.0,
        anchor: float = 0.0,
        class_weights: ClassWeights = "none",
    ) -> None:
        if samples < 2:
            raise ConfigError(f"model.objective.samples: {samples} must be at least 2; a reward counts within a group.")
        # of another temperature the samples would be of another policy than the one that is learned
        super().__init__(samples, 1.0, 1.0, max_new_tokens)
        for key, value in (
            ("grounding", grounding),
            ("format_reward", format_reward),
            ("length_penalty", length_penalty),
        ):
            if not 0 <= value < float("inf"):
                raise ConfigError(f"model.objective.{key}: {value} must be at least 0.")
        if grounding and reward == "exact":
            raise ConfigError("model.objective.grounding: the class that a text states does not change with the video.")
        self.reward, self.advantage = reward, advantage
        self.grounding, self.format_reward, self.length_penalty = grounding, format_reward, length_penalty
        self.anchor = check_anchor(anchor)
        self.class_weights: ClassWeights = class_weights
        self._figures = {"reward": 0.0, "stated_right": 0.0, "tokens": 0.0}

    @property
    def figures(self) -> dict[str, float]:
        """Mean reward, share of texts that state the right class, and mean tokens, of the last batch."""
        return self._figures

    def connect(self, processor: ClipProcessor, book: PromptBook, seed: int) -> None:
        """As every objective's; what scores the classes is made here, once for all steps."""
        super().connect(processor, book, seed)
        targets = tuple(processor.target_ids(book.label_prompt(), text) for text in book.texts)
        self._concluder = Concluder(processor, book, LabelScorer.of(targets, book.texts, Scoring()))

    def examples(
        self, records: Sequence[VideoRecord], book: PromptBook, rationales: Sequence[Rationale]
    ) -> list[Example]:
        """The rationale question about each training video; its value is the number of the true class.

        Raises:
            ConfigError: All videos are of one class, and grounding needs one of another.
        """
        weights, prompt = class_weights(records, self.class_weights), book.blind_prompt()
        if self.grounding and len(weights) < 2:
            raise ConfigError("model.objective.grounding: all training videos are of one class; set it to 0.")
        rows: list[Example] = []
        for place, record in enumerate(records):
            behind = [*records[place + 1 :], *records[:place]]
            other = next(r for r in behind if r.label != record.label) if self.grounding else None
            value = float(book.labels.index(record.label))
            rows.append(Example(record, prompt, None, weights[record.label], whole=True, value=value, contrast=other))
        return rows

    def loss(self, vlm: VLM, batch: Batch) -> Tensor:
        """This batch's share of the step's loss: a sum over weighted clips, divided by the clips of the step."""
        rows = range(len(batch))
        written = self.write(vlm, batch, rows)
        rewards = self._rewards(vlm, batch, written)
        advantages = advantages_of(rewards, self.advantage).flatten().to(batch.weights.device)
        texts = answered(batch, rows, written)
        before = None
        if self.anchor > 0:
            assert vlm.reference is not None, "the weights of the start were not kept"
            with torch.no_grad(), vlm.reference.active():
                before = answer_logits(vlm, texts).log_probs()
        answers = answer_logits(vlm, texts)
        logs = answers.log_probs()
        each = -advantages[answers.rows] * logs
        if before is not None:
            each = each + self.anchor * ((before - logs).exp() - (before - logs) - 1)
        lengths = torch.tensor([len(target) for target in texts.targets], device=logs.device)
        # divided by its own length, a long wrong text would be pushed down less than a short one
        divisor = lengths if self.advantage == "standardized" else self.sampling.max_new_tokens
        sums = per_row(each, answers.rows, len(texts)) / divisor
        return (sums * texts.weights).sum() / self.sampling.samples / batch.normalizer

    def _rewards(self, vlm: VLM, batch: Batch, written: Sequence[Sequence[Tensor]]) -> Tensor:
        """Reward of each text (B, G), B clips with groups of G."""
        parsed = [[self.book.parse(self.processor.decode(ids)) for ids in texts] for texts in written]
        truth = [int(value) for value in batch.values.tolist()]
        names = self.book.labels.names
        right = torch.tensor(
            [[text.stated == names[true] for text in texts] for true, texts in zip(truth, parsed, strict=True)]
        )
        stated = torch.tensor([[text.stated is not None for text in texts] for texts in parsed])
        tokens = torch.tensor([[len(ids) for ids in texts] for texts in written])
        if self.reward == "exact":
            rewards = right.double()
        else:
            bodies = [text.body for texts in parsed for text in texts]
            asked = batch.prompts
            rewards = self._probability(vlm, asked, bodies, truth)
            if self.grounding:
                others = [prompt.other for prompt in asked]
                assert all(other is not None for other in others), "every row has a video to swap with"
                swapped = self._probability(vlm, [other for other in others if other is not None], bodies, truth)
                rewards = rewards - self.grounding * swapped
        rewards = rewards + self.format_reward * stated - self.length_penalty * tokens / self.sampling.max_new_tokens
        real = batch.weights.cpu() > 0
        if bool(real.any()):
            self._figures = {
                "reward": float(rewards[real].mean()),
                "stated_right": float(right[real].double().mean()),
                "tokens": fmean(tokens[real].flatten().tolist()),
            }
        return rewards

    def _probability(
        self, vlm: VLM, prompts: Sequence[PromptInputs], bodies: Sequence[str], truth: Sequence[int]
    ) -> Tensor:
        """Probability of each clip's true class after each of its texts (B, G)."""
        with torch.no_grad(), without_dropout(vlm):
            asked = [prompt for prompt in vlm.with_features(prompts) for _ in range(self.sampling.samples)]
            chances = self._concluder(vlm, asked, bodies).reshape(len(prompts), self.sampling.samples, -1)
        return chances[torch.arange(len(prompts)), :, torch.tensor(truth)]


def advantages_of(rewards: Tensor, how: Advantage) -> Tensor:
    """Advantage of each text of a group (B, G), in float32.

    Args:
        rewards: rewards (B, G).
        how: see `PolicyObjective`.
    """
    centred = rewards - rewards.mean(1, keepdim=True)
    if how == "leave_one_out":
        # the mean of the others is further off than that of all
        centred = centred * (rewards.shape[1] / (rewards.shape[1] - 1))
    elif how == "standardized":
        centred = centred / (rewards.std(1, keepdim=True) + 1e-4)
    return centred.float()
