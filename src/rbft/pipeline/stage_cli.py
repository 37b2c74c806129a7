"""The Lightning CLI of one stage: typed parsing of files, layers and flags, then module, data and trainer."""

from __future__ import annotations

import difflib
import inspect
import json
import pkgutil
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import Enum
from typing import Any, ClassVar, NoReturn

import lightning as L
import yaml
from jsonargparse import Namespace, set_parsing_settings
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import Logger
from omegaconf.errors import OmegaConfBaseException

# class names alone suffice in experiment files because these are imported
import rbft.objectives.classification
import rbft.objectives.closed_set
import rbft.objectives.joint
import rbft.objectives.rationale
import rbft.rationales.checks.contradiction
import rbft.rationales.checks.grounding
import rbft.rationales.checks.reconstruction  # noqa: F401
from rbft.data.datamodule import VideoDataModule
from rbft.data.formats import DatasetFormat
from rbft.errors import ConfigError
from rbft.objectives.base import Objective
from rbft.rationales.checks.base import Check
from rbft.rationales.controls import Control
from rbft.rationales.quality import Keep
from rbft.training.module import VLMFineTuner
from rbft.vlm.tuning import Tuning

PACKAGES = ("rbft", "lightning", "torch", "torchmetrics", "transformers", "peft")
"""Whose classes a configuration may name; of any other, not even the module is imported."""

# Lightning's classes have text enumerations as defaults (Timer), with which no configuration could be written down
yaml.SafeDumper.add_multi_representer(Enum, lambda dumper, value: dumper.represent_data(value.value))

_granted: set[str] = set()  # names of other packages that the parser's settings, one set for a process, let through
_BASES: dict[str, type[Any]] = {
    "data.format": DatasetFormat,
    "model.objective": Objective,
    "model.tuning": Tuning,
    "model.checks": Check,
    "model.keep": Keep,
    "model.control": Control,
}


class _Parser(LightningArgumentParser):
    """Ends a wrong configuration in one line that names the key and the nearest right one."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        text = re.sub(r"\s+", " ", str(message)).strip()
        if denied := re.search(r"Importing '([\w.]+)' is not allowed", text):
            where = re.search(r'Parser key "([\w.]+)"', text) or re.match(r"--([\w.]+)", text)
            raise ConfigError(_not_allowed(where.group(1) if where else "", denied.group(1))) from ex
        text = _readable(text)
        raise ConfigError(f"{text}{_suggestion(text, self._known_keys())}") from ex

    def _known_keys(self) -> list[str]:
        return [action.dest for action in self._actions if action.dest not in ("help", "config")]


def _readable(message: str) -> str:
    """The parser's report on a value of several possible types, without its internals."""
    pattern = (
        # a bare word is tried as the path of a file first
        r'Parser key "([\w.]+)": (?:- Expected a path .*? - )?Does not validate .*? '
        r"Errors: (.*) Given value type: .*? Given value: (.*)"
    )
    match = re.fullmatch(pattern, message)
    if match is None:
        return message
    key, errors, value = match.groups()
    causes = [cause.strip(" -") for cause in re.split(r"(?:^|\s)- ", errors) if cause and "NoneType" not in cause]
    causes = [re.sub(r"<class '([\w.]+)'>", r"\1", cause) for cause in causes] or [errors]
    if name := re.match(r"Expected a dot import path string: (\w+)", causes[0]):
        known = [cls.__name__ for cls in _BASES[key].__subclasses__()] if key in _BASES else []
        close = difflib.get_close_matches(name.group(1), known, n=1)
        advice = f"did you mean {close[0]}?" if close else "give its whole import path."
        return f"{key}: no class {name.group(1)!r} is known; {advice}"
    return f"{key}: {'; or '.join(causes)}; given {value}"


def _suggestion(message: str, known: Sequence[str]) -> str:
    match = re.search(r"unrecognized arguments: --([\w.]+)", message)
    match = match or re.search(r"(?:[Oo]ption|key) '([\w.]+)' is not accepted", message)
    match = match or re.search(r"does not accept (?:option|nested key|key) '([\w.]+)'", message)
    if match is None:
        return ""
    wrong, group = match.group(1), re.search(r"Group '([\w.]+)'", message)
    wrong = f"{group.group(1)}.{wrong}" if group is not None and not wrong.startswith(group.group(1)) else wrong
    # a nested key is reported with what stands below it; its parent may be the misspelt part
    for candidate in (wrong, wrong.rsplit(".", 1)[0]):
        if close := difflib.get_close_matches(candidate, known, n=1, cutoff=0.7):
            return f". Did you mean {close[0]}?"
    tails = {key.rsplit(".", 1)[-1]: key for key in known}
    close = difflib.get_close_matches(wrong.rsplit(".", 1)[-1], list(tails), n=1, cutoff=0.7)
    return f". Did you mean {tails[close[0]]}?" if close else ""


