"""Features of each kind of video encoder, against a direct call of transformers, and loads that must not be silent."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.support.encoders import FRAMES, MODELS, make_encoder, pre_trained_videomae
from transformers import VideoMAEImageProcessor, VideoMAEModel, conversion_mapping

from rbft.encoders.encoder import ClipPixels, VideoEncoder
from rbft.encoders.families import FAMILIES
from rbft.encoders.loading import EncoderFiles
from rbft.encoders.settings import EncoderSettings
from rbft.errors import ConfigError, ModelError

CLIP = torch.randint(0, 256, (FRAMES, 3, 50, 70), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
KINDS = sorted(MODELS)


def encoded(folder: Path, clip: torch.Tensor = CLIP) -> torch.Tensor:
    files = EncoderFiles(str(folder))
    pixels = ClipPixels(files)
    return VideoEncoder(files, "auto")(torch.stack([pixels(clip), pixels(clip.flip(0))]))


def by_hand(kind: str, model: Any, pixels: torch.Tensor) -> torch.Tensor:
    """Features (T, H) of one clip by the whole model, token by token; 2 x 2 patches a frame."""
    with torch.no_grad():
        if kind == "videomae":
            tokens = model.videomae(pixel_values=pixels[None]).last_hidden_state[0]
        elif kind == "vjepa2":
            tokens = model.vjepa2(pixel_values_videos=pixels[None], skip_predictor=True).last_hidden_state[0]
        elif kind == "timesformer":
            tokens = model.timesformer(pixel_values=pixels[None]).last_hidden_state[0, 1:]
            # patch by patch, all frames of each
            return torch.stack([tokens[[t, t + FRAMES, t + 2 * FRAMES, t + 3 * FRAMES]].mean(0) for t in range(FRAMES)])
        else:
            return model.vision_model(pixel_values=pixels).pooler_output
    assert len(tokens) == 8, "two positions in time of four patches"
    return torch.stack([tokens[:4].mean(0), tokens[4:].mean(0)])


def test_every_kind_is_tested():
    assert set(MODELS) == set(FAMILIES)


@pytest.mark.parametrize("kind", KINDS)
def test_features_are_those_of_transformers_on_the_same_frames(tmp_path, kind):
    model = make_encoder(tmp_path, kind)
    files = EncoderFiles(str(tmp_path))
    assert (files.frames, files.frame_size) == (FRAMES, (32, 32))
    pixels = ClipPixels(files)(CLIP)
    if kind != "vjepa2":
        processor = VideoMAEImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
        expected = processor([list(CLIP)], return_tensors="pt")["pixel_values"][0]
        assert torch.equal(pixels, expected), "the pixels are those of the checkpoint's own processor"
    found = encoded(tmp_path)[0]
    assert found.shape == (files.positions, 24)
    assert torch.allclose(found, by_hand(kind, model, pixels), atol=1e-5)


def test_frames_keep_their_place_in_time(tmp_path):
    """Of an encoder that looks at frames alone: another last frame changes the last position and no other."""
    make_encoder(tmp_path, "timesformer", _space_only())
    other = CLIP.clone()
    other[-1] = 255 - other[-1]
    first, second = encoded(tmp_path)[0], encoded(tmp_path, other)[0]
    assert torch.allclose(first[:-1], second[:-1], atol=1e-6)
    assert not torch.allclose(first[-1], second[-1], atol=1e-2)


def _space_only() -> Any:
    from transformers import TimesformerConfig, TimesformerModel

    config = MODELS["timesformer"]().config.to_dict() | {"attention_type": "space_only"}
    return TimesformerModel(TimesformerConfig(**config))


@pytest.mark.parametrize("kind", KINDS)
def test_ordered_features_tell_a_clip_from_its_reverse(tmp_path, kind):
    make_encoder(tmp_path, kind)
    clip, reverse = encoded(tmp_path).double().numpy()
    ordered, mean = EncoderSettings(features="ordered"), EncoderSettings(features="mean")
    assert np.abs(ordered.of(clip) - ordered.of(reverse)).max() > 0.1
    assert ordered.of(clip).shape == (clip.size,) and mean.of(clip).shape == (24,)
    if kind == "xclip":  # frames exchange messages, but it knows nothing of their order
        assert np.allclose(mean.of(clip), mean.of(reverse), atol=1e-5)
    if kind in ("videomae", "vjepa2"):  # positions in time are part of what the encoder computes
        assert np.abs(mean.of(clip) - mean.of(reverse)).max() > 0.1


def _renamed(folder: Path) -> None:
    """The names that VideoMAE's authors and all published checkpoints have for the biases of queries and values."""
    weights = load_file(folder / "model.safetensors")
    old = {
        name.replace("query.bias", "q_bias").replace("value.bias", "v_bias"): value for name, value in weights.items()
    }
    assert any(name.endswith("attention.q_bias") for name in old)
    save_file(old, folder / "model.safetensors", {"format": "pt"})


