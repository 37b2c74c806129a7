"""Workers as Slurm jobs, by submitit, or as tasks of a Ray cluster; both need the extra of their name."""

from __future__ import annotations

import contextlib
import importlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rbft.errors import ConfigError
from rbft.sweep.options import Job, LaunchOptions

_SAVE_SECONDS = 75
# submitit announces the end of a job's time so long before it
_NOTICE_SECONDS = 120


def _extra(module: str, extra: str) -> Any:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"launch.launcher: {extra} needs the package {module}, which is not installed: pip install 'rbft[{extra}]'."
        ) from error


class WorkerCall:
    """A worker as what submitit pickles and calls; interrupted by Slurm, it saves its run and is queued again.

    Args:
        command: command of the worker.
    """

    def __init__(self, command: Sequence[str]) -> None:
        self.command = list(command)
        self._process: subprocess.Popen[bytes] | None = None

    def __call__(self) -> int:
        """Carry it out."""
        self._process = subprocess.Popen(self.command, stdin=subprocess.DEVNULL)
        # not wait(): it keeps a lock, and `checkpoint` waits too, inside a signal handler on top of this
        while (code := self._process.poll()) is None:
            time.sleep(0.2)
        return code

    def checkpoint(self) -> Any:
        """Called by submitit before a job is preempted or its time is over."""
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(_SAVE_SECONDS)
            except subprocess.TimeoutExpired:
                # what was saved last is where it goes on; its lock must be free by then
                self._process.kill()
        return _extra("submitit.helpers", "slurm").DelayedSubmission(WorkerCall(self.command))


class _SlurmJob:
    def __init__(self, job: Any) -> None:
        self.job = job

    def done(self) -> bool:
        return bool(self.job.done())

    def reason(self) -> str:
        return f"Slurm job {self.job.job_id}, {self.job.state}, see {self.job.paths.stderr}"

    def cancel(self) -> bool:
        if self.job.state != "PENDING":
            return False
        self.job.cancel()
        return True


class SlurmLauncher:
    """A Slurm job for each worker.

    Raises:
        ConfigError: submitit is not installed, or this machine cannot submit jobs.
    """

    poll = 2.0
    tied = False

    def __init__(self, options: LaunchOptions, folder: Path, runs: int) -> None:
        submitit, slurm = _extra("submitit", "slurm"), options.slurm
        if slurm.cluster == "slurm" and shutil.which("sbatch") is None:
            raise ConfigError(
                "launch.launcher: slurm: there is no sbatch on this machine; start the sweep where jobs "
                "are submitted, or rehearse it here with launch.slurm.cluster: local."
            )
        self.slots = options.slots or runs
        self._what = f"{slurm.cluster} jobs"
        if slurm.cluster == "local":
            self.poll = 0.2
        self._executor = submitit.AutoExecutor(folder / "slurm", cluster=slurm.cluster)
        asked = {
            "slurm_partition": slurm.partition,
            "slurm_account": slurm.account,
            "slurm_qos": slurm.qos,
            "slurm_constraint": slurm.constraint,
            "mem_gb": slurm.memory_gb,
            "cpus_per_task": options.cores,
            # submitit's own processes start with `python -m`, and Slurm need not hand the environment on
            "slurm_setup": ["export PYTHONSAFEPATH=1", *slurm.setup],
        }
        self._executor.update_parameters(
            name=f"rbft-{folder.name}",
            timeout_min=slurm.minutes,
            nodes=1,
            tasks_per_node=1,
            gpus_per_node=options.gpus or 0,
            slurm_signal_delay_s=_NOTICE_SECONDS,
            **{key: value for key, value in asked.items() if value is not None},
        )

    def start(self, command: Sequence[str], slot: int) -> Job:
        """Submit a worker."""
        return _SlurmJob(self._executor.submit(WorkerCall(command)))

    def describe(self) -> str:
        """How many jobs."""
        return f"{self._what}, {self.slots} at once"


def _call(command: Sequence[str]) -> int:
    """A worker as a Ray task."""
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
    try:
        return process.wait()
    except KeyboardInterrupt:  # how Ray cancels a task
        process.terminate()
        process.wait()
        raise


class _RayJob:
    def __init__(self, ray: Any, task: Any) -> None:
        self.ray, self.task = ray, task

    def done(self) -> bool:
        return bool(self.ray.wait([self.task], timeout=0)[0])

    def reason(self) -> str:
        try:
            return f"exit code {self.ray.get(self.task)}"
        except self.ray.exceptions.RayError as error:
            return f"Ray: {type(error).__name__}"

    def cancel(self) -> bool:
        self.ray.cancel(self.task)
        return True


class RayLauncher:
    """A Ray task with its own GPUs and cores for each worker.

    Raises:
        ConfigError: Ray is not installed or its cluster cannot be reached.
    """

    poll = 0.5
    tied = False

    def __init__(self, options: LaunchOptions, folder: Path, runs: int) -> None:
        self._ray = _extra("ray", "ray")
        self.slots = options.slots or runs
        address = options.ray_address or os.environ.get("RAY_ADDRESS")
        # the current folder goes to the head of the path of Ray's workers: it must be one that holds no Python files
        empty = folder / "ray"
        empty.mkdir(parents=True, exist_ok=True)
        try:
            with contextlib.chdir(empty):
                self._ray.init(
                    address=address,
                    include_dashboard=False if address is None else None,
                    log_to_driver=False,
                    configure_logging=False,
                )
        except (ConnectionError, RuntimeError, ValueError, self._ray.exceptions.RayError) as error:
            raise ConfigError(f"launch.ray_address: {address}: {error}") from error
        self._where = address or "this machine"
        # a run that dies is counted and tried again by the driver
        self._task = self._ray.remote(
            num_cpus=options.cores or 1, num_gpus=options.gpus or 0, max_retries=0, max_calls=1
        )(_call)

    def start(self, command: Sequence[str], slot: int) -> Job:
        """Queue a worker."""
        return _RayJob(self._ray, self._task.remote(list(command)))

    def describe(self) -> str:
        """Which cluster, and how many tasks."""
        return f"Ray on {self._where}, {self.slots} at once"
