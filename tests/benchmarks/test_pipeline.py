"""The whole method is measured against separate runs of transformers that see the same clips."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from benchmarks.models import build
from safetensors.torch import load_file
from tests.support.runs import LEFT, RIGHT

from benchmarks import authors_way, pipeline
from rbft.video.clip import Clip
from rbft.video.clip_spec import ClipSpec


def flags(out: Path, *more: str) -> list[str]:
    return ["--json", str(out), "--repeats", "1", "--clips", "4", "--size", "tiny", "--new_tokens", "3", *more]


@pytest.mark.slow
@pytest.mark.timeout(900)  # three processes that import all there is
def test_rows(tmp_path: Path, media: Path) -> None:
    out = tmp_path / "record.json"
    assert pipeline.main(flags(out, "--media", str(media), "--layers", "2", "--epochs", "1")) == 0
    same, whole, *peers = json.loads(out.read_text())["rows"]
    assert (same["baseline"], whole["baseline"]) == ("authors' way", "authors' way, adapters in all layers")
    for row in (same, whole):
        assert (row["case"], row["family"]) == ("whole job, 4 clips, 1 epochs", "qwen2_5_vl")
        assert row["available"] and row["layers"] == 2 and row["tokens_per_sample"] > 0
        assert row["bound"] > row["speedup"] > 0
        assert row["peak_bytes"] > 2**20 and row["peak_memory_ratio"] > 0
        assert 0 <= row["max_abs_diff"] < 1e-5 and row["pixel_levels"] > 0
    assert {peer["peer"] for peer in peers} == {"LLaMA-Factory", "ms-swift"}
    assert all(peer["reason"] and not peer["available"] for peer in peers)


@pytest.mark.slow
@pytest.mark.parametrize(("layers", "adapted"), [(None, {"0", "1"}), (1, {"1"})])
def test_the_other_way_adapts_the_layers_that_are_asked_for(
    tmp_path: Path, media: Path, layers: int | None, adapted: set[str]
) -> None:
    train, test = pipeline.choose(media, 4)
    assert {label for _, label in train} == {label for _, label in test} == {LEFT, RIGHT}
    assert not {path for path, _ in train} & {path for path, _ in test}
    model = build(pipeline.FAMILY, "tiny", tmp_path)
    job = authors_way.Job(model, train, test, (LEFT, RIGHT), new_tokens=3, epochs=1, layers=layers)
    pipeline.require_same_weights(job)
    assert len(authors_way.run(job, tmp_path)) == 2
    names = load_file(tmp_path / "stage2" / "adapter_model.safetensors")
    assert {name.split(".layers.")[1].split(".")[0] for name in names} == adapted


def test_other_adapters_are_refused(tmp_path: Path, media: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train, test = pipeline.choose(media, 4)
    job = authors_way.Job(build(pipeline.FAMILY, "tiny", tmp_path), train, test, (LEFT, RIGHT), layers=1)
    adapters = authors_way.adapters
    monkeypatch.setattr(authors_way, "adapters", lambda model, layers: adapters(model, None))
    with pytest.raises(RuntimeError, match="do not train as many weights"):
        pipeline.require_same_weights(job)


def test_both_sides_say_the_same_about_the_same_frames(
    tmp_path: Path, media: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train, test = pipeline.choose(media, 4)
    job = authors_way.Job(build(pipeline.FAMILY, "tiny", tmp_path), train, test, (LEFT, RIGHT))
    found = pipeline.compare_clips(job, "tiny")
    assert len(found.tokens) == len(found.pixels) == 4 and len(found.losses) == 2
    assert max(found.losses) < 1e-5
    assert 0 < max(found.pixels) < 20, "coarse noise in colours, of which a file has half the resolution"

    def brighter(path: Path, spec: ClipSpec) -> Clip:
        clip = read_clip(path, spec)
        return replace(clip, frames=clip.frames // 2 + 128)

    read_clip = pipeline.read_clip
    monkeypatch.setattr(pipeline, "read_clip", brighter)
    assert min(pipeline.compare_clips(job, "tiny").pixels) > 40


def test_other_frames_are_refused(tmp_path: Path, media: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = authors_way.read_video
    monkeypatch.setattr(authors_way, "read_video", lambda path, num_frames: read(path, num_frames - 2))
    with pytest.raises(RuntimeError, match="do not see the same"):
        pipeline.main(flags(tmp_path / "record.json", "--media", str(media)))


def test_too_few_videos_are_refused(tmp_path: Path, media: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "record.json"
    assert pipeline.main([*flags(out, "--media", str(media)), "--clips", "8"]) == 1
    assert "too few clips for --clips 8" in capsys.readouterr().err
    assert not out.exists()


def test_without_videos_nothing_is_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "record.json"
    assert pipeline.main(flags(out)) == 2
    assert "skipped" in capsys.readouterr().err
    assert not out.exists()
