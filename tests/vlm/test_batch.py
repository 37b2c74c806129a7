"""Rows are put together with their answers, and padded to one length."""

from __future__ import annotations

from dataclasses import replace

import torch

from rbft.vlm.batch import Item, PromptInputs, collate, pad_rows

PAD = 9


def prompt(*ids: int, types: bool = True) -> PromptInputs:
    kinds = torch.tensor([2 if i >= 50 else 0 for i in ids], dtype=torch.int) if types else None
    return PromptInputs(torch.tensor(ids), kinds, {"pixel_values": torch.zeros(len(ids))})


PROMPTS = (prompt(1, 50), prompt(2, 51, 52, 3))
TARGETS = (torch.tensor([7, 8, 6]), torch.tensor([6]))


def test_answers_stand_right_behind_their_prompts():
    rows = pad_rows(PROMPTS, (torch.tensor([7, 6]), TARGETS[1]), PAD)
    assert rows.ids.tolist() == [[1, 50, 7, 6, PAD], [2, 51, 52, 3, 6]]
    assert rows.mask.tolist() == [[1, 1, 1, 1, 0], [1, 1, 1, 1, 1]]
    assert rows.types.tolist() == [[0, 2, 0, 0, 0], [0, 2, 2, 0, 0]]
    assert rows.lengths.tolist() == [4, 5]


def test_prompts_alone_are_rows_too():
    rows = pad_rows(PROMPTS, None, PAD)
    assert rows.ids.tolist() == [[1, 50, PAD, PAD], [2, 51, 52, 3]]
    assert rows.mask.tolist() == [[1, 1, 0, 0], [1, 1, 1, 1]]
    assert rows.types.tolist() == [[0, 2, 0, 0], [0, 2, 2, 0]]


def test_families_without_token_types_get_none():
    assert pad_rows([prompt(1, 2, types=False)], None, PAD).types is None


def test_collate_keeps_rows_in_order():
    first = Item(4, PROMPTS[0], TARGETS[0], weight=0.5, normalizer=11.0)
    second = Item(2, PROMPTS[1], TARGETS[1], normalizer=11.0)
    batch = collate([[first], [second]])
    assert (len(batch), batch.indices, batch.prompts, batch.targets) == (2, (4, 2), PROMPTS, TARGETS)
    assert batch.clips == (0, 1)
    assert collate([[second, first], [second]]).clips == (0, 0, 1)
    assert batch.weights.tolist() == [0.5, 1.0]
    assert batch.normalizer == 11.0


def test_a_copy_on_another_device_takes_every_tensor_along():
    batch = collate([[Item(0, PROMPTS[0], TARGETS[0])]]).to("meta")
    tensors = [batch.weights, *batch.targets, batch.prompts[0].ids, batch.prompts[0].types]
    tensors += batch.prompts[0].vision.values()
    assert {tensor.device.type for tensor in tensors} == {"meta"}
    assert prompt(1, types=False).to("meta").types is None


def test_rows_of_one_clip_share_its_inputs_on_every_device():
    other = replace(PROMPTS[0], ids=torch.tensor([9, 9]))
    rows = [[Item(0, PROMPTS[0], TARGETS[0]), Item(1, other, TARGETS[1])], [Item(2, PROMPTS[1], TARGETS[1])]]
    batch = collate(rows).to("meta")
    assert batch.prompts[1].vision is batch.prompts[0].vision
    assert batch.prompts[1].ids.shape == (2,) and batch.prompts[1].ids.device.type == "meta"
    assert batch.prompts[2].vision is not batch.prompts[0].vision
