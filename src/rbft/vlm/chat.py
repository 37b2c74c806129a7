"""Conversations as a model was trained to read them: its chat template, its special tokens, and where answers end."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from rbft.errors import ConfigError, ModelError
from rbft.vlm.prompt import Plain, Prompt

# what is put between brackets as one token is no text, whatever the tokenizer says of it
_MARK = re.compile(r"<[^<>\s]+>|\[[^\[\]\s]+\]")
_THOUGHT = re.compile(r"<\|?(/?)(think|thinking|thought|reasoning)\|?>")


class Chat:
    """The text side of a model's processor.

    Args:
        processor: The model's.
        end_ids: Tokens at which an answer ends.
        template: Arguments of its chat template, by name.

    Attributes:
        special_tokens: Texts that would be read as something else than text.
        special_ids: Tokens that are none.
        pad_id: Token that fills rows up.
    """

    def __init__(self, processor: Any, end_ids: tuple[int, ...], template: Mapping[str, Plain]) -> None:
        self._processor, self.end_ids, self._template = processor, end_ids, dict(template)
        tokenizer = processor.tokenizer
        special = dict(zip(tokenizer.all_special_ids, map(str, tokenizer.all_special_tokens), strict=True))
        # tokens that are special without a role of their own stand only here; thoughts, calls of tools and gaps to
        # fill are marked by tokens that are not said to be special, and are so all the same
        added = tokenizer.added_tokens_decoder.items()
        special |= {number: str(token) for number, token in added if token.special or _MARK.fullmatch(str(token))}
        # what a processor puts pictures in the place of need be no token at all (SmolVLM's <video>)
        places = {getattr(processor, f"{kind}_token", None) for kind in ("video", "image")} - {None}
        self.special_tokens: tuple[str, ...] = tuple(sorted({*special.values(), *map(str, places)}))
        self.special_ids: tuple[int, ...] = tuple(sorted(special))
        self.pad_id: int = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id

    def check_plain(self, text: str, what: str) -> None:
        """Refuse text from data or configuration that would be read as a special token.

        Raises:
            ConfigError: Names the text and the token.
        """
        for token in self.special_tokens:
            if token in text:
                raise ConfigError(f"{what}: {text[:80]!r} contains {token!r}, a special token of the model; reword it.")

    def render(self, prompt: Prompt, answer: str | None = None) -> str:
        """The conversation as one string; without an answer it ends where the model starts to write."""
        self.check_plain(prompt.question, "prompt")
        if prompt.system is not None:
            self.check_plain(prompt.system, "system")
        if answer is not None:
            self.check_plain(answer, "answer")
        # the template is passed by name because SmolVLM's processor otherwise swaps in another one for video
        try:
            text: str = self._processor.apply_chat_template(
                prompt.messages(answer),
                tokenize=False,
                add_generation_prompt=answer is None,
                chat_template=self._processor.chat_template,
                **self._template,
            )
        except Exception as error:  # a template is code of the model's authors, and fails as any code does
            raise ModelError(f"the model's chat template cannot render a conversation: {error}") from error
        if answer is None and (marks := _THOUGHT.findall(text)) and not marks[-1][0]:
            raise ModelError(
                f"the model's chat template opens a thought (<{marks[-1][1]}>), in which answers would stand. Set "
                "model.template_arguments as its authors say, mostly {enable_thinking: false}, or choose a model that "
                "answers at once."
            )
        return text

    def target_ids(self, prompt: Prompt, answer: str) -> Tensor:
        """Token ids of an answer, up to and with its first end-of-turn token (T,), which need not be the template's.

        The template's text after the prompt is tokenised alone, so that a trained answer has the very tokens
        that generation would have to produce.

        Args:
            prompt: The question answered.
            answer: The answer.

        Raises:
            ModelError: The chat template leaves the answer out.
        """
        start, whole = self.render(prompt), self.render(prompt, answer)
        # some published templates (LLaVA-OneVision) put other white space before an answer than before a generated one
        begin = len(start) if whole.startswith(start) else whole.rfind(answer)
        if _THOUGHT.search(whole, begin):
            # an empty thought, put before an answer and not written by a model whose thoughts are not asked for
            begin = whole.rfind(answer)
        ids = self._processor.tokenizer(whole[begin:], add_special_tokens=False)["input_ids"] if begin >= 0 else []
        end = next((position for position, token in enumerate(ids) if token in self.end_ids), None)
        if end is not None:
            return torch.tensor(ids[: end + 1], dtype=torch.long)
        # templates without an end (Vicuna's) leave it to whoever trains
        close = whole.find(answer, begin) if begin >= 0 else -1
        if close < 0:
            raise ModelError("the model's chat template leaves answers out of a conversation.")
        ids = self._processor.tokenizer(whole[begin : close + len(answer)], add_special_tokens=False)["input_ids"]
        own = self._processor.tokenizer.eos_token_id
        return torch.tensor([*ids, own if own in self.end_ids else self.end_ids[0]], dtype=torch.long)

    def decode(self, ids: Tensor) -> str:
        """Text of generated ids; special tokens and control characters, which could drive a terminal, are left out."""
        text: str = self._processor.tokenizer.decode(ids, skip_special_tokens=True)
        return "".join(c for c in text if c == "\n" or unicodedata.category(c)[0] != "C").strip()
