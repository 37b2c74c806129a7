"""Whether a loaded model answers about clips here as it does in transformers alone, asked of the model itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from rbft.errors import ModelError
from rbft.video.clip import Clip
from rbft.vlm.batch import PromptInputs
from rbft.vlm.label_scorer import LabelScorer
from rbft.vlm.model import VLM
from rbft.vlm.processing import ClipProcessor
from rbft.vlm.prompt import Prompt

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# of unlike length, so that padding between them counts
FRAMES = (4, 2)
QUESTION = Prompt("Which of these does the video show: nothing, or some noise that no camera has seen?")
ANSWERS = ("nothing", "some noise that no camera has seen")
# difference of a token's log-probability that rounding explains, as a part of the standard deviation of logits: tiny
# models of all types of docs/models.md stay below 4e-6 and, but for one, 0.008; faults planted in them begin at 0.013
FLOAT32_TOLERANCE, HALF_TOLERANCE = 1e-3, 0.012
# and as a multiple of how far transformers is from itself where it keeps a prompt's keys and values
TIMES_ROUNDING = 2

_PASSED: set[tuple[str, ...]] = set()
"""Models that need not be asked again by this process."""


@dataclass(frozen=True)
class _Asked:
    """A question about a clip, with its answer.

    Args:
        prompt: as it is fed here.
        whole: everything that the processor gives, for transformers alone.
    """

    prompt: PromptInputs
    whole: dict[str, Tensor]


def _noise_clip(frames: int) -> Clip:
    """Small frames of noise, the same at every call, one second apart."""
    pixels = torch.randint(256, (frames, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(frames))
    times = tuple(float(second) for second in range(frames))
    return Clip(pixels, times, tuple(range(frames)), 1.0, float(frames), frames, "a clip of noise")


@torch.no_grad()
def require_parity(model: PreTrainedModel, processor: ClipProcessor, name: str, *settings: str) -> None:
    """Refuse a model that answers otherwise here than in one pass of transformers over all that its processor gives.

    Two clips of noise are scored in one batch, as labels are scored and as rows are trained on. A difference says that
    something of this family is not known here: an input, a mask, a position, or a layer that keeps a state.

    Args:
        model: Without adapters, its weights whole.
        processor: The model's.
        name: name of the model, for messages.
        settings: What else decides which model it is; one that passed is not asked again by the same process.

    Raises:
        ModelError: The answers differ by more than rounding explains, or there are none.
    """
    attention = str(model.config.get_text_config()._attn_implementation)
    key = (name, *settings, model.config.model_type, str(model.dtype), attention, model.device.type)
    if key in _PASSED:
        return
    training = model.training
    model.eval()
    try:
        _compare(model, processor, f"model.vlm: {name!r} is a {model.config.model_type!r} model")
    finally:
        model.train(training)
    _PASSED.add(key)


def _compare(model: PreTrainedModel, processor: ClipProcessor, what: str) -> None:
    asked, targets = _questions(processor, what)
    targets = [target.to(model.device) for target in targets]
    answer = targets[-1]
    with _explained(f"{what}, and transformers itself cannot answer about a clip with it"):
        alone = torch.stack([_plain_logits(model, one.whole, answer) for one in asked])
    spread = float(alone.std()) * len(answer)
    expected = _log_likelihoods(alone, answer)
    with _explained(f"{what}, which cannot be used here"):
        vlm = VLM(model, processor.pad_id, processor.end_ids)
        prompts = [one.prompt.to(model.device) for one in asked]
        scored = LabelScorer(tuple(targets))(vlm, prompts)[:, -1]
        log_probs, rows = vlm.target_log_probs(prompts, [answer] * len(prompts))
    trained = torch.zeros_like(scored).index_add_(0, rows.to(scored.device), log_probs)
    largest = float((torch.stack([scored, trained]) - expected).abs().max()) / spread
    tolerance = FLOAT32_TOLERANCE if model.dtype == torch.float32 else HALF_TOLERANCE
    if largest <= tolerance:
        return
    # logits that lie close together, and tokens that rounding sends to other experts, take more than most models do
    with _explained(f"{what}, which answers otherwise here than in transformers alone, whose cache cannot be used"):
        cached = torch.stack([_plain_logits(model, one.whole, answer, cached=True) for one in asked])
    rounding = float((_log_likelihoods(cached, answer) - expected).abs().max()) / spread
    # written so that what is not a number fails as well
    if not largest <= TIMES_ROUNDING * rounding:
        raise ModelError(
            f"{what}, which answers otherwise here than in transformers alone: the log-probability of a token differs "
            f"by {largest:.2g} of the spread of its logits, {max(tolerance, TIMES_ROUNDING * rounding):.2g} would be "
            "rounding. No answer of it could be trusted. Choose a model of a type that docs/models.md says works."
        )


def _questions(processor: ClipProcessor, what: str) -> tuple[list[_Asked], list[Tensor]]:
    """The clips and answers, made on the host: a trainer makes tensors elsewhere by default, processors do not."""
    with torch.device("cpu"), _explained(f"{what}, whose processor cannot be used"):
        targets = [processor.target_ids(QUESTION, answer) for answer in ANSWERS]
        clips = [_noise_clip(frames) for frames in FRAMES]
        return [
            _Asked(processor.prompt_inputs(QUESTION, c), processor.plain_inputs(QUESTION, c)) for c in clips
        ], targets


@contextmanager
def _explained(what: str) -> Iterator[None]:
    """Say what could not be done where a model's own code fails; a lack of memory says so itself."""
    try:
        yield
    except (ModelError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # whatever it trips over
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelError(f"{what}: {first}") from error


def _log_likelihoods(logits: Tensor, answer: Tensor) -> Tensor:
    """Log-likelihood of an answer after each clip (B,), of the logits about its tokens (B, T, V)."""
    return logits.log_softmax(-1).gather(2, answer.expand(len(logits), -1).unsqueeze(2)).sum((1, 2))


def _plain_logits(model: Any, given: Mapping[str, Tensor], answer: Tensor, *, cached: bool = False) -> Tensor:
    """Logits about each token of an answer (T, V), in float32, by transformers alone.

    Args:
        model: The model.
        given: everything that its processor gives for a prompt.
        answer: tokens of the answer (T,).
        cached: Whether the prompt is read first and the answer after it, rather than both in one pass.
    """
    inputs = {
        name: value.to(model.device, model.dtype if value.is_floating_point() else value.dtype)
        for name, value in given.items()
    }
    length = inputs["input_ids"].shape[1]
    # what else is given for each token says of text that it is text
    tails = {"input_ids": answer, "attention_mask": torch.ones_like(answer)}
    whole = dict(inputs)
    for name, value in inputs.items():
        if value.shape == (1, length):
            tail = tails.get(name, torch.zeros_like(answer)).to(value.dtype)
            whole[name] = torch.cat([value, tail.unsqueeze(0)], dim=1)
    _forget_positions(model)
    if cached:
        first = model(**inputs, use_cache=True)
        rest = model(
            input_ids=answer[:-1].unsqueeze(0),
            attention_mask=whole["attention_mask"][:, :-1],
            past_key_values=first.past_key_values,
            use_cache=True,
        )
        logits = torch.cat([first.logits[0, -1:], rest.logits[0]])
    else:
        logits = model(**whole, use_cache=False).logits[0, length - 1 : -1]
    _forget_positions(model)
    return logits.float()


def _forget_positions(model: Any) -> None:
    """Drop the offset that some models keep from the call before."""
    if hasattr(model.base_model, "rope_deltas"):
        model.base_model.rope_deltas = None
