"""The method `encoder_probe` from end to end: a frozen encoder sees the clips, and a linear classifier is fitted."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from tests.support.documents import blocks
from tests.support.encoders import MODELS, make_encoder
from tests.support.runs import Run, digests, fit, fit_elsewhere, rows, run_experiment, signal_once, write_experiment
from transformers import TimesformerConfig, TimesformerModel

from rbft.__main__ import main
from rbft.encoders.encoder import ClipPixels, VideoEncoder
from rbft.encoders.loading import EncoderFiles
from rbft.evaluation.linear_probe import STRENGTHS, fit_probe
from rbft.video.clip import read_clip
from rbft.video.clip_spec import ClipSpec
from rbft.video.sampling import FrameSampling

pytest_plugins = ["tests.support.run_fixtures"]
METHOD = ("--method", "encoder_probe")


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("encoders") / "videomae"
    make_encoder(folder, "videomae")
    return folder


@pytest.fixture(scope="module")
def experiment(
    tmp_path_factory: pytest.TempPathFactory, clips: Path, family_folder: Callable[[str], Path], encoder: Path
) -> Callable[..., Path]:
    """Writes an experiment whose kept clips and features are its own."""

    def write(**changes: Any) -> Path:
        folder = tmp_path_factory.mktemp("experiment")
        settings = {
            "model": {"encoder": {"folder": str(encoder)}},
            "data": {"cache_dir": str(folder / "cache")},
            **changes,
        }
        return write_experiment(folder / "tiny.yaml", clips, family_folder("qwen2_5_vl"), settings)

    return write


@pytest.fixture(scope="module")
def probed(experiment: Callable[..., Path]) -> Run:
    config = experiment()
    return run_experiment(config, config.parent / "runs", method="encoder_probe")


def summary(run: Run) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run.folder / "encoder_probe" / "stage.json").read_text())["summary"]
    return found


def test_it_needs_no_stage_in_the_file_and_leaves_what_a_test_leaves(probed):
    record = json.loads((probed.folder / "encoder_probe" / "stage.json").read_text())
    metrics = json.loads((probed.folder / "metrics.json").read_text())
    assert {"predictions.jsonl", "metrics.json", "validation.jsonl"} <= record["outputs"].keys()
    assert (summary(probed)["rows"], summary(probed)["features"], summary(probed)["frames"]) == (8, 48, 4)
    assert summary(probed)["l2"] in STRENGTHS and summary(probed)["chosen_on"] == "folds"
    assert (metrics["test/num_videos"], metrics["labels/training"], metrics["labels/choosing"]) == (5, 8, 0)
    assert (probed.folder / "report.html").is_file()
    assert not (probed.folder / "encoder_probe" / "adapter").exists(), "nothing is trained"
    said = " ".join(probed.result.out.split())
    assert "13 videos encoded once by VideoMAE in" in said
    assert (
        "(4 frames, 2 positions in time, ordered features), a linear classifier fitted to 8 of them, 5 tested" in said
    )
    assert "model: none beside the encoder, on CPU" in said and "(in encoder_probe)" in said
    assert len(rows(probed.folder / "encoder_probe" / "validation.jsonl")) == 8


def by_hand(encoder: Path, clips: Path) -> dict[str, np.ndarray]:
    """Features of each video by transformers alone, from frames that the package's reader gives."""
    files = EncoderFiles(str(encoder))
    pixels, model = ClipPixels(files), VideoEncoder(files, "auto")
    spec = ClipSpec(FrameSampling(num_frames=4))
    found = {}
    for path in sorted(clips.rglob("*.mp4")):
        tokens = model.model(pixel_values=pixels(read_clip(path, spec).frames)[None]).last_hidden_state[0]
        found[str(path.relative_to(clips))] = torch.cat([tokens[:4].mean(0), tokens[4:].mean(0)]).double().numpy()
    return found


def test_its_answers_are_those_of_a_classifier_of_all_labelled_clips(probed, encoder, clips):
    found = by_hand(encoder, clips)
    labelled = [name for name in found if not name.startswith("test")]
    labels = np.array([int("turns" in name) for name in labelled])
    fitted = fit_probe(np.array([found[name] for name in labelled]), labels, 2, summary(probed)["l2"])
    for row in rows(probed.folder / "predictions.jsonl"):
        expected = np.exp(fitted.log_probabilities(found[row["video"]][None]))[0]
        assert row["probabilities"] == pytest.approx(expected.tolist(), abs=1e-4)


