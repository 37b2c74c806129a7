"""What is trained of a model in half precision is held in float32: small updates count, and nothing else changes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import lightning as L
import pytest
import torch
from lightning.pytorch.plugins.precision import MixedPrecision
from safetensors.torch import load_file
from tests.support.families import FAMILIES
from tests.support.fitting import Stage, equal, trainer, weights
from tests.support.models import make_clip

from rbft.training.module import VLMFineTuner
from rbft.training.optim import OptimSettings
from rbft.vlm.loading import load_model
from rbft.vlm.master_weights import hold_in_float32
from rbft.vlm.model import VLM
from rbft.vlm.processing import ClipProcessor
from rbft.vlm.prompt import Prompt
from rbft.vlm.tuning import FullFineTuning, LoRA, Tuning, save_trained

pytest_plugins = ["tests.support.fitting_fixtures"]

SLOW = OptimSettings(lr=1e-5, warmup=0.0, schedule="constant")
WHOLE = FullFineTuning(projector="train", vision="train")
BESIDE = LoRA(rank=2, dropout=0.0, projector="train", vision="train")


class Start(L.Callback):
    """Keeps the weights that training starts from."""

    def __init__(self) -> None:
        self.weights: dict[str, torch.Tensor] = {}

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, VLMFineTuner)
        self.weights = weights(pl_module)


def fit(stage: Stage, folder: Path, start: Start | None = None, **settings) -> VLMFineTuner:
    """Six steps, or as many as `settings` ask for."""
    stage.connect(1)
    torch.manual_seed(0)
    module = stage.build(**{"optim": SLOW, **settings})
    callbacks = [] if start is None else [start]
    trainer(folder, limit_val_batches=0, callbacks=callbacks).fit(module, datamodule=stage.data)
    return module


def moved(stage: Stage, folder: Path, **settings) -> float:
    """The share of trained numbers that six steps changed, adapters left out."""
    start = Start()
    after = weights(fit(stage, folder, start, **settings))
    whole = {name: value for name, value in after.items() if "lora_" not in name}
    changed = sum(int((value != start.weights[name]).sum()) for name, value in whole.items())
    return changed / sum(value.numel() for value in whole.values())


@pytest.mark.parametrize("tuning", [WHOLE, BESIDE], ids=["whole", "beside adapters"])
def test_small_updates_move_as_many_weights_as_in_float32(stage: Stage, tuning: Tuning, tmp_path: Path):
    full, half = (moved(stage, tmp_path, dtype=dtype, tuning=tuning) for dtype in ("float32", "bfloat16"))
    # rows of the vocabulary that no text has get no gradient
    assert full > 0.7
    assert half == pytest.approx(full, abs=0.02)


def test_the_type_of_the_checkpoint(stage: Stage, tmp_path: Path):
    folder = tmp_path / "half"
    load_model(stage.model_folder, None, "bfloat16", None).save_pretrained(folder)
    stage.processor.save(str(folder))
    half = Stage(str(folder), stage.processor, stage.data)
    module = fit(half, tmp_path, dtype="auto", tuning=FullFineTuning())
    held = {parameter.requires_grad: parameter.dtype for parameter in module.ready.parameters()}
    assert held == {True: torch.float32, False: torch.bfloat16}
    wanted = moved(stage, tmp_path, tuning=FullFineTuning())
    assert moved(half, tmp_path, dtype="auto", tuning=FullFineTuning()) == pytest.approx(wanted, abs=0.02)


def test_adapters_alone_leave_the_model_as_it_is(stage: Stage, tmp_path: Path):
    vlm = fit(stage, tmp_path, dtype="bfloat16").ready
    assert vlm.compute_dtype is None
    assert {p.dtype for name, p in vlm.named_parameters() if "lora_" not in name} == {torch.bfloat16}


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize(
    "tuning",
    [
        FullFineTuning(),
        LoRA(rank=2, dropout=0.0, projector="train"),
        LoRA(rank=2, dropout=0.0, vision="train"),
        WHOLE,
    ],
    ids=["language", "projector", "vision", "whole"],
)
def test_every_family_computes_in_half_precision(name: str, tuning: Tuning, family_folder: Callable[[str], Path]):
    folder, prompt = str(family_folder(name)), Prompt("what is it ?")
    processor = ClipProcessor(folder)
    inputs = [processor.prompt_inputs(prompt, make_clip(seed, 4)) for seed in range(2)]
    targets = [processor.target_ids(prompt, "a thing that moves")] * 2
    gradients = []
    for dtype in (torch.float32, torch.bfloat16):
        torch.manual_seed(0)
        model = load_model(folder, None, str(dtype).removeprefix("torch."), None)
        tuned = tuning.apply(model)
        compute_dtype = hold_in_float32(tuned)
        vlm = VLM(tuned, processor.pad_id, processor.end_ids, compute_dtype).train()
        assert compute_dtype == (None if dtype == torch.float32 else dtype)
        logits, _ = vlm.target_logits(inputs, targets)
        assert logits.dtype == dtype
        torch.nn.functional.cross_entropy(logits.float(), torch.cat(targets)).backward()
        found = {n: p.grad for n, p in vlm.named_parameters() if p.grad is not None}
        assert {gradient.dtype for gradient in found.values()} == {torch.float32}
        gradients.append(found)
    full, half = gradients
    assert full.keys() == half.keys()
    one, other = (torch.cat([value.flatten() for value in found.values()]) for found in gradients)
    assert torch.nn.functional.cosine_similarity(one, other, dim=0) > 0.9


def test_what_is_saved_is_what_was_trained(stage: Stage, tmp_path: Path):
    first = fit(stage, tmp_path, dtype="bfloat16", tuning=WHOLE)
    save_trained(first.ready.model, tmp_path / "adapter")
    saved = load_file(tmp_path / "adapter" / "trained.safetensors")
    assert {value.dtype for value in saved.values()} == {torch.float32}
    second, start = stage.build(dtype="bfloat16", tuning=WHOLE, optim=SLOW), Start()
    second.start_from(tmp_path / "adapter", "")
    trainer(tmp_path, limit_val_batches=0, callbacks=[start]).fit(second, datamodule=stage.data)
    assert equal(start.weights, weights(first)), "nothing is rounded between two stages"
    # a stage that trains nothing computes with what can be published
    third = stage.build(dtype="bfloat16", tuning=WHOLE)
    third.start_from(tmp_path / "adapter", "")
    trainer(tmp_path).test(third, datamodule=stage.data, verbose=False)
    assert {parameter.dtype for parameter in third.ready.parameters()} == {torch.bfloat16}
    assert third.ready.compute_dtype is None


@pytest.mark.parametrize("saved_as", [torch.float32, torch.bfloat16], ids=["now", "as it used to be"])
def test_going_on_from_a_place(stage: Stage, saved_as: torch.dtype, tmp_path: Path):
    stage.connect(2)
    torch.manual_seed(0)
    options = {"dtype": "bfloat16", "tuning": WHOLE, "optim": OptimSettings(lr=1e-3, schedule="constant")}
    whole = stage.build(**options)
    trainer(tmp_path, limit_val_batches=0, max_epochs=2).fit(whole, datamodule=stage.data)
    stage.connect(2)
    half, run = stage.build(**options), trainer(tmp_path, limit_val_batches=0, max_epochs=1)
    run.fit(half, datamodule=stage.data)
    run.save_checkpoint(tmp_path / "place")
    place = torch.load(tmp_path / "place", weights_only=True)
    for values in (place["state_dict"], *place["optimizer_states"][0]["state"].values()):
        values |= {name: value.to(saved_as) for name, value in values.items() if value.ndim}
    torch.save(place, tmp_path / "place")
    stage.connect(2)
    again = stage.build(**options)
    trainer(tmp_path, limit_val_batches=0, max_epochs=2).fit(
        again, datamodule=stage.data, ckpt_path=str(tmp_path / "place"), weights_only=True
    )
    found, wanted = weights(again), weights(whole)
    assert {value.dtype for value in found.values()} == {torch.float32}
    if saved_as == torch.float32:
        assert equal(found, wanted), "to the byte"
    else:
        assert all(torch.allclose(found[name], value, atol=0.02) for name, value in wanted.items())


def test_float16_with_a_scaler(stage: Stage, tmp_path: Path):
    start = Start()
    stage.connect(1)
    module = stage.build(dtype="float16", tuning=WHOLE, optim=SLOW)
    mixed = MixedPrecision("16-mixed", "cpu")
    trainer(tmp_path, limit_val_batches=0, plugins=[mixed], callbacks=[start]).fit(module, datamodule=stage.data)
    after = weights(module)
    assert {value.dtype for value in after.values()} == {torch.float32}, "a scaler takes no gradients in float16"
    assert not equal(after, start.weights)
