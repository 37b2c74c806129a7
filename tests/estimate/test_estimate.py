"""What a run will cost: told before it runs, refused where it cannot work, and right about what is done how often."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from tests.support.runs import fit, write_clips, write_experiment
from tests.support.videos import write_video

from rbft.__main__ import main
from rbft.errors import ModelError
from rbft.estimate import device
from rbft.estimate.clip_costs import ClipCosts, describe_clips
from rbft.estimate.device import Device, Speed, device_of, measure_speed
from rbft.estimate.estimate import Estimator
from rbft.estimate.report import about_bytes, about_seconds, memory_findings, refuse_certain
from rbft.estimate.stage_cost import (
    Memory,
    Row,
    StageEstimate,
    scoring_memory,
    training_work,
    writing_memory,
    writing_work,
)
from rbft.experiment import read_experiment
from rbft.pipeline.prepare import prepare
from rbft.terminal import make_console
from rbft.vlm.cost import UnknownCostError, model_size
from rbft.vlm.tuning import FullFineTuning, LoRA

CPU = Device("CPU", "cpu", 1, None)
SPEED = Speed(1e9, 1e9, 1e-9)


@pytest.fixture
def config(tmp_path: Path, family_folder: Callable[[str], Path]) -> Path:
    """Six training clips, two for validation, five for the test; three optimiser steps an epoch."""
    return write_experiment(tmp_path / "small.yaml", write_clips(tmp_path / "clips"), family_folder("qwen2_5_vl"))


@pytest.fixture(autouse=True)
def no_time_for_the_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    """Times are to be the same twice."""
    monkeypatch.setattr(ClipCosts, "seconds_a_row", lambda _: 0.0)


def estimates(config: Path, *flags: str, method: str = "rbft", device: Device = CPU) -> dict[str, StageEstimate]:
    args = ["--config", str(config), "--method", method, *flags]
    prepared = prepare(read_experiment(args), make_console())
    return {one.name: one for one in Estimator(device, lambda _: SPEED).stages(prepared)}


def test_a_video_that_the_processor_refuses_is_named(config: Path):
    folder = next(path for path in (config.parent / "clips" / "train").iterdir())
    write_video(folder / "wide.mkv", np.zeros((3, 2, 1000, 3), np.uint8), codec="ffv1", pix_fmt="bgr0")
    with pytest.raises(ModelError, match=r"wide.mkv: the model's processor refuses a clip of .*\. Take the video out"):
        estimates(config)


def test_rows_steps_and_tokens(config: Path):
    found = estimates(config, "--model.scoring.max_tokens", "64")
    assert {name: (one.rows, one.steps) for name, one in found.items()} == {
        "write": (6, 2),  # batches of four
        "rationale": (6, 6),  # two epochs
        "classification": (6, 3),
        "test": (5, 2),
    }
    low, _, high = found["classification"].tokens
    assert low < high  # the classes' names differ in length
    # a rationale of six tokens, and its conclusion
    assert found["rationale"].tokens[2] > found["write"].tokens[2] - found["write"].tokens[1] + 6
    assert found["write"].memory.cache > 0 and found["write"].memory.training == 0
    assert found["rationale"].memory.training > 0
    assert all(one.seconds > 0 for one in found.values())


def test_models_are_built_once_for_all_stages_that_tune_alike(config: Path, monkeypatch: pytest.MonkeyPatch):
    built: list[object] = []

    def watched(*settings, mixed):
        built.append(settings[-1])
        return model_size(*settings, mixed=mixed)

    monkeypatch.setattr("rbft.estimate.clip_costs.model_size", watched)
    same = estimates(config)
    assert len(built) == 1
    path = config.with_name("full.yaml")
    content = yaml.safe_load(config.read_text())
    content["stages"]["classification"] |= {"model": {"tuning": {"class_path": "FullFineTuning"}}}
    path.write_text(yaml.safe_dump(content))
    other = estimates(path)
    assert [type(tuning) for tuning in built[1:]] == [LoRA, FullFineTuning]
    assert other["classification"].memory.training > same["classification"].memory.training


def test_steps_are_those_that_are_run(config: Path, tmp_path: Path):
    samples = ("--model.writer.temperature", "1", "--model.writer.samples", "2")
    found = estimates(config, *samples, method="joint")
    result = fit("--config", config, "--run_root", tmp_path / "runs", "--method", "joint", *samples)
    assert result.code == 0, result.err
    assert "estimate: " in result.out and "MB of memory at most (in " in result.out
    assert f"18 rows an epoch, {found['joint'].steps} steps" in result.out
    record = json.loads((tmp_path / "runs/small/joint/seed0/joint/stage.json").read_text())
    assert record["summary"]["steps"] == found["joint"].steps


def test_max_steps_cuts_the_work(config: Path):
    whole, cut = estimates(config), estimates(config, "--trainer.max_steps", "1")
    assert cut["rationale"].steps == 1 and cut["rationale"].seconds < whole["rationale"].seconds


def test_validations_count_as_often_and_as_they_are_made(config: Path):
    # of two epochs
    flags = {"each": (), "second": ("--trainer.check_val_every_n_epoch=2",), "none": ("--trainer.limit_val_batches=0",)}
    flags |= {"halves": ("--trainer.val_check_interval=0.5",), "batches": ("--trainer.val_check_interval=3",)}
    took = {name: estimates(config, *said)["rationale"].seconds for name, said in flags.items()}
    once = took["each"] - took["second"]
    assert once > 0
    assert took["second"] - took["none"] == pytest.approx(once)
    assert took["halves"] - took["none"] == pytest.approx(4 * once)
    assert took["batches"] == pytest.approx(took["halves"])
    # where the best epoch is chosen by what the model writes, it writes about each validation video in each epoch
    best = ("--model.selection.weights", "best", "--model.writer.max_new_tokens", "200")
    chosen = estimates(config, *best)
    assert chosen["rationale"].seconds - took["none"] > 50 * once
    label = estimates(config, "--model.selection.weights", "best")["classification"].seconds
    assert chosen["classification"].seconds == pytest.approx(label)


def test_all_answers_about_a_clip_are_one_row(config: Path):
    flags = ("--model.writer.temperature", "1", "--model.writer.samples")
    one, three = (estimates(config, *flags, samples, method="joint")["joint"] for samples in ("1", "3"))
    assert one.rows == three.rows == 6 and one.steps == three.steps == 3
    # two more rationales of six tokens and their conclusions, and no clip
    assert 12 < three.tokens[0] - one.tokens[0] < one.tokens[0]


def test_kept_features_are_encoded_once(config: Path):
    cached, anew = (estimates(config, "--data.cache_features", value) for value in ("true", "false"))
    # the write stage leaves them for the training stages
    assert cached["write"].seconds == pytest.approx(anew["write"].seconds, rel=0.3)
    assert cached["rationale"].seconds < anew["rationale"].seconds
    trained = ("--model.tuning", "FullFineTuning", "--model.tuning.vision", "train")
    cached, anew = (estimates(config, *trained, "--data.cache_features", value) for value in ("true", "false"))
    assert cached["rationale"].seconds == pytest.approx(anew["rationale"].seconds, rel=0.3)


def test_trainings_of_folds_count_in_what_a_cross_fit_takes(config: Path):
    crossed = estimates(config, "--stages.test.model.answering.choose_on", "crossfit")
    plain = estimates(config, "--stages.test.model.answering.calibrate", "false")
    # eight labelled videos, validation included: four folds, each trained on three of four parts
    trained = crossed["rationale"].seconds + crossed["classification"].seconds
    answered = plain["test"].seconds * 8 / 5  # the labelled videos are answered like the five of the test
    assert crossed["test"].seconds == pytest.approx(plain["test"].seconds + answered + 3 * trained, rel=0.1)
    assert crossed["test"].seconds > 3 * plain["test"].seconds
    assert crossed["test"].memory.total >= crossed["rationale"].memory.total
    assert estimates(config, "--stages.test.model.answering.choose_on", "crossfit", method="zero_shot")["test"].seconds


def test_clips_are_described(config: Path):
    prepared = prepare(read_experiment(["--config", str(config), "--data.max_visual_tokens", "5"]), make_console())
    clips = describe_clips(prepared[-1], {})
    assert clips is not None
    assert clips.ranges["frames"] == (4, 4, 4) and clips.ranges["visual tokens"][2] == clips.most_tokens <= 5
    assert clips.most_video in {record.path for record in prepared[-1].datamodule.records}


def test_the_bound_on_tokens_makes_another_stage(config: Path):
    def fingerprints(*flags: str) -> list[str]:
        return [p.fingerprint for p in prepare(read_experiment(["--config", str(config), *flags]), make_console())]

    assert not set(fingerprints()) & set(fingerprints("--data.max_visual_tokens", "5"))


# -- devices


def test_more_memory_than_there_is_is_a_finding(config: Path):
    found = list(estimates(config).values())
    assert memory_findings(found, CPU) == []
    most = max(found, key=lambda one: one.memory.total)
    small = Device("Small GPU", "cuda", 1, most.memory.total - 1)
    (finding,) = memory_findings(found, small)
    assert finding.kind == "memory" and finding.severity == "error"
    assert repr(most.name) in finding.message and "Small GPU has" in finding.message
    for key in ("batch_size", "data.max_pixels", "data.num_frames"):
        assert key in finding.message
    refuse_certain(found, small)  # another batch may do
    tiny = replace(small, memory=found[0].memory.weights - 1)
    assert len(memory_findings(found, tiny)) == len(found)
    with pytest.raises(ModelError, match=r"the stage 'write' needs about .* \(weights .*Take a smaller model"):
        refuse_certain(found, tiny)


def pretend(monkeypatch: pytest.MonkeyPatch, memory: int) -> None:
    """A GPU of so many bytes; nothing is measured on it, as it is not there."""
    small = Device("Small GPU", "cuda", 1, memory)
    monkeypatch.setattr("rbft.estimate.estimate.device_of", lambda _: small)
    monkeypatch.setattr("rbft.estimate.estimate.measure_speed", lambda *_, **__: SPEED)


def test_fit_refuses_what_cannot_work(config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("rbft.training.module.load_model", lambda *_: pytest.fail("a model was loaded"))
    pretend(monkeypatch, 1000)
    result = fit("--config", config, "--run_root", tmp_path / "runs")
    assert result.code == 1 and "Small GPU has" in result.err and "model.dtype" in result.err


def test_check_reports_what_does_not_fit(config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    most = max(one.memory.total for one in estimates(config).values())
    pretend(monkeypatch, most - 1)
    assert main(["check", "--config", str(config), "--run_root", str(tmp_path / "runs")]) == 1
    document = json.loads((tmp_path / "runs/small/rbft/seed0/check.json").read_text())
    assert [finding["kind"] for finding in document["findings"] if finding["severity"] == "error"] == ["memory"]
    assert document["estimate"]["device"] == {"name": "Small GPU", "processes": 1, "memory": most - 1}
    said = capsys.readouterr().out
    assert "estimate for Small GPU" in said and "Lower data." in said


def test_what_one_device_holds(config: Path, monkeypatch: pytest.MonkeyPatch):
    two, full = replace(CPU, processes=2), ("--model.tuning", "FullFineTuning")
    whole = estimates(config, *full, device=two)["classification"].memory
    spread = estimates(config, *full, "--trainer.strategy", "fsdp2", device=two)["classification"].memory
    assert (spread.weights, spread.training) == (whole.weights // 2, whole.training // 2)
    monkeypatch.setattr("rbft.pipeline.requirements.require_quantizable", lambda *_, **__: None)
    monkeypatch.setenv("RBFT_VLLM_PYTHON", sys.executable)
    bare = estimates(config)
    small = estimates(config, "--model.quantize", "4bit", "--model.writer.vllm", "{}")
    assert 0.1 < small["test"].memory.weights / bare["test"].memory.weights < 0.9
    assert small["write"].memory.total == 0 < bare["write"].memory.total


def test_an_unknown_family_is_run_all_the_same(config: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    def unknown(*_: object) -> None:
        raise UnknownCostError("the cost of a 'new' model is not known: nothing.")

    monkeypatch.setattr(Estimator, "stages", unknown)
    result = fit("--config", config, "--run_root", tmp_path / "runs", "--dry_run")
    assert result.code == 0 and "estimate: none; the cost of a 'new' model is not known" in result.out


def test_device_of_the_settings(monkeypatch: pytest.MonkeyPatch):
    trainer = {"accelerator": "auto", "devices": "auto", "num_nodes": 1}
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert device_of(trainer) == CPU
    assert device_of(trainer | {"devices": 2, "num_nodes": 3}).processes == 6
    about = type("Properties", (), {"name": "GPU", "total_memory": 24_000_000_000})
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: about)
    found = device_of(trainer | {"accelerator": "gpu"})
    assert (found.name, found.kind, found.processes) == ("GPU", "cuda", 4)
    assert found.memory == 24_000_000_000 - device._CONTEXT
    assert device_of(trainer | {"accelerator": "cpu"}).kind == "cpu"


def test_speed_is_measured():
    speed = measure_speed(CPU, torch.float32, seconds=0.1)
    # this very product, timed again: other work on this machine may slow either down
    one = torch.ones((640, 640))
    seconds = device._best_time(lambda: one @ one, CPU)
    assert 0.1 < speed.flops / (2 * 640**3 / seconds) < 10
    assert speed.bytes > 1e7 and 1e-8 < speed.launch < 1e-2


# -- what costs what


@pytest.fixture(scope="module")
def size():
    return model_size("builtin/tiny", None, "float32", None, LoRA())


def test_work_of_training(size):
    rows = [Row(prompt=100, visual=4, pixel_values=10_000, answer=10)]

    def flops(times=1.0, model=size, checkpointing=False, encode=0.0):
        given = [replace(row, encode=encode) for row in rows]
        return training_work(model, given, times, 1, 1, checkpointing=checkpointing, kind="cpu").flops

    forward = size.read_flops(110, 10) + size.head_flops(10)
    assert flops() == 2 * forward and flops(3) == 6 * forward and flops(checkpointing=True) == 3 * forward
    assert flops(model=model_size("builtin/tiny", None, "float32", None, FullFineTuning())) == 3 * forward
    assert flops(encode=1) - flops() == size.vision_flops(10_000, 4) > 0


def test_memory_grows_with_what_makes_it(size):
    rows = [Row(100, 4, 10_000, 10), Row(60, 4, 10_000, 10)]
    one, four = (writing_memory(size, rows, 1, samples).cache for samples in (1, 4))
    assert one == size.kv_cache(110) and four == size.kv_cache(4 * 110 + 100)
    flash = model_size("builtin/tiny", None, "float32", "flash_attention_2", LoRA())
    labels = [torch.arange(3), torch.arange(10, 14)]
    tree, apart = (scoring_memory(model, rows, 2, labels, 4096).cache for model in (size, flash))
    assert tree == size.kv_cache(2 * 100 + 2 * 5) and apart == size.kv_cache(2 * 100 + 4 * 103)
    # 101 labels of 5 tokens after 8 prompts of 1500: not a copy of the prompts for each
    long = [Row(1500, 4, 10_000)] * 8
    many = [torch.arange(6 * number, 6 * number + 6) for number in range(101)]
    assert scoring_memory(flash, long, 8, many, 4096).cache == size.kv_cache(8 * 1500 + 8 * 1505)
    assert scoring_memory(size, long, 8, many, 4096).cache == size.kv_cache(8 * 1500 + 8 * 255), "a tree at a time"
    same = [torch.tensor([1, 2, 3, number]) for number in range(10)]
    assert scoring_memory(size, long, 1, same, 4096).cache == size.kv_cache(1500 + 3), "beginnings stand once"
    work = writing_work(size, rows, 1, 1)
    assert work.bytes == 2 * 10 * size.weight_bytes  # every token of each batch reads all weights


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0 MB"),
        (123, "0.00012 MB"),
        (1_250_000, "1.2 MB"),
        (85_400_000, "85 MB"),
        (999_000_000, "999 MB"),
        (1_240_000_000, "1.2 GB"),
        (83_400_000_000, "83 GB"),
    ],
)
def test_bytes_in_words(value, text):
    assert about_bytes(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, ""),
        (0.01, "about 1 s"),
        (34, "about 30 s"),
        (80, "about 80 s"),
        (1250, "about 20 min"),
        (8000, "about 2 h"),
        (300_000, "about 3 days"),
    ],
)
def test_seconds_in_words(value, text):
    assert about_seconds(value) == text


def test_memory_adds_up():
    memory = Memory(1, 2, 4, 8)
    assert (memory.certain, memory.total) == (3, 15)


def test_upper_layers_cost_less_and_what_is_kept_below_them_is_said(config: Path, capsys: pytest.CaptureFixture[str]):
    whole = ("--model.tuning", "FullFineTuning", "--trainer.max_epochs", "3")
    every = estimates(config, *whole, method="sft")["classification"]
    flags = (*whole, "--model.tuning.layers", "1")
    upper = estimates(config, *flags, method="sft")["classification"]
    anew = estimates(config, *flags, "--data.cache_states", "false", method="sft")["classification"]
    assert every.states == anew.states == 0
    low, _, high = upper.tokens
    assert low * 64 * 4 <= upper.states / upper.rows <= high * 64 * 4, "tokens of width 64 in float32"
    assert upper.memory.training < every.memory.training
    assert upper.seconds is not None and anew.seconds is not None and every.seconds is not None
    assert upper.seconds < anew.seconds < every.seconds
    command = ["fit", "--config", str(config), "--method", "sft", *flags, "--dry_run"]
    assert main(command) == 0
    told = capsys.readouterr().out
    assert "1 upper layer; what leaves those below is kept for later epochs" in told and "of kept states" in told
    assert main([*command, "--data.frames", "random"]) == 0
    assert "is computed in every epoch (data.frames random)" in capsys.readouterr().out


def test_one_upper_layer_is_asked_for_in_a_file(config: Path, capsys: pytest.CaptureFixture[str]):
    """The reader tries two types for the value, and so makes 1.0 of it."""
    content = yaml.safe_load(config.read_text())
    content["model"]["tuning"] = {"class_path": "FullFineTuning", "init_args": {"layers": 1}}
    config.write_text(yaml.safe_dump(content))
    assert main(["fit", "--config", str(config), "--method", "sft", "--dry_run"]) == 0
    assert "trains 1 upper layer;" in capsys.readouterr().out
