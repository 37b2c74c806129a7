"""Which rows a stage trains on: questions, answers and weights."""

from __future__ import annotations

import dataclasses

import pytest

from rbft.data.labels import LabelSet
from rbft.data.prompt_templates import PromptBook, Prompts
from rbft.data.records import VideoRecord
from rbft.data.splits import Splits
from rbft.errors import ConfigError, StageError
from rbft.objectives.classification import ClassificationObjective
from rbft.objectives.joint import JointObjective
from rbft.objectives.rationale import RationaleObjective
from rbft.rationales.store import Rationale
from rbft.stages.train import refuse_held_out

RECORDS = [
    VideoRecord("1", "1.mp4", "PushUp"),
    VideoRecord("2", "2.mp4", "Archery"),
    VideoRecord("3", "3.mp4", "PushUp"),
]


def book(**settings) -> PromptBook:
    return PromptBook(Prompts(**settings), LabelSet(("PushUp", "Archery")))


def rationale(id: str, text: str, sample: int = 0, **changes) -> Rationale:
    # what a text stated is never what is trained on: the label of the data set is
    made = Rationale(id, sample, f"{id}.mp4", "x", "00", "blind", "me", text, "Archery", text, False)
    return dataclasses.replace(made, **changes)


WRITTEN = [
    rationale("1", "Arms bend."),
    rationale("2", "A bow."),
    rationale("1", "Down, up.", 1),
    rationale("3", "Legs."),
]


def test_classification_asks_for_the_label_of_each_video():
    rows = ClassificationObjective().examples(RECORDS, book(), [])
    assert [(row.record, row.answer, row.weight) for row in rows] == [
        (RECORDS[0], "push up", 1.0),
        (RECORDS[1], "archery", 1.0),
        (RECORDS[2], "push up", 1.0),
    ]
    assert {row.prompt for row in rows} == {book().label_prompt()}


def test_rationale_has_a_row_for_each_that_was_kept():
    rows = RationaleObjective().examples(RECORDS, book(), WRITTEN)
    assert [(row.record.id, row.answer) for row in rows] == [
        ("1", "Arms bend.\nClassification: push up"),
        ("2", "A bow.\nClassification: archery"),
        ("1", "Down, up.\nClassification: push up"),
        ("3", "Legs.\nClassification: push up"),
    ]
    assert [row.prompt for row in rows] == [book().training_prompt(row.record.label) for row in rows]


def test_rationale_follows_hint_order_and_weight():
    kept = book(hint="hint_kept", target_order="rationale")
    weighted = [dataclasses.replace(item, weight=0.5) for item in WRITTEN]
    rows = RationaleObjective().examples(RECORDS, kept, weighted)
    assert [row.answer for row in rows] == ["Arms bend.", "A bow.", "Down, up.", "Legs."]
    assert "known to show: archery" in rows[1].prompt.question
    assert {row.weight for row in rows} == {0.5}


def test_dropped_and_weightless_rationales_train_nothing():
    written = [*WRITTEN, rationale("1", "", 2, kept=False), rationale("1", "x", 3, weight=0.0)]
    assert len(RationaleObjective().examples(RECORDS, book(), written)) == 4


def test_a_class_without_rationales_is_named():
    with pytest.raises(StageError, match="no rationale is left for the class 'Archery'"):
        RationaleObjective().examples(RECORDS, book(), [WRITTEN[0], dataclasses.replace(WRITTEN[1], kept=False)])


def test_rationales_of_other_videos_are_refused():
    with pytest.raises(StageError, match="a rationale is of 'test-7', which is not a training video of this run"):
        RationaleObjective().examples(RECORDS, book(), [*WRITTEN, rationale("test-7", "x", kept=False)])


@pytest.mark.parametrize("alpha", [0.5, 0.8])
def test_joint_shares_the_loss_between_both_tasks(alpha):
    rows = JointObjective(alpha).examples(RECORDS, book(), WRITTEN)
    labels, texts = rows[:3], rows[3:]
    assert [row.answer for row in labels] == [r.answer for r in ClassificationObjective().examples(RECORDS, book(), [])]
    assert [row.answer for row in texts] == [r.answer for r in RationaleObjective().examples(RECORDS, book(), WRITTEN)]
    assert [row.weight for row in labels] == pytest.approx([alpha] * 3)
    # four rationales of three videos weigh together what three would
    assert [row.weight for row in texts] == pytest.approx([(1 - alpha) * 3 / 4] * 4)
    assert sum(row.weight for row in labels) / sum(row.weight for row in texts) == pytest.approx(alpha / (1 - alpha))


@pytest.mark.parametrize("alpha", [0.0, 1.0, -0.1, 1.5, float("nan")])
def test_joint_refuses_shares_that_leave_a_task_out(alpha):
    with pytest.raises(ConfigError, match=r"^model\.objective\.alpha: .* must lie between 0 and 1"):
        JointObjective(alpha)


UNLABELLED = [
    rationale("u/1.mp4", "A bow.", label="Archery", labelled=False, weight=0.5),
    rationale("u/2.mp4", "Arms.", label="PushUp", labelled=False, kept=False),
]


@pytest.mark.parametrize("hint", ["blind", "hint_kept"])
def test_unlabelled_videos_are_learned_from_under_their_own_words(hint):
    own = book(hint=hint)
    rows = RationaleObjective("balanced").examples(RECORDS, own, [*UNLABELLED, *WRITTEN])
    new, *known = rows
    assert [row.record.id for row in known] == ["1", "2", "1", "3"]
    assert (new.record.id, new.record.path) == ("u/1.mp4", "u/1.mp4.mp4")
    assert new.answer == "A bow.\nClassification: archery"
    assert new.prompt == own.blind_prompt(), "never a question that names a class"
    # as a video of that class would weigh: Archery is the rarer one
    assert new.weight == pytest.approx(0.5 * 1.5)


def test_labels_are_never_learned_of_them():
    rows = JointObjective(alpha=0.25).examples(RECORDS, book(), [*UNLABELLED, *WRITTEN])
    asked = [row.prompt == book().label_prompt() for row in rows if row.record.id.startswith("u/")]
    assert asked == [False]
    assert [r.record for r in ClassificationObjective().examples(RECORDS, book(), UNLABELLED)] == RECORDS


def test_they_do_not_stand_in_for_a_class_without_rationales():
    own = [dataclasses.replace(UNLABELLED[0], label="PushUp")]
    with pytest.raises(StageError, match="no rationale is left for the class 'PushUp'"):
        RationaleObjective().examples(RECORDS, book(), [*own, WRITTEN[1]])


def test_texts_about_held_out_videos_are_refused_whatever_they_call_themselves():
    splits = Splits(tuple(RECORDS), (VideoRecord("v", "v.mp4", "PushUp"),), (VideoRecord("t", "t.mp4", "PushUp"),), ())
    refuse_held_out([*WRITTEN, *UNLABELLED], splits)
    for id, video, side in (("t", "else.mp4", "test"), ("else", "v.mp4", "val")):
        smuggled = rationale(id, "x", video=video, labelled=False)
        with pytest.raises(StageError, match=rf"is a {side} video of this run"):
            refuse_held_out([*WRITTEN, smuggled], splits)
