"""A configuration makes objects of known packages only; of anything else not even the module is imported."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from rbft.errors import ConfigError
from rbft.experiment import Experiment, read_experiment
from rbft.pipeline.allowed_classes import PACKAGES
from rbft.pipeline.stage_cli import StageCLI

BASE = {"data": {"root": "/nowhere", "num_frames": 4}}
Make = Callable[..., StageCLI]


@pytest.fixture
def stage(tmp_path: Path) -> Make:
    """The stage of a file and flags."""

    def make(content: dict[str, Any], *flags: str) -> StageCLI:
        path = tmp_path / "stage.yaml"
        path.write_text(json.dumps({**BASE, **content}))
        return StageCLI(["--config", str(path), *flags])

    return make


@pytest.fixture
def module(tmp_path: Path, marker: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module that leaves the marker when it is imported, on the path that Python searches."""
    name = f"evil_{abs(hash(tmp_path))}"
    body = "import lightning\nclass Evil(lightning.Callback):\n    pass\ndef function(*args):\n    pass\n"
    (tmp_path / f"{name}.py").write_text(f"import os\nos.mkdir({str(marker)!r})\n{body}")
    monkeypatch.syspath_prepend(str(tmp_path))
    return name


def lambda_callback(value: object) -> dict[str, Any]:
    return {"class_path": "lightning.pytorch.callbacks.LambdaCallback", "init_args": {"on_fit_start": value}}


# Every kind of place at which a configuration may name code.
MANIFEST: dict[str, Callable[[str], tuple[dict[str, Any], tuple[str, ...]]]] = {
    "list of classes": lambda name: ({"trainer": {"callbacks": [{"class_path": name}]}}, ()),
    "one class": lambda name: ({"trainer": {"callbacks": {"class_path": name}}}, ()),
    "bare name": lambda name: ({"trainer": {"callbacks": name}}, ()),
    "name or class": lambda name: ({"trainer": {"strategy": {"class_path": name}}}, ()),
    "our own base class": lambda name: ({"data": {"format": {"class_path": name}}}, ()),
    "optional base class": lambda name: ({"model": {"objective": name}}, ()),
    "dataclass": lambda name: ({"model": {"optim": {"class_path": name}}}, ()),
    "inside of arguments": lambda name: ({"trainer": {"callbacks": [lambda_callback(name)]}}, ()),
    "called with arguments": lambda name: ({"trainer": {"callbacks": [lambda_callback({"class_path": name})]}}, ()),
    "flag": lambda name: ({}, ("--trainer.callbacks", name)),
    "flag that appends": lambda name: ({}, (f"--trainer.callbacks+={name}",)),
    "flag of a class path": lambda name: ({}, ("--data.format.class_path", name)),
    "help": lambda name: ({}, ("--data.format.help", name)),
    "layer": lambda name: ({}, ("--config", json.dumps({"data": {"format": {"class_path": name}}}))),
}


@pytest.mark.parametrize("place", MANIFEST)
def test_modules_of_other_packages_are_not_even_imported(place: str, module: str, stage: Make) -> None:
    content, flags = MANIFEST[place](f"{module}.Evil")
    with pytest.raises(ConfigError, match=rf"{module}\.Evil.* is refused.*`--allow-class {module}\.Evil`"):
        stage(content, *flags)
    assert module not in sys.modules


def test_a_file_that_a_key_names_is_held_to_the_same(module: str, stage: Make, tmp_path: Path) -> None:
    (tmp_path / "format.yaml").write_text(f"class_path: {module}.Evil\n")
    with pytest.raises(ConfigError, match="is refused"):
        stage({"data": {**BASE["data"], "format": str(tmp_path / "format.yaml")}})
    (tmp_path / "data.yaml").write_text(f"root: /nowhere\nformat: {module}.Evil\n")
    with pytest.raises(ConfigError, match="is refused"):
        stage({}, "--data", str(tmp_path / "data.yaml"))


@pytest.mark.parametrize(
    "name",
    [
        "os.system",
        "builtins.eval",
        "subprocess.Popen",
        "torch.os.system",
        "lightning.pytorch.loggers.csv_logs.os.system",
        "transformers.utils.hub.os.system",
        "rbft.runs.environment.subprocess.run",
        "rbft.files.tempfile.mkdtemp",
        "lightning.pytorch.cli.Namespace",
        "tests.support.mutate",
    ],
)
@pytest.mark.parametrize("place", ["list of classes", "our own base class", "inside of arguments", "flag", "help"])
def test_where_a_thing_is_defined_counts_not_where_it_is_found(place: str, name: str, stage: Make) -> None:
    content, flags = MANIFEST[place](name)
    with pytest.raises(ConfigError, match="is refused"):
        stage(content, *flags)


@pytest.mark.parametrize("init_args", [None, {"repo_or_dir": "HERE", "model": "evil", "source": "local"}])
def test_functions_of_known_packages_are_never_called(
    init_args: dict[str, str] | None, stage: Make, tmp_path: Path, marker: Path
) -> None:
    (tmp_path / "hubconf.py").write_text(f"import os\nos.mkdir({str(marker)!r})\n")
    spec: Any = "torch.hub.load"
    if init_args:
        spec = {"class_path": spec, "init_args": init_args | {"repo_or_dir": str(tmp_path)}}
    with pytest.raises(ConfigError, match=r"trainer\.callbacks.*'torch\.hub\.load' is refused"):
        stage({"trainer": {"callbacks": [lambda_callback(spec)]}})


