"""Every text that reaches the model: who sees the label, how a class is written, how a stated class is read back."""

from __future__ import annotations

import pytest

from rbft.data.labels import LabelSet
from rbft.data.prompt_templates import ParsedRationale, PromptBook, Prompts
from rbft.errors import ConfigError, DataError

LABELS = LabelSet(("Push", "PushUp", "HorseRiding"))


def book(labels: LabelSet = LABELS, **settings) -> PromptBook:
    return PromptBook(Prompts(**settings), labels)


def test_classes_are_written_as_words_unless_told_otherwise():
    assert book().texts == ("push", "push up", "horse riding")
    told = book(label_texts={"PushUp": "press-up"})
    assert told.texts == ("push", "press-up", "horse riding")
    assert told.text("PushUp") == "press-up"
    assert "push, press-up, horse riding" in told.label_prompt().question


def test_criteria_stand_where_the_template_wants_them():
    one = book(label_question="{criteria}\nWhich of {labels}?", criteria={"HorseRiding": "a rider {sits}", "Push": "x"})
    assert one.label_prompt().question == (
        "push: x\nhorse riding: a rider {sits}\nWhich of push, push up, horse riding?"
    )


def test_system_turn_stands_in_every_prompt():
    one = book(system="Be brief.")
    prompts = [one.label_prompt(), one.writing_prompt("Push"), one.training_prompt("Push")]
    assert [prompt.system for prompt in prompts] == ["Be brief."] * 3
    assert book().label_prompt().system is None


HINTS = {"rationale_question": "Blind?", "hinted_question": "It is {label}. Why?"}


@pytest.mark.parametrize(
    ("hint", "writing", "training"),
    [
        ("blind", "Blind?", "Blind?"),
        ("hint_stripped", "It is horse riding. Why?", "Blind?"),
        ("hint_kept", "It is horse riding. Why?", "It is horse riding. Why?"),
        ("blind_then_hint", "Blind?", "Blind?"),
    ],
)
def test_the_label_stands_only_where_the_policy_lets_it(hint, writing, training):
    one = book(hint=hint, **HINTS)
    assert one.writing_prompt("HorseRiding").question == writing
    assert one.training_prompt("HorseRiding").question == training


def test_a_later_attempt_may_ask_in_the_other_way():
    for hint in ("blind", "hint_stripped", "blind_then_hint"):
        one = book(hint=hint, **HINTS)
        assert one.writing_prompt("Push", hinted=True).question == "It is push. Why?"
        assert one.writing_prompt("Push", hinted=False).question == "Blind?"
        assert one.hinted_as == "hint_stripped"
    assert book(hint="hint_kept").hinted_as == "hint_kept"


@pytest.mark.parametrize("hint", ["blind", "hint_stripped", "blind_then_hint"])
def test_default_training_prompts_are_the_same_for_every_class(hint):
    one = book(hint=hint)
    assert len({one.training_prompt(name) for name in LABELS.names}) == 1
    kept = book(hint="hint_kept")
    assert len({kept.training_prompt(name) for name in LABELS.names}) == 3
    assert "known to show: horse riding." in kept.training_prompt("HorseRiding").question


def test_braces_in_texts_stay_text():
    one = book(label_texts={"Push": "{labels}", "PushUp": "{label}{"})
    assert "{labels}, {label}{, horse riding" in one.label_prompt().question
    assert "known to show: {labels}." in one.writing_prompt("Push").question
    assert one.rationale_target("body", "PushUp") == "body\nClassification: {label}{"


def test_targets():
    one = book()
    assert one.rationale_target("A rider.", "HorseRiding") == "A rider.\nClassification: horse riding"
    assert one.rationale_target("", "HorseRiding") == "Classification: horse riding"
    assert book(target_order="rationale").rationale_target("A rider.", "HorseRiding") == "A rider."
    spaced = book(separator=" ", conclusion="so it is {label}")
    assert spaced.rationale_target("A rider .", "Push") == "A rider . so it is push"


@pytest.mark.parametrize(
    ("written", "body", "stated"),
    [
        ("He pushes.\nClassification: push", "He pushes.", "Push"),
        ("He pushes.\nClassification: push up", "He pushes.", "PushUp"),
        ("x\nCLASSIFICATION: Push Up.", "x", "PushUp"),
        ("x\nclassification:  **push up**", "x", "PushUp"),
        ("x\nClassification: 'horse riding', surely", "x", "HorseRiding"),
        ("x\nClassification: pushing", "x", None),
        ("x\nClassification: swimming", "x", None),
        ("x\nClassification:", "x", None),
        ("No conclusion. horse riding", "No conclusion. horse riding", None),
        ("Classification: push", "", "Push"),
        ("", "", None),
        ("x\nClassification: push\nno, wait\nClassification: horse riding", "x", "HorseRiding"),
        ("x\nClassification: push\nClassification: that was it", "x", "Push"),
    ],
)
def test_parse_reads_the_class_a_text_states(written, body, stated):
    assert book().parse(written) == ParsedRationale(body, stated)


def test_what_is_trained_is_read_back():
    for separator, conclusion in (("\n", "Classification: {label}"), (" ", "so it is {label}")):
        one = book(separator=separator, conclusion=conclusion)
        for name in LABELS.names:
            assert one.parse(one.rationale_target("Some body.", name)) == ParsedRationale("Some body.", name)


