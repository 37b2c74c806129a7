"""Reading an experiment: its command line and files as one experiment, with its run folder."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rbft.arguments import Parser
from rbft.errors import ConfigError, DataError
from rbft.experiment.layers import lay_over, section_of, take_sections
from rbft.experiment.stages import KINDS, METHODS, Stage, check_folder_name, make_stages, nearest, stages_of_method
from rbft.files import expanded, read_yaml

# an experiment file's keys, and flags of `rbft fit` that runs of many may have
_SECTIONS = ("data", "model", "trainer", "stages", "methods")
RUN_KEYS = ("seed_everything", "method", "experiment", "variant", "run_root", "save_every", "save_seconds")
_LARGEST_SEED = 2**32 - 1  # of numpy's generator
_KEYS = (*_SECTIONS, *RUN_KEYS, "profile", "wait", "restart", "allow-class", "allow_class")


@dataclass(frozen=True)
class Experiment:
    """What one `rbft fit` has to do.

    Args:
        name: name of the experiment; the file's name unless the file says otherwise.
        method: The list of stages that was chosen.
        variant: Folder name of the run below the experiment; the method unless set.
        stages: All stages of the method, in order.
        only: The one stage asked for with --stage, or None.
        run_dir: `<run_root>/<experiment>/<variant>/seed<k>`.
        files: The experiment files, left to right.
        flags: The remaining command line, which overrides files and layers.
        restart: whether finished work is done again.
        dry_run: Whether to stop after the plan.
        profile: Whether to report where each stage's time goes.
        wait: Whether to wait for another process that has the run folder.
        layers: The `stages` of all files and flags, merged; those of other methods too.
        methods: The `methods` of all files and flags, merged.
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
    layers: Mapping[str, Any] = field(default_factory=dict)
    methods: Mapping[str, Any] = field(default_factory=dict)
    wait: bool = False

    def arguments(self, stage: Stage) -> list[str]:
        """The command line of one stage: files, then its layer, then the flags."""
        args = [part for file in self.files for part in ("--config", file)]
        return [*args, "--config", json.dumps(dict(stage.layer)), *self.flags]


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


def require_known_keys(keys: Iterable[str]) -> None:
    """Refuse what is no key of an experiment file by its first word, before any of many runs starts.

    The rest of a key is judged by the parser of a stage, which takes seconds to make.

    Args:
        keys: dotted keys, as of flags.

    Raises:
        ConfigError: Names the first that is none, and what may have been meant.
    """
    for key in keys:
        if re.match(r"[\w-]*", key)[0] not in _KEYS:  # type: ignore[index]
            raise ConfigError(f"--{key}: no run has such a flag; {nearest(key, _KEYS)}")


def _flag(flags: Sequence[str], name: str) -> str | None:
    """The last value of `--name value` or `--name=value`."""
    value = None
    for position, flag in enumerate(flags):
        if flag == f"--{name}" and position + 1 < len(flags):
            value = flags[position + 1]
        elif flag.startswith(f"--{name}="):
            value = flag.split("=", 1)[1]
    return value


def _resolved(name: str, value: str, contents: Sequence[Mapping[str, Any]]) -> Any:
    """A value with what `${...}` stands for in the place of that, as in the values that the parser of a stage reads.

    Args:
        name: key that has the value.
        value: the value.
        contents: experiment files, left to right.

    Raises:
        ConfigError: It stands for nothing.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    whole: dict[str, Any] = {}
    for content in contents:
        whole = lay_over(whole, content)
    try:
        return OmegaConf.select(OmegaConf.create(whole | {name: value}), name)
    except OmegaConfBaseException as error:
        raise ConfigError(f"{name}: {value!r}: {str(error).splitlines()[0]}.") from error


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
    parser.add_argument("--restart", action="store_true", help="do finished work again; what was there is archived")
    parser.add_argument("--dry_run", "--dry-run", action="store_true", help="print the plan and stop")
    parser.add_argument("--profile", action="store_true", help="say where the time of each stage goes")
    parser.add_argument("--wait", action="store_true", help="wait for another process that runs in the same folder")
    return parser


def read_experiment(args: Sequence[str]) -> Experiment:
    """Read the command line and the experiment files of `rbft fit`.

    Raises:
        ConfigError: A file is missing or not YAML, or a stage, method or kind is unknown.
    """
    own, flags = make_parser().parse_known_args(list(args))
    if not own.config:
        raise ConfigError(
            "no experiment given; name a folder of labelled clips or an experiment file, or try "
            "`rbft fit builtin:quickstart`."
        )
    own.config = [str(expanded(path)) if path.startswith("~") else path for path in own.config]
    contents = [_read_yaml(path) for path in own.config]
    sections, flags = take_sections(flags)

    def setting(name: str, default: Any) -> Any:
        """Flag, else last file that has it, else the default."""
        value = _flag(flags, name)
        if value is None:
            value = next((content[name] for content in reversed(contents) if content.get(name) is not None), default)
        return _resolved(name, value, contents) if isinstance(value, str) and "${" in value else value

    where = ", ".join(own.config)
    layers: dict[str, Any] = {}
    methods: dict[str, Any] = {}
    for path, content in zip(own.config, contents, strict=True):
        layers = lay_over(layers, section_of(f"--config {path}", content, "stages"))
        methods |= section_of(f"--config {path}", content, "methods")
    methods |= section_of("flags", sections, "methods")
    said = section_of("flags", sections, "stages")
    known = {
        *layers,
        *KINDS,
        *(name for names in methods.values() if isinstance(names, (list, tuple)) for name in names),
    }
    if unknown := [name for name in said if name not in known]:
        raise ConfigError(f"--stages.{unknown[0]}: there is no such stage; {nearest(unknown[0], layers)}")
    layers = lay_over(layers, said)
    if not layers and (sweeps := [p for p, held in zip(own.config, contents, strict=True) if "grid" in held]):
        raise ConfigError(f"{sweeps[0]} is a sweep file; did you mean `rbft sweep {sweeps[0]}`?")
    if not layers:
        raise ConfigError(
            f"{where}: no `stages:`. An experiment lists its stages, for example write, rationale, "
            "classification and test."
        )
    method = str(setting("method", "rbft"))
    stages = make_stages(where, stages_of_method(where, METHODS | methods, method), layers)
    if own.stage is not None and own.stage not in [stage.name for stage in stages]:
        raise ConfigError(
            f"--stage {own.stage}: the method {method!r} has no such stage; "
            f"{nearest(own.stage, [stage.name for stage in stages])}"
        )
    name = str(setting("experiment", Path(own.config[-1]).stem))
    variant = str(setting("variant", method))
    check_folder_name("experiment", name)
    check_folder_name("variant", variant)
    seed = setting("seed_everything", 0)
    if isinstance(seed, bool) or not str(seed).isdecimal() or int(seed) > _LARGEST_SEED:
        raise ConfigError(f"seed_everything: {seed!r} must be a whole number from 0 to {_LARGEST_SEED}.")
    run_dir = expanded(str(setting("run_root", "runs"))) / name / variant / f"seed{seed}"
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
        layers,
        methods,
        own.wait,
    )
