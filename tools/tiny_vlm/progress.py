"""A budget of CPU time or steps, and plain lines that say how a phase of pre-training is doing."""

from __future__ import annotations

import time
from typing import Literal


class Budget:
    """What a phase may use; counts from its first question about `progress`.

    CPU time is this process's own, which other programs on the machine do not eat into. Steps give the same weights on
    every machine of one kind.

    Args:
        name: What the lines begin with.
        amount: How much there is, in `unit`.
        unit: CPU minutes, or optimiser steps.
        report_every: Seconds of CPU time between two lines.
    """

    def __init__(
        self, name: str, amount: float, unit: Literal["minutes", "steps"] = "minutes", report_every: float = 30.0
    ) -> None:
        self.name = name
        self.amount = amount
        self.unit = unit
        self.report_every = report_every
        self.started: float | None = None
        self.reported = 0.0
        self.losses: list[float] = []

    @property
    def progress(self) -> float:
        """Share of the budget that is used; 1 or more when it is spent."""
        if self.started is None:
            self.started = self.reported = time.process_time()
        used = len(self.losses) if self.unit == "steps" else (time.process_time() - self.started) / 60
        return used / self.amount

    def count(self, loss: float) -> None:
        """Counts a step and prints a line when one is due."""
        self.losses.append(loss)
        now = time.process_time()
        if self.started is not None and now - self.reported >= self.report_every:
            recent = self.losses[-50:]
            print(
                f"{self.name}: {100 * self.progress:3.0f}%  {now - self.started:5.0f} CPU s  "
                f"step {len(self.losses)}  loss {sum(recent) / len(recent):.4f}",
                flush=True,
            )
            self.reported = now
