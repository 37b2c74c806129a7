"""What scoring a closed set of labels costs: labels read together after a prompt that is read once, against peers.

Ours encodes the clip, reads the prompt into a key-value cache, and reads all labels after it as one tree of tokens.
  naive                 a whole forward pass of transformers for each label, pixels included
  rows behind a cache   what ours does where attention takes no tree: the cache repeated for each label
  generate and parse    greedy generation of as many tokens as the longest label has; knows one label, no scores
Pixels were prepared before in all of them. max_abs_diff is between summed log-probabilities of labels. `bound` is what
`speedup` would be if labels cost nothing after the clip and the prompt, which every way has to read once. With
`kept_features_speedup` ours takes the features of the clip from where an earlier epoch, stage or run left them.
`best_only_speedup` is ours where the five likeliest labels alone are scored whole (`rbft predict --best-only`). Random
weights, to which all labels are about as likely, are the worst case for it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

# a script knows its own folder only
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks.common import Row, median_ratio, time_in_turns
from benchmarks.families import Benchmark
from benchmarks.memory import peak_bytes
from benchmarks.models import FRAMES, Ours, Plain, load_ours, load_plain, make_clip, make_texts

from rbft.vlm.batch import PromptInputs
from rbft.vlm.best_labels import BestLabels
from rbft.vlm.label_scorer import LabelScorer
from rbft.vlm.model import VLM
from rbft.vlm.prompt import Prompt

QUESTION = "Which action does this video show? Answer with one of the following labels and nothing else."


class RowsOnly(VLM):
    """The model with an attention kernel that takes no tree, so that the scorer reads a row for each label."""

    @property
    def takes_tree_masks(self) -> bool:
        """Never."""
        return False


@torch.no_grad()
def naive_scores(model: Any, inputs: dict[str, Any], labels: Sequence[Tensor]) -> Tensor:
    """Log-likelihood of each label (C,), one full pass for each."""
    length, scores = inputs["input_ids"].shape[1], []
    for label in labels:
        after = {"input_ids": label, "attention_mask": torch.ones_like(label)}
        after["mm_token_type_ids"] = torch.zeros_like(label)
        whole = dict(inputs)
        for key in after.keys() & inputs.keys():
            tail = after[key].to(inputs[key]).unsqueeze(0)
            whole[key] = torch.cat([inputs[key], tail], dim=1)
        log_probs = model(**whole, use_cache=False).logits[0, length - 1 : -1].float().log_softmax(-1)
        scores.append(log_probs.gather(1, label.to(log_probs.device).unsqueeze(1)).sum())
    return torch.stack(scores)


@torch.no_grad()
def generate_answer(model: Any, inputs: dict[str, Any], most_tokens: int) -> Tensor:
    """The tokens a model answers with (T,)."""
    answer: Tensor = model.generate(**inputs, do_sample=False, max_new_tokens=most_tokens)
    return answer[0, inputs["input_ids"].shape[1] :]


def measure(family: str, count: int, ours: Ours, plain: Plain, size: str, repeats: int) -> list[Row]:
    """The rows of one family and number of labels."""
    clip = make_clip(0, FRAMES[size])
    prompt = ours.processor.prompt_inputs(Prompt(QUESTION), clip)
    labels = tuple(ours.processor.target_ids(Prompt(QUESTION), text) for text in make_texts(count, 1, 6))
    inputs = plain.inputs([plain.text(QUESTION)], [clip])
    if inputs["input_ids"][0].tolist() != prompt.ids.tolist():
        raise RuntimeError(f"{family}: the two sides do not read the same prompt")
    longest = max(len(ids) for ids in labels)
    scorer, rows_only = LabelScorer(labels), RowsOnly(ours.vlm.model, ours.vlm.pad_id, ours.vlm.end_ids)

    def score(vlm: VLM, prompt: PromptInputs) -> Tensor:
        return scorer(vlm, [prompt])[0]

    scored = partial(score, ours.vlm, prompt)
    peers = {
        "naive": partial(naive_scores, plain.model, inputs, labels),
        "rows behind a cache": partial(score, rows_only, prompt),
        "generate and parse": partial(generate_answer, plain.model, inputs, longest),
    }
    found, expected = scored(), naive_scores(plain.model, inputs, labels)
    by_rows = score(rows_only, prompt)
    differences = {
        "naive": float((found - expected).abs().max()),
        "rows behind a cache": float((found - by_rows).abs().max()),
        "generate and parse": None,
    }
    # one label stands for all in memory: naive passes come one after the other
    memory = peers | {"naive": partial(naive_scores, plain.model, inputs, labels[:1])}
    own_memory = peak_bytes(scored)
    with torch.no_grad():
        (encoded,) = ours.vlm.with_features([prompt])
    alone = {
        "rbft": scored,
        "kept features": partial(score, ours.vlm, encoded),
        "best only": partial(BestLabels(scorer), ours.vlm, [prompt]),
        "prompt": torch.no_grad()(partial(ours.vlm.prefix, [prompt])),
    }
    seconds = time_in_turns(alone | peers, repeats)
    shared = {
        "case": f"{count} labels",
        "family": family,
        "prompt_tokens": len(prompt.ids),
        "label_tokens": sum(len(ids) for ids in labels),
        "longest_label": longest,
    }
    return [
        shared
        | {
            "baseline": peer,
            "speedup": median_ratio(seconds[peer], seconds["rbft"]),
            "bound": median_ratio(seconds[peer], seconds["prompt"]),
            "kept_features_speedup": median_ratio(seconds[peer], seconds["kept features"]),
            "best_only_speedup": median_ratio(seconds[peer], seconds["best only"]),
            "max_abs_diff": differences[peer],
            "same_best_label": bool(found.argmax() == expected.argmax()),
            "peak_memory_ratio": round(own_memory / peak_bytes(memory[peer]), 3),
        }
        for peer in peers
    ]


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of this script alone."""
    parser.add_argument("--labels", nargs="+", type=int, default=[10, 101, 400], help="how many (default: %(default)s)")


def measure_family(family: str, files: Path, flags: argparse.Namespace) -> list[Row]:
    """The rows of one family."""
    ours, plain = load_ours(files), load_plain(files)
    return [row for count in flags.labels for row in measure(family, count, ours, plain, flags.size, flags.repeats)]


main = Benchmark(
    name="score_labels",
    description=__doc__,
    repeats=5,
    add_flags=add_flags,
    measure=measure_family,
    title="Scoring a closed set of labels: how many times as fast as each baseline",
    columns=(
        "case",
        "family",
        "baseline",
        "speedup",
        "bound",
        "kept_features_speedup",
        "best_only_speedup",
        "peak_memory_ratio",
    ),
).main


if __name__ == "__main__":
    sys.exit(main())
