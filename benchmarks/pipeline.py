"""What the whole method costs on real clips: one `rbft fit` against the same job as separate runs of transformers.

Both write a rationale for each training clip, train two stages of two epochs (LoRA), and classify the test clips, with
the same model, frames and prompts; that they see the same frames and as many tokens is checked first. Ours starts with
empty caches and includes its survey of the data set, the filling of its caches, and its report.
  authors' way    benchmarks/authors_way.py
Starting Python and importing libraries is counted for neither; it would be once for ours, and for each of four runs.

Needs real videos: `--media FOLDER`, with a table labels.csv (path, label) in it.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import Any

import torch
import yaml

# a script knows its own folder only
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks.authors_way import CONCLUSION, HINTED_QUESTION, LABEL_QUESTION, Job
from benchmarks.models import SIZES, build

from benchmarks import authors_way, common
from rbft.__main__ import main as rbft
from rbft.data.formats.table import Table
from rbft.errors import DataError
from rbft.video.clip import read_clip
from rbft.video.sampling import FrameSampling
from rbft.vlm.processing import ClipProcessor
from rbft.vlm.prompt import Prompt

FAMILY = "qwen2_5_vl"
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


def tokens_per_clip(job: Job, size: str) -> list[int]:
    """Tokens of the question about each clip.

    Raises:
        RuntimeError: The two sides read other frames, or other tokens.
    """
    processor, settings = ClipProcessor(str(job.model)), data_settings(job, size)
    plain = authors_way.AutoProcessor.from_pretrained(job.model)
    bound = processor.frame_bound(settings["max_pixels"])
    found = []
    for path, _ in (*job.train, *job.test):
        sampling = FrameSampling(num_frames=job.num_frames)
        clip = read_clip(path, sampling, max_pixels=bound.max_pixels, multiple=bound.multiple)
        ids = processor.prompt_inputs(Prompt(LABEL_QUESTION), clip, sized=True).ids
        video = authors_way.read_video(path, job.num_frames)
        theirs = authors_way.process(plain, [authors_way.render(plain, LABEL_QUESTION)], [video])["input_ids"][0]
        if list(clip.indices) != video.metadata["frames_indices"] or ids.tolist() != theirs.tolist():
            raise RuntimeError(f"{path}: the two sides do not see the same frames and tokens")
        found.append(len(ids))
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
            "tuning": {"class_path": "LoRA"},
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


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and write the record."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    parser = common.make_parser("pipeline", __doc__, repeats=2)
    parser.add_argument("--media", type=Path, metavar="FOLDER", help="real videos and their labels.csv")
    parser.add_argument("--clips", type=int, default=64, help="half to train on (default: %(default)s)")
    parser.add_argument("--size", choices=tuple(SIZES), default="small", help="of the model (default: %(default)s)")
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
    with common.on_one_core(), tempfile.TemporaryDirectory() as folder:
        model = build(FAMILY, flags.size, Path(folder))
        job = Job(model, train, test, labels, new_tokens=flags.new_tokens)
        tokens = tokens_per_clip(job, flags.size)
        places = (Path(folder) / str(number) for number in count())
        ways = {
            "rbft": lambda: our_way(job, flags.size, next(places)),
            "authors' way": lambda: authors_way.run(job, next(places)),
        }
        seconds = common.time_in_turns(ways, flags.repeats)
    rows: list[common.Row] = [
        {
            "case": f"whole job, {flags.clips} clips",
            "family": FAMILY,
            "baseline": "authors' way",
            "speedup": common.median_ratio(seconds["authors' way"], seconds["rbft"]),
            "tokens_per_sample": sum(tokens) / len(tokens),
            "epochs": job.epochs,
            "available": True,
        }
    ]
    rows += [{"case": rows[0]["case"], "family": FAMILY, "available": False} | peer for peer in NOT_RUN]
    common.print_table(
        "The whole method: how many times as fast", ("case", "family", "baseline", "speedup", "peer", "reason"), rows
    )
    common.write_record(flags.json, "pipeline", common.describe(["accelerate"], arguments), rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
