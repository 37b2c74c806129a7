"""What all formats have in common: a config can reach every argument, and importing them is quick."""

from __future__ import annotations

import inspect
import subprocess
import sys

import pytest

from rbft.data import formats


@pytest.mark.parametrize("name", sorted(set(formats.__all__) - {"DatasetFormat"}))
def test_arguments_are_named_typed_and_have_defaults(name):
    format_class = getattr(formats, name)
    assert issubclass(format_class, formats.DatasetFormat)
    parameters = list(inspect.signature(format_class).parameters.values())
    assert all(parameter.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD for parameter in parameters)
    assert all(parameter.annotation and parameter.default is not inspect.Parameter.empty for parameter in parameters)
    format_class()


def test_importing_needs_nothing_heavy():
    modules = "rbft.data.formats, rbft.data.splits, rbft.data.fingerprint"
    heavy = "{'torch', 'av', 'transformers', 'lightning', 'pandas', 'numpy'}"
    code = f"import sys, {modules}; print(sorted({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
