"""Where in the experiment files a key stands, so that a message can name file and line."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import yaml


def place_of(key: str, args: Sequence[str]) -> str:
    """File and line of a key, such as "falls.yaml, line 7".

    Empty where that is not known: a flag has the key, or the layers of several stages do.

    Args:
        key: dotted key, such as data.num_frames; keys of a class stand without `init_args`.
        args: command line of a stage: `--config FILE`, the stage's layer as `--config {...}`, and flags.
    """
    named = [following for flag, following in zip(args, [*args[1:], ""], strict=True) if flag in ("--config", "-c")] + [
        flag.split("=", 1)[1] for flag in args if flag.startswith("--config=")
    ]
    flags = [flag.removeprefix("--").split("=", 1)[0] for flag in args if flag.startswith("--")]
    if any(f"{key}.".startswith(f"{flag}.") for flag in flags):
        return ""
    parts = key.split(".")
    files = [text for text in named if not text.startswith("{")]
    if any(list(_lines(yaml.compose(text, Loader=yaml.SafeLoader), parts)) for text in named if text.startswith("{")):
        found = [(file, line) for file in files for line in _layer_lines(_root(file), parts)]
        # which of several stages is read does not show in their keys
        return _words(found[-1]) if len({line for _, line in found}) == 1 else ""
    found = [(file, line) for file in files for line in _lines(_root(file), parts)]
    return _words(found[-1]) if found else ""


def _words(place: tuple[str, int]) -> str:
    return f"{place[0]}, line {place[1]}"


def _root(file: str) -> yaml.Node | None:
    return yaml.compose(Path(file).read_text(encoding="utf-8"), Loader=yaml.SafeLoader)


def _layer_lines(root: yaml.Node | None, parts: Sequence[str]) -> Iterator[int]:
    """Lines of a key in the layers of the stages."""
    for name, stages in _items(root):
        if name.value == "stages":
            for _, layer in _items(stages):
                yield from _lines(layer, parts)


def _lines(node: yaml.Node | None, parts: Sequence[str]) -> Iterator[int]:
    """Lines, counted from 1, at which a key stands below a node; its parts may be nested or joined by dots."""
    for name, value in _items(node):
        said = str(name.value).split(".")
        if said == list(parts):
            yield name.start_mark.line + 1
        elif said == list(parts[: len(said)]):
            yield from _lines(value, parts[len(said) :])
        elif said == ["init_args"]:
            yield from _lines(value, parts)


def _items(node: yaml.Node | None) -> list[tuple[yaml.Node, yaml.Node]]:
    return node.value if isinstance(node, yaml.MappingNode) else []
