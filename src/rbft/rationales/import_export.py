"""Rationales to and from the conversation files that other fine-tuning tools read."""

from __future__ import annotations

import dataclasses
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rbft.data.formats.rows import Row, read_json_objects
from rbft.data.labels import SPECIAL_TOKEN, LabelSet
from rbft.data.prompt_templates import PromptBook, Prompts
from rbft.data.records import relative_path
from rbft.errors import DataError
from rbft.files import archive, write_json, write_jsonl
from rbft.rationales.conversations import Conversation, concluded, read_conversation, stated
from rbft.rationales.conversations import label_key as find_label_key
from rbft.rationales.store import Rationale, parse_rationale, prompt_hash
from rbft.vlm.prompt import Prompt

Format = Literal["llava", "sharegpt", "messages"]

MAX_FILE_BYTES = 1 << 30
MAX_ROWS = 1_000_000
MAX_CHARACTERS = 50_000
"""A rationale longer than this is no rationale."""

_OURS = "rbft"
"""Key of exported rows that holds what the conversation has no place for."""
IMPORTED = "imported"
"""Hint policy of rationales whose prompt is not known to be one of ours."""


@dataclass(frozen=True)
class RationaleFile:
    """What a file holds, whatever its format.

    Args:
        rationales: all rationales, in the order of the file.
        questions: question before each in training; None where the file does not say.
        labels_stated_apart: Whether each row names its class apart from what the answer says.
        book: The prompts, with the classes of the file.
    """

    rationales: tuple[Rationale, ...]
    questions: tuple[str | None, ...]
    labels_stated_apart: bool
    book: PromptBook


def read_rationale_file(
    path: Path,
    prompts: Prompts | None = None,
    *,
    label_key: str | None = None,
    conclusion: str | None = None,
    run_prompts: Prompts | None = None,
) -> RationaleFile:
    """Read our `rationales.jsonl`, or conversations in the formats of LLaVA, LLaMA-Factory and ms-swift.

    Args:
        path: A .jsonl file, or a .json list.
        prompts: Those the rationales were written for, if known.
        label_key: Key of a conversation's row that names the class; by default `label`, `ground_truth` or `answer`
            where all rows have it, else the class is what the answer concludes.
        conclusion: The words before the class in a conversation's answer; by default those of the prompts.
        run_prompts: Those of the run that the rationales are for. Conversations that this module wrote are taken to
            be worded so where `prompts` are not known; other tools' are not.

    Raises:
        DataError: The file is missing, too large, or a row is not understood; names the row.
    """
    if not path.is_file():
        raise DataError(f"{path} does not exist.")
    if path.stat().st_size > MAX_FILE_BYTES:
        raise DataError(f"{path} is larger than {MAX_FILE_BYTES >> 20} MiB; split it.")
    rows = read_json_objects(path, wrapped=True)
    if not rows or len(rows) > MAX_ROWS:
        raise DataError(f"{path} holds {len(rows)} rows; between 1 and {MAX_ROWS} are understood.")
    if "prompt_hash" in rows[0].cells:
        return _own(rows, prompts)
    if all(isinstance(row.cells.get(_OURS), dict) for row in rows):
        return _exported(rows, prompts if prompts is not None else run_prompts, conclusion)
    return _foreign(path, rows, prompts, label_key, conclusion)


def _own(rows: Sequence[Row], prompts: Prompts | None) -> RationaleFile:
    parsed = (parse_rationale(row.where, row.cells) for row in rows)
    # of an unlabelled video a text that states no class is of none
    rationales = tuple(rationale for rationale in parsed if rationale.label or rationale.labelled)
    book = _book(prompts, sorted({rationale.label for rationale in rationales}))
    asked = (book.training_prompt(r.label, labelled=r.labelled).question for r in rationales)
    questions = [None if prompts is None else question for question in asked]
    return RationaleFile(rationales, tuple(questions), True, book)


def _book(prompts: Prompts | None, names: Sequence[str]) -> PromptBook:
    """The prompts for the classes that occur; what they say of others is left out."""
    prompts = prompts if prompts is not None else Prompts()
    texts, criteria = (
        {name: text for name, text in every.items() if name in names}
        for every in (prompts.label_texts, prompts.criteria)
    )
    return PromptBook(dataclasses.replace(prompts, label_texts=texts, criteria=criteria), LabelSet(tuple(names)))


