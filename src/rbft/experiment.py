"""An experiment file: ordered stages as configuration layers, the methods that list them, and the run folder.

Nothing heavy is imported here: a wrong key or stage name is answered at once.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from rbft.arguments import Parser
from rbft.errors import ConfigError, DataError
from rbft.files import read_yaml

StageKind = Literal["write", "rationale", "classification", "joint", "test", "probe"]
KINDS: tuple[str, ...] = get_args(StageKind)
TRAINING_KINDS = ("rationale", "classification", "joint")
TEST_KINDS = ("test", "probe")
METHODS: dict[str, tuple[str, ...]] = {
    "zero_shot": ("test",),
    "sft": ("classification", "test"),
    "rbft": ("write", "rationale", "classification", "test"),
    "joint": ("write", "joint", "test"),
    "probe": ("probe",),
}
# What a stage of each kind means, below whatever its layer says.
_KIND_LAYERS: dict[str, dict[str, Any]] = {
    "write": {},
    "rationale": {"model": {"objective": {"class_path": "rbft.objectives.rationale.RationaleObjective"}}},
    "classification": {
        "model": {"objective": {"class_path": "rbft.objectives.classification.ClassificationObjective"}}
    },
    "joint": {"model": {"objective": {"class_path": "rbft.objectives.joint.JointObjective"}}},
    "test": {},
    "probe": {},
}
_LAYER_KEYS = ("kind", "start", "rationale_epochs", "model", "data", "trainer")
_STARTS = ("previous", "base")


@dataclass(frozen=True)
class Stage:
    """One stage of a method.

    Args:
        name: Its name, also its folder's.
        kind: What it does.
        layer: The configuration it lays over the experiment file.
        weights_from: The stage whose weights it starts from; None for the base model.
        rationales_from: The stage whose rationales it trains on or is measured against; None where it needs none.
        rationale_epochs: Of a classification stage: it also trains for as many epochs as supervise as many tokens as
            this number of epochs over the rationales would.
    """

    name: str
    kind: StageKind
    layer: Mapping[str, Any]
    weights_from: str | None
    rationales_from: str | None
    rationale_epochs: int = 0

    @property
    def trains(self) -> bool:
        """Whether it leaves weights behind."""
        return self.kind in TRAINING_KINDS

    @property
    def tests(self) -> bool:
        """Whether it leaves predictions of the test videos."""
        return self.kind in TEST_KINDS


@dataclass(frozen=True)
class Experiment:
    """What one `rbft fit` has to do.

    Args:
        name: Of the experiment; the file's name unless the file says otherwise.
        method: The list of stages that was chosen.
        variant: Folder name of the run below the experiment; the method unless set.
        stages: All stages of the method, in order.
        only: The one stage asked for with --stage, or None.
        run_dir: `<run_root>/<experiment>/<variant>/seed<k>`.
        files: The experiment files, left to right.
        flags: The remaining command line, which overrides files and layers.
        restart: Whether finished work is done anew.
        dry_run: Whether to stop after the plan.
        profile: Whether to report where each stage's time goes.
    """

    name: str
    method: str
    variant: str
    stages: tuple[Stage, ...]
    only: str | None
    run_dir: Path
    files: tuple[str, ...]
    flags: tuple[str, ...]
    restart: bool
    dry_run: bool
    profile: bool = False

    def arguments(self, stage: Stage) -> list[str]:
        """The command line of one stage: files, then its layer, then the flags."""
        args = [part for file in self.files for part in ("--config", file)]
        return [*args, "--config", json.dumps(dict(stage.layer)), *self.flags]


def nearest(name: str, known: Iterable[str]) -> str:
    """A clause that names the most similar known word, or lists the known ones."""
    names = sorted(map(str, known))
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    return f"did you mean {close[0]!r}?" if close else f"known: {', '.join(names)}."


def _read_yaml(path: str) -> dict[str, Any]:
    try:
        content = read_yaml(Path(path))
    except DataError as error:
        raise ConfigError(f"--config {error}") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigError(f"--config {path}: expected keys and values at the top, found {type(content).__name__}.")
    return content


def _flag(flags: Sequence[str], name: str) -> str | None:
    """The last value of `--name value` or `--name=value`."""
    value = None
    for position, flag in enumerate(flags):
        if flag == f"--{name}" and position + 1 < len(flags):
            value = flags[position + 1]
        elif flag.startswith(f"--{name}="):
            value = flag.split("=", 1)[1]
    return value


def lay_over(base: Mapping[str, Any], layer: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with the nested keys of `layer` in the place of its own."""
    merged = dict(base)
    for key, value in layer.items():
        mine = merged.get(key)
        merged[key] = lay_over(mine, value) if isinstance(mine, dict) and isinstance(value, Mapping) else value
    return merged


def _check_folder_name(what: str, value: str) -> None:
    if value in ("", ".", "..") or "/" in value or "\\" in value or "\0" in value:
        raise ConfigError(f"{what}: {value!r} becomes a folder name and may not be a path.")


