"""A disk that fills up while a run writes to it is one line; with room again the same command ends as it should."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.support.disks import grow, small_disk
from tests.support.runs import Run, digests, fit

pytest_plugins = ["tests.support.run_fixtures"]


@pytest.mark.parametrize(
    "size",
    [
        pytest.param("24k", marks=pytest.mark.slow),
        pytest.param("64k", marks=pytest.mark.slow),
        pytest.param("400k"),
        pytest.param("200k", marks=pytest.mark.slow),
    ],
)
def test_a_run_on_a_small_disk(size: str, tmp_path: Path, finished: Run) -> None:
    with small_disk(tmp_path / "disk", size) as disk:
        command = ("--config", finished.config, "--run_root", disk / "runs")
        full = fit(*command)
        assert full.code == 1, full.out
        assert "no space left on the disk" in full.err and "Traceback" not in full.err
        assert len([line for line in full.err.splitlines() if line.startswith("rbft: ")]) == 1
        print(full.err)
        grow(disk, "64m")
        again = fit(*command)
        assert again.code == 0, again.err
        folder = disk / "runs" / finished.folder.relative_to(finished.root)
        for pattern in ("*/adapter/*.safetensors", "write/rationales.jsonl", "predictions.jsonl", "metrics.json"):
            assert digests(folder, pattern) == digests(finished.folder, pattern)
