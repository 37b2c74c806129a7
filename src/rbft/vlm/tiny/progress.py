"""A budget of CPU time, and plain lines that say how a phase of pre-training is doing."""

from __future__ import annotations

import time


class Budget:
    """Counts this process's CPU time, which other programs on the machine do not eat into.

    Args:
        name: What the lines begin with.
        minutes: CPU minutes.
        report_every: Seconds of CPU time between two lines.
    """

    def __init__(self, name: str, minutes: float, report_every: float = 30.0) -> None:
        self.name = name
        self.seconds = 60 * minutes
        self.report_every = report_every
        self.started = time.process_time()
        self.reported = self.started
        self.steps = 0
        self.losses: list[float] = []

    @property
    def progress(self) -> float:
        """Share of the budget that is used; 1 or more when it is spent."""
        return (time.process_time() - self.started) / self.seconds

    def count(self, loss: float) -> None:
        """Counts a step and prints a line when one is due."""
        self.steps += 1
        self.losses.append(loss)
        now = time.process_time()
        if now - self.reported >= self.report_every:
            recent = self.losses[-50:]
            print(
                f"{self.name}: {100 * self.progress:3.0f}%  {now - self.started:5.0f} CPU s  "
                f"step {self.steps}  loss {sum(recent) / len(recent):.4f}",
                flush=True,
            )
            self.reported = now
