"""Wrong input stops a run before any weights are loaded, with one message that says where and what to do."""

from __future__ import annotations

import csv
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest
from tests.support.runs import ALLOW, LEFT, REPOSITORY, RIGHT, Result, fit, write_experiment

pytest_plugins = ["tests.support.run_fixtures"]

FAILED, MISUSED = 1, 2
Try = Callable[..., Result]


@pytest.fixture
def data(clips: Path, tmp_path: Path) -> Path:
    """Clips to spoil."""
    return Path(shutil.copytree(clips, tmp_path / "data"))


@pytest.fixture
def attempt(tmp_path: Path, data: Path, family_folder: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> Try:
    """Runs an experiment that must be refused before weights are loaded, and leave nothing that looks finished."""

    def load(*args: Any) -> NoReturn:
        pytest.fail("weights were loaded")

    monkeypatch.setattr("rbft.training.module.load_model", load)

    def run(*flags: str | Path, changes: dict[str, Any] | None = None) -> Result:
        config = write_experiment(tmp_path / "tiny.yaml", data, family_folder("qwen2_5_vl"), changes)
        return refused("--config", config, *flags)

    def refused(*args: str | Path) -> Result:
        result = fit("--run_root", tmp_path / "runs", *args)
        assert result.code != 0
        assert result.err.count("rbft: ") == 1, result.err
        assert "Traceback" not in result.err
        for pattern in ("*/stage.json", "metrics.json", "predictions.jsonl", "report.html", "adapter*", "last.json"):
            assert not list((tmp_path / "runs").rglob(pattern))
        return result

    run.refused = refused  # type: ignore[attr-defined]
    return run


def assert_says(result: Result, code: int, *parts: object) -> None:
    assert result.code == code, result.err
    for part in parts:
        assert str(part) in result.err, f"{part!r} is not in: {result.err}"


# -- the data set


def test_missing_root(attempt: Try, tmp_path: Path) -> None:
    assert_says(attempt("--data.root", tmp_path / "absent"), FAILED, "data.root", tmp_path / "absent", "--data.root")


def test_empty_class_folder(attempt: Try, data: Path) -> None:
    (data / "train" / "stands still").mkdir()
    assert_says(attempt(), FAILED, data / "train" / "stands still", "holds no video", "fill it or remove it")


def test_single_class(attempt: Try, data: Path) -> None:
    for split in data.iterdir():
        shutil.rmtree(split / RIGHT)
    assert_says(attempt(), FAILED, LEFT, "at least two classes")


def test_two_labels_that_read_the_same(attempt: Try, data: Path) -> None:
    shutil.move(data / "test" / LEFT, data / "test" / "Moves_Left")
    assert_says(attempt(), FAILED, "'moves left'", "'Moves_Left'", "give one class one spelling")


@pytest.mark.parametrize(
    ("content", "reason"), [(b"", "empty (0 bytes)"), (b"a shopping list, not a film\n" * 20, "is text")]
)
def test_unreadable_video(content: bytes, reason: str, attempt: Try, data: Path) -> None:
    (data / "test" / LEFT / "1.mp4").write_bytes(content)
    assert_says(attempt(), FAILED, f"test/{LEFT}/1.mp4: ", reason, "1 of 13 videos", "Replace them")


def test_more_shots_than_videos(attempt: Try) -> None:
    assert_says(attempt("--data.shots", "4"), FAILED, "shots", LEFT, "has 3", "at most 3")


def test_table_row_without_its_file(attempt: Try, data: Path) -> None:
    table = data / "labels.csv"
    with table.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["path", "label", "split"])
        for path in sorted(data.rglob("*.mp4")):
            name = path.relative_to(data)
            writer.writerow([name.as_posix(), path.parent.name, name.parts[0]])
    third = table.read_text().splitlines()[3].split(",")[0]
    (data / third).unlink()
    assert_says(attempt("--data.format", "Table"), FAILED, table, third, "1 of 13", "take them off the list")


# -- the model


def test_model_that_takes_no_video(attempt: Try, tmp_path: Path) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(vocab_size=32, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1)
    LlamaForCausalLM(config).save_pretrained(tmp_path / "llama")
    result = attempt("--model.vlm", tmp_path / "llama")
    assert_says(result, FAILED, "model.vlm", tmp_path / "llama", "takes no video", "Qwen2.5-VL")


def test_model_folder_that_is_not_there(attempt: Try, tmp_path: Path) -> None:
    assert_says(attempt("--model.vlm", tmp_path / "absent"), FAILED, "model.vlm", tmp_path / "absent")


