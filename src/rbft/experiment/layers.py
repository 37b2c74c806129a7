"""Layers of settings: nested keys laid over each other, from files and from flags."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rbft.errors import ConfigError
from rbft.files import parse_yaml

SECTIONS = ("stages", "methods")
"""Keys of an experiment file that hold layers rather than values."""


def lay_over(base: Mapping[str, Any], layer: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with the nested keys of `layer` in the place of its own; another class brings no arguments of the old."""
    merged = dict(base)
    for key, value in layer.items():
        below = merged.get(key)
        if isinstance(below, Mapping) and isinstance(value, Mapping) and _same_class(below, value):
            merged[key] = lay_over(below, value)
        else:
            merged[key] = value
    return merged


def _same_class(base: Mapping[str, Any], layer: Mapping[str, Any]) -> bool:
    return bool(layer.get("class_path", base.get("class_path")) == base.get("class_path"))


def _nested(key: str, value: Any) -> dict[str, Any]:
    """A value below a dotted key."""
    for part in reversed(key.split(".")):
        value = {part: value}
    return dict(value)


def take_sections(flags: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """What flags say of `stages` and `methods`, nested as in a file, and the other flags.

    Raises:
        ConfigError: A flag has no value, or one that is not YAML.
    """
    sections: dict[str, Any] = {}
    rest: list[str] = []
    left = iter(flags)
    for flag in left:
        key, equals, text = flag.removeprefix("--").partition("=")
        if not flag.startswith("--") or key.split(".")[0] not in SECTIONS:
            rest.append(flag)
            continue
        if not equals and (text := next(left, "")) == "":
            raise ConfigError(f"--{key}: a value is missing after it.")
        try:
            value = parse_yaml(text)
        except ValueError as error:
            raise ConfigError(f"--{key}: {text!r} is not YAML: {error}") from error
        sections = lay_over(sections, _nested(key, value))
    return sections, rest


def section_of(where: str, content: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """The keys and values below one key of a file, or of flags."""
    section: Any = content.get(key) or {}
    if not isinstance(section, Mapping):
        raise ConfigError(f"{where}: {key} must hold keys and values, found {type(section).__name__}.")
    if dotted := [name for name in content if isinstance(name, str) and name.startswith(f"{key}.")]:
        raise ConfigError(f"{where}: write {dotted[0]} as nested keys below {key}; with dots it can only be a flag.")
    return section


def without(layer: Any, path: Sequence[str]) -> Any:
    """A layer without what stands below a dotted key, given as its parts."""
    if not isinstance(layer, Mapping) or path[0] not in layer:
        return layer
    rest = {key: value for key, value in layer.items() if key != path[0]}
    return rest if len(path) == 1 else {**rest, path[0]: without(layer[path[0]], path[1:])}
