"""Methods beside each other over the same draws, within a budget: the runs of `rbft compare`."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rbft.errors import ConfigError
from rbft.evaluation.statistics import FEWEST_RUNS
from rbft.experiment import Experiment, lay_over, make_parser, nearest, read_experiment, require_known_keys
from rbft.sweep.grid import Point, Sweep, processes_of, read_content, run_at, short_names
from rbft.sweep.options import read_options

USUAL = ("sft", "rbft", "zero_shot", "probe", "caption_probe", "rationale_only")
"""Methods that are compared unless others are asked for; where a budget is short, the last are left out first."""
_ENCODER = "encoder_probe"
DRAWS = 5
RATE = "model.optim.lr"
_RATE = 1e-4  # the default of the setting
_FACTORS = (0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0)
_OWN = ("method", "variant", "seed_everything", "data.draw")
_NOT_OF_ALL = ("--stage", "--restart", "--profile", "--wait")
# runs of one process that share a worker and its imports
_PER_PROCESS = 4


@dataclass(frozen=True)
class Comparison:
    """What one `rbft compare` has to do.

    Args:
        sweep: runs, draw by draw, so that a budget that ends early leaves whole draws.
        methods: methods that are compared, the baseline first.
        draws: number of draws.
        left_out: methods that the budget has no runs for.
        unusable: methods whose runs cannot predict.
        experiments: first run of each method, as an experiment.
        each: runs that each method takes of a draw.
    """

    sweep: Sweep
    methods: tuple[str, ...]
    draws: int
    left_out: tuple[str, ...]
    unusable: tuple[str, ...]
    experiments: Mapping[str, Experiment]
    each: Mapping[str, int]


def make_comparison(
    args: Sequence[str],
    launch: Mapping[str, Any],
    *,
    methods: Sequence[str] = (),
    baseline: str | None = None,
    draws: int | None = None,
    runs: int | None = None,
    search: int | None = None,
) -> Comparison:
    """Plan a comparison.

    Args:
        args: experiment files and further flags, as on the command line of `rbft fit`.
        launch: settings of how runs are launched.
        methods: methods to compare; empty for the usual ones that the experiment has stages for, and those of its own
            that train nothing.
        baseline: method that others are compared with; None for `sft` where it is compared, else the first.
        draws: number of draws; None for as many as the budget allows, or 5.
        runs: most runs; None for no limit.
        search: number of learning rates to try for each method that trains, and each draw; None for the file's own.

    Raises:
        ConfigError: A method or flag is unknown or cannot be compared, or the budget allows no comparison.
    """
    parsed, flags = make_parser("rbft compare").parse_known_args(list(args))
    _check_flags(args, flags)
    known = _known(args, parsed.config, methods)
    wanted = list(dict.fromkeys(methods)) or list(known)
    if baseline is not None and baseline not in wanted:
        raise ConfigError(f"--baseline {baseline}: it is not compared; {nearest(baseline, wanted)}")
    first = baseline or ("sft" if "sft" in wanted else wanted[0])
    wanted = [first, *(name for name in wanted if name != first)]
    if len(wanted) < 2:
        raise ConfigError(f"there is nothing to compare {first} with; say two or more --methods.")
    trains = {name for name in wanted if any(stage.trains for stage in known[name].stages)}
    each = {name: search if search is not None and name in trains else 1 for name in wanted}
    chosen, count = _within(each, draws, runs)
    content: dict[str, Any] = {}
    for path in parsed.config:
        content = lay_over(content, read_content(path))
    tuned = [{RATE: rate} for rate in _rates(content, flags)] if search is not None else []
    points: list[Point] = [
        {"data.draw": draw, "seed_everything": draw, "method": method, **rate}
        for draw in range(count)
        for method in chosen
        for rate in (tuned if method in trains and tuned else [{}])
    ]
    names = short_names({key for point in points for key in point})
    all_runs = tuple(run_at(args, None, content, point, names) for point in points)
    processes = max(processes_of(content, run.args) for run in all_runs)
    sharing = {"per_process": _PER_PROCESS} if processes == 1 and (launch.get("gpus") or 0) <= 1 else {}
    experiments = {name: known[name] for name in chosen}
    name = f"compare-{experiments[first].name}"
    return Comparison(
        sweep=Sweep(
            name=name,
            folder=all_runs[0].folder.parents[2] / "sweeps" / name,
            runs=all_runs,
            baseline={"method": first},
            replicates=("data.draw", "seed_everything"),
            choose=(RATE,) if tuned else (),
            launch=read_options("rbft compare", sharing, launch),
            processes=processes,
        ),
        methods=tuple(chosen),
        draws=count,
        left_out=tuple(wanted[len(chosen) :]),
        unusable=tuple(name for name in chosen if not any(stage.kind == "test" for stage in known[name].stages)),
        experiments=experiments,
        each=each,
    )


def _check_flags(args: Sequence[str], flags: Sequence[str]) -> None:
    for flag in args:
        if flag.split("=")[0] in _NOT_OF_ALL:
            raise ConfigError(f"{flag}: it is of one run; give it to `rbft fit` with the run that it is about.")
    given = {flag.removeprefix("--").split("=", 1)[0] for flag in flags if flag.startswith("--")}
    require_known_keys(sorted(given))
    if own := sorted(given & set(_OWN)):
        instead = {"method": "--methods NAME,NAME", "variant": "--experiment NAME"}.get(own[0], "--draws N")
        raise ConfigError(f"--{own[0]}: a comparison sets it by itself; say {instead}.")


def _known(args: Sequence[str], files: Sequence[str], asked: Sequence[str]) -> dict[str, Experiment]:
    """The methods to compare, each with its experiment."""
    if asked:
        return {name: read_experiment([*args, "--method", name]) for name in dict.fromkeys(asked)}
    known: dict[str, Experiment] = {}
    refused: ConfigError | None = None
    own = [str(name) for path in files for name in (read_content(path) or {}).get("methods") or ()]
    beside = [_ENCODER] if _names_encoder(args, files) else []
    for name in dict.fromkeys([*USUAL, *beside, *own]):
        try:
            experiment = read_experiment([*args, "--method", name])
        except ConfigError as error:
            # the file has not the stages of every method
            refused = error
            continue
        if name in USUAL or not any(stage.trains for stage in experiment.stages):
            known[name] = experiment
    if not known and refused is not None:
        raise refused
    # controls that train nothing before the method whose training is doubled by them all
    return dict(sorted(known.items(), key=lambda item: item[0] == USUAL[-1]))


def _names_encoder(args: Sequence[str], files: Sequence[str]) -> bool:
    """Whether a file or a flag names the video encoder that a control needs."""
    said = any(flag.split("=", 1)[0].endswith("model.encoder.folder") for flag in args)
    places = (("model",), ("stages", _ENCODER, "model"))
    return said or any(
        _inside(read_content(path), *place, "encoder", "folder") is not None for path in files for place in places
    )


def _inside(content: Any, *keys: str) -> Any:
    """What stands under keys of nested mappings; None where there is nothing."""
    for key in keys:
        content = content.get(key) if isinstance(content, Mapping) else None
    return content


def _rates(content: Mapping[str, Any], flags: Sequence[str]) -> list[float]:
    """Learning rates around the experiment's own: a tenth to ten times as much."""
    said = [flag.split("=", 1)[-1] for flag in flags if flag.startswith(f"--{RATE}=")]
    said += [value for flag, value in itertools.pairwise(flags) if flag == f"--{RATE}"]
    model = content.get("model")
    own = model.get("optim") if isinstance(model, Mapping) else None
    value = said[-1] if said else own.get("lr", _RATE) if isinstance(own, Mapping) else _RATE
    try:
        rate = float(value)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"--search: {RATE}: {value!r} is no number to search around.") from error
    return [float(f"{rate * factor:.2g}") for factor in _FACTORS]


def _within(methods: Mapping[str, int], draws: int | None, runs: int | None) -> tuple[list[str], int]:
    """Methods and draws that a number of runs suffices for: draws come before methods, down to two methods.

    Args:
        methods: runs that each method takes of a draw.
        draws: number of draws that was asked for.
        runs: most runs.
    """
    if draws is not None and draws < 1:
        raise ConfigError(f"--draws {draws}: at least 1, and {FEWEST_RUNS} to show anything.")
    if runs is None:
        return list(methods), draws or DRAWS
    if runs < 2:
        raise ConfigError(f"--runs {runs}: two methods need at least 2 runs, and {2 * FEWEST_RUNS} to show anything.")
    kept = list(methods)
    least = min(draws or FEWEST_RUNS, FEWEST_RUNS)
    while len(kept) > 2 and sum(methods[name] for name in kept) * least > runs:
        kept.pop()
    needed = sum(methods[name] for name in kept)
    if needed > runs:
        raise ConfigError(f"--runs {runs}: one draw of {', '.join(kept)} takes {needed} runs with --search.")
    possible = runs // needed
    return kept, possible if draws is None else min(draws, possible)
