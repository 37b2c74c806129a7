"""The model's own modules run with fewer copies: 64x64 clips of eight frames, several conversations a clip."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import Qwen2_5_VLForConditionalGeneration
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import get_vision_position_ids

from tools.tiny_vlm.architecture import RMS_EPSILON
from tools.tiny_vlm.tokenizer import MERGE_SIZE, PATCH_SIZE, TEMPORAL_PATCH_SIZE

PATCHES = MERGE_SIZE**2  # of a pair of frames


def autocast() -> torch.autocast:
    """bfloat16 matrix products where the processor has them; one that has not emulates them, a hundred times slower."""
    able = torch.cpu.get_capabilities()
    return torch.autocast("cpu", torch.bfloat16, enabled=bool(able.get("avx512_bf16") or able.get("amx_bf16")))


def to_patches(frames: Tensor) -> Tensor:
    """Frames (B, T, 64, 64, 3) uint8 as the processor would cut them: (B * T / 2, 16, 1536) in -1..1."""
    b, t = frames.shape[:2]
    grid, pair = (MERGE_SIZE, PATCH_SIZE), TEMPORAL_PATCH_SIZE
    cut = frames.view(b, t // pair, pair, *grid, *grid, 3).permute(0, 1, 3, 5, 7, 2, 4, 6)
    return cut.reshape(b * t // pair, PATCHES, -1).float().mul_(1 / 127.5).sub_(1)


def encode(model: Qwen2_5_VLForConditionalGeneration, patches: Tensor) -> tuple[Tensor, Tensor]:
    """The vision tower.

    Args:
        model: The model.
        patches: (P, 16, 1536), see `to_patches`.

    Returns:
        Visual tokens (P, hidden) and the patch states before they are merged (P, 16, vision hidden).
    """
    visual = model.model.visual
    hidden = F.linear(patches, visual.patch_embed.proj.weight.flatten(1)).float()
    # Attention stays within a pair of frames: the tower never mixes times.
    position = get_vision_position_ids(torch.tensor([[1, MERGE_SIZE, MERGE_SIZE]]), MERGE_SIZE, kwargs={})
    cos, sin = (part.float()[None, :, None] for part in visual.rotary_pos_emb(hidden[0], position))
    for block in visual.blocks:
        attention = block.attn
        qkv = attention.qkv(_norm(block.norm1, hidden)).unflatten(-1, (3, attention.num_heads, -1))
        query, key, value = qkv.unbind(2)
        mixed = _attend(_rotate(query, cos, sin), _rotate(key, cos, sin), value)
        hidden = hidden + attention.proj(mixed)
        hidden = hidden + block.mlp(_norm(block.norm2, hidden))
    states = _norm(visual.merger.ln_q, hidden)
    return visual.merger.mlp(states.flatten(1)), states


@dataclass(frozen=True)
class Packed:
    """Conversations about B clips, packed into one row a clip after one shared beginning.

    A row is the beginning (up to and with the user's opening token), the visual block, then turns that see the
    beginning, perhaps the visual block, and nothing of each other: what separate rows would compute.

    Attributes:
        ids: (B, L) token ids; placeholders for the visual tokens.
        labels: (B, L) what each position must predict next, -100 where nothing.
        positions: (B, L) rotary positions; every turn restarts after what it sees.
        group: (B, L) 0 beginning, 1 visual block, 2 and up the turns, -1 padding.
        sees_video: (B, L) whether a token of a turn sees the visual block.
        video_start: Column of the first visual token, the same in every row.
    """

    ids: Tensor
    labels: Tensor
    positions: Tensor
    group: Tensor
    sees_video: Tensor
    video_start: int


def decode(model: Qwen2_5_VLForConditionalGeneration, packed: Packed, features: Tensor) -> Tensor:
    """Hidden states (B, L, hidden) of the language model.

    Args:
        model: The model.
        packed: The conversations.
        features: (B, T / 2, hidden) visual tokens.
    """
    embedded = model.get_input_embeddings()(packed.ids)
    start, end = packed.video_start, packed.video_start + features.shape[1]
    hidden = torch.cat([embedded[:, :start], features.to(embedded.dtype), embedded[:, end:]], dim=1)
    language = model.model.language_model
    cos, sin = language.rotary_emb(hidden.float(), packed.positions.expand(3, -1, -1))
    cos, sin = cos[:, :, None], sin[:, :, None]
    mask = _mask(packed)
    for layer in language.layers:
        attention = layer.self_attn
        normed = _norm(layer.input_layernorm, hidden)
        shape = (*normed.shape[:2], attention.num_heads, -1)
        query, key, value = (p(normed).view(shape) for p in (attention.q_proj, attention.k_proj, attention.v_proj))
        mixed = _attend(_rotate(query, cos, sin), _rotate(key, cos, sin), value, mask)
        hidden = hidden + attention.o_proj(mixed)
        normed, mlp = _norm(layer.post_attention_layernorm, hidden), layer.mlp
        hidden = hidden + mlp.down_proj(F.silu(mlp.gate_proj(normed)) * mlp.up_proj(normed))
    return _norm(language.norm, hidden)


def loss(model: Qwen2_5_VLForConditionalGeneration, packed: Packed, features: Tensor) -> Tensor:
    """Mean cross-entropy over all supervised tokens."""
    supervised = packed.labels != -100
    states = decode(model, packed, features)[supervised]
    return F.cross_entropy(model.lm_head(states).float(), packed.labels[supervised])


def _mask(packed: Packed) -> Tensor:
    """(B, 1, L, L), True where a token (row) sees another (column)."""
    reader, read = packed.group[:, :, None], packed.group[:, None, :]
    seen = (read == reader) | ((read == 0) & (reader > 0)) | ((read == 1) & packed.sees_video[:, :, None])
    return (seen & torch.ones_like(seen[0]).tril())[:, None]


def _norm(module: torch.nn.Module, hidden: Tensor) -> Tensor:
    assert isinstance(module.weight, Tensor)
    return F.rms_norm(hidden, hidden.shape[-1:], module.weight, RMS_EPSILON)


def _rotate(states: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = states.chunk(2, dim=-1)
    return states * cos + torch.cat((-second, first), dim=-1) * sin


def _attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Tensor:
    """Attention over (B, L, heads, size), heads joined; in float32, which is faster here than bfloat16."""
    with torch.autocast("cpu", enabled=False):
        mixed = F.scaled_dot_product_attention(
            query.float().transpose(1, 2), key.float().transpose(1, 2), value.float().transpose(1, 2), attn_mask=mask
        )
    return mixed.transpose(1, 2).flatten(2)
