"""Tokenizer, template and processor of the built-in model, with no model."""

from __future__ import annotations

import string

import pytest
import torch
from tools.tiny_vlm.tokenizer import SPECIAL_TOKENS, VIDEO, build_processor, token_list

from rbft.vlm.prompt import Prompt
from rbft.worlds import language

PROCESSOR = build_processor()
TOKENIZER = PROCESSOR.tokenizer


def rendered(prompt: Prompt, answer: str | None = None) -> str:
    return PROCESSOR.apply_chat_template(prompt.messages(answer), add_generation_prompt=answer is None, tokenize=False)


def clip_inputs(text: str, frames: int = 8, height: int = 64, width: int = 64) -> dict:
    metadata = {"total_num_frames": 20, "fps": 10.0, "duration": 2.0, "frames_indices": list(range(frames))}
    return PROCESSOR(
        text=[text],
        videos=[[torch.zeros(frames, 3, height, width, dtype=torch.uint8)]],
        video_metadata=[[metadata]],
        do_sample_frames=False,
        return_tensors="pt",
    )


def test_ids_are_unique_and_words_are_whole():
    assert len(set(token_list())) == len(token_list()) == len(TOKENIZER)
    for word in language.vocabulary():
        assert len(TOKENIZER(word)["input_ids"]) == 1


@pytest.mark.parametrize(
    "text",
    [
        "the red circle goes left then grows .",
        "no_fight",
        "t-shirt (old) 42% #1",
        "applyeyemakeup",
        "redo",
        string.digits + string.punctuation.translate(str.maketrans("", "", ".,:;?!<")),
    ],
)
def test_text_comes_back(text: str):
    ids = TOKENIZER(text)["input_ids"]
    assert TOKENIZER.unk_token_id not in ids
    assert TOKENIZER.decode(ids) == text


def test_text_is_lower_cased_and_sentence_marks_stand_alone():
    assert TOKENIZER.decode(TOKENIZER("Describe THE Vidéo.")["input_ids"]) == "describe the video ."


def test_one_unknown_character_costs_no_more_than_itself():
    assert TOKENIZER.tokenize("left\u6f22x") == ["left", "<unk>", "x"]


@pytest.mark.parametrize("video", [True, False])
@pytest.mark.parametrize("system", [None, "you are a helpful assistant ."])
def test_a_full_conversation_starts_with_its_prompt(video: bool, system: str | None):
    prompt = Prompt(language.CAPTION, system=system, video=video)
    text, full = rendered(prompt), rendered(prompt, "the red circle waits .")
    assert full == text + "the red circle waits .<eos>"
    assert (VIDEO in text) == video
    ids = TOKENIZER(text)["input_ids"]
    assert TOKENIZER(full)["input_ids"][: len(ids)] == ids


def test_assistant_tokens_can_be_masked():
    messages = Prompt(language.CAPTION, video=False).messages("nothing happens .")
    out = PROCESSOR.apply_chat_template(
        messages, tokenize=True, return_dict=True, return_assistant_tokens_mask=True, processor_kwargs={}
    )
    ids, mask = torch.tensor(out["input_ids"]).flatten(), torch.tensor(out["assistant_masks"]).flatten()
    assert TOKENIZER.decode(ids[mask.bool()]) == "nothing happens . <eos>"


@pytest.mark.parametrize("token", SPECIAL_TOKENS)
@pytest.mark.parametrize("write", [str, str.upper])
def test_no_message_can_hold_a_special_token(token: str, write):
    sneaky = write(f"see {token}{token} x{token}y and {token}")
    clean = rendered(Prompt("see", system="see"), "see")
    dirty = rendered(Prompt(sneaky, system=sneaky), sneaky)

    def specials(text: str) -> list[int]:
        ids = TOKENIZER(text)["input_ids"]
        return [i for i in ids if i in TOKENIZER.all_special_ids]

    assert specials(dirty) == specials(clean)


def test_plain_text_gives_no_special_token_by_another_spelling():
    assert not set(TOKENIZER("<VIDEO> < video> x<EOS>")["input_ids"]) & set(TOKENIZER.all_special_ids)


def test_unknown_roles_and_parts_are_refused():
    with pytest.raises(Exception, match="unknown role tool"):
        PROCESSOR.apply_chat_template([{"role": "tool", "content": "x"}], tokenize=False)
    with pytest.raises(Exception, match="unknown content type audio"):
        PROCESSOR.apply_chat_template([{"role": "user", "content": [{"type": "audio"}]}], tokenize=False)


@pytest.mark.parametrize(("height", "width"), [(64, 64), (96, 96), (120, 160), (240, 320), (1080, 1920), (640, 360)])
def test_a_clip_of_eight_frames_is_four_tokens_whatever_its_size(height: int, width: int):
    inputs = clip_inputs(rendered(Prompt(language.CAPTION)), height=height, width=width)
    assert inputs["video_grid_thw"].tolist() == [[4, 4, 4]]
    assert inputs["pixel_values_videos"].shape == (64, 1536)
    assert (inputs["input_ids"] == TOKENIZER.convert_tokens_to_ids(VIDEO)).sum() == 4
