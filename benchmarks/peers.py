"""What fine-tuning on labels costs: rbft's stage `classification` against the frameworks that train the same models.

    python benchmarks/peers.py --json benchmarks/records/peers.json --media FOLDER \
        --peer ms-swift --venv VENV --peer llamafactory --venv VENV

Every run is a process of its own in the environment of its framework (peers_run.py), all on one core and in turns:
LoRA on the language model, some epochs over real clips, from the files on disk to trained adapters. Ours starts with
empty caches: its survey of the data set and the filling of its caches are counted. What Python takes to start and
libraries to import is counted for nobody. That all train the same is checked first: the tokens, visual tokens and
supervised tokens of every clip and the number of trained weights must be equal, and over videos of eight frames, where
there is no choice of frames, max_abs_diff is the largest difference of a clip's loss before anything is learned.
`bound` is what `speedup` would be if ours took nothing but the passes of the model, forward and backward.

With `--layers 3` adapters are in the upper three layers, and there are two rows for each number of epochs: the same
adapters on both sides, and theirs in all layers, which is not the same training.

Nothing is installed here; docs/benchmarks.md says how the environments are made. A peer without one has a row that says
so. Needs real videos: `--media FOLDER`, with a table labels.csv (path, label) in it.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from transformers import AutoConfig

# a script knows its own folder only
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks.models import CELL, SIZES, build_as_published, make_clip
from benchmarks.pipeline import clips_by_label

from benchmarks import common
from rbft.errors import DataError
from rbft.worlds.encode import write_mp4

Found = dict[str, Any]

FAMILY = "qwen2_5_vl"
OURS = "rbft"
ALL_LAYERS = ", adapters in all layers"  # after the name of a peer whose adapters are not ours
PEERS = ("ms-swift", "llamafactory")
QUESTION = "Which event does this video show? Answer with the label only."
FRAMES = 8
_COUNTED = ("tokens", "visual", "supervised")
_RUN = Path(__file__).with_name("peers_run.py")
# Sides in pixels of the videos that losses are compared on: they need no scaling.
_EXACT_SIDES = ((112, 112), (112, 168), (168, 112), (140, 140))


class PeerError(Exception):
    """A peer's run did not come to its end."""


@dataclass(frozen=True)
class Task:
    """What all train.

    Args:
        model: Folder of the model.
        rows: Videos with their labels, all in one folder.
        apart: A video of each label that only rbft looks at: it starts no run without videos to test on.
        max_pixels: Of a frame.
        epochs: Over the rows.
        batch: Clips of a step.
        learning_rate: At its highest.
        layers: Upper layers of the language model that get adapters; None: all.
    """

    model: Path
    rows: tuple[tuple[Path, str], ...]
    apart: tuple[tuple[Path, str], ...]
    max_pixels: int
    epochs: int = 2
    batch: int = 2
    learning_rate: float = 1e-4
    layers: int | None = None

    def write(self, path: Path) -> Path:
        """As peers_run.py reads it."""
        config = AutoConfig.from_pretrained(self.model)
        total = config.text_config.num_hidden_layers
        job = {
            "model": str(self.model),
            "rows": [{"video": str(path), "question": QUESTION, "answer": label} for path, label in self.rows],
            "apart": [(str(path), label) for path, label in self.apart],
            "warm_up": 2 * self.batch,
            "epochs": self.epochs,
            "batch": self.batch,
            "learning_rate": self.learning_rate,
            "layers": self.layers,
            "adapted_layers": None if self.layers is None else list(range(total - self.layers, total)),
            "frames": FRAMES,
            "min_pixels": 4 * CELL**2,
            "max_pixels": self.max_pixels,
            "image_token": config.image_token_id,
            "video_token": config.video_token_id,
        }
        path.write_text(json.dumps(job), encoding="utf-8")
        return path


@dataclass(frozen=True)
class Side:
    """What takes a turn.

    Args:
        peer: As peers_run.py names it.
        python: Of its environment.
        task: What it trains.
    """

    peer: str
    python: Path
    task: Task


