"""Runs of `rbft fit` in processes that are cheap to start and to kill, and what they did until then."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L

# forked from a process that has imported everything, a run starts in a second instead of ten
_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload(["rbft.__main__", "rbft.pipeline.run", "tests.support.killed"])
ALLOW = ("--allow-class", "tests.support.killed.StepLog", "--allow-class", "tests.support.killed.SpoilLoss")
Hook = Callable[[], None]


class StepLog(L.Callback):
    """Writes a line for each micro-batch that begins and ends.

    Args:
        path: Of the log.
    """

    def __init__(self, path: str) -> None:
        self.path = path

    def _write(self, what: str, trainer: L.Trainer, batch: Any, index: int) -> None:
        line = {
            "what": what,
            "stage": Path(trainer.default_root_dir).name,
            "rank": trainer.global_rank,
            "pid": os.getpid(),
            "epoch": trainer.current_epoch,
            "index": index,
            "rows": list(batch.indices),
            "weights": batch.weights.tolist(),
        }
        handle = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.write(handle, json.dumps(line).encode() + b"\n")
        os.close(handle)

    def on_train_batch_start(self, trainer: L.Trainer, module: Any, batch: Any, index: int) -> None:
        self._write("begin", trainer, batch, index)

    def on_train_batch_end(self, trainer: L.Trainer, module: Any, outputs: Any, batch: Any, index: int) -> None:
        self._write("end", trainer, batch, index)


def logged(log: Path, stage: str, what: str, rank: int = 0) -> list[dict[str, Any]]:
    """What a log holds of a stage on a rank, in order."""
    lines = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    return [line for line in lines if (line["stage"], line["what"], line["rank"]) == (stage, what, rank)]


def step_log(path: Path) -> dict[str, Any]:
    """The part of an experiment file that names `StepLog`."""
    return {
        "trainer": {"callbacks": [{"class_path": "tests.support.killed.StepLog", "init_args": {"path": str(path)}}]}
    }


def _run(args: Sequence[str], environment: dict[str, str], out: Path, hook: Hook | None) -> None:
    # a child takes over how it was started, and its loaders would start their processes so
    multiprocessing.set_start_method("fork", force=True)
    os.environ.update(environment)
    handle = os.open(out, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    from rbft.__main__ import main

    if hook is not None:
        hook()
    sys.exit(main(["fit", *args, *ALLOW]))


@dataclass(frozen=True)
class Command:
    """`rbft fit` that can be given over and over.

    Args:
        args: Its arguments.
        out: Takes what all its processes say.
        ranks: Processes that run it together.
    """

    args: tuple[str, ...]
    out: Path
    ranks: int = 1

    @contextmanager
    def running(self, hook: Hook | None = None) -> Iterator[list[Any]]:
        """The processes of one run; killed after the block if they still live."""
        together: dict[str, str] = {}
        if self.ranks > 1:
            together = {
                "WORLD_SIZE": str(self.ranks),
                "NODE_RANK": "0",
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": str(_free_port()),
            }
        processes = []
        for rank in range(self.ranks):
            environment = {**_own_environment(), **together, **({"LOCAL_RANK": str(rank)} if together else {})}
            process = _SERVER.Process(target=_run, args=(self.args, environment, self.out, hook))
            process.start()
            processes.append(process)
        try:
            yield processes
        finally:
            for process in processes:
                if process.is_alive():
                    os.kill(process.pid, signal.SIGKILL)
            for process in processes:
                process.join(60)

    def to_its_end(self, hook: Hook | None = None, seconds: float = 240) -> list[int]:
        """Exit codes of all its processes."""
        with self.running(hook) as processes:
            deadline = time.monotonic() + seconds
            for process in processes:
                process.join(max(0.1, deadline - time.monotonic()))
            return [process.exitcode for process in processes]

    def killed_when(self, begun: Callable[[], bool], delay: float, seconds: float = 240) -> bool:
        """Kill a run so long after something; returns whether it still ran."""
        with self.running() as processes:
            deadline = time.monotonic() + seconds
            while not begun():
                assert time.monotonic() < deadline, self.out.read_text()[-2000:]
                if not any(process.is_alive() for process in processes):
                    return False
                time.sleep(0.002)
            time.sleep(delay)
            alive = [process for process in processes if process.is_alive()]
            for process in alive:
                os.kill(process.pid, signal.SIGKILL)
            for process in processes:
                process.join(60)
            return len(alive) > 0 and -signal.SIGKILL in {process.exitcode for process in processes}


def _own_environment() -> dict[str, str]:
    """The server was started under an environment of its own time."""
    return {name: os.environ[name] for name in ("RBFT_CACHE", "HF_HUB_OFFLINE", "OMP_NUM_THREADS")}


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


class KillRank(L.Callback):
    """Kills one process of a run after its first training batch; another waits, as in a collective without an end.

    Args:
        rank: Of the process.
        waits: Rank of the one that does nothing any more; -1 for none.
        marker: File made when it happens; while it exists, nothing does.
    """

    def __init__(self, rank: int, waits: int, marker: str) -> None:
        self.rank, self.waits, self.marker = rank, waits, Path(marker)

    def setup(self, trainer: L.Trainer, module: Any, stage: str) -> None:
        self._armed = not self.marker.exists()

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        if self._armed and trainer.global_rank == self.rank:
            self.marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        while self._armed and trainer.global_rank == self.waits:
            time.sleep(0.1)


class SpoilLoss(L.Callback):
    """The loss of one process is no number from a micro-batch of the first epoch on.

    Args:
        rank: Of the process.
        index: Of the micro-batch.
    """

    def __init__(self, rank: int, index: int) -> None:
        self.rank, self.index = rank, index

    def on_train_batch_start(self, trainer: L.Trainer, module: Any, batch: Any, index: int) -> None:
        if trainer.global_rank == self.rank and index == self.index:
            whole = module.objective.loss
            module.objective.loss = lambda vlm, part: whole(vlm, part) * float("nan")
