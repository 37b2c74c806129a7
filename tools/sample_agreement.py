"""How far several descriptions of a clip agree, and whether that tells what stage 1 gains.

python -m tools.sample_agreement runs/sweeps/agreement --gains runs/sweeps/concluded
"""

from __future__ import annotations

import argparse
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from statistics import fmean
from typing import Any

from rbft.errors import ConfigError
from rbft.files import read_json
from rbft.rationales.store import read_rationales
from rbft.runs.names import RATIONALES
from rbft.runs.run_folder import RunFolder
from rbft.worlds.events import ACTIONS, phrase

STAGE, MODEL, OWN, CONTROL = "explore", "concluded_mixture_upper", "test_upper", "caption_probe"
_DOES = sorted({phrase(one, two) for one in ACTIONS for two in ACTIONS if one != two}, key=len, reverse=True)
_DOING = re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, _DOES))})(?!\w)")


@dataclass(frozen=True)
class Agreement:
    """How far the descriptions of the clips of one draw agree.

    Args:
        model: model that wrote them.
        draw: seed of the draw.
        words: mean share, over pairs of descriptions of one clip, of what objects do that both say.
    """

    model: str
    draw: int
    words: float


def shared(texts: Sequence[str]) -> float:
    """What objects do in both of two descriptions, as a share of what they do in either; mean over all pairs.

    Twice the number in both over the sum of both (Dice, Measures of the Amount of Ecologic Association, 1945); 1 for
    two texts that say nothing of it.

    Args:
        texts: at least two descriptions of one clip.
    """
    doing = [Counter(_DOING.findall(text)) for text in texts]
    found = []
    for one, other in combinations(doing, 2):
        total = one.total() + other.total()
        found.append(2 * (one & other).total() / total if total else 1.0)
    return fmean(found)


def agreements_of(folder: Path) -> list[Agreement]:
    """The agreement of each finished run of a sweep.

    Raises:
        ConfigError: No run has several descriptions of a clip.
    """
    found = []
    plan = read_json(folder / "plan.json")
    for run in plan["runs"].values():
        path = Path(plan["where"]) / run["folder"] / STAGE / RATIONALES
        if not path.is_file():
            continue
        texts: dict[str, list[str]] = {}
        for rationale in read_rationales(path):
            texts.setdefault(rationale.id, []).append(rationale.written)
        several = [shared(own) for own in texts.values() if len(own) > 1]
        if several:
            found.append(Agreement(*_draw(run["point"]), fmean(several)))
    if not found:
        raise ConfigError(f"{folder}: no finished run has several texts of a clip in its stage {STAGE!r}.")
    return found


def gains_of(folder: Path) -> dict[tuple[str, int], float]:
    """What stage 1 alone gains over the control, by model and draw; unfinished draws are left out."""
    plan = read_json(folder / "plan.json")
    found: dict[tuple[str, int], dict[str, float]] = {}
    for run in plan["runs"].values():
        done, method = RunFolder(Path(plan["where"]) / run["folder"]), run["point"]["method"]
        tested = RunFolder(done.path / OWN) if method == MODEL else done
        if done.accuracy is not None and tested.accuracy is not None:
            found.setdefault(_draw(run["point"]), {})[method] = tested.accuracy
    return {draw: own[MODEL] - own[CONTROL] for draw, own in found.items() if MODEL in own and CONTROL in own}


def _draw(point: dict[str, Any]) -> tuple[str, int]:
    return str(point["model.vlm"]), int(point["seed_everything"])


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tools.sample_agreement", description=__doc__)
    parser.add_argument("sweep", type=Path, help="folder of the sweep whose runs describe clips several times")
    parser.add_argument("--gains", type=Path, help="folder of the sweep with what stage 1 gains on the same draws")
    args = parser.parse_args()
    found = agreements_of(args.sweep)
    gains = {} if args.gains is None else gains_of(args.gains)
    print("| model | draws | agreement | gain |\n|---|---|---|---|")
    for model in dict.fromkeys(one.model for one in found):
        own = [one for one in found if one.model == model]
        known = [gains[key] for one in own if (key := (model, one.draw)) in gains]
        gain = f"{100 * fmean(known):+.1f}" if known else ""
        print(f"| {model} | {len(own)} | {100 * fmean(one.words for one in own):.1f} | {gain} |")
        _correlate(own, gains, "  of its draws")
    _correlate(found, gains, "all draws")


def _correlate(found: Sequence[Agreement], gains: dict[tuple[str, int], float], of: str) -> None:
    """Print the rank correlation (Spearman) of agreement and gain over draws."""
    from scipy.stats import spearmanr

    both = [(one.words, gains[key]) for one in found if (key := (one.model, one.draw)) in gains]
    if len(both) > 2:
        result = spearmanr(*zip(*both, strict=True))
        print(f"{of}: rank correlation {result.statistic:.2f}, p {result.pvalue:.2f}, {len(both)} draws")


if __name__ == "__main__":
    main()
