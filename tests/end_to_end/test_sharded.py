"""A model spread over processes learns, scores, writes, saves and resumes as one that is whole."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from safetensors.torch import load_file
from tests.support import sharded
from tests.support.models import load
from tests.support.runs import (
    Result,
    digests,
    fit,
    fit_elsewhere,
    rows,
    run_experiment,
    signal_once,
    write_experiment,
)
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import DTensor
from torch.testing import assert_close

from rbft.errors import ConfigError
from rbft.training.checkpoint import MANIFEST, checkpoints, commit
from rbft.training.sharding import ShardedStrategy, shard
from rbft.vlm.master_weights import hold_in_float32
from rbft.vlm.model import VLM
from rbft.vlm.model_parts import parts_of
from rbft.vlm.sharded import is_sharded
from rbft.vlm.tuning import FullFineTuning, LoRA, Tuning, load_trained, save_trained, trained_state

pytest_plugins = ["tests.support.run_fixtures"]

ONE = ("--trainer.devices", "1", "--trainer.strategy", "fsdp2")
TWO = ("--trainer.devices", "2", "--trainer.strategy", "fsdp2")
ALL = '{"class_path": "FullFineTuning", "init_args": {"projector": "train", "vision": "train"}}'
# An epsilon far above the gradients makes AdamW's step proportional to them, where its usual one hides their size.
PROPORTIONAL = {
    "data": {"batch_size": 4},
    "trainer": {"accumulate_grad_batches": 1},
    "model": {"optim": {"lr": 30.0, "eps": 1000.0, "schedule": "constant"}},
}


# -- in this process, over a mesh of one


@pytest.fixture
def mesh() -> Iterator[DeviceMesh]:
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield init_device_mesh("cpu", (1,))
    dist.destroy_process_group()


def spread_parts(vlm: VLM) -> set[str]:
    parts = parts_of(vlm.model)
    return {parts[name] for name, value in vlm.model.named_parameters() if isinstance(value, DTensor)}


@pytest.mark.parametrize(
    ("tuning", "parts"),
    [
        (FullFineTuning(), {"language"}),
        (LoRA(rank=2), {"language"}),
        (FullFineTuning(projector="train"), {"language", "projector", "vision"}),
    ],
)
@pytest.mark.parametrize("family", ["qwen3_vl", "llava_onevision"])
def test_what_is_sharded(
    family: str, tuning: Tuning, parts: set[str], mesh: DeviceMesh, family_folder: Callable[[str], Path]
) -> None:
    loaded = load(family_folder(family), tuning)
    names = [name for name, _ in loaded.vlm.named_parameters()]
    prompt, target = loaded.inputs("what?", sharded.make_clip(0)), loaded.target("what?", "yes")
    before, _ = loaded.vlm.target_log_probs([prompt], [target])
    shard(loaded.vlm, mesh)
    assert is_sharded(loaded.vlm)
    assert spread_parts(loaded.vlm) == parts, "what is not trained and encodes clips stays whole"
    assert all(isinstance(value, DTensor) for value in trained_state(loaded.vlm).values())
    assert [name for name, _ in loaded.vlm.named_parameters()] == names
    after, _ = loaded.vlm.target_log_probs([prompt], [target])
    assert_close(after, before, rtol=0, atol=0)
    after.sum().backward()
    assert all(
        value.grad is not None
        for name, value in loaded.vlm.named_parameters()
        if "layers.0" in name and value.requires_grad and "lora_A" not in name
    )
    assert all(isinstance(value, DTensor) for value in trained_state(loaded.vlm).values()), "given up after a pass"


@pytest.mark.parametrize("tuning", [FullFineTuning(), LoRA(rank=2)])
def test_saved_whole_and_read_by_a_whole_model(
    tuning: Tuning, mesh: DeviceMesh, tmp_path: Path, family_folder: Callable[[str], Path]
) -> None:
    torch.manual_seed(1)
    spread = load(family_folder("qwen2_5_vl"), tuning).vlm
    wanted = {name: value.clone() for name, value in trained_state(spread.model).items()}
    shard(spread, mesh)
    save_trained(spread.model, tmp_path / "none", write=False)
    assert not (tmp_path / "none").exists()
    save_trained(spread.model, tmp_path / "adapter")
    torch.manual_seed(2)
    whole = load(family_folder("qwen2_5_vl"), tuning).vlm
    load_trained(whole.model, tmp_path / "adapter")
    assert_close(trained_state(whole.model), wanted, rtol=0, atol=0)


def test_adapters_beside_weights_in_half_precision(mesh: DeviceMesh, family_folder: Callable[[str], Path]) -> None:
    loaded = load(family_folder("qwen2_5_vl"), LoRA(rank=2))
    for name, value in loaded.vlm.named_parameters():
        if "lora_" not in name:
            value.data = value.data.bfloat16()
    shard(loaded.vlm, mesh)
    prompt, target = loaded.inputs("what?", sharded.make_clip(0)), loaded.target("what?", "yes")
    log_probs, _ = loaded.vlm.target_log_probs([prompt], [target])
    log_probs.sum().backward()
    gradients = [value.grad for name, value in loaded.vlm.named_parameters() if "lora_B" in name]
    assert all(gradient is not None and gradient.dtype == torch.float32 for gradient in gradients)


def test_trained_in_float32_beside_weights_in_half_precision(
    mesh: DeviceMesh, family_folder: Callable[[str], Path]
) -> None:
    loaded = load(family_folder("qwen2_5_vl"), FullFineTuning(projector="train"))
    model = loaded.vlm.base.bfloat16()
    vlm = VLM(model, loaded.processor.pad_id, loaded.processor.end_ids, hold_in_float32(model))
    shard(vlm, mesh)
    prompt, target = loaded.inputs("what?", sharded.make_clip(0)), loaded.target("what?", "yes")
    log_probs, _ = vlm.target_log_probs([prompt], [target])
    log_probs.sum().backward()
    trained = [value for value in vlm.parameters() if value.requires_grad]
    assert {value.dtype for value in trained} == {torch.float32}
    assert all(value.grad is not None and value.grad.dtype == torch.float32 for value in trained)


def test_weights_that_cannot_be_gathered_together(mesh: DeviceMesh, family_folder: Callable[[str], Path]) -> None:
    loaded = load(family_folder("qwen2_5_vl"), FullFineTuning())
    norm = loaded.vlm.base.get_decoder().layers[0].input_layernorm
    norm.weight.data = norm.weight.data.bfloat16()
    with pytest.raises(ConfigError, match=r"DecoderLayer are trained in bfloat16 and float32.*strategy ddp"):
        shard(loaded.vlm, mesh)
    assert not is_sharded(loaded.vlm)


def test_scaled_half_precision_is_refused() -> None:
    strategy = ShardedStrategy()
    strategy.precision_plugin = type("Scaled", (), {"scaler": object()})()
    with pytest.raises(ConfigError, match=r"16-mixed.*bf16-mixed"):
        strategy.setup_environment()


def test_a_place_is_whole_or_absent(
    tmp_path: Path, clips: Path, family_folder: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed between the shards and the file that names them, a stage goes on from the place before."""
    base = family_folder("qwen2_5_vl")
    config = write_experiment(tmp_path / "tiny.yaml", clips, base, PROPORTIONAL)
    flags = ("--stage", "classification", "--model.tuning", "FullFineTuning", "--data.batch_size", "1")
    whole = run_experiment(config, tmp_path / "whole", *flags, method="sft").folder / "classification"

    saved: list[dict[str, Any]] = []

    def fails(manifest: Path, files: Any, about: Any = None) -> None:
        saved.append(files)
        if len(saved) == 3:
            raise OSError("killed")
        commit(manifest, files, about)

    spread = ("--config", config, "--run_root", tmp_path / "spread", "--method", "sft", *flags, *ONE)
    with monkeypatch.context() as patch, pytest.raises(OSError, match="killed"):
        patch.setattr("rbft.training.sharding.commit", fails)
        fit(*spread)
    folder = tmp_path / "spread" / "tiny" / "sft" / "seed0" / "classification"
    names = sorted(path.name for path in (folder / "checkpoints").iterdir())
    assert names == [MANIFEST, "place-1", "place-2", "place-3"], "two places, and one that nothing names"
    assert [place.number for place in checkpoints(folder / "checkpoints" / MANIFEST)] == [2, 1]
    again = fit(*spread)
    assert again.code == 0, again.err
    assert "classification: continuing where it stopped" in again.out
    assert_same_weights(folder, whole, base / "model.safetensors")