def test_what_was_encoded_is_not_encoded_again(probed, tmp_path, monkeypatch):
    """By a run with other features of the same positions, too; without kept features the bytes are the same."""
    whole = fit("--config", probed.config, "--run_root", tmp_path, *METHOD, "--data.cache_features", "false")
    assert whole.code == 0, whole.err
    folder = tmp_path / "tiny/encoder_probe/seed0"
    assert digests(folder, "predictions.jsonl") == digests(probed.folder, "predictions.jsonl")

    def forward(*_: Any) -> Any:
        raise AssertionError("it was encoded before")

    monkeypatch.setattr(VideoEncoder, "forward", forward)
    other = ("--model.encoder.features", "mean", "--variant", "mean")
    again = fit("--config", probed.config, "--run_root", tmp_path, *METHOD, *other)
    assert again.code == 0, again.err
    record = json.loads((tmp_path / "tiny/mean/seed0/encoder_probe/stage.json").read_text())
    assert record["summary"]["features"] == 24
    third = fit("--config", probed.config, "--run_root", tmp_path, *METHOD, *other)
    assert "everything was done already" in third.out


def test_an_interrupted_stage_goes_on(probed, tmp_path, experiment, monkeypatch):
    config = experiment(**signal_once(tmp_path, signal.SIGTERM, "predict", 1))
    assert fit("--config", config, "--run_root", tmp_path / "runs", *METHOD).code == 143
    encoded: list[int] = []
    forward = VideoEncoder.forward

    def counted(self: VideoEncoder, pixels: torch.Tensor) -> torch.Tensor:
        encoded.append(len(pixels))
        return forward(self, pixels)

    monkeypatch.setattr(VideoEncoder, "forward", counted)
    again = fit("--config", config, "--run_root", tmp_path / "runs", *METHOD)
    assert again.code == 0, again.err
    assert sum(encoded) == 13 - 8, "two batches of four clips were kept"
    folder = tmp_path / "runs/tiny/encoder_probe/seed0"
    assert digests(folder, "predictions.jsonl") == digests(probed.folder, "predictions.jsonl")


def test_the_model_plays_no_part(probed, tmp_path, family_folder):
    """Another model, other prompts: what was done stays done."""
    root = tmp_path / "runs"
    shutil.copytree(probed.root, root)
    other = ("--model.vlm", str(family_folder("qwen3_vl")), "--model.prompts.label_question", "what?")
    again = fit("--config", probed.config, "--run_root", root, *METHOD, *other)
    assert "everything was done already" in again.out, again.err
    changed = fit("--config", probed.config, "--run_root", root, *METHOD, "--data.clip_control", "blank")
    assert changed.code == 0, changed.err
    chances = np.array([row["probabilities"] for row in rows(next(root.glob("*/*/*/predictions.jsonl")))])
    assert np.allclose(chances, chances[0], atol=1e-6), "all clips are grey"


def test_what_the_built_in_model_knows_does_not_matter(probed, tmp_path):
    flags = ("--model.vlm", "builtin/tiny", "--run_root", tmp_path)
    for method, warned in (("encoder_probe", False), ("zero_shot", True)):
        done = fit("--config", probed.config, *flags, "--method", method)
        assert done.code == 0, done.err
        assert ("the built-in model knows nothing but" in " ".join(done.out.split())) == warned


def test_wrong_encoders_are_refused_before_the_run(probed, tmp_path, capsys):
    def said(*flags: str) -> str:
        command = ["fit", "--config", str(probed.config), "--run_root", str(tmp_path / "runs"), *METHOD, *flags]
        assert main(command) in (1, 2)
        return " ".join(capsys.readouterr().err.split())

    assert "needs a video encoder: set model.encoder.folder" in said("--model.encoder.folder", "null")
    assert "model.encoder.folder: no folder" in said("--model.encoder.folder", str(tmp_path / "none"))
    (tmp_path / "vit").mkdir()
    (tmp_path / "vit" / "config.json").write_text('{"model_type": "vit"}')
    assert "is a 'vit' model; the video encoders" in said("--model.encoder.folder", str(tmp_path / "vit"))
    assert not (tmp_path / "runs").exists()


