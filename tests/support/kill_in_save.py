"""Kills the process that saves a place at a chosen one of all the moments a save consists of."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rbft.training import checkpoint

# what a save does to the disk; each is a moment before it, and one after it
_CALLS = ("fsync", "replace", "unlink")
Moment = tuple[str, int]


def moments(log: Path) -> list[Moment]:
    """The moments that were noted, in order."""
    seen: Counter[str] = Counter()
    found = []
    for name in log.read_text().splitlines():
        found.append((name, seen[name]))
        seen[name] += 1
    return found


@dataclass(frozen=True)
class KillInSave:
    """Makes the process that calls it kill itself in a save; None only notes the moments of the first.

    Args:
        moment: Which: its name, and how many of that name come before it.
        log: Takes the names of the moments of the first save, a line each.
    """

    moment: Moment | None
    log: Path | None = None

    def __call__(self) -> None:
        """Set the trap."""
        trap = _Trap(self)
        for name in _CALLS:
            setattr(os, name, trap.around(name, getattr(os, name)))
        write, save = checkpoint._Hashing.write, checkpoint.AtomicCheckpointIO.save_checkpoint

        def in_halves(stream: Any, data: bytes) -> int:
            trap.moment("write")
            half = len(data) // 2
            write(stream, data[:half])
            stream.flush()  # what is in a buffer of the process is lost with it in any case
            trap.moment("half written")
            return half + write(stream, data[half:])

        def watched(*args: Any, **settings: Any) -> None:
            with trap:
                save(*args, **settings)

        checkpoint._Hashing.write = in_halves  # type: ignore[method-assign]
        checkpoint.AtomicCheckpointIO.save_checkpoint = watched  # type: ignore[method-assign]


class _Trap:
    def __init__(self, kill: KillInSave) -> None:
        self.kill, self.saving, self.saves = kill, False, 0
        self.seen: Counter[str] = Counter()

    def __enter__(self) -> None:
        self.saving, self.saves = True, self.saves + 1

    def __exit__(self, *_: object) -> None:
        self.saving = False

    def moment(self, name: str) -> None:
        if not self.saving or self.saves > 1:
            return
        if self.kill.log is not None:
            with self.kill.log.open("a") as log:
                log.write(f"{name}\n")
        if (name, self.seen[name]) == self.kill.moment:
            os.kill(os.getpid(), signal.SIGKILL)
        self.seen[name] += 1

    def around(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def called(*args: Any, **settings: Any) -> Any:
            self.moment(f"before {name}")
            found = call(*args, **settings)
            self.moment(f"after {name}")
            return found

        return called
