"""The experiment that a run leaves is the one that ran, whatever files, layers and flags it was made of."""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.support.runs import fit, write_experiment

from rbft.__main__ import main
from rbft.errors import ConfigError
from rbft.experiment import Experiment, lay_over, read_experiment
from rbft.pipeline.run_files import merged_experiment
from rbft.pipeline.stage_cli import StageCLI

pytest_plugins = ["tests.support.run_fixtures"]

BASE: dict[str, Any] = {
    "data": {"root": "/nowhere", "num_frames": 4, "batch_size": 2},
    "model": {"vlm": "builtin/tiny", "optim": {"lr": 0.5}, "prompts": {"label_texts": {"a": "one", "b": "two"}}},
    "trainer": {"accelerator": "cpu", "devices": 1, "max_epochs": 3},
    "methods": {"mine": ["write", "joint", "test"]},
    "stages": {
        "write": {"model": {"writer": {"samples": 2, "temperature": 0.7}}},
        "rationale": {"trainer": {"max_epochs": 20}, "model": {"optim": {"lr": 0.1}}},
        "classification": {"trainer": {"max_epochs": "${data.num_frames}"}},
        "joint": {"model": {"objective": {"class_path": "JointObjective", "init_args": {"alpha": 0.3}}}},
        "test": {"data": {"batch_size": 8}},
    },
}
OVERLAYS: list[dict[str, Any]] = [
    {},
    {"stages": {"rationale": {"trainer": {"max_epochs": 5}}, "classification": {"trainer": {"max_epochs": 6}}}},
    {"stages": {"joint": {"model": {"objective": {"class_path": "ClosedSetObjective"}}}}, "experiment": "named"},
    {"methods": {"short": ["classification", "test"]}, "model": {"tuning": {"class_path": "FullFineTuning"}}},
    {"stages": {"write": {"model": {"prompts": {"label_texts": {"a": "uno"}}}}}, "data": {"num_frames": 8}},
    {"stages": {"classification": {"data": {"batch_size": 1}}}, "trainer": {"callbacks": [{"class_path": "Timer"}]}},
]
FLAGS: list[tuple[str, ...]] = [
    (),
    ("--trainer.max_epochs", "1"),
    ("--stages.classification.trainer.max_epochs", "2", "--seed_everything=4"),
    ('--stages={"rationale": {"start": "base"}}', "--model.optim.lr", "1e-3"),
    ("--data.num_frames", "6", "--methods.mine", "[classification, test]"),
    ("--stages.test.model.answering.mode=direct", "--data.fps", "2", "--data.num_frames", "null"),
]


def write_files(folder: Path, contents: Sequence[Mapping[str, Any]]) -> list[str]:
    args = []
    for number, content in enumerate(contents):
        path = folder / f"{number}.yaml"
        path.write_text(yaml.safe_dump(dict(content)))
        args += ["--config", str(path)]
    return args


def configs(experiment: Experiment) -> dict[str, dict[str, Any]]:
    """What each stage has; of the settings that shape it, not of where the run's folder is."""
    keys = ("model", "data", "trainer", "seed_everything", "save_every")
    found = {stage.name: StageCLI(experiment.arguments(stage)).resolved() for stage in experiment.stages}
    return {name: {key: config[key] for key in keys} for name, config in found.items()}


def settle(folder: Path, overlays: Sequence[Mapping[str, Any]], flags: Sequence[str], method: str) -> None:
    """What ran, and what is written of it, are the same: stage by stage, twice over."""
    args = write_files(folder, [BASE, *overlays])
    experiment = read_experiment([*args, *flags, "--method", method])
    ran = configs(experiment)
    written = folder / "experiment.yaml"
    for _ in range(2):
        written.write_text(yaml.safe_dump(merged_experiment(experiment, ran), sort_keys=False))
        again = read_experiment(["--config", str(written)])
        assert again.run_dir == experiment.run_dir
        assert [(s.name, s.kind, s.weights_from) for s in again.stages] == [
            (s.name, s.kind, s.weights_from) for s in experiment.stages
        ]
        assert configs(again) == ran
        experiment = again


@pytest.mark.parametrize(
    ("overlays", "flags", "method"),
    [
        ((), (), "rbft"),
        ((1,), (1,), "rbft"),
        ((1, 2), (2,), "mine"),
        ((3, 4), (3,), "rbft"),
        ((4, 5), (4,), "mine"),
        ((2, 5), (5,), "rbft"),
    ],
)
def test_what_is_written_is_what_ran(overlays: tuple[int, ...], flags: tuple[int, ...], method: str, tmp_path: Path):
    settle(tmp_path, [OVERLAYS[number] for number in overlays], [part for n in flags for part in FLAGS[n]], method)


