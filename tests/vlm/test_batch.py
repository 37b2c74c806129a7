"""Rows are put together with their answers, and padded to one length."""

from __future__ import annotations

from dataclasses import replace

import torch

from rbft.vlm.batch import EncodedClip, Item, PromptInputs, collate, pad_rows

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


def test_a_copy_in_pinned_memory_shares_what_the_batch_shares(monkeypatch):
    pinned: list[torch.Tensor] = []  # there is nothing to pin it for without a GPU

    def pin(tensor: torch.Tensor) -> torch.Tensor:
        pinned.append(tensor.clone())
        return pinned[-1]

    monkeypatch.setattr(torch.Tensor, "pin_memory", pin)
    clip = EncodedClip("video", torch.ones(2, 3), (torch.ones(2, 3),), False, {"grid": torch.ones(3)}, "")
    kept = [replace(PROMPTS[0], vision={}, encoded=clip), replace(PROMPTS[1], vision={}, encoded=clip)]
    rows = [[Item(0, kept[0], TARGETS[0]), Item(1, kept[1], TARGETS[1])], [Item(2, PROMPTS[1], TARGETS[1])]]
    # as a loader's own thread does
    batch = torch.utils.data._utils.pin_memory.pin_memory(collate(rows))
    assert batch.prompts[1].encoded is batch.prompts[0].encoded
    held = [batch.weights, batch.values, *batch.targets, *(prompt.ids for prompt in batch.prompts)]
    held += [prompt.types for prompt in batch.prompts]
    held += [batch.prompts[0].encoded.features, *batch.prompts[0].encoded.deepstack]
    held += [*batch.prompts[0].encoded.positions.values(), *batch.prompts[2].vision.values()]
    assert sorted(map(id, held)) == sorted(map(id, pinned))


def test_a_copy_to_the_host_is_waited_for(monkeypatch):
    asked: list[tuple[str, bool]] = []

    def to(tensor: torch.Tensor, device: torch.device, non_blocking: bool) -> torch.Tensor:
        asked.append((device.type, non_blocking))
        return tensor

    monkeypatch.setattr(torch.Tensor, "to", to)
    for device in ("cpu", "cuda"):
        PROMPTS[0].to(device)
    assert set(asked) == {("cpu", False), ("cuda", True)}
