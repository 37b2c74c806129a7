"""The checkpoint in the package: loads like any other, is small, and describes clips as its card says."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from tools.tiny_vlm.evaluate import Describer, description_accuracy, parse, video_arguments
from transformers import (
    AutoConfig,
    AutoModelForImageTextToText,
    AutoProcessor,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
)

import rbft.vlm.tiny
from rbft.video.clip import read_clip
from rbft.video.clip_spec import ClipSpec
from rbft.video.sampling import FrameSampling
from rbft.vlm.prompt import Prompt
from rbft.worlds import language
from rbft.worlds.domain import write_domain
from rbft.worlds.events import GENERAL, PAIRS, UNIONS, phrase
from rbft.worlds.scenes import general_scenes, target_scenes
from rbft.worlds.shapes import render

CHECKPOINT = Path(rbft.vlm.tiny.__file__).parent / "checkpoint"
CLIPS = 120


@pytest.fixture(scope="module")
def built_in() -> Describer:
    return Describer(CHECKPOINT)


@pytest.fixture(scope="module")
def general():
    rng = np.random.default_rng(777)
    scenes = general_scenes(rng, CLIPS, named=1.0)
    return scenes, render(scenes, rng)


def test_the_folder_is_whole_small_and_safe():
    files = {path.name for path in CHECKPOINT.iterdir()}
    assert files == {
        "chat_template.jinja",
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "processor_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    assert sum(path.stat().st_size for path in CHECKPOINT.iterdir()) <= 8_000_000
    assert all(str(Path.home()) not in p.read_text() for p in CHECKPOINT.iterdir() if p.suffix != ".safetensors")


def test_it_loads_by_the_auto_classes(built_in: Describer):
    assert AutoConfig.from_pretrained(CHECKPOINT).model_type == "qwen2_5_vl"
    assert isinstance(built_in.model, Qwen2_5_VLForConditionalGeneration)
    assert isinstance(built_in.processor, Qwen2_5_VLProcessor)
    assert built_in.model.dtype == torch.float32
    assert built_in.model.generation_config.eos_token_id == built_in.processor.tokenizer.eos_token_id


def test_it_comes_back_from_saving_the_same(built_in: Describer, tmp_path: Path, general):
    _, frames = general
    built_in.model.save_pretrained(tmp_path)
    built_in.processor.save_pretrained(tmp_path)
    again = AutoModelForImageTextToText.from_pretrained(tmp_path)
    processor = AutoProcessor.from_pretrained(tmp_path)
    text = processor.apply_chat_template(
        Prompt(language.CAPTION).messages(), add_generation_prompt=True, tokenize=False
    )
    inputs = processor(text=[text], return_tensors="pt", **video_arguments(frames[:1]))
    with torch.no_grad():
        torch.testing.assert_close(again(**inputs).logits, built_in.model(**inputs).logits, atol=0, rtol=0)


def test_it_describes_general_clips(built_in: Describer, general):
    scenes, frames = general
    found = description_accuracy(built_in.answers([language.CAPTION] * CLIPS, frames), scenes)
    assert found["colour"] > 0.97
    assert found["shape"] > 0.95
    assert found["first"] > 0.95
    assert found["second"] > 0.93


def test_it_describes_events_it_was_never_shown(built_in: Describer):
    rng = np.random.default_rng(778)
    scenes = target_scenes(rng, np.arange(CLIPS) % len(PAIRS), "pairs")
    texts = built_in.answers([language.CAPTION] * CLIPS, render(scenes, rng))
    found = description_accuracy(texts, scenes, slots=(0,))
    assert found["first"] > 0.9
    assert found["second"] > 0.8


def test_it_describes_decoded_files_as_well(built_in: Describer, tmp_path: Path):
    root = tmp_path / "unions"
    write_domain(root, domain="unions", style="plain", seed=3, train_per_class=0, val_per_class=0, test_per_class=12)
    rows = [json.loads(line) for line in (root / "truth.jsonl").read_text().splitlines()]
    clips = [read_clip(root / row["path"], ClipSpec(FrameSampling(num_frames=8), 64 * 64)) for row in rows]
    frames = np.stack([clip.frames.permute(0, 2, 3, 1).numpy() for clip in clips])
    texts = built_in.answers([language.CAPTION] * len(rows), frames)
    told = [parse(text) == parse(row["description"]) for text, row in zip(texts, rows, strict=True)]
    assert np.mean(told) > 0.85


def test_it_sees_nothing_where_nothing_is(built_in: Describer):
    rng = np.random.default_rng(779)
    empty = render(general_scenes(rng, 40, empty=1.0), rng)
    black = np.zeros_like(empty[:1])
    noise = rng.integers(0, 256, (9, *empty.shape[1:]), dtype=np.uint8)
    frames = np.concatenate([empty, black, black + 128, black + 255, noise])
    texts = built_in.answers([language.CAPTION] * len(frames), frames)
    assert np.mean([text == language.EMPTY_DESCRIPTION for text in texts]) > 0.95


def test_it_names_what_it_was_taught(built_in: Describer, general):
    scenes, frames = general
    names = [tuple(GENERAL)[event] for event in scenes.event]
    labels = built_in.answers([language.LABEL] * CLIPS, frames)
    assert np.mean([found == name for found, name in zip(labels, names, strict=True)]) > 0.9
    rationales = built_in.answers([language.RATIONALE] * CLIPS, frames)
    assert all(" so it is " in text for text in rationales)
    assert np.mean([text.split()[-1] == name for text, name in zip(rationales, names, strict=True)]) > 0.9


def test_a_wrong_hint_does_not_change_what_it_sees(built_in: Describer, general):
    scenes, frames = general
    hints = [tuple(GENERAL)[(event + 3) % len(GENERAL)] for event in scenes.event]
    texts = built_in.answers([language.HINTED.format(name=hint) for hint in hints], frames)
    assert description_accuracy(texts, scenes)["both"] > 0.9
    assert np.mean([text.split()[-1] == hint for text, hint in zip(texts, hints, strict=True)]) > 0.9


def test_it_knows_the_target_names_in_words(built_in: Describer):
    asked = [(phrase(*event), name) for name, event in PAIRS.items()]
    asked += [(phrase(*event), name) for name, events in UNIONS.items() for event in events]
    found = built_in.answers([language.NAME_OF_WORDS.format(words=words) for words, _ in asked])
    assert found == [name for _, name in asked]


def test_a_padded_batch_answers_like_single_questions(built_in: Describer, general):
    _, frames = general
    questions = [language.CAPTION, language.HINTED.format(name="hop"), language.COUNT, language.LABEL]
    together = built_in.answers(questions, frames[:4])
    alone = [built_in.answers([q], frames[i : i + 1])[0] for i, q in enumerate(questions)]
    assert together == alone


def test_parse():
    text = "the red circle goes left then grows . the blue ring waits ."
    assert parse(text) == {"red": ("circle", "goes left", "grows"), "blue": ("ring", "waits", "waits")}
    assert parse(language.EMPTY_DESCRIPTION) == parse("") == parse("the red .") == {}
