"""The notebook: its cells run from top to bottom in an empty folder, and what they print is right."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from tests.support.runs import REPOSITORY

NOTEBOOK = REPOSITORY / "docs" / "rbft.ipynb"


def cells(kind: str) -> list[str]:
    return ["".join(cell["source"]) for cell in json.loads(NOTEBOOK.read_text())["cells"] if cell["cell_type"] == kind]


def test_it_is_a_notebook_without_stored_outputs():
    document = json.loads(NOTEBOOK.read_text())
    assert (document["nbformat"], document["nbformat_minor"]) == (4, 5)
    assert len({cell["id"] for cell in document["cells"]}) == len(document["cells"])
    assert all(not cell["outputs"] for cell in document["cells"] if cell["cell_type"] == "code")
    for code in cells("code"):
        compile(code, str(NOTEBOOK), "exec")
    for target in re.findall(r"\]\(([^)#:]+)\)", "\n".join(cells("markdown"))):
        assert (REPOSITORY / "docs" / target).is_file(), target


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_its_cells_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    names: dict[str, Any] = {"__name__": "__main__"}
    said = []
    for code in cells("code"):
        exec(compile(code, str(NOTEBOOK), "exec"), names)
        said.append(capsys.readouterr().out)
    fitted, figures, rationales, answers, plan = said
    assert "run: runs/quickstart/rbft/seed0" in fitted
    assert re.search(r"test/num_videos +32$", figures, re.MULTILINE) and "chance/accuracy      0.125" in figures
    assert len(rationales.splitlines()) == 5 and len(answers.splitlines()) == 3
    assert "2 methods over 3 draws, 6 runs" in plan
