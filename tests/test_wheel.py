"""The wheel is whole: it holds every file of the package, and its commands run outside of a checkout."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import time
import venv
import zipfile
from pathlib import Path

import pytest
import yaml
from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait
from tests.support.browser import browser as browser
from tests.support.documents import write_clips
from tests.support.server import served

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


def run(installed: Path, *args: object, program: str = "rbft", folder: Path | None = None, **settings: str) -> str:
    """What a program of that environment prints, outside of the checkout."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | settings
    command = [str(installed / "venv" / "bin" / program), *map(str, args)]
    done = subprocess.run(
        command, cwd=folder or installed, env=environment, capture_output=True, text=True, timeout=600, check=False
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


@pytest.fixture(params=["generated", "fights"])
def folder(request: pytest.FixtureRequest, installed: Path) -> Path:
    """A folder of its own in that environment, with `clips` in a folder for each class and `new_clips`."""
    place = installed / request.param
    if request.param == "generated":
        write_clips(place, each=5)
        (place / "clips" / "clips.txt").unlink()
        return place
    media = request.getfixturevalue("media_root") / "fights"
    for label in ("fight", "noFight"):
        (place / "clips" / label).mkdir(parents=True)
        videos = sorted((media / label).iterdir())
        for video in videos[:10]:
            shutil.copy(video, place / "clips" / label / video.name)
        (place / "new_clips").mkdir(exist_ok=True)
        shutil.copy(videos[10], place / "new_clips" / videos[10].name)
    return place


@pytest.mark.slow
@pytest.mark.browser
@pytest.mark.timeout(1800)
def test_a_strangers_path_from_clips_to_answers(installed: Path, folder: Path, browser: webdriver.Chrome):
    """No file is written by hand, and nothing is known of the clips but their folders."""
    environment = {"RBFT_CACHE": str(folder / "cache")}

    def rbft(*words: object) -> str:
        return run(installed, *words, folder=folder, **environment)

    quick = ("--preset", "quick")
    start = time.monotonic()
    rbft("fit", "clips", *quick)
    assert "<html" in (folder / "runs" / "clips" / "rbft" / "seed0" / "report.html").read_text()
    assert time.monotonic() - start < 180, "from the wheel to the first page"
    said = rbft("compare", "clips", *quick, "--runs", "4", "--methods", "sft,zero_shot")
    assert "2 draws are too few" in " ".join(said.split())
    assert (folder / "runs" / "sweeps" / "compare-clips" / "report.html").is_file()
    command = re.search(r"^Use: rbft (predict --run \S+) VIDEO$", said, re.MULTILINE)
    assert command is not None
    new = sorted(path.name for path in (folder / "new_clips").iterdir())
    answers = rbft(*command[1].split(), "new_clips")
    assert all(name in answers for name in new)
    rbft("suggest", "--run", command[1].split()[-1], "new_clips", "--to", "next")
    assert list((folder / "next").iterdir())
    with served("label", str(folder / "new_clips"), "--classes", "a,b", command=installed / "venv/bin/rbft") as page:
        browser.get(page.url)
        for key, name in zip("12", new, strict=True):
            WebDriverWait(browser, 20).until(lambda _, name=name: name in browser.find_element(By.ID, "name").text)
            ActionChains(browser).send_keys(key).perform()
        WebDriverWait(browser, 20).until(lambda _: "2 of 2" in browser.find_element(By.ID, "progress").text)
    with (folder / "new_clips" / "labels.csv").open(newline="") as stream:
        assert {row["path"]: row["label"] for row in csv.DictReader(stream)} == dict(zip(new, "ab", strict=True))
