"""Keeping the weights of the best epoch on validation, and stopping when it gets no better."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import lightning as L

from rbft.errors import ConfigError
from rbft.vlm.tuning import save_trained


@dataclass(frozen=True)
class Selection:
    """Which weights a training stage hands on.

    Args:
        weights: `last`, or `best`: those of the epoch that validated best in what the stage learns. Stages that learn
            labels are validated by the label question. A stage that learns rationales alone is validated by answering
            each video after its own rationale (the likeliest text, of at most `model.writer.max_new_tokens` tokens).
            With a handful of validation videos the best epoch is chosen by little; `last` needs none.
        patience: with `best`, number of epochs without a better one after which the stage ends; None: no early end.
    """

    weights: Literal["last", "best"] = "last"
    patience: int | None = None

    def __post_init__(self) -> None:
        if self.patience is not None and (self.patience < 1 or self.weights == "last"):
            raise ConfigError(
                f"model.selection.patience: {self.patience} must be at least 1, and is of use only with "
                "model.selection.weights: best."
            )


class KeepBest(L.Callback):
    """After each validation, writes the trained weights if they are the best so far.

    Best is what is right most often on the validation videos; of equals what gives the right class the highest
    probability, and of equals in both the earlier epoch.

    Args:
        folder: folder for the weights.
        patience: number of epochs without a better one after which training stops; None trains to the end.
        write: whether this process writes; all take part.
    """

    def __init__(self, folder: Path, patience: int | None, *, write: bool = True) -> None:
        self.folder, self.patience, self.write = folder, patience, write
        self.best: tuple[float, float] | None = None
        self.epoch = -1
        self.validations = 0
        self.ended = False

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """End at once a training that had waited long enough when it was interrupted."""
        if self.ended:
            trainer.should_stop = True

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Compare with the best so far; on all ranks alike."""
        figures = trainer.callback_metrics
        rank = (float(figures["val/accuracy"]), -float(figures["val/nll"]))
        self.validations += 1
        if self.best is None or rank > self.best:
            self.best, self.epoch = rank, trainer.current_epoch
            model: Any = pl_module
            save_trained(model.ready.model, self.folder, write=self.write)
        elif self.patience is not None and trainer.current_epoch - self.epoch >= self.patience:
            self.ended = trainer.should_stop = True

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run has to know."""
        best = None if self.best is None else list(self.best)
        return {"best": best, "epoch": self.epoch, "validations": self.validations, "ended": self.ended}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from what was best before the interruption."""
        self.best = None if state_dict["best"] is None else (float(state_dict["best"][0]), float(state_dict["best"][1]))
        self.epoch = int(state_dict["epoch"])
        self.validations = int(state_dict.get("validations", self.epoch + 1))
        self.ended = bool(state_dict.get("ended", False))  # older checkpoints do not say
