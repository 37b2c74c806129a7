"""Where the runs of a sweep go and how many at once: the `launch:` section of a sweep file."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from rbft.errors import ConfigError
from rbft.experiment import nearest

LAUNCHERS = ("local", "slurm", "ray")


@dataclass(frozen=True)
class SlurmOptions:
    """Settings of a Slurm job.

    Args:
        cluster: `slurm`, or `local` to run submitit's jobs on this machine, as a rehearsal.
        partition: partition that jobs queue in.
        account: account that jobs are charged to.
        qos: quality of service.
        constraint: required node features.
        minutes: time limit of a job; a job that reaches it is saved, queued again and continued.
        memory_gb: memory of a job.
        setup: shell lines to run before a job, for example to load a module.
    """

    cluster: str = "slurm"
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    minutes: int = 1440
    memory_gb: float | None = None
    setup: tuple[str, ...] = ()


@dataclass(frozen=True)
class LaunchOptions:
    """How runs are launched.

    Args:
        launcher: `local`: processes of this machine; `slurm`: jobs; `ray`: tasks of a Ray cluster.
        slots: number of runs at once; None: on this machine as many as there are GPUs for (1 without), elsewhere all.
        gpus: number of GPUs of each run; None: 1 where this machine has any, else 0.
        cores: number of CPU cores of each run; None: on a machine without GPUs its share, else not limited.
        per_process: number of runs that share one worker process, and with it the time that imports take.
        retries: number of times a run that crashed is tried again.
        ray_address: address of the Ray cluster; None: the one in RAY_ADDRESS, else a new cluster on this machine.
        slurm: settings of a Slurm job.
    """

    launcher: str = "local"
    slots: int | None = None
    gpus: int | None = None
    cores: int | None = None
    per_process: int = 1
    retries: int = 2
    ray_address: str | None = None
    slurm: SlurmOptions = field(default_factory=SlurmOptions)

    def __post_init__(self) -> None:
        if self.launcher not in LAUNCHERS:
            raise ConfigError(f"launch.launcher: {self.launcher!r} is unknown; {nearest(self.launcher, LAUNCHERS)}")
        for key, least in (("slots", 1), ("gpus", 0), ("cores", 1), ("per_process", 1), ("retries", 0)):
            value = getattr(self, key)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < least):
                raise ConfigError(f"launch.{key}: {value!r} must be a whole number of at least {least}.")


class Job(Protocol):
    """A worker that was requested."""

    def done(self) -> bool:
        """Whether it has ended, or will never start."""
        ...

    def reason(self) -> str:
        """How it ended, for a worker that left no record."""
        ...

    def cancel(self) -> bool:
        """Take it back if it has not started; whether that was so."""
        ...


class Launcher(Protocol):
    """Starts workers.

    Args:
        slots: number of workers at once.
        poll: seconds between two checks of their state.
        tied: whether a worker begins no other run once its driver is gone.
    """

    slots: int
    poll: float
    tied: bool

    def start(self, command: Sequence[str], slot: int) -> Job:
        """Start a worker in a free slot."""
        ...

    def describe(self) -> str:
        """Where runs go, in a few words."""
        ...


def read_options(path: str, section: Mapping[str, Any], flags: Mapping[str, Any]) -> LaunchOptions:
    """The `launch:` section with the command line's settings over it.

    Raises:
        ConfigError: A key is unknown or a value of the wrong kind.
    """
    values = {**section, **flags}
    slurm = values.pop("slurm", None) or {}
    for where, content, cls in (("launch", values, LaunchOptions), ("launch.slurm", slurm, SlurmOptions)):
        known = [field.name for field in dataclasses.fields(cls)]
        if not isinstance(content, dict):
            raise ConfigError(f"{path}: {where} must hold keys and values, found {type(content).__name__}.")
        if unknown := sorted(str(key) for key in content if key not in known):
            raise ConfigError(f"{path}: unknown key {where}.{unknown[0]}; {nearest(unknown[0], known)}")
    setup = slurm.get("setup", [])
    if not isinstance(setup, list) or not all(isinstance(line, str) for line in setup):
        raise ConfigError(f"{path}: launch.slurm.setup must be a list of shell lines, found {setup!r}.")
    options = SlurmOptions(**{**slurm, "setup": tuple(setup)})
    if options.cluster not in ("slurm", "local"):
        raise ConfigError(f"{path}: launch.slurm.cluster: {options.cluster!r} must be slurm or local.")
    if isinstance(options.minutes, bool) or not isinstance(options.minutes, int) or options.minutes < 1:
        raise ConfigError(f"{path}: launch.slurm.minutes: {options.minutes!r} must be a whole number of at least 1.")
    return LaunchOptions(**values, slurm=options)
