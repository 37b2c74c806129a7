"""Tables of docs/results.md: methods at equal labels over cells, and a figure over labels.

python -m tools.equal_labels runs/sweeps/equal_* --svg docs/pictures/equal-labels.svg
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from rbft.errors import ConfigError
from rbft.evaluation.statistics import MeanInterval, mean_interval, paired_difference
from rbft.files import read_json, read_jsonl
from rbft.runs.run_folder import RunFolder
from rbft.worlds.events import phrase

CONTROLS = ("sft", "sft_upper", "sft_same_tokens", "caption_probe", "probe", "demonstrations", "encoder_probe")
_SEED, _SHOTS, _METHOD = "seed_everything", "data.shots", "method"
_DEFAULT_SHOTS = 4
_WAYS = {"answered directly": "test/accuracy_direct", "after its own rationale": "test/accuracy_rationale"}
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000")


@dataclass(frozen=True)
class Cell:
    """The runs of one sweep with equally many labelled clips a class, whole draws alone.

    Args:
        name: name of the sweep and what else distinguishes its runs.
        shots: labelled clips a class.
        accuracies: test accuracy by method, one for each draw, in the same order.
        draws: seeds of the draws.
        ways: by method its mean accuracy answered directly and after its own rationale, over these draws; None where a
            run does not report that way.
    """

    name: str
    shots: int
    accuracies: Mapping[str, tuple[float, ...]]
    draws: tuple[int, ...]
    ways: Mapping[str, tuple[float | None, ...]]

    @property
    def best_control(self) -> str:
        """The control with the highest mean.

        Raises:
            ConfigError: No method of the cell is a control.
        """
        controls = [name for name in self.accuracies if name in CONTROLS]
        if not controls:
            raise ConfigError(f"{self.name}: no method is a control; name a sweep with one of {', '.join(CONTROLS)}.")
        return max(controls, key=lambda name: fmean(self.accuracies[name]))


def cells_of(
    folder: Path, stages: Sequence[str] = (), across: str = _METHOD, leaving_out: Sequence[str] = ()
) -> list[Cell]:
    """The cells of a sweep's folder; draws in which a method is missing are left out.

    Args:
        folder: folder of the sweep.
        stages: earlier tests of a method, whose answers count as those of methods of their own, under their names.
        across: swept key whose values are compared; methods make cells where it is another key.
        leaving_out: swept keys that make no cells, such as a rate that was chosen for each of the values.

    Raises:
        ConfigError: No draw is whole, no run has one of the stages, or two runs differ in nothing that is compared.
    """
    plan = read_json(folder / "plan.json")
    where = Path(plan["where"])
    rows: dict[tuple[tuple[str, str], ...], dict[int, dict[str, RunFolder]]] = {}
    for run in plan["runs"].values():
        point: dict[str, Any] = run["point"]
        if across not in point:
            raise ConfigError(f"--across {across}: {folder} sweeps {', '.join(point)}.")
        own = (_SEED, across, *leaving_out)
        rest = tuple((key, str(value)) for key, value in point.items() if key not in own)
        draw, done = rows.setdefault(rest, {}).setdefault(point[_SEED], {}), RunFolder(where / run["folder"])
        name = "null" if point[across] is None else str(point[across])
        if name in draw:
            raise ConfigError(
                f"{folder}: two runs of draw {point[_SEED]} with {across} {name} differ in "
                f"{' and '.join(leaving_out)} alone; name fewer keys with --leave_out."
            )
        draw[name] = done
        draw |= {stage: tested for stage in stages if (tested := _tested(done, stage)) is not None}
    if missing := [
        stage for stage in stages if not any(stage in draw for own in rows.values() for draw in own.values())
    ]:
        raise ConfigError(f"{folder}: no run has a test stage {missing[0]!r}; leave it out of --stages.")
    cells = [cell for rest, draws in rows.items() if (cell := _cell(folder.name, dict(rest), draws))]
    if not cells:
        raise ConfigError(f"{folder}: no draw has all of its runs yet; the sweep's command continues it.")
    return cells


def _cell_name(sweep: str, point: Mapping[str, Any]) -> str:
    """The name of the sweep and what else distinguishes a cell of it."""
    own = {key: value for key, value in point.items() if key not in (_SEED, _SHOTS)}
    return " ".join([sweep, *(f"{key.split('.')[-1]}={value}" for key, value in own.items())])


def _tested(run: RunFolder, stage: str) -> RunFolder | None:
    """The folder of an earlier test of a run, which holds figures and predictions as a run does."""
    folder = RunFolder(run.path / stage)
    return None if run.accuracy is None or folder.accuracy is None else folder


def _cell(sweep: str, rest: Mapping[str, str], draws: Mapping[int, Mapping[str, RunFolder]]) -> Cell | None:
    whole = {seed: found for seed, found in draws.items() if all(run.accuracy is not None for run in found.values())}
    if not whole:
        return None
    methods = list(next(iter(whole.values())))
    accuracies = {name: tuple(float(found[name].accuracy or 0.0) for found in whole.values()) for name in methods}
    ways = {
        name: tuple(_mean([found[name].metrics.get(key) for found in whole.values()]) for key in _WAYS.values())
        for name in methods
    }
    return Cell(_cell_name(sweep, rest), int(rest.get(_SHOTS, _DEFAULT_SHOTS)), accuracies, tuple(whole), ways)


def _mean(figures: Sequence[float | None]) -> float | None:
    known = [figure for figure in figures if figure is not None]
    return fmean(known) if len(known) == len(figures) else None


@dataclass(frozen=True)
class Answer:
    """An answer about a clip of a built-in domain.

    Args:
        shown: whether a labelled clip shows the clip's event.
        described: whether the rationale says what the labelled object does; False without a rationale.
        right: whether the class is right.
    """

    shown: bool
    described: bool
    right: bool


def answers_of(run: RunFolder, root: Path, predictions: Path | None = None) -> list[Answer]:
    """The answers of a run beside the truth in its data root; those of another file where one is named."""
    truth = {row["path"]: row for _, row in read_jsonl(root / "truth.jsonl")}
    labelled = (truth[name] for name in read_json(run.path / "splits.json")["train"])
    shown = {(row["label"], row["event"]) for row in labelled}
    answers = []
    for _, row in read_jsonl(predictions or run.predictions):
        clip = truth[row["id"]]
        doing = phrase(clip["objects"][0]["first"], clip["objects"][0]["second"])
        described = f" {doing} ." in (row.get("rationale") or "")
        answers.append(Answer((clip["label"], clip["event"]) in shown, described, row["label"] == row["predicted"]))
    return answers


def seen_events(folder: Path, stages: Sequence[str] = ()) -> str:
    """Markdown tables of built-in cells, one a cell: right answers by whether the event is shown, and described.

    Args:
        folder: folder of the sweep.
        stages: earlier tests of a method, each with a row of its own.

    Raises:
        ConfigError: No run is finished.
    """
    plan = read_json(folder / "plan.json")
    where = Path(plan["where"])
    cells: dict[str, dict[tuple[int, str], list[Answer]]] = {}
    for planned in plan["runs"].values():
        run = RunFolder(where / planned["folder"])
        if run.accuracy is not None:
            point, root = planned["point"], where / str(run.setting("data.root"))
            shots = point.get(_SHOTS, _DEFAULT_SHOTS)
            cell = _cell_name(folder.name, {key: value for key, value in point.items() if key != _METHOD})
            found = cells.setdefault(cell, {})
            found.setdefault((shots, point[_METHOD]), []).extend(answers_of(run, root))
            for stage in stages:
                if (tested := _tested(run, stage)) is not None:
                    found.setdefault((shots, stage), []).extend(answers_of(run, root, tested.predictions))
    if not cells:
        raise ConfigError(f"{folder}: no run is finished; the sweep's command continues it.")
    return "\n\n".join(_events_table(name, found) for name, found in cells.items())


def _events_table(name: str, found: Mapping[tuple[int, str], Sequence[Answer]]) -> str:
    head = ["labels", "method", "event shown", "event not shown", "described", "described and shown"]
    lines = [f"{name}, all finished runs", "", f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for (shots, method), answers in sorted(found.items()):
        described = [answer for answer in answers if answer.described]
        parts = (
            [a for a in answers if a.shown],
            [a for a in answers if not a.shown],
            [a for a in described if a.shown],
        )
        known, unknown, both = (
            f"{100 * fmean(a.right for a in own):.1f} of {len(own)}" if own else "" for own in parts
        )
        share = f"{100 * len(described) / len(answers):.1f}" if described else ""
        lines.append(f"| {shots} | `{method}` | {known} | {unknown} | {share} | {both} |")
    return "\n".join(lines)


def _words(interval: MeanInterval, sign: str = "") -> str:
    low, high = interval.low, interval.high
    ends = "" if low is None or high is None else f" ({100 * low:.1f} to {100 * high:.1f})"
    return f"{100 * interval.mean:{sign}.1f}{ends}"


def table(cell: Cell, minus: Sequence[str] = (), ways: bool = False) -> str:
    """A Markdown table: accuracy of each method, and its paired differences, Student's t.

    Args:
        cell: the cell.
        minus: methods that each of the others is compared with; without any the best control.
        ways: whether to tell the mean accuracy of both ways of answering, where runs report them.

    Raises:
        ConfigError: The cell has no method of a name in `minus`, or without one, no control.
    """
    others = list(minus) or [cell.best_control]
    if unknown := [name for name in others if name not in cell.accuracies]:
        raise ConfigError(f"--minus: {cell.name} has no {unknown[0]}; it has {', '.join(cell.accuracies)}.")
    head = ["method", "accuracy"]
    for other in others:
        head += [f"minus `{other}`", "draws above it"]
    head += list(_WAYS) if ways else []
    lines = [
        f"{cell.name}: {cell.shots} labelled clips a class, {len(cell.draws)} draws",
        "",
        f"| {' | '.join(head)} |",
        "|---" * len(head) + "|",
    ]
    for name, values in sorted(cell.accuracies.items(), key=lambda item: -fmean(item[1])):
        row = [f"`{name}`", _words(mean_interval(values))]
        for other in others:
            pairs = paired_difference(values, cell.accuracies[other])
            row += ["", ""] if name == other else [_words(pairs.difference, "+"), f"{pairs.wins} of {len(values)}"]
        if ways:
            row += ["" if way is None else f"{100 * way:.1f}" for way in cell.ways[name]]
        lines.append("|" + "|".join(f" {entry} " if entry else " " for entry in row) + "|")
    return "\n".join(lines)


def figure(cells: Sequence[Cell], methods: Sequence[str]) -> str:
    """Accuracy over labelled clips a class, a panel a cell that has several numbers of them, as SVG.

    Intervals are Student's t over draws.

    Raises:
        ConfigError: No cell has runs with several numbers of labelled clips.
    """
    names = [name for name, count in Counter(cell.name for cell in cells).items() if count > 1]
    if not names:
        raise ConfigError("--svg: no sweep has several values of data.shots; name one that has, or leave it out.")
    width, height, left = 220, 210, 40
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {left + width * len(names)} {height + 60}" '
        'font-family="sans-serif" font-size="11" role="img">',
        "<title>Accuracy over labelled clips a class</title>",
        '<rect width="100%" height="100%" fill="white"/>',
    ]
    for panel, name in enumerate(names):
        own = sorted((cell for cell in cells if cell.name == name), key=lambda cell: cell.shots)
        parts += _panel(own, methods, left + panel * width, width - 30, height - 30)
    for number, name in enumerate(methods):
        x = left + number * 160
        parts.append(f'<circle cx="{x}" cy="{height + 40}" r="4" fill="{_COLOURS[number]}"/>')
        parts.append(f'<text x="{x + 8}" y="{height + 44}">{name}</text>')
    return "\n".join([*parts, "</svg>", ""])


def _panel(cells: Sequence[Cell], methods: Sequence[str], left: float, width: float, height: float) -> list[str]:
    places = {cell.shots: left + width * (0.15 + 0.7 * i / max(1, len(cells) - 1)) for i, cell in enumerate(cells)}
    title = cells[0].name.split()[0].removeprefix("equal_")
    parts = [f'<text x="{left + width / 2}" y="14" text-anchor="middle">{title}</text>']
    for fifth in range(6):
        y = 24 + height * (1 - fifth / 5)
        parts.append(f'<line x1="{left}" x2="{left + width}" y1="{y:.1f}" y2="{y:.1f}" stroke="#ddd"/>')
        parts.append(f'<text x="{left - 4}" y="{y + 4:.1f}" text-anchor="end">{20 * fifth}</text>')
    parts += [f'<text x="{x:.1f}" y="{height + 40}" text-anchor="middle">{n}</text>' for n, x in places.items()]
    for number, name in enumerate(methods):
        shift, colour = 3.0 * (number - len(methods) / 2), _COLOURS[number]
        spots = [
            (places[cell.shots] + shift, mean_interval(cell.accuracies[name]))
            for cell in cells
            if name in cell.accuracies
        ]
        line = " ".join(f"{x:.1f},{24 + height * (1 - found.mean):.1f}" for x, found in spots)
        parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
        for x, found in spots:
            y = 24 + height * (1 - found.mean)
            if found.low is not None and found.high is not None:
                low, high = (24 + height * (1 - min(1.0, max(0.0, end))) for end in (found.low, found.high))
                parts.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{low:.1f}" y2="{high:.1f}" stroke="{colour}"/>')
            parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{colour}"/>')
    return parts


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tools.equal_labels", description=__doc__)
    parser.add_argument("sweeps", type=Path, nargs="+", help="folders of sweeps, such as runs/sweeps/equal_unions")
    parser.add_argument(
        "--events", action="store_true", help="of built-in cells: answers by whether the event is shown and described"
    )
    parser.add_argument(
        "--stages",
        nargs="+",
        default=[],
        help="earlier tests of a method, with a row each, such as the one whose answers it mixes",
    )
    parser.add_argument(
        "--minus", nargs="+", default=[], metavar="METHOD", help="compare with these in place of the best control"
    )
    parser.add_argument("--across", default=_METHOD, metavar="KEY", help="compare the values of this swept key")
    parser.add_argument(
        "--leave_out",
        nargs="+",
        default=[],
        metavar="KEY",
        help="swept keys that make no table of their own, such as a rate that was chosen for each method",
    )
    parser.add_argument("--ways", action="store_true", help="tell both ways of answering, too")
    parser.add_argument("--svg", type=Path, help="write the figure here, too")
    parser.add_argument(
        "--methods",
        nargs="+",
        default=["rationale_only_upper", "caption_probe", "sft_upper", "sft"],
        help="methods of the figure",
    )
    args = parser.parse_args()
    if args.events:
        print("\n\n".join(seen_events(folder, args.stages) for folder in args.sweeps))
        return
    cells = [cell for folder in args.sweeps for cell in cells_of(folder, args.stages, args.across, args.leave_out)]
    print("\n\n".join(table(cell, args.minus, args.ways) for cell in cells))
    if args.svg is not None:
        args.svg.write_text(figure(cells, args.methods))


if __name__ == "__main__":
    main()
