"""What a command line says of the data set format."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from rbft.errors import ConfigError
from rbft.files import parse_yaml

_KEY = "--data.format"
_LISTS = ("skip", "text_columns")


def split_format_flags(flags: Sequence[str]) -> tuple[list[str], list[str]]:
    """The flags that say something of the data set format, each with its value in one word, and all others.

    Args:
        flags: command line, `--data.format NAME` and `--data.format.SETTING VALUE` among others.
    """
    own: list[str] = []
    others: list[str] = []
    words = iter(flags)
    for word in words:
        key, mark, _ = word.partition("=")
        if key == _KEY or re.fullmatch(rf"{_KEY}\.[\w.]+", key):
            own.append(word if mark else f"{word}={next(words, 'null')}")
        else:
            others.append(word)
    return own, others


def format_of(flags: Sequence[str]) -> tuple[str | None, dict[str, Any]]:
    """The data set format that flags name, without its package, and its settings by name.

    Args:
        flags: what `split_format_flags` gives.

    Returns:
        The name is None where no flag says it.

    Raises:
        ConfigError: A value is not what the setting takes.
    """
    name: str | None = None
    settings: dict[str, Any] = {}
    for flag in flags:
        key, _, value = flag.partition("=")
        if key == _KEY:
            read = _yaml(key, value)
            read = read if isinstance(read, dict) else {"class_path": value}
            name = str(read.get("class_path") or "").rpartition(".")[2] or name
            settings |= read.get("init_args") or {}
        else:
            setting = key.removeprefix(f"{_KEY}.").removeprefix("init_args.")
            settings[setting] = _value(setting, value)
    return name, settings


def _value(setting: str, text: str) -> Any:
    if setting == "frame_rate":
        try:
            return float(text)
        except ValueError as error:
            raise ConfigError(f"{_KEY}.frame_rate {text}: must be a number of frames a second.") from error
    # a column may be called 1 or on
    is_text = setting.endswith("_column") and text != "null"
    value = text if is_text else _yaml(f"{_KEY}.{setting}", text)
    if setting in _LISTS and value is not None:
        value = [value] if isinstance(value, str) else value
        if not isinstance(value, list):
            raise ConfigError(f"{_KEY}.{setting} {text}: must be a list of names, such as '[a, b]'.")
    return value


def _yaml(flag: str, text: str) -> Any:
    try:
        return parse_yaml(text)
    except ValueError as error:
        raise ConfigError(f"{flag} {text}: not valid YAML ({' '.join(str(error).split())}).") from error