@pytest.mark.parametrize("pre_trained", [False, True])
def test_biases_of_published_videomae_checkpoints_are_read_exactly(tmp_path, pre_trained):
    model = make_encoder(tmp_path, "videomae", pre_trained_videomae() if pre_trained else None)
    _renamed(tmp_path)
    encoder = VideoEncoder(EncoderFiles(str(tmp_path)), "auto").model
    assert isinstance(encoder, VideoMAEModel)
    for own, loaded in zip(model.videomae.encoder.layer, encoder.encoder.layer, strict=True):
        for part in ("query", "value"):
            bias = getattr(own.attention.attention, part).bias
            assert bias.abs().min() > 0 and torch.equal(bias, getattr(loaded.attention.attention, part).bias)


def test_biases_that_transformers_would_leave_at_zero_are_refused(tmp_path, monkeypatch):
    """As transformers 5.0 to 5.22, which knew the new names alone."""
    make_encoder(tmp_path, "videomae")
    _renamed(tmp_path)
    known = conversion_mapping.get_checkpoint_conversion_mapping

    def without(name: str) -> Any:
        return None if name == "videomae" else known(name)

    monkeypatch.setattr(conversion_mapping, "get_checkpoint_conversion_mapping", without)
    with pytest.raises(ModelError, match=r"model\.encoder\.folder: .* lacks 4 weights, first '.*query\.bias'.*q_bias"):
        EncoderFiles(str(tmp_path)).load("auto")


def test_a_weight_that_the_encoder_has_no_place_for_is_refused(tmp_path):
    make_encoder(tmp_path, "timesformer")
    weights = load_file(tmp_path / "model.safetensors")
    weights["timesformer.encoder.layer.0.attention.gate"] = torch.ones(3)
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match=r"holds 1 weights that its TimeSformer encoder has no place for.*\.gate"):
        EncoderFiles(str(tmp_path)).load("auto")


def test_counters_of_older_checkpoints_are_no_weights(tmp_path):
    make_encoder(tmp_path, "xclip")
    weights = load_file(tmp_path / "model.safetensors")
    weights["vision_model.embeddings.position_ids"] = torch.arange(5)[None]
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    EncoderFiles(str(tmp_path)).load("auto")


def test_what_is_no_video_encoder_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"model\.encoder\.folder: no folder .*VideoMAE"):
        EncoderFiles(str(tmp_path / "none"))
    with pytest.raises(ConfigError, match=r"holds no config\.json"):
        EncoderFiles(str(tmp_path))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "vit"}))
    with pytest.raises(ModelError, match=r"is a 'vit' model; .* are VideoMAE, .*timesformer"):
        EncoderFiles(str(tmp_path))


def test_a_folder_without_its_processor_or_with_anothers_is_refused(tmp_path):
    make_encoder(tmp_path, "videomae")
    settings = tmp_path / "preprocessor_config.json"
    content = json.loads(settings.read_text())
    settings.write_text(json.dumps(content | {"crop_size": {"height": 16, "width": 16}}))
    with pytest.raises(ModelError, match="makes frames of 16x16 pixels, and its encoder reads 32x32"):
        ClipPixels(EncoderFiles(str(tmp_path)))
    settings.unlink()
    with pytest.raises(ModelError, match=r"model\.encoder\.folder: .* cannot be loaded"):
        ClipPixels(EncoderFiles(str(tmp_path)))


def test_processors_of_older_checkpoints_are_read(tmp_path):
    """Published X-CLIP and TimeSformer checkpoints name the processor as transformers did before 4.26."""
    make_encoder(tmp_path, "xclip")
    before = ClipPixels(EncoderFiles(str(tmp_path)))(CLIP)
    settings = tmp_path / "preprocessor_config.json"
    content = json.loads(settings.read_text())
    del content["image_processor_type"]
    settings.write_text(json.dumps(content | {"feature_extractor_type": "VideoMAEFeatureExtractor"}))
    assert torch.equal(ClipPixels(EncoderFiles(str(tmp_path)))(CLIP), before)


def test_only_safetensors_are_read(tmp_path):
    model = make_encoder(tmp_path, "videomae")
    (tmp_path / "model.safetensors").unlink()
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(ModelError, match="safetensors"):
        EncoderFiles(str(tmp_path)).load("auto")
