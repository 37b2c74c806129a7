"""What models of published dimensions cost on a CPU: the time of each part, and its memory beside what is estimated.

Random weights, one clip of eight frames of 224 x 224 pixels, one thread, processor time. `prefixes` is a time over that
of reading the prompt once with the clip's features there. Memory is what tensors took beside the model's weights, by
torch's profiler; `ratio` is what `rbft fit --dry_run` estimates over it. Loading and merging are measured by the
process's own memory, files that are mapped left out. A row a label is how attention that takes no mask is served.
"""

from __future__ import annotations

import argparse
import gc
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast
from unittest.mock import patch

import torch

# a script knows its own folder only
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks.common import Row, cpu_seconds, describe, make_parser, print_table, say, write_record
from benchmarks.memory import peak_bytes
from benchmarks.models import make_clip, make_texts
from benchmarks.shapes import SHAPES, write_shape

from rbft.estimate.stage_cost import Row as StageRow
from rbft.estimate.stage_cost import scoring_memory, training_memory, writing_memory
from rbft.objectives.base import language_model_loss
from rbft.vlm.batch import Batch, Item, PromptInputs, collate
from rbft.vlm.cost import ModelSize, model_size
from rbft.vlm.generation import generate
from rbft.vlm.label_scorer import LabelScorer
from rbft.vlm.loading import load_model
from rbft.vlm.model import VLM
from rbft.vlm.processing import ClipProcessor
from rbft.vlm.prompt import Prompt
from rbft.vlm.tuning import LoRA

QUESTION = Prompt("Which action does this video show? Answer with one of the following labels and nothing else.")
TOKENS = 16  # that are written


@dataclass
class Subject:
    """A loaded model with a clip.

    Args:
        name: Of its shape.
        vlm: The model, with adapters.
        processor: Its processor.
        size: As estimates see it.
        prompt: The question about the clip, with its pixels.
        kept: The same with the clip's features.
        prefix: Seconds that it takes to read `kept`.
    """

    name: str
    vlm: VLM
    processor: ClipProcessor
    size: ModelSize
    prompt: PromptInputs
    kept: PromptInputs
    prefix: float = 0.0

    @property
    def row(self) -> StageRow:
        """The clip as estimates see it."""
        visual = self.processor.count_visual_tokens(self.prompt.ids)
        pixels = [value.numel() for key, value in self.prompt.vision.items() if key.startswith("pixel_values")]
        return StageRow(len(self.prompt.ids), visual, sum(pixels))

    def measured(self, case: str, work: Callable[[], object], estimated: int | None = None) -> Row:
        """Time of some work, and its memory beside what is estimated.

        Args:
            case: What the work is.
            work: Done once where memory is estimated, for both; else twice, to warm up and for its time.
            estimated: Bytes, beside the weights and the clip's pixels, which are there before.
        """
        seconds, peak = 0.0, 0

        def timed() -> None:
            nonlocal seconds
            start = cpu_seconds()
            work()
            seconds = cpu_seconds() - start

        if estimated is None:
            work()
            timed()
        else:
            peak = peak_bytes(timed)
        self.prefix = self.prefix or seconds
        row: Row = {"case": case, "model": self.name, "seconds": round(seconds, 3)}
        row["prefixes"] = round(seconds / self.prefix, 3)
        if estimated is not None:
            row |= {"measured_mb": round(peak / 1e6, 1), "estimated_mb": round(estimated / 1e6, 1)}
            row["ratio"] = round(estimated / peak, 2)
        return row


@contextmanager
def own_memory() -> Iterator[Callable[[], int]]:
    """Most bytes that the process itself takes more than at the start, without files that are mapped."""

    def anonymous() -> int:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
        return 1024 * int(next(line.split()[1] for line in lines if line.startswith("RssAnon")))

    gc.collect()
    start = most = anonymous()
    over = threading.Event()

    def watch() -> None:
        nonlocal most
        while not over.wait(0.01):
            most = max(most, anonymous())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield lambda: max(most, anonymous()) - start
    finally:
        over.set()
        watcher.join()


def loading(name: str, folder: Path, dtype: str) -> tuple[Any, Row]:
    """Load a model; what it takes of memory over its weights."""
    start = time.perf_counter()
    with own_memory() as taken:
        model = load_model(str(folder), None, cast("Any", dtype), None)
        most = taken()
    weights = sum(value.numel() * value.element_size() for value in model.parameters())
    row: Row = {"case": f"loading as {dtype}", "model": name, "seconds": round(time.perf_counter() - start, 3)}
    return model, row | {"measured_mb": round(most / 1e6, 1), "weights_mb": round(weights / 1e6, 1)}


def subject(name: str, folder: Path, model: Any) -> Subject:
    """A loaded model with adapters and a clip."""
    processor, tuning = ClipProcessor(str(folder)), LoRA()
    vlm = VLM(tuning.apply(model), processor.pad_id, processor.end_ids).eval()
    size = model_size(str(folder), None, "auto", None, tuning)
    prompt = processor.prompt_inputs(QUESTION, make_clip(0, (224, 224)))
    (kept,) = vlm.with_features([prompt])
    return Subject(name, vlm, processor, size, prompt, kept)


