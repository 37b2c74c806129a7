"""A text classifier, fitted to the kept rationales, that concludes from what a test has written."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tests.end_to_end.test_ddp import assert_same_predictions, on_two
from tests.support.runs import Run, digests, rows, run_experiment, write_experiment

from rbft.__main__ import main
from rbft.evaluation.text_probe import fit_text_probe
from rbft.files import write_jsonl
from rbft.rationales.checks.wording import words
from rbft.rationales.store import Rationale
from rbft.runs.stage_record import hash_outputs, read_record, write_record
from rbft.stages.rationale_probe import kept_texts

pytest_plugins = ["tests.support.run_fixtures"]

METHODS = {"concluded": ["write", "rationale", "test", "rationale_probe"]}
SETTINGS = {
    "methods": METHODS,
    "stages": {"test": {"model": {"answering": {"mode": "rationale", "max_new_tokens": 6}}}},
}


@pytest.fixture(scope="module")
def concluded(tmp_path_factory: pytest.TempPathFactory, clips: Path, family_folder: Callable[[str], Path]) -> Run:
    folder = tmp_path_factory.mktemp("concluded")
    config = write_experiment(folder / "tiny.yaml", clips, family_folder("qwen2_5_vl"), SETTINGS)
    return run_experiment(config, folder / "runs", method="concluded")


def test_it_leaves_what_a_test_leaves_beside_the_answers_of_the_model(concluded):
    record = json.loads((concluded.folder / "rationale_probe/stage.json").read_text())
    assert {"predictions.jsonl", "metrics.json", "calibration.json", "validation.jsonl"} == record["outputs"].keys()
    assert record["summary"]["rows"] == 6, "the training videos; those of validation have no rationale"
    metrics = json.loads((concluded.folder / "metrics.json").read_text())
    own = json.loads((concluded.folder / "test/metrics.json").read_text())
    assert metrics["test/accuracy"] == record["summary"]["test/accuracy"]
    assert metrics["labels/videos"] == metrics["labels/training"] == 6 and metrics["labels/choosing"] == 0
    assert own["test/num_videos"] == metrics["test/num_videos"] == 5
    said = " ".join(concluded.result.out.split())
    assert "fitted to the kept rationales of write, on what test has written of 5 videos" in said
    assert (concluded.folder / "report.html").is_file()


def test_its_answers_are_those_of_a_classifier_of_the_kept_rationales(concluded):
    summary = json.loads((concluded.folder / "rationale_probe/stage.json").read_text())["summary"]
    kept = [row for row in rows(concluded.folder / "write/rationales.jsonl") if row["kept"]]
    labels = np.array([int("turns" in row["label"]) for row in kept])
    fitted = fit_text_probe([[row["text"]] for row in kept], labels, 2, summary["l2"], words)
    written = {row["id"]: row["rationale"] for row in rows(concluded.folder / "test/predictions.jsonl")}
    published = rows(concluded.folder / "predictions.jsonl")
    assert len(published) == 5
    for row in published:
        assert row["rationale"] == written[row["id"]]
        expected = fitted.probabilities([[written[row["id"]]]])[0].tolist()
        assert row["probabilities"] == pytest.approx(expected, abs=1e-9)


def test_texts_are_the_kept_ones_of_labelled_videos_without_their_conclusion():
    def wrote(name: str, text: str, *, kept: bool = True, labelled: bool = True) -> Rationale:
        whole = f"{text} so it is dax"
        return Rationale(
            name, 0, f"{name}.mp4", "dax", "", "h", "m", text, "dax", whole, False, kept=kept, labelled=labelled
        )

    told = [
        wrote("a", "one ."),
        wrote("a", "two ."),
        wrote("a", "no .", kept=False),
        wrote("b", "no .", labelled=False),
    ]
    assert kept_texts([*told, wrote("c", "three .")]) == {"a": ["one .", "two ."], "c": ["three ."]}


def test_dropped_rationales_are_not_fitted_to(concluded, tmp_path, clips, family_folder):
    settings = {
        **SETTINGS,
        "model": {"keep": {"class_path": "BestOf", "init_args": {"count": 1}}, "checks": ["Repetition"]},
    }
    settings["model"]["writer"] = {"samples": 2, "temperature": 1.0, "max_new_tokens": 6}
    config = write_experiment(tmp_path / "tiny.yaml", clips, family_folder("qwen2_5_vl"), settings)
    run = run_experiment(config, tmp_path / "runs", method="concluded")
    written = rows(run.folder / "write/rationales.jsonl")
    kept = [row for row in written if row["kept"]]
    assert len(written) == 12 and len(kept) == 6
    fitted = {row["id"]: row["rationale"] for row in rows(run.folder / "rationale_probe/validation.jsonl")}
    assert fitted == {row["id"]: row["text"] for row in kept}


def test_texts_of_one_class_alone_are_refused(concluded, tmp_path):
    root = tmp_path / "runs"
    shutil.copytree(concluded.root, root)
    run = Run(concluded.config, root, root / concluded.folder.relative_to(concluded.root), concluded.result)
    folder = run.folder / "write"
    written = rows(folder / "rationales.jsonl")
    (label, other) = sorted({row["label"] for row in written})
    write_jsonl(folder / "rationales.jsonl", [row | {"kept": row["label"] == label} for row in written])
    record = read_record(folder)
    write_record(folder, dataclasses.replace(record, outputs=hash_outputs(folder, list(record.outputs))))
    (run.folder / "rationale_probe" / "stage.json").unlink()
    again = run.again("--method", "concluded")
    assert again.code == 1 and other not in again.err
    assert f"the rationales that the stage 'write' kept are of {label} alone" in " ".join(again.err.split())


def test_a_stage_that_was_killed_ends_at_the_same_bytes(concluded):
    folder = concluded.folder / "rationale_probe"
    before = digests(folder, "[mpcv]*.json*")
    # as a kill leaves it: something is there, and nothing says that it is whole
    (folder / "stage.json").unlink()
    (folder / "metrics.json").unlink()
    again = concluded.again("--method", "concluded")
    assert again.code == 0, again.err
    assert digests(folder, "[mpcv]*.json*") == before
    assert "everything was done already" in concluded.again("--method", "concluded").out


def test_other_rationales_make_another_stage(concluded):
    changed = concluded.again("--method", "concluded", "--dry_run", "--stages.write.model.writer.max_new_tokens", "5")
    assert changed.code == 0, changed.err
    stages = json.loads((concluded.folder / "rationale_probe/stage.json").read_text())["inputs"]
    assert stages["rationales"] == json.loads((concluded.folder / "write/stage.json").read_text())["fingerprint"]
    assert stages["predictions"] == [json.loads((concluded.folder / "test/stage.json").read_text())["fingerprint"]]


def test_nothing_is_predicted_with_a_classifier_that_is_not_kept(concluded, clips, capsys):
    assert main(["predict", "--run", str(concluded.folder), str(clips)]) == 1
    said = " ".join(capsys.readouterr().err.split())
    assert "its answers are those of a probe that is fitted beside the model and not kept" in said


@pytest.mark.parametrize(
    ("flags", "why"),
    [
        (("--stages.test.model.answering.mode", "direct"), "under model.answering.mode direct"),
        (
            ("--stages.test.model.answering", "{mode: rationale, samples: 2, temperature: 0.7}"),
            "with samples 2 there is not one for each",
        ),
        (("--methods.concluded", "[write, rationale, rationale_probe]"), "put a stage of kind 'test' before it"),
        (("--methods.concluded", "[test, rationale_probe]"), "is fitted to rationales, but no stage before it writes"),
    ],
)
def test_what_leaves_no_text_or_rationale_is_refused_before_anything_runs(concluded, flags, why):
    refused = concluded.again("--method", "concluded", "--dry_run", *flags)
    assert refused.code == 2 and why in " ".join(refused.err.split()), refused.err


@pytest.mark.slow
def test_two_processes_answer_as_one(concluded, tmp_path):
    done = on_two(concluded.config, tmp_path / "runs", "--method", "concluded")
    assert done.code == 0, done.err
    assert_same_predictions(tmp_path / "runs/tiny/concluded/seed0", concluded.folder)
    assert done.out.count("text classifier on the kept rationales") == 1, "one process speaks"