def _lead(prompts: Prompts | None, conclusion: str | None) -> str:
    """The words before the class in an answer."""
    if conclusion is not None:
        return conclusion.strip()
    return (prompts if prompts is not None else Prompts()).conclusion.removesuffix("{label}").strip()


def _foreign(
    path: Path, rows: Sequence[Row], prompts: Prompts | None, label_key: str | None, conclusion: str | None
) -> RationaleFile:
    lead = _lead(prompts, conclusion)
    talks = [read_conversation(row, lead) for row in rows]
    key = label_key if label_key is not None else find_label_key(list(rows))
    own_words = prompts is None
    if prompts is None:
        prompts = Prompts(conclusion=f"{lead} {{label}}")
    given = [stated(talk.row.filled(key)) if key is not None else concluded(talk, lead) for talk in talks]
    names = _one_spelling(given)
    if own_words:
        # classes are written as the file writes them
        prompts = dataclasses.replace(prompts, label_texts={name: name for name in names.values()})
    book = _book(prompts, sorted(names.values()))
    reading = _concluding(book, conclusion)
    seen: Counter[str] = Counter()
    rationales = []
    for talk, name in zip(talks, given, strict=True):
        id = str(talk.row.cells.get("id", talk.video))
        parsed = reading.parse(talk.answer)
        # what is left of bold type or a heading around the conclusion
        text = parsed.body.rstrip(" *_#\n")
        rationales.append(
            Rationale(
                id=id,
                sample=seen[id],
                video=talk.video,
                label=names[name.casefold()],
                prompt_hash=prompt_hash(Prompt(talk.question, talk.system)),
                hint=IMPORTED,
                model=f"{IMPORTED} from {path.name}",
                text=text,
                stated=parsed.stated,
                written=talk.answer.strip(),
                truncated=False,
                kept=bool(text),
                reason="" if text else "empty",
            )
        )
        seen[id] += 1
    return RationaleFile(tuple(rationales), tuple(talk.question for talk in talks), key is not None, book)


def _concluding(book: PromptBook, conclusion: str | None) -> PromptBook:
    """The prompts with other words before the class, where some are given."""
    if conclusion is None:
        return book
    return PromptBook(dataclasses.replace(book.prompts, conclusion=f"{conclusion.strip()} {{label}}"), book.labels)


def _exported(rows: Sequence[Row], prompts: Prompts | None, conclusion: str | None) -> RationaleFile:
    """Rows that this module wrote; an answer that was edited since counts as it is now, its class included."""
    lead = _lead(prompts, conclusion)
    talks = [read_conversation(row, lead) for row in rows]
    rationales = []
    for talk in talks:
        cells = dict(talk.row.cells[_OURS])
        answer = cells.pop("answer", None)
        rationales.append((parse_rationale(talk.row.where, cells), answer))
    book = _book(prompts, sorted({rationale.label for rationale, _ in rationales}))
    reading = _concluding(book, conclusion)
    taken = []
    for (rationale, answer), talk in zip(rationales, talks, strict=True):
        if talk.answer != answer:
            _require_worded_so(rationale, answer, reading, talk)
            rationale = _edited(rationale, reading, talk, lead)
        taken.append(rationale)
    return RationaleFile(tuple(taken), tuple(talk.question for talk in talks), True, book)


def _require_worded_so(rationale: Rationale, answer: object, book: PromptBook, talk: Conversation) -> None:
    """Refuse an answer whose conclusion would be taken for a part of its text."""
    if not isinstance(answer, str) or answer == rationale.text or book.parse(answer).stated == rationale.label:
        return
    raise DataError(
        f"{talk.row.where}: this answer was edited, and where its conclusion begins is not known: it was exported as "
        f"{answer[-60:]!r}, not with {book.concluded('', rationale.label)!r}. Name the "
        "experiment file that it was exported with by --config."
    )


