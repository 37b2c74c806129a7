"""Reproduces a benchmark: says what it needs, refuses early if that is not there, runs the sweep and writes its page.

    python experiments/reproduce.py builtin
    python experiments/reproduce.py ucf --data.root FOLDER
    python experiments/reproduce.py ucf --data.root FOLDER --dry_run

Any other flag is passed to `rbft sweep`. `make reproduce-<name> DATA=FOLDER` is the same.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Recipe:
    """How one benchmark is reproduced.

    Args:
        sweeps: The sweep files, relative to this folder; one page is made of all.
        needs: What the data root must hold, each as a glob with a word on what it is.
        gpu_gb: Memory that a GPU must have; 0 where none is needed.
        source: Where the data set is had from.
        references: Published figures to stand beside, each with its source; protocols differ, see docs/reproduce.md.
    """

    sweeps: tuple[str, ...]
    needs: tuple[tuple[str, str], ...] = ()
    gpu_gb: int = 0
    source: str = ""
    references: tuple[str, ...] = ()


_XCLIP = "X-CLIP-B/16, cards of microsoft/xclip-base-patch16-{}-K-shot at huggingface.co"
_VIFI = "ViFi-CLIP from CLIP, github.com/muzairkhattak/ViFi-CLIP"
_OST = "OST from CLIP, github.com/tomchen-ctj/OST"
RECIPES: dict[str, Recipe] = {
    "builtin": Recipe(("sweeps/map_unions.yaml",)),
    "ucf": Recipe(
        ("sweeps/ucf_lowdata.yaml",),
        (("ucfTrainTestlist/trainlist01.txt", "the official lists"), ("**/v_*_g01_c01.avi", "the videos")),
        24,
        "https://www.crcv.ucf.edu/data/UCF101.php",
        (
            f"2/4/8/16 shots, top-1: 76.4/83.4/88.3/91.4 ({_XCLIP.format('ucf')})",
            f"2/4/8/16 shots, top-1: 80.7/85.1/90.0/92.7 ({_VIFI})",
            f"2/4/8/16 shots, top-1: 82.5/87.5/91.7/93.9 ({_OST})",
        ),
    ),
    "hmdb": Recipe(
        ("sweeps/hmdb_lowdata.yaml",),
        (("testTrainMulti_7030_splits/*_test_split1.txt", "the official lists"), ("**/*.avi", "the videos")),
        24,
        "https://serre-lab.clps.brown.edu/resource/hmdb-a-large-human-motion-database/",
        (
            f"2/4/8/16 shots, top-1: 53.0/57.3/62.8/64.0 ({_XCLIP.format('hmdb')})",
            f"2/4/8/16 shots, top-1: 57.2/62.7/64.5/66.8 ({_VIFI})",
            f"2/4/8/16 shots, top-1: 59.1/62.9/64.9/68.2 ({_OST})",
        ),
    ),
    "ssv2": Recipe(
        ("sweeps/ssv2_lowdata.yaml",),
        (("something-something-v2-train.json", "the official lists"), ("**/*.webm", "the videos")),
        24,
        "https://www.qualcomm.com/developer/software/something-something-v-2-dataset",
        (
            f"2/4/8/16 shots, top-1: 6.2/7.4/8.5/12.4 ({_VIFI})",
            f"2/4/8/16 shots, top-1: 7.0/7.7/8.9/12.2 ({_OST})",
        ),
    ),
    "smarthome": Recipe(
        ("sweeps/smarthome_lowdata.yaml",),
        (("Videos/Video_Annotation.csv", "the annotations"), ("Videos/**/*.mp4", "the videos")),
        80,
        "https://github.com/Xinyi-0724/SmartHome-Bench-LLM",
    ),
    "multihateclip": Recipe(
        ("sweeps/multihateclip_lowdata.yaml",),
        (("English_data/annotation/train.tsv", "the official lists"), ("**/*.mp4", "the videos")),
        24,
        "https://github.com/Social-AI-Studio/MultiHateClip",
    ),
}


def header(sweep: Path) -> str:
    """What a sweep file says of itself: the first line, and what it needs."""
    lines = [line.lstrip("# ").rstrip() for line in sweep.read_text(encoding="utf-8").splitlines() if line[:1] == "#"]
    needs = next((i for i, line in enumerate(lines) if line.startswith("Needs:")), None)
    return "\n".join([lines[0], *([] if needs is None else lines[needs:])])


def missing(recipe: Recipe, root: Path | None) -> list[str]:
    """What is not there, in words; nothing if all is."""
    found = []
    if recipe.needs and root is None:
        found.append("no data: say where it is with --data.root FOLDER (with make: DATA=FOLDER)")
    elif root is not None and not root.is_dir():
        found.append(f"--data.root {root}: no such folder")
    elif root is not None:
        found += [
            f"{root} holds no {pattern} ({what})"
            for pattern, what in recipe.needs
            if next(root.glob(pattern), None) is None
        ]
    if recipe.gpu_gb:
        import torch

        sizes = [torch.cuda.get_device_properties(i).total_memory / 2**30 for i in range(torch.cuda.device_count())]
        if not sizes:
            found.append(f"no GPU: this needs one with {recipe.gpu_gb} GB or more")
        elif max(sizes) < 0.9 * recipe.gpu_gb:
            found.append(f"the largest GPU has {max(sizes):.0f} GB; this needs {recipe.gpu_gb} GB or more")
    return found


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=RECIPES)
    parser.add_argument("--data.root", dest="root", type=Path)
    parser.add_argument("--run_root", type=Path, default=Path("runs"))
    parser.add_argument("--dry_run", "--dry-run", action="store_true")
    args, flags = parser.parse_known_args()
    recipe = RECIPES[args.name]
    sweeps = [HERE / name for name in recipe.sweeps]
    print("\n".join(header(sweep) for sweep in sweeps))
    if recipe.source:
        print(f"Data set: {recipe.source}")
    for line in recipe.references:
        print(f"Published: {line}")
    print("", flush=True)
    if lacking := missing(recipe, args.root):
        print("\n".join(f"reproduce {args.name}: {line}." for line in lacking), file=sys.stderr)
        return 1
    rbft = [sys.executable, "-m", "rbft"]
    given = [*flags, "--run_root", str(args.run_root), *(["--data.root", str(args.root)] if args.root else [])]
    given += ["--dry_run"] if args.dry_run else []
    for sweep in sweeps:
        code = subprocess.run([*rbft, "sweep", "--config", str(sweep), *given]).returncode
        if code:
            return code
    if args.dry_run:
        return 0
    folders = [args.run_root / "sweeps" / sweep.stem for sweep in sweeps]
    page, table = folders[0] / "report.html", folders[0] / "table.md"
    made = subprocess.run([*rbft, "report", *map(str, folders), "--to", str(page), "--markdown", str(table)])
    print(f"page: {page}\ntable: {table}")
    return made.returncode


if __name__ == "__main__":
    sys.exit(main())