@pytest.mark.slow
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    overlays=st.lists(st.sampled_from(OVERLAYS), max_size=3),
    flags=st.lists(st.sampled_from(FLAGS), max_size=3),
    method=st.sampled_from(["rbft", "mine", "sft", "zero_shot"]),
)
def test_what_is_written_is_what_ran_in_every_combination(overlays, flags, method, tmp_path):
    said = [part for each in flags for part in each]
    frames = [value for flag, value in itertools.pairwise(said) if flag == "--data.num_frames"]
    if "--data.fps" in said and frames[-1] != "null":
        # flags that contradict each other have nothing to write: they are refused
        with pytest.raises(ConfigError, match="set exactly one of num_frames and fps, not num_frames=6 and fps="):
            settle(tmp_path, overlays, said, method)
    else:
        settle(tmp_path, overlays, said, method)


def test_flags_reach_stages_and_methods(tmp_path: Path):
    args = write_files(tmp_path, [BASE])
    flags = ["--stages.classification.trainer.max_epochs", "2", "--methods.mine=[classification, test]"]
    experiment = read_experiment([*args, *flags, "--method", "mine"])
    assert [stage.name for stage in experiment.stages] == ["classification", "test"]
    assert configs(experiment)["classification"]["trainer"]["max_epochs"] == 2


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--stages.clasification.trainer.max_epochs", "2"), r"--stages\.clasification: .*'classification'"),
        (("--stages.classification.trainr.max_epochs", "2"), r"stages\.classification\.trainr; did you mean 'trainer'"),
        (("--stages.classification.trainer.max_epochs",), r"--stages\.classification\.trainer\.max_epochs: a value"),
        (("--stages", "{"), r"--stages: '\{' is not YAML"),
        (("--stages", "[" * 3000), "is not YAML: it is nested too deeply"),
        (("--stages.test.data.fps", "9" * 5000), "is not YAML: a value is not what it looks like"),
        (("--stages.test.data.root", "2024-13-45"), r"'2024-13-45' is not YAML: .* \(month must be in 1\.\.12\)"),
        (("--methods", "3"), r"methods must hold keys and values, found int"),
    ],
)
def test_wrong_flags_of_stages_are_named(flags, message, tmp_path: Path):
    with pytest.raises(ConfigError, match=message):
        read_experiment([*write_files(tmp_path, [BASE]), *flags])


def test_dotted_keys_of_stages_in_a_file_are_refused(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"write stages\.test\.kind as nested keys below stages"):
        read_experiment(write_files(tmp_path, [BASE, {"stages.test.kind": "test"}]))


def test_another_class_brings_no_arguments_of_the_old():
    old = {"objective": {"class_path": "A", "init_args": {"x": 1}}}
    assert lay_over(old, {"objective": {"class_path": "B"}}) == {"objective": {"class_path": "B"}}
    assert lay_over(old, {"objective": {"init_args": {"y": 2}}})["objective"]["init_args"] == {"x": 1, "y": 2}


def test_a_run_of_two_files_and_flags_can_be_used(
    clips: Path, family_folder: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    config = write_experiment(tmp_path / "falls.yaml", clips, family_folder("qwen2_5_vl"))
    overlay = tmp_path / "overlay.yaml"
    layers = {name: {"trainer": {"max_epochs": 1}} for name in ("rationale", "classification")}
    overlay.write_text(json.dumps({"experiment": "overlaid", "stages": layers}))
    flags = ["--run_root", str(tmp_path / "runs"), "--stages.classification.trainer.max_steps", "1"]
    result = fit("--config", config, "--config", overlay, *flags)
    assert result.code == 0, result.err
    run = tmp_path / "runs" / "overlaid" / "rbft" / "seed0"
    video = str(next(clips.rglob("*.mp4")))
    assert main(["predict", "--run", str(run), video]) == 0
    assert main(["export", "--run", str(run), "--to", str(tmp_path / "exported")]) == 0
    assert main(["report", str(run), "--to", str(tmp_path / "page.html")]) == 0
    again = fit("--config", run / "experiment.yaml", "--run_root", tmp_path / "runs")
    assert "everything was done already" in again.out, again.out + again.err
    written = run / "write" / "rationales.jsonl"
    copy = shutil.copytree(run, tmp_path / "other" / "overlaid" / "rbft" / "seed0")
    for stage in ("rationale", "classification", "test"):
        shutil.rmtree(copy / stage)
    assert main(["rationales", "import", str(written), "--to", str(copy)]) == 0, capsys.readouterr().err