def reading_rows(subject: Subject, labels: Sequence[int]) -> Iterator[Row]:
    """Encoding, reading, scoring and writing."""
    vlm, size, row = subject.vlm, subject.size, subject.row
    kept, pixels, weights = replace(row, pixel_values=0), 4 * row.pixel_values, size.weight_bytes
    yield subject.measured("prefix", lambda: vlm.prefix([subject.kept]))
    vision = size.vision_activations(row.pixel_values, 1, training=False) - pixels
    encode = torch.no_grad()(lambda: vlm.encode([subject.prompt]))
    yield subject.measured("encode", encode, vision + size.features(row.visual) // 2)
    texts = make_texts(max(labels), 1, 6)
    for count in labels:
        ids = tuple(subject.processor.target_ids(QUESTION, text) for text in texts[:count])
        scorer = LabelScorer(ids)
        estimated = scoring_memory(size, [kept], 1, ids, scorer.max_tokens).total - weights
        score = torch.no_grad()(lambda scorer=scorer: scorer(vlm, [subject.kept]))
        yield subject.measured(f"scoring {count} labels", score, estimated)
        if count == max(labels):
            with patch.object(VLM, "takes_tree_masks", False):
                apart = replace(size, takes_tree_masks=False)
                estimated = scoring_memory(apart, [kept], 1, ids, scorer.max_tokens).total - weights
                yield subject.measured(f"scoring {count} labels, a row each", score, estimated)
    estimated = writing_memory(size, [replace(kept, answer=TOKENS)], 1, 1).total - weights
    vlm.end_ids, ends = (), vlm.end_ids
    yield subject.measured(
        f"writing {TOKENS} tokens", lambda: generate(vlm, [subject.kept], max_new_tokens=TOKENS), estimated
    )
    vlm.end_ids = ends


def training_rows(subject: Subject) -> Iterator[Row]:
    """Steps of adapters, over kept features and from pixels."""
    vlm, size = subject.vlm.train(), subject.size
    target = subject.processor.target_ids(QUESTION, make_texts(1, 20, 20)[0])
    trained = [value for value in vlm.parameters() if value.requires_grad]
    optimizer = torch.optim.AdamW(trained)
    row = replace(subject.row, answer=len(target))
    whole = training_memory(size, [row], 1, checkpointing=False, processes=1, kind="cpu")
    bare = training_memory(size, [replace(row, pixel_values=0)], 1, checkpointing=False, processes=1, kind="cpu")

    def step(batch: Batch) -> None:
        language_model_loss(vlm, batch).backward()
        optimizer.step()
        optimizer.zero_grad()

    for case, prompt, memory in (("kept features", subject.kept, bare), ("from pixels", subject.prompt, whole)):
        batch = collate([[Item(0, prompt, target, normalizer=float(len(target)))]])
        # the optimiser's moments are there before the step that is measured
        there = 2 * size.trained_bytes + (4 * row.pixel_values if case == "from pixels" else 0)
        estimated = memory.total - memory.weights - there
        yield subject.measured(f"LoRA step, {case}", lambda batch=batch: step(batch), estimated)
    vlm.eval()


def exporting_row(subject: Subject, folder: Path) -> Row:
    """Merge, save and load again; how far scores move."""
    ids = tuple(subject.processor.target_ids(QUESTION, text) for text in make_texts(10, 1, 6))
    before, processor = LabelScorer(ids)(subject.vlm, [subject.kept]), subject.processor
    weights = subject.size.weight_bytes
    start = time.perf_counter()
    with own_memory() as taken:
        merged = cast("Any", subject.vlm.model).merge_and_unload()
        merged.save_pretrained(folder, max_shard_size="5GB")
        most = taken()
    del merged
    subject.vlm = cast("Any", None)
    gc.collect()
    again = VLM(load_model(str(folder), None, "auto", None), processor.pad_id, processor.end_ids).eval()
    difference = (LabelScorer(ids)(again, [subject.kept]) - before).abs().max().item()
    row: Row = {"case": "merge, save and reload", "model": subject.name, "max_abs_diff": difference}
    row |= {"seconds": round(time.perf_counter() - start, 3)}
    return row | {"measured_mb": round(most / 1e6, 1), "weights_mb": round(weights / 1e6, 1)}


def measure(name: str, folder: Path, labels: Sequence[int]) -> Iterator[Row]:
    """All rows of one model."""
    files = write_shape(name, folder)
    gc.collect()
    model, row = loading(name, files, "auto")
    yield row
    if SHAPES[name].dtype == "bfloat16":
        wide, row = loading(name, files, "float32")
        del wide
        yield row
    found = subject(name, files, model)
    yield from reading_rows(found, labels)
    yield from training_rows(found)
    yield exporting_row(found, folder / "merged")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and write the record, anew after each figure."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    parser = make_parser("published_shapes", __doc__, repeats=1)
    parser.add_argument("--models", nargs="+", choices=tuple(SHAPES), default=tuple(SHAPES))
    parser.add_argument("--labels", nargs="+", type=int, default=(10, 101), help="classes (default: %(default)s)")
    flags: argparse.Namespace = parser.parse_args(arguments)
    environment, rows = describe([], arguments), list[Row]()
    torch.set_num_threads(1)
    for name in flags.models:
        with tempfile.TemporaryDirectory() as folder:
            for row in measure(name, Path(folder), flags.labels):
                rows.append(row)
                say(f"{name}: {row['case']}, {row['seconds']:.1f} s, ratio {row.get('ratio', '-')}")
                write_record(flags.json, "published_shapes", environment, rows)
    columns = ("model", "case", "seconds", "prefixes", "measured_mb", "estimated_mb", "ratio", "weights_mb")
    print_table("Models of published dimensions on a CPU", columns, rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
