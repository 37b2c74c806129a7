"""The wheel is whole: it holds every file of the package, and its commands run outside of a checkout."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest
import yaml
from tests.support.documents import write_clips

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy of what a wheel is made of, so that nothing of an earlier build gets in."""
    folder = tmp_path_factory.mktemp("source")
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder / name)
    shutil.copytree(ROOT / "src", folder / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*build, "--wheel-dir", str(folder / "out"), str(folder)], check=True, timeout=120)
    (made,) = (folder / "out").glob("rbft-*.whl")
    return made


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an environment with the wheel, which sees the packages of this one after its own."""
    folder = tmp_path_factory.mktemp("bare")
    venv.create(folder / "venv", with_pip=False)
    (site,) = (folder / "venv").glob("lib/python*/site-packages")
    # a path in such a file is searched, but its own such files are not read: no checkout comes along
    (site / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")
    python = folder / "venv" / "bin" / "python"
    install = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-index"]
    subprocess.run([*install, "--no-deps", "--ignore-installed", str(wheel)], check=True, timeout=120)
    return folder


def run(folder: Path, *args: object, program: str = "rbft", **settings: str) -> str:
    """What a program of that environment prints, outside of the checkout."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | settings
    command = [str(folder / "venv" / "bin" / program), *map(str, args)]
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.slow
def test_it_holds_every_file_of_the_package(wheel):
    tracked = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "src/rbft"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    held = {name for name in zipfile.ZipFile(wheel).namelist() if name.startswith("rbft/")}
    assert held == {name.removeprefix("src/") for name in tracked}
    assert wheel.stat().st_size < 8e6, "what every user downloads"


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_commands_run_outside_of_a_checkout(installed):
    place = run(installed, "-c", "import rbft; print(rbft.__file__)", program="python")
    assert place.startswith(str(installed / "venv"))
    assert "usage: rbft" in run(installed, "--help")
    assert "rbft" in run(installed, "completion", "bash")
    experiment = yaml.safe_load((ROOT / "experiments" / "quickstart.yaml").read_text())
    experiment["data"] |= {"root": str(installed / "videos"), "shots": 1, "cache_dir": str(installed / "cache")}
    (installed / "small.yaml").write_text(yaml.safe_dump(experiment))
    run(installed, "fit", "--config", "small.yaml", "--method", "zero_shot")
    folder = installed / "runs" / "small" / "zero_shot" / "seed0"
    assert json.loads((folder / "metrics.json").read_text())["test/num_videos"] > 0
    assert "<html" in (folder / "report.html").read_text()
    video = next((installed / "videos").rglob("*.mp4"))
    run(installed, "predict", "--run", folder, video, "--to", installed / "answers.csv")
    assert len((installed / "answers.csv").read_text().splitlines()) == 2
    run(installed, "export", "--run", folder, "--to", installed / "exported")
    assert (installed / "exported" / "README.md").is_file()
    run(installed, "report", installed / "runs", "--to", installed / "all.html")
    assert "usage: rbft serve" in run(installed, "serve", "--help")


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_strangers_path_from_clips_to_answers(installed):
    """No file is written by hand, and nothing is known of the clips but their folders."""
    write_clips(installed, each=5)
    (installed / "clips" / "clips.txt").unlink()
    environment = {"RBFT_CACHE": str(installed / "cache")}
    quick = ("--preset", "quick")
    run(installed, "fit", "clips", *quick, **environment)
    page = (installed / "runs" / "clips" / "rbft" / "seed0" / "report.html").read_text()
    assert "<html" in page
    said = run(installed, "compare", "clips", *quick, "--runs", "4", "--methods", "sft,zero_shot", **environment)
    assert "2 draws are too few" in " ".join(said.split())
    assert (installed / "runs" / "sweeps" / "compare-clips" / "report.html").is_file()
    command = re.search(r"^Use: rbft (predict --run \S+) VIDEO$", said, re.MULTILINE)
    assert command is not None
    assert "one.mp4" in run(installed, *command[1].split(), "new_clips", **environment)
    run(installed, "suggest", "--run", command[1].split()[-1], "new_clips", "--to", "next", **environment)
    assert list((installed / "next").iterdir())
