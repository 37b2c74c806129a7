"""Trying some values of a grid in place of all: which run comes next is suggested by the ones before (Optuna)."""

from __future__ import annotations

import importlib.util
import math
import random
import warnings
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

from rbft.errors import ConfigError
from rbft.evaluation.comparison import key_of
from rbft.evaluation.model_selection import validation_score, without
from rbft.sweep.grid import Run, Sweep
from rbft.sweep.progress import Progress
from rbft.sweep.summary import member_of

_GOOD = 4
"""Of so many runs one counts as good. Optuna's own is one in ten, and with a few runs suggests hardly better than
chance."""
_ASKED = 30
"""How often a suggestion is asked for that is not one of those before; after that an untried one is drawn."""


class Search:
    """Which runs of a sweep are tried.

    Of the runs that differ in the sweep's `choose` keys alone, a number is tried, one after another. The first third
    is drawn at random, the others are suggested by a tree-structured Parzen estimator (Bergstra et al. 2011; Optuna,
    Akiba et al. 2019) from the validation videos of those before. The same results give the same suggestions, so that
    a sweep that was stopped goes on as it would have.

    Args:
        sweep: the sweep.
        trials: number of runs to try of each set.

    Raises:
        ConfigError: Optuna is not installed, there is nothing to choose, or too few trials.
    """

    def __init__(self, sweep: Sweep, trials: int) -> None:
        if trials < 2:
            raise ConfigError(f"--search {trials}: at least 2 runs are needed to choose from.")
        if not sweep.choose:
            raise ConfigError("--search: there is nothing to search; name swept keys with their values under `choose`.")
        if importlib.util.find_spec("optuna") is None:
            raise ConfigError("--search: needs Optuna; install it with `pip install 'rbft[search]'`.")
        self.sweep, self.trials = sweep, trials
        self._rivals: dict[str, list[Run]] = {}
        for run in sweep.runs:
            self._rivals.setdefault(key_of(without(run.point, sweep.choose)), []).append(run)
        self._known: dict[tuple[str, ...], str] = {}

    @property
    def runs(self) -> int:
        """Number of runs that will be tried."""
        return sum(min(self.trials, len(rivals)) for rivals in self._rivals.values())

    def allowed(self, progress: Mapping[str, Progress]) -> set[str]:
        """Ids of the runs that may be started now: those that were begun, and of each set the one suggested next.

        Raises:
            DataError: A finished run was not scored on validation videos.
        """
        names: set[str] = set()
        for key, rivals in self._rivals.items():
            tried = [run for run in rivals if was_tried(progress[run.id])]
            names |= {run.id for run in tried}
            open_ = [run for run in tried if progress[run.id].state in ("running", "waiting")]
            if not open_ and len(tried) < min(self.trials, len(rivals)):
                names.add(self._next(key, rivals, [progress[run.id] for run in tried]))
        return names

    def _next(self, key: str, rivals: Sequence[Run], tried: Sequence[Progress]) -> str:
        known = (key, *(f"{entry.run.id} {entry.state}" for entry in tried))
        if known not in self._known:
            self._known[known] = self._suggest(key, rivals, tried)
        return self._known[known]

    def _suggest(self, key: str, rivals: Sequence[Run], tried: Sequence[Progress]) -> str:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        values = {name: _ordered([run.point.get(name) for run in rivals]) for name in self.sweep.choose}
        space: dict[str, optuna.distributions.BaseDistribution] = {
            name: optuna.distributions.IntDistribution(0, len(known) - 1)
            if _are_numbers(known)
            else optuna.distributions.CategoricalDistribution(range(len(known)))
            for name, known in values.items()
            if len(known) > 1
        }
        seed = zlib.crc32(f"{key} {len(tried)}".encode())
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # `gamma` goes with Optuna 6, which setup.cfg leaves out
            sampler = optuna.samplers.TPESampler(
                seed=seed, n_startup_trials=max(2, self.trials // 3), gamma=lambda count: math.ceil(count / _GOOD)
            )
        study = optuna.create_study(direction="maximize", sampler=sampler)

        def places(run: Run) -> dict[str, int]:
            return {name: values[name].index(run.point.get(name)) for name in space}

        for entry in tried:
            if entry.state == "finished":
                score = validation_score(member_of(entry, self.sweep.choose))
                study.add_trial(optuna.trial.create_trial(params=places(entry.run), distributions=space, value=score))
        left = {key_of(places(run)): run.id for run in rivals if run.id not in {entry.run.id for entry in tried}}
        for _ in range(_ASKED):
            if (name := left.get(key_of(study.ask(space).params))) is not None:
                return name
        return random.Random(seed).choice(sorted(left.values()))


def was_tried(progress: Progress) -> bool:
    """Whether a run was begun, now or earlier, with the settings that it has."""
    record = progress.record
    return progress.state != "waiting" or (record is not None and record.settings == progress.run.settings)


def _are_numbers(values: Sequence[Any]) -> bool:
    return all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values)


def _ordered(values: Sequence[Any]) -> list[Any]:
    """Different values, numbers by size."""
    different: list[Any] = []
    for value in values:
        if value not in different:
            different.append(value)
    return sorted(different) if _are_numbers(different) else different