def test_values_of_no_stated_type_stay_values(stage: Make) -> None:
    spec = {"class_path": "torch.nn.Linear", "init_args": {"in_features": 1, "out_features": 1}}
    callback = {"class_path": "lightning.pytorch.callbacks.Timer", "init_args": {"duration": spec}}
    with pytest.raises(ConfigError, match="duration"):
        stage({"trainer": {"callbacks": [callback]}})
    logger = {"class_path": "lightning.pytorch.loggers.CSVLogger", "init_args": {"save_dir": "x", "version": 1}}
    assert stage({"trainer": {"logger": logger}}).config_init.trainer.logger.version == 1


def test_classes_of_known_packages_need_nothing(stage: Make) -> None:
    made = stage({"trainer": {"callbacks": [{"class_path": "lightning.pytorch.callbacks.Timer"}]}})
    assert type(made.config_init.trainer.callbacks[0]).__name__ == "Timer"
    assert type(stage({"data": {**BASE["data"], "format": "UCF101"}}).datamodule.format).__name__ == "UCF101"


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module of the person who runs the command."""
    name = f"mine_{abs(hash(tmp_path))}"
    body = "import lightning\nclass Mine(lightning.Callback):\n    pass\ndef function(*args):\n    pass\n"
    (tmp_path / f"{name}.py").write_text(body)
    monkeypatch.syspath_prepend(str(tmp_path))
    return name


@pytest.mark.parametrize("flag", [("--allow-class", "{}.Mine"), ("--allow_class={}.Mine",), ("--allow-class", "{}")])
def test_a_named_class_is_allowed_for_this_command_alone(flag: tuple[str, ...], mine: str, stage: Make) -> None:
    content = {"trainer": {"callbacks": [{"class_path": f"{mine}.Mine"}]}}
    made = stage(content, *(part.format(mine) for part in flag))
    assert type(made.config_init.trainer.callbacks[0]).__name__ == "Mine"
    assert made.resolved()["trainer"]["callbacks"][0]["class_path"] == f"{mine}.Mine"
    with pytest.raises(ConfigError, match="is refused"):
        stage(content)
    with pytest.raises(ConfigError, match="is refused"):
        stage(content, "--allow-class", f"{mine}.Min")


def test_a_named_function_is_allowed(mine: str, stage: Make) -> None:
    content = {"trainer": {"callbacks": [lambda_callback(f"{mine}.function")]}}
    assert stage(content, "--allow-class", f"{mine}.function").config_init.trainer.callbacks
    with pytest.raises(ConfigError, match=r"function.* is refused"):
        stage(content)


@pytest.mark.parametrize("name", ["", "os system", "jsonargparse.set_parsing_settings", "*", "../x"])
def test_what_is_no_name_cannot_be_allowed(name: str, stage: Make) -> None:
    with pytest.raises(ConfigError, match=r"--allow-class .*expected the import path of a class"):
        stage({}, "--allow-class", name)


def test_a_file_cannot_allow_what_it_names(mine: str, stage: Make) -> None:
    content = {"trainer": {"callbacks": [{"class_path": f"{mine}.Mine"}]}}
    for key in ("allow-class", "allow_class"):
        with pytest.raises(ConfigError, match=f"is refused|{key}"):
            stage({**content, key: [f"{mine}.Mine"]})


def test_the_flag_reaches_every_stage_of_an_experiment(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(yaml.safe_dump({**BASE, "stages": {"classification": {}, "test": {}}}))
    experiment: Experiment = read_experiment(["--config", str(path), "--method", "sft", "--allow-class", "a.B"])
    for one in experiment.stages:
        assert experiment.arguments(one)[-2:] == ["--allow-class", "a.B"]


def test_python_objects_in_yaml_are_refused(tmp_path: Path, marker: Path) -> None:
    path = tmp_path / "x.yaml"
    for tag in ("object/apply:os.mkdir", "object/new:os.mkdir"):
        path.write_text(f"stages: {{test: {{}}}}\ndata: !!python/{tag} [{marker}]\n")
        with pytest.raises(ConfigError, match="not valid YAML"):
            read_experiment(["--config", str(path)])
        with pytest.raises(ConfigError):
            StageCLI(["--config", str(path)])


def test_experiments_are_not_fetched() -> None:
    for place in ("http://127.0.0.1:9/x.yaml", "file:///etc/passwd", "memory://x"):
        with pytest.raises(ConfigError, match="no such file"):
            read_experiment(["--config", place])
        with pytest.raises(ConfigError):
            StageCLI(["--config", place])


def test_the_packages_are_those_the_documentation_names() -> None:
    text = (Path(__file__).parents[2] / "docs" / "security.md").read_text(encoding="utf-8")
    assert all(f"`{name}`" in text for name in PACKAGES)
