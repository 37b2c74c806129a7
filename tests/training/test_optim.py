"""Each part of the model learns at its own rate, vectors do not decay, and rates warm up and fall as stated."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tests.support.models import load
from torch import nn

from rbft.errors import ConfigError
from rbft.training.optim import OptimSettings, configure, parameter_groups, rate_factor
from rbft.vlm.model_parts import Part, parts_of
from rbft.vlm.tuning import FullFineTuning, LoRA

NAMES = {
    "model.language_model.layers.0.self_attn.q_proj.weight": 2,
    "model.language_model.norm.weight": 1,
    "model.visual.merger.mlp.0.weight": 2,
    "model.visual.merger.mlp.0.bias": 1,
    "model.visual.blocks.0.attn.qkv.weight": 2,
    "lm_head.weight": 2,
}

PARTS: dict[str, Part] = {
    name: "language" if "visual" not in name else "projector" if "merger" in name else "vision" for name in NAMES
}


def parameters(frozen: tuple[str, ...] = ()) -> list[tuple[str, nn.Parameter]]:
    return [
        (name, nn.Parameter(torch.zeros([2] * dimensions), requires_grad=name not in frozen))
        for name, dimensions in NAMES.items()
    ]


def by_name(
    settings: OptimSettings, given: list[tuple[str, nn.Parameter]], parts: dict[str, Part] | None = None
) -> dict[str, tuple[float, float]]:
    names = {id(parameter): name for name, parameter in given}
    groups = parameter_groups(settings, given, PARTS if parts is None else parts)
    found = [(names[id(p)], (group["lr"], group["weight_decay"])) for group in groups for p in group["params"]]
    assert len(found) == len(dict(found)), "a parameter stands in two groups"
    return dict(found)


def test_parts_have_rates_of_their_own_and_vectors_do_not_decay():
    settings = OptimSettings(lr=1.0, projector_lr=2.0, vision_lr=3.0, weight_decay=0.1)
    assert by_name(settings, parameters()) == {
        "model.language_model.layers.0.self_attn.q_proj.weight": (1.0, 0.1),
        "model.language_model.norm.weight": (1.0, 0.0),
        "model.visual.merger.mlp.0.weight": (2.0, 0.1),
        "model.visual.merger.mlp.0.bias": (2.0, 0.0),
        "model.visual.blocks.0.attn.qkv.weight": (3.0, 0.1),
        "lm_head.weight": (1.0, 0.1),
    }


def test_rates_fall_back_to_that_of_the_language_model_but_zero_is_a_rate():
    assert {rate for rate, _ in by_name(OptimSettings(lr=0.5), parameters()).values()} == {0.5}
    rates = by_name(OptimSettings(lr=0.5, projector_lr=0.0), parameters())
    assert rates["model.visual.merger.mlp.0.weight"][0] == 0.0


def test_frozen_parameters_are_left_out():
    frozen = ("lm_head.weight", "model.visual.blocks.0.attn.qkv.weight")
    assert set(by_name(OptimSettings(), parameters(frozen))) == set(NAMES) - set(frozen)
    with pytest.raises(ConfigError, match=r"model\.tuning: nothing is trained"):
        parameter_groups(OptimSettings(), parameters(tuple(NAMES)), PARTS)


@pytest.mark.parametrize("tuning", [LoRA(projector="train"), FullFineTuning(projector="train", vision="train")])
def test_parts_are_told_apart_inside_the_wrapped_model(family_folder: Callable[[str], Path], tuning):
    vlm = load(family_folder("qwen3_vl"), tuning).vlm
    settings = OptimSettings(lr=1.0, projector_lr=2.0, vision_lr=3.0)
    found = by_name(settings, list(vlm.model.named_parameters()), parts_of(vlm.model))
    assert set(found) == {name for name, p in vlm.model.named_parameters() if p.requires_grad}
    for name, (rate, _) in found.items():
        part = 1.0 if "visual" not in name else 2.0 if "merger" in name else 3.0
        assert rate == part, name


def test_rates_rise_linearly_then_fall_as_a_cosine():
    factor = rate_factor(OptimSettings(warmup=0.2, schedule="cosine"), 20)
    assert [factor(step) for step in range(4)] == pytest.approx([1 / 5, 2 / 5, 3 / 5, 4 / 5])
    assert factor(4) == 1.0
    assert factor(8) == pytest.approx(0.5 * (1 + math.cos(math.pi / 4)))
    assert factor(12) == pytest.approx(0.5)
    assert 0 < factor(19) < 0.02
    assert factor(20) == factor(25) == pytest.approx(0.0)


def test_constant_rates_stay_after_warm_up():
    factor = rate_factor(OptimSettings(warmup=0.1, schedule="constant"), 10)
    assert [factor(step) for step in range(12)] == pytest.approx([0.5, *[1.0] * 11])
    assert rate_factor(OptimSettings(warmup=0.0, schedule="constant"), 10)(0) == 1.0


def test_even_one_step_learns():
    for schedule in ("cosine", "constant"):
        assert rate_factor(OptimSettings(schedule=schedule), 1)(0) > 0


def test_configured_optimiser_follows_the_schedule_by_steps():
    model = nn.Linear(2, 2)
    settings = OptimSettings(lr=0.1, warmup=0.5, betas=(0.8, 0.9), eps=1e-3, schedule="constant")
    groups = parameter_groups(settings, model.named_parameters(), {"weight": "language", "bias": "language"})
    configured = configure(settings, groups, total_steps=4)
    optimizer, schedule = configured["optimizer"], configured["lr_scheduler"]["scheduler"]
    assert configured["lr_scheduler"]["interval"] == "step"
    assert (optimizer.defaults["betas"], optimizer.defaults["eps"]) == ((0.8, 0.9), 1e-3)
    rates = []
    for _ in range(4):
        rates.append({group["lr"] for group in optimizer.param_groups})
        model(torch.ones(1, 2)).sum().backward()
        optimizer.step()
        schedule.step()
    assert [round(rate, 6) for (rate,) in rates] == [0.033333, 0.066667, 0.1, 0.1]


NO_NUMBERS = [{key: value} for key in ("lr", "vision_lr", "weight_decay", "eps") for value in (math.nan, math.inf, -1)]


@pytest.mark.parametrize("wrong", [*NO_NUMBERS, {"warmup": 1.0}, {"warmup": math.nan}, {"betas": (0.9, 1.0)}], ids=str)
def test_wrong_settings_are_refused(wrong):
    with pytest.raises(ConfigError, match=r"^model\.optim(\.\w+: .* must be a number of at|: betas and warmup)"):
        OptimSettings(**wrong)
