"""Which classes a configuration may name: those of a few packages, and those that the command line allows."""

from __future__ import annotations

import inspect
import pkgutil
from collections.abc import Iterator, Sequence
from typing import Any

from jsonargparse import Namespace, set_parsing_settings

from rbft.errors import ConfigError

PACKAGES = ("rbft", "lightning", "torch", "torchmetrics", "transformers", "peft")
"""Whose classes a configuration may name; of any other, not even the module is imported."""

_granted: set[str] = set()  # names of other packages that the parser's settings, one set for a process, let through


def not_allowed_message(key: str, name: str) -> str:
    """What to say of a name that must not be imported."""
    packages = f"{', '.join(PACKAGES[:-1])} and {PACKAGES[-1]}"
    return (
        f"{key + ': ' if key else ''}{name!r} is refused; a configuration may name classes of {packages} only. "
        f"If you know and trust that code, allow it with `--allow-class {name}`."
    )


def allow_named(args: Sequence[str]) -> tuple[set[str], list[str]]:
    """Let configurations name classes of `PACKAGES` and those after --allow-class, and nothing else.

    It is a flag and no key: a file must not be able to allow what it names.

    Returns:
        The names after the flag, and the rest of the command line.

    Raises:
        ConfigError: The value of the flag is not an import path.
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
    _allow(names)
    return names, rest


def _allow(names: set[str]) -> None:
    """Set it in the parser, whose settings are one set for a process."""
    names = {name for name in names if name.split(".")[0] not in PACKAGES}
    set_parsing_settings(
        import_path_denylist=["*", *sorted(_granted - names)],
        import_path_allowlist=[*PACKAGES, *sorted(names)],
        # a value of no stated type stays a value, whatever it looks like
        instantiate_subclass_spec_in_any=False,
    )
    _granted.update(names)


def functions_in(value: Any, key: str) -> Iterator[tuple[str, str]]:
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
            yield from functions_in(inner, f"{key}.{name}")
    elif isinstance(value, (list, tuple, set)):
        for inner in value:
            yield from functions_in(inner, key)
    elif callable(value) and not inspect.isclass(value):
        yield key, f"{value.__module__}.{getattr(value, '__qualname__', type(value).__qualname__)}"
