"""The path that pre-training uses must compute what the library computes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tools.tiny_vlm.architecture import build_model
from tools.tiny_vlm.conversations import EVERYTHING, Turn, ask
from tools.tiny_vlm.evaluate import video_arguments
from tools.tiny_vlm.fast_forward import encode, loss, to_patches
from tools.tiny_vlm.packing import VISUAL_TOKENS, Packer
from tools.tiny_vlm.tokenizer import build_processor
from transformers import Qwen2_5_VLForConditionalGeneration

from rbft.vlm.prompt import Prompt
from rbft.worlds import language
from rbft.worlds.scenes import general_scenes
from rbft.worlds.shapes import Frames, render

PROCESSOR = build_processor()


@pytest.fixture(scope="module")
def model() -> Qwen2_5_VLForConditionalGeneration:
    model = build_model(0).eval()
    with torch.no_grad():  # so that differences in attention and positions would show
        for name, parameter in model.named_parameters():
            if "q_proj" in name or "k_proj" in name or "qkv" in name:
                parameter.mul_(3)
    return model


@pytest.fixture(scope="module")
def clips() -> tuple[Frames, list[list[Turn]]]:
    rng = np.random.default_rng(0)
    scenes = general_scenes(rng, 4, empty=0.2)
    turns = [ask(scenes, clip, rng, EVERYTHING, 8) for clip in range(4)]
    assert {turn.video for group in turns for turn in group} == {True, False}
    turns[0] += [Turn(language.CAPTION, (("the red ring", True), ("waits", False), ("then grows .", True)))]
    return render(scenes, rng), turns


def test_patches_are_those_of_the_processor(clips):
    frames, _ = clips
    inputs = PROCESSOR.video_processor(**{"videos": video_arguments(frames)["videos"]}, return_tensors="pt")
    torch.testing.assert_close(
        to_patches(torch.from_numpy(frames)).flatten(0, 1), inputs["pixel_values_videos"], atol=1e-6, rtol=0
    )


@torch.no_grad()
def test_visual_tokens_are_those_of_the_library(model, clips):
    patches = to_patches(torch.from_numpy(clips[0]))
    grid = torch.tensor([[4, 4, 4]] * 4)
    expected = model.model.get_video_features(patches.flatten(0, 1), grid, return_dict=True).pooler_output
    torch.testing.assert_close(encode(model, patches)[0], torch.cat(expected), atol=1e-4, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("system", [None, "you are a helpful assistant ."])
def test_packed_conversations_lose_what_separate_ones_lose(model, clips, system):
    frames, turns = clips
    packer = Packer(PROCESSOR.tokenizer)
    features = encode(model, to_patches(torch.from_numpy(frames)))[0].unflatten(0, (4, VISUAL_TOKENS))
    total, count = torch.zeros(()), 0
    for clip, group in enumerate(turns):
        alone = loss(model, packer.pack([group], budget=1000, system=system), features[clip : clip + 1])
        expected = [separate_loss(model, turn, frames[clip : clip + 1], packer, system) for turn in group]
        clip_count = sum(number for _, number in expected)
        clip_total = torch.stack([value for value, _ in expected]).sum()
        torch.testing.assert_close(alone, clip_total / clip_count, atol=1e-4, rtol=0)
        total, count = total + clip_total, count + clip_count
    together = loss(model, packer.pack(turns, budget=1000, system=system), features)
    torch.testing.assert_close(together, total / count, atol=1e-4, rtol=0)


def separate_loss(model, turn: Turn, frames: Frames, packer: Packer, system: str | None) -> tuple[torch.Tensor, int]:
    """Summed loss and number of learned tokens of one conversation, by processor and model of the library."""
    messages = Prompt(turn.question, system=system, video=turn.video).messages(
        " ".join(text for text, _ in turn.answer)
    )
    full = PROCESSOR.apply_chat_template(messages, tokenize=False)
    inputs = PROCESSOR(text=[full], return_tensors="pt", **(video_arguments(frames) if turn.video else {}))
    learned = [flag for text, is_learned in turn.answer for flag in [is_learned] * len(packer.ids(text))] + [True]
    labels = torch.full_like(inputs["input_ids"][0], -100)
    labels[-len(learned) :] = torch.where(torch.tensor(learned), inputs["input_ids"][0, -len(learned) :], -100)
    logits = model(**inputs).logits[0, :-1]
    return F.cross_entropy(logits, labels[1:], ignore_index=-100, reduction="sum"), sum(learned)


def test_turns_that_do_not_fit_are_left_out_and_the_first_never(clips):
    _, turns = clips
    packer = Packer(PROCESSOR.tokenizer)
    tight = packer.pack(turns, budget=1)
    assert tight.group.max() == 2
    assert packer.pack(turns, budget=96).ids.shape[1] <= 96 + 7
