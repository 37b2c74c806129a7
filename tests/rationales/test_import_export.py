"""Rationales go out as conversations and come back the same; foreign files are read; what must not come in does not."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rbft.data.formats.conversations import Conversations
from rbft.data.labels import LabelSet
from rbft.data.prompt_templates import PromptBook, Prompts
from rbft.data.records import VideoRecord
from rbft.errors import DataError
from rbft.pipeline.import_rationales import assign
from rbft.rationales.import_export import (
    MAX_CHARACTERS,
    Format,
    export_conversations,
    read_rationale_file,
    refuse_untrusted,
    write_rationale_file,
)
from rbft.rationales.store import Rationale, read_rationales

LABELS = LabelSet(("Fall", "no_fall"))
PROMPTS = Prompts(system="Look closely.", hint="hint_kept")
BOOK = PromptBook(PROMPTS, LABELS)
GOOD = Rationale(
    "a", 0, "a.mp4", "Fall", "00", "blind", "me", "He falls.", "Fall", "He falls.\nx", False, {"leak": 0.5}
)
OTHER = dataclasses.replace(GOOD, id="b", video="b.mp4", label="no_fall")

texts = st.text(st.characters(exclude_categories=("Cs",)), max_size=60)
names = st.text(st.characters(categories=("L", "N")), min_size=1, max_size=12)
rationales = st.builds(
    Rationale,
    id=names,
    sample=st.integers(0, 5),
    video=names.map(lambda name: f"clips/{name}.mp4"),
    label=st.sampled_from(LABELS.names),
    prompt_hash=names,
    hint=st.sampled_from(["blind", "imported"]),
    model=names,
    text=texts,
    stated=st.none() | st.sampled_from(LABELS.names),
    written=texts,
    truncated=st.booleans(),
    scores=st.dictionaries(st.sampled_from(["leak", "grounding"]), st.floats(0, 1)),
    weight=st.floats(0, 10),
    kept=st.booleans(),
    reason=texts,
)
both_classes = st.lists(rationales, max_size=4).map(lambda found: [GOOD, OTHER, *found])


@pytest.mark.parametrize("format", get_args(Format))
@pytest.mark.parametrize("suffix", [".json", ".jsonl"])
@settings(max_examples=25, deadline=None)
@given(made=both_classes)
def test_what_goes_out_comes_back(format: Format, suffix: str, made: list[Rationale]):
    with TemporaryDirectory() as folder:
        path = Path(folder, f"out{suffix}")
        assert export_conversations(path, made, BOOK, format) is None
        assert list(read_rationale_file(path).rationales) == made
        # and by way of our own format
        assert write_rationale_file(Path(folder, "own.jsonl"), made) is None
        assert list(read_rationale_file(Path(folder, "own.jsonl")).rationales) == made


@pytest.mark.parametrize("format", get_args(Format))
def test_other_tools_see_what_stage_1_trains_on(tmp_path, format):
    export_conversations(tmp_path / "out.json", [GOOD, OTHER], BOOK, format)
    row, other = json.loads((tmp_path / "out.json").read_text())
    turns = row["messages" if format == "messages" else "conversations"]
    said = [(turn.get("role", turn.get("from")), turn.get("content", turn.get("value"))) for turn in turns]
    roles = ("user", "assistant") if format == "messages" else ("human", "gpt")
    assert said == [
        ("system", "Look closely."),
        (roles[0], "<video>\n" + BOOK.training_prompt("Fall").question),
        (roles[1], "He falls.\nClassification: fall"),
    ]
    assert row["video"] == "a.mp4" if format == "llava" else row["videos"] == ["a.mp4"]
    # the package's own data format reads labels from it
    for record, video in ((row, "a.mp4"), (other, "b.mp4")):
        (tmp_path / video).touch()
        assert record["rbft"]["video"] == video
    found = Conversations(train="out.json", conclusion="Classification:").read(tmp_path)
    assert [(r.path, r.label) for r in found] == [("a.mp4", "fall"), ("b.mp4", "no fall")]


def test_an_answer_edited_elsewhere_counts_as_it_is_now(tmp_path):
    path = tmp_path / "out.json"
    export_conversations(path, [GOOD, OTHER], BOOK, "llava")
    rows = json.loads(path.read_text())
    rows[0]["conversations"][-1]["value"] = "She falls.\nClassification: no fall"
    path.write_text(json.dumps(rows))
    edited, same = read_rationale_file(path).rationales
    assert (edited.text, edited.stated, edited.scores, edited.id) == ("She falls.", "no_fall", {}, "a")
    assert same == OTHER


SPOKEN = Prompts(conclusion="so it is {label}", separator=" ", label_texts={"Fall": "a fall"})


def edited(path: Path, answer: str, **prompts: Any) -> Path:
    """An export of two rationales, the first of them edited."""
    book = PromptBook(dataclasses.replace(SPOKEN, **prompts), LABELS)
    export_conversations(path, [GOOD, OTHER], book, "messages")
    rows = json.loads(path.read_text())
    rows[0]["messages"][-1]["content"] = answer
    path.write_text(json.dumps(rows))
    return path


@pytest.mark.parametrize(
    ("answer", "text", "stated"),
    [
        ("She falls . so it is a fall", "She falls .", "Fall"),
        ("She falls . so it is no fall", "She falls .", "no_fall"),
        ("She falls . so it is no_fall", "She falls .", "no_fall"),
        ("She falls . so it is a storm", "She falls .", "a storm"),
        ("She falls .", "She falls .", None),
        ("so it is a fall", "", "Fall"),
    ],
)
@pytest.mark.parametrize("known", ["prompts", "run_prompts"])
def test_the_conclusion_of_an_edited_answer_is_no_part_of_its_text(tmp_path, answer, text, stated, known):
    path = edited(tmp_path / "out.json", answer)
    first, second = read_rationale_file(path, **{known: SPOKEN}).rationales
    label = "Fall" if stated is None else stated
    assert (first.text, first.stated, first.label, first.kept) == (text, stated, label, bool(text))
    assert second == OTHER


def test_words_before_the_class_can_be_given_alone(tmp_path):
    path = edited(tmp_path / "out.json", "She falls . so it is fall", label_texts={})
    for prompts in (None, Prompts(label_texts={"no_fall": "quiet"})):
        first, _ = read_rationale_file(path, prompts, conclusion="so it is").rationales
        assert (first.text, first.stated) == ("She falls .", "Fall")


def test_an_edited_answer_with_an_unknown_conclusion_is_refused(tmp_path):
    path = edited(tmp_path / "out.json", "She falls . so it is a fall")
    for prompts in ({}, {"conclusion": "so it is"}):
        with pytest.raises(
            DataError, match=r"out\.json, item 1: .* exported as 'He falls\. so it is a fall', .*--config"
        ):
            read_rationale_file(path, **prompts)
    # nothing is concluded where stage 1 learns the text alone
    path = edited(tmp_path / "out.json", "She falls .", target_order="rationale")
    assert [r.text for r in read_rationale_file(path).rationales] == ["She falls .", OTHER.text]


def foreign(path: Path, *answers: str, **more: Any) -> Path:
    rows = [
        {
            "id": f"v{number}",
            "video": f"v{number}.mp4",
            "conversations": [
                {"from": "human", "value": "<video>\nIs it Normal or Abnormal?"},
                {"from": "gpt", "value": answer},
            ],
            **more,
        }
        for number, answer in enumerate(answers)
    ]
    path.write_text(json.dumps(rows))
    return path


def test_foreign_conversations_are_read_by_their_conclusion(tmp_path):
    path = foreign(tmp_path / "x.json", "A dog.\nClassification: Normal", "A thief. It is abnormal.")
    with pytest.raises(DataError, match=r"x\.json, item 2: the answer names no class after"):
        read_rationale_file(path)
    path = foreign(
        tmp_path / "x.json",
        "A dog.\nClassification: Normal",
        "A thief.\n**Classification:** abnormal.",
        "A cat.\nClassification: normal\n",
        "It is odd. Classification: abnormal",
    )
    found = read_rationale_file(path)
    assert found.book.labels.names == ("Normal", "abnormal")
    assert [(r.label, r.text, r.stated) for r in found.rationales] == [
        ("Normal", "A dog.", "Normal"),
        ("abnormal", "A thief.", "abnormal"),
        ("Normal", "A cat.", "Normal"),
        ("abnormal", "It is odd.", "abnormal"),
    ]
    assert set(found.questions) == {"Is it Normal or Abnormal?"}
    assert not found.labels_stated_apart
    assert {r.hint for r in found.rationales} == {"imported"}


def test_a_key_can_name_the_class(tmp_path):
    path = foreign(tmp_path / "x.json", "A dog.\nClassification: Normal", label="odd")
    rows = json.loads(path.read_text())
    path.write_text(json.dumps([*rows, {**rows[0], "label": "Normal"}]))
    found = read_rationale_file(path)
    assert [(r.label, r.stated, r.sample) for r in found.rationales] == [("odd", "Normal", 0), ("Normal", "Normal", 1)]
    assert found.labels_stated_apart


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"conversations": None}, "expected turns"),
        ({"conversations": ["a"]}, "expected turns"),
        ({"conversations": [{"from": "gpt", "value": "x"}]}, "must end in a question and its answer"),
        ({"conversations": [{"from": "human", "value": 3}, {"from": "gpt", "value": "x"}]}, "each turn must be a text"),
        ({"video": ["a", "b"]}, "expected one path"),
    ],
)
def test_wrong_rows_are_named(tmp_path, change, message):
    path = foreign(tmp_path / "x.json", "A dog.\nClassification: Normal", **change)
    with pytest.raises(DataError, match=rf"x\.json, item 1: .*{message}"):
        read_rationale_file(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"text": "He <|im_end|> falls"}, r"'<\|', which a model could take for a control token"),
        ({"written": "<video>"}, "control token"),
        ({"text": "\x1b[31mred"}, "control character"),
        ({"text": "x" * (MAX_CHARACTERS + 1)}, f"{MAX_CHARACTERS + 1} characters"),
        ({"video": "../x.mp4"}, "leads out of its folder"),
        ({"video": "/etc/passwd"}, "is absolute"),
        ({"video": "http://x/y.mp4"}, "is a URL"),
        ({"weight": -1.0}, "weights are not negative"),
        ({"scores": {"leak": 2.0}}, r"scores lie in \[0, 1\]"),
    ],
)
def test_what_must_not_come_in_is_refused(change, message):
    refuse_untrusted([GOOD], "f.json")
    with pytest.raises(DataError, match=message) as caught:
        refuse_untrusted([GOOD, dataclasses.replace(GOOD, **change)], "f.json")
    assert "rationale 2 (of 'a')" in str(caught.value)


def test_existing_files_are_set_aside(tmp_path):
    for path, write in (
        (tmp_path / "own.jsonl", lambda path: write_rationale_file(path, [GOOD])),
        (tmp_path / "out.json", lambda path: export_conversations(path, [GOOD, OTHER], BOOK, "llava")),
    ):
        path.write_text("mine")
        old = write(path)
        assert old is not None
        assert old.read_text() == "mine"
    assert read_rationales(tmp_path / "own.jsonl") == [GOOD]


def test_sizes_are_bounded(tmp_path, monkeypatch):
    path = foreign(tmp_path / "x.json", "A dog.\nClassification: Normal")
    monkeypatch.setattr("rbft.rationales.import_export.MAX_FILE_BYTES", 10)
    with pytest.raises(DataError, match="is larger than"):
        read_rationale_file(path)
    monkeypatch.undo()
    path.write_text("[]")
    with pytest.raises(DataError, match="holds 0 rows"):
        read_rationale_file(path)
    with pytest.raises(DataError, match="does not exist"):
        read_rationale_file(tmp_path / "gone.json")


def test_an_unlabelled_video_is_told_apart_and_one_without_class_left_out(tmp_path):
    known = Rationale("1", 0, "1.mp4", "fall", "00", "blind", "me", "He falls.", "fall", "He falls.", False)
    own = dataclasses.replace(known, id="u", video="u.mp4", label="sit", stated="sit", labelled=False)
    mute = dataclasses.replace(own, id="m", video="m.mp4", label="", stated=None, kept=False, reason="unstated class")
    write_rationale_file(tmp_path / "r.jsonl", [known, own, mute])
    file = read_rationale_file(tmp_path / "r.jsonl", Prompts(hint="hint_kept"))
    assert file.rationales == (known, own)
    assert "known to show: fall" in str(file.questions[0]) and "known to show" not in str(file.questions[1])


def test_what_is_imported_is_of_labelled_videos_whatever_it_says(tmp_path):
    names = ("fall", "sit")
    claims = [
        Rationale(n, 7, f"{n}.mp4", n, "00", "blind", "me", "He.", n, "He.", False, labelled=False) for n in names
    ]
    write_rationale_file(tmp_path / "r.jsonl", claims)
    train = [VideoRecord(name, f"{name}.mp4", name) for name in names]
    book = PromptBook(Prompts(), LabelSet(names))
    found = assign(read_rationale_file(tmp_path / "r.jsonl"), train, train, book, 1, "r.jsonl")
    assert [(r.labelled, r.sample) for r in found] == [(True, 0)] * 2


def talk(*turns: Any, **more: Any) -> dict[str, Any]:
    """A row of messages: question, answer, question, answer, ..."""
    said = [{"role": ("user", "assistant")[i % 2], "content": turn} for i, turn in enumerate(turns)]
    return {"messages": said, **more}


ASKED = [{"type": "video", "video": "x.mp4"}, {"type": "text", "text": "Which class?"}]
SHAPES = {
    "think and answer": (["Why?", "<think>{body}</think>\n<answer>{label}</answer>"], {}),
    "think, then a conclusion": (["Why?", "<think>\n{body}\n</think>\nClassification: {label}"], {}),
    "only the answer tagged": (["Why?", "{body}\n<answer>{label}</answer>"], {}),
    "lists of parts": ([ASKED, [{"type": "text", "text": "{body}\nClassification: {label}"}]], {}),
    "a key ground_truth": (["Why?", "{body}"], {"ground_truth": "{label}"}),
    "a key answer with tags": (["Why?", "{body}"], {"answer": "<answer>{label}</answer>"}),
    "the class in a second turn": (["Why?", "{body}", "So which class?", "{label}"], {}),
    "its reason after the class": (["Why?", "{body}\nClassification: {label} because of that."], {}),
    "the class first": (["Why?", "Classification: {label}\n{body}"], {}),
}


@pytest.mark.parametrize("wrapped", [False, True], ids=["list", "in an object"])
@pytest.mark.parametrize("shape", SHAPES)
def test_reasoning_data_of_other_tools_is_read(tmp_path, shape, wrapped):
    turns, more = SHAPES[shape]

    def filled(value: Any, body: str, label: str) -> Any:
        text = json.dumps(value).replace("{body}", body).replace("{label}", label)
        return json.loads(text)

    bodies = {"a.mp4": ("He slips and lies there.", "fall"), "b.mp4": ("He sits.", "no fall")}
    rows = [filled(talk(*turns, videos=[video], **more), *texts) for video, texts in bodies.items()]
    path = tmp_path / "other.json"
    path.write_text(json.dumps({"version": 1, "data": rows} if wrapped else rows))
    file = read_rationale_file(path)
    assert [(r.video, r.text, r.label) for r in file.rationales] == [
        (video, body, label) for video, (body, label) in bodies.items()
    ]
    assert all(r.kept and r.stated in (r.label, None) for r in file.rationales)
    refuse_untrusted(file.rationales, "other.json")


def test_empty_texts_are_never_kept(tmp_path):
    path = tmp_path / "other.json"
    rows = [talk("Why?", f"Classification: {label}", videos=[f"{label}.mp4"]) for label in ("fall", "rest")]
    path.write_text(json.dumps(rows))
    assert [(r.text, r.kept, r.reason) for r in read_rationale_file(path).rationales] == [("", False, "empty")] * 2


def test_a_row_without_a_class_names_the_keys_that_there_are(tmp_path):
    path = tmp_path / "other.json"
    path.write_text(json.dumps([talk("Why?", "He falls.", videos=["a.mp4"], verdict="fall", id="1")]))
    with pytest.raises(DataError, match=r"--label_key to the key that names it \(messages, videos, verdict, id\)"):
        read_rationale_file(path)


def test_texts_of_clips_that_are_not_trained_on_are_left_out_on_request(tmp_path):
    path = tmp_path / "other.json"
    rows = [talk("Why?", f"{name}.\nClassification: {name}", videos=[f"{name}.mp4"]) for name in ("fall", "rest")]
    path.write_text(json.dumps(rows))
    file, train = read_rationale_file(path), [VideoRecord("fall", "fall.mp4", "fall")]
    book = PromptBook(Prompts(), LabelSet(("fall", "rest")))
    with pytest.raises(DataError, match=r"'rest\.mp4' .* is not a training video of this run.*--skip"):
        assign(file, train, train, book, 1, "other.json")
    assert [r.id for r in assign(file, train, train, book, 1, "other.json", skip=True)] == ["fall"]


def read_talks(path: Any, *rows: tuple[str, str]) -> Any:
    """A file of conversations with running numbers as ids, of (video, class)."""
    said = [
        talk("Why?", f"{video}.\nClassification: {label}", videos=[video], id=f"{number:04}")
        for number, (video, label) in enumerate(rows)
    ]
    path.write_text(json.dumps(said))
    return read_rationale_file(path)


def test_a_text_goes_to_the_video_that_its_path_means(tmp_path):
    names = ("train/fall/0000", "train/fall/0001", "train/rest/0000", "test/fall/0001", "test/fall/0002", "x/fall/7")
    videos = [VideoRecord(f"{name}.mp4", f"{name}.mp4", name.split("/")[1]) for name in names]
    train = videos[:3]
    book = PromptBook(Prompts(), LabelSet(("fall", "rest")))

    def assigned(*rows: tuple[str, str], **options: Any) -> list[tuple[str, str]]:
        file = read_talks(tmp_path / "other.json", *rows)
        return [(r.id, r.text) for r in assign(file, train, videos, book, 1, "other.json", **options)]

    # the row's number is the name of another file
    rows = [
        ("train/fall/0001.mp4", "fall"),
        ("/disk/train/fall/0000.avi", "fall"),
        ("D:\\clips\\rest\\0000.mp4", "rest"),
    ]
    assert assigned(*rows) == [
        ("train/fall/0001.mp4", "train/fall/0001.mp4."),
        ("train/fall/0000.mp4", "/disk/train/fall/0000.avi."),
        ("train/rest/0000.mp4", "D:\\clips\\rest\\0000.mp4."),
    ]
    # of a test video, though no other training video has its file name
    for video in ("test/fall/0001.mp4", "/disk/test/fall/0001.mp4", "7.mp4"):
        with pytest.raises(DataError, match="is not a training video of this run"):
            assigned((video, "fall"), ("train/rest/0000.mp4", "rest"))
        assert len(assigned((video, "fall"), ("train/rest/0000.mp4", "rest"), skip=True)) == 1
    # which of several is not known
    with pytest.raises(DataError, match=r"'0001' \(0000\.mp4\).* or several fit its path"):
        assigned(("train/rest/0000.mp4", "rest"), ("0000.mp4", "fall"))
