"""What `rbft doctor` says of a healthy machine and of ones that lack something."""

from __future__ import annotations

import configparser
import importlib.metadata
import json
import os
import subprocess
import sys
from pathlib import Path

import av
import pytest
from tests.support.runs import REPOSITORY

from rbft.__main__ import main
from rbft.commands import doctor
from rbft.commands.doctor import EXTRAS, Finding, examine


def found(run_root: Path, part: str) -> dict[str, Finding]:
    return {finding.name: finding for finding in examine(run_root) if finding.part == part}


def test_a_healthy_machine_lacks_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--run_root", str(tmp_path / "runs")]) == 0
    out = capsys.readouterr().out
    assert "nothing that is needed is missing" in out and "MISSING" not in out
    for name in ("torch", "lightning", "transformers", "peft", "decoder h264", "free memory", "CPU cores"):
        assert name in out
    assert importlib.metadata.version("transformers") in out
    assert list(tmp_path.iterdir()) == [], "it looks and leaves nothing"


def test_json_has_the_same_findings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--json", "--run_root", str(tmp_path)]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["ok"] is True
    assert {"part", "name", "state", "found", "advice"} == set(told["findings"][0])
    names = [finding["name"] for finding in told["findings"]]
    assert names == [finding.name for finding in examine(tmp_path)]


def test_a_missing_or_old_package_is_named_and_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    needs = ["no-such-package>=1", "torch>=999", "rich>=1", 'pytest>=1; extra == "dev"', 'gone; extra == "dev"']
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: needs)
    assert main(["doctor", "--run_root", str(tmp_path)]) == 1
    out = capsys.readouterr().out
    assert "2 missing: no-such-package, torch" in out
    assert "but >=999 is needed" in out and "pip install --upgrade rbft" in out
    dev = found(tmp_path, "extras")["dev"]
    assert dev.state == "note" and "without gone" in dev.found and "rbft[dev]" in dev.advice


def test_a_decoder_that_is_not_there_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(doctor.DECODERS, "no_such_codec", "rare files")
    decoders = found(tmp_path, "video")
    assert decoders["decoder no_such_codec"].state == "note"
    assert "rare files cannot be read" in decoders["decoder no_such_codec"].found
    assert decoders["decoder h264"].state == "ok"
    assert ".".join(map(str, av.library_versions["libavcodec"])) in decoders["FFmpeg in av"].found


def test_a_folder_that_cannot_be_written_to_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocked = tmp_path / "file"
    blocked.touch()
    monkeypatch.setenv("RBFT_CACHE", str(blocked / "clips"))
    places = found(blocked / "runs", "places")
    assert (places["runs"].state, places["kept clips"].state) == ("missing", "note")
    assert "Not a directory" in places["runs"].found and "--run_root" in places["runs"].advice
    assert "RBFT_CACHE" in places["kept clips"].advice
    assert main(["doctor", "--run_root", str(blocked / "runs")]) == 1


def test_little_room_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda folder: type("Usage", (), {"free": 10**9}))
    monkeypatch.setattr(doctor, "_free_memory_gb", lambda: 1.5)
    assert "little room" in found(tmp_path, "places")["runs"].advice
    assert found(tmp_path, "machine")["free memory"].state == "note"


def test_gpus_are_told_with_what_they_can_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda number: ("New", "Old")[number])
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda number: (20 * 10**9, 80 * 10**9))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda number: ((9, 0), (7, 5))[number])
    gpus = found(tmp_path, "GPU")
    assert gpus["cuda:0"].found == "New, 20 of 80 GB free, bfloat16"
    assert gpus["cuda:1"].state == "note" and "16-mixed" in gpus["cuda:1"].advice


def test_an_apple_gpu_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    (mps,) = found(tmp_path, "GPU").values()
    assert (mps.name, mps.state) == ("MPS", "note") and "trainer.accelerator cpu" in mps.advice


def test_a_broken_torch_does_not_break_the_doctor(tmp_path: Path) -> None:
    """A package that is there and cannot be imported, as after a half-finished upgrade."""
    for name in ("torch", "av", "huggingface_hub"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(f"raise ImportError('lib{name}.so is not there')")
    done = subprocess.run(
        [sys.executable, "-m", "rbft", "doctor", "--run_root", str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stderr) == (1, ""), done.stderr
    assert "2 missing: av, torch" in done.stdout
    assert "cannot be imported: libtorch.so is not there" in done.stdout


def test_every_extra_of_the_package_is_explained() -> None:
    setup = configparser.ConfigParser()
    setup.read(REPOSITORY / "setup.cfg")
    assert set(setup["options.extras_require"]) == set(EXTRAS)


def test_unknown_flags_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--fix"]) == 2
    assert "--fix" in capsys.readouterr().err
