"""The sweep that is measured is the declared one with fewer draws, and a sweep that fails is no figure."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from benchmarks import sweeping


def test_a_sweep_of_the_first_draws(tmp_path: Path) -> None:
    path, whole = tmp_path / "sweep.yaml", yaml.safe_load(sweeping.SWEEP.read_text())
    assert sweeping.write_sweep(tmp_path / "map.yaml", 2, path) == 2 * len(whole["grid"]["method"])
    written = yaml.safe_load(path.read_text())
    assert written["experiment"] == str(tmp_path / "map.yaml")
    assert written["grid"]["seed_everything"] == whole["grid"]["seed_everything"][:2]
    assert written["grid"]["method"] == whole["grid"]["method"]
    assert written["launch"] == whole["launch"] | {"slots": 1}


@pytest.mark.parametrize("seeds", [0, 7])
def test_draws_that_the_sweep_does_not_have(tmp_path: Path, seeds: int) -> None:
    with pytest.raises(ValueError, match="choose 1 to 6"):
        sweeping.write_sweep(tmp_path / "map.yaml", seeds, tmp_path / "sweep.yaml")


def test_a_sweep_that_fails_is_no_figure(tmp_path: Path) -> None:
    sweep = tmp_path / "sweep.yaml"
    sweeping.write_sweep(tmp_path / "absent.yaml", 1, sweep)
    with pytest.raises(RuntimeError, match=r"(?s)ended with code.*absent\.yaml"):
        sweeping.run_sweep(sweeping.HERE, sweep, tmp_path, [])
