"""The wording of every question and answer of an experiment, and the texts built from it."""

from __future__ import annotations

import re
import unicodedata
import zlib
from dataclasses import dataclass, field
from typing import Literal

from rbft.data.labels import LabelSet, require_apart, spoken
from rbft.errors import ConfigError, DataError
from rbft.vlm.prompt import Prompt, check_template, fill

HintPolicy = Literal["blind", "hint_stripped", "hint_kept", "blind_then_hint"]
TargetOrder = Literal["rationale", "rationale_then_label", "label_then_rationale"]

_SHARED = {"labels", "criteria"}


@dataclass(frozen=True)
class Prompts:
    """Templates of an experiment. `{labels}` is the list of classes, `{criteria}` their definitions.

    Args:
        label_question: Asked to classify (classification and test stages).
        rationale_question: Asked for a rationale without naming the answer.
        hinted_question: Asked for a rationale of a known answer; must name `{label}` (RB-FT section 3, stage I).
        argued_question: Asked for a rationale under the assumption of a class, `{label}`, which may be wrong; None: the
            hinted question. For `model.answering.mode: argued`.
        conclusion: The sentence that states the class; must end in `{label}`.
        separator: What stands between rationale and conclusion.
        judge_question: Asked without the video: which class does a `{rationale}` argue for? For checks.
        system: System turn of every prompt; None leaves it to the model's chat template.
        label_texts: How a class is written in prompts and answers, where the readable form of its name is not right.
        criteria: What makes a video belong to a class, by class name.
        hint: Whether the label is given when a rationale is written, and whether it stays in the training prompt:
            `blind` never given; `hint_stripped` given to write, removed from the prompt that is trained on;
            `hint_kept` given and kept, as the authors of RB-FT did; `blind_then_hint` not given at first, and given
            where no text so written states the right class and is kept (rationalisation, STaR, arXiv 2203.14465),
            removed from the prompt that is trained on.
        target_order: What stage 1 learns to answer: the rationale alone, the rationale and then the class, or the
            class and then the rationale.
    """

    label_question: str = "Which of these classes does the video show: {labels}? Answer with the class only."
    rationale_question: str = (
        "The video shows one of these classes: {labels}. Describe in detail what happens in it, name the evidence for "
        "and against each class that comes into question, and end with a last line 'Classification: ' and the class."
    )
    hinted_question: str = (
        "The video shows one of these classes: {labels}. It is known to show: {label}. Describe in detail what "
        "happens in it and which visible evidence makes it that class, and end with a last line 'Classification: ' "
        "and the class."
    )
    argued_question: str | None = None
    conclusion: str = "Classification: {label}"
    separator: str = "\n"
    judge_question: str = (
        "Somebody watched a video and wrote:\n{rationale}\n\nWhich of these classes does that text describe best: "
        "{labels}? Answer with the class only."
    )
    system: str | None = None
    label_texts: dict[str, str] = field(default_factory=dict)
    criteria: dict[str, str] = field(default_factory=dict)
    hint: HintPolicy = "hint_stripped"
    target_order: TargetOrder = "rationale_then_label"

    def __post_init__(self) -> None:
        check_template("model.prompts.label_question", self.label_question, _SHARED)
        check_template("model.prompts.rationale_question", self.rationale_question, _SHARED)
        label = frozenset({"label"})
        check_template("model.prompts.hinted_question", self.hinted_question, _SHARED | label, label)
        if self.argued_question is not None:
            check_template("model.prompts.argued_question", self.argued_question, _SHARED | label, label)
        check_template("model.prompts.conclusion", self.conclusion, {"label"}, label)
        rationale = frozenset({"rationale"})
        check_template("model.prompts.judge_question", self.judge_question, _SHARED | rationale, rationale)
        if not self.conclusion.endswith("{label}") or self.conclusion.strip() == "{label}":
            raise ConfigError(
                f"model.prompts.conclusion: {self.conclusion!r} must be some words and then {{label}} at the end, "
                "so that the class a rationale states can be read back."
            )
        for key, mapping in (("label_texts", self.label_texts), ("criteria", self.criteria)):
            for name in mapping:
                if not isinstance(name, str):
                    raise ConfigError(
                        f"model.prompts.{key}: a class is named {name!r}, which YAML reads as something else than a "
                        "text; write its name in quotes."
                    )
        for name, text in self.label_texts.items():
            if not text.strip():
                raise ConfigError(
                    f"model.prompts.label_texts: the class {name!r} would be written as nothing, which is a part of "
                    "every answer; give it a text, or leave it out."
                )


@dataclass(frozen=True)
class ParsedRationale:
    """A written text, split: the body without its conclusion, and the class it states (None if none)."""

    body: str
    stated: str | None