def test_adapters_that_could_not_be_saved_or_merged(attempt: Try, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rbft.pipeline.prepare.inspect_videos", lambda *_: pytest.fail("no video is looked at"))
    tuning = '{"class_path": "LoRA", "init_args": {"targets": ".*embed_tokens"}}'
    assert_says(
        attempt("--model.tuning", tuning), MISUSED, "model.tuning.targets", "embed_tokens", "only linear layers"
    )


# -- stages


def test_stage_2_without_the_weights_of_stage_1(attempt: Try) -> None:
    result = attempt("--stage", "classification")
    assert_says(result, FAILED, "'classification'", "'rationale'", "Run `--stage rationale` first", "--method sft")


def test_stage_1_without_rationales(attempt: Try) -> None:
    assert_says(attempt("--stage", "rationale"), FAILED, "'rationale'", "'write'", "Run `--stage write` first")


@pytest.mark.parametrize(
    ("flags", "parts"),
    [
        (("--method", "rbtf"), ("method 'rbtf'", "'rbft'")),
        (("--stage", "ratonale"), ("--stage ratonale", "'rationale'")),
        (("--method", "sft", "--stage", "write"), ("--stage write", "'sft'", "classification, test")),
    ],
)
def test_unknown_names(flags: tuple[str, ...], parts: tuple[str, ...], attempt: Try) -> None:
    assert_says(attempt(*flags), MISUSED, *parts)


def test_unknown_kind(attempt: Try, tmp_path: Path) -> None:
    changes = {"stages": {"write": {"kind": "wriet"}}}
    assert_says(attempt(changes=changes), MISUSED, tmp_path / "tiny.yaml", "stages.write.kind", "'wriet'", "'write'")


# -- the experiment file


def test_no_experiment_file(attempt: Any, tmp_path: Path) -> None:
    assert_says(attempt.refused(), MISUSED, "an experiment file", "builtin:quickstart")
    assert_says(attempt.refused("--config", tmp_path / "no.yaml"), MISUSED, "--config", tmp_path / "no.yaml", "no such")


@pytest.mark.parametrize(
    ("text", "part"),
    [("stages: [", "not valid YAML"), ("- a\n- b\n", "keys and values"), ("data: {root: .}\n", "no `stages:`")],
)
def test_file_that_is_no_experiment(text: str, part: str, attempt: Any, tmp_path: Path) -> None:
    path = tmp_path / "odd.yaml"
    path.write_text(text)
    assert_says(attempt.refused("--config", path), MISUSED, path, part)


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        pytest.param({"data": {"num_frame": 8}}, ("num_frame", "data.num_frames"), id="key of the data"),
        pytest.param({"model": {"optim": {"lrr": 1}}}, ("lrr", "model.optim.lr"), id="nested key"),
        pytest.param({"trainr": {"max_epochs": 1}}, ("trainr", "trainer"), id="top of the file"),
        pytest.param({"stages": {"test": {"modle": {}}}}, ("stages.test.modle", "'model'"), id="top of a stage"),
        pytest.param(
            {"stages": {"write": {"model": {"writer": {"max_new_token": 5}}}}},
            ("max_new_token", "model.writer.max_new_tokens"),
            id="inside of a stage",
        ),
        pytest.param({"model": {"optim": {"lr": "fast"}}}, ("model.optim.lr", "fast"), id="wrong type"),
        pytest.param({"data": {"fps": 4}}, ("num_frames", "fps", "exactly one"), id="two ways to sample"),
        pytest.param({"data": {"format": {"class_path": "ClasFolders"}}}, ("data.format", "ClassFolders"), id="class"),
        pytest.param(
            {"data": {"format": {"class_path": "rbft.data.formats.absent.Absent"}}},
            ("data.format", "rbft.data.formats.absent"),
            id="class path",
        ),
        pytest.param(
            {"model": {"prompts": {"label_question": "{lables}?"}}},
            ("model.prompts.label_question", "{lables}", "{labels}"),
            id="placeholder",
        ),
        pytest.param({"trainer": {"precision": "bf16-true"}}, ("trainer.precision", "model.dtype"), id="precision"),
        pytest.param({"model": {"dtype": "float16"}}, ("model.dtype", "16-mixed", "bfloat16"), id="unscaled float16"),
    ],
)
def test_wrong_keys_and_values(changes: dict[str, Any], parts: tuple[str, ...], attempt: Try) -> None:
    assert_says(attempt(changes=changes), MISUSED, *parts)


def test_wrong_flag(attempt: Try) -> None:
    assert_says(attempt("--data.num_frame", "8"), MISUSED, "--data.num_frame", "data.num_frames")


# -- and quickly

_OWN_WORK = """
import os, sys
import lightning, peft, torch, torchvision, transformers
from rbft.__main__ import main
before = sum(os.times()[:4])
code = main(sys.argv[1:])
print(sum(os.times()[:4]) - before)
raise SystemExit(code)
"""


def test_refused_within_seconds(data: Path, tmp_path: Path, family_folder: Callable[[str], Path]) -> None:
    (data / "train" / LEFT / "0.mp4").write_bytes(b"")
    config = write_experiment(tmp_path / "tiny.yaml", data, family_folder("qwen2_5_vl"))
    flags = ["fit", "--config", str(config), "--run_root", str(tmp_path / "runs"), *ALLOW]
    command = [sys.executable, "-c", _OWN_WORK, *flags]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=240, check=False)
    assert_says(Result(done.returncode, done.stdout, done.stderr), FAILED, f"train/{LEFT}/0.mp4")
    # seconds of work, not of waiting for a busy machine; importing the libraries takes four or twelve more by machine
    assert float(done.stdout.splitlines()[-1]) < 5
