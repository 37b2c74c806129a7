"""Tokenizer, processor and chat template of the built-in model: whole words, and single characters for the rest."""

from __future__ import annotations

import string
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import (
    PreTrainedTokenizerFast,
    Qwen2_5_VLProcessor,
    Qwen2VLImageProcessor,
    Qwen2VLVideoProcessor,
)

from rbft.worlds.language import vocabulary

PAD, EOS, UNKNOWN = "<pad>", "<eos>", "<unk>"
SYSTEM, USER, ASSISTANT = "<system>", "<user>", "<assistant>"
VISION_START, VISION_END, VIDEO, IMAGE = "<vision>", "</vision>", "<video>", "<image>"
SPECIAL_TOKENS = (PAD, EOS, UNKNOWN, SYSTEM, USER, ASSISTANT, VISION_START, VISION_END, VIDEO, IMAGE)

PATCH_SIZE, MERGE_SIZE, TEMPORAL_PATCH_SIZE = 16, 4, 2
FRAME_SIZE = PATCH_SIZE * MERGE_SIZE  # one visual token per pair of frames

# A tokenizer finds its special tokens in any text, also in what a user wrote. The template therefore writes every "<"
# of a message as this character, which the normaliser turns back after the special tokens have been cut out.
_ESCAPED_LESS_THAN = "\u2039"
_CHARACTERS = "".join(c for c in string.printable if not c.isspace() and not c.isupper())
_SENTENCE_MARKS = r"[.,:;?!]"

CHAT_TEMPLATE = """
{%- macro parts(content) -%}
  {%- if content is string -%}
    {{- content | replace("<", "LESS") -}}
  {%- else -%}
    {%- for part in content -%}
      {%- if part.type == "video" -%}<vision><video></vision>
      {%- elif part.type == "image" -%}<vision><image></vision>
      {%- elif part.type == "text" -%}{{- part.text | replace("<", "LESS") -}}
      {%- else -%}{{- raise_exception("unknown content type " ~ part.type ~ "; use video, image or text") -}}
      {%- endif -%}
    {%- endfor -%}
  {%- endif -%}
{%- endmacro -%}
{%- for message in messages -%}
  {%- if message.role == "assistant" -%}
    <assistant>{% generation %}{{ parts(message.content) }}<eos>{% endgeneration %}
  {%- elif message.role in ("system", "user") -%}
    <{{ message.role }}>{{ parts(message.content) }}<eos>
  {%- else -%}
    {{- raise_exception("unknown role " ~ message.role ~ "; use system, user or assistant") -}}
  {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}<assistant>{%- endif -%}
""".strip().replace("LESS", _ESCAPED_LESS_THAN)


def token_list() -> list[str]:
    """The vocabulary in the order of its ids: special tokens, words, characters, continuing characters."""
    words = [word for word in vocabulary() if word not in _CHARACTERS]
    return [*SPECIAL_TOKENS, *words, *_CHARACTERS, *(f"##{c}" for c in _CHARACTERS)]


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Builds the tokenizer.

    Text is lower-cased, accents are dropped, sentence marks stand alone, and a word outside the vocabulary is spelled
    in known pieces down to single characters: all of printable ASCII has ids, any other character is `<unk>`.
    """
    ids = {token: index for index, token in enumerate(token_list())}
    backend = Tokenizer(
        models.WordPiece(vocab=ids, unk_token=UNKNOWN, continuing_subword_prefix="##", max_input_chars_per_word=200)
    )
    backend.normalizer = normalizers.Sequence(
        [
            normalizers.NFKD(),
            normalizers.StripAccents(),
            normalizers.Lowercase(),
            normalizers.Replace(_ESCAPED_LESS_THAN, "<"),
        ]
    )
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.WhitespaceSplit(),
            pre_tokenizers.Split(Regex(_SENTENCE_MARKS), "isolated"),
            pre_tokenizers.Split(Regex(r"[^\x00-\x7f]"), "isolated"),
            pre_tokenizers.Split(
                "<", "isolated"
            ),  # the special tokens are in the vocabulary: let no word look like one
        ]
    )
    backend.decoder = decoders.WordPiece(prefix="##", cleanup=False)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token=PAD,
        eos_token=EOS,
        unk_token=UNKNOWN,
        extra_special_tokens={
            "image_token": IMAGE,
            "video_token": VIDEO,
            "vision_start_token": VISION_START,
            "vision_end_token": VISION_END,
            "system_token": SYSTEM,
            "user_token": USER,
            "assistant_token": ASSISTANT,
        },
        padding_side="left",
        model_max_length=512,
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def build_processor() -> Qwen2_5_VLProcessor:
    """Builds the processor: frames of any size become 64x64, so that a pair of frames is one visual token."""
    pixels = {"shortest_edge": FRAME_SIZE**2, "longest_edge": FRAME_SIZE**2}
    mean = std = [0.5, 0.5, 0.5]
    image = Qwen2VLImageProcessor(
        patch_size=PATCH_SIZE,
        merge_size=MERGE_SIZE,
        temporal_patch_size=TEMPORAL_PATCH_SIZE,
        size=pixels,
        image_mean=mean,
        image_std=std,
    )
    video = Qwen2VLVideoProcessor(
        patch_size=PATCH_SIZE,
        merge_size=MERGE_SIZE,
        temporal_patch_size=TEMPORAL_PATCH_SIZE,
        size=pixels,
        image_mean=mean,
        image_std=std,
        do_sample_frames=False,
        cap_pixels_per_frame=False,
    )
    return Qwen2_5_VLProcessor(
        image_processor=image, tokenizer=build_tokenizer(), video_processor=video, chat_template=CHAT_TEMPLATE
    )


def save_processor(folder: Path) -> None:
    """Writes tokenizer, processor and chat template into a model folder."""
    build_processor().save_pretrained(folder)
