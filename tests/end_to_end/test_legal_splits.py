"""Any split that a data set can state works, or is refused before work, in every command alike."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.support.runs import fit, write_clips, write_experiment

from rbft.__main__ import main


@pytest.fixture
def tested_only(tmp_path: Path) -> tuple[str, ...]:
    """An experiment over two test videos and nothing else."""
    clips = write_clips(tmp_path / "clips", {"test": (1, 1)})
    config = write_experiment(tmp_path / "tested.yaml", clips, Path("builtin/tiny"), {"stages": {"probe": {}}})
    return ("--config", str(config), "--run_root", str(tmp_path / "runs"), "--data.cache_dir", str(tmp_path / "cache"))


def test_a_model_as_it_is_needs_test_videos_alone(tested_only, tmp_path, capsys):
    result = fit(*tested_only, "--method", "zero_shot")
    assert result.code == 0, result.err
    assert "beside it: chance 50.0%\n" in result.out
    run = tmp_path / "runs/tested/zero_shot/seed0"
    assert json.loads((run / "metrics.json").read_text())["majority/accuracy"] is None
    assert main(["predict", "--run", str(run), str(tmp_path / "clips")]) == 0
    assert main(["report", str(run), "--to", str(tmp_path / "page.html")]) == 0


@pytest.mark.parametrize("method", ["sft", "rbft", "joint", "probe"])
def test_a_method_that_trains_is_refused_before_work_by_check_and_fit_alike(tested_only, tmp_path, capsys, method):
    result = fit(*tested_only, "--method", method)
    assert result.code == 1
    assert "needs training videos" in result.err
    assert "--method zero_shot" in result.err
    assert not (tmp_path / "cache/survey").exists()
    assert main(["check", *tested_only, "--method", method]) == 1
    assert "needs training videos" in " ".join(capsys.readouterr().out.split())
