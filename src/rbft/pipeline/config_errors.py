"""What a person reads of a wrong configuration: one line that names the key and the nearest right one."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

from lightning.pytorch.cli import LightningArgumentParser
from omegaconf.errors import OmegaConfBaseException

from rbft.data.formats import DatasetFormat
from rbft.errors import ConfigError
from rbft.experiment.places import place_of
from rbft.objectives.base import Objective
from rbft.pipeline.allowed_classes import not_allowed_message
from rbft.rationales.checks.base import Check
from rbft.rationales.controls import Control
from rbft.rationales.quality import Keep
from rbft.vlm.tuning import Tuning

_BASES: dict[str, type[Any]] = {
    "data.format": DatasetFormat,
    "model.objective": Objective,
    "model.tuning": Tuning,
    "model.checks": Check,
    "model.keep": Keep,
    "model.control": Control,
}


class StageParser(LightningArgumentParser):
    """Ends a wrong configuration in one line that names the key and the nearest right one."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Refuse a configuration.

        Raises:
            ConfigError: Names the key and what is wrong with it.
        """
        text = re.sub(r"\s+", " ", str(message)).strip()
        if denied := re.search(r"Importing '([\w.]+)' is not allowed", text):
            where = re.search(r'Parser key "([\w.]+)"', text) or re.match(r"--([\w.]+)", text)
            raise ConfigError(not_allowed_message(where.group(1) if where else "", denied.group(1))) from ex
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


def _refused_key(message: str) -> str:
    """The key that is not accepted, as the parser's message has it; empty where that is not what is wrong."""
    match = re.search(r"unrecognized arguments: --([\w.]+)", message)
    match = match or re.search(r"(?:[Oo]ption|key) '([\w.]+)' is not accepted", message)
    match = match or re.search(r"does not accept (?:option|nested key|key) '([\w.]+)'", message)
    if match is None:
        return ""
    wrong, group = match.group(1), re.search(r"Group '([\w.]+)'", message)
    return f"{group.group(1)}.{wrong}" if group is not None and not wrong.startswith(group.group(1)) else wrong


def _suggestion(message: str, known: Sequence[str]) -> str:
    if not (wrong := _refused_key(message)):
        return ""
    # a nested key is reported with what stands below it; its parent may be the misspelt part
    for candidate in (wrong, wrong.rsplit(".", 1)[0]):
        if close := difflib.get_close_matches(candidate, known, n=1, cutoff=0.7):
            return f". Did you mean {close[0]}?"
    tails = {key.rsplit(".", 1)[-1]: key for key in known}
    close = difflib.get_close_matches(wrong.rsplit(".", 1)[-1], list(tails), n=1, cutoff=0.7)
    return f". Did you mean {tails[close[0]]}?" if close else ""


@contextmanager
def readable_errors(args: Sequence[str]) -> Iterator[None]:
    """A key that an experiment file has wrong is reported with file and line, a `${key}` without a value in one line.

    Args:
        args: command line of the stage.
    """
    try:
        yield
    except OmegaConfBaseException as error:
        where = f"{error.full_key}: " if error.full_key else ""
        reason = str(error).split("\n")[0]
        message = f"{where}{reason}. Inside ${{...}} stands a whole key, such as data.num_frames."
        raise ConfigError(_placed(message, args) or message) from error
    except ConfigError as error:
        if not (placed := _placed(str(error), args)):
            raise
        raise ConfigError(placed) from error.__cause__


def _placed(message: str, args: Sequence[str]) -> str:
    """The message with file and line of the key that it names; empty where no file has the key."""
    stated = re.match(r'(?:Parser key ")?([a-z]\w*(?:\.\w+)+)"?: ', message)
    key = _refused_key(message) or (stated.group(1) if stated else "")
    place = place_of(key, args) if key else ""
    return f"{place}: {message}" if place else ""


@contextmanager
def class_errors() -> Iterator[None]:
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