def test_the_class_may_be_learned_first():
    first = book(target_order="label_then_rationale")
    assert first.rationale_target("A rider.", "HorseRiding") == "Classification: horse riding\nA rider."
    assert first.rationale_target("", "HorseRiding") == "Classification: horse riding"
    for separator, conclusion in (
        ("\n", "Classification: {label}"),
        (" ", "so it is {label}"),
        (". ", "It is {label}"),
    ):
        one = book(separator=separator, conclusion=conclusion, target_order="label_then_rationale")
        for name in LABELS.names:
            for body in ("Some body.", '"Stop", he says.', "(He) pushes - hard", "so he goes"):
                assert one.parse(one.rationale_target(body, name)) == ParsedRationale(body, name)


@pytest.mark.parametrize(
    ("written", "body", "stated"),
    [
        ("Classification: push up. He bends.", "He bends.", "PushUp"),
        ("\n**Classification: Push**\nHe pushes.", "He pushes.", "Push"),
        ("# Classification: push\nHe pushes.", "He pushes.", "Push"),
        ("classification:  **push up**\n\nHe bends.", "He bends.", "PushUp"),
        ("Classification: swimming\nHe swims.", "He swims.", None),
        ("Classification: push", "", "Push"),
        ("Classification: push\nHe pushes.\nClassification: horse riding", "He pushes.", "HorseRiding"),
        # a model that was not taught so yet concludes at the end, as it is asked to
        ("He pushes.\nClassification: push", "He pushes.", "Push"),
    ],
)
def test_parse_reads_the_class_a_text_begins_with(written, body, stated):
    assert book(target_order="label_then_rationale").parse(written) == ParsedRationale(body, stated)


def test_a_text_that_begins_with_its_class_keeps_its_reasons():
    assert book().parse("Classification: push\nHe pushes.") == ParsedRationale("He pushes.", "Push")
    assert book().parse("**Classification:** push\n\nHe pushes.\nClassification: push up") == ParsedRationale(
        "He pushes.", "PushUp"
    )
    assert book().parse("Classification: push") == ParsedRationale("", "Push")
    assert book().parse("classification: push, because he pushes") == ParsedRationale("because he pushes", "Push")


def test_letters_that_change_length_in_small_print_do_not_shift_the_cut():
    written = "İstanbul, straße.\nClassification: horse riding"
    assert book().parse(written) == ParsedRationale("İstanbul, straße.", "HorseRiding")


def test_classes_that_would_be_written_alike_are_refused():
    with pytest.raises(DataError, match=r"'PushUp' reads the same as 'Push'.*label_texts"):
        book(label_texts={"PushUp": "push"})
    with pytest.raises(DataError, match="'PushUp' reads the same as 'Push'"):
        book(label_texts={"PushUp": "PUSH"})


@pytest.mark.parametrize("key", ["label_texts", "criteria"])
def test_texts_of_unknown_classes_are_refused(key):
    with pytest.raises(DataError, match=rf"model\.prompts\.{key} names 'Pushup'.*classes: Push, PushUp, HorseRiding\)"):
        book(**{key: {"Pushup": "x"}})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"label_question": "Which of {label}?"},
            r"label_question: unknown placeholder \{label\}.*\{criteria\}, \{labels",
        ),
        ({"rationale_question": "It is {label}"}, r"rationale_question: unknown placeholder \{label\}"),
        ({"hinted_question": "Why {labels}?"}, r"hinted_question: .* lacks the placeholder \{label\}"),
        ({"hinted_question": "{label} {lables}"}, r"hinted_question: unknown placeholder \{lables\}"),
        ({"conclusion": "Done."}, r"conclusion: .* lacks the placeholder \{label\}"),
        ({"conclusion": "{label} it is"}, r"conclusion: .* must be some words and then \{label\} at the end"),
        ({"conclusion": "{label}"}, r"conclusion: .* must be some words"),
        ({"conclusion": " {label}"}, r"conclusion: .* must be some words"),
        # what YAML makes of `no: ...` and `null: ...`
        ({"label_texts": {False: "none", None: "x"}}, r"label_texts: a class is named False, .* its name in quotes"),
        ({"criteria": {2.5: "half"}}, r"criteria: a class is named 2\.5, .* its name in quotes"),
        ({"label_texts": {"Push": " "}}, r"label_texts: the class 'Push' would be written as nothing"),
    ],
)
def test_wrong_templates_are_named_by_key(settings, message):
    with pytest.raises(ConfigError, match=rf"^model\.prompts\.{message}"):
        Prompts(**settings)


def test_the_judge_reads_the_rationale_without_a_video():
    asked = book(judge_question="{rationale} - {labels}?", system="Be brief.").judge_prompt("He {labels} runs")
    assert asked.question == "He {labels} runs - push, push up, horse riding?"
    assert (asked.video, asked.system) == (False, "Be brief.")
    assert "{" not in book().judge_prompt("He runs.").question
    with pytest.raises(ConfigError, match=r"model\.prompts\.judge_question: .* lacks the placeholder \{rationale\}"):
        Prompts(judge_question="Which of {labels}?")


@pytest.mark.parametrize("hint", ["blind", "hint_stripped", "hint_kept"])
def test_the_blind_question_never_names_the_answer(hint):
    asked = book(hint=hint, hinted_question="It is {label}.", rationale_question="Why?").blind_prompt()
    assert asked.question == "Why?"


@pytest.mark.parametrize("label", ["Stürze", "Stu\u0308rze"])
@pytest.mark.parametrize("written", ["Stürze", "Stu\u0308rze"])
def test_a_class_is_read_however_its_accents_are_written(label, written):
    labels = LabelSet(("Sturz", label))
    for made in (book(labels), book(labels, label_texts={label: label})):
        assert made.parse(f"a man\nClassification: {written}.") == ParsedRationale("a man", label)
