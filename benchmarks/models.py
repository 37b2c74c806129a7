"""The models that benchmarks measure: random weights in real classes of transformers, and clips to feed them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor, Qwen2_5_VLConfig
from transformers.utils import logging

# what builds the small models of the tests builds these too, and stands in the repository's root
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from tests.support.families import build_family
from tests.support.family_parts import Size

from rbft.video.clip import Clip
from rbft.vlm.loading import DType, load_model
from rbft.vlm.model import VLM
from rbft.vlm.model_parts import parts_of
from rbft.vlm.processing import ClipProcessor
from rbft.vlm.tuning import LoRA, Tuning

FAMILIES = ("qwen2_5_vl", "smolvlm")
CELL = 28  # pixels, along each side, of a visual token of the published Qwen2.5-VL
# In proportion to what is published (Qwen2.5-VL-3B, SmolVLM2-2.2B): vision tower and projector have about a fifth of
# all parameters, and a token is made of 2 x 2 patches in the one and 3 x 3 in the other. The head has 6 % of the
# language model's parameters; it is 10 % in the 3B model.
SIZES: dict[str, dict[str, Size]] = {
    "small": {
        "qwen2_5_vl": Size(hidden=256, layers=6, vision_hidden=128, vision_layers=4, most_tokens=64),
        "smolvlm": Size(hidden=256, layers=6, vision_hidden=128, vision_layers=6, image=144, shuffle=3),
    },
    "tiny": {name: Size() for name in FAMILIES},
}
# Frames (height, width) of which eight cost most visual tokens that the size allows: 256 and 288 of `small`.
FRAMES = {"small": (128, 128), "tiny": (48, 64)}
# About 1.3 tokens each, as English words have in published tokenizers.
_WORDS = (
    "person camera player dog hand cars walks jumps throws opens moves turns cuts ball door bread circle shadow water "
    "grass past over towards around slowly the a some its red blue green wooden small left two kicks lifts pours "
    "climbs rides swims runs dances plays music stage track road snow wall table kitchen field street quickly again "
    "biking bowling diving fencing playing guitar riding horse"
)


@dataclass(frozen=True)
class Plain:
    """A model and its processor as transformers alone loads them."""

    model: Any
    processor: Any

    def text(self, question: str, answer: str | None = None) -> str:
        """A conversation about a video, as the model's own template writes it."""
        turns = [{"role": "user", "content": [{"type": "video"}, {"type": "text", "text": question}]}]
        if answer is not None:
            turns.append({"role": "assistant", "content": [{"type": "text", "text": answer}]})
        template = self.processor.chat_template
        text: str = self.processor.apply_chat_template(
            turns, tokenize=False, add_generation_prompt=answer is None, chat_template=template
        )
        return text

    def inputs(self, texts: Sequence[str], clips: Sequence[Clip]) -> dict[str, Any]:
        """What the model is fed for conversations about clips."""
        inputs = self.processor(
            text=list(texts),
            videos=[[clip.frames] for clip in clips],
            video_metadata=[[clip.metadata()] for clip in clips],
            do_sample_frames=False,
            padding=True,
            padding_side="right",
            return_tensors="pt",
        )
        return dict(inputs.to(self.model.device))


@dataclass(frozen=True)
class Ours:
    """The same model and processor as rbft loads them."""

    vlm: VLM
    processor: ClipProcessor


def build(family: str, size: str, folder: Path) -> Path:
    """Writes a model to `folder / family`; the same call writes the same weights."""
    logging.disable_progress_bar()  # its lines would stand between those of the tables
    return build_family(family, folder / family, size=SIZES[size][family])


def load_plain(folder: Path, tuning: Tuning | None = None, dtype: DType = "float32") -> Plain:
    """Load a model with transformers, and say what of it is trained."""
    model: Any = AutoModelForImageTextToText.from_pretrained(folder, dtype=dtype)
    return Plain((model if tuning is None else tuning.apply(model)).eval(), AutoProcessor.from_pretrained(folder))


def load_ours(folder: Path, tuning: Tuning | None = None, dtype: DType = "float32") -> Ours:
    """Load a model with rbft, and say what of it is trained."""
    processor = ClipProcessor(str(folder))
    model: Any = load_model(str(folder), None, dtype, None)
    tuned = model if tuning is None else tuning.apply(model)
    return Ours(VLM(tuned, processor.pad_id, processor.end_ids).eval(), processor)


def adapters() -> LoRA:
    """LoRA without dropout, so that two ways to the same step can be compared."""
    return LoRA(dropout=0.0)


# What config.json of Qwen2.5-VL-3B-Instruct and -7B-Instruct say of the language model and the vision tower.
_TOWER = {
    "depth": 32,
    "hidden_size": 1280,
    "intermediate_size": 3420,
    "num_heads": 16,
    "patch_size": 14,
    "window_size": 112,
    "fullatt_block_indexes": [7, 15, 23, 31],
    "tokens_per_second": 2,
}
_ROPE = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]}
PUBLISHED: dict[str, dict[str, Any]] = {
    "3B": {
        "vocab_size": 151936,
        "hidden_size": 2048,
        "intermediate_size": 11008,
        "num_hidden_layers": 36,
        "num_attention_heads": 16,
        "num_key_value_heads": 2,
        "rope_parameters": _ROPE,
        "tied": True,
    },
    "7B": {
        "vocab_size": 152064,
        "hidden_size": 3584,
        "intermediate_size": 18944,
        "num_hidden_layers": 28,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
        "rope_parameters": _ROPE,
        "tied": False,
    },
}


