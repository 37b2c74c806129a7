"""No process that rbft starts runs Python files of the current folder, and no file allows what it names."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml
from tests.support.runs import REPOSITORY
from tests.support.sweeps import drive, write_sweep

from rbft.__main__ import _isolate_children
from rbft.errors import ConfigError
from rbft.rationales import vllm_writer
from rbft.sweep.grid import read_sweep
from rbft.sweep.state import read_record

# what the started processes import: of the standard library, of this package's libraries, and the package itself
SHADOWS = ("argparse", "selectors", "pickle", "statistics", "lightning", "torch", "submitit", "cloudpickle", "rbft")


@pytest.fixture
def hostile(tmp_path: Path, marker: Path) -> Path:
    """A folder whose Python files have the names of modules, and leave the marker when they are imported."""
    folder = tmp_path / "hostile"
    folder.mkdir()
    for name in SHADOWS:
        (folder / f"{name}.py").write_text(f"import os\nos.mkdir({str(marker)!r})\n")
    return folder


def started(code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """A script in a folder of its own, as the installed command is one, started in another folder."""
    script = folder.parent / "bin" / "script"
    script.parent.mkdir()
    script.write_text(code)
    path = os.pathsep.join(entry for entry in sys.path if entry)
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONSAFEPATH"} | {"PYTHONPATH": path}
    return subprocess.run(
        [sys.executable, script], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


@pytest.mark.slow
def test_a_sweep_whose_workers_start_in_a_hostile_folder(hostile: Path) -> None:
    (hostile / "exp.yaml").write_text(
        "stages: {test: {}}\nmethods: {mine: [test]}\ndata: {root: nowhere, num_frames: 4}\n"
    )
    content = {"experiment": "exp.yaml", "grid": {"method": ["mine"]}, "launch": {"retries": 0}}
    (hostile / "grid.yaml").write_text(yaml.safe_dump(content))
    code = "import sys; from rbft.__main__ import main; sys.exit(main(['sweep', '--config', 'grid.yaml']))"
    done = started(code, hostile)
    assert done.returncode == 1 and "runs failed" in done.stderr
    record = read_record(hostile / "runs" / "sweeps" / "grid", "mine-seed0")
    assert record is not None and "data.root: no folder nowhere" in record.reason, "it came as far as that"


def test_processes_of_the_command_itself(hostile: Path) -> None:
    code = (
        "import multiprocessing, sys\nfrom rbft.__main__ import console\n"
        "if __name__ == '__main__':\n    sys.argv = ['rbft', '--version']\n"
        "    try:\n        console()\n    except SystemExit:\n        pass\n"
        "    child = multiprocessing.get_context('spawn').Process(target=print, args=('from the child',))\n"
        "    child.start()\n    child.join()\n"
    )
    done = started(code, hostile)
    assert "from the child" in done.stdout, done.stderr


def test_the_process_with_vllm(hostile: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(hostile)
    log = tmp_path / "log"
    code = "import json, statistics, sys; print(json.dumps({'safe': sys.flags.safe_path, 'path': statistics.__file__}))"
    for command in (["-c", code], ["-m", "pickle"]):
        with vllm_writer._running([sys.executable, *command], log) as worker:
            if command[0] == "-c":
                assert worker.read()["safe"] is True
            worker.close()


def test_how_a_sweep_starts_runs(hostile: Path) -> None:
    code = (
        "import subprocess, sys\nfrom rbft.sweep.driver import PYTHON\nsubprocess.run([*PYTHON, 'rbft', '--version'])"
    )
    assert "rbft" in started(code, hostile).stdout


def launched(hostile: Path, monkeypatch: pytest.MonkeyPatch, launch: dict[str, object]) -> None:
    monkeypatch.setenv("PYTHONSAFEPATH", "")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(REPOSITORY), *filter(None, sys.path)]))
    monkeypatch.chdir(hostile)
    if launch:
        _isolate_children()
    path = write_sweep(hostile / "files", grid={"seed_everything": [0]}, launch=launch)
    assert drive(str(path), []) == 0
    assert len(list((hostile / "files" / "runs" / "journal").glob("*.finished"))) == 1


def test_workers_of_this_machine(hostile: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    launched(hostile, monkeypatch, {})


@pytest.mark.skipif(importlib.util.find_spec("submitit") is None, reason="submitit: pip install 'rbft[slurm]'")
def test_jobs_of_submitit(hostile: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    launched(hostile, monkeypatch, {"launcher": "slurm", "slurm": {"cluster": "local", "minutes": 2}})


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="ray: pip install 'rbft[ray]'")
def test_tasks_of_ray(hostile: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    try:
        launched(hostile, monkeypatch, {"launcher": "ray", "slots": 1})
    finally:
        ray.shutdown()


@pytest.mark.parametrize(
    "keys",
    [
        {"flags": {"allow-class": "evil"}},
        {"flags": {"allow_class": "evil"}},
        {"flags": {"allow-class=evil": ""}},
        {"grid": {"allow-class": ["evil"]}},
        {"together": [{"allow_class": "evil", "method": "sft"}]},
    ],
)
def test_a_sweep_file_allows_nothing(keys: dict[str, object], tmp_path: Path) -> None:
    path = write_sweep(tmp_path, **{"grid": {"seed_everything": [0]}, **keys})
    content = yaml.safe_load(path.read_text())
    content["flags"] = {"run_root": str(tmp_path / "runs"), **keys.get("flags", {})}  # type: ignore[dict-item]
    path.write_text(json.dumps(content))
    with pytest.raises(ConfigError, match=r"a file cannot allow what it names\..*on the command line"):
        read_sweep(str(path), [], {})


@pytest.mark.parametrize("flags", [["--allow-class", "mine.Callback"], ["--allow-class=mine.Callback"]])
def test_who_starts_a_sweep_may_allow(flags: Sequence[str], tmp_path: Path) -> None:
    path = write_sweep(tmp_path, grid={"seed_everything": [0]})
    (run,) = read_sweep(str(path), flags, {}).runs
    assert set(flags) <= set(run.args)
