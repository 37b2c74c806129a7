"""The model that judges rationales outside of a run is asked in the form that its chat template wants."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from rbft.__main__ import main
from rbft.errors import ModelError
from rbft.rationales.judge import load_judge
from rbft.vlm import parity
from rbft.vlm.prompt import Prompt


@pytest.fixture
def thinker(family_folder: Callable[[str], Path], tmp_path: Path) -> Path:
    """A model whose template opens a thought unless it is told not to."""
    folder = tmp_path / "thinker"
    shutil.copytree(family_folder("qwen2_5_vl"), folder)
    template = folder / "chat_template.jinja"
    thought = "assistant\n{% if enable_thinking is defined and not enable_thinking %}{% else %}<think>\n{% endif %}"
    text = template.read_text()
    assert "assistant\n" in text
    template.write_text(text.replace("assistant\n", thought))
    return folder


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    said = [("fall", "The man lies on the floor."), ("sit", "A chair is used.")]
    rows = [
        {
            "messages": [
                {"role": "user", "content": "<video>why?"},
                {"role": "assistant", "content": f"{text}\nClassification: {label}"},
            ],
            "videos": [f"{label}.mp4"],
        }
        for label, text in said
    ]
    path = tmp_path / "texts.json"
    path.write_text(json.dumps(rows))
    return path


def audit(*args: str | Path) -> tuple[int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(["rationales", "audit", *map(str, args)])
    return code, " ".join(out.getvalue().split()), err.getvalue()


def test_a_judge_gets_the_arguments_of_its_template(thinker):
    with pytest.raises(ModelError, match="opens a thought"):
        load_judge(str(thinker), None, None, None, {})
    judge = load_judge(str(thinker), None, None, None, {}, {"enable_thinking": False})
    assert judge.processor.render(Prompt("which?", video=False)).endswith("assistant\n")


def test_the_command_takes_them_from_its_flag_or_from_the_run_of_the_same_model(thinker, texts, tmp_path):
    code, _, err = audit(texts, "--model", thinker)
    assert code == 1 and "opens a thought" in err and "template_arguments" in err
    code, out, err = audit(texts, "--model", thinker, "--template_arguments", "{enable_thinking: false}")
    assert (code, err) == (0, "") and "argues for" in out.replace("argue for", "argues for")
    config = tmp_path / "run.yaml"
    for vlm, expected in ((str(thinker), 0), ("builtin/tiny", 1)):
        model = {"vlm": vlm, "template_arguments": {"enable_thinking": False}}
        config.write_text(yaml.safe_dump({"model": model}))
        assert audit(texts, "--model", thinker, "--config", config)[0] == expected


@pytest.mark.parametrize("wrong", ["[1]", "{a: [1]}", "{1: a}", "{a", "yes"])
def test_what_are_no_arguments_is_refused_before_a_model_is_loaded(texts, wrong):
    code, _, err = audit(texts, "--model", "builtin/tiny", "--template_arguments", wrong)
    assert code == 2 and "--template_arguments" in err


def test_arguments_without_a_model_are_refused(texts):
    code, _, err = audit(texts, "--template_arguments", "{a: 1}")
    assert code == 2 and "--template_arguments: name the model that judges with --model" in err


def test_a_judge_that_is_read_wrongly_is_refused(thinker, monkeypatch):
    monkeypatch.setattr(parity, "_PASSED", set())
    monkeypatch.setattr(parity, "FLOAT32_TOLERANCE", -1.0)
    monkeypatch.setattr(parity, "TIMES_ROUNDING", 0.0)
    with pytest.raises(ModelError, match="answers otherwise here than in transformers alone"):
        load_judge(str(thinker), None, None, None, {}, {"enable_thinking": False})