# -- two processes


@pytest.mark.slow
def test_processes_that_end_their_answers_at_different_steps(
    tmp_path: Path, family_folder: Callable[[str], Path]
) -> None:
    folder = family_folder("qwen2_5_vl")
    loaded = load(folder)
    free = sharded.write(loaded, sharded.prompts(loaded), ())
    # the first answer ends with its second token, where the others go on
    ends = (next(token for token in free[0][1:] if all(token not in other for other in free[1:])),)
    answers = sharded.write(loaded, sharded.prompts(loaded), ends)
    assert len(answers[0]) < min(len(answers[1]), len(answers[2])) == sharded.TOKENS
    shares = ((0,), (1, 2))
    mp.spawn(sharded.write_unevenly, (folder, ends, shares, tmp_path), nprocs=2)
    for rank, share in enumerate(shares):
        assert torch.load(tmp_path / f"{rank}.pt", weights_only=True) == [answers[i] for i in share]


def on_two(config: Path, root: Path, *flags: str) -> Result:
    return fit_elsewhere("--config", config, "--run_root", root, *TWO, *flags)


def assert_same_weights(folder: Path, other: Path, base: Path) -> None:
    mine, theirs, start = (
        load_file(path)
        for path in (folder / "adapter" / "trained.safetensors", other / "adapter" / "trained.safetensors", base)
    )
    assert mine.keys() == theirs.keys()
    assert max(float((theirs[name] - start[name]).abs().max()) for name in theirs if name in start) > 1e-4, "moved"
    for name, value in theirs.items():
        assert_close(mine[name], value, rtol=0, atol=1e-6, msg=lambda text, name=name: f"{name}: {text}")


