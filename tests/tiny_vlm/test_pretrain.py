"""Pre-training from nothing must learn, and must leave a model folder that anybody can load."""

from __future__ import annotations

import statistics
from pathlib import Path

import numpy as np
import pytest
import torch
from tools.tiny_vlm.architecture import build_model
from tools.tiny_vlm.dense import NUM_COLOURS, DenseHeads, dense_targets
from tools.tiny_vlm.fast_forward import encode, to_patches
from tools.tiny_vlm.pretrain import pretrain, save
from tools.tiny_vlm.progress import Budget
from tools.tiny_vlm.vision_phase import train_vision
from transformers import AutoModelForImageTextToText, AutoProcessor

from rbft.errors import ConfigError
from rbft.worlds.scenes import general_scenes
from rbft.worlds.shapes import render


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_few_seconds_lower_both_losses_and_leave_a_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    losses = pretrain(tmp_path / "model", minutes=1, steps=40, seed=0, checkpoints=(0.3, 0.6))
    assert statistics.mean(losses[-3:]) < 0.85 * statistics.mean(losses[:3])
    assert "'present'" in capsys.readouterr().out
    for folder in (tmp_path / "model", *(tmp_path / "model" / name for name in ("after-vision", "at-30", "at-60"))):
        assert AutoModelForImageTextToText.from_pretrained(folder).dtype == torch.float32
        AutoProcessor.from_pretrained(folder)


def test_vision_learns_and_its_tokens_have_the_size_the_language_model_expects():
    model = build_model(0)
    losses = train_vision(model, Budget("vision", 24, "steps"), 0)
    assert statistics.mean(losses[-3:]) < 0.9 * statistics.mean(losses[:3])
    rng = np.random.default_rng(9)
    with torch.no_grad():
        tokens, _ = encode(model, to_patches(torch.from_numpy(render(general_scenes(rng, 100), rng))))
    assert 0.6 < tokens.pow(2).mean().sqrt() < 0.8


def test_a_budget_of_time_counts_time_and_one_of_steps_counts_steps():
    time, steps = Budget("time", 0.002), Budget("steps", 4, "steps")
    assert time.progress < 1 and steps.progress == 0
    steps.count(1.0)
    assert steps.progress == 0.25 and steps.losses == [1.0]
    while time.progress < 1:
        time.count(1.0)
    assert len(time.losses) > 4


def test_saved_weights_come_back_rounded_to_bfloat16(tmp_path: Path):
    model = build_model(0)
    save(model, tmp_path)
    loaded = AutoModelForImageTextToText.from_pretrained(tmp_path)
    for (name, saved), (other, found) in zip(model.named_parameters(), loaded.named_parameters(), strict=True):
        assert name == other
        torch.testing.assert_close(saved.bfloat16().float(), found, atol=0, rtol=0)
    assert loaded.lm_head.weight is loaded.get_input_embeddings().weight


def test_same_seed_same_start():
    first, second, other = build_model(3), build_model(3), build_model(4)
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)
    assert not torch.equal(first.lm_head.weight, other.lm_head.weight)


def test_folders_in_use_and_no_time_are_refused(tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="--out"):
        pretrain(tmp_path, minutes=1, seed=0)
    with pytest.raises(ConfigError, match="--minutes"):
        pretrain(tmp_path / "new", minutes=0, seed=0)
    with pytest.raises(ConfigError, match="--checkpoints"):
        pretrain(tmp_path / "new", minutes=1, seed=0, checkpoints=(1.5,))


def test_dense_targets_tell_the_truth():
    scenes = general_scenes(np.random.default_rng(0), 64, empty=0.2)
    targets = dense_targets(scenes)
    for clip in range(64):
        for pair in range(4):
            row, frames = 4 * clip + pair, slice(2 * pair, 2 * pair + 2)
            slots = [slot for slot in range(2) if scenes.visible[clip, slot, frames].any()]
            assert targets.present[row].nonzero().flatten().tolist() == sorted(scenes.colours[clip, slots])
            for slot in slots:
                colour = scenes.colours[clip, slot]
                assert targets.shape[row, colour] == scenes.shapes[clip, slot]
                place = (targets.place[row, colour, :2] + 1) * 32
                np.testing.assert_allclose(place, scenes.centres[clip, slot, frames].mean(0), atol=1e-3)
                assert targets.action[row, colour] in (scenes.acting[clip, slot, 2 * pair + 1], -100)
            assert (targets.patch_colour[row] < NUM_COLOURS).any() == bool(slots)


def test_heads_give_a_finite_loss_for_clips_with_nothing_in_them():
    scenes = general_scenes(np.random.default_rng(0), 4, single=1.0)
    targets = dense_targets(scenes)
    losses = DenseHeads(0)(torch.randn(16, 128), torch.randn(16, 16, 96), targets)
    assert all(torch.isfinite(value) for value in losses.values())
