"""What the model is asked, as data: templates with named placeholders, filled without surprises."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rbft.errors import ConfigError

Plain = bool | int | float | str
"""Of an argument of a chat template."""

_PLACEHOLDER = re.compile(r"\{([a-z_]+)\}")


@dataclass(frozen=True)
class Prompt:
    """One question to the model.

    Args:
        question: The user's turn.
        system: The system turn; None leaves it to the model's chat template.
        video: Whether the clip stands before the question (False: a text-only question).
    """

    question: str
    system: str | None = None
    video: bool = True

    def messages(self, answer: str | None = None) -> list[dict[str, Any]]:
        """The conversation in the message format of transformers' chat templates."""
        content: list[dict[str, str]] = [{"type": "video"}] if self.video else []
        content.append({"type": "text", "text": self.question})
        turns: list[dict[str, Any]] = []
        if self.system is not None:
            turns.append({"role": "system", "content": [{"type": "text", "text": self.system}]})
        turns.append({"role": "user", "content": content})
        if answer is not None:
            turns.append({"role": "assistant", "content": [{"type": "text", "text": answer}]})
        return turns


def placeholders(template: str) -> set[str]:
    """Names of the `{placeholders}` in a template."""
    return set(_PLACEHOLDER.findall(template))


def check_template(key: str, template: str, allowed: set[str], required: frozenset[str] = frozenset()) -> None:
    """Refuse a template that names an unknown placeholder or lacks a required one.

    Raises:
        ConfigError: Names the config key, the placeholder and those there are.
    """
    fields = placeholders(template)
    if unknown := sorted(fields - allowed):
        known = ", ".join(f"{{{name}}}" for name in sorted(allowed)) or "none"
        raise ConfigError(f"{key}: unknown placeholder {{{unknown[0]}}} in {template!r}; known here: {known}.")
    if missing := sorted(required - fields):
        raise ConfigError(f"{key}: {template!r} lacks the placeholder {{{missing[0]}}}.")


def fill(template: str, values: Mapping[str, str]) -> str:
    """Replace each `{name}` by its value in one pass: braces inside a value are text, never a placeholder."""
    return _PLACEHOLDER.sub(lambda match: values[match.group(1)], template)
