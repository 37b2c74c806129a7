"""Reproducing a benchmark says what it needs and stops before anything is run where that is not there."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "experiments" / "reproduce.py"
_spec = importlib.util.spec_from_file_location("reproduce", SCRIPT)
assert _spec is not None and _spec.loader is not None
reproduce = importlib.util.module_from_spec(_spec)
sys.modules["reproduce"] = reproduce
_spec.loader.exec_module(reproduce)

NEEDY = [name for name, recipe in reproduce.RECIPES.items() if recipe.needs]


def test_every_recipe_has_its_sweeps_and_a_make_target():
    makefile = (SCRIPT.parents[1] / "Makefile").read_text()
    for name, recipe in reproduce.RECIPES.items():
        assert f"\nreproduce-{name}: " in makefile
        for sweep in recipe.sweeps:
            assert "Needs:" in reproduce.header(SCRIPT.parent / sweep)
        assert all("http" in line or ".co" in line for line in recipe.references), "a figure without its source"


def test_without_data_it_says_what_it_needs_and_stops():
    done = subprocess.run([sys.executable, SCRIPT, "hmdb"], capture_output=True, text=True)
    assert done.returncode == 1
    assert "HMDB51 with 1 to 16 shots" in done.stdout and "Needs: " in done.stdout and "Published: " in done.stdout
    assert "reproduce hmdb: no data: say where it is with --data.root FOLDER" in done.stderr


@pytest.mark.parametrize("name", NEEDY)
def test_what_is_missing_is_named(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import torch

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    recipe = reproduce.RECIPES[name]
    assert reproduce.missing(recipe, tmp_path / "gone")[0].endswith("no such folder")
    told = reproduce.missing(recipe, tmp_path)
    assert len(told) == len(recipe.needs) + 1 and told[-1].startswith("no GPU")
    for pattern, _ in recipe.needs:
        file = tmp_path / pattern.replace("**/", "any/").replace("*", "one")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    assert reproduce.missing(recipe, tmp_path) == told[-1:]
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda i: type("Gpu", (), {"total_memory": 8 << 30}))
    assert "the largest GPU has 8 GB" in reproduce.missing(recipe, tmp_path)[0]
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda i: type("Gpu", (), {"total_memory": 96 << 30}))
    assert reproduce.missing(recipe, tmp_path) == []


def test_a_dry_run_of_the_built_in_one_lists_its_runs(tmp_path: Path):
    done = subprocess.run(
        [sys.executable, SCRIPT, "builtin", "--dry_run", "--run_root", str(tmp_path)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "rationale_only-seed6" in done.stdout
    assert not list(tmp_path.iterdir())