def _not_allowed(key: str, name: str) -> str:
    """What to say of a name that must not be imported."""
    packages = f"{', '.join(PACKAGES[:-1])} and {PACKAGES[-1]}"
    return (
        f"{key + ': ' if key else ''}{name!r} is refused; a configuration may name classes of {packages} only. "
        f"If you know and trust that code, allow it with `--allow-class {name}`."
    )


def _take_allowed(args: Sequence[str]) -> tuple[set[str], list[str]]:
    """The names behind --allow-class, and the rest of the command line.

    It is a flag and no key: a file must not be able to allow what it names.

    Raises:
        ConfigError: What stands behind the flag is no import path.
    """
    names: set[str] = set()
    rest: list[str] = []
    left = iter(args)
    for arg in left:
        flag, equals, name = arg.partition("=")
        if flag not in ("--allow-class", "--allow_class"):
            rest.append(arg)
            continue
        name = name if equals else next(left, "")
        if not all(part.isidentifier() for part in name.split(".")) or name.split(".")[0] == "jsonargparse":
            raise ConfigError(f"{flag} {name}: expected the import path of a class, for example mine.callbacks.Mine.")
        names.add(name)
    return names, rest


def _allow(names: set[str]) -> None:
    """Let configurations name classes of `PACKAGES` and of `names`, and nothing else."""
    names = {name for name in names if name.split(".")[0] not in PACKAGES}
    set_parsing_settings(
        import_path_denylist=["*", *sorted(_granted - names)],
        import_path_allowlist=[*PACKAGES, *sorted(names)],
        # a value of no stated type stays a value, whatever it looks like
        instantiate_subclass_spec_in_any=False,
    )
    _granted.update(names)


def _functions(value: Any, key: str) -> Iterator[tuple[str, str]]:
    """(key, import path) of every function in a parsed configuration.

    A function is called with the arguments that stand beside its name, so it could do what no class of `PACKAGES` does
    when an object is made of it (`torch.hub.load` runs the code of a repository).
    """
    if isinstance(value, Namespace):
        path = value.get("class_path")
        if isinstance(path, str) and not inspect.isclass(pkgutil.resolve_name(path)):
            yield key, path
        value = vars(value)
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _functions(inner, f"{key}.{name}")
    elif isinstance(value, (list, tuple, set)):
        for inner in value:
            yield from _functions(inner, key)
    elif callable(value) and not inspect.isclass(value):
        yield key, f"{value.__module__}.{getattr(value, '__qualname__', type(value).__qualname__)}"


