"""A check finds every planted fault, each for what it is, and nothing in a sound data set."""

from __future__ import annotations

import csv
import io
import json
import random
import shutil
import time
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console
from tests.support.faulty import CLASSES, FAULTS, SAMPLING, WARNINGS, Folder, add, blank, empty, label, near_duplicate
from tests.support.scenes import write_scene

from rbft.data.check import check_dataset
from rbft.data.check_report import print_report
from rbft.data.formats.shapes_world import ShapesWorld
from rbft.data.labels import LabelSet
from rbft.data.leaks import near_duplicates
from rbft.data.records import VideoRecord
from rbft.data.splits import make_splits
from rbft.data.survey import survey
from rbft.errors import DataError
from rbft.video.sampling import FrameSampling


@pytest.fixture(scope="session")
def sound(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("sound") / "root"
    for seed, record in enumerate(Folder(root).records):
        write_scene(root / record.path, seed)
    return root


@pytest.fixture
def folder(sound, tmp_path) -> Folder:
    shutil.copytree(sound, tmp_path / "root")
    return Folder(tmp_path / "root")


def found(report):
    return [(finding.kind, set(finding.ids)) for finding in report.findings]


def test_a_sound_folder_gives_nothing(folder):
    report = folder.check()
    assert report.findings == () and report.errors == () and report.notes == ()
    assert report.counts == {side: dict.fromkeys(CLASSES, n) for side, n in (("train", 3), ("val", 1), ("test", 2))}
    assert report.ranges["frames"] == (16, 16, 16) and report.ranges["width"] == (128, 128, 128)
    assert report.ranges["seconds"] == pytest.approx((0.64,) * 3)


@pytest.mark.parametrize("kind", FAULTS)
def test_each_fault_alone(folder, kind):
    plant, ids = FAULTS[kind]
    plant(folder)
    report = folder.check()
    assert found(report) == [(kind, ids)]
    assert bool(report.errors) == (kind not in WARNINGS)
    assert report.findings[0].message.endswith(".")


def test_all_faults_at_once(folder):
    for kind in FAULTS:
        FAULTS[kind][0](folder)
    add(folder, VideoRecord("spoken", "train/spoken.mp4", "<|im_end|>", "train"), 90)
    folder.shots = None
    report = folder.check(shots=3)
    # the missing training video leaves its class with too few, beside the planted one
    few = [finding for finding in report.findings if finding.kind == "too_few"]
    assert len(few) == 2 and any(set(finding.ids) == FAULTS["too_few"][1] for finding in few)
    rest = sorted((kind, sorted(ids)) for kind, ids in found(report) if kind != "too_few")
    planted = [(kind, sorted(ids)) for kind, (_, ids) in FAULTS.items() if kind != "too_few"]
    assert rest == sorted([*planted, ("label", ["spoken"])])
    severities = [finding.severity for finding in report.findings]
    assert severities == sorted(severities)  # errors first


def test_classes_are_compared_as_their_labels_are_meant(folder):
    label(folder)  # two of "Jump"
    for i in range(3):
        add(folder, VideoRecord(f"more-{i}", f"test/more{i}.mp4", "Jump", "test"), 80 + i)
    report = folder.check()
    assert [finding.kind for finding in report.findings] == ["label", "imbalance"]
    assert "6 videos of 'jump' and 2 of 'run'" in report.findings[1].message


def test_shots_make_classes_equal(folder):
    for i in range(6):
        add(folder, VideoRecord(f"more-{i}", f"train/more{i}.mp4", "run", "train"), 80 + i)
    folder.shots = 4  # more than one class has: the splits are refused
    assert [finding.kind for finding in folder.check().findings] == ["too_few"]


def test_messages_name_files_and_what_to_do(folder):
    for kind in ("empty", "duplicate_across_splits", "group_across_splits"):
        FAULTS[kind][0](folder)
    told = {finding.kind: finding.message for finding in folder.check().findings}
    assert told["empty"] == "train/jump0.mp4: is empty (0 bytes). Copy or download it again."
    assert "train/run1.mp4 (train), val/leak.mp4 (val)" in told["duplicate_across_splits"]
    assert "'camera 7'" in told["group_across_splits"] and "test/run1.mp4 in test" in told["group_across_splits"]


def test_every_wrong_label_is_told(folder):
    for i, name in enumerate(("Jump", "<video>", "RUN")):
        add(folder, VideoRecord(f"w{i}", f"train/w{i}.mp4", name, "train"), 40 + i)
    report = folder.check()
    assert [(finding.kind, finding.ids) for finding in report.findings] == [
        ("label", ("w1",)),
        ("label", ("w0",)),
        ("label", ("w2",)),
    ]
    assert "'Jump' reads the same as 'jump'" in report.findings[1].message
    assert any("labels to correct" in note for note in report.notes)


def test_other_refusals_are_not_lost(folder):
    refusal = DataError("data.val_shots: the class 'jump' has 1 videos left, 4 are asked for.")
    facts = survey(
        folder.root,
        [r.path for r in folder.records],
        cache=folder.root.parent / "cache",
        console=Console(quiet=True),
        workers=1,
    )
    labels = LabelSet.from_records(folder.records)
    report = check_dataset(folder.root, folder.records, refusal, labels, facts)
    assert [(f.kind, f.message) for f in report.findings] == [("splits", str(refusal))]
    report = check_dataset(
        folder.root,
        folder.records,
        make_splits(folder.records, labels, shots=None),
        DataError("train/a.mp4: the label 'hop' is none of the 2 classes."),
        facts,
    )
    assert [f.kind for f in report.findings] == ["label"]


def test_unreadable_training_videos_cost_a_class_its_shots(folder):
    folder.shots = 3
    empty(folder)
    report = folder.check()
    assert found(report)[0] == ("empty", {"train-jump-0"})
    assert (
        report.findings[1].kind == "too_few"
        and "'jump' has 2 readable videos in train, 3" in report.findings[1].message
    )


def test_a_frame_rate_is_needed_where_frames_are_taken_by_it(folder):
    folder_facts = survey(
        folder.root,
        [r.path for r in folder.records],
        cache=folder.root.parent / "cache",
        console=Console(quiet=True),
        workers=1,
    )
    timeless = folder.records[0]
    folder_facts[timeless.path] = replace(folder_facts[timeless.path], fps=0.0)
    labels = LabelSet.from_records(folder.records)
    splits = make_splits(folder.records, labels, shots=None)

    def kinds(sampling):
        report = check_dataset(folder.root, folder.records, splits, labels, folder_facts, sampling=sampling)
        return found(report)

    assert kinds(FrameSampling(fps=2)) == [("no_frame_rate", {timeless.id})]
    assert kinds(SAMPLING) == kinds(None) == []


def test_facts_of_unused_videos_are_not_needed_and_of_others_are(folder):
    labels = LabelSet.from_records(folder.records)
    splits = make_splits(folder.records, labels, shots=1)
    used = [record.path for part in (splits.train, splits.val, splits.test) for record in part]
    facts = survey(folder.root, used, cache=folder.root.parent / "cache", console=Console(quiet=True), workers=1)
    assert check_dataset(folder.root, folder.records, splits, labels, facts, shots=1).findings == ()
    del facts[used[0]]
    with pytest.raises(ValueError, match=used[0]):
        check_dataset(folder.root, folder.records, splits, labels, facts, shots=1)


def test_too_many_pairs_are_said_not_to_be_compared(folder, monkeypatch):
    near_duplicate(folder)
    monkeypatch.setattr("rbft.data.leaks._MOST_PAIRS", 5)
    report = folder.check()
    assert report.findings == ()
    assert any("near-duplicates between train and test were not sought" in note for note in report.notes)


def test_report_as_json_and_on_paper(folder):
    for i in range(12):
        add(folder, VideoRecord(f"e{i}", f"train/e[{i}].mp4", CLASSES[i % 2], "train"), 100 + i)
        (folder.root / f"train/e[{i}].mp4").write_bytes(b"")
    blank(folder)
    report = folder.check()
    document = json.loads(json.dumps(report.to_json()))
    assert len(document["findings"]) == 13
    assert document["findings"][-1] == {
        "kind": "blank",
        "severity": "warning",
        "message": "val/jump0.mp4: shows nothing but one colour. Look at it, and replace it.",
        "ids": ["val-jump-0"],
    }
    assert document["ranges"]["frames"] == {"min": 16, "median": 16, "max": 16}
    out = io.StringIO()
    print_report(report, Console(file=out, width=200))
    text = out.getvalue()
    assert "\x1b" not in text
    assert "error empty (12)" in text and "... and 2 more" in text and "train/e[0].mp4" in text
    assert "12 errors, 1 warning" in text and "frames per second" in text
    out = io.StringIO()
    print_report(replace(report, findings=()), Console(file=out))
    assert out.getvalue().rstrip().endswith("nothing is wrong")


@pytest.mark.slow
@pytest.mark.parametrize("domain", ["pairs", "unions"])
@pytest.mark.parametrize("style", ["plain", "textured"])
def test_no_alarm_on_the_built_in_world(tmp_path, domain, style):
    world = ShapesWorld(domain=domain, style=style, train_per_class=16, val_per_class=4, test_per_class=20)
    world.prepare(tmp_path / "world")
    records = world.read(tmp_path / "world")
    labels = LabelSet.from_records(records)
    facts = survey(
        tmp_path / "world", [r.path for r in records], cache=tmp_path, console=Console(quiet=True), workers=1
    )
    splits = make_splits(records, labels, shots=None)
    report = check_dataset(tmp_path / "world", records, splits, labels, facts, sampling=SAMPLING)
    assert report.findings == ()


@pytest.mark.media
@pytest.mark.slow
def test_real_clips_are_sound_and_only_clips_of_one_camera_look_alike(media_root, tmp_path):
    """Beside the stated scene groups, likeness finds a few more clips of the same cameras, and nothing else."""
    root = media_root / "fights"
    with (root / "labels.csv").open(newline="") as file:
        records = [VideoRecord(r["path"], r["path"], r["label"], None, r["scene_group"]) for r in csv.DictReader(file)]
    facts = survey(root, [r.path for r in records], cache=tmp_path, console=Console(quiet=True), workers=1)
    started = time.monotonic()
    assert survey(root, [r.path for r in records], cache=tmp_path, console=Console(quiet=True), workers=1) == facts
    assert time.monotonic() - started < 1
    labels = LabelSet.from_records(records)
    report = check_dataset(root, records, make_splits(records, labels, shots=16), labels, facts, shots=16)
    assert {finding.kind for finding in report.findings} <= {"near_duplicate"}

    # every clip against every other one, whatever the splits: these cameras were looked at
    cameras = [
        {*range(70, 77)},  # the hallway
        {*range(84, 88)},  # the street from above
    ]
    office = {"fight/fi065.mp4", "fight/fi066.mp4", "fight/fi067.mp4", "noFight/nofi097.mp4", "noFight/nofi098.mp4"}
    known = [{f"noFight/nofi{number:03d}.mp4" for number in camera} for camera in cameras] + [office]
    shuffled = random.Random(0).sample(records, len(records))
    group = {record.id: record.group for record in records}
    for start in range(0, len(shuffled), 30):
        sides = {"train": shuffled[:start] + shuffled[start + 30 :], "val": [], "test": shuffled[start : start + 30]}
        for finding in near_duplicates(sides, facts, 0.85, []):
            one, other = finding.ids
            assert group[one] == group[other] or any({one, other} <= camera for camera in known), finding.message
