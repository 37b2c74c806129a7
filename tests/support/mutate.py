"""Spoils valid files in the ways in which files go wrong, and looks for spoilt ones that do harm."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

# What breaks readers of text: separators, quotes, numbers out of range, deep nesting, ways out of a folder, code.
NASTY: tuple[bytes, ...] = tuple(
    text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    for text in (
        *"\0\x1a\x1b\t\r\n ,;:|\"'[]{}()<>&*!%@#~-=/\\$`?.",
        b"\xff",
        b"\xef\xbb\xbf",
        b"\xff\xfe",
        b"\xc3",
        *("\r\n", "\u2028", "\u0085", "\u202e", "\ufeff", "\ud800", "é", "İ", "²", "٣", "🏃"),
        *("null", "true", "NaN", "-1", "1.5", "1e999", "9" * 5000, "0x10", "1_000", "2020-13-45", "12:30:45"),
        *("[" * 5000, '{"a":' * 3000, "[]", "{}", '""', '"\\ud800"', "\\u0000", '"a": 1, "a": 2,'),
        *("..", "../", "/etc/passwd", "~", "C:", "http://x/y", "file:", "concat:a|b", "a" * 300, "a/" * 3000),
        *("<|im_end|>", "<video>", "</s>", "{labels}", "{label}", "[red]"),
        *(
            "---\n",
            "&a [*a]",
            "*a",
            "? ",
            "- ",
            "<<: *a",
            "!!python/object/apply:os.getcwd []",
            "!!binary x",
            "!!set {a}",
        ),
        *("${data.root}", "${oc.env:HOME}", "${", "class_path: os.getcwd", "init_args: {a: 1}", "__path__: x"),
    )
)


@st.composite
def spoilt(draw: st.DrawFn, valid: bytes, edits: int = 4) -> bytes:
    """A valid file with a few edits: bytes deleted, nasty ones put in, pieces moved or doubled, the end cut off."""
    data = valid
    for _ in range(draw(st.integers(1, edits))):
        start = draw(st.integers(0, len(data)))
        length = draw(st.sampled_from((0, 0, 1, 1, 2, 5, 20)))
        piece = data[start : start + length]
        kind = draw(st.sampled_from(("insert", "insert", "insert", "delete", "double", "move", "cut", "noise")))
        if kind == "insert":
            data = data[:start] + draw(st.sampled_from(NASTY)) + data[start + length :]
        elif kind == "delete":
            data = data[:start] + data[start + length :]
        elif kind == "double":
            data = data[:start] + piece * draw(st.integers(2, 50)) + data[start + length :]
        elif kind == "move":
            rest = data[:start] + data[start + length :]
            place = draw(st.integers(0, len(rest)))
            data = rest[:place] + piece + rest[place:]
        elif kind == "cut":
            data = data[:start]
        else:
            data = data[:start] + draw(st.binary(min_size=1, max_size=8)) + data[start + length :]
    return data


def explore(strategy: st.SearchStrategy[Any], examples: int, check: Callable[[Any], None]) -> None:
    """Run a check on that many examples, the same ones every time."""
    configured = settings(
        max_examples=examples,
        deadline=None,
        database=None,
        derandomize=True,
        print_blob=False,
        # a spoilt file is short enough as it is, and shrinking one that takes long takes for ever
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    configured(given(strategy)(check))()


def depth(few: int, many: int) -> pytest.MarkDecorator:
    """Parametrizes `examples`: few in every run of the tests, many among the slow ones."""
    values: Sequence[Any] = [pytest.param(few, id="few"), pytest.param(many, id="many", marks=pytest.mark.slow)]
    return pytest.mark.parametrize("examples", values)


def damage(data: bytes, rng: np.random.Generator) -> bytes:
    """A binary file as bad disks, torn copies and attackers leave it: one to eight wounds of one of seven kinds."""
    content = bytearray(data)
    kind = rng.choice(["bits", "bytes", "zeros", "cut", "delete", "double", "sizes"])
    for _ in range(int(rng.integers(1, 9))):
        if not content:
            break
        # half of all wounds are to the first kilobytes or the last, where containers keep their tables
        end = len(content)
        near = int(rng.integers(0, min(end, 4096)))
        start = int(rng.choice([near, end - 1 - near, rng.integers(0, end), rng.integers(0, end)]))
        length = int(rng.integers(1, max(2, min(end - start, 2000) + 1)))
        if kind == "bits":
            content[start] ^= 1 << int(rng.integers(0, 8))
        elif kind == "bytes":
            content[start : start + 4] = rng.bytes(len(content[start : start + 4]))
        elif kind == "zeros":
            content[start : start + length] = bytes(len(content[start : start + length]))
        elif kind == "cut":
            return bytes(content[:start])
        elif kind == "delete":
            del content[start : start + length]
        elif kind == "double":
            content[start:start] = content[start : start + length]
        else:  # numbers of 32 bits as large, small or negative as they can be
            number = rng.choice([0, 1, 2**31 - 1, 2**31, 2**32 - 1, 2**16, 2**24])
            order = "big" if rng.integers(0, 2) else "little"
            content[start : start + 4] = int(number).to_bytes(4, order)[: len(content[start : start + 4])]
    return bytes(content)
