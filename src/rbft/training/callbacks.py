"""Around the loops: progress, saving the checkpoint, and stopping where it can be continued."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any, Self

import lightning as L
import torch
from lightning.pytorch.callbacks import ProgressBar, RichProgressBar

from rbft.errors import Interrupted
from rbft.training.best_weights import KeepBest


class MovingProgress(RichProgressBar):
    """Lightning's bar for terminals, without the version of the logger, which is the same for every run."""

    def get_metrics(self, *args: Any) -> dict[str, int | str | float | dict[str, float]]:
        """Figures beside the bar."""
        return {key: value for key, value in super().get_metrics(*args).items() if key != "v_num"}


class PlainProgress(ProgressBar):
    """A line every few seconds, for logs and pipes where a moving bar makes a mess.

    Args:
        stage: name of the stage, printed in each line.
        seconds: least time between two lines.
    """

    def __init__(self, stage: str, seconds: float = 10.0) -> None:
        super().__init__()
        self.stage, self.seconds = stage, seconds
        self._enabled = True
        self._last = time.monotonic()

    def disable(self) -> None:
        """Lightning silences all ranks but the first."""
        self._enabled = False

    def enable(self) -> None:
        """Print again."""
        self._enabled = True

    def _say(self, what: str, done: int, total: float | int, figures: str = "", *, last: bool = False) -> None:
        now = time.monotonic()
        if self._enabled and (last or now - self._last >= self.seconds):
            self._last = now
            print(f"  {self.stage}: {what} {done}/{int(total)}{figures}", flush=True)

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *args: Any) -> None:
        """Report epoch, batch and loss."""
        values = {key: float(value) for key, value in trainer.progress_bar_metrics.items()}
        figures = "".join(f"  {key} {value:.4g}" for key, value in values.items())
        done, total = args[2] + 1, trainer.num_training_batches
        last = done == total and trainer.current_epoch + 1 == trainer.max_epochs
        self._say(f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}, batch", done, total, figures, last=last)

    def on_test_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *args: Any) -> None:
        """Report scored batches."""
        total = trainer.num_test_batches[0]
        self._say("scored batch", args[2] + 1, total, last=args[2] + 1 == total)

    def on_predict_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *args: Any) -> None:
        """Report written batches."""
        total = trainer.num_predict_batches[0]
        self._say("wrote batch", args[2] + 1, total, last=args[2] + 1 == total)


class SaveCheckpoint(L.Callback):
    """Saves the checkpoint every so many optimiser steps, and at the end of epochs that are not too short for that.

    Args:
        path: path of the checkpoint.
        every: optimiser steps between two saves within an epoch; 0 saves at the end of epochs only.
        seconds: least time between a save and one at the end of an epoch; 0 saves at the end of each.
        best: keeps the best weights on disk, so that an epoch that is best so far is saved however short it was: a
            checkpoint from before would not know of them.
    """

    def __init__(self, path: Path, every: int, seconds: float = 0.0, best: KeepBest | None = None) -> None:
        self.path, self.every, self.seconds, self.best = path, every, seconds, best
        self._saved = time.monotonic()

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Count from here: before it there is nothing to lose."""
        self._saved = time.monotonic()

    def _save(self, trainer: L.Trainer) -> None:
        trainer.save_checkpoint(self.path)
        self._saved = time.monotonic()

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Save on whole optimiser steps."""
        whole = (batch_idx + 1) % trainer.accumulate_grad_batches == 0
        if self.every and whole and trainer.global_step % self.every == 0 and not trainer.is_last_batch:
            self._save(trainer)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Save a finished epoch if so many steps are done, the last save is long ago, or its weights are the best."""
        steps = self.every > 0 and trainer.global_step % self.every == 0
        chosen = self.best is not None and self.best.epoch == trainer.current_epoch
        due = steps or chosen or time.monotonic() - self._saved >= self.seconds
        # all ranks save together, so the clock of one decides
        if trainer.strategy.broadcast(due):
            self._save(trainer)


_HANGUP = getattr(signal, "SIGHUP", None)
_STOPS = ("SIGINT", "SIGTERM", "SIGUSR1", "SIGHUP")
SIGNALS = tuple(getattr(signal, name) for name in _STOPS if hasattr(signal, name))  # some systems lack the last two
"""Ctrl-C; the signal of schedulers; the one often set in Slurm for the end of a job's time (`--signal=USR1@120`); the
signal of a closed terminal."""


class GracefulStop(L.Callback):
    """A signal ends the run at the next step boundary, with everything saved; a second one ends it now.

    The signals are taken over inside a `with` block around the trainer's work, and given back after it.

    Args:
        path: path of the checkpoint of a training stage.
        again: command that continues the run.
    """

    def __init__(self, path: Path, again: str) -> None:
        self.path, self.again = path, again
        self._signal: int | None = None
        self._before: dict[int, Any] = {}
        self._terminals: list[int] = []

    def __enter__(self) -> Self:
        # nohup has a run go on without its terminal
        taken = [n for n in SIGNALS if n != _HANGUP or signal.getsignal(n) != signal.SIG_IGN]
        self._before = {number: signal.signal(number, self._note) for number in taken}
        self._terminals = [number for number in (1, 2) if os.isatty(number)]
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _listen_alone(self) -> None:
        # Lightning puts handlers of its own before these: one starts a collective in the middle of another, and under
        # Slurm one saves and queues a job again that this command would not go on with
        for number in self._before:
            signal.signal(number, self._note)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Listen alone."""
        self._listen_alone()

    def on_test_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Listen alone."""
        self._listen_alone()

    def on_predict_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Listen alone."""
        self._listen_alone()

    def _note(self, number: int, _: FrameType | None) -> None:
        if self._signal is not None:
            raise SystemExit(128 + number)
        self._signal = number
        if number == _HANGUP:
            # printing to a terminal that is gone would fail before everything is saved
            silent = os.open(os.devnull, os.O_WRONLY)
            for terminal in self._terminals:
                os.dup2(silent, terminal)
            os.close(silent)

    def _stop(self, trainer: L.Trainer, save: Callable[[], None] | None = None) -> None:
        # every rank must take the same decision at the same step, or the others wait for ever
        asked = torch.tensor(self._signal or 0, device=trainer.strategy.root_device)
        if number := int(trainer.strategy.reduce(asked, reduce_op="max")):
            if save is not None:
                save()
            raise Interrupted(number, f"stopped, and everything so far is saved. To continue: {self.again}")

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Stop after a whole optimiser step."""
        if (batch_idx + 1) % trainer.accumulate_grad_batches == 0 and not trainer.is_last_batch:
            self._stop(trainer, lambda: trainer.save_checkpoint(self.path))

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Stop after a whole epoch: continued from its last batch, a run would go without its validation."""
        self._stop(trainer, lambda: trainer.save_checkpoint(self.path))

    def on_test_batch_end(self, trainer: L.Trainer, *args: Any, **kwargs: Any) -> None:
        """Stop between batches; scoring starts again when continued."""
        self._stop(trainer)

    def on_predict_batch_end(self, trainer: L.Trainer, *args: Any, **kwargs: Any) -> None:
        """Stop between batches; what was written is stored."""
        self._stop(trainer)
