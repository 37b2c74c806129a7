"""Several answers about one clip as one row: their common beginning, the clip included, is computed once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from rbft.vlm.batch import Batch, PromptInputs, pad_rows
from rbft.vlm.model import VLM
from rbft.vlm.token_tree import TokenTree


@dataclass(frozen=True)
class Packed:
    """Questions about one clip with their answers, as a tree after what the questions have in common.

    Args:
        prefix: The common beginning, with the clip.
        tree: What follows: the rests of the questions, each with its answer.
        sources: (E,) for each supervised token, the place in the row (prefix, then nodes) whose logits are about it.
        tokens: (E,) the supervised tokens.
        owners: (E,) which answer each belongs to.
    """

    prefix: PromptInputs
    tree: TokenTree
    sources: Tensor
    tokens: Tensor
    owners: Tensor


def pack(prompts: Sequence[PromptInputs], targets: Sequence[Tensor], visual_ids: Sequence[int]) -> Packed | None:
    """Lay questions about one clip over each other.

    Args:
        prompts: The questions, all about the same clip.
        targets: Their answers.
        visual_ids: Placeholders of visual features.

    Returns:
        None where the questions differ before the clip is over, as they do when their system turns differ.
    """
    shared = _common([prompt.ids for prompt in prompts])
    first = prompts[0]
    visual = torch.tensor(list(visual_ids))
    # a text token stands after the clip, so that positions go on from it as they do from any text
    if shared == 0 or any(torch.isin(prompt.ids[shared - 1 :].cpu(), visual).any() for prompt in prompts):
        return None
    rests = [prompt.ids[shared:].cpu() for prompt in prompts]
    answers = [target.cpu() for target in targets]
    tree = TokenTree.of([torch.cat([rest, answer]) for rest, answer in zip(rests, answers, strict=True)])
    parts = [sources[len(rest) :] + shared for sources, rest in zip(tree.sources, rests, strict=True)]
    owners = [torch.full((len(answer),), number) for number, answer in enumerate(answers)]
    return Packed(first.cut(shared), tree, torch.cat(parts), torch.cat(answers), torch.cat(owners))


@dataclass(frozen=True)
class AnswerLogits:
    """What the model expects at every supervised token of a batch.

    Args:
        logits: (M, V); answers that share a beginning share its rows.
        sources: (N,) for each supervised token, the row of `logits` that is about it.
        tokens: (N,) the supervised tokens.
        rows: (N,) the row of the batch each belongs to.
    """

    logits: Tensor
    sources: Tensor
    tokens: Tensor
    rows: Tensor

    def log_probs(self) -> Tensor:
        """Log-probability of each supervised token (N,) in float32."""
        return self.logits.float().log_softmax(-1)[self.sources, self.tokens]


def answer_logits(vlm: VLM, batch: Batch) -> AnswerLogits:
    """One forward pass over a batch; rows about one clip share its computation where they can."""
    clips: dict[int, list[int]] = {}
    for row, clip in enumerate(batch.clips):
        clips.setdefault(clip, []).append(row)
    if len(clips) == len(batch) or not vlm.takes_packed_rows:
        logits, rows_of = vlm.target_logits(batch.prompts, batch.targets)
        tokens = torch.cat(list(batch.targets)).to(logits.device)
        return AnswerLogits(logits, torch.arange(len(tokens), device=logits.device), tokens, rows_of)
    packed: list[Packed] = []
    members: list[list[int]] = []  # the rows of the batch that each packed row stands for
    for rows in clips.values():
        together = _pack(vlm, batch, rows)
        if together is not None:
            packed.append(together)
            members.append(rows)
        else:
            packed += [single for row in rows if (single := _pack(vlm, batch, [row])) is not None]
            members += [[row] for row in rows]
    packed_answers, answers = packed_logits(vlm, packed)
    width = max(len(rows) for rows in members)
    table = torch.tensor([rows + rows[:1] * (width - len(rows)) for rows in members], device=vlm.device)
    return replace(packed_answers, rows=table[packed_answers.rows, answers])


def _pack(vlm: VLM, batch: Batch, rows: Sequence[int]) -> Packed | None:
    return pack([batch.prompts[i] for i in rows], [batch.targets[i] for i in rows], vlm.visual_ids)


def packed_logits(vlm: VLM, rows: Sequence[Packed]) -> tuple[AnswerLogits, Tensor]:
    """One forward pass over packed rows.

    Returns:
        What is expected at each supervised token, its `rows` being those given here, and which answer of its row each
        token belongs to (N,).
    """
    prefixes = [row.prefix for row in rows]
    if vlm.states is not None:
        prefixes = vlm.with_features(prefixes)

    def lay_out(numbers: Sequence[int]) -> tuple[Tensor, dict[str, Any]]:
        return _arguments(vlm, [replace(rows[i], prefix=prefixes[i]) for i in numbers])

    keep, output = vlm.read_rows(
        lay_out, [(prefix, (row.tree.ids, row.tree.parents)) for prefix, row in zip(prefixes, rows, strict=True)]
    )
    logits = output.logits
    # kept logits come row by row
    place = (keep.flatten().cumsum(0) - 1).reshape(keep.shape)
    owners = [torch.full_like(row.owners, number) for number, row in enumerate(rows)]
    sources = torch.cat([place[number, row.sources.to(vlm.device)] for number, row in enumerate(rows)])
    tokens = torch.cat([row.tokens for row in rows]).to(vlm.device)
    answers = torch.cat([row.owners for row in rows]).to(vlm.device)
    return AnswerLogits(logits, sources, tokens, torch.cat(owners).to(vlm.device)), answers


def _arguments(vlm: VLM, rows: Sequence[Packed]) -> tuple[Tensor, dict[str, Any]]:
    """Where logits are asked for in packed rows (B, L), and the arguments of the model."""
    prefixes = [row.prefix for row in rows]
    read = pad_rows(prefixes, None, vlm.pad_id)
    whole = pad_rows(prefixes, [row.tree.ids.to(vlm.device) for row in rows], vlm.pad_id)
    visual = vlm.encode(prefixes)
    known = vlm.positions(read, visual)
    count, width = whole.ids.shape
    positions = torch.zeros((3, count, width), dtype=torch.long, device=vlm.device)
    visible = torch.zeros((count, width, width), dtype=torch.bool, device=vlm.device)
    visible |= torch.eye(width, dtype=torch.bool, device=vlm.device)  # padding sees itself, or its softmax is empty
    keep = torch.zeros((count, width), dtype=torch.bool, device=vlm.device)
    for number, row in enumerate(rows):
        length, nodes = len(row.prefix.ids), len(row.tree)
        before, after = slice(0, length), slice(length, length + nodes)
        counted = torch.arange(length, device=vlm.device).expand(3, -1)
        positions[:, number, before] = counted if known is None else known[:, number, before]
        following = positions[0, number, length - 1] + 1
        positions[:, number, after] = following + row.tree.depths.to(vlm.device)
        visible[number, before, before] = torch.ones(length, length, dtype=torch.bool, device=vlm.device).tril()
        visible[number, after, before] = True
        visible[number, after, after] = row.tree.lineage().to(vlm.device)
        keep[number, row.sources.to(vlm.device)] = True
    mask = vlm.attention_mask(visible)
    placed = positions[0] if known is None else positions
    arguments = vlm.arguments(whole, visual)
    return keep, {**arguments, "attention_mask": mask, "position_ids": placed, "use_cache": False}


def _common(rows: Sequence[Tensor]) -> int:
    """Tokens at the start that all rows have in common."""
    shortest = min(len(row) for row in rows)
    same = torch.stack([row[:shortest] == rows[0][:shortest] for row in rows]).all(0)
    return shortest if bool(same.all()) else int((~same).nonzero()[0])
