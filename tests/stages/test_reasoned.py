"""Stage 2 behind freshly written rationales: a whole run, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.support.runs import fit, rows, run_experiment, write_experiment

pytest_plugins = ["tests.support.run_fixtures"]

REASONED: dict[str, Any] = {
    "stages": {
        "rationale": {"trainer": {"max_epochs": 1}},
        "reasoned": {"trainer": {"max_epochs": 1}},
        "test": {"model": {"answering": {"mode": "rationale", "max_new_tokens": 4}}},
    },
}


def test_stage_1_writes_again_without_the_label(
    tmp_path: Path, clips: Path, family_folder: Callable[[str], Path]
) -> None:
    config = write_experiment(tmp_path / "tiny.yaml", clips, family_folder("qwen2_5_vl"), REASONED)
    run = run_experiment(config, tmp_path / "runs", method="reasoned")
    again = rows(run.folder / "rewrite" / "rationales.jsonl")
    assert len(again) == 6 * 4 and {row["hint"] for row in again} == {"blind"}
    assert all("+rationale:" in row["model"] for row in again)
    assert "reasoned: 24 rows an epoch, 3 steps, from rationale" in " ".join(run.result.out.split())
    hinted = ("--methods.hinted", "[write, reasoned, test]", "--method", "hinted")
    result = fit("--config", config, "--run_root", tmp_path / "runs", *hinted)
    assert result.code == 2 and "model.prompts.hint to blind in the layer of 'write'" in " ".join(result.err.split())
