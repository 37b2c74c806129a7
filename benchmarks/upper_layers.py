"""What a LoRA training step costs when the upper layers alone are trained, against all of them on the plain path.

A step is forward, backward and AdamW over a batch of clips, as in train_step.py.
  plain path   adapters in all layers: processor, vision tower, language model and a full-width head in every step, as
               the Trainer of transformers computes it
  all layers   ours from the second epoch on: features are kept, adapters in all layers
  computed     ours from the second epoch on: features are kept, adapters in the upper layers, those below computed
  kept         the same, with what leaves the layers below kept, too
`speedup` is that of `kept` over the plain path, which trains twice the adapters at half of the layers; `first_epoch` is
that of a step of the first epoch, which stores features and states. max_abs_diff is between the losses of `computed`
and `kept` from equal weights.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from dataclasses import replace
from itertools import count
from pathlib import Path

# a script knows its own folder only
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks.common import Row, median_ratio, time_in_turns
from benchmarks.families import Benchmark
from benchmarks.memory import peak_bytes
from benchmarks.models import FRAMES, Ours, adapters, describe_model, load_ours, load_plain, make_clip, make_texts
from benchmarks.train_step import ANSWERS, our_batch, our_loss, plain_batch, plain_loss, stepper
from torch import Tensor

from rbft.vlm.batch import Batch
from rbft.vlm.feature_cache import FeatureCache, feature_key
from rbft.vlm.lower_layers import KeptStates, lower_layers_of
from rbft.vlm.state_cache import StateCache


def known_clips(batch: Batch, keys: list[str]) -> Batch:
    """The batch with the keys of its clips, as a data set gives them."""
    prompts = tuple(replace(prompt, key=key) for prompt, key in zip(batch.prompts, keys, strict=True))
    return replace(batch, prompts=prompts)


def measure(family: str, answers: str, files: Path, flags: argparse.Namespace) -> Row:
    """The row of one family and kind of answers."""
    clips = [make_clip(number, FRAMES[flags.size], flags.frames) for number in range(flags.batch)]
    texts = make_texts(flags.batch, *ANSWERS[answers])
    keys = [feature_key(clip.path) for clip in clips]
    plain, whole = load_plain(files, adapters()), load_ours(files, adapters())
    upper = load_ours(files, replace(adapters(), layers=flags.layers))
    lower = lower_layers_of(upper.vlm.model)
    assert lower is not None

    def compute(ours: Ours, features: FeatureCache, states: StateCache | None) -> Tensor:
        ours.vlm.states = None if states is None else KeptStates(lower, states)
        batch = known_clips(our_batch(ours, clips, texts, features, keys), keys)
        return our_loss(ours.vlm, batch, features)

    with tempfile.TemporaryDirectory() as folder:
        places = (Path(folder) / str(number) for number in count())
        fresh = ((FeatureCache(at / "f", 10**10), StateCache(at / "s", 10**10, 10**9)) for at in places)
        features, states = next(fresh)
        losses = [compute(upper, features, kept).item() for kept in (None, states, states)]
        if any(features.load(key) is None for key in keys):
            raise RuntimeError(f"{family}: features were not stored")
        # a stage makes the hash of the layers once, not in every step
        kept_states = KeptStates(lower, states)

        def compute_kept() -> Tensor:
            upper.vlm.states = kept_states
            return our_loss(upper.vlm, known_clips(our_batch(upper, clips, texts, features, keys), keys), features)

        steps = {
            "kept": stepper(upper.vlm, compute_kept),
            "first epoch": stepper(upper.vlm, lambda: compute(upper, *next(fresh))),
            "computed": stepper(upper.vlm, lambda: compute(upper, features, None)),
            "all layers": stepper(whole.vlm, lambda: compute(whole, features, None)),
            "plain path": stepper(plain.model, lambda: plain_loss(plain.model, plain_batch(plain, clips, texts))),
        }
        seconds = time_in_turns(steps, flags.repeats)
        memory = {name: peak_bytes(steps[name]) for name in ("kept", "all layers", "plain path")}
    ratio = {name: median_ratio(seconds["plain path"], seconds[name]) for name in steps}
    return {
        "case": f"{answers}, {flags.frames} frames",
        "family": family,
        "baseline": "plain path",
        "layers": flags.layers,
        "speedup": ratio["kept"],
        "first_epoch": ratio["first epoch"],
        "computed": ratio["computed"],
        "all_layers": ratio["all layers"],
        "kept_over_all_layers": median_ratio(seconds["all layers"], seconds["kept"]),
        "peak_memory_ratio": round(memory["kept"] / memory["plain path"], 3),
        "all_layers_memory_ratio": round(memory["all layers"] / memory["plain path"], 3),
        "max_abs_diff": max(abs(loss - losses[0]) for loss in losses),
        "batch": flags.batch,
        "parameters": describe_model(whole.vlm.base),
    }


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of this script alone."""
    parser.add_argument("--answers", nargs="+", choices=tuple(ANSWERS), default=tuple(ANSWERS))
    parser.add_argument("--frames", type=int, default=8, help="of a clip (default: %(default)s)")
    parser.add_argument("--batch", type=int, default=2, help="clips of a step (default: %(default)s)")
    parser.add_argument("--layers", type=float, default=0.5, help="fraction that is trained (default: %(default)s)")


def measure_family(family: str, files: Path, flags: argparse.Namespace) -> list[Row]:
    """The rows of one family."""
    return [measure(family, kind, files, flags) for kind in flags.answers]


main = Benchmark(
    name="upper_layers",
    description=__doc__,
    repeats=7,
    add_flags=add_flags,
    measure=measure_family,
    title="A LoRA training step of the upper layers: how many times as fast as all layers on the plain path",
    columns=("case", "family", "speedup", "first_epoch", "computed", "all_layers", "peak_memory_ratio", "max_abs_diff"),
).main


if __name__ == "__main__":
    sys.exit(main())
