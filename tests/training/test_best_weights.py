"""The weights that validate best are kept, through interruptions too, and training stops when told to."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace

import lightning as L
import pytest
import torch
from tests.support.fitting import Stage, trainer
from torch import nn

from rbft.data.prompt_templates import PromptBook, Prompts
from rbft.errors import ConfigError
from rbft.evaluation.predictions import Prediction
from rbft.objectives.rationale import RationaleObjective
from rbft.rationales.store import Rationale
from rbft.rationales.writer import RationaleWriter
from rbft.training.best_weights import KeepBest, Selection
from rbft.training.optim import OptimSettings

pytest_plugins = ["tests.support.fitting_fixtures"]


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
    assert callback.validations == 6
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
    assert written == [2] and again.validations == 3


class _SaveEach(L.Callback):
    """Saves each epoch, as a stage does."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_epoch_end(self, trainer, pl_module) -> None:
        trainer.save_checkpoint(self.path)


def test_a_training_that_had_waited_long_enough_does_not_go_on(stage: Stage, tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"

    def fit(ckpt_path: Path | None = None) -> L.Trainer:
        # nothing changes, so that no epoch is better than the first
        module = stage.build(optim=OptimSettings(lr=0.0))
        stage.connect(batch_size=2)
        made = trainer(tmp_path, max_epochs=9, callbacks=[KeepBest(tmp_path / "best", 1), _SaveEach(path)])
        made.fit(module, datamodule=stage.data, ckpt_path=ckpt_path, weights_only=True)
        return made

    whole = fit()
    assert whole.current_epoch == 2
    again = fit(path)
    assert (again.current_epoch, again.global_step) == (2, whole.global_step)


@pytest.mark.parametrize("settings", [{"patience": 1}, {"weights": "best", "patience": 0}])
def test_wrong_settings_are_refused(settings) -> None:
    with pytest.raises(ConfigError, match=r"^model\.selection\.patience"):
        Selection(**settings)


class _Seen(KeepBest):
    """Notes what each validation found."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, None)
        self.seen: list[tuple[float, list[Prediction]]] = []

    def on_validation_end(self, trainer, pl_module) -> None:
        super().on_validation_end(trainer, pl_module)
        self.seen.append((float(trainer.callback_metrics["val/nll"]), list(pl_module.predictions)))


def test_a_stage_that_learns_to_write_is_chosen_by_what_it_writes(stage: Stage, tmp_path: Path) -> None:
    book = PromptBook(Prompts(), stage.data.labels)
    rationales = [
        Rationale(r.id, 0, r.path, r.label, "", "blind", "me", "a man runs", r.label, "a man runs", False)
        for r in stage.data.splits.train
    ]
    module = stage.build(
        objective=RationaleObjective(), selection=Selection("best"), writer=RationaleWriter(max_new_tokens=5)
    )
    assert module.chooses_after_rationales
    assert not stage.build(selection=Selection("best")).chooses_after_rationales
    assert not stage.build(objective=RationaleObjective()).chooses_after_rationales
    module.validate_after_rationales()
    rows = module.objective.examples(stage.data.splits.train, book, rationales)
    stage.data.connect(0, 1, train=rows, val=module.scoring.examples(stage.data.splits.val, reasoned=True))
    best = _Seen(tmp_path / "best")
    trainer(tmp_path, max_epochs=2, callbacks=[best]).fit(module, datamodule=stage.data)
    assert len(best.seen) == 2
    for nll, predictions in best.seen:
        assert len(predictions) == 2
        assert all(p.rationale and p.probabilities == p.answers["rationale"] for p in predictions)
        assert all(p.answers["direct"] != p.answers["rationale"] for p in predictions)
        right = [p.probabilities[stage.data.labels.index(p.label)] for p in predictions]
        assert nll == pytest.approx(-sum(map(math.log, right)) / 2, abs=1e-6)
    assert module.training, "dropout is on again"
