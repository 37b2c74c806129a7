"""What several rationales of one clip cost in training: one packed row against a row for each.

  rows    a row for each rationale, each with the prompt and its visual tokens, in one batch
Ours computes the prompt once and each rationale after it. Forward and backward pass, LoRA; visual features were
computed before in both. max_abs_diff is between the losses; `gradient_diff` is the largest difference of a gradient
over the largest gradient.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

# a script knows its own folder only
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks.common import Row, median_ratio, time_in_turns
from benchmarks.families import Benchmark
from benchmarks.memory import peak_bytes
from benchmarks.models import FRAMES, Ours, adapters, load_ours, make_clip, make_texts

from rbft.objectives.base import language_model_loss
from rbft.vlm.batch import Batch, Item, PromptInputs, collate
from rbft.vlm.feature_cache import FeatureCache
from rbft.vlm.model import VLM
from rbft.vlm.prompt import Prompt

QUESTION = "Explain step by step what happens, then name the category: motion first, then objects and scene."


@dataclass(frozen=True)
class Loss:
    """The two ways to one loss.

    Args:
        vlm: The model.
        batch: Rationales of one clip.
    """

    vlm: VLM
    batch: Batch

    def packed(self) -> Tensor:
        """By one row."""
        return language_model_loss(self.vlm, self.batch)

    def rows(self) -> Tensor:
        """By a row for each rationale; equal weights."""
        log_probs, _ = self.vlm.target_log_probs(self.batch.prompts, self.batch.targets)
        return -log_probs.sum() / self.batch.normalizer


def gradients(vlm: VLM, loss: Callable[[], Tensor]) -> tuple[float, dict[str, Tensor]]:
    """The loss, and a copy of every gradient."""
    vlm.zero_grad()
    value = loss()
    value.backward()
    return float(value.detach()), {name: p.grad.clone() for name, p in vlm.named_parameters() if p.grad is not None}


def backward(vlm: VLM, loss: Callable[[], Tensor]) -> None:
    """Forward and backward pass."""
    vlm.zero_grad()
    loss().backward()


def encoded_prompt(ours: Ours, folder: Path, size: str) -> PromptInputs:
    """A prompt whose visual features are there."""
    prompt = ours.processor.prompt_inputs(Prompt(QUESTION), make_clip(0, FRAMES[size]))
    ours.vlm.features = FeatureCache(folder, 10**9)
    ours.vlm.encode([replace(prompt, key="clip")])
    encoded = ours.vlm.features.load("clip")
    if encoded is None:
        raise RuntimeError("the features were not stored")
    return ours.processor.encoded_inputs(Prompt(QUESTION), encoded, "a clip")


def stir(vlm: VLM) -> None:
    """Adapters start at zero, where half of the gradients vanish; move them off it."""
    torch.manual_seed(1)
    for name, value in vlm.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(value, std=0.02)


def measure(family: str, rationales: int, ours: Ours, prompt: PromptInputs, repeats: int) -> Row:
    """The row of one family and number of rationales."""
    length = len(prompt.ids) // 10
    texts = make_texts(rationales, length, length)
    # every text has at least as many tokens as words; cut to exactly a tenth of the prompt
    targets = [ours.processor.target_ids(Prompt(QUESTION), text)[:length] for text in texts]
    total = float(sum(map(len, targets)))
    loss = Loss(ours.vlm, collate([[Item(n, prompt, target, normalizer=total) for n, target in enumerate(targets)]]))
    ways = {"rbft": partial(backward, ours.vlm, loss.packed), "rows": partial(backward, ours.vlm, loss.rows)}
    value, packed = gradients(ours.vlm, loss.packed)
    expected, separate = gradients(ours.vlm, loss.rows)
    largest = max(float(gradient.abs().max()) for gradient in separate.values())
    difference = max(float((packed[name] - separate[name]).abs().max()) for name in separate)
    seconds = time_in_turns(ways, repeats)
    return {
        "case": f"{rationales} rationales",
        "family": family,
        "baseline": "rows",
        "speedup": median_ratio(seconds["rows"], seconds["rbft"]),
        "max_abs_diff": abs(value - expected),
        "gradient_diff": difference / largest,
        "peak_memory_ratio": round(peak_bytes(ways["rbft"]) / peak_bytes(ways["rows"]), 3),
        "prompt_tokens": len(prompt.ids),
        "rationale_tokens": length,
    }


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of this script alone."""
    parser.add_argument("--rationales", nargs="+", type=int, default=[1, 2, 4, 8], help="of a clip")


def measure_family(family: str, files: Path, flags: argparse.Namespace) -> list[Row]:
    """The rows of one family."""
    ours = load_ours(files, adapters())
    stir(ours.vlm)
    with tempfile.TemporaryDirectory() as folder:
        prompt = encoded_prompt(ours, Path(folder), flags.size)
        return [measure(family, number, ours, prompt, flags.repeats) for number in flags.rationales]


main = Benchmark(
    name="shared_prefix",
    description=__doc__,
    repeats=7,
    add_flags=add_flags,
    measure=measure_family,
    title="Several rationales of one clip: how many times as fast as a row for each",
    columns=("case", "family", "speedup", "max_abs_diff", "gradient_diff", "peak_memory_ratio"),
).main


if __name__ == "__main__":
    sys.exit(main())
