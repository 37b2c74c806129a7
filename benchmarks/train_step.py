"""What a LoRA training step costs: stored features and a head where tokens are supervised, against the plain path.

A step is forward, backward and AdamW over a batch of clips, from decoded frames or stored features on.
  plain path   the processor on frames, vision tower, language model, full-width head, labels of -100 where nothing is
               supervised: what the Trainer of transformers computes
Ours reads the features that the first epoch stored. `first_epoch_speedup` is that of a step of the first epoch, which
runs the processor and the vision tower and stores the features; `storing_ratio` is that step over the same without
storing. max_abs_diff is between the losses of the two paths from equal weights.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

# a script knows its own folder only
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks.common import Row, median_ratio, time_in_turns
from benchmarks.families import Benchmark
from benchmarks.memory import peak_bytes
from benchmarks.models import (
    FRAMES,
    Ours,
    Plain,
    adapters,
    describe_model,
    load_ours,
    load_plain,
    make_clip,
    make_texts,
)

from rbft.objectives.base import language_model_loss
from rbft.video.clip import Clip
from rbft.vlm.batch import Batch, Item, collate
from rbft.vlm.feature_cache import FeatureCache, feature_key
from rbft.vlm.model import VLM
from rbft.vlm.prompt import Prompt

QUESTION = "Which action does this video show? Answer with one of the following labels and nothing else."
# What stage 2 and stage 1 learn to answer, in words.
ANSWERS = {"labels": (1, 6), "rationales": (50, 70)}
LEARNING_RATE = 1e-4


def plain_batch(plain: Plain, clips: Sequence[Clip], answers: Sequence[str]) -> dict[str, Any]:
    """What the Trainer of transformers feeds a model: conversations with pixels, and labels for the answers' tokens."""
    inputs = plain.inputs([plain.text(QUESTION, answer) for answer in answers], clips)
    labels = inputs["input_ids"].clone()
    start = plain.text(QUESTION)
    tokenizer = plain.processor.tokenizer
    for row, answer in enumerate(answers):
        text = plain.text(QUESTION, answer)[len(start) :]
        after = tokenizer(text, add_special_tokens=False)["input_ids"]
        # what the template writes after the end of the turn is not learned
        end = after.index(tokenizer.eos_token_id) + 1
        last = int(inputs["attention_mask"][row].sum()) - len(after)
        labels[row, :last] = -100
        labels[row, last + end :] = -100
    return inputs | {"labels": labels}


def plain_loss(model: Any, batch: dict[str, Any]) -> Tensor:
    """Mean loss of the answers' tokens."""
    loss: Tensor = model(**batch, use_cache=False).loss
    return loss


def our_batch(
    ours: Ours, clips: Sequence[Clip], answers: Sequence[str], cache: FeatureCache | None, keys: Sequence[str]
) -> Batch:
    """The same as rbft feeds it; clips whose features are stored under their key need no frames."""
    rows, targets = [], [ours.processor.target_ids(Prompt(QUESTION), answer) for answer in answers]
    total = float(sum(map(len, targets)))
    for number, (clip, target, key) in enumerate(zip(clips, targets, keys, strict=True)):
        encoded = cache.load(key) if cache is not None else None
        if encoded is not None:
            prompt = ours.processor.encoded_inputs(Prompt(QUESTION), encoded, clip.path)
        else:
            prompt = ours.processor.prompt_inputs(Prompt(QUESTION), clip)
            prompt = prompt if cache is None else replace(prompt, key=key)
        rows.append([Item(number, prompt, target, normalizer=total)])
    return collate(rows).to(ours.vlm.device)


def our_loss(vlm: VLM, batch: Batch, cache: FeatureCache | None) -> Tensor:
    """The same as `plain_loss`, as a training stage computes it; what is encoded is stored in `cache`."""
    vlm.features = cache
    return language_model_loss(vlm, batch)


def stepper(model: Any, loss: Callable[[], Tensor]) -> Callable[[], None]:
    """A training step. Weights go on changing, which changes no cost."""
    trained = [value for value in model.parameters() if value.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=LEARNING_RATE)

    def step() -> None:
        loss().backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def measure(family: str, answers: str, files: Path, size: str, batch: int, frames: int, repeats: int) -> Row:
    """The row of one family and kind of answers."""
    clips = [make_clip(number, FRAMES[size], frames) for number in range(batch)]
    texts = make_texts(batch, *ANSWERS[answers])
    keys = [feature_key(clip.path) for clip in clips]
    ours, plain = load_ours(files, adapters()), load_plain(files, adapters())

    def compute(cache: FeatureCache | None) -> Tensor:
        return our_loss(ours.vlm, our_batch(ours, clips, texts, cache, keys), cache)

    def compute_plain() -> Tensor:
        return plain_loss(plain.model, plain_batch(plain, clips, texts))

    with tempfile.TemporaryDirectory() as folder:
        caches = (FeatureCache(Path(folder) / str(number), 10**10) for number in count())
        full = next(caches)
        # the first call stores what the second reads
        losses = [compute(full).item(), compute(full).item()]
        expected = compute_plain().item()
        if any(full.load(key) is None for key in keys):
            raise RuntimeError(f"{family}: features were not stored")
        steps = {
            "rbft": stepper(ours.vlm, lambda: compute(full)),
            "first epoch": stepper(ours.vlm, lambda: compute(next(caches))),
            "without storing": stepper(ours.vlm, lambda: compute(None)),
            "plain path": stepper(plain.model, compute_plain),
        }
        seconds = time_in_turns(steps, repeats)
        memory = peak_bytes(steps["rbft"]) / peak_bytes(steps["plain path"])
    return {
        "case": f"{answers}, {frames} frames",
        "family": family,
        "baseline": "plain path",
        "speedup": median_ratio(seconds["plain path"], seconds["rbft"]),
        "first_epoch_speedup": median_ratio(seconds["plain path"], seconds["first epoch"]),
        "storing_ratio": median_ratio(seconds["first epoch"], seconds["without storing"]),
        "max_abs_diff": max(abs(loss - expected) for loss in losses),
        "peak_memory_ratio": round(memory, 3),
        "batch": batch,
        "parameters": describe_model(ours.vlm.base),
    }


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of this script alone."""
    parser.add_argument("--answers", nargs="+", choices=tuple(ANSWERS), default=tuple(ANSWERS))
    parser.add_argument("--frames", type=int, default=8, help="of a clip (default: %(default)s)")
    parser.add_argument("--batch", type=int, default=2, help="clips of a step (default: %(default)s)")


def measure_family(family: str, files: Path, flags: argparse.Namespace) -> list[Row]:
    """The rows of one family."""
    return [
        measure(family, kind, files, flags.size, flags.batch, flags.frames, flags.repeats) for kind in flags.answers
    ]


main = Benchmark(
    name="train_step",
    description=__doc__,
    repeats=7,
    add_flags=add_flags,
    measure=measure_family,
    title="A LoRA training step: how many times as fast as the plain path",
    columns=("case", "family", "speedup", "first_epoch_speedup", "storing_ratio", "max_abs_diff", "peak_memory_ratio"),
).main


if __name__ == "__main__":
    sys.exit(main())
