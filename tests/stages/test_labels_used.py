"""Labelled videos that a run used, for training and for choosing."""

from __future__ import annotations

import io
from types import SimpleNamespace

import pytest
from rich.console import Console

from rbft.answering.settings import Answering
from rbft.evaluation.comparison import Member, compare
from rbft.experiment import Stage, StageKind
from rbft.report.groups_table import print_groups
from rbft.stages.labels_used import describe_labels, label_figures
from rbft.training.best_weights import Selection


def stage(kind: StageKind, *, weights: str = "last", **answering) -> SimpleNamespace:
    def some(side: str, count: int) -> list[SimpleNamespace]:
        return [SimpleNamespace(id=f"{side}{number}") for number in range(count)]

    splits = SimpleNamespace(train=some("train", 8), val=some("val", 4), test=some("test", 9))
    return SimpleNamespace(
        stage=Stage(kind, kind, {}, None, None),
        module=SimpleNamespace(selection=Selection(weights), answering=Answering(**answering)),
        datamodule=SimpleNamespace(splits=splits, labels=("a", "b")),
    )


TRAINED = stage("classification")


@pytest.mark.parametrize(
    ("stages", "training", "choosing", "calibrating"),
    [
        ([stage("test", calibrate=False)], 0, 0, 0),
        ([stage("test")], 0, 0, 4),
        ([TRAINED, stage("test")], 8, 0, 4),
        ([TRAINED, stage("test", mode="validation")], 8, 4, 0),
        ([TRAINED, stage("test", strength=None)], 8, 4, 0),
        ([stage("rationale", weights="best"), stage("test", calibrate=False)], 8, 4, 0),
        # an epoch that validation chose cannot be taken back by a test that uses none
        ([stage("rationale", weights="best"), stage("test")], 8, 4, 0),
        ([stage("probe")], 8, 4, 0),
        ([stage("caption_probe")], 12, 0, 0),
        ([stage("encoder_probe")], 12, 0, 0),
        ([stage("write"), stage("demonstrations", calibrate=False)], 8, 0, 0),
    ],
)
def test_each_video_is_counted_once(stages, training, choosing, calibrating):
    assert label_figures(stages) == {
        "labels/videos": training + choosing,
        "labels/training": training,
        "labels/choosing": choosing,
        "labels/calibrating": calibrating,
        "labels/per_class": (training + choosing) / 2,
    }


def test_tables_of_methods_say_it(tmp_path):
    """Of runs that differ in what they chose on; one of an earlier version does not say it."""
    members = [
        Member({"method": "sft", "seed_everything": seed}, 0.5, tmp_path, labelled=labels)
        for seed, labels in enumerate((12, 12))
    ] + [Member({"method": "old", "seed_everything": 0}, 0.5, tmp_path)]
    groups = compare(members, None, ["seed_everything"])
    assert [group.labelled for group in groups] == [12, None]
    console = Console(width=120, file=io.StringIO())
    print_groups(groups, None, "all", console)
    table = [line.split()[:3] for line in console.file.getvalue().splitlines()]
    assert table[:3] == [["accuracy", "labels", "runs"], ["sft", "12", "2/2"], ["old", "-", "1/1"]]


def test_it_is_said_in_words():
    both = label_figures([TRAINED, stage("test", mode="validation")])
    assert describe_labels(both) == "12 labelled videos, 6 a class (8 for training, 4 for choosing)"
    none = label_figures([stage("test")])
    assert describe_labels(none) == "no labelled video; 4 more for the temperature of the probabilities alone"