def make_run(side: Side, folder: Path) -> Found:
    """One run in a process of its own; what it leaves beside its figures is removed.

    Raises:
        PeerError: It failed; says with what.
    """
    folder.mkdir(parents=True)
    out = folder / "found.json"
    # of settings and caches of the person nothing gets in, and nothing is fetched
    home = {name: str(folder / name) for name in ("HF_HOME", "MODELSCOPE_CACHE", "RBFT_CACHE", "XDG_CACHE_HOME")}
    kept = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "LANG", "TMPDIR")}
    fixed = {
        "OMP_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "DISABLE_VERSION_CHECK": "1",
    }
    command = [str(side.python), str(_RUN), side.peer, str(side.task.write(folder / "job.json")), str(out)]
    ended = subprocess.run(command, env=kept | home | fixed, capture_output=True, text=True, check=False)
    if ended.returncode != 0 or not out.is_file():
        said = [line for line in (ended.stdout + ended.stderr).splitlines() if line.strip()]
        raise PeerError(f"ended with code {ended.returncode}: {said[-1] if said else 'it said nothing'}")
    found: Found = json.loads(out.read_text(encoding="utf-8"))
    shutil.rmtree(folder)
    return found


def per_sample(found: Found) -> dict[str, float]:
    """Tokens of a clip on average, by kind."""
    rows = sum(step["rows"] for step in found["steps"])
    return {kind: sum(step[kind] for step in found["steps"]) / rows for kind in _COUNTED}


def require_same(peer: str, found: Found, ours: Found) -> None:
    """That a peer trained as many weights as rbft, unless its adapters are others, on as many tokens.

    Raises:
        RuntimeError: It did not; says in what.
    """
    mine, theirs = per_sample(ours), per_sample(found)
    for side, counts in ((ours, mine), (found, theirs)):
        counts["trained"] = 0 if peer.endswith(ALL_LAYERS) else side["steps"][0]["trained"]
        counts["steps"] = len(side["steps"])
    if mine != theirs:
        raise RuntimeError(f"{peer} does not do the same as rbft: {theirs} instead of {mine} (tokens are per clip)")


def compare_losses(found: Found, ours: Found) -> float:
    """Largest difference between the losses of single clips; the order of the clips is each framework's own."""
    mine, theirs = (sorted(step["loss"] for step in side["steps"]) for side in (ours, found))
    return max(abs(a - b) for a, b in zip(mine, theirs, strict=True))


def write_exact_videos(folder: Path, labels: Sequence[str]) -> tuple[tuple[Path, str], ...]:
    """Videos that everybody reads alike: as many frames as are taken, two a second, no scaling, four levels of grey.

    Colours are stored in half the resolution, and readers differ in how they make it whole again. Brightness is stored
    as 219 levels of the 255, and they differ in how they round; these four need no rounding.
    """
    rows = []
    for number, sides in enumerate(_EXACT_SIDES):
        grey = make_clip(number, sides, FRAMES).frames[:, :1] // 64 * 85
        path = folder / f"exact-{number}.mp4"
        write_mp4(path, grey.expand(-1, 3, -1, -1).permute(0, 2, 3, 1).numpy(), fps=2, crf=0)
        rows.append((path, labels[number % len(labels)]))
    return tuple(rows)


def choose_videos(media: Path, clips: int) -> list[tuple[Path, str]]:
    """A clip of each label to set apart, then `clips` to train on; labels take turns.

    Raises:
        DataError: There is no such table, or it has too few clips.
    """
    by_label = clips_by_label(media)
    each = 1 + clips // len(by_label)
    if clips % len(by_label) or min(map(len, by_label.values())) < each:
        raise DataError(
            f"{media} does not have --clips {clips} in equal parts of {len(by_label)} labels, and one more."
        )
    return [found[number] for number in range(each) for found in by_label.values()]