class PromptBook:
    """The prompts of an experiment for one label set: every text that reaches the model is made here.

    Args:
        prompts: The templates.
        labels: The classes.

    Raises:
        DataError: Two classes are written the same way, or a key names no class.
    """

    def __init__(self, prompts: Prompts, labels: LabelSet) -> None:
        self.prompts = prompts
        self.labels = labels
        for key, mapping in (("label_texts", prompts.label_texts), ("criteria", prompts.criteria)):
            if unknown := sorted(set(mapping) - set(labels.names)):
                raise DataError(
                    f"model.prompts.{key} names {unknown[0]!r}, which is no class of the data set "
                    f"(classes: {', '.join(labels.names[:10])}{', ...' if len(labels.names) > 10 else ''})."
                )
        require_apart(labels.names, prompts.label_texts)
        self.texts: tuple[str, ...] = tuple(prompts.label_texts.get(name, spoken(name)) for name in labels.names)
        self._shared = {
            "labels": ", ".join(self.texts),
            "criteria": "\n".join(
                f"{text}: {prompts.criteria[name]}"
                for name, text in zip(labels.names, self.texts, strict=True)
                if name in prompts.criteria
            ),
        }
        self._leads = re.compile(re.escape(fill(prompts.conclusion, {"label": ""}).strip()), re.IGNORECASE)

    def text(self, label: str) -> str:
        """How the class is written in prompts and answers."""
        return self.texts[self.labels.index(label)]

    def label_prompt(self) -> Prompt:
        """The question that is answered by a class."""
        return Prompt(fill(self.prompts.label_question, self._shared), self.prompts.system)

    def blind_prompt(self) -> Prompt:
        """The question for a rationale that does not name the answer."""
        return Prompt(fill(self.prompts.rationale_question, self._shared), self.prompts.system)

    def argued_prompt(self, label: str) -> Prompt:
        """The question for a rationale that argues for a class, whether it is the video's or not."""
        if self.prompts.argued_question is None:
            return self._hinted(label)
        values = {**self._shared, "label": self.text(label)}
        return Prompt(fill(self.prompts.argued_question, values), self.prompts.system)

    def judge_prompt(self, rationale: str) -> Prompt:
        """The question, without a video, which class a rationale argues for."""
        question = fill(self.prompts.judge_question, {**self._shared, "rationale": rationale})
        return Prompt(question, self.prompts.system, video=False)

    @property
    def hinted_as(self) -> HintPolicy:
        """The policy that a rationale is written under where its label was given."""
        return "hint_kept" if self.prompts.hint == "hint_kept" else "hint_stripped"

    def writing_prompt(self, label: str, *, hinted: bool | None = None) -> Prompt:
        """The question a rationale is written for.

        Args:
            label: The video's class; not looked at where it is not given.
            hinted: Whether it is given; None: as the policy begins.
        """
        given = self.prompts.hint in ("hint_stripped", "hint_kept") if hinted is None else hinted
        return self._hinted(label) if given else self.blind_prompt()

    def contrast_prompt(self, video: str, label: str) -> Prompt:
        """The question for a rationale of a class that a video is not of; which one, follows from its id.

        Args:
            video: The video's id.
            label: Its class.
        """
        others = [name for name in self.labels.names if name != label]
        return self._hinted(others[zlib.crc32(video.encode()) % len(others)])

    def hinted_to(self, prompt: Prompt, label: str) -> str:
        """The class that a question names where it is another one than `label`; else empty."""
        if prompt in (self.blind_prompt(), self._hinted(label) if label else None):
            return ""
        return next((name for name in self.labels.names if self._hinted(name) == prompt), "")

    def training_prompt(self, label: str, *, labelled: bool = True) -> Prompt:
        """The question stage 1 trains on; names the label only under `hint_kept`, and never an unlabelled video's."""
        return self._hinted(label) if labelled and self.prompts.hint == "hint_kept" else self.blind_prompt()

    def rationale_target(self, body: str, label: str) -> str:
        """The answer stage 1 learns for a rationale."""
        if self.prompts.target_order == "rationale":
            return body
        if self.prompts.target_order == "label_then_rationale" and body:
            return f"{self._conclusion(label)}{self.prompts.separator}{body}"
        return self.concluded(body, label)

    def concluded(self, body: str, label: str) -> str:
        """A rationale with the sentence that states a class after it."""
        return f"{body}{self.prompts.separator}{self._conclusion(label)}" if body else self._conclusion(label)

    def parse(self, written: str) -> ParsedRationale:
        """Split a written text: what stands before its first conclusion, and the last class that one names.

        A text that begins with its conclusion has its body after it.
        """
        places = list(self._leads.finditer(written))
        if not places:
            return ParsedRationale(written.strip(), None)
        named = [name for place in places if (name := self._match(written[place.end() :])) is not None]
        stated = named[-1] if named else None
        if not self.begins_with_class(written):
            return ParsedRationale(written[: places[0].start()].strip(), stated)
        end = places[1].start() if len(places) > 1 else len(written)
        return ParsedRationale(self._after_class(written[places[0].end() : end]), stated)

    def begins_with_class(self, written: str) -> bool:
        """Whether a text states its class before its reasons."""
        place = self._leads.search(written)
        # a heading or bold type may stand before it
        return place is not None and re.search(r"[^\W_]", written[: place.start()]) is None

    def _conclusion(self, label: str) -> str:
        return fill(self.prompts.conclusion, {"label": self.text(label)})

    def _after_class(self, tail: str) -> str:
        """What follows the class that opens `tail`; where it names none, what follows its first line."""
        longest = sorted(self.texts, key=len, reverse=True)
        named = re.match(rf"[\W_]*(?:{'|'.join(map(re.escape, longest))})(?!\w)", tail, re.IGNORECASE)
        rest = tail[named.end() :] if named is not None else tail.partition("\n")[2]
        # what is left of bold type, quotes or a full stop after the class
        return re.sub(r"^[.,;:!*_\"'”’)\]]*\s*(?:[.,;:]\s+)?", "", rest).strip()

    def _match(self, tail: str) -> str | None:
        """The class whose text opens `tail`; the longest wins where one is a prefix of another."""
        # an accent may be written as a character of its own
        opening = unicodedata.normalize("NFC", tail).casefold()
        fits = [
            (len(text), name)
            for name, text in zip(self.labels.names, self.texts, strict=True)
            # decoration may stand before it, and a sign that is its own
            if re.match(rf"[\W_]*?{re.escape(unicodedata.normalize('NFC', text).casefold())}(?!\w)", opening)
        ]
        return max(fits)[1] if fits else None

    def _hinted(self, label: str) -> Prompt:
        values = {**self._shared, "label": self.text(label)}
        return Prompt(fill(self.prompts.hinted_question, values), self.prompts.system)
