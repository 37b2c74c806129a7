"""The table of docs/models.md, one line a model type; tests prove each line and compare it with the page."""

from __future__ import annotations

import os
import re
from pathlib import Path

from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES
from transformers.models.auto.video_processing_auto import VIDEO_PROCESSOR_MAPPING_NAMES

from rbft.vlm.model import VLM

PAGE = Path(__file__).parents[2] / "docs" / "models.md"

# takes video by its processor, which transformers does not list
UNLISTED = {"glm4v_moe"}
TYPES = sorted({*MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES} & {*VIDEO_PROCESSOR_MAPPING_NAMES} | UNLISTED)

KNOWN_AS = {
    "cohere_compass": "North Micro Vision",
    "cosmos3_edge": "Cosmos 3 Edge",
    "cosmos3_omni": "Cosmos 3",
    "dots3_note": "dots 3 Note",
    "ernie4_5_vl_moe": "ERNIE 4.5 VL",
    "exaone4_5": "EXAONE 4.5",
    "gemma4": "Gemma 4",
    "gemma4_unified": "Gemma 4 without a tower",
    "glm46v": "GLM-4.6V",
    "glm4v": "GLM-4.1V",
    "glm4v_moe": "GLM-4.5V",
    "glm5_next": "GLM-5.3 Flash",
    "hyperclovax_vision_v2": "HyperCLOVA X Vision V2",
    "instructblip": "InstructBLIP",
    "instructblipvideo": "InstructBLIP for videos",
    "internvl": "InternVL 2.5, 3, 3.5",
    "kimi_k25": "Kimi K2.5, K2.6",
    "lfm3_vl": "LFM3-VL",
    "llava_next_video": "LLaVA-NeXT-Video",
    "llava_onevision": "LLaVA-OneVision",
    "minicpm_ocr": "MiniCPM-OCR",
    "minicpmv4_6": "MiniCPM-V 4.6",
    "minicpmv4_7": "MiniCPM-V 4.7",
    "minimax_m3_vl": "MiniMax M3",
    "molmo2": "Molmo2",
    "muse_glimmer": "Muse Glimmer",
    "muse_spark": "Muse Spark",
    "nemotron_h_omni": "Nemotron 3 Nano Omni",
    "perception_lm": "PerceptionLM (needs timm)",
    "qwen2_5_vl": "Qwen2.5-VL",
    "qwen2_vl": "Qwen2-VL",
    "qwen3_5": "Qwen3.5",
    "qwen3_5_moe": "Qwen3.5 with experts",
    "qwen3_vl": "Qwen3-VL",
    "qwen3_vl_moe": "Qwen3-VL with experts",
    "qwen4_exp": "Qwen4-Exp",
    "smolvlm": "SmolVLM2",
    "video_llama_3": "VideoLLaMA3",
    "video_llava": "Video-LLaVA",
}

# refused by the configuration alone, with these words
REFUSED = {
    "instructblip": "takes no video: its processor has no part for it",
    "instructblipvideo": "takes clips of four frames in the place of pictures: its processor has no argument for "
    "videos",
    "kimi_k25": "cannot be used: transformers does not count the features of its clips right and fails on any that has "
    "several frames",
    "nemotron_h_omni": "cannot be used: its processor in transformers fails on a clip that comes with the times of its "
    "frames",
}

# layers that get no adapter by default: their names are those of experts to PEFT
WITHOUT = {"glm4v_moe": {"gate_proj", "up_proj", "down_proj"}}


def works(name: str, vlm: VLM, adapted: int, layers: int) -> str:
    """The line of a type that works, from its tiny model."""
    together = "any" if vlm.sees_every_token else "one at a time"
    labels = "one row" if vlm.takes_tree_masks else "a row each"
    answers = "one row" if vlm.takes_packed_rows else "a row each"
    share = "all" if adapted == layers else f"{adapted} of {layers}: none named {', '.join(sorted(WITHOUT[name]))}"
    return f"| `{name}` | {KNOWN_AS.get(name, '')} | works | {together} | {labels} | {answers} | {share} |"


def does_not(name: str) -> str:
    """The line of a type that is refused."""
    return f"| `{name}` | {KNOWN_AS.get(name, '')} | refused: {REFUSED[name]} | | | | |"


def line_of(name: str) -> str:
    """What the page says of a type."""
    (line,) = re.findall(rf"^\| `{name}` \|.*$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    return str(line)


def check(name: str, line: str) -> None:
    """Compare a line with the page, or write it there where RBFT_WRITE_TABLE is set."""
    if os.environ.get("RBFT_WRITE_TABLE"):
        PAGE.write_text(PAGE.read_text(encoding="utf-8").replace(line_of(name), line), encoding="utf-8")
    assert line_of(name) == line, "run this test with RBFT_WRITE_TABLE=1 to have the page say so"
