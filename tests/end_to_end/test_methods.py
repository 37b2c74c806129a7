"""Stages that learn from the model's own texts: interrupted, and on two processes, they end at the same weights."""

from __future__ import annotations

import itertools
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from tests.end_to_end.test_ddp import ADAPTER, PROPORTIONAL, on_two
from tests.support.runs import CLASSES, digests, fit, run_experiment, signal_once, write_experiment

from rbft.experiment import lay_over
from rbft.vlm.processing import ClipProcessor

pytest_plugins = ["tests.support.run_fixtures"]

WRITES: dict[str, Any] = {"samples": 2, "max_new_tokens": 4}
METHODS: dict[str, Any] = {
    "methods": {
        "self_distil": ["self_distil"],
        "policy": ["policy"],
        "reasoned": ["rewrite", "reasoned"],
        "preference": ["explore", "preference"],
        "distil": ["answer", "distil"],
        "preference_hinted": ["write_both", "preference_hinted"],
    },
    "stages": {
        "self_distil": {"trainer": {"max_epochs": 1}, "model": {"objective": {"init_args": WRITES}}},
        "policy": {
            "trainer": {"max_epochs": 1},
            "model": {"objective": {"init_args": {**WRITES, "grounding": 0.5, "length_penalty": 0.5}}},
        },
        "reasoned": {"trainer": {"max_epochs": 1}},
        "preference": {"trainer": {"max_epochs": 1}},
        "answer": {"model": {"answering": {"samples": 2, "temperature": 1.0, "max_new_tokens": 4}}},
        "distil": {"trainer": {"max_epochs": 1}},
        "write_both": {"kind": "write", "model": {"writer": {"contrast": True, "samples": 2, "temperature": 1.0}}},
        "preference_hinted": {
            "kind": "preference",
            "trainer": {"max_epochs": 1},
            "model": {"objective": {"init_args": {"between": "hints"}}},
        },
    },
}


@pytest.fixture
def model(family_folder: Callable[[str], Path]) -> Path:
    return family_folder("qwen2_5_vl")


@pytest.fixture
def prepare(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, Path, Path], None]:
    """Has texts that conclude one way and the other lie in a run that prefers some: a random model states no class."""
    writing = {"preference": "explore", "preference_hinted": "write_both"}
    decode = ClipProcessor.decode

    def write(method: str, config: Path, root: Path) -> None:
        if method not in writing:
            return
        classes = itertools.cycle(CLASSES)
        with monkeypatch.context() as patch:
            patch.setattr(ClipProcessor, "decode", lambda self, ids: f"{decode(self, ids)} so {next(classes)}")
            wrote = fit("--config", config, "--run_root", root, "--method", method, "--stage", writing[method])
        assert wrote.code == 0, wrote.err

    return write


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS["methods"])
def test_a_stopped_stage_goes_on_with_the_same_texts(
    tmp_path: Path, clips: Path, model: Path, method: str, prepare: Callable[[str, Path, Path], None]
) -> None:
    whole = write_experiment(tmp_path / "tiny.yaml", clips, model, METHODS)
    prepare(method, whole, tmp_path / "whole")
    undisturbed = run_experiment(whole, tmp_path / "whole", method=method)
    changes = lay_over(METHODS, signal_once(tmp_path, signal.SIGINT, "train", 2))
    config = write_experiment(tmp_path / "tiny.yaml", clips, model, changes)
    flags = ("--config", config, "--run_root", tmp_path / "runs", "--method", method)
    prepare(method, config, tmp_path / "runs")
    assert fit(*flags).code == 130
    again = fit(*flags)
    assert again.code == 0, again.err
    assert f"{method}: continuing where it stopped" in again.out
    folder = tmp_path / "runs" / "tiny" / method / "seed0" / method
    assert digests(folder, "adapter/*") == digests(undisturbed.folder / method, "adapter/*")
    learnt = load_file(folder / ADAPTER)
    assert max(float(value.abs().max()) for name, value in learnt.items() if "lora_B" in name) > 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS["methods"])
def test_two_processes_make_the_same_steps(
    tmp_path: Path, clips: Path, model: Path, method: str, prepare: Callable[[str, Path, Path], None]
) -> None:
    config = write_experiment(tmp_path / "tiny.yaml", clips, model, lay_over(METHODS, PROPORTIONAL))
    for root in ("one", "two"):
        prepare(method, config, tmp_path / root)
    one = run_experiment(config, tmp_path / "one", method=method)
    result = on_two(config, tmp_path / "two", "--data.batch_size", "2", "--method", method)
    assert result.code == 0, result.err
    two = tmp_path / "two" / "tiny" / method / "seed0"
    mine, theirs = load_file(two / method / ADAPTER), load_file(one.folder / method / ADAPTER)
    largest = max(float(value.abs().max()) for name, value in theirs.items() if "lora_B" in name)
    assert largest > 0
    for name, value in theirs.items():
        assert float((mine[name] - value).abs().max()) < max(1e-6, 1e-3 * largest), name