def write_published(shape: str, folder: Path) -> Path:
    """Writes configuration and processor of a Qwen2.5-VL of published shape, without weights.

    The tokenizer is that of the small models: its tokens are the first of the vocabulary.
    """
    small = build("qwen2_5_vl", "tiny", folder)
    processor, config = AutoProcessor.from_pretrained(small), AutoConfig.from_pretrained(small)
    text = dict(PUBLISHED[shape])
    tied = text.pop("tied")
    ids = ("bos_token_id", "eos_token_id", "pad_token_id")
    text |= {key: getattr(config.text_config, key) for key in ids}
    text |= {"max_position_embeddings": 32768, "initializer_range": 0.02, "tie_word_embeddings": tied}
    vision = _TOWER | {"out_hidden_size": text["hidden_size"], "initializer_range": 0.02}
    placeholders = ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")
    named = {key: getattr(config, key) for key in placeholders}
    whole = Qwen2_5_VLConfig(text_config=text, vision_config=vision, tie_word_embeddings=tied, **named)
    for part in (processor.image_processor, processor.video_processor):
        part.patch_size = _TOWER["patch_size"]
        part.size = {"shortest_edge": 4 * 28 * 28, "longest_edge": 1024 * 28 * 28}
    target = folder / shape
    whole.save_pretrained(target)
    processor.save_pretrained(target)
    return target


def random_model(folder: Path, device: str, dtype: torch.dtype, config: Any = None) -> Any:
    """A model of the configuration in a folder, or of another, with random weights, made where it will be used."""
    torch.manual_seed(0)
    with torch.device(device):
        config = AutoConfig.from_pretrained(folder) if config is None else config
        return AutoModelForImageTextToText.from_config(config, dtype=dtype).eval()


def describe_model(model: Any) -> dict[str, int]:
    """Parameters by part, adapters left out."""
    found, parts = {"language": 0, "projector": 0, "vision": 0}, parts_of(model)
    for name, value in model.named_parameters():
        if "lora_" not in name:
            found[parts[name]] += value.numel()
    return found


def make_clip(seed: int, frame: tuple[int, int], num_frames: int = 8) -> Clip:
    """A clip of smooth random frames (height, width), from a video of 25 frames a second."""
    generator = torch.Generator().manual_seed(seed)
    # coarse, so that resizing does not average the content away
    coarse = torch.rand((num_frames, 3, 6, 6), generator=generator)
    frames = (torch.nn.functional.interpolate(coarse, size=frame) * 255).to(torch.uint8)
    indices = tuple(5 * i for i in range(num_frames))
    times = tuple(i / 25 for i in indices)
    total = 5 * num_frames
    return Clip(frames, times, indices, 25.0, total / 25, total, f"clip {seed}")


def make_texts(count: int, shortest: int, longest: int, seed: int = 0) -> tuple[str, ...]:
    """Distinct texts of so many words, all of a few dozen words, so that they share beginnings as labels do."""
    random = np.random.default_rng(seed)
    texts: dict[str, None] = {}
    while len(texts) < count:
        words = random.choice(_WORDS.split(), size=random.integers(shortest, longest + 1))
        texts[" ".join(words)] = None
    return tuple(texts)


# The chat template of Qwen2.5-VL as published, for one question about one video.
_PUBLISHED_TEMPLATE = (
    "{% for message in messages %}{% if loop.first and message['role'] != 'system' %}"
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n{% endif %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'video' %}<|vision_start|><|video_pad|><|vision_end|>{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def build_as_published(size: str, folder: Path) -> Path:
    """Writes a small Qwen2.5-VL whose patches and chat template are those of the published ones.

    What other frameworks know of that family by heart then holds: cells of 28 pixels, and the system prompt.
    """
    family = build("qwen2_5_vl", size, folder)
    processor, config = AutoProcessor.from_pretrained(family), AutoConfig.from_pretrained(family)
    config.vision_config.patch_size = _TOWER["patch_size"]
    config.vision_config.window_size = _TOWER["window_size"]
    # narrower than in tests, where inputs shall move logits far: there a level of 255 in the pixels does too
    config.initializer_range = config.text_config.initializer_range = config.vision_config.initializer_range = 0.02
    bounds = {"shortest_edge": 4 * CELL**2, "longest_edge": SIZES[size]["qwen2_5_vl"].most_tokens * CELL**2}
    for part in (processor.image_processor, processor.video_processor):
        part.patch_size, part.size = _TOWER["patch_size"], bounds
    processor.chat_template = processor.tokenizer.chat_template = _PUBLISHED_TEMPLATE
    target = folder / "as_published"
    random_model(family, "cpu", torch.float32, config).save_pretrained(target)
    processor.save_pretrained(target)
    return target
