"""Templates are filled in one pass and checked by name; messages have the shape that chat templates read."""

from __future__ import annotations

import pytest

from rbft.errors import ConfigError
from rbft.vlm.prompt import Prompt, check_template, fill, placeholders


def test_messages():
    text = {"type": "text", "text": "Which?"}
    assert Prompt("Which?").messages() == [{"role": "user", "content": [{"type": "video"}, text]}]
    assert Prompt("Which?", video=False).messages() == [{"role": "user", "content": [text]}]
    assert Prompt("Which?", system="Be brief.").messages("archery") == [
        {"role": "system", "content": [{"type": "text", "text": "Be brief."}]},
        {"role": "user", "content": [{"type": "video"}, text]},
        {"role": "assistant", "content": [{"type": "text", "text": "archery"}]},
    ]


def test_placeholders_are_names_in_braces():
    assert placeholders("{labels} and {label}, {labels}; {} {0} { label }") == {"labels", "label"}


def test_unknown_and_missing_placeholders_are_named():
    check_template("key", "{labels}: {label}", {"labels", "label"}, frozenset({"label"}))
    with pytest.raises(ConfigError, match=r"^key: unknown placeholder \{labls\}.*known here: \{labels\}\.$"):
        check_template("key", "{labls}", {"labels"})
    with pytest.raises(ConfigError, match=r"known here: none\."):
        check_template("key", "{labels}", set())
    with pytest.raises(ConfigError, match=r"^key: 'no name' lacks the placeholder \{label\}\.$"):
        check_template("key", "no name", {"label"}, frozenset({"label"}))


def test_values_are_text_and_never_filled_again():
    values = {"label": "{labels} {other} {", "labels": "a, {label}"}
    assert fill("{label} | {labels}", values) == "{labels} {other} { | a, {label}"
    assert fill(r"{label}", {"label": r"\1 \g<0>"}) == r"\1 \g<0>"
