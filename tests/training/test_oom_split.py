"""What does not fit in memory is computed in pieces, with the same gradients and scores; its longest clip is told."""

from __future__ import annotations

import re
from contextlib import nullcontext
from pathlib import Path

import lightning as L
import pytest
import torch
from tests.support.fitting import Stage, trainer

from rbft.answering.closed_set import ClosedSetScoring
from rbft.errors import ModelError
from rbft.objectives.classification import ClassificationObjective
from rbft.rationales.store import RationaleStore
from rbft.rationales.writer import RationaleWriter
from rbft.training.oom_split import cut, select
from rbft.training.optim import OptimSettings
from rbft.vlm.tuning import LoRA

pytest_plugins = ["tests.support.fitting_fixtures"]

EXACT = {"tuning": LoRA(rank=2, dropout=0.0), "optim": OptimSettings(lr=1e-2, eps=1e-2, warmup=0.0)}


# As torch words them, and the classes it raises them as.
FULL = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB."),
    RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    RuntimeError(
        "[enforce fail] alloc_cpu.cpp: DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 B."
    ),
]


class Small(ClassificationObjective):
    """A device on which so many clips fit, as far as the way `forward` or `back`; notes what it was asked for."""

    def __init__(self, clips: int, where: str, error: RuntimeError = FULL[0]) -> None:
        super().__init__()
        self.clips, self.where, self.error = clips, where, error
        self.asked: list[int] = []
        self._hook: torch.utils.hooks.RemovableHandle | None = None

    def loss(self, vlm, batch):
        clips = len(set(batch.clips))
        self.asked.append(clips)
        if self._hook is not None:
            self._hook.remove()
        if clips > self.clips and self.where == "forward":
            raise self.error
        if clips > self.clips:
            # the last weight on the way back: gradients of those after it have been added
            first = next(v for n, v in vlm.named_parameters() if "layers.0." in n and v.requires_grad)
            self._hook = first.register_hook(self._full)
        return super().loss(vlm, batch)

    def _full(self, _: torch.Tensor) -> None:
        raise self.error


class Gradients(L.Callback):
    def __init__(self) -> None:
        self.found: list[dict[str, torch.Tensor]] = []
        self.losses: list[float] = []

    def on_before_optimizer_step(self, trainer, module, optimizer):
        self.found.append({n: p.grad.clone() for n, p in module.named_parameters() if p.grad is not None})

    def on_train_batch_end(self, trainer, *_):
        self.losses.append(float(trainer.callback_metrics["train/loss"]))


def gradients(stage: Stage, folder: Path, objective: ClassificationObjective, **settings) -> Gradients:
    torch.manual_seed(0)
    look, module = Gradients(), stage.build(objective=objective, **EXACT)
    trainer(folder, callbacks=[look], limit_val_batches=0, **settings).fit(module, datamodule=stage.data)
    return look


@pytest.mark.filterwarnings("ignore:out of memory")
@pytest.mark.parametrize("where", ["forward", "back"])
@pytest.mark.parametrize(("batch_size", "accumulate", "fits"), [(6, 1, 3), (6, 1, 1), (3, 2, 1)])
def test_gradients_in_pieces_are_those_of_the_whole(stage, where, batch_size, accumulate, fits, tmp_path):
    stage.connect(batch_size, accumulate)
    whole = gradients(stage, tmp_path, ClassificationObjective(), accumulate_grad_batches=accumulate)
    small = Small(fits, where)
    pieces = gradients(stage, tmp_path, small, accumulate_grad_batches=accumulate)
    assert max(small.asked) > fits >= min(small.asked)
    assert pieces.found[0].keys() == whole.found[0].keys()
    wanted, found = (torch.cat([g.flatten() for g in look.found[0].values()]) for look in (whole, pieces))
    assert float(wanted.norm()) > 0.1
    assert float((found - wanted).norm() / wanted.norm()) <= 1e-6
    assert pieces.losses == pytest.approx(whole.losses, abs=1e-5)


@pytest.mark.filterwarnings("ignore:out of memory")
@pytest.mark.parametrize("where", ["forward", "back"])
@pytest.mark.parametrize("error", FULL, ids=[str(number) for number in range(len(FULL))])
def test_every_lack_of_memory_is_known(stage, error, where, tmp_path):
    stage.connect(2)
    small = Small(1, where, error)
    gradients(stage, tmp_path, small, limit_train_batches=1)
    assert small.asked == [2, 1, 1]


@pytest.mark.parametrize("where", ["forward", "back"])
def test_other_errors_are_none_of_memory(stage, where, tmp_path):
    stage.connect(2)
    small = Small(1, where, RuntimeError("CUDA error: device-side assert triggered"))
    with pytest.raises(RuntimeError, match="assert triggered"):
        gradients(stage, tmp_path, small)


