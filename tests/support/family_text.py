"""Tokenizers and chat templates of the tiny test models: byte-level BPE over a built-in text."""

from __future__ import annotations

import itertools

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

VOCABULARY = 1024
START = "<|im_start|>"
END = "<|im_end|>"

_CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'video' %}VIDEO{% elif part['type'] == 'image' %}IMAGE"
    "{% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SMOLVLM_TEMPLATE = (
    "<|im_start|>{% for message in messages %}{{ message['role'] | capitalize }}: "
    "{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'video' %}<video>{% elif part['type'] == 'image' %}<image>"
    "{% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}<end_of_utterance>\n"
    "{% endfor %}{% if add_generation_prompt %}Assistant:{% endif %}"
)


def chatml(video: str, image: str) -> str:
    """The ChatML template with the placeholders `video` and `image` in the user's message."""
    return _CHATML.replace("VIDEO", video).replace("IMAGE", image)


def train_tokenizer(
    special: list[str], *, pad: str, eos: str, named: dict[str, str] | None = None
) -> PreTrainedTokenizerFast:
    """Trains a byte-level BPE of at most `VOCABULARY` tokens.

    Args:
        special: Special tokens besides the start of a turn, `pad`, `eos` and `named`.
        pad: Padding token.
        eos: End of a turn, where generation stops.
        named: Special tokens that the processor reads as attributes of the tokenizer, by attribute name.
    """
    named = named or {}
    tokens = list(dict.fromkeys([pad, START, *special, eos, *named.values()]))
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=tokens,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(_sentences(), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        pad_token=pad,
        eos_token=eos,
        additional_special_tokens=[START, *special],
        extra_special_tokens=named,
        padding_side="left",
    )


def _sentences() -> list[str]:
    """Training text of the tokenizer: what videos, prompts and time stamps are usually made of."""
    scenes = [
        f"{subject.capitalize()} {verb} {thing}, because {subject} {verb} {thing}."
        for subject, verb, thing in itertools.product(
            ("a person", "the camera", "one player", "a small dog", "the left hand", "two cars", "somebody"),
            ("walks past", "jumps over", "throws", "opens", "moves towards", "turns around", "slowly cuts"),
            (
                "the ball",
                "a wooden door",
                "some bread",
                "the red circle",
                "its shadow",
                "blue water",
                "green grass",
            ),
        )
    ]
    stamps = [
        f"Frame from {minute:02d}:{second:02d}: Frame{second}: <{second}.{minute} seconds>"
        for minute, second in itertools.product(range(3), range(60))
    ]
    return [
        "Which action does this video show? Answer with one of the following labels and nothing else.",
        "Explain step by step what happens, then name the category: motion first, then objects and scene.",
        "You are provided the following series of eight frames from a 0:00:12 [H:MM:SS] video.",
        "user assistant system User: Assistant: System: label class answer reason rationale description",
        "ApplyEyeMakeup Archery BabyCrawling BasketballDunk Biking Bowling BoxingSpeedBag BrushingTeeth",
        "Drumming Fencing FrontCrawl GolfSwing Haircut HammerThrow HandstandWalking HorseRiding Diving",
        "Kayaking Knitting LongJump MoppingFloor PlayingGuitar PoleVault PullUps Rowing SkyDiving YoYo",
        "kitchen street field pool stage gym court track road beach snow wall table background foreground",
        "quickly carefully again before after while during therefore however between after above below",
        "appears disappears accelerates bounces rotates shrinks grows collides follows crosses leaves",
        "square triangle circle yellow purple orange white black grey bright dark large tiny upper lower",
        "evidence shows that the clip contains several visible clues, such as posture, tools or places",
        "enters stops kicks swings lifts pours stirs climbs rides swims runs dances plays music both hands",
        "morning winter winner champion friendly rectangle pattern texture direction speed height distance",
        "collision behaviour experiment measurement laboratory microscope surgeon instrument tissue needle",
        "machine factory worker helmet damaged surface crack warning traffic pedestrian vehicle bridge river",
        *stamps,
        *scenes,
    ]
