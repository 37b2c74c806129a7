"""A key that an experiment file has wrong is reported with file and line."""

from __future__ import annotations

import json
import re

import pytest
from tests.support.runs import fit

from rbft.experiment.places import place_of

FILE = """\
data: {root: clips}

model:
  tuning:
    class_path: LoRA
    init_args:
      rank: 4
trainer.max_epochs: 2
stages:
  write: {}
  rationale:
    trainer: {max_epochs: 2}
    data.batch_size: 3
  classification:
    trainer:
      max_epochs: 2
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "falls.yaml"
    path.write_text(FILE)
    return path


KEYS = {"data.root": 1, "model.tuning": 4, "model.tuning.rank": 7, "trainer.max_epochs": 8, "model.vlm": None}


@pytest.mark.parametrize("key", KEYS)
def test_a_key_stands_at_its_line(file, key):
    expected = "" if KEYS[key] is None else f"{file}, line {KEYS[key]}"
    assert place_of(key, ["--config", str(file)]) == expected
    assert place_of(key, [f"--config={file}"]) == expected


def test_the_last_file_and_then_flags_have_it(file, tmp_path):
    other = tmp_path / "other.yaml"
    other.write_text("\nmodel: {tuning: {rank: 3}}\n")
    args = ["--config", str(file), "--config", str(other)]
    assert place_of("model.tuning.rank", args) == f"{other}, line 2"
    assert place_of("data.root", args) == f"{file}, line 1"
    assert place_of("model.tuning.rank", [*args, "--model.tuning.rank", "5"]) == ""
    assert place_of("model.tuning.rank", [*args, "--model.tuning=LoRA"]) == ""
    assert place_of("data.root", [*args, "--model.tuning=LoRA"]) == f"{file}, line 1"


def test_a_stage_s_layer_is_found_where_one_stage_has_it(file):
    layer = {"trainer": {"max_epochs": 2}, "data": {"batch_size": 3}}
    args = ["--config", str(file), "--config", json.dumps(layer)]
    assert place_of("data.batch_size", args) == f"{file}, line 13"
    assert place_of("trainer.max_epochs", args) == "", "either of two stages can be meant"


WRONG = [
    ("modle:\n  optim: {lr: 0.1}\n", r"line 3: Option 'modle\.optim\.lr' .* Did you mean model\.optim\.lr\?"),
    ("model:\n\n  optim: {lrr: 0.1}\n", r"line 4: Group 'model' .*'optim\.lrr'\. Did you mean model\.optim\.lr\?"),
    ("model:\n  dtype: float8\n", r"line 3: .*model\.dtype.*float8"),
    ("model:\n  optim:\n    lr: fast\n", r"line 4: Parser key .model\.optim\.lr.: .*fast"),
]


@pytest.mark.parametrize(("content", "said"), WRONG)
def test_the_command_names_file_and_line(tmp_path, content, said):
    path = tmp_path / "wrong.yaml"
    path.write_text(f"data: {{root: clips}}\n{content}stages: {{test: {{}}}}\n")
    result = fit(path, "--method", "zero_shot")
    assert result.code == 2
    assert result.err.startswith(f"rbft: {path}, ")
    assert not result.out
    assert re.search(said, result.err), result.err
