"""What a run folder holds, what is done again and what is not, and that the same settings give the same bytes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tests.support.runs import CLASSES, Run, digests, fit, rows, run_experiment, write_experiment

from rbft.runs.run_folder import RunFolder
from rbft.training.module import VLMFineTuner
from rbft.vlm.batch import Batch

pytest_plugins = ["tests.support.run_fixtures"]

STAGES = ("write", "rationale", "classification", "test")
PUBLISHED = ("metrics.json", "predictions.jsonl", "calibration.json", "report.html")
RESULTS = ("write/rationales.jsonl", "predictions.jsonl", "metrics.json")
ADAPTER = "adapter/adapter_model.safetensors"


def times(folder: Path) -> dict[str, int]:
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in sorted(folder.rglob("*"))}


def record(run: Run, stage: str) -> dict[str, Any]:
    return json.loads((run.folder / stage / "stage.json").read_text())


def events(folder: Path) -> EventAccumulator:
    everything = {"scalars": 0, "images": 0, "tensors": 0}
    return EventAccumulator(str(folder / "tensorboard"), size_guidance=everything).Reload()


# -- what is there


def test_run_folder(finished: Run, clips: Path) -> None:
    folder = finished.folder
    assert {path.name for path in folder.iterdir()} == {
        "experiment.yaml",
        "environment.json",
        "splits.json",
        "labels.json",
        *PUBLISHED,
        *STAGES,
    }
    for stage in STAGES:
        assert record(finished, stage)["stage"] == stage
        assert yaml.safe_load((folder / stage / "config.yaml").read_text())["model"]["optim"]["lr"] == 0.01
    for stage in ("rationale", "classification"):
        assert {path.name for path in (folder / stage / "adapter").iterdir()} == {
            "adapter_config.json",
            "adapter_model.safetensors",
        }
        assert not (folder / stage / "checkpoints").exists(), "of no use once the stage is done"
    environment = json.loads((folder / "environment.json").read_text())
    assert {"rbft", "commit", "python", "packages", "cpu_cores", "gpus", "data_fingerprint"} <= set(environment)
    page = (folder / "report.html").read_text()
    assert "moves left" in page and "<img" in page
    assert 'src="http' not in page and "<script src" not in page, "the page opens offline"
    splits = json.loads((folder / "splits.json").read_text())
    assert len(splits["train"]) == 6 and len(splits["test"]) == 5
    # whoever reads the last line of the terminal finds the run
    assert f"run: {folder}" in finished.result.out


def test_figures_and_predictions(finished: Run, clips: Path) -> None:
    metrics = json.loads((finished.folder / "metrics.json").read_text())
    assert set(metrics) == {
        "test/accuracy",
        "test/balanced_accuracy",
        "test/macro_f1",
        "test/top5_accuracy",
        "test/ece",
        "test/ece_calibrated",
        "test/auroc",
        "test/accuracy_ci95",
        "test/num_videos",
        "test/num_unreadable",
        "chance/accuracy",
        "majority/accuracy",
        *(f"labels/{what}" for what in ("videos", "training", "choosing", "calibrating", "per_class")),
        "write/rationales",
        "write/rationales_kept",
        "write/agreement",
        *(f"write/score_{check}" for check in ("label_parse", "leak", "repetition", "truncation")),
    }
    predictions = rows(finished.folder / "predictions.jsonl")
    assert sorted(row["video"] for row in predictions) == sorted(
        path.relative_to(clips).as_posix() for path in clips.glob("test/*/*.mp4")
    )
    for row in predictions:
        keys = {
            "id",
            "video",
            "label",
            "predicted",
            "probabilities",
            "log_likelihoods",
            "rationale",
            "answers",
            "calibrated",
        }
        assert set(row) == keys
        assert row["label"] == Path(row["video"]).parent.name
        assert sum(row["probabilities"]) == pytest.approx(1, abs=1e-9)
        assert row["predicted"] == CLASSES[row["probabilities"].index(max(row["probabilities"]))]
    assert metrics["test/num_videos"] == 5 and metrics["test/num_unreadable"] == 0
    assert metrics["test/accuracy"] == sum(row["predicted"] == row["label"] for row in predictions) / 5


def test_rationales(finished: Run, clips: Path) -> None:
    written = rows(finished.folder / "write" / "rationales.jsonl")
    assert [row["video"] for row in written] == sorted(
        path.relative_to(clips).as_posix() for path in clips.glob("train/*/*.mp4")
    )
    for row in written:
        assert {"id", "video", "label", "prompt_hash", "hint", "model", "text"} < set(row)
        assert {"scores", "weight", "kept", "reason"} < set(row)
        assert row["text"] and row["kept"]
    assert len({row["text"] for row in written}) > 1, "the texts depend on the videos"


def test_tensorboard(finished: Run) -> None:
    for stage, steps in (("rationale", 12), ("classification", 6)):
        found = events(finished.folder / stage)
        scalars = found.Tags()["scalars"]
        assert {"train/loss", "val/accuracy", "val/macro_f1"} <= set(scalars)
        rates = [tag for tag in scalars if tag.startswith("lr-AdamW")]
        assert rates and len({event.value for event in found.Scalars(rates[0])}) > 1, "rates follow a schedule"
        assert len(found.Scalars("train/loss")) >= steps // 2
        assert found.Tags()["images"] == ["val/confusion"]
    written = events(finished.folder / "write")
    assert "rationales/0" in written.Tags()["images"]
    (text,) = written.Tensors("rationales/0/text_summary")[0].tensor_proto.string_val
    assert rows(finished.folder / "write" / "rationales.jsonl")[0]["video"] in text.decode()
    test = events(finished.folder / "test")
    assert "test/confusion" in test.Tags()["images"]
    assert "test/accuracy" in test.Tags()["scalars"]
    assert "_hparams_/session_start_info" in test.PluginTagToContent("hparams")


def test_each_stage_starts_where_the_one_before_ended(finished: Run) -> None:
    from safetensors.torch import load_file

    inputs = {stage: record(finished, stage)["inputs"] for stage in STAGES}
    marks = {stage: record(finished, stage)["fingerprint"] for stage in STAGES}
    assert inputs["rationale"]["rationales"] == marks["write"] and inputs["rationale"]["weights"] is None
    assert inputs["classification"]["weights"] == marks["rationale"]
    assert inputs["test"]["weights"] == marks["classification"]
    first, second = (load_file(finished.folder / stage / ADAPTER) for stage in ("rationale", "classification"))
    # three small steps away from stage 1, which itself is far from zero, where an adapter begins
    moved = sum(float((second[name] - first[name]).norm() ** 2) for name in first if "lora_B" in name) ** 0.5
    length = sum(float(first[name].norm() ** 2) for name in first if "lora_B" in name) ** 0.5
    assert 0 < moved < 0.8 * length


# -- what is done again


def test_second_run_changes_nothing(copy: Run) -> None:
    before = times(copy.folder)
    result = copy.again()
    assert result.code == 0
    assert [f"{stage}: done already" in result.out for stage in STAGES] == [True] * 4
    assert "everything was done already" in result.out and "accuracy" in result.out
    assert times(copy.folder) == before


def test_lost_page_is_made_again_without_running_a_stage(copy: Run) -> None:
    before = times(copy.folder / "test")
    (copy.folder / "report.html").unlink()
    assert copy.again().code == 0
    assert (copy.folder / "report.html").is_file()
    assert times(copy.folder / "test") == before


@pytest.mark.parametrize("stage", ["classification", "test"])
def test_one_stage_alone_gives_the_same_bits(stage: str, copy: Run, finished: Run) -> None:
    shutil.rmtree(copy.folder / stage)
    others = {name: times(copy.folder / name) for name in STAGES if name != stage}
    result = copy.again("--stage", stage)
    assert result.code == 0, result.err
    assert record(copy, stage)["outputs"] == record(finished, stage)["outputs"]
    assert {name: times(copy.folder / name) for name in others} == others


def test_restart_sets_aside_and_repeats_the_bytes(copy: Run, finished: Run) -> None:
    before = digests(copy.folder / "rationale", "**/*.safetensors")
    result = copy.again("--restart")
    assert result.code == 0, result.err
    for stage in STAGES:
        assert f"{stage}: starting again; what was there is now {copy.folder / stage}.old-1" in result.out
        assert (copy.folder / f"{stage}.old-1" / "stage.json").is_file()
    assert digests(copy.folder / "rationale.old-1", "**/*.safetensors") == before
    for name in RESULTS:
        assert (copy.folder / name).read_bytes() == (finished.folder / name).read_bytes(), name
    assert (copy.folder / "metrics.json.old-1").is_file()


@pytest.mark.parametrize(
    "flags",
    [("--save_every", "0", "--save_seconds", "3600"), ("--trainer.check_val_every_n_epoch", "2")],
    ids=["saved", "validated"],
)
def test_how_often_a_training_is_saved_or_validated_changes_nothing(
    flags: tuple[str, ...], copy: Run, finished: Run
) -> None:
    before = digests(finished.folder, "**/*.safetensors")
    result = copy.again(*flags, "--restart")
    assert result.code == 0, result.err
    after = digests(copy.folder, "**/*.safetensors")
    assert {name: after[name] for name in before} == before
    for name in RESULTS:
        assert (copy.folder / name).read_bytes() == (finished.folder / name).read_bytes(), name


def test_changed_setting_runs_what_depends_on_it(copy: Run) -> None:
    written = times(copy.folder / "write")
    result = copy.again("--model.optim.lr", "0.02")
    assert result.code == 0, result.err
    assert "write: done already" in result.out
    assert "rationale: model.optim.lr changed; running again" in result.out
    assert times(copy.folder / "write") == written
    for stage in ("rationale", "classification", "test"):
        assert (copy.folder / f"{stage}.old-1" / "stage.json").is_file()
    assert not (copy.folder / "write.old-1").exists()


def test_figures_of_other_settings_are_not_left_as_this_runs(copy: Run) -> None:
    result = copy.again("--model.optim.lr", "0.02", "--stage", "rationale")
    assert result.code == 0, result.err
    assert "95% interval" not in result.out
    for name in PUBLISHED:
        assert not (copy.folder / name).exists()
        assert (copy.folder / f"{name}.old-1").is_file()
    refused = copy.again("--stage", "classification", "--restart")
    assert refused.code == 1
    assert (copy.folder / "classification" / "stage.json").is_file(), "nothing is touched before the stage can start"
    assert str(copy.folder / "rationale") in refused.err and "model.optim.lr" in refused.err


def test_results_are_of_the_stages_that_the_experiment_has_now(copy: Run) -> None:
    before = digests(copy.folder, "*.json*")
    longer = (
        "--stages.test2",
        "{kind: test, start: base}",
        "--methods.rbft",
        "[write, rationale, classification, test, test2]",
    )
    assert copy.again(*longer).code == 0
    assert rows(copy.folder / "predictions.jsonl") == rows(copy.folder / "test2/predictions.jsonl")
    shorter = copy.again()
    assert shorter.code == 0, shorter.err
    assert before.items() <= digests(copy.folder, "*.json*").items()
    assert rows(copy.folder / "predictions.jsonl") == rows(copy.folder / "test/predictions.jsonl")
    assert [*RunFolder(copy.folder).stages] == [*STAGES], "test2 is none of it any more"
    archived = sorted(copy.folder.glob("*.old-*"))
    assert copy.again().code == 0 and sorted(copy.folder.glob("*.old-*")) == archived, "once"


@pytest.mark.parametrize("name", ["write/rationales.jsonl", f"classification/{ADAPTER}"])
def test_output_changed_by_hand_is_refused(name: str, copy: Run) -> None:
    path = copy.folder / name
    path.write_bytes(path.read_bytes() + b"\n")
    result = copy.again()
    assert result.code == 1
    assert str(path) in result.err and "changed after" in result.err and "--restart" in result.err


def test_weights_of_another_experiment_are_not_taken(
    copy: Run, tmp_path: Path, clips: Path, family_folder: Callable[[str], Path]
) -> None:
    changes = {"model": {"optim": {"lr": 1.0}}}
    config = write_experiment(tmp_path / "other.yaml", clips, family_folder("qwen2_5_vl"), changes)
    folder = tmp_path / "runs" / "other" / "rbft" / "seed0"
    shutil.copytree(copy.folder, folder)
    result = fit("--config", config, "--run_root", tmp_path / "runs", "--stage", "classification")
    assert result.code == 1
    assert str(folder / "rationale") in result.err and "model.optim.lr" in result.err
    shutil.rmtree(folder / "rationale")
    result = fit("--config", config, "--run_root", tmp_path / "runs", "--stage", "classification")
    assert result.code == 1 and "Run `--stage rationale` first" in result.err


def test_written_experiment_runs(copy: Run) -> None:
    before = times(copy.folder)
    result = fit("--config", copy.folder / "experiment.yaml", "--run_root", copy.root)
    assert result.code == 0, result.err
    assert "everything was done already" in result.out
    assert times(copy.folder) == before


# -- order, methods and seeds


def test_each_epoch_has_every_row_once_in_an_order_of_its_own(copy: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[int] = []
    begin = VLMFineTuner.on_train_batch_start

    def note(module: VLMFineTuner, batch: Batch, batch_idx: int) -> None:
        drawn.extend(batch.indices)
        begin(module, batch, batch_idx)

    monkeypatch.setattr(VLMFineTuner, "on_train_batch_start", note)
    assert copy.again("--stage", "rationale", "--restart").code == 0
    first, second = drawn[:6], drawn[6:]
    assert sorted(first) == sorted(second) == list(range(6))
    assert first != second


@pytest.mark.parametrize(
    ("method", "stages"),
    [("zero_shot", ("test",)), ("sft", ("classification", "test")), ("joint", ("write", "joint", "test"))],
)
def test_methods(method: str, stages: tuple[str, ...], finished: Run, tmp_path: Path) -> None:
    run = run_experiment(finished.config, tmp_path, method=method)
    assert {path.parent.name for path in run.folder.glob("*/stage.json")} == set(stages)
    assert record(run, stages[-1])["inputs"]["weights"] == (
        record(run, stages[-2])["fingerprint"] if len(stages) > 1 else None
    )
    assert len(rows(run.folder / "predictions.jsonl")) == 5
    if method == "joint":
        assert (run.folder / RESULTS[0]).read_bytes() == (finished.folder / RESULTS[0]).read_bytes()
        assert record(run, "joint")["summary"]["rows"] == 12


def test_own_method_shows_the_untrained_model_beside_the_trained(finished: Run, tmp_path: Path) -> None:
    changes = yaml.safe_load(finished.config.read_text())
    changes["methods"] = {"short": ["before", "classification", "test"]}
    changes["stages"] = {"before": {"kind": "test"}, "classification": {"trainer": {"max_steps": 1}}, "test": {}}
    config = tmp_path / "own.yaml"
    config.write_text(yaml.safe_dump(changes))
    run = run_experiment(config, tmp_path, method="short")
    metrics = json.loads((run.folder / "metrics.json").read_text())
    zero_shot = json.loads((run.folder / "before" / "metrics.json").read_text())
    assert metrics["before/accuracy"] == zero_shot["test/accuracy"]
    assert "before" in run.result.out


def test_another_seed_differs(finished: Run, tmp_path: Path) -> None:
    runs = [
        run_experiment(finished.config, tmp_path, "--stage", "classification", method="sft", seed=k) for k in (0, 1)
    ]
    assert [run.folder.name for run in runs] == ["seed0", "seed1"]
    first, second = ((run.folder / "classification" / ADAPTER).read_bytes() for run in runs)
    assert first != second