def _edited(rationale: Rationale, book: PromptBook, talk: Conversation, lead: str) -> Rationale:
    """A rationale as an answer says it now; of the class that the answer concludes with, where it does."""
    parsed = book.parse(talk.answer)
    label = parsed.stated
    if label is None and lead.casefold() in talk.answer.casefold():
        # a class as a table names it, or none of the file
        named = concluded(talk, lead)
        label = next((name for name in book.labels.names if name.casefold() == named.casefold()), named)
    return dataclasses.replace(
        rationale,
        label=rationale.label if label is None else label,
        text=parsed.body,
        stated=label,
        written=talk.answer,
        truncated=False,
        scores={},
        kept=rationale.kept and bool(parsed.body),
        reason=rationale.reason if parsed.body else "empty",
    )


def _one_spelling(names: Sequence[str]) -> dict[str, str]:
    """The commonest spelling of each class, by its case-folded form: files write Normal and normal."""
    spellings: dict[str, str] = {}
    for name, _ in Counter(names).most_common():
        spellings.setdefault(name.casefold(), name)
    return spellings


def refuse_untrusted(rationales: Sequence[Rationale], where: str) -> None:
    """Refuse texts and paths that must not reach a model, a terminal or the file system.

    Raises:
        DataError: Names the first such rationale and what is wrong with it.
    """
    for number, rationale in enumerate(rationales, start=1):
        here = f"{where}, rationale {number} (of {rationale.id!r})"
        relative_path(rationale.video, here)
        for text in (rationale.text, rationale.written, rationale.id, rationale.label):
            if len(text) > MAX_CHARACTERS:
                raise DataError(f"{here}: a text of {len(text)} characters; at most {MAX_CHARACTERS} are read.")
            if match := SPECIAL_TOKEN.search(text):
                raise DataError(
                    f"{here}: it holds {match.group()!r}, which a model could take for a control token. Take it out."
                )
            if any(char not in "\n\t" and unicodedata.category(char) in ("Cc", "Cs") for char in text):
                raise DataError(f"{here}: it holds a control character; remove it.")
        if rationale.weight < 0 or not all(0 <= value <= 1 for value in rationale.scores.values()):
            raise DataError(f"{here}: weights are not negative, and scores lie in [0, 1].")


def write_rationale_file(path: Path, rationales: Sequence[Rationale]) -> Path | None:
    """Write our own format; an existing file is archived, and its new name returned."""
    old = archive(path)
    write_jsonl(path, [dataclasses.asdict(rationale) for rationale in rationales])
    return old


def export_conversations(path: Path, rationales: Sequence[Rationale], book: PromptBook, format: Format) -> Path | None:
    """Write what stage 1 trains on as conversations; an existing file is archived.

    Each row also has the key `rbft` with all that is known of the rationale: read back, it is the same. The tools named
    ignore keys they do not know.

    Args:
        path: path of the .json or .jsonl file.
        rationales: rationales to write.
        book: The prompts stage 1 asks with.
        format: `llava`, `sharegpt` (LLaMA-Factory) or `messages` (ms-swift).

    Returns:
        The new name of a file that stood there.
    """
    rows = [_row(rationale, book, format) for rationale in rationales]
    old = archive(path)
    if path.suffix == ".jsonl":
        write_jsonl(path, rows)
    else:
        write_json(path, rows)
    return old


def _row(rationale: Rationale, book: PromptBook, format: Format) -> dict[str, Any]:
    prompt = book.training_prompt(rationale.label, labelled=rationale.labelled)
    answer = book.rationale_target(rationale.text, rationale.label)
    roles = ("system", "user", "assistant") if format == "messages" else ("system", "human", "gpt")
    keys = ("role", "content") if format == "messages" else ("from", "value")
    said = zip(roles, (prompt.system, f"<video>\n{prompt.question}", answer), strict=True)
    turns = [dict(zip(keys, turn, strict=True)) for turn in said if turn[1] is not None]
    own = {_OURS: dataclasses.asdict(rationale) | {"answer": answer}}
    if format == "llava":
        return {"id": rationale.id, "video": rationale.video, "conversations": turns, **own}
    return {"messages" if format == "messages" else "conversations": turns, "videos": [rationale.video], **own}
