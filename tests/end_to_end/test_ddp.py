"""Two processes give what one gives: the same gradients, the same weights, every video once."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from tests.support.runs import (
    Result,
    Run,
    digests,
    fit_elsewhere,
    rows,
    run_experiment,
    signal_once,
    write_experiment,
)
from torch.testing import assert_close

pytest_plugins = ["tests.support.run_fixtures"]

TWO = ("--trainer.devices", "2", "--trainer.strategy", "ddp")
ADAPTER = "adapter/adapter_model.safetensors"

# Dropout draws other masks on other processes. An epsilon far above the gradients makes AdamW's step proportional to
# them, where its usual one hides their size. Six rows in steps of four: the last step is not full.
PROPORTIONAL = {
    "data": {"batch_size": 4},
    "trainer": {"accumulate_grad_batches": 1},
    "model": {"tuning": {"init_args": {"dropout": 0.0}}, "optim": {"lr": 30.0, "eps": 1000.0, "schedule": "constant"}},
}


@pytest.fixture
def experiment(tmp_path: Path, clips: Path, family_folder: Callable[[str], Path]) -> Path:
    return write_experiment(tmp_path / "tiny.yaml", clips, family_folder("qwen2_5_vl"), PROPORTIONAL)


def on_two(config: Path, root: Path, *flags: str) -> Result:
    return fit_elsewhere("--config", config, "--run_root", root, *TWO, *flags)


def assert_same_predictions(folder: Path, other: Path) -> None:
    mine, theirs = (rows(path / "predictions.jsonl") for path in (folder, other))
    assert [row["video"] for row in mine] == [row["video"] for row in theirs]
    for row, reference in zip(mine, theirs, strict=True):
        assert row["probabilities"] == pytest.approx(reference["probabilities"], abs=1e-5)


def assert_same_steps(folder: Path, other: Path, stages: tuple[str, ...]) -> None:
    for stage in stages:
        mine, theirs = load_file(folder / stage / ADAPTER), load_file(other / stage / ADAPTER)
        assert max(float(value.abs().max()) for name, value in theirs.items() if "lora_B" in name) > 1e-2
        for name, value in theirs.items():
            assert_close(mine[name], value, rtol=0, atol=1e-6, msg=lambda text, name=name: f"{name}: {text}")


def test_same_gradients_whether_a_step_is_cut_into_micro_batches(experiment: Path, tmp_path: Path) -> None:
    flags: Any = ("--stage", "classification")
    whole = run_experiment(experiment, tmp_path / "whole", *flags, method="sft")
    cut = ("--data.batch_size", "1", "--trainer.accumulate_grad_batches", "4")
    pieces = run_experiment(experiment, tmp_path / "pieces", *flags, *cut, method="sft")
    assert_same_steps(pieces.folder, whole.folder, ("classification",))


def test_whole_run_on_two_processes(experiment: Path, tmp_path: Path) -> None:
    result = on_two(experiment, tmp_path / "two", "--data.batch_size", "2")
    assert result.code == 0, result.err
    assert "on CPU x 2" in result.out
    assert result.out.count("run folder:") == result.out.count("95% interval") == 1, "one process speaks"
    one = run_experiment(experiment, tmp_path / "one")
    two = tmp_path / "two" / "tiny" / "rbft" / "seed0"

    written = rows(two / "write" / "rationales.jsonl")
    assert written == rows(one.folder / "write" / "rationales.jsonl")
    parts = [rows(path) for path in sorted((two / "write" / "parts").iterdir())]
    assert [len(part) for part in parts] == [4, 2], "both wrote, and no video twice"
    assert_same_steps(two, one.folder, ("rationale", "classification"))
    assert_same_predictions(two, one.folder)
    assert sorted(path.name for path in two.iterdir()) == sorted(path.name for path in one.folder.iterdir())


@pytest.mark.slow
def test_same_predictions_from_the_same_adapters(copy: Run, finished: Run) -> None:
    result = on_two(copy.config, copy.root, "--stage", "test", "--restart")
    assert result.code == 0, result.err
    assert len(rows(copy.folder / "predictions.jsonl")) == 5
    assert_same_predictions(copy.folder, finished.folder)
    assert (copy.folder / "metrics.json").read_bytes() == (finished.folder / "metrics.json").read_bytes()


@pytest.mark.slow
def test_arguing_for_each_class_is_the_same_on_two_processes(experiment: Path, tmp_path: Path) -> None:
    flags = ("--stages.test.model.answering.mode", "argued", "--stages.test.model.answering.max_new_tokens", "6")
    one = run_experiment(experiment, tmp_path / "one", *flags, method="zero_shot")
    result = on_two(experiment, tmp_path / "two", *flags, "--method", "zero_shot")
    assert result.code == 0, result.err
    two = tmp_path / "two" / "tiny" / "zero_shot" / "seed0"
    assert_same_predictions(two, one.folder)
    assert all(row["rationale"].count("\n\n") == 1 for row in rows(two / "predictions.jsonl"))


@pytest.fixture(scope="module")
def undisturbed(finished: Run, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Hashes of what stage 1 leaves when two processes run it to its end."""
    root = tmp_path_factory.mktemp("undisturbed")
    shutil.copytree(finished.root, root, dirs_exist_ok=True)
    folder = root / finished.folder.relative_to(finished.root) / "rationale"
    result = on_two(finished.config, root, "--stage", "rationale", "--restart")
    assert result.code == 0, result.err
    return digests(folder, "adapter/*")


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_stopped_on_two_processes(
    number: signal.Signals,
    code: int,
    copy: Run,
    undisturbed: dict[str, str],
    clips: Path,
    family_folder: Callable[[str], Path],
) -> None:
    shutil.rmtree(copy.folder / "rationale")
    changes = signal_once(copy.config.parent, number, "train", 1)
    write_experiment(copy.config, clips, family_folder("qwen2_5_vl"), changes)
    stopped = on_two(copy.config, copy.root, "--stage", "rationale")
    assert stopped.code == code, stopped.err
    assert stopped.err.count("To continue: ") == 1, "one process speaks"
    again = on_two(copy.config, copy.root, "--stage", "rationale")
    assert again.code == 0, again.err
    assert "rationale: continuing where it stopped" in again.out
    assert digests(copy.folder / "rationale", "adapter/*") == undisturbed


@pytest.mark.slow
def test_a_trained_tower_with_weights_that_nothing_reads(
    tmp_path: Path, clips: Path, family_folder: Callable[[str], Path]
) -> None:
    tuning = {"class_path": "LoRA", "init_args": {"rank": 2, "dropout": 0.0, "vision": "train"}}
    changes = {**PROPORTIONAL, "model": {**PROPORTIONAL["model"], "tuning": tuning}}
    experiment = write_experiment(tmp_path / "tiny.yaml", clips, family_folder("llava_onevision"), changes)
    flags = ("--method", "sft", "--stage", "classification", "--data.batch_size", "2")
    result = on_two(experiment, tmp_path / "two", *flags)
    assert result.code == 0, result.err
    one = (
        run_experiment(experiment, tmp_path / "one", "--stage", "classification", method="sft").folder
        / "classification"
        / "adapter"
    )
    two = tmp_path / "two" / "tiny" / "sft" / "seed0" / "classification" / "adapter"
    mine, theirs = (load_file(folder / "trained.safetensors") for folder in (two, one))
    assert any("post_layernorm" in name for name in theirs)
    for name, value in theirs.items():
        assert_close(mine[name], value, rtol=0, atol=1e-5, msg=lambda text, name=name: f"{name}: {text}")
