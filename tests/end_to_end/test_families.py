"""Every supported family goes through every stage; whole parts, bfloat16 and activation checkpointing as well."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tests.support.families import FAMILIES
from tests.support.runs import CLASSES, Run, rows, run_experiment, write_clips, write_experiment

from rbft.vlm.loading import load_model
from rbft.vlm.processing import ClipProcessor

pytest_plugins = ["tests.support.run_fixtures"]

SHORT = {
    "data": {"batch_size": 2},
    "trainer": {"accumulate_grad_batches": 1, "max_epochs": 1},
    "model": {"writer": {"max_new_tokens": 4}},
    "stages": {"rationale": {"trainer": {"max_epochs": 1}}},
}


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One clip of each class to train on, one to validate, three to test."""
    return write_clips(tmp_path_factory.mktemp("few") / "clips", {"train": (1, 1), "val": (1, 1), "test": (2, 1)})


@pytest.fixture
def run_family(tmp_path: Path, few: Path, family_folder: Callable[[str], Path]) -> Callable[..., Run]:
    def run(family: str, *flags: str, method: str = "rbft") -> Run:
        config = write_experiment(tmp_path / f"{family}.yaml", few, family_folder(family), SHORT)
        return run_experiment(config, tmp_path / "runs", *flags, method=method)

    return run


def weights(run: Run, stage: str, name: str = "adapter_model") -> dict[str, torch.Tensor]:
    return load_file(run.folder / stage / "adapter" / f"{name}.safetensors")


def assert_predictions(run: Run, videos: Path) -> None:
    predictions = rows(run.folder / "predictions.jsonl")
    names = sorted(path.relative_to(videos).as_posix() for path in videos.glob("test/*/*.mp4"))
    assert sorted(row["video"] for row in predictions) == names
    for row in predictions:
        assert sum(row["probabilities"]) == pytest.approx(1, abs=1e-9)
        assert all(value < 0 for value in row["log_likelihoods"])


# one family of each kind of visual input always; the others with the slow tests
QUICK = ("qwen2_5_vl", "smolvlm")


@pytest.mark.parametrize(
    "family", [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in FAMILIES]
)
def test_all_stages(family: str, run_family: Callable[..., Run], few: Path) -> None:
    run = run_family(family)
    assert len(rows(run.folder / "write" / "rationales.jsonl")) == 2
    first, second = weights(run, "rationale"), weights(run, "classification")
    assert set(first) == set(second) and all(".lora_" in name for name in first)
    assert any((value != 0).any() for name, value in first.items() if "lora_B" in name), "stage 1 learned nothing"
    changed = [name for name in first if "lora_B" in name and not torch.equal(first[name], second[name])]
    assert len(changed) == len(first) // 2, "stage 2 moved every adapter"
    assert_predictions(run, few)


def test_whole_parts(run_family: Callable[..., Run], few: Path, family_folder: Callable[[str], Path]) -> None:
    tuning = (
        "--model.tuning",
        '{"class_path": "FullFineTuning", "init_args": {"projector": "train", "vision": "train"}}',
    )
    run = run_family("qwen3_vl", *tuning)
    base = load_file(family_folder("qwen3_vl") / "model.safetensors")
    before = {name: base[name] for name in base}
    for stage in ("rationale", "classification"):
        after = weights(run, stage, "trained")
        assert set(after) <= set(base)
        for part in ("language_model.layers", "visual.blocks", "visual.merger", "deepstack_merger_list"):
            assert any(part in name and not torch.equal(after[name], before[name]) for name in after), part
        assert not (run.folder / stage / "adapter" / "adapter_model.safetensors").exists()
        before = before | after
    assert_predictions(run, few)