def measure(peer: str, runs: Sequence[Mapping[str, Found]], max_abs_diff: float | None, task: Task) -> common.Row:
    """The row of a peer, of rounds in which it and rbft took turns."""
    for found in runs:
        require_same(peer, found[peer], found[OURS])

    def ratio(key: str) -> float:
        return common.median_ratio([found[peer][key] for found in runs], [found[OURS][key] for found in runs])

    counts = per_sample(runs[0][OURS])
    sides = (peer, OURS)
    return {
        "case": f"LoRA, {len(task.rows)} clips, {task.epochs} epochs, batch {task.batch}",
        "family": FAMILY,
        "peer": peer,
        "baseline": peer,
        "available": True,
        "layers": task.layers,
        "speedup": ratio("processor_seconds"),
        "wall_speedup": ratio("wall_seconds"),
        "bound": common.median_ratio(
            [found[peer]["processor_seconds"] for found in runs],
            [sum(step["passes"] for step in found[OURS]["steps"]) for found in runs],
        ),
        "max_abs_diff": max_abs_diff,
        "peak_memory_ratio": round(1 / ratio("peak_bytes"), 3),
        "tokens_per_sample": counts["tokens"],
        "visual_tokens_per_sample": counts["visual"],
        "supervised_tokens_per_sample": counts["supervised"],
        "trained_weights": {side: runs[0][side]["steps"][0]["trained"] for side in sides},
        "rounds": len(runs),
        "processor_seconds": {
            side: round(statistics.median(found[side]["processor_seconds"] for found in runs), 1) for side in sides
        },
        "versions": runs[0][peer]["versions"],
    }


def missing(peer: str, venv: Path | None) -> str | None:
    """Why a peer cannot run; None where it can."""
    if venv is None:
        return f"no environment was named (--peer {peer} --venv FOLDER)"
    if not (venv / "bin" / "python").is_file():
        return f"{venv.name} is no virtual environment: it has no bin/python"
    asked = [str(venv / "bin" / "python"), "-c", f"import importlib.metadata as m; m.version({peer!r})"]
    if subprocess.run(asked, capture_output=True, check=False).returncode != 0:
        return f"{peer} is not installed in {venv.name}"
    return None


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and write the record; 1 if a peer that is there did not run."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    parser = common.make_parser("peers", __doc__, repeats=3)
    parser.add_argument("--media", type=Path, metavar="FOLDER", help="real videos and their labels.csv")
    parser.add_argument("--peer", action="append", default=[], choices=PEERS, help="may be given several times")
    parser.add_argument("--venv", action="append", default=[], type=Path, metavar="FOLDER", help="of each --peer")
    parser.add_argument("--epochs", nargs="+", type=int, default=[2], help="over the clips (default: 2)")
    parser.add_argument("--layers", type=int, help="upper layers that get adapters; all without; not of ms-swift")
    parser.add_argument("--clips", type=int, default=64, help="to train on (default: %(default)s)")
    parser.add_argument("--size", choices=tuple(SIZES), default="small", help="of the model (default: %(default)s)")
    flags: argparse.Namespace = parser.parse_args(arguments)
    if len(flags.peer) != len(flags.venv):
        parser.error("every --peer needs its --venv")
    if flags.layers is not None and "ms-swift" in flags.peer:
        parser.error("--layers: ms-swift is compared with adapters in all layers alone")
    if flags.media is None:
        print("peers: skipped, nothing was measured: it needs real videos, --media FOLDER.", file=sys.stderr)
        return 2
    try:
        videos = choose_videos(flags.media, flags.clips)
    except DataError as error:
        print(f"peers: {error}", file=sys.stderr)
        return error.exit_code
    venvs = {peer: venv.absolute() for peer, venv in zip(flags.peer, flags.venv, strict=True)}
    reasons = {peer: missing(peer, venvs.get(peer)) for peer in PEERS}
    pythons = {peer: venvs[peer] / "bin" / "python" for peer in PEERS if reasons[peer] is None}
    with common.on_one_core(), tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        rows, failed = run_all(folder, videos, pythons, flags)
    nobody = {peer: reason for peer, reason in (reasons | failed).items() if reason is not None}
    rows += [
        {"case": "LoRA", "family": FAMILY, "peer": peer, "baseline": peer, "available": False, "reason": reason}
        for peer, reason in nobody.items()
    ]
    columns = (
        "case",
        "peer",
        "layers",
        "speedup",
        "wall_speedup",
        "bound",
        "max_abs_diff",
        "peak_memory_ratio",
        "tokens_per_sample",
        "reason",
    )
    common.print_table("Fine-tuning on labels: how many times as fast as each peer", columns, rows)
    common.write_record(flags.json, "peers", common.describe([], arguments), rows)
    return 1 if failed else 0


