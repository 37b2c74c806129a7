"""A sweep file becomes runs: every combination once, under names that stay; mistakes are named before anything runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from tests.support.runs import REPOSITORY
from tests.support.sweeps import write_sweep

from rbft.errors import ConfigError
from rbft.experiment import read_experiment
from rbft.sweep.grid import Sweep, read_sweep

EXPERIMENT = {
    "trainer": {"devices": 1},
    "stages": {"write": {}, "rationale": {}, "classification": {"trainer": {"devices": 2}}, "test": {}},
}


def read(folder: Path, *flags: str, **keys: object) -> Sweep:
    path = write_sweep(folder, **{"grid": {"seed_everything": [0, 1]}, **keys})
    (folder / "tiny.yaml").write_text(yaml.safe_dump(EXPERIMENT))
    return read_sweep(str(path), flags, {})


def test_a_tilde_is_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    read(tmp_path, flags={"run_root": "~/runs"})
    sweep = read_sweep("~/grid.yaml", (), {})
    assert sweep.folder == tmp_path / "runs" / "sweeps" / "grid"
    assert sweep.runs[0].folder.parents[2] == tmp_path / "runs"
    read(tmp_path / "sweeps", experiment="~/tiny.yaml")


def test_every_combination_once(tmp_path):
    sweep = read(tmp_path, grid={"data.shots": [4, None], "seed_everything": [0, 1], "method": ["sft", "rbft"]})
    assert [run.id for run in sweep.runs] == [
        "sft-shots4-seed0",
        "rbft-shots4-seed0",
        "sft-shots4-seed1",
        "rbft-shots4-seed1",
        "sft-shots_null-seed0",
        "rbft-shots_null-seed0",
        "sft-shots_null-seed1",
        "rbft-shots_null-seed1",
    ]
    assert sweep.folder == tmp_path / "runs" / "sweeps" / "grid"
    for run in sweep.runs:
        experiment = read_experiment(run.args)
        assert experiment.run_dir == run.folder == tmp_path / "runs" / "tiny" / experiment.variant / run.folder.name
        assert experiment.method == run.point["method"]
        assert f"--data.shots={'null' if run.point['data.shots'] is None else 4}" in run.args


def test_methods_and_seeds_alone_are_the_folders_of_plain_runs(tmp_path):
    runs = read(tmp_path, grid={"method": ["sft", "rbft"], "seed_everything": [3]}).runs
    root = str(tmp_path / "runs")
    for run in runs:
        flags = ["--run_root", root, "--method", run.point["method"], "--seed_everything", "3"]
        assert run.folder == read_experiment(["--config", str(tmp_path / "tiny.yaml"), *flags]).run_dir


def test_values_of_all_kinds_get_names_and_flags(tmp_path):
    formats = [{"class_path": "ClassFolders"}, {"class_path": "Table", "init_args": {"file": "a b.csv"}}]
    sweep = read(
        tmp_path,
        grid={
            "model.optim.lr": [1e-4],
            "data.lr": [-1],
            "data.format": formats,
            "data.nested": [True],
            "model.prompts.system": ["You see a camera."],
        },
    )
    assert len({run.folder for run in sweep.runs}) == 2
    first = sweep.runs[0]
    assert first.folder.parent.name.startswith("rbft-optim_lr0.0001-data_lr-1-format_ClassFolders_")
    assert {
        "--model.optim.lr=0.0001",
        "--data.lr=-1",
        "--data.nested=true",
        "--model.prompts.system=You see a camera.",
        '--data.format={"class_path": "ClassFolders"}',
    } <= set(first.args)
    assert (
        first.folder == read(tmp_path, grid=dict(first.point) | {k: [v] for k, v in first.point.items()}).runs[0].folder
    )


def test_coupled_and_excluded(tmp_path):
    sweep = read(
        tmp_path,
        grid={"method": ["sft", "rbft"], "seed_everything": [0, 1, 2]},
        together=[{"data.shots": 4, "trainer.max_steps": 100}, {"data.shots": 16, "trainer.max_steps": 400}],
        exclude=[{"method": "sft", "seed_everything": [1, 2]}, {"data.shots": 16, "method": "rbft"}],
    )
    assert [run.id for run in sweep.runs] == [
        "sft-shots4-max_steps100-seed0",
        *(f"rbft-shots4-max_steps100-seed{seed}" for seed in range(3)),
        "sft-shots16-max_steps400-seed0",
    ]


def test_settings_follow_the_experiment_and_the_flags(tmp_path):
    before = read(tmp_path).runs[0]
    assert read(tmp_path).runs[0] == before
    assert read(tmp_path, "--data.root", "elsewhere").runs[0].settings != before.settings
    path = tmp_path / "tiny.yaml"
    path.write_text("# a remark\n" + path.read_text())
    assert read_sweep(str(tmp_path / "grid.yaml"), [], {}).runs[0] == before
    path.write_text(path.read_text().replace("devices: 1", "devices: 3"))
    assert read_sweep(str(tmp_path / "grid.yaml"), [], {}).runs[0].settings != before.settings


def test_processes_of_a_run(tmp_path):
    assert read(tmp_path).processes == 2, "a stage says so"
    assert read(tmp_path, "--trainer.devices", "4").processes == 4
    assert read(tmp_path, grid={"trainer.devices": [1, 8]}).processes == 8
    assert read(tmp_path, "--trainer.devices=auto").processes == 1


WRONG = [
    ({"gird": {}}, r"unknown key gird; did you mean 'grid'\?"),
    ({"experiment": None}, "name the experiment file"),
    ({"experiment": "gone.yaml"}, r"gone\.yaml: no such file"),
    ({"grid": {}}, "there is nothing to run"),
    ({"grid": {"data.shots": 4}}, r"grid\.data\.shots must be a list of values, found 4"),
    ({"grid": {"data.shots": []}}, r"grid\.data\.shots must be a list"),
    ({"grid": [1]}, "grid must hold keys and values, found list"),
    ({"grid": {"stages.test.data.shots": [1]}}, r"grid\.stages\.test\.data\.shots cannot be set here"),
    ({"grid": {"variant": ["a"]}}, r"grid\.variant cannot be set here"),
    ({"grid": {"method": ["stf"]}}, r"method 'stf' is unknown; did you mean 'sft'\?"),
    ({"grid": {"data.shots": [4, 4]}}, "two points of the grid are the same run rbft-shots4-seed0"),
    ({"exclude": [{"seed_everything": 7}]}, r"exclude: no run has \{'seed_everything': 7\}"),
    ({"exclude": [{"seed_everything": [0, 1]}]}, "there is nothing to run"),
    ({"together": [{"data.shots": 1}, {"data.draw": 1}]}, "each mapping must have the same keys"),
    ({"together": [{"seed_everything": 1}]}, "none of them in grid"),
    ({"baseline": {"method": "sft"}}, r"baseline: no run has \{'method': 'sft'\}"),
    (
        {"baseline": {"method": ["sft", "rbft"]}, "grid": {"method": ["sft", "rbft"]}},
        r"baseline: no run has \{'method': \['sft', 'rbft'\]\}",
    ),
    ({"baseline": {"seed_everything": 0}}, "baseline: seed_everything repeats a run, so nothing is compared with"),
    ({"replicates": "seed_everything"}, "replicates must be a list of swept keys, found 'seed_everything'"),
    ({"replicates": [1]}, r"replicates must be a list of swept keys, found \[1\]"),
    (
        {"replicates": ["data.drw"]},
        r"replicates: data\.drw is not swept, or is the method; did you mean 'data\.draw'\?",
    ),
    ({"replicates": ["method"], "grid": {"method": ["sft"]}}, "replicates: method is not swept, or is the method"),
    ({"choose": "data.shots"}, "choose must be a list of swept keys, found 'data.shots'"),
    (
        {"choose": ["data.shot"], "grid": {"data.shots": [1, 2]}},
        r"choose: data\.shot is not swept.*did you mean 'data\.shots'\?",
    ),
    ({"choose": ["seed_everything"]}, r"choose: seed_everything is not swept, or is a method, a replicate"),
    (
        {"choose": ["data.shots"], "baseline": {"data.shots": 1}, "grid": {"data.shots": [1, 2]}},
        r"choose: data\.shots is not swept.*or of the baseline",
    ),
    ({"flags": {"seed_everything": 1}}, "seed_everything is swept and given as a flag too"),
    ({"flags": {"restart": True}}, r"flags\.restart cannot be set here"),
    ({"launch": {"slot": 1}}, r"unknown key launch\.slot; did you mean 'slots'\?"),
    ({"launch": {"slots": 0}}, r"launch\.slots: 0 must be a whole number of at least 1"),
    ({"launch": {"launcher": "slrum"}}, r"did you mean 'slurm'\?"),
    ({"launch": {"slurm": {"time": 1}}}, r"unknown key launch\.slurm\.time"),
    ({"launch": {"slurm": {"minutes": "1h"}}}, r"launch\.slurm\.minutes: '1h' must be a whole number"),
    (
        {
            "grid": {"model.prompts.system": [["x" * 30] * 10, "y" * 300]},
            "together": [{f"data.key{number}.of.some.length": "v" * 39 for number in range(4)}],
        },
        "would be too long",
    ),
]


@pytest.mark.parametrize(("keys", "message"), WRONG, ids=[message for _, message in WRONG])
def test_mistakes_are_named(keys, message, tmp_path):
    with pytest.raises(ConfigError, match=message):
        read(tmp_path, **keys)


def test_flags_that_no_run_has_are_refused_before_any_starts(tmp_path):
    with pytest.raises(ConfigError, match=r"--run_dir: no run has such a flag; did you mean 'run_root'\?"):
        read(tmp_path, "--run_dir", "elsewhere")
    with pytest.raises(ConfigError, match=r"--trainr\.max_epochs: no run has such a flag"):
        read(tmp_path, grid={"trainr.max_epochs": [1, 2]})


def test_a_flag_of_the_command_line_may_not_be_swept_either(tmp_path):
    with pytest.raises(ConfigError, match="seed_everything is swept"):
        read(tmp_path, "--seed_everything", "3")
    with pytest.raises(ConfigError, match=r"flags\.stage cannot be set here"):
        read(tmp_path, "--stage", "test")


@pytest.mark.parametrize("content", ["grid: [", "- 1", "\xff"])
def test_files_that_are_no_sweeps(content, tmp_path):
    path = tmp_path / "bad.yaml"
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(ConfigError, match=r"bad\.yaml"):
        read_sweep(str(path), [], {})
    with pytest.raises(ConfigError, match=r"gone\.yaml: no such file"):
        read_sweep(str(tmp_path / "gone.yaml"), [], {})


def test_the_example_of_the_documentation_is_a_sweep(tmp_path):
    (example,) = re.findall(r"```yaml\n(.*?)```", (REPOSITORY / "docs" / "sweeps.md").read_text(), re.DOTALL)
    (tmp_path / "sweeps").mkdir()
    (tmp_path / "sweeps" / "example.yaml").write_text(example)
    (tmp_path / "ucf_lowdata.yaml").write_text((REPOSITORY / "experiments" / "ucf_lowdata.yaml").read_text())
    sweep = read_sweep(str(tmp_path / "sweeps" / "example.yaml"), [], {})
    assert len(sweep.runs) == 2 * (3 * 3 * 2 - 3)
    assert sweep.runs[0].id == "sft-rank8-lr0.0002-shots1-draw0-seed0"
