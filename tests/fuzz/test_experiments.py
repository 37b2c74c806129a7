"""Spoilt experiment files and command lines are answered by errors of the configuration, never by a traceback."""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path

import pytest
from hypothesis import strategies as st
from tests.support.mutate import NASTY, depth, explore, spoilt

from rbft.errors import ConfigError, RBFTError
from rbft.experiment import read_experiment
from rbft.pipeline.stage_cli import StageCLI

EXPERIMENT = b"""\
seed_everything: 3
data: {root: /nowhere, num_frames: 4, format: {class_path: Table, init_args: {file: labels.csv}}}
model:
  vlm: builtin/tiny
  tuning: {class_path: LoRA, init_args: {rank: 4, targets: '.*q_proj'}}
  optim: {lr: 1.0e-3, warmup: 0.1}
  prompts:
    label_question: "which: {labels}?"
    criteria: {fall: someone falls}
trainer: {max_epochs: 2, accelerator: cpu, callbacks: [{class_path: lightning.pytorch.callbacks.Timer}]}
methods: {own: [write, rationale]}
method: own
stages:
  write: {model: {writer: {samples: 2, temperature: 0.7}}}
  rationale: {kind: rationale, trainer: {max_epochs: 1}}
  classification: {data: {batch_size: 2}}
  test: {}
"""
VALUES = [item.decode("utf-8", "replace") for item in NASTY]
KEYS = [
    "--data.root",
    "--data.num_frames",
    "--data.format",
    "--data.format.file",
    "--data.format.init_args.file",
    "--model.vlm",
    "--model.tuning",
    "--model.tuning.rank",
    "--model.optim",
    "--model.optim.lr",
    "--model.prompts",
    "--model.prompts.criteria",
    "--trainer.max_epochs",
    "--trainer.callbacks",
    "--trainer.callbacks+",
    "--trainer",
    "--trainer.strategy",
    "--trainer.logger",
    "--seed_everything",
    "--method",
    "--stages",
    "--methods",
    "--stage",
    "--config",
    "--run_root",
    "--variant",
    "--experiment",
    "--allow-class",
    "--save_every",
    "--save_seconds",
    "--data",
    "--model",
    "--nothing",
    "--",
    "-c",
    "--data.format.help",
]


def parse(args: list[str]) -> None:
    """What `rbft fit` does with its command line before it looks at the data."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        experiment = read_experiment(args)
        for stage in experiment.stages:
            made = StageCLI(experiment.arguments(stage))
            made.resolved()


def refused_or_right(args: list[str]) -> bool:
    try:
        parse(args)
    except RBFTError as error:
        assert isinstance(error, ConfigError), f"{type(error).__name__} is no error of the configuration: {error}"
        assert str(error).strip()
        return False
    except SystemExit as ended:
        # help was asked for, and printed
        assert ended.code == 0 and any(arg.startswith("--data.format.help") for arg in args)
    return True


def test_the_unspoilt_one_is_right(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_bytes(EXPERIMENT)
    assert refused_or_right(["--config", str(tmp_path / "x.yaml")])


@depth(20, 400)
@pytest.mark.timeout(1200)
def test_spoilt_files(examples: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "x.yaml")

        def check(content: bytes) -> None:
            path.write_bytes(content)
            refused_or_right(["--config", str(path)])

        explore(spoilt(EXPERIMENT), examples, check)


@depth(12, 400)
@pytest.mark.timeout(1200)
def test_spoilt_command_lines(examples: int) -> None:
    values = st.sampled_from([*VALUES, "Table", "LoRA", "{class_path: LoRA, init_args: {rank: x}}", "1", "[1, 2]"])
    flags = st.tuples(st.sampled_from(KEYS), values, st.sampled_from(["apart", "=", "key alone"]))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "x.yaml")
        path.write_bytes(EXPERIMENT)

        def check(given: list[tuple[str, str, str]]) -> None:
            args = ["--config", str(path)]
            for key, value, how in given:
                args += {"apart": [key, value], "=": [f"{key}={value}"], "key alone": [key]}[how]
            refused_or_right(args)

        explore(st.lists(flags, min_size=1, max_size=2), examples, check)
