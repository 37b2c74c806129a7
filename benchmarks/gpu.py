"""What full-size models gain on a GPU: training, writing and scoring against plain transformers in the same process.

Qwen2.5-VL of the published 3B and 7B shapes, random weights in bfloat16, clips of eight frames of about 150,000 pixels.
Inputs were prepared before on both sides, and ours has the visual features of the training clips, as from the second
epoch on. Utilisation is the operations that a path needs (two for each weight and token, forward; recomputed nothing)
over what this GPU does in a large matrix product of the same type, measured here.

Before, every stage runs once on a small model (`benchmarks/gpu_smoke.py`), and the record is written anew after each
figure, so that a machine lent for a quarter of an hour leaves what was found until then: `--minutes 13`.

Needs a GPU. `--device cpu --sizes tiny` runs all of it small, to see that it works; its figures mean nothing.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from transformers import AutoProcessor

# a script knows its own folder only
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks.common import Row, describe, make_parser, median_ratio, print_table, say, time_in_turns, write_record
from benchmarks.gpu_smoke import smoke
from benchmarks.memory import peak_bytes
from benchmarks.models import (
    FRAMES,
    PUBLISHED,
    Ours,
    Plain,
    adapters,
    build,
    make_clip,
    make_texts,
    random_model,
    write_published,
)
from benchmarks.score_labels import generate_answer, naive_scores
from benchmarks.train_step import QUESTION, our_batch, our_loss, plain_batch, plain_loss, stepper

from rbft.training.oom_split import is_out_of_memory
from rbft.video.clip import Clip
from rbft.vlm.cost import ModelSize, model_size
from rbft.vlm.feature_cache import FeatureCache
from rbft.vlm.generation import generate
from rbft.vlm.label_scorer import LabelScorer
from rbft.vlm.model import VLM
from rbft.vlm.processing import ClipProcessor
from rbft.vlm.prompt import Prompt
from rbft.vlm.tuning import FullFineTuning, Tuning

FRAME = (336, 448)
TUNINGS: dict[str, Callable[[], Tuning]] = {"LoRA": adapters, "full": FullFineTuning}


@dataclass(frozen=True)
class Setting:
    """What all measurements of one model share.

    Args:
        size: Of the model.
        folder: Its configuration and processor.
        device: Where it is.
        dtype: Of its weights.
        rate: Operations per second of a large matrix product there.
        clips: Of a batch.
        repeats: Measurements of each.
        new_tokens: Of a rationale that is written.
        labels: Classes that are scored.
    """

    size: str
    folder: Path
    device: str
    dtype: torch.dtype
    rate: float
    clips: tuple[Clip, ...]
    repeats: int
    new_tokens: int
    labels: int

    def clock(self) -> float:
        """Seconds of wall time, when all that was asked of the device is done."""
        if self.device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    def load(self, tuning: Tuning | None = None) -> tuple[Ours, Plain]:
        """One model, with its two users."""
        processor = ClipProcessor(str(self.folder))
        model = random_model(self.folder, self.device, self.dtype)
        model = model if tuning is None else tuning.apply(model)
        ours = Ours(VLM(model, processor.pad_id, processor.end_ids).eval(), processor)
        return ours, Plain(model, AutoProcessor.from_pretrained(self.folder))


def matrix_rate(device: str, dtype: torch.dtype, side: int, repeats: int) -> float:
    """Operations per second of a product of two square matrices, the best of some."""
    a, b = (torch.randn((side, side), device=device).to(dtype) for _ in range(2))
    seconds = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        for _ in range(10):
            a @ b
        if device == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    return 10 * 2 * side**3 / min(seconds[1:])


def train_rows(setting: Setting, name: str) -> list[Row]:
    """Training steps of stage 1."""
    ours, plain = setting.load(TUNINGS[name]())
    texts = make_texts(len(setting.clips), 50, 70)
    keys = [clip.path for clip in setting.clips]
    with tempfile.TemporaryDirectory() as folder:
        cache = FeatureCache(Path(folder), 10**10)
        with torch.no_grad():
            our_loss(ours.vlm, our_batch(ours, setting.clips, texts, cache, keys), cache)
        batch = our_batch(ours, setting.clips, texts, cache, keys)
    whole = plain_batch(plain, setting.clips, texts)
    losses = our_loss(ours.vlm, batch, None).item(), plain_loss(plain.model, whole).item()
    steps = {
        "rbft": stepper(ours.vlm, lambda: our_loss(ours.vlm, batch, None)),
        "plain path": stepper(plain.model, lambda: plain_loss(plain.model, whole)),
    }
    seconds = time_in_turns(steps, setting.repeats, setting.clock)
    size = model_size(str(setting.folder), None, "bfloat16", None, TUNINGS[name]())
    lengths = [len(p.ids) + len(t) for p, t in zip(batch.prompts, batch.targets, strict=True)]
    answers = [len(target) for target in batch.targets]
    needed = step_operations(size, lengths, answers, sum(answers))
    visual = ours.processor.count_visual_tokens(batch.prompts[0].ids)
    pixels = whole["pixel_values_videos"].numel() // len(setting.clips)
    tower = len(setting.clips) * size.vision_flops(pixels, visual)
    plain_needed = step_operations(size, lengths, lengths, whole["input_ids"].numel()) + tower
    fastest = {name: min(found) for name, found in seconds.items()}
    figures = {
        "max_abs_diff": abs(losses[0] - losses[1]),
        "samples_per_second": len(setting.clips) / fastest["rbft"],
        "utilisation": needed / fastest["rbft"] / setting.rate,
        "baseline_utilisation": plain_needed / fastest["plain path"] / setting.rate,
        "peak_memory_ratio": round(
            peak_bytes(steps["rbft"], setting.device) / peak_bytes(steps["plain path"], setting.device), 3
        ),
    }
    return [row(setting, f"training, {name}", "plain path", seconds) | figures]


def step_operations(size: ModelSize, lengths: Sequence[int], kept: Sequence[int], heads: int) -> float:
    """Operations of a training step over rows whose visual features are there.

    Backward costs as much as forward for the gradients of activations, and once more for those of trained weights.

    Args:
        size: Of the model.
        lengths: Tokens of each row.
        kept: Tokens of each that the last layer is computed for.
        heads: Tokens that the head is computed for, in all rows together.
    """
    passes = 3 if size.whole_language else 2
    return passes * (sum(map(size.read_flops, lengths, kept)) + size.head_flops(heads))


def row(setting: Setting, case: str, baseline: str, seconds: dict[str, list[float]]) -> Row:
    """What every row says."""
    return {
        "case": f"{case}, {setting.size}",
        "family": "qwen2_5_vl",
        "device": setting.device,
        "baseline": baseline,
        "speedup": median_ratio(seconds[baseline], seconds["rbft"]),
        "available": True,
    }


def write_rows(setting: Setting) -> list[Row]:
    """Writing rationales, greedy."""
    ours, plain = setting.load()
    prompts = [ours.processor.prompt_inputs(Prompt(QUESTION), clip).to(setting.device) for clip in setting.clips]
    inputs = plain.inputs([plain.text(QUESTION)] * len(prompts), setting.clips)
    tokens = setting.new_tokens

    def write() -> int:
        return sum(len(ids) for answers in generate(ours.vlm, prompts, max_new_tokens=tokens) for ids in answers)

    @torch.no_grad()
    def write_plain() -> int:
        whole = plain.model.generate(**inputs, do_sample=False, max_new_tokens=tokens)
        return int((whole[:, inputs["input_ids"].shape[1] :] != ours.vlm.pad_id).sum())

    seconds = time_in_turns({"rbft": write, "plain path": write_plain}, setting.repeats, setting.clock)
    written, expected = write(), write_plain()
    if written != expected:
        # rounding led to another text that ends elsewhere: compare what a token costs
        seconds["plain path"] = [spent * written / expected for spent in seconds["plain path"]]
    return [row(setting, "writing", "plain path", seconds) | {"tokens_per_second": written / min(seconds["rbft"])}]


def score_rows(setting: Setting) -> list[Row]:
    """Scoring a closed set of labels, one clip at a time."""
    ours, plain = setting.load()
    prompt = ours.processor.prompt_inputs(Prompt(QUESTION), setting.clips[0]).to(setting.device)
    labels = tuple(ours.processor.target_ids(Prompt(QUESTION), text) for text in make_texts(setting.labels, 1, 6))
    inputs = plain.inputs([plain.text(QUESTION)], setting.clips[:1])
    scorer = LabelScorer(labels)
    there = [label.to(setting.device) for label in labels]
    peers: dict[str, Callable[[], object]] = {
        "naive": partial(naive_scores, plain.model, inputs, there),
        "generate and parse": partial(generate_answer, plain.model, inputs, max(map(len, labels))),
    }
    seconds = time_in_turns({"rbft": lambda: scorer(ours.vlm, [prompt]), **peers}, setting.repeats, setting.clock)
    difference = (scorer(ours.vlm, [prompt])[0] - naive_scores(plain.model, inputs, there)).abs().max().item()
    shared = {"videos_per_second": 1 / min(seconds["rbft"])}
    case = f"scoring {setting.labels} labels"
    return [
        row(setting, case, peer, seconds) | shared | {"max_abs_diff": difference if peer == "naive" else None}
        for peer in peers
    ]


def measure(setting: Setting, end: float) -> Iterator[Row]:
    """All rows of one model; what does not fit into the GPU's memory, or the time, has a row that says so.

    Args:
        setting: The model.
        end: When nothing more is begun, by `time.perf_counter`.
    """
    parts: dict[str, Callable[[], list[Row]]] = {
        **{f"training, {name}": partial(train_rows, setting, name) for name in TUNINGS},
        "writing": partial(write_rows, setting),
        "scoring": partial(score_rows, setting),
    }
    for case, part in parts.items():
        missing: Row = {"case": f"{case}, {setting.size}", "family": "qwen2_5_vl", "available": False}
        if time.perf_counter() > end:
            yield missing | {"reason": "no time was left"}
            continue
        try:
            yield from part()
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            yield missing | {"reason": str(error).split(".")[0]}
        if setting.device == "cuda":
            torch.cuda.empty_cache()


def all_rows(flags: argparse.Namespace, dtype: torch.dtype, rate: float, folder: Path) -> Iterator[Row]:
    """The small runs, then every size."""
    end = time.perf_counter() + 60 * flags.minutes
    if flags.smoke_seconds:
        yield from smoke(flags.device, min(flags.smoke_seconds, 60 * flags.minutes), folder / "smoke")
    for size in flags.sizes:
        tiny = size == "tiny"
        files = build("qwen2_5_vl", "tiny", folder) if tiny else write_published(size, folder)
        frame = FRAMES["tiny"] if tiny else FRAME
        clips = tuple(replace(make_clip(n, frame), path=f"clip{n}") for n in range(flags.batch))
        setting = Setting(size, files, flags.device, dtype, rate, clips, flags.repeats, flags.new_tokens, flags.labels)
        yield from measure(setting, end)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and write the record."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    parser = make_parser("gpu", __doc__, repeats=5)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--sizes", nargs="+", choices=(*PUBLISHED, "tiny"), default=tuple(PUBLISHED))
    parser.add_argument("--batch", type=int, default=4, help="clips of a batch (default: %(default)s)")
    parser.add_argument("--new_tokens", type=int, default=128, help="of a rationale (default: %(default)s)")
    parser.add_argument("--labels", type=int, default=101, help="classes (default: %(default)s)")
    parser.add_argument(
        "--smoke_seconds", type=float, default=90, help="for every stage on a small model before; 0: none"
    )
    parser.add_argument("--minutes", type=float, default=60, help="nothing is begun later (default: %(default)s)")
    flags: argparse.Namespace = parser.parse_args(arguments)
    if flags.device == "cuda" and not torch.cuda.is_available():
        print(
            "gpu: this machine has no GPU that torch can use; nothing was measured. "
            "`--device cpu --sizes tiny` runs the script small, without meaning.",
            file=sys.stderr,
        )
        return 2
    dtype, side = (torch.bfloat16, 8192) if flags.device == "cuda" else (torch.float32, 256)
    rate = matrix_rate(flags.device, dtype, side, flags.repeats)
    environment = describe([], arguments) | {"matrix_teraflops": round(rate / 1e12, 3)}
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        for found in all_rows(flags, dtype, rate, Path(folder)):
            rows.append(found)
            say(f"{found['case']}: {found.get('reason') or found.get('speedup') or 'ran'}")
            write_record(flags.json, "gpu", environment, rows)
    columns = (
        "case",
        "baseline",
        "speedup",
        "seconds",
        "max_abs_diff",
        "samples_per_second",
        "tokens_per_second",
        "videos_per_second",
        "utilisation",
        "baseline_utilisation",
        "peak_memory_ratio",
        "reason",
    )
    print_table("Full-size models: how many times as fast as plain transformers", columns, rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
