"""What the whole method costs on real clips: one `rbft fit` against the same job as separate runs of transformers.

Both write a rationale for each training clip, train two stages of some epochs (LoRA), and classify the test clips, with
the same model, frames and prompts; that they see the same frames and as many tokens is checked first. Ours starts with
empty caches and includes its survey of the data set, the filling of its caches, and its report.
  authors' way    benchmarks/authors_way.py
Every job is a process of its own, which does a small one before; starting Python and importing libraries is counted for
neither. It would be once for ours, and for each of four runs.

With `--layers 3` adapters are in the upper three layers, and there are two rows for each number of epochs: the same
adapters on both sides, and theirs in all layers, which is not the same training.

max_abs_diff is the largest difference between the two sides' losses of a test clip's label before anything is learned,
over the same frames; pixel_levels is how far the frames differ that each decodes and scales for itself, in levels of
255. `bound` is what `speedup` would be if ours took nothing but the passes of the model: encoding, forward, backward.
peak_memory_ratio is ours over theirs, beyond what the process had before.

Needs real videos: `--media FOLDER`, with a table labels.csv (path, label) in it.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import gc
import io
import multiprocessing
import os
import shutil
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
import yaml
from peft import get_peft_model

# a script knows its own folder only
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks.authors_way import CONCLUSION, HINTED_QUESTION, LABEL_QUESTION, Job
from benchmarks.models import SIZES, build, load_ours, load_plain
from benchmarks.passes import seconds_of_passes
from benchmarks.peers_run import peak_of

from benchmarks import authors_way, common
from rbft.__main__ import main as rbft
from rbft.data.formats.table import Table
from rbft.errors import DataError
from rbft.objectives.base import language_model_loss
from rbft.video.clip import read_clip
from rbft.video.sampling import FrameSampling
from rbft.vlm.batch import Item, collate
from rbft.vlm.prompt import Prompt
from rbft.vlm.tuning import LoRA

Found = dict[str, float]

FAMILY = "qwen2_5_vl"
OURS, PLAIN, WHOLE = "rbft", "authors' way", "authors' way, adapters in all layers"
PIXELS = "pixel_values_videos"  # of what processors return
TOKEN = 256  # pixels of a visual token of the models measured
# Frameworks that train the same models, and why this script cannot compare with them.
_APART = "has no one command for the whole method; benchmarks/peers.py measures its training"
NOT_RUN = [{"peer": peer, "reason": _APART} for peer in ("LLaMA-Factory", "ms-swift")]


def clips_by_label(media: Path) -> dict[str, list[tuple[Path, str]]]:
    """The clips of each label in the table's order, as (path, label).

    Raises:
        DataError: There is no such table.
    """
    found: dict[str, list[tuple[Path, str]]] = {}
    for record in Table().read(media):
        found.setdefault(record.label, []).append((media / record.path, record.label))
    return found


def choose(media: Path, clips: int) -> tuple[tuple[tuple[Path, str], ...], tuple[tuple[Path, str], ...]]:
    """The first clips of each label, half of them to train on: (training, test).

    Raises:
        DataError: There is no such table, or it has too few clips.
    """
    by_label = clips_by_label(media)
    each = clips // (2 * len(by_label))
    if each < 1 or min(map(len, by_label.values())) < 2 * each:
        raise DataError(f"{media} has too few clips for --clips {clips}, in equal parts of {len(by_label)} labels.")
    train = tuple(row for found in by_label.values() for row in found[:each])
    return train, tuple(row for found in by_label.values() for row in found[each : 2 * each])


def data_settings(job: Job, size: str) -> dict[str, Any]:
    """The part of an experiment file about clips."""
    return {"num_frames": job.num_frames, "max_pixels": TOKEN * SIZES[size][FAMILY].most_tokens}


@dataclass
class Compared:
    """What both sides make of the clips.

    Args:
        tokens: Of the question about each clip.
        pixels: Mean difference of each clip's pixels as the model gets them, in levels of 255.
        losses: Difference of the mean loss of each test clip's label, over the same frames.
    """

    tokens: list[int] = field(default_factory=list)
    pixels: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)


def compare_clips(job: Job, size: str) -> Compared:
    """Look at every clip as both sides do.

    Raises:
        RuntimeError: The two sides read other frames, or other tokens.
    """
    ours, plain = load_ours(job.model), load_plain(job.model)
    spec = ours.processor.clip_spec(FrameSampling(num_frames=job.num_frames), data_settings(job, size)["max_pixels"])
    collator = authors_way.Collator(plain.processor)
    level = 255 * statistics.mean(plain.processor.video_processor.image_std)
    found = Compared()
    for path, label in (*job.train, *job.test):
        question, clip = Prompt(LABEL_QUESTION), read_clip(path, spec)
        inputs = ours.processor.prompt_inputs(question, clip, sized=True)
        video = authors_way.read_video(path, job.num_frames)
        theirs = authors_way.process(plain.processor, [authors_way.render(plain.processor, LABEL_QUESTION)], [video])
        same_frames = list(clip.indices) == video.metadata["frames_indices"]
        if not same_frames or inputs.ids.tolist() != theirs["input_ids"][0].tolist():
            raise RuntimeError(f"{path}: the two sides do not see the same frames and tokens")
        found.tokens.append(len(inputs.ids))
        apart = (inputs.vision[PIXELS] - theirs[PIXELS]).abs().mean()
        found.pixels.append(level * float(apart))
        if (path, label) in job.test:
            same = dataclasses.replace(video, frames=clip.frames.permute(0, 2, 3, 1).numpy())
            batch = collator([(authors_way.Conversation(path, LABEL_QUESTION, label), same)])
            target = ours.processor.target_ids(question, label)
            # what the template writes after the end of the turn is not scored
            batch["labels"][:, len(inputs.ids) + len(target) :] = -100
            item = Item(0, inputs, target, normalizer=float(len(target)))
            with torch.no_grad():
                loss = language_model_loss(ours.vlm, collate([[item]]))
                found.losses.append(abs(float(loss) - float(plain.model(**batch).loss)))
    return found


def our_way(job: Job, size: str, folder: Path) -> Path:
    """`rbft fit` over copies of the clips, with caches of its own.

    Returns:
        The run's folder.
    """
    data = folder / "clips"
    data.mkdir(parents=True)
    lines = ["path,label,split"]
    for split, videos in (("train", job.train), ("test", job.test)):
        for number, (path, label) in enumerate(videos):
            name = f"{split}-{number}{path.suffix}"
            shutil.copyfile(path, data / name)
            lines.append(f"{name},{label},{split}")
    (data / "labels.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    stage = {"trainer": {"max_epochs": job.epochs}}
    experiment = {
        "data": data_settings(job, size)
        | {
            "root": str(data),
            "format": {"class_path": "Table"},
            "shots": len(job.train) // len(job.labels),
            "val_shots": 0,
            "batch_size": job.batch,
            "cache_dir": str(folder / "cache"),
        },
        "model": {
            "vlm": str(job.model),
            "dtype": "float32",
            "tuning": {"class_path": "LoRA", "init_args": {"layers": job.layers}},
            "optim": {"lr": job.learning_rate},
            "prompts": {
                "label_question": LABEL_QUESTION,
                "rationale_question": LABEL_QUESTION,
                "hinted_question": HINTED_QUESTION,
                "conclusion": CONCLUSION,
                "label_texts": {label: label for label in job.labels},
                "hint": "hint_kept",
            },
            "writer": {"max_new_tokens": job.new_tokens},
        },
        "trainer": {"accelerator": "cpu", "devices": 1, "gradient_clip_val": 1.0},
        "methods": {"rbft": ["write", "rationale", "classification", "test"]},
        "stages": {"write": {}, "rationale": stage, "classification": stage, "test": {}},
    }
    config = folder / "job.yaml"
    config.write_text(yaml.safe_dump(experiment, sort_keys=False), encoding="utf-8")
    os.environ["RBFT_CACHE"] = str(folder / "cache")
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        code = rbft(["fit", "--config", str(config), "--run_root", str(folder / "runs")])
    if code != 0:
        raise RuntimeError(f"rbft fit ended with code {code}:\n{said.getvalue()}")
    return folder / "runs" / "job" / "rbft" / "seed0"


def the_way(name: str, job: Job, size: str, folder: Path) -> None:
    """The whole job as `rbft` or the authors do it."""
    if name == OURS:
        our_way(job, size, folder)
    else:
        authors_way.run(job, folder)


def require_same_weights(job: Job) -> None:
    """That adapters of both sides have as many weights.

    Raises:
        RuntimeError: They do not.
    """
    ours = load_ours(job.model, LoRA(layers=job.layers)).vlm.model
    plain = load_plain(job.model).model
    theirs = get_peft_model(plain, authors_way.adapters(plain, job.layers))
    counts = [sum(value.numel() for value in side.parameters() if value.requires_grad) for side in (ours, theirs)]
    if counts[0] != counts[1]:
        raise RuntimeError(f"the two sides do not train as many weights: {counts}")


def note_cost(name: str, job: Job, size: str, folder: Path, found: Connection) -> None:
    """Send what the whole job cost, in a process that did a small one before."""
    torch.set_num_threads(1)
    train, test = ({label: (path, label) for path, label in rows} for rows in (job.train, job.test))
    small = dataclasses.replace(job, train=tuple(train.values()), test=tuple(test.values()), epochs=1)
    the_way(name, small, size, folder / "small")
    gc.collect()
    begun = common.cpu_seconds()
    with seconds_of_passes() as passes:
        peak = peak_of(lambda: the_way(name, job, size, folder / "whole"))
    found.send({"seconds": common.cpu_seconds() - begun, "passes": passes(), "peak": peak})


def cost(name: str, job: Job, size: str) -> Found:
    """Processor seconds of the whole job, of the model's passes in it, and peak bytes, in a process of its own.

    Raises:
        RuntimeError: It failed.
    """
    common.say(f"{name}: {job.epochs} epochs")
    receive, send = multiprocessing.Pipe(duplex=False)
    spawn = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        process = spawn.Process(target=note_cost, args=(name, job, size, Path(folder), send))
        process.start()
        process.join()
    if process.exitcode != 0:
        raise RuntimeError(f"{name}: the process of its own ended with code {process.exitcode}")
    found: Found = receive.recv()
    return found


def measure(job: Job, size: str, repeats: int) -> dict[str, list[Found]]:
    """What each way cost in each round, in turns."""
    ways = {OURS: job, PLAIN: job} | ({} if job.layers is None else {WHOLE: dataclasses.replace(job, layers=None)})
    found: dict[str, list[Found]] = {name: [] for name in ways}
    for turn in range(repeats):
        for name in ways if turn % 2 else reversed(list(ways)):
            found[name].append(cost(name, ways[name], size))
    return found


def make_row(baseline: str, job: Job, found: Mapping[str, Sequence[Found]], compared: Compared) -> common.Row:
    """The row of ours against one of the other ways."""
    seconds, ours = [one["seconds"] for one in found[baseline]], found[OURS]
    peaks = {name: statistics.median(one["peak"] for one in found[name]) for name in (OURS, baseline)}
    return {
        "case": f"whole job, {len(job.train) + len(job.test)} clips, {job.epochs} epochs",
        "family": FAMILY,
        "baseline": baseline,
        "layers": job.layers,
        "speedup": common.median_ratio(seconds, [one["seconds"] for one in ours]),
        "bound": common.median_ratio(seconds, [one["passes"] for one in ours]),
        "max_abs_diff": max(compared.losses),
        "pixel_levels": round(statistics.mean(compared.pixels), 2),
        "peak_memory_ratio": round(peaks[OURS] / peaks[baseline], 3),
        "peak_bytes": peaks[OURS],
        "processor_seconds": {
            name: round(statistics.median(one["seconds"] for one in found[name]), 1) for name in (OURS, baseline)
        },
        "rounds": len(ours),
        "tokens_per_sample": statistics.mean(compared.tokens),
        "epochs": job.epochs,
        "available": True,
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and write the record."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    parser = common.make_parser("pipeline", __doc__, repeats=2)
    parser.add_argument("--media", type=Path, metavar="FOLDER", help="real videos and their labels.csv")
    parser.add_argument("--clips", type=int, default=64, help="half to train on (default: %(default)s)")
    parser.add_argument("--size", choices=tuple(SIZES), default="small", help="of the model (default: %(default)s)")
    parser.add_argument("--epochs", nargs="+", type=int, default=[2], help="of each stage (default: 2)")
    parser.add_argument("--layers", type=int, help="upper layers that get adapters; all without")
    parser.add_argument("--new_tokens", type=int, default=48, help="of a rationale (default: %(default)s)")
    flags: argparse.Namespace = parser.parse_args(arguments)
    if flags.media is None:
        print("pipeline: skipped, nothing was measured: it needs real videos, --media FOLDER.", file=sys.stderr)
        return 2
    torch.set_num_threads(1)
    try:
        train, test = choose(flags.media, flags.clips)
    except DataError as error:
        print(f"pipeline: {error}", file=sys.stderr)
        return error.exit_code
    labels = tuple(sorted({label for _, label in train}))
    nobody: list[common.Row] = [{"case": "whole job", "family": FAMILY, "available": False} | peer for peer in NOT_RUN]
    rows: list[common.Row] = []
    environment = common.describe(["accelerate"], arguments)
    with common.on_one_core(), tempfile.TemporaryDirectory() as folder:
        model = build(FAMILY, flags.size, Path(folder))
        job = Job(model, train, test, labels, new_tokens=flags.new_tokens, layers=flags.layers)
        require_same_weights(job)
        compared = compare_clips(job, flags.size)
        for epochs in flags.epochs:
            one = dataclasses.replace(job, epochs=epochs)
            found = measure(one, flags.size, flags.repeats)
            rows += [make_row(name, one, found, compared) for name in found if name != OURS]
            common.write_record(flags.json, "pipeline", environment, rows + nobody)
    common.print_table(
        "The whole method: how many times as fast",
        ("case", "baseline", "layers", "speedup", "bound", "peak_memory_ratio", "max_abs_diff", "peer", "reason"),
        rows + nobody,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
