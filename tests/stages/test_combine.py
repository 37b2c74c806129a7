"""A test's answers mixed with a probe's: by hand, and from the command line on."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.support.runs import Run, rows, run_experiment, write_experiment

from rbft.__main__ import main
from rbft.evaluation.predictions import Prediction
from rbft.stages.combine import choose_weight, mix

pytest_plugins = ["tests.support.run_fixtures"]

NAMES = ("a", "b")
NO_TEMPERATURE = ("--stages.test.model.answering.calibrate", "false")
SETTINGS = {
    "methods": {"mixed": ["test", "caption_probe", "combine"]},
    "model": {"writer": {"max_new_tokens": 6}},
    "stages": {"test": {"model": {"answering": {"choose_on": "crossfit"}}}},
}


def said(number: int, label: str, first: float) -> Prediction:
    """Of two classes; the figure is the probability of the first."""
    chances = (first, 1 - first)
    return Prediction(str(number), f"{number}.mp4", label, "a" if first >= 0.5 else "b", chances, (0.0, 0.0))


def test_a_mixture_is_the_weighted_mean_of_both():
    found = mix(said(0, "a", 0.2), said(0, "a", 0.9), 0.25, NAMES)
    assert found.probabilities == pytest.approx((0.375, 0.625)) and found.predicted == "b"
    assert found.log_likelihoods == pytest.approx([math.log(0.375), math.log(0.625)])
    assert found.answers == {"model": (0.2, 0.8), "probe": (0.9, pytest.approx(0.1))}


def test_logarithms_are_averaged_where_the_pool_says_so():
    found = mix(said(0, "a", 0.2), said(0, "a", 0.9), 0.5, NAMES, "logarithmic")
    # sqrt(0.2 * 0.9) to sqrt(0.8 * 0.1): 0.4243 to 0.2828; their linear mean is 0.55
    assert found.probabilities == pytest.approx((0.6, 0.4)) and found.predicted == "a"
    assert found.log_likelihoods == pytest.approx([math.log(0.6), math.log(0.4)])
    # a probability of 0 stays next to nothing, and is no error
    assert mix(said(0, "a", 0.0), said(0, "a", 0.9), 0.5, NAMES, "logarithmic").predicted == "b"
    # three to one of the model: (0.2^3 * 0.9)^(1/4) to (0.8^3 * 0.1)^(1/4)
    first, second = (0.2**3 * 0.9) ** 0.25, (0.8**3 * 0.1) ** 0.25
    quarter = mix(said(0, "a", 0.2), said(0, "a", 0.9), 0.25, NAMES, "logarithmic")
    assert quarter.probabilities == pytest.approx((first / (first + second), second / (first + second)))


def test_the_weight_is_the_one_that_is_right_most_often():
    # the model is wrong about the first, the probe about the second; from 0.2 to 0.6 of the probe both are right
    pairs = [(said(0, "a", 0.4), said(0, "a", 0.9)), (said(1, "b", 0.2), said(1, "b", 0.7))]
    found = choose_weight(pairs, NAMES)
    assert found.accuracy == 1.0
    likelihoods = {w: 0.5 * sum(math.log(p) for p in (0.4 + 0.5 * w, 0.8 - 0.5 * w)) for w in (0.3, 0.4, 0.5)}
    assert found.weight == max(likelihoods, key=likelihoods.__getitem__) == 0.4
    assert found.nll == pytest.approx(-likelihoods[0.4])
    # in logarithms the second is right up to 0.6, too, and the first from 0.16 on
    logs = {w: 0.5 * (_log_of(w, 0.4, 0.9) + _log_of(w, 0.8, 0.3)) for w in (0.2, 0.3, 0.4, 0.5)}
    pooled = choose_weight(pairs, NAMES, "logarithmic")
    assert pooled.weight == max(logs, key=logs.__getitem__) and pooled.nll == pytest.approx(-logs[pooled.weight])
    same = [(said(0, "a", 0.6), said(0, "a", 0.6))]
    assert choose_weight(same, NAMES).weight == 0.0, "of equals the one that needs no probe"


def _log_of(weight: float, own: float, other: float) -> float:
    """Logarithm of a pooled probability, of two classes."""
    right, wrong = own ** (1 - weight) * other**weight, (1 - own) ** (1 - weight) * (1 - other) ** weight
    return math.log(right / (right + wrong))


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory, clips: Path, family_folder: Callable[[str], Path]) -> Run:
    folder = tmp_path_factory.mktemp("mixed")
    config = write_experiment(folder / "tiny.yaml", clips, family_folder("qwen2_5_vl"), SETTINGS)
    return run_experiment(config, folder / "runs", method="mixed")


def test_out_of_fold_answers_of_both_choose_the_weight(mixed):
    record = json.loads((mixed.folder / "combine/stage.json").read_text())
    weight = record["summary"]["probe_weight"]
    model, probe = (
        {row["id"]: row for row in rows(mixed.folder / name / "validation.jsonl")} for name in ("test", "caption_probe")
    )
    assert model.keys() == probe.keys() and len(model) == record["summary"]["labelled"] == 8
    names = json.loads((mixed.folder / "labels.json").read_text())

    def right(weight: float) -> int:
        chances = {
            key: [
                (1 - weight) * own + weight * other
                for own, other in zip(row["probabilities"], probe[key]["probabilities"], strict=True)
            ]
            for key, row in model.items()
        }
        return sum(names[row.index(max(row))] == model[key]["label"] for key, row in chances.items())

    assert right(weight) == max(right(tenth / 10) for tenth in range(11))
    assert record["summary"]["chosen_accuracy"] == right(weight) / 8


def test_the_test_videos_are_answered_with_the_mixture(mixed):
    weight = json.loads((mixed.folder / "combine/stage.json").read_text())["summary"]["probe_weight"]
    model, probe = (
        {row["id"]: row for row in rows(mixed.folder / name / "predictions.jsonl")}
        for name in ("test", "caption_probe")
    )
    published = rows(mixed.folder / "predictions.jsonl")
    assert len(published) == 5
    for row in published:
        pairs = zip(model[row["id"]]["probabilities"], probe[row["id"]]["probabilities"], strict=True)
        assert row["probabilities"] == pytest.approx([(1 - weight) * own + weight * other for own, other in pairs])
    metrics = json.loads((mixed.folder / "metrics.json").read_text())
    assert metrics["test/accuracy"] == sum(row["predicted"] == row["label"] for row in published) / 5
    own = json.loads((mixed.folder / "test/metrics.json").read_text())
    assert metrics["test/accuracy_model"] == own["test/accuracy"], "both stand beside the mixture"
    assert metrics["test/accuracy_probe"] == metrics["caption_probe/accuracy"]
    assert metrics["labels/videos"] == 8
    assert "the answers of test and caption_probe mixed, at the weight that labelled videos choose" in " ".join(
        mixed.result.out.split()
    )
    assert (mixed.folder / "report.html").is_file()


def test_what_is_done_is_not_done_again_and_another_weight_is_another_stage(mixed):
    assert "everything was done already" in mixed.again("--method", "mixed").out
    again = mixed.again("--method", "mixed", "--stages.combine.probe_weight", "0.5", "--variant", "half")
    assert again.code == 0, again.err
    folder = mixed.root / "tiny/half/seed0"
    assert json.loads((folder / "combine/stage.json").read_text())["summary"]["probe_weight"] == 0.5
    assert "0.5 of the latter" in " ".join(again.out.split())
    pool = ("--stages.combine.probe_weight", "0.5", "--stages.combine.pool", "logarithmic")
    pooled = mixed.again("--method", "mixed", *pool, "--variant", "half")
    assert pooled.code == 0 and "0.5 of the latter, logarithms averaged" in " ".join(pooled.out.split()), pooled.err
    assert "pool changed" in " ".join(pooled.out.split()), "another pool is another stage, too"
    parts = [rows(folder / name / "predictions.jsonl") for name in ("test", "caption_probe")]
    for found, *two in zip(rows(folder / "predictions.jsonl"), *parts, strict=True):
        means = [math.sqrt(own * other) for own, other in zip(*(row["probabilities"] for row in two), strict=True)]
        assert found["probabilities"] == pytest.approx([mean / sum(means) for mean in means])


def test_nothing_is_predicted_with_a_probe_that_is_not_kept(mixed, clips, capsys):
    assert main(["predict", "--run", str(mixed.folder), str(clips)]) == 1
    assert "mixed with those of a probe that is fitted beside the model and not kept" in " ".join(
        capsys.readouterr().err.split()
    )


@pytest.mark.parametrize(
    ("flags", "why"),
    [
        (("--stages.test.model.answering.choose_on", "validation", *NO_TEMPERATURE), "'test' answers none"),
        (("--methods.mixed", "[caption_probe, combine]"), "put a stage of kind 'test' before it"),
        (("--stages.combine.probe_weight", "1.5"), "must be a number in [0, 1]"),
        (("--stages.test.probe_weight", "0.5"), "only stages of kind 'combine' have it"),
        (("--stages.combine.pool", "harmonic"), "stages.combine.pool: 'harmonic' is unknown"),
        (("--stages.test.pool", "linear"), "stages.test.pool: only stages of kind 'combine' have it"),
    ],
)
def test_what_cannot_be_mixed_is_refused_before_anything_runs(mixed, flags, why):
    refused = mixed.again("--method", "mixed", "--dry_run", *flags)
    assert refused.code == 2 and why in " ".join(refused.err.split()), refused.err
