"""The whole method is measured against separate runs of transformers that see the same clips."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from benchmarks.models import build
from tests.support.runs import LEFT, RIGHT

from benchmarks import authors_way, pipeline
from rbft.video.clip import Clip
from rbft.video.clip_spec import ClipSpec


def flags(out: Path, *more: str) -> list[str]:
    return ["--json", str(out), "--repeats", "1", "--clips", "4", "--size", "tiny", "--new_tokens", "3", *more]


@pytest.mark.slow
def test_rows(tmp_path: Path, media: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RBFT_CACHE", str(tmp_path / "cache"))  # which the script sets; undone after the test
    jobs: list[authors_way.Job] = []
    answers: list[list[str | None]] = []
    run = authors_way.run

    def watched(job: authors_way.Job, folder: Path) -> list[str | None]:
        jobs.append(job)
        answers.append(run(job, folder))
        assert (folder / "stage2" / "adapter_model.safetensors").is_file()
        return answers[-1]

    monkeypatch.setattr(authors_way, "run", watched)
    out = tmp_path / "record.json"
    assert pipeline.main(flags(out, "--media", str(media))) == 0
    row, *peers = json.loads(out.read_text())["rows"]
    assert (row["case"], row["family"], row["baseline"]) == ("whole job, 4 clips", "qwen2_5_vl", "authors' way")
    assert row["available"] and row["speedup"] > 0 and row["tokens_per_sample"] > 0
    assert row["peak_bytes"] > 2**20 and row["peak_memory_ratio"] > 0
    assert 0 <= row["max_abs_diff"] < 1e-5 and row["pixel_levels"] > 0
    assert {peer["peer"] for peer in peers} == {"LLaMA-Factory", "ms-swift"}
    assert all(peer["reason"] and not peer["available"] for peer in peers)
    assert [len(found) for found in answers] == [2, 2], "a round to warm up and one that counts"
    job = jobs[0]
    assert {label for _, label in job.train} == {label for _, label in job.test} == {LEFT, RIGHT}
    assert not {path for path, _ in job.train} & {path for path, _ in job.test}


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