def test_short_clips_repeat_frames_and_the_plan_says_so(probed, tmp_path, clips):
    few = tmp_path / "encoder"
    config = MODELS["timesformer"]().config.to_dict() | {"num_frames": 12}
    make_encoder(few, "timesformer", TimesformerModel(TimesformerConfig(**config)))
    flags = ("--model.encoder.folder", str(few), "--dry_run")
    planned = fit("--config", probed.config, "--run_root", tmp_path / "runs", *METHOD, *flags)
    assert planned.code == 0, planned.err
    assert "13 have fewer frames and repeat some" in " ".join(planned.out.split())


def test_loader_processes_hand_on_what_they_meet(probed, tmp_path, clips, monkeypatch):
    """A video that is replaced after the run has looked at it is refused, whoever reads it."""
    root = tmp_path / "clips"
    shutil.copytree(clips, root)
    encode = VideoEncoder.__init__

    def replace_a_video(self: VideoEncoder, *args: Any) -> None:
        encode(self, *args)
        shutil.copy(root / "test/moves left/0.mp4", root / "train/moves left/0.mp4")

    monkeypatch.setattr(VideoEncoder, "__init__", replace_a_video)
    flags = ("--data.root", str(root), "--data.num_workers", "1", "--data.cache_dir", str(tmp_path / "cache"))
    done = fit("--config", probed.config, "--run_root", tmp_path / "runs", *METHOD, *flags)
    assert done.code == 1 and "was replaced while the run was going" in " ".join(done.err.split())


def test_check_says_what_it_costs_and_what_is_wrong(probed, tmp_path, capsys):
    command = ["check", "--config", str(probed.config), *METHOD, "--run_root", str(tmp_path)]
    assert main(command) == 0
    assert "encoder_probe" in capsys.readouterr().out
    assert main([*command, "--model.encoder.folder", str(tmp_path / "none")]) == 1
    assert "model.encoder.folder: no folder" in " ".join(capsys.readouterr().out.split())


def test_it_cannot_be_predicted_with(probed, capsys, clips):
    assert main(["predict", "--run", str(probed.folder), str(clips)]) == 1
    assert "a control that nothing is predicted with" in capsys.readouterr().err


def test_the_file_of_the_documentation_runs(probed, encoder, tmp_path, monkeypatch):
    [block] = [block for block in blocks("docs/method.md") if block.file == "encoder.yaml"]
    (tmp_path / "encoder.yaml").write_text(block.text)
    folder = tmp_path / yaml.safe_load(block.text)["model"]["encoder"]["folder"]
    shutil.copytree(encoder, folder)
    monkeypatch.chdir(tmp_path)
    flags = ("--config", "encoder.yaml", "--experiment", "tiny", "--run_root", "runs", *METHOD)
    done = fit("--config", probed.config, *flags)
    assert done.code == 0, done.err
    mine = tmp_path / "runs/tiny/encoder_probe/seed0"
    assert digests(mine, "predictions.jsonl") == digests(probed.folder, "predictions.jsonl")


@pytest.mark.slow
def test_two_processes_answer_as_one(probed, experiment, tmp_path):
    config = experiment()
    two = ("--trainer.devices", "2", "--trainer.strategy", "ddp", "--data.eval_batch_size", "2")
    done = fit_elsewhere("--config", config, "--run_root", tmp_path / "runs", *METHOD, *two)
    assert done.code == 0, done.err
    folder = tmp_path / "runs/tiny/encoder_probe/seed0"
    mine, theirs = (rows(path / "predictions.jsonl") for path in (folder, probed.folder))
    assert [row["video"] for row in mine] == [row["video"] for row in theirs]
    for row, reference in zip(mine, theirs, strict=True):
        assert row["probabilities"] == pytest.approx(reference["probabilities"], abs=1e-5)
    assert sorted(path.name for path in folder.iterdir()) == sorted(path.name for path in probed.folder.iterdir())
    assert done.out.count("linear classifier on 48 features") == 1, "one process speaks"