class StageCLI(LightningCLI):
    """Module and data of one stage from its command line; the trainer is made when the stage runs.

    Args:
        args: Files, layer and flags, as `rbft.experiment.Experiment.arguments` gives them.

    Raises:
        ConfigError: A key or value is wrong, or names code of a package that is neither one of `PACKAGES` nor allowed
            by `--allow-class NAME`.
    """

    _shared: ClassVar[LightningArgumentParser | None] = None

    def __init__(self, args: Sequence[str]) -> None:
        self._allowed, args = _take_allowed(args)
        _allow(self._allowed)
        with warnings.catch_warnings(), _interpolation():
            # the command line is given by `args`; what else stands in sys.argv has been read already
            warnings.filterwarnings("ignore", message=".*LightningCLI's args parameter.*")
            super().__init__(
                VLMFineTuner,
                VideoDataModule,
                parser_class=_Parser,
                save_config_callback=None,
                seed_everything_default=0,
                auto_configure_optimizers=False,
                load_from_checkpoint_support=False,
                # an abbreviated flag is more often a typing error than a wish
                parser_kwargs={"parser_mode": "omegaconf+", "prog": "rbft fit", "allow_abbrev": False},
                args=list(args),
                run=False,
            )

    def setup_parser(
        self, add_subcommands: bool, main_kwargs: dict[str, Any], subparser_kwargs: dict[str, Any]
    ) -> None:
        """One parser for all stages: it follows from signatures alone, and reading those takes longer than parsing."""
        if StageCLI._shared is None:
            super().setup_parser(add_subcommands, main_kwargs, subparser_kwargs)
            StageCLI._shared = self.parser
        self.parser = StageCLI._shared

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Keys that choose the run rather than shape a stage; read by `rbft.experiment` before."""
        parser.add_argument("--stages", type=dict[str, Any], default={}, help="Stages as layers, in order.")
        parser.add_argument("--methods", type=dict[str, list[str]], default={}, help="Stage lists by name.")
        parser.add_argument("--method", type=str, default="rbft", help="Which stage list runs.")
        parser.add_argument("--experiment", type=str, default=None, help="Folder name; the file's name by default.")
        parser.add_argument("--variant", type=str, default=None, help="Folder name; the method by default.")
        parser.add_argument("--run_root", type=str, default="runs", help="Where run folders are made.")
        parser.add_argument(
            "--save_every", type=int, default=100, help="Optimiser steps between two checkpoints; 0: epochs."
        )

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Read files and flags; whatever the parser trips over is an error of theirs."""
        try:
            super().parse_arguments(parser, args)
        except OmegaConfBaseException:
            raise  # `_interpolation` knows these
        except (TypeError, ValueError) as error:
            parser.error(str(error), error)

    def _set_seed(self) -> None:
        """Seeding happens where a stage starts."""

    def instantiate_classes(self) -> None:
        """Module and data; no trainer yet."""
        code = (found for key in ("model", "data", "trainer") for found in _functions(self.config.get(key), key))
        for key, path in code:
            if not any(f"{path}.".startswith(f"{name}.") for name in self._allowed):
                raise ConfigError(_not_allowed(key, path))
        if self.config.trainer.logger is False:
            raise ConfigError(
                "trainer.logger: every run writes TensorBoard files; leave the key out, or name loggers "
                "that shall hear the same."
            )
        with _messages():
            self.config_init = self.parser.instantiate_classes(self.config)
        self.datamodule = self._get(self.config_init, "data")
        self.model = self._get(self.config_init, "model")

    def resolved(self) -> dict[str, Any]:
        """The whole configuration as plain values."""
        # what the parser gave needs no second look
        text = self.parser.dump(self.config, format="json", skip_none=False, skip_validation=True)
        config: dict[str, Any] = json.loads(text)
        return config

    def make_trainer(self, callbacks: Sequence[L.Callback], **settings: Any) -> L.Trainer:
        """The trainer of the configuration with what a stage adds to it.

        Args:
            callbacks: Behind those of the configuration.
            settings: In the place of the configuration's; behind a logger come those of the configuration.
        """
        configured = self._get(self.config_init, "trainer", default={})
        if isinstance(logger := settings.get("logger"), Logger):
            settings["logger"] = [logger, *_listed(configured.get("logger"))]
        return self.instantiate_trainer(callbacks=[*_listed(configured.get("callbacks")), *callbacks], **settings)


def _listed(value: Any) -> list[Any]:
    """What may be given once, several times or not at all."""
    if value is None or value is True:
        return []
    return list(value) if isinstance(value, (list, tuple)) else [value]


@contextmanager
def _interpolation() -> Iterator[None]:
    """A `${key}` that cannot be filled in is reported in one line."""
    try:
        yield
    except OmegaConfBaseException as error:
        where = f"{error.full_key}: " if error.full_key else ""
        reason = str(error).split("\n")[0]
        raise ConfigError(f"{where}{reason}. Inside ${{...}} stands a whole key, such as data.num_frames.") from error


@contextmanager
def _messages() -> Iterator[None]:
    """Our own errors come through instantiation as they are; what a class refuses otherwise is one line too."""
    try:
        yield
    except ImportError as error:
        # of a library that a class needs, such as that of a logger
        message = f"{str(error).strip()}. The configuration names a class that needs it; install it."
        raise ConfigError(message) from error
    except (TypeError, ValueError) as error:
        cause = error.__cause__
        if isinstance(cause, ConfigError):
            raise cause from None
        raise ConfigError(re.sub(r"\s+", " ", str(error)).strip()) from error