def run_all(
    folder: Path, videos: Sequence[tuple[Path, str]], pythons: Mapping[str, Path], flags: argparse.Namespace
) -> tuple[list[common.Row], dict[str, str]]:
    """The rows of the peers that ran, and why others did not come to their end."""
    failed: dict[str, str] = {}
    pythons = {OURS: Path(sys.executable)} | dict(pythons)
    if len(pythons) == 1:
        return [], failed
    model = build_as_published(flags.size, folder)
    clips = folder / "clips"
    clips.mkdir()
    rows = [
        (Path(shutil.copyfile(path, clips / f"{number}{path.suffix}")), label)
        for number, (path, label) in enumerate(videos)
    ]
    labels = sorted({label for _, label in rows})
    apart, rows = tuple(rows[: len(labels)]), rows[len(labels) :]
    most_pixels = SIZES[flags.size][FAMILY].most_tokens * CELL**2
    task = Task(model, tuple(rows), apart, most_pixels, layers=flags.layers)
    exact = write_exact_videos(clips, labels)
    check = replace(task, rows=exact, epochs=1, batch=1, learning_rate=0.0)
    checks = take_turns(sides_of(pythons, check), folder, "check", failed)
    for peer in checks:
        require_same(peer, checks[peer], checks[OURS])
    differences = {peer: compare_losses(checks[peer], checks[OURS]) for peer in checks}
    measured: list[common.Row] = []
    for epochs in flags.epochs:
        one = replace(task, epochs=epochs)
        sides, runs = sides_of(pythons, one), list[dict[str, Found]]()
        for turn in range(flags.repeats):
            # every other round goes backwards, so that nobody always runs after the same predecessor
            order = {name: sides[name] for name in (sides if turn % 2 else reversed(list(sides))) if name not in failed}
            if len(order) > 1:
                runs.append(take_turns(order, folder, f"{epochs} epochs, round {turn + 1}", failed))
        ran = [name for name in sides if name not in (OURS, *failed)]
        # adapters change nothing before they have learned
        measured += [measure(name, runs, differences.get(name), one) for name in ran]
    return measured, failed


def sides_of(pythons: Mapping[str, Path], task: Task) -> dict[str, Side]:
    """Who takes turns: ours, each peer with our adapters and, where ours are not in all layers, with those."""
    same = {peer: Side(peer, python, task) for peer, python in pythons.items()}
    whole = replace(task, layers=None)
    others = {f"{peer}{ALL_LAYERS}": Side(peer, python, whole) for peer, python in pythons.items() if peer != OURS}
    return same | (others if task.layers is not None else {})


def take_turns(sides: Mapping[str, Side], folder: Path, turn: str, failed: dict[str, str]) -> dict[str, Found]:
    """What each side found in one round; who does not come to the end is noted in `failed`.

    Raises:
        PeerError: Ours did not come to its end.
    """
    found: dict[str, Found] = {}
    for number, (name, side) in enumerate(sides.items()):
        common.say(f"{name}: {turn}")
        try:
            found[name] = make_run(side, folder / f"{side.peer}-{number}-{turn.replace(' ', '-')}")
        except PeerError as error:
            if name == OURS:
                raise
            failed[name] = str(error)
    return found


if __name__ == "__main__":
    sys.exit(main())
