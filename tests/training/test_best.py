"""The weights that validate best are kept, through interruptions too, and training stops when told to."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from rbft.errors import ConfigError
from rbft.training.best import KeepBest, Selection


def run(callback: KeepBest, figures: list[tuple[float, float]], written: list[int], start: int = 0) -> SimpleNamespace:
    """Validations of (accuracy, nll), one an epoch, until the callback stops them."""
    module = SimpleNamespace(ready=SimpleNamespace(model=nn.Linear(1, 1)))
    trainer = SimpleNamespace(should_stop=False, current_epoch=start, callback_metrics={})
    for epoch, (accuracy, nll) in enumerate(figures, start):
        trainer.current_epoch = epoch
        trainer.callback_metrics = {"val/accuracy": torch.tensor(accuracy), "val/nll": torch.tensor(nll)}
        before = callback.epoch
        callback.on_validation_end(trainer, module)
        if callback.epoch != before:
            written.append(epoch)
        if trainer.should_stop:
            break
    return trainer


def test_the_best_epoch_is_kept_and_of_equals_the_surer(tmp_path: Path) -> None:
    written: list[int] = []
    callback = KeepBest(tmp_path, None)
    trainer = run(callback, [(0.5, 1.0), (0.5, 0.8), (0.4, 0.1), (0.75, 2.0), (0.75, 2.0), (0.7, 0.1)], written)
    assert written == [0, 1, 3]
    assert (callback.epoch, trainer.should_stop) == (3, False)
    assert (tmp_path / "trained.safetensors").is_file()


def test_patience_counts_epochs_without_a_better_one(tmp_path: Path) -> None:
    written: list[int] = []
    trainer = run(KeepBest(tmp_path, 2), [(0.5, 1.0), (0.6, 1.0), (0.6, 1.5), (0.5, 1.0), (0.9, 0.1)], written)
    assert (trainer.should_stop, trainer.current_epoch, written) == (True, 3, [0, 1])


def test_a_resumed_run_remembers_what_was_best(tmp_path: Path) -> None:
    first = KeepBest(tmp_path, None)
    run(first, [(0.9, 1.0)], [])
    again = KeepBest(tmp_path, None)
    again.load_state_dict(first.state_dict())
    written: list[int] = []
    run(again, [(0.8, 0.1), (0.95, 1.0)], written, start=1)
    assert written == [2]


@pytest.mark.parametrize("settings", [{"patience": 1}, {"weights": "best", "patience": 0}])
def test_wrong_settings_are_refused(settings) -> None:
    with pytest.raises(ConfigError, match=r"^model\.selection\.patience"):
        Selection(**settings)
