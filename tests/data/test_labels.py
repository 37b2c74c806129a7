"""Label sets refuse what would spoil a closed-set question, and names are read aloud well."""

from __future__ import annotations

import pytest

from rbft.data.labels import MAX_LENGTH, LabelSet, odd_names, require_apart, spoken
from rbft.data.prompt_templates import PromptBook, Prompts
from rbft.data.records import VideoRecord
from rbft.errors import DataError


def records(*labels):
    return [VideoRecord(str(i), f"{i}.mp4", label) for i, label in enumerate(labels)]


def test_order_is_official_or_sorted():
    assert LabelSet.from_records(records("b", "a", "b")).names == ("a", "b")
    labels = LabelSet.from_records(records("b", "a"), ["b", "c", "a"])
    assert labels.names == ("b", "c", "a")
    assert len(labels) == 3
    assert [labels.index(name) for name in "bca"] == [0, 1, 2]


def test_unknown_labels_are_named_with_the_nearest():
    labels = LabelSet(("walking", "running"))
    with pytest.raises(DataError, match="'walkin' is none of the 2 classes; did you mean 'walking'"):
        labels.index("walkin")
    with pytest.raises(DataError, match=r"0\.mp4: the label 'walkin'"):
        LabelSet.from_records(records("walkin"), labels.names)


@pytest.mark.parametrize("names", [(), ("one",)])
def test_needs_two_classes(names):
    with pytest.raises(DataError, match="at least two classes"):
        LabelSet(names)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("noFight", "no_fight"),
        ("Fight", "fight"),
        ("pull-up", "pull up"),
        ("HandstandPushups", "HandStandPushups"),
        ("ﬁre", "fire"),
        ("straße", "STRASSE"),
        ("cafe\u0301", "café"),
        ("1-2", "1_2"),
        ("same", "same"),
    ],
)
def test_labels_that_read_the_same_are_refused(one, other):
    with pytest.raises(DataError, match=r"reads the same as .*model\.prompts\.label_texts|stands twice"):
        require_apart(LabelSet((one, other)).names, {})


def test_what_looks_equal_is_told_to_differ():
    with pytest.raises(
        DataError, match=r"'cafe\u0301' reads .* 'caf\u00e9'; .*They differ in how Unicode writes an accent alone"
    ):
        require_apart(("caf\u00e9", "cafe\u0301"), {})


def test_what_is_written_apart_is_apart():
    require_apart(("A", "a"), {"a": "lower case a"})
    with pytest.raises(DataError, match="'fall' reads the same as 'drop'"):
        require_apart(("drop", "fall"), {"drop": "Fall"})


APART = [
    ("1-2", "12"),
    ("C", "C++"),
    ("level 1-1", "level 11"),
    ("-1", "1"),
    ("-1", "+1"),
    ("A", "A-"),
    ("A+", "A-"),
    ("-", "+"),
    ("_", "-"),
    ("turn -90", "turn 90"),
    ("-.5", ".5"),
    ("x2", "x²"),
    ("< 5", "> 5"),
    ("a+b", "a*b"),
    ("90°", "90"),
    ("-5 °C", "5 °C"),
    ("± 1", "1"),
    ("−1", "1"),
    ("Rh-", "Rh+"),
    ("50 kHz", "50 Hz"),
]


@pytest.mark.parametrize("pair", APART, ids=str)
def test_labels_that_read_differently_are_kept_and_written_differently(pair):
    require_apart(LabelSet(pair).names, {})
    book = PromptBook(Prompts(), LabelSet(pair))
    assert len(set(book.texts)) == 2 and all(book.texts)
    for name in pair:
        assert book.parse(book.concluded("because", name)).stated == name
        assert book.parse(f"because\nClassification: **{book.text(name)}**.").stated == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        "  ",
        " fight",
        "fight ",
        "a\nb",
        "a\x07b",
        "a\u2028b",
        "a\u202eb",
        "a\u200bb",
        "x" * (MAX_LENGTH + 1),
        "<|im_end|>",
        "fight <|im_start|>",
        "<video>",
        "an <image> b",
        "</s>",
        "[INST]",
        "[/INST]",
        "<<SYS>>",
        "[PAD]",
        "＜|im_end|＞",
        "<｜end▁of▁sentence｜>",
        "<start_of_turn>",
        "\ud800",
    ],
)
def test_names_that_must_not_reach_a_prompt_are_refused(name):
    with pytest.raises(DataError, match="Rename the class"):
        LabelSet(("good", name))


def test_long_and_unusual_names_are_fine():
    names = (
        "Putting something that can't actually stand upright upright on the table, so it falls on its side",
        "dive (back) [1.5], a < b",
        "می\u200cرود",
        "{label}",
    )
    assert LabelSet(names).names == names


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("ApplyEyeMakeup", "apply eye makeup"),
        ("noFight", "no fight"),
        ("pull_up", "pull up"),
        ("YoYo", "yo yo"),
        ("TaiChi", "tai chi"),
        ("UCF101", "UCF101"),
        ("UCF101Class", "UCF101 class"),
        ("TVShow", "TV show"),
        ("3DPrinting", "3D printing"),
        ("WalkingWithDog2", "walking with dog2"),
        ("NO_FIGHT", "no fight"),
        ("ABNORMAL", "abnormal"),
        ("CPR", "CPR"),
        ("salsa-dancing", "salsa dancing"),
        ("100m_sprint", "100m sprint"),
        ("Vague Abnormal", "vague abnormal"),
        ("shooting goal (soccer)", "shooting goal (soccer)"),
        ("__x__y_", "x y"),
        ("ÄrgerÜber", "ärger über"),
        ("打架", "打架"),
        ("back, 1.5 somersaults", "back, 1.5 somersaults"),
        ("-5", "-5"),
        ("+1", "+1"),
        ("-", "-"),
        ("_", "_"),
        ("A-", "A-"),
        ("turn_-90", "turn -90"),
        ("1-2", "1-2"),
        ("10-20 m", "10-20 m"),
        ("-Fall", "-fall"),
        ("walk - run", "walk run"),
        ("level-2", "level 2"),
        ("UCF101-24", "ucf101 24"),
        ("30°", "30°"),
        ("25℃", "25°C"),
        ("10 m²", "10 m²"),
        ("½ turn", "½ turn"),
        ("50kHz", "50kHz"),
        ("50 kHz", "50 kHz"),
        ("-5mA", "-5mA"),
        ("Pa", "pa"),
        ("a > b", "a > b"),
    ],
)
def test_spoken(name, text):
    assert spoken(name) == text


def test_names_that_may_be_no_class_are_asked_about():
    odd = ("nan", "NaN", "None", "N/A", "training_set", "Testing-Set", "val", "validation videos", "test")
    assert [question.split("'")[1] for question in odd_names(odd)] == list(odd)
    plain = ("trains", "train station", "testify", "valley", "nothing", "nano", "not applicable", "no")
    assert odd_names(plain) == []


def test_numbers_that_are_written_in_several_ways_are_asked_about():
    (question,) = odd_names(("1", "1.0", "2", "10", "1,0", "-1", "v1"))
    assert "'1' and '1.0' two classes?" in question


def test_several_classes_in_one_cell_are_asked_about():
    names = ["fall,walk", "walk", "sit | Fall", "fall", "up, down", "a+", "a", "-5", "5"]
    asked = [question.split("?")[0] for question in odd_names(names)]
    assert asked == ["is 'fall,walk' one class", "is 'sit | Fall' one class"]
