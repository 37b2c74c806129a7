"""Training ends within a step of the first number that is none, names the videos, and saves nothing of it."""

from __future__ import annotations

import re

import lightning as L
import pytest
import torch
from tests.support.fitting import trainer

from rbft.errors import ModelError
from rbft.objectives.classification import ClassificationObjective
from rbft.training.best_weights import KeepBest
from rbft.training.callbacks import SaveCheckpoint
from rbft.training.checkpoint import MANIFEST, AtomicCheckpointIO
from rbft.training.finite_check import are_finite
from rbft.vlm.tuning import FullFineTuning, LoRA

pytest_plugins = ["tests.support.fitting_fixtures"]


class Spoilt(ClassificationObjective):
    """The loss, or its gradient, is no number from a batch on."""

    def __init__(self, batch: int, what: str, value: float = torch.nan) -> None:
        super().__init__()
        self.batch, self.what, self.value, self.seen = batch, what, value, []

    def loss(self, vlm, batch):
        found = super().loss(vlm, batch)
        self.seen.append(batch.indices)
        if len(self.seen) - 1 < self.batch:
            return found
        first = next(p for p in vlm.parameters() if p.requires_grad)
        if self.what == "loss":
            return found + first.sum() * self.value
        # the value of a root at 0 is 0, and its slope infinite
        return found + (first.sum() * 0).sqrt()


@pytest.mark.parametrize(
    ("what", "value", "told"),
    [
        ("loss", torch.nan, "the loss became nan"),
        ("loss", torch.inf, "the loss became (-?inf|nan)"),
        ("gradient", 0, "gradients became infinite or not a number"),
    ],
)
def test_it_stops_within_the_step_and_names_its_videos(stage, what, value, told, tmp_path):
    module = stage.build(objective=Spoilt(1, what, value))
    before = {}

    class Look(SaveCheckpoint):
        def on_train_batch_end(self, *args):
            before.update({name: p.detach().clone() for name, p in module.named_parameters() if p.requires_grad})
            super().on_train_batch_end(*args)

    place = tmp_path / "checkpoints" / MANIFEST
    run = trainer(tmp_path, callbacks=[Look(place, 1)], plugins=[AtomicCheckpointIO()], limit_val_batches=0)
    with pytest.raises(ModelError, match=rf"({told}) at step 1, in the batch of .*Lower model\.optim\.lr") as error:
        run.fit(module, datamodule=stage.data)
    assert len(module.objective.seen) == 2, "the batch after it is not begun"
    examples = stage.data.dataset("train").examples
    named = set(re.findall(r"[\w /]+\.mp4", str(error.value).split("batch of ")[1]))
    assert {name.strip() for name in named} == {examples[i].record.path for i in module.objective.seen[-1]}
    saved = AtomicCheckpointIO().load_checkpoint(place)
    assert saved["global_step"] == 1
    assert are_finite(saved["state_dict"].values())
    for name, value in module.named_parameters():
        if value.requires_grad:
            assert torch.equal(value, before[name]), "weights were not changed by it"


def test_only_the_bad_one_of_several_micro_batches_is_named(stage, tmp_path):
    stage.connect(1, accumulate=3)
    module = stage.build(objective=Spoilt(2, "loss"))
    with pytest.raises(ModelError, match=r"the loss became nan at step 0, in the batch of [^,]*\.mp4\. No step had"):
        trainer(tmp_path, accumulate_grad_batches=3).fit(module, datamodule=stage.data)


@pytest.mark.parametrize("tuning", [LoRA(rank=2), FullFineTuning()], ids=["lora", "full"])
def test_a_damaged_model_is_no_matter_of_the_learning_rate(stage, tuning, tmp_path):
    module = stage.build(tuning=tuning)
    module.configure_model()
    with torch.no_grad():
        module.ready.base.get_decoder().norm.weight[0] = torch.nan
    told = r"the loss became nan at step 0, in the batch of .*mp4\. The model's weight '[\w.]+' .*files are damaged"
    with pytest.raises(ModelError, match=told):
        trainer(tmp_path, limit_val_batches=0).fit(module, datamodule=stage.data)


class Overflow(L.Callback):
    """Weights that a step made infinite."""

    def on_train_batch_end(self, trainer, module, *_):
        next(p for p in module.parameters() if p.requires_grad).data.view(-1)[0] = torch.inf


@pytest.mark.parametrize("validate", [False, True])
def test_weights_that_overflow_are_neither_saved_nor_kept_as_the_best(stage, validate, tmp_path):
    place = tmp_path / "checkpoints" / MANIFEST
    stage.connect(6)
    callbacks = [Overflow(), SaveCheckpoint(place, 1), KeepBest(tmp_path / "best", None)]
    run = trainer(tmp_path, callbacks=callbacks, plugins=[AtomicCheckpointIO()], limit_val_batches=int(validate))
    with pytest.raises(ModelError, match=r"infinite or not a number by step 1; nothing of them was saved\. Lower"):
        run.fit(stage.build(), datamodule=stage.data)
    assert not place.exists()
    assert not (tmp_path / "best").exists()


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_one_number_among_many_is_found(bad):
    values = [torch.zeros(3), torch.ones(4, 5), torch.tensor(3), torch.tensor([])]
    assert are_finite(values)
    assert are_finite([]) and are_finite([torch.tensor([3.4e38, -3.4e38])])
    values[1][2, 3] = bad
    assert not are_finite(values)
