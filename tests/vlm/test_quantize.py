"""Weights in 4 bits: refused early where they cannot be had, and of the language model alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.support.families import FAMILIES
from tests.support.models import load, make_clip
from tests.support.runs import fit, write_experiment

from rbft.errors import ConfigError
from rbft.training.module import VLMFineTuner
from rbft.vlm import quantize
from rbft.vlm.loading import bare_model, load_config, load_model
from rbft.vlm.model import VLM
from rbft.vlm.model_parts import parts_of
from rbft.vlm.tuning import FullFineTuning, LoRA, load_trained, save_trained

pytest_plugins = ["tests.support.run_fixtures"]

AVAILABLE = "transformers.utils.import_utils.is_bitsandbytes_available"


def test_only_adapters_can_be_trained() -> None:
    with pytest.raises(ConfigError, match=r"model\.quantize.*LoRA"):
        VLMFineTuner(quantize="4bit", tuning=FullFineTuning())
    assert VLMFineTuner(quantize="4bit").quantize == "4bit"


@pytest.mark.parametrize(
    ("installed", "on_gpu", "message"),
    [(False, True, r"pip install 'rbft\[quantize\]'"), (True, False, "needs an NVIDIA GPU")],
)
def test_what_is_missing_is_told(installed: bool, on_gpu: bool, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(AVAILABLE, lambda: installed)
    with pytest.raises(ConfigError, match=message):
        quantize.require_quantizable("4bit", on_gpu=on_gpu)
    quantize.require_quantizable("none", on_gpu=on_gpu)


@pytest.mark.parametrize(
    ("flags", "message"),
    [((), "needs an NVIDIA GPU"), (("--trainer.strategy", "fsdp2"), "exclude each other")],
)
def test_refused_before_anything_is_read(
    flags: tuple[str, ...],
    message: str,
    tmp_path: Path,
    clips: Path,
    family_folder: Callable[[str], Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(AVAILABLE, lambda: True)
    if flags:
        monkeypatch.setattr("rbft.pipeline.requirements.require_quantizable", lambda *_, **__: None)
    monkeypatch.setattr("rbft.pipeline.prepare.inspect_videos", None)
    config = write_experiment(tmp_path / "tiny.yaml", clips, family_folder("qwen2_5_vl"))
    result = fit("--config", config, "--run_root", tmp_path / "runs", "--model.quantize", "4bit", *flags)
    assert result.code == 2 and message in result.err
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("family", FAMILIES)
def test_the_language_model_alone(
    family: str, family_folder: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[dict[str, Any]] = []
    monkeypatch.setattr("transformers.BitsAndBytesConfig", lambda **settings: seen.append(settings))
    quantize.quantized(bare_model(load_config(str(family_folder(family)), None)))
    whole = set(seen[0]["llm_int8_skip_modules"])
    model = load(family_folder(family)).vlm.base
    linear = [name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)]
    left = [name for name in linear if name not in whole]
    assert left and {parts_of(model)[f"{name}.weight"] for name in left} == {"language"}
    assert all("layers." in name for name in left), "the head stays whole"
    assert seen[0]["bnb_4bit_quant_type"] == "nf4" and seen[0]["bnb_4bit_compute_dtype"] == torch.bfloat16


def test_adapters_over_weights_in_4_bits(family_folder: Callable[[str], Path], tmp_path: Path) -> None:
    bitsandbytes = pytest.importorskip("bitsandbytes", reason="pip install 'rbft[quantize]'")
    folder, tuning = family_folder("qwen2_5_vl"), LoRA(rank=4, dropout=0.0)
    whole = load(folder)
    prompt, target = whole.inputs("what?", make_clip(0)), whole.target("what?", "yes")

    def quantised() -> VLM:
        model: Any = load_model(str(folder), None, "auto", None, "4bit")
        return VLM(tuning.apply(model), whole.processor.pad_id, whole.processor.end_ids)

    vlm = quantised()
    small = [name for name, module in vlm.model.named_modules() if isinstance(module, bitsandbytes.nn.Linear4bit)]
    assert small and {parts_of(vlm.model)[f"{name}.weight"] for name in small} == {"language"}
    losses = []
    optimizer = torch.optim.AdamW([value for value in vlm.parameters() if value.requires_grad], lr=1e-2)
    for _ in range(5):
        loss = -vlm.target_log_probs([prompt], [target])[0].sum()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
    save_trained(vlm.model, tmp_path / "adapter")
    again = quantised()
    load_trained(again.model, tmp_path / "adapter")
    with torch.no_grad():
        mine, theirs = (-each.target_log_probs([prompt], [target])[0].sum().item() for each in (vlm, again))
    assert theirs == pytest.approx(mine, rel=0.05)
