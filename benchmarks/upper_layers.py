"""What a LoRA training step costs when the upper layers alone are trained, against all of them on the plain path.

A step is forward, backward and AdamW over a batch of clips, as in train_step.py.
  plain path   adapters in all layers: processor, vision tower, language model and a full-width head in every step, as
               the Trainer of transformers computes it
  all layers   ours from the second epoch on: features are kept, adapters in all layers
  computed     ours from the second epoch on: features are kept, adapters in the upper layers, those below computed
  kept         the same, with what leaves the layers below kept, too
`speedup` is that of `kept` over the plain path, which trains twice the adapters at half of the layers; `bound` is what
it would be if all but the passes of the model, forward and backward, were free; `first_epoch` is that of a step of the
first epoch, which stores features and states. max_abs_diff is between the losses of `computed` and `kept` from equal
weights.

`--shapes` measures random weights in published dimensions, and `--short` leaves out the first epoch, `computed` and the
round that warms up, for models whose steps take half a minute.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import count
from pathlib import Path

# a script knows its own folder only
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks.common import Row, median_ratio, time_in_turns
from benchmarks.families import Benchmark
from benchmarks.memory import peak_bytes
from benchmarks.models import FRAMES, Ours, adapters, describe_model, load_ours, load_plain, make_clip, make_texts
from benchmarks.passes import seconds_of_passes
from benchmarks.shapes import SHAPES, write_shape
from benchmarks.train_step import ANSWERS, our_batch, our_loss, plain_batch, plain_loss, stepper
from torch import Tensor

from rbft.vlm.batch import Batch
from rbft.vlm.feature_cache import FeatureCache, feature_key
from rbft.vlm.lower_layers import KeptStates, lower_layers_of
from rbft.vlm.state_cache import StateCache

_PUBLISHED = (224, 224)  # sides of frames for models of published dimensions


def known_clips(batch: Batch, keys: list[str]) -> Batch:
    """The batch with the keys of its clips, as a data set gives them."""
    prompts = tuple(replace(prompt, key=key) for prompt, key in zip(batch.prompts, keys, strict=True))
    return replace(batch, prompts=prompts)


def measure(family: str, answers: str, files: Path, flags: argparse.Namespace) -> Row:
    """The row of one family and kind of answers."""
    frame, dtype = (_PUBLISHED, "auto") if flags.shapes else (FRAMES[flags.size], "float32")
    clips = [make_clip(number, frame, flags.frames) for number in range(flags.batch)]
    texts = make_texts(flags.batch, *ANSWERS[answers])
    keys = [feature_key(clip.path) for clip in clips]
    plain, whole = load_plain(files, adapters(), dtype), load_ours(files, adapters(), dtype)
    upper = load_ours(files, replace(adapters(), layers=flags.layers), dtype)
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
        if flags.short:
            del steps["first epoch"], steps["computed"]
        seconds = time_in_turns(steps, flags.repeats, warm_up=not flags.short)
        passes = [passes_of(steps["kept"]) for _ in range(flags.repeats)]
        memory = {name: peak_bytes(steps[name]) for name in ("kept", "all layers", "plain path")}
    ratio = {name: median_ratio(seconds["plain path"], seconds[name]) for name in steps}
    return {
        "case": f"{answers}, {flags.frames} frames",
        "family": family,
        "baseline": "plain path",
        "layers": flags.layers,
        "speedup": ratio["kept"],
        "bound": median_ratio(seconds["plain path"], passes),
        "first_epoch": ratio.get("first epoch"),
        "computed": ratio.get("computed"),
        "all_layers": ratio["all layers"],
        "kept_over_all_layers": median_ratio(seconds["all layers"], seconds["kept"]),
        "peak_memory_ratio": round(memory["kept"] / memory["plain path"], 3),
        "all_layers_memory_ratio": round(memory["all layers"] / memory["plain path"], 3),
        "max_abs_diff": max(abs(loss - losses[0]) for loss in losses),
        "processor_seconds": {name: round(statistics.median(spent), 3) for name, spent in seconds.items()},
        "batch": flags.batch,
        "parameters": describe_model(whole.vlm.base),
    }


def passes_of(step: Callable[[], None]) -> float:
    """Processor seconds of the model's passes in a step."""
    with seconds_of_passes() as passes:
        step()
    return passes()


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of this script alone."""
    parser.add_argument("--answers", nargs="+", choices=tuple(ANSWERS), default=tuple(ANSWERS))
    parser.add_argument("--frames", type=int, default=8, help="of a clip (default: %(default)s)")
    parser.add_argument("--batch", type=int, default=2, help="clips of a step (default: %(default)s)")
    parser.add_argument("--short", action="store_true", help="three kinds of steps, none to warm up")
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
    columns=(
        "case",
        "family",
        "speedup",
        "bound",
        "first_epoch",
        "computed",
        "all_layers",
        "peak_memory_ratio",
        "max_abs_diff",
    ),
    shapes={name: partial(write_shape, name) for name in SHAPES},
).main


if __name__ == "__main__":
    sys.exit(main())
