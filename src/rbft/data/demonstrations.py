"""Labelled videos as text in the question: their descriptions with their classes, for a model that is not trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from rbft.data.prompt_templates import PromptBook
from rbft.errors import ConfigError, DataError
from rbft.vlm.prompt import Prompt, check_template, fill


@dataclass(frozen=True)
class Demonstrations:
    """How labelled videos are told of in the question (in-context learning, Brown et al., arXiv 2005.14165).

    Args:
        per_class: most labelled videos of each class that are told of; None: all.
        question: template of the whole question: `{demonstrations}` are the descriptions with their classes, and
            `{question}` is the label question or the rationale question.
        separator: text between two demonstrations.
    """

    per_class: int | None = None
    question: str = "Other videos were described and classified like this:\n\n{demonstrations}\n\n{question}"
    separator: str = "\n\n"

    def __post_init__(self) -> None:
        if self.per_class is not None and self.per_class < 1:
            raise ConfigError(f"model.demonstrations.per_class: {self.per_class} must be at least 1, or null for all.")
        fields = frozenset({"demonstrations", "question"})
        check_template("model.demonstrations.question", self.question, set(fields), fields)

    def most(self, videos: Sequence[str]) -> int:
        """The number of demonstrations that labelled videos give at most.

        Args:
            videos: the class of each.
        """
        counts = [videos.count(name) for name in dict.fromkeys(videos)]
        return sum(count if self.per_class is None else min(count, self.per_class) for count in counts)


class DemonstratedBook(PromptBook):
    """The prompts of an experiment with demonstrations in every question about a video.

    The first video of each class comes first, in the order of the classes, then the second of each, and so on: no class
    stands at the end alone, which a model would favour (Zhao et al., arXiv 2102.09690).

    Args:
        book: prompts of the experiment.
        texts: description and class of each labelled video that may be told of; a video may have no second one.
        settings: how they are told of.

    Raises:
        DataError: There is nothing to tell.
    """

    def __init__(self, book: PromptBook, texts: Sequence[tuple[str, str]], settings: Demonstrations) -> None:
        super().__init__(book.prompts, book.labels)
        by_class = {name: [text for text, label in texts if label == name] for name in book.labels.names}
        if not texts:
            raise DataError("there is no description of a labelled video to put into the question.")
        rounds = range(min(settings.per_class or len(texts), len(texts)))
        self.told = [
            book.concluded(own[number], name)
            for number in rounds
            for name, own in by_class.items()
            if number < len(own)
        ]
        self._settings = settings

    def label_prompt(self) -> Prompt:
        """The question that is answered by a class, after the demonstrations."""
        return self._behind(super().label_prompt())

    def blind_prompt(self) -> Prompt:
        """The question for a rationale that does not name the answer, after the demonstrations."""
        return self._behind(super().blind_prompt())

    def argued_prompt(self, label: str) -> Prompt:
        """The question for a rationale that argues for a class, after the demonstrations."""
        return self._behind(super().argued_prompt(label))

    def _behind(self, prompt: Prompt) -> Prompt:
        values = {"demonstrations": self._settings.separator.join(self.told), "question": prompt.question}
        return replace(prompt, question=fill(self._settings.question, values))
