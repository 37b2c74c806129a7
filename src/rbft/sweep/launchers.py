"""Starting workers: as processes of this machine, each in a slot of GPUs or CPU cores, or on a cluster."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from rbft.errors import ConfigError
from rbft.sweep.options import Job, Launcher, LaunchOptions


def make_launcher(options: LaunchOptions, folder: Path, runs: int) -> Launcher:
    """The launcher that a sweep asks for.

    Args:
        options: `launch:` section of the sweep file.
        folder: the sweep's folder.
        runs: number of runs.

    Raises:
        ConfigError: This machine lacks what is asked for, or an extra is not installed.
    """
    if options.launcher == "local":
        return LocalLauncher(options, folder, runs)
    from rbft.sweep.clusters import RayLauncher, SlurmLauncher

    return SlurmLauncher(options, folder, runs) if options.launcher == "slurm" else RayLauncher(options, folder, runs)


def visible_gpus() -> list[str]:
    """The GPUs of this machine that may be used, as CUDA_VISIBLE_DEVICES names them."""
    if (named := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return [name for name in named.split(",") if name.strip() and not name.strip().startswith("-")]  # -1: none
    if shutil.which("nvidia-smi") is None:
        return []
    answer = subprocess.run(
        ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"], capture_output=True, text=True, check=False
    )
    return answer.stdout.split() if answer.returncode == 0 else []


def visible_cores() -> list[int]:
    """The CPU cores this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


class _LocalJob:
    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self.process, self.log = process, log

    def done(self) -> bool:
        return self.process.poll() is not None

    def reason(self) -> str:
        return f"exit code {self.process.returncode}, see {self.log}"

    def cancel(self) -> bool:
        return False


class LocalLauncher:
    """Workers as processes of this machine.

    A slot is a fixed set of GPUs, named by CUDA_VISIBLE_DEVICES, or of CPU cores, by affinity (where the system has it)
    and OMP_NUM_THREADS.

    Raises:
        ConfigError: More is asked for than there is.
    """

    poll = 0.2
    tied = True

    def __init__(self, options: LaunchOptions, folder: Path, runs: int) -> None:
        gpus, cores = visible_gpus(), visible_cores()
        each = options.gpus if options.gpus is not None else min(1, len(gpus))
        if each > len(gpus):
            raise ConfigError(f"launch.gpus: {each} a run, and this machine shows {len(gpus)}. Lower it with --gpus.")
        possible = len(gpus) // each if each else 1
        self.slots = min(options.slots or possible, runs)
        if each and self.slots > possible:
            raise ConfigError(
                f"launch.slots: {self.slots} runs of {each} GPU(s) need {self.slots * each}, and this "
                f"machine shows {len(gpus)}. Lower it with --slots."
            )
        share = options.cores or (None if each else max(1, len(cores) // self.slots))
        if share is not None and share * self.slots > len(cores):
            raise ConfigError(
                f"launch.slots: {self.slots} runs of {share} core(s) need {share * self.slots}, and this "
                f"machine has {len(cores)}. Lower --slots or --cores."
            )
        self._gpus = [gpus[slot * each : (slot + 1) * each] for slot in range(self.slots)]
        self._cores = [cores[slot * share : (slot + 1) * share] if share else [] for slot in range(self.slots)]
        self._log = folder / "logs" / "workers.log"

    def start(self, command: Sequence[str], slot: int) -> Job:
        """Start a worker with the GPUs and cores of a slot, in a session of its own: Ctrl-C is passed on, once."""
        environment = dict(os.environ)
        if self._gpus[slot]:
            environment["CUDA_VISIBLE_DEVICES"] = ",".join(self._gpus[slot])
        extra: list[str] = []
        if cores := self._cores[slot]:
            environment["OMP_NUM_THREADS"] = str(len(cores))
            extra = ["--cpus", ",".join(map(str, cores))]
        self._log.parent.mkdir(parents=True, exist_ok=True)
        with self._log.open("ab") as log:
            process = subprocess.Popen(
                [*command, *extra],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        return _LocalJob(process, self._log)

    def describe(self) -> str:
        """Slots and what each has."""
        parts = ([f"{len(self._gpus[0])} GPU(s)"] if self._gpus[0] else []) + (
            [f"{len(self._cores[0])} core(s)"] if self._cores[0] else []
        )
        return f"this machine, {self.slots} at once, {' and '.join(parts)} each"