def test_activation_checkpointing_computes_layers_anew_and_the_same(run_family: Callable[..., Run]) -> None:
    computed: list[str] = []

    def count(module: torch.nn.Module, inputs: object) -> None:
        if module.training and torch.is_grad_enabled() and type(module).__name__.endswith("MLP"):
            computed.append(type(module).__name__)

    with torch.nn.modules.module.register_module_forward_pre_hook(count):
        plain = weights(run_family("internvl", "--stage", "classification", method="sft"), "classification")
        once = computed.copy()
        computed.clear()
        again = ("--stage", "classification", "--restart", "--model.activation_checkpointing", "true")
        frugal = weights(run_family("internvl", *again, method="sft"), "classification")
    # of two layers the last is not computed anew: what it keeps is little, and wanted next
    assert 2 * len(computed) == 3 * len(once) > 0
    for name, value in plain.items():
        torch.testing.assert_close(frugal[name], value, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("flags", "dtype"),
    [
        pytest.param(("--model.dtype", "bfloat16"), torch.bfloat16, id="weights"),
        pytest.param(("--trainer.precision", "bf16-mixed"), torch.float32, id="mixed", marks=pytest.mark.slow),
    ],
)
def test_bfloat16(
    flags: tuple[str, ...],
    dtype: torch.dtype,
    run_family: Callable[..., Run],
    few: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loaded: list[torch.dtype] = []

    def load(*args: Any) -> Any:
        model = load_model(*args)
        loaded.append(model.dtype)
        return model

    monkeypatch.setattr("rbft.training.module.load_model", load)
    run = run_family("smolvlm", *flags)
    assert loaded == [dtype] * 4
    for stage in ("rationale", "classification"):
        assert {value.dtype for value in weights(run, stage).values()} == {torch.float32}, "small steps need it"
    assert_predictions(run, few)


TEXTS: dict[str, Any] = {"samples": 2, "max_new_tokens": 4}
ANSWERS: dict[str, Any] = {"max_new_tokens": 4}
BLIND: dict[str, Any] = {
    "kind": "write",
    "model": {"prompts": {"hint": "blind"}, "writer": {**TEXTS, "temperature": 1.0}},
}
ONE_EPOCH: dict[str, Any] = {"trainer": {"max_epochs": 1}}
# one chain, so that a family's model is loaded by one run
EVERYTHING: dict[str, Any] = {
    "methods": {
        "everything": [
            *("write", "joint", "rewrite", "reasoned", "explore", "preference", "self_distil", "policy"),
            *("answer", "distil", "test", "rationale_probe", "test_argued", "test_gated", "demonstrations"),
            *("caption_probe", "combine", "probe"),
        ]
    },
    "data": {"batch_size": 2},
    "stages": {
        "joint": ONE_EPOCH,
        "rewrite": BLIND,
        "reasoned": ONE_EPOCH,
        "explore": BLIND,
        "preference": ONE_EPOCH,
        "self_distil": {**ONE_EPOCH, "model": {"objective": {"init_args": TEXTS}}},
        "policy": {**ONE_EPOCH, "model": {"objective": {"init_args": {**TEXTS, "grounding": 0.5}}}},
        "answer": {"model": {"answering": {"samples": 2, "temperature": 1.0, **ANSWERS}}},
        "distil": ONE_EPOCH,
        "test": {"model": {"answering": {"mode": "rationale", **ANSWERS}}},
        "test_argued": {"kind": "test", "model": {"answering": {"mode": "argued", **ANSWERS}}},
        "test_gated": {"kind": "test", "model": {"answering": {"mode": "gated", "gate": 0.9, **ANSWERS}}},
        "combine": {"probe_weight": 0.5},
    },
}


@pytest.mark.parametrize(
    "family", [pytest.param(name, marks=() if name == "qwen3_vl" else pytest.mark.slow) for name in FAMILIES]
)
def test_every_method(
    family: str,
    tmp_path: Path,
    clips: Path,
    family_folder: Callable[[str], Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # a random model states no class: its texts conclude one way and the other, so that some can be preferred
    classes, decode = itertools.cycle(CLASSES), ClipProcessor.decode
    monkeypatch.setattr(ClipProcessor, "decode", lambda self, ids: f"{decode(self, ids)} so {next(classes)}")
    config = write_experiment(tmp_path / "everything.yaml", clips, family_folder(family), EVERYTHING)
    run = run_experiment(config, tmp_path / "runs", method="everything")
    before: dict[str, torch.Tensor] = {}
    for stage in ("joint", "reasoned", "preference", "self_distil", "policy", "distil"):
        now = weights(run, stage)
        assert all(value.isfinite().all() for value in now.values()), stage
        # these begin at zero
        learned = {name: value for name, value in now.items() if "lora_B" in name}
        moved = max(float((value - before.get(name, value * 0)).abs().max()) for name, value in learned.items())
        assert moved > 1e-4, f"{stage} learned nothing"
        before = now
    for stage in EVERYTHING["methods"]["everything"][10:]:
        predictions = rows(run.folder / stage / "predictions.jsonl")
        assert len(predictions) == 5, stage
        assert all(sum(row["probabilities"]) == pytest.approx(1, abs=1e-9) for row in predictions), stage
