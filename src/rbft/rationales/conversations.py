"""One conversation of another tool's file: its question, and its answer as reasons that end in a class."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from rbft.data.formats.rows import Row
from rbft.data.labels import MAX_LENGTH
from rbft.errors import DataError

LABEL_KEYS = ("label", "ground_truth", "answer")
"""Keys of a row that are taken to name its class, the first that all rows have as a short text."""

_ASKING, _ANSWERING = ("user", "human"), ("assistant", "gpt", "model", "bot")
_PLACEHOLDER = re.compile(r"\s*<(?:video|image)>\s*")
_THOUGHT = re.compile(r"<think(?:ing)?>(.*?)</think(?:ing)?>", re.DOTALL | re.IGNORECASE)
_ANSWER = re.compile(r"<answer>(.*?)</answer>", re.DOTALL | re.IGNORECASE)
_SAID = re.compile(r"</?answer>", re.IGNORECASE)
_BECAUSE = re.compile(r"\s*,?\s+(?:because|since|due to)\b", re.IGNORECASE)


@dataclass(frozen=True)
class Conversation:
    """A question about a video and what was answered.

    Args:
        row: where it stands.
        video: path of its video.
        question: the question, without what stands for the video.
        system: the system turn, if there is one.
        answer: the reasons, and after them the class where the answer names one.
    """

    row: Row
    video: str
    question: str
    system: str | None
    answer: str


def read_conversation(row: Row, lead: str) -> Conversation:
    """The last question of a row with its answer; an answer that is only a class has the reasons of earlier turns.

    Args:
        row: in the form of LLaVA, LLaMA-Factory or ms-swift; a turn is a text or a list of parts.
        lead: the words before the class in an answer.

    Raises:
        DataError: names the row and what is not understood.
    """
    turns = row.cells.get("messages", row.cells.get("conversations"))
    if not isinstance(turns, list) or not all(isinstance(turn, dict) for turn in turns):
        raise DataError(f"{row.where}: expected turns in 'messages' or 'conversations', found {str(turns)[:60]!r}.")
    said = [(turn.get("role", turn.get("from")), _text(turn, row.where)) for turn in turns]
    system = next((text for role, text in said if role == "system"), None)
    spoken = [(role, text) for role, text in said if role != "system"]
    if len(spoken) < 2 or spoken[-1][0] not in _ANSWERING or spoken[-2][0] not in _ASKING:
        raise DataError(
            f"{row.where}: the conversation must end in a question and its answer "
            f"(roles {', '.join(_ASKING)} and {', '.join(_ANSWERING)})."
        )
    video = row.cells.get("video", row.cells.get("videos"))
    if isinstance(video, list) and len(video) == 1:
        video = video[0]
    if not isinstance(video, str):
        raise DataError(f"{row.where}: expected one path in 'video' or 'videos', found {str(video)[:60]!r}.")
    question, answer = spoken[-2][1], _untagged(spoken[-1][1], lead)
    earlier = [_untagged(text, lead) for role, text in spoken[:-1] if role in _ANSWERING]
    if earlier and _is_class(_without_lead(answer, lead)):
        question = next(text for role, text in spoken if role in _ASKING)
        answer = "\n".join([*earlier, f"{lead} {_without_lead(answer, lead)}"])
    return Conversation(row, video, _PLACEHOLDER.sub(" ", question).strip(), system, answer)


def concluded(talk: Conversation, lead: str) -> str:
    """The class that stands after the last conclusion, on its line.

    Raises:
        DataError: there is none.
    """
    after = re.split(re.escape(lead), talk.answer, flags=re.IGNORECASE)[1:]
    line = _BECAUSE.split(after[-1].strip().split("\n")[0])[0] if after else ""
    conclusion = line.strip(" *_.\"'")
    if not conclusion or len(conclusion) > MAX_LENGTH:
        raise DataError(
            f"{talk.row.where}: the answer names no class after {lead!r}; set --conclusion to the words "
            f"before the class, or --label_key to the key that names it ({', '.join(talk.row.cells)})."
        )
    return conclusion


def label_key(rows: list[Row]) -> str | None:
    """The key that names the class of every row, apart from what the answers say; None if there is none."""
    for key in LABEL_KEYS:
        values = [row.cells.get(key) for row in rows]
        if key == "label" and key in rows[0].cells:
            return key
        names = [stated(value) for value in values if isinstance(value, str)]
        # a text of its own for each row is an answer and no class
        few = len({name.casefold() for name in names}) <= max(2, len(rows) // 2)
        if len(names) == len(rows) and few and all(map(_is_class, names)):
            return key
    return None


def stated(cell: str) -> str:
    """A class without the tags that it may stand in."""
    return _SAID.sub("", cell).strip()


def _text(turn: dict[str, Any], where: str) -> str:
    content = turn.get("content", turn.get("value"))
    if isinstance(content, list):
        parts = [part if isinstance(part, str) else part.get("text", "") for part in content if part]
        content = "\n".join(part for part in parts if part) if all(isinstance(part, str) for part in parts) else None
    if not isinstance(content, str):
        raise DataError(f"{where}: each turn must be a text, or a list of parts that are texts, videos or pictures.")
    return content


def _untagged(answer: str, lead: str) -> str:
    """Thoughts, and the class after them, without their tags: as reasons that end in a conclusion."""
    thoughts, said = _THOUGHT.findall(answer), _ANSWER.findall(answer)
    if not thoughts and not said:
        return answer
    parts = [*thoughts, stated(_ANSWER.sub("", _THOUGHT.sub("", answer))), *said]
    parts = [part.strip() for part in parts if part.strip()]
    if parts and (said or len(parts) > 1) and _is_class(parts[-1]) and lead.casefold() not in parts[-1].casefold():
        parts[-1] = f"{lead} {parts[-1]}"
    return "\n".join(parts)


def _without_lead(answer: str, lead: str) -> str:
    return re.sub(rf"^\W*{re.escape(lead)}", "", answer.strip(), flags=re.IGNORECASE).strip(" *_")


def _is_class(text: str) -> bool:
    return 0 < len(text) <= MAX_LENGTH and "\n" not in text