def assert_same_predictions(folder: Path, other: Path) -> None:
    mine, theirs = (rows(path / "predictions.jsonl") for path in (folder, other))
    assert [row["video"] for row in mine] == [row["video"] for row in theirs]
    for row, reference in zip(mine, theirs, strict=True):
        assert row["probabilities"] == pytest.approx(reference["probabilities"], abs=1e-5)


@pytest.mark.slow
def test_whole_run(tmp_path: Path, clips: Path, family_folder: Callable[[str], Path]) -> None:
    """All parts trained, clipped gradients, micro-batches and recomputed activations; a shorter last batch."""
    base = family_folder("qwen3_vl")
    config = write_experiment(tmp_path / "tiny.yaml", clips, base, PROPORTIONAL)
    flags: Any = ("--model.tuning", ALL, "--trainer.gradient_clip_val", "0.1")
    cut = ("--data.batch_size", "1", "--trainer.accumulate_grad_batches", "2")
    checks = ("--model.checks", '[{"class_path": "Reconstruction"}]')  # read by the model, on all processes
    result = on_two(config, tmp_path / "two", *flags, *cut, *checks, "--model.activation_checkpointing", "true")
    assert result.code == 0, result.err
    one = run_experiment(config, tmp_path / "one", *flags, *checks).folder
    two = tmp_path / "two" / "tiny" / "rbft" / "seed0"
    for mine, theirs in zip(*(rows(run / "write" / "rationales.jsonl") for run in (two, one)), strict=True):
        assert mine.pop("scores") == pytest.approx(theirs.pop("scores"), abs=1e-5)
        assert mine == theirs
    for stage in ("rationale", "classification"):
        assert_same_weights(two / stage, one / stage, base / "model.safetensors")
        assert not (two / stage / "checkpoints").exists()
    assert_same_predictions(two, one)

    # whole weights of the two processes, scored by one
    shutil.rmtree(two / "test")
    again = fit("--config", config, "--run_root", tmp_path / "two", *flags, *cut, *checks, "--stage", "test")
    assert again.code == 0, again.err
    assert_same_predictions(two, one)


@pytest.mark.slow
def test_stopped_and_continued(tmp_path: Path, clips: Path) -> None:
    """The built-in model, whose embedding is its head; weights handed on from a whole model."""
    config = write_experiment(tmp_path / "tiny.yaml", clips, Path("builtin/tiny"), PROPORTIONAL)
    tuning = ("--model.tuning", "FullFineTuning", "--data.batch_size", "1")
    run_experiment(config, tmp_path / "stopped", *tuning, "--stage", "write")
    run_experiment(config, tmp_path / "stopped", *tuning, "--stage", "rationale")
    shutil.copytree(tmp_path / "stopped", tmp_path / "whole")
    stage = (*tuning, "--stage", "classification")
    undisturbed = on_two(config, tmp_path / "whole", *stage)
    assert undisturbed.code == 0, undisturbed.err
    wanted = digests(tmp_path / "whole" / "tiny" / "rbft" / "seed0" / "classification", "adapter/*")

    changes = signal_once(tmp_path, signal.SIGTERM, "train", 1)
    # of this stage alone: a training that was finished without a callback is another one
    write_experiment(config, clips, Path("builtin/tiny"), {**PROPORTIONAL, "stages": {"classification": changes}})
    assert on_two(config, tmp_path / "stopped", *stage).code == 143
    folder = tmp_path / "stopped" / "tiny" / "rbft" / "seed0" / "classification"
    kept = sorted(path.name for path in (folder / "checkpoints").iterdir())
    assert kept[0] == MANIFEST and kept[-1].startswith("place-"), "the place at which it was stopped"
    assert sorted(path.name for path in (folder / "checkpoints" / kept[-1]).iterdir()) == ["rank0.ckpt", "rank1.ckpt"]

    alone = fit("--config", config, "--run_root", tmp_path / "stopped", *stage)
    assert alone.code == 1
    assert "fsdp2" in alone.err and "--restart" in alone.err
    again = on_two(config, tmp_path / "stopped", *stage)
    assert again.code == 0, again.err
    assert "classification: continuing where it stopped" in again.out
    assert digests(folder, "adapter/*") == wanted