def _section(path: str, content: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """The keys and values below one key of a file."""
    section = content.get(key) or {}
    if not isinstance(section, Mapping):
        raise ConfigError(f"--config {path}: {key} must hold keys and values, found {type(section).__name__}.")
    return section


def _method(where: str, methods: Mapping[str, Any], method: str) -> list[str]:
    """The stage names of a method."""
    if method not in methods:
        raise ConfigError(f"method {method!r} is unknown; {nearest(method, methods)}")
    names = methods[method]
    if not isinstance(names, (list, tuple)) or not names or not all(isinstance(name, str) for name in names):
        raise ConfigError(f"{where}: methods.{method} must be a list of stage names, found {names!r}.")
    if len(set(names)) < len(names):
        raise ConfigError(f"{where}: methods.{method} lists a stage twice; a stage has one folder and runs once.")
    for name in names:
        _check_folder_name(f"{where}: methods.{method}", name)
    return list(names)


def _stages(where: str, names: Sequence[str], layers: Mapping[str, Any]) -> tuple[Stage, ...]:
    """The stages of a method with what each takes from those before it."""
    stages: list[Stage] = []
    weights: str | None = None
    rationales: str | None = None
    for name in names:
        if name not in layers:
            raise ConfigError(
                f"{where}: the method lists the stage {name!r}, which `stages:` does not have; {nearest(name, layers)}"
            )
        layer = layers[name] or {}
        if not isinstance(layer, Mapping):
            raise ConfigError(f"{where}: stages.{name} must hold keys and values, found {type(layer).__name__}.")
        if unknown := sorted(str(key) for key in layer if key not in _LAYER_KEYS):
            raise ConfigError(f"{where}: unknown key stages.{name}.{unknown[0]}; {nearest(unknown[0], _LAYER_KEYS)}")
        kind = layer.get("kind", name)
        if kind not in KINDS:
            raise ConfigError(
                f"{where}: stages.{name}: of which kind is it? Set stages.{name}.kind to one of {', '.join(KINDS)}."
                if "kind" not in layer
                else f"{where}: stages.{name}.kind: {kind!r} is unknown; {nearest(str(kind), KINDS)}"
            )
        begin = layer.get("start", "previous")
        if begin not in _STARTS:
            raise ConfigError(
                f"{where}: stages.{name}.start: {begin!r} is unknown; it is 'previous' (the weights of "
                "the last training stage before it) or 'base' (the base model's)."
            )
        match = layer.get("rationale_epochs", 0)
        if isinstance(match, bool) or not isinstance(match, int) or match < 0 or (match and kind != "classification"):
            raise ConfigError(
                f"{where}: stages.{name}.rationale_epochs: {match!r} must be a whole number of epochs; "
                "only stages of kind 'classification' have it."
            )
        needs = kind in ("rationale", "joint") or match > 0
        if needs and rationales is None:
            verb = "is measured against" if match else "trains on"
            raise ConfigError(
                f"{where}: the stage {name!r} {verb} rationales, but no stage before it writes any; "
                "put a stage of kind 'write' before it."
            )
        own = {key: value for key, value in layer.items() if key in ("model", "data", "trainer")}
        content = lay_over(_KIND_LAYERS[kind], own)
        start = weights if begin == "previous" else None
        stages.append(Stage(name, kind, content, start, rationales if needs else None, match))
        if kind in TRAINING_KINDS:
            weights = name
        elif kind == "write":
            rationales = name
    return tuple(stages)


def make_parser(prog: str = "rbft fit") -> Parser:
    """The parser of what chooses a run; every other flag is a key of the experiment file.

    Args:
        prog: name of the command, for messages.
    """
    parser = Parser(prog=prog, allow_abbrev=False)
    parser.add_argument(
        "--config",
        "-c",
        action="append",
        default=[],
        metavar="FILE",
        help="experiment file; a second one overrides the first",
    )
    parser.add_argument("--stage", metavar="NAME", help="run one stage alone, with what the others left")
    parser.add_argument("--restart", action="store_true", help="do finished work anew; what was there is archived")
    parser.add_argument("--dry_run", "--dry-run", action="store_true", help="print the plan and stop")
    parser.add_argument("--profile", action="store_true", help="say where the time of each stage goes")
    return parser


def read_experiment(args: Sequence[str]) -> Experiment:
    """Read the command line and the experiment files of `rbft fit`.

    Raises:
        ConfigError: A file is missing or not YAML, or a stage, method or kind is unknown.
    """
    own, flags = make_parser().parse_known_args(list(args))
    if not own.config:
        raise ConfigError(
            "no experiment given; say which with --config, for example `rbft fit --config experiments/quickstart.yaml`."
        )
    contents = [_read_yaml(path) for path in own.config]

    def setting(name: str, default: Any) -> Any:
        """Flag, else last file that has it, else the default."""
        if (value := _flag(flags, name)) is not None:
            return value
        return next((content[name] for content in reversed(contents) if content.get(name) is not None), default)

    where = ", ".join(own.config)
    layers: dict[str, Any] = {}
    methods: dict[str, Any] = dict(METHODS)
    for path, content in zip(own.config, contents, strict=True):
        layers = lay_over(layers, _section(path, content, "stages"))
        methods.update(_section(path, content, "methods"))
    if not layers:
        raise ConfigError(
            f"{where}: no `stages:`. An experiment lists its stages, for example write, rationale, "
            "classification and test."
        )
    method = str(setting("method", "rbft"))
    stages = _stages(where, _method(where, methods, method), layers)
    if own.stage is not None and own.stage not in [stage.name for stage in stages]:
        raise ConfigError(
            f"--stage {own.stage}: the method {method!r} has no such stage; "
            f"{nearest(own.stage, [stage.name for stage in stages])}"
        )
    name = str(setting("experiment", Path(own.config[-1]).stem))
    variant = str(setting("variant", method))
    _check_folder_name("experiment", name)
    _check_folder_name("variant", variant)
    seed = setting("seed_everything", 0)
    if isinstance(seed, bool) or not str(seed).isdecimal():
        raise ConfigError(f"seed_everything: {seed!r} must be a whole number of at least 0.")
    run_dir = Path(str(setting("run_root", "runs"))) / name / variant / f"seed{seed}"
    return Experiment(
        name,
        method,
        variant,
        stages,
        own.stage,
        run_dir,
        tuple(own.config),
        tuple(flags),
        own.restart,
        own.dry_run,
        own.profile,
    )
