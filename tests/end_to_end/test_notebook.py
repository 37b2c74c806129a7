"""Runs from Python, as a notebook does them: whole and by stage, in this process, more than once."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.support.runs import write_experiment

from rbft.errors import ConfigError, StageError
from rbft.experiment import Experiment, read_experiment
from rbft.pipeline.run import run

pytest_plugins = ["tests.support.run_fixtures"]


def test_stages_run_one_by_one_in_a_process(
    clips: Path, family_folder: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # what stands on the command line of a notebook's server is none of ours
    monkeypatch.setattr("sys.argv", ["ipykernel_launcher.py", "-f", "/tmp/kernel.json"])
    config = write_experiment(tmp_path / "tiny.yaml", clips, family_folder("qwen2_5_vl"))
    flags = ["--config", str(config), "--run_root", str(tmp_path / "runs"), "--method", "sft"]

    def fit(*more: str) -> Experiment:
        experiment = read_experiment([*flags, *more])
        run(experiment, ["rbft", "fit", *flags, *more])
        return experiment

    with pytest.raises(StageError, match="classification"):
        fit("--stage", "test")
    for stage in ("classification", "test"):
        experiment = fit("--stage", stage)
        assert (experiment.run_dir / stage / "stage.json").is_file()
    metrics = json.loads((experiment.run_dir / "metrics.json").read_text())
    assert metrics["test/num_videos"] == 5
    before = (experiment.run_dir / "classification" / "stage.json").stat().st_mtime_ns
    fit()
    assert (experiment.run_dir / "classification" / "stage.json").stat().st_mtime_ns == before, "done already"
    with pytest.raises(ConfigError, match="no_such_key"):
        fit("--data.no_such_key", "1")
