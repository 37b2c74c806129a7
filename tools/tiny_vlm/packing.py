"""Turns as token ids: several conversations about a clip in one row."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers import PreTrainedTokenizerFast

from rbft.worlds.scenes import NUM_STEPS
from tools.tiny_vlm.conversations import Turn
from tools.tiny_vlm.fast_forward import Packed
from tools.tiny_vlm.tokenizer import ASSISTANT, EOS, PAD, SYSTEM, USER, VIDEO, VISION_END, VISION_START

IGNORE = -100
VISUAL_TOKENS = NUM_STEPS // 2


class Packer:
    """Writes turns as the chat template would, word by word and from memory.

    Args:
        tokenizer: The built-in model's tokenizer, for which the ids of a text are those of its words.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self._tokenizer = tokenizer
        self._words: dict[str, list[int]] = {}
        self._special = tokenizer.get_vocab()

    def ids(self, text: str) -> list[int]:
        """Token ids of plain text."""
        found: list[int] = []
        for word in text.split():
            if word not in self._words:
                self._words[word] = self._tokenizer(word, add_special_tokens=False)["input_ids"]
            found += self._words[word]
        return found

    def pack(self, conversations: Sequence[Sequence[Turn]], budget: int = 96, system: str | None = None) -> Packed:
        """Packs the turns of B clips.

        Args:
            conversations: The turns about each clip; those that no longer fit are left out, the first never.
            budget: Tokens of turns in a row.
            system: Text of a system turn before everything.
        """
        special = self._special
        opening = [special[USER]]
        if system is not None:
            opening = [special[SYSTEM], *self.ids(system), special[EOS], *opening]
        visual = [special[VISION_START], *[special[VIDEO]] * VISUAL_TOKENS, special[VISION_END]]
        start = len(opening)
        # One position for all visual tokens, and one each for the tokens around them.
        head_positions = [*range(start), start, *[start + 1] * VISUAL_TOKENS, start + 2]
        head_group = [0] * start + [1] * len(visual)
        rows = []
        for turns in conversations:
            ids, labels = opening + visual, [IGNORE] * (start + len(visual))
            positions, group, sees = list(head_positions), list(head_group), [False] * len(head_group)
            for number, turn in enumerate(turns):
                question = [*self.ids(turn.question), special[EOS], special[ASSISTANT]]
                answer, learned = [], []
                for text, is_learned in turn.answer:
                    piece = self.ids(text)
                    answer += piece
                    learned += piece if is_learned else [IGNORE] * len(piece)
                length = len(question) + len(answer) + 1
                if number > 0 and len(ids) - len(head_group) + length > budget:
                    continue
                ids += [*question, *answer, special[EOS]]
                # Each position is labelled with the token after it: the opening of the answer predicts its first word.
                labels += [IGNORE] * (len(question) - 1) + [*learned, special[EOS], IGNORE]
                first = start + 3 if turn.video else start
                positions += range(first, first + length)
                group += [number + 2] * length
                sees += [turn.video] * length
            rows.append((ids, labels, positions, group, sees))
        width = max(len(row[0]) for row in rows)

        def column(index: int, fill: int) -> torch.Tensor:
            return torch.tensor([[*row[index], *[fill] * (width - len(row[index]))] for row in rows])

        return Packed(
            ids=column(0, special[PAD]),
            labels=column(1, IGNORE),
            positions=column(2, 0),
            group=column(3, -1),
            sees_video=column(4, False),
            video_start=start + 1,
        )