def test_pieces_stay_small_and_the_longest_clip_is_told(stage, tmp_path):
    stage.connect(3)
    small = Small(1, "back")
    with pytest.warns(UserWarning, match="out of memory") as told:
        gradients(stage, tmp_path, small)
    said = [str(warning.message) for warning in told if "out of memory" in str(warning.message)]
    paths = "|".join(re.escape(record.path) for record in stage.data.splits.train)
    told_of = (
        rf"out of memory with 3 clips; the longest row is about ({paths}): \d+ tokens\. From here on it is computed"
    )
    setting = r"data\.batch_size 1 with trainer\.accumulate_grad_batches 2"
    assert re.search(rf"{told_of} in 2 pieces.*{setting}", said[0])
    assert len(said) == 2, "once for each halving"
    assert small.asked[-3:] == [1, 1, 1], "the second step begins in pieces"


def test_a_run_that_goes_on_keeps_its_pieces(stage, tmp_path):
    stage.connect(3)
    with pytest.warns(UserWarning, match="out of memory"):
        module = stage.build(objective=Small(1, "forward"))
        run = trainer(tmp_path, limit_val_batches=0, max_epochs=2)
        run.fit(module, datamodule=stage.data)
    run.save_checkpoint(tmp_path / "place")
    again = stage.build(objective=Small(1, "forward"))
    stage.connect(3)
    trainer(tmp_path, limit_val_batches=0, max_epochs=3).fit(
        again, datamodule=stage.data, ckpt_path=str(tmp_path / "place"), weights_only=True
    )
    assert set(again.objective.asked) == {1}


@pytest.mark.parametrize("where", ["forward", "back"])
def test_a_single_clip_that_does_not_fit_ends_it(stage, where, tmp_path):
    stage.connect(1)
    told = (
        r"out of memory with 1 clips; the longest row is about .*\.mp4: \d+ tokens\. A single clip .*data\.max_pixels"
    )
    with pytest.raises(ModelError, match=told):
        gradients(stage, tmp_path, Small(0, where))


@pytest.mark.parametrize("where", ["forward", "back"])
def test_processes_that_compute_together_are_told_what_to_set(stage, where, tmp_path, monkeypatch):
    stage.connect(2)
    monkeypatch.setattr(L.Trainer, "world_size", 2)
    told = r"on their own: set data\.batch_size 1 with trainer\.accumulate_grad_batches 2, or lower"
    with pytest.raises(ModelError, match=told):
        gradients(stage, tmp_path, Small(1, where))


def test_scores_and_texts_in_pieces_are_those_of_the_whole(stage, tmp_path, monkeypatch):
    stage.data.eval_batch_size = 5
    found = {}
    add, write = ClosedSetScoring.add, RationaleWriter.write

    def small(fits: int) -> None:
        def scored(self, vlm, batch, examples):
            if len(batch) > fits:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return add(self, vlm, batch, examples)

        def written(self, vlm, processor, book, batch, *rest):
            if len(batch) > fits:
                raise FULL[2]
            return write(self, vlm, processor, book, batch, *rest)

        monkeypatch.setattr(ClosedSetScoring, "add", scored)
        monkeypatch.setattr(RationaleWriter, "write", written)

    for fits in (5, 2, 1):
        small(fits)
        torch.manual_seed(0)
        module, store = stage.build(writer=RationaleWriter(max_new_tokens=4)), RationaleStore(tmp_path / str(fits))
        module.write_to(store, module.writer.attempts("blind")[0])
        run = trainer(tmp_path)
        with pytest.warns(UserWarning, match="out of memory") if fits < 5 else nullcontext():
            run.test(module, datamodule=stage.data, verbose=False)
            run.predict(module, datamodule=stage.data, return_predictions=False)
        texts = {r.id: r.written for r in store.collect(stage.data.splits.test, range(1))}
        found[fits] = ([p.id for p in module.predictions], [p.log_likelihoods for p in module.predictions], texts)
    for fits in (2, 1):
        assert found[fits][0] == found[5][0]
        assert found[fits][2] == found[5][2]
        for mine, theirs in zip(found[fits][1], found[5][1], strict=True):
            assert mine == pytest.approx(theirs, abs=1e-5)
    small(0)
    with pytest.raises(ModelError, match="A single clip does not fit"):
        trainer(tmp_path).test(stage.build(), datamodule=stage.data, verbose=False)


def test_rows_of_a_clip_stay_together(stage):
    batch = next(iter(stage.data.test_dataloader()))
    rows = select(batch, [0, 0, 1, 1, 1])
    for pieces, sizes in ((1, [5]), (2, [2, 3]), (9, [2, 3])):
        assert [len(part) for part in cut(rows, pieces)] == sizes
    assert sum((part.indices for part in cut(rows, 2)), ()) == rows.indices
    assert torch.cat([part.weights for part in cut(rows, 2)]).equal(rows.weights)
