"""Dense targets of the vision phase, and the throw-away heads that predict them."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rbft.worlds.events import ACTIONS
from rbft.worlds.scenes import COLOURS, FIELD, SHAPES, Scenes
from tools.tiny_vlm.architecture import HIDDEN, VISION_HIDDEN
from tools.tiny_vlm.tokenizer import MERGE_SIZE, PATCH_SIZE, TEMPORAL_PATCH_SIZE

NUM_COLOURS, NUM_SHAPES, NUM_ACTIONS = len(COLOURS), len(SHAPES), len(ACTIONS)
IGNORE = -100
_BLINK = ACTIONS.index("blink")


@dataclass(frozen=True)
class DenseTargets:
    """What each pair of frames shows; P = clips * 4 pairs, one visual token each.

    Attributes:
        present: (P, colours) 0.0 or 1.0.
        shape: (P, colours), -100 where absent.
        place: (P, colours, 3) x, y and radius, scaled to about -1..1.
        action: (P, colours) the action at the second frame, -100 where absent or undecidable.
        patch_colour: (P, 16) colour of the nearest object over a patch, `NUM_COLOURS` for none.
        patch_shape: (P, 16) likewise, `NUM_SHAPES` for none.
        patch_action: (P, 16) likewise, -100 for none.
        patch_offset: (P, 16, 2) from the patch's centre to the object's, in patches.
    """

    present: Tensor
    shape: Tensor
    place: Tensor
    action: Tensor
    patch_colour: Tensor
    patch_shape: Tensor
    patch_action: Tensor
    patch_offset: Tensor

    def take(self, pairs: Tensor) -> DenseTargets:
        """The targets of these pairs."""
        return DenseTargets(**{f.name: getattr(self, f.name)[pairs] for f in fields(self)})


def dense_targets(scenes: Scenes) -> DenseTargets:
    """Targets of N clips of eight frames."""
    n, _, t = scenes.visible.shape
    pairs = t // TEMPORAL_PATCH_SIZE
    split = (n, 2, pairs, TEMPORAL_PATCH_SIZE)
    visible = scenes.visible.reshape(split)
    shown = np.any(visible, axis=-1)  # (N, 2, pairs)
    centre = scenes.centres.reshape(*split, 2).mean(3)
    radius = scenes.radii.reshape(split).mean(-1)
    acting = scenes.acting.reshape(split)
    # Motion within a pair is that of its second frame; half a blink looks like something else.
    undecidable = np.not_equal(acting[..., 0] == _BLINK, acting[..., 1] == _BLINK)
    action = np.where(shown & ~undecidable, acting[..., 1], IGNORE)

    present = np.zeros((n, pairs, NUM_COLOURS), np.float32)
    shape = np.full((n, pairs, NUM_COLOURS), IGNORE)
    place = np.zeros((n, pairs, NUM_COLOURS, 3), np.float32)
    colour_action = np.full((n, pairs, NUM_COLOURS), IGNORE)
    for slot in range(2):
        clips = np.nonzero(scenes.num_objects > slot)[0]
        colour, there = scenes.colours[clips, slot], shown[clips, slot]
        where = np.concatenate([centre[clips, slot] * 2 / FIELD - 1, radius[clips, slot, :, None] / 6 - 1.6], axis=-1)
        present[clips, :, colour] = there
        shape[clips, :, colour] = np.where(there, scenes.shapes[clips, slot, None], IGNORE)
        place[clips, :, colour] = where * there[..., None]
        colour_action[clips, :, colour] = action[clips, slot]

    # Centre of what can be seen of each object, and the nearest object over each patch.
    weight = visible.astype(np.float32)
    middle = (scenes.centres.reshape(*split, 2) * weight[..., None]).sum(3)
    middle /= np.maximum(weight.sum(-1), 1)[..., None]
    grid = PATCH_SIZE / 2 + PATCH_SIZE * np.arange(MERGE_SIZE, dtype=np.float32)
    patch = np.stack(np.meshgrid(grid, grid), axis=-1).reshape(-1, 2)
    offset = middle[:, :, :, None] - patch  # (N, 2, pairs, 16, 2)
    over = (np.abs(offset) < (PATCH_SIZE / 2 + 0.6 * radius)[..., None, None]).all(-1) & shown[..., None]
    distance = np.where(over, (offset**2).sum(-1), np.inf)
    nearest = distance.argmin(1)  # (N, pairs, 16)
    hit = over.any(1)
    clip, pair = np.arange(n)[:, None, None], np.arange(pairs)[None, :, None]
    patch_offset = np.where(nearest[..., None] == 0, offset[:, 0], offset[:, 1]) / PATCH_SIZE

    def tensor(array: np.ndarray) -> Tensor:
        return torch.from_numpy(array).flatten(0, 1)

    return DenseTargets(
        present=tensor(present),
        shape=tensor(shape),
        place=tensor(place),
        action=tensor(colour_action),
        patch_colour=tensor(np.where(hit, scenes.colours[clip, nearest], NUM_COLOURS)),
        patch_shape=tensor(np.where(hit, scenes.shapes[clip, nearest], NUM_SHAPES)),
        patch_action=tensor(np.where(hit, action[clip, nearest, pair], IGNORE)),
        patch_offset=tensor((patch_offset * hit[..., None]).astype(np.float32)),
    )


class DenseHeads(nn.Module):
    """Linear read-outs of the visual tokens (per colour) and of the patch states."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.token_sizes = [1, NUM_SHAPES, 3, NUM_ACTIONS]
        self.patch_sizes = [NUM_COLOURS + 1, NUM_SHAPES + 1, NUM_ACTIONS, 2]
        self.token_head = nn.Linear(HIDDEN, NUM_COLOURS * sum(self.token_sizes))
        self.patch_head = nn.Linear(VISION_HIDDEN, sum(self.patch_sizes))
        for head in (self.token_head, self.patch_head):
            nn.init.normal_(head.weight, 0, 0.5 * head.in_features**-0.5, generator=generator)
            nn.init.zeros_(head.bias)

    def forward(self, tokens: Tensor, patches: Tensor, targets: DenseTargets) -> dict[str, Tensor]:
        """The weighted loss of each target.

        Args:
            tokens: (P, hidden) visual tokens.
            patches: (P, 16, vision hidden) patch states.
            targets: The truth.
        """
        present, shape, place, action = self.read_tokens(tokens)
        there = targets.present > 0
        colour, patch_shape, patch_action, offset = self.patch_head(patches).float().split(self.patch_sizes, dim=-1)
        hit = targets.patch_colour < NUM_COLOURS
        return {
            "present": 3 * F.binary_cross_entropy_with_logits(present, targets.present),
            "shape": 2.5 * F.cross_entropy(shape[there], targets.shape[there]),
            "place": 5 * F.smooth_l1_loss(place[there], targets.place[there], beta=0.1),
            "action": F.cross_entropy(action[there], targets.action[there], ignore_index=IGNORE),
            "patch_colour": F.cross_entropy(colour.flatten(0, 1), targets.patch_colour.flatten()),
            "patch_shape": 2 * F.cross_entropy(patch_shape.flatten(0, 1), targets.patch_shape.flatten()),
            "patch_action": F.cross_entropy(
                patch_action.flatten(0, 1), targets.patch_action.flatten(), ignore_index=IGNORE
            ),
            "patch_offset": 2 * F.smooth_l1_loss(offset[hit], targets.patch_offset[hit], beta=0.1),
        }

    def read_tokens(self, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Per colour: presence (P, 6), shape (P, 6, 5), place (P, 6, 3) and action (P, 6, 8), as logits or values."""
        out = self.token_head(tokens).float().unflatten(-1, (NUM_COLOURS, -1))
        present, shape, place, action = out.split(self.token_sizes, dim=-1)
        return present[..., 0], shape, place, action
