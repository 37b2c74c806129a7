"""A signature of what a clip shows, by which copies, re-encodings and clips of one scene are found."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

NUM_PICTURES = 8
"""Pictures of a clip that the signature describes, uniformly spaced."""

PICTURE_SIZE = (64, 64)
"""Height and width of these pictures; a larger step down to the grid would exceed the scaler's filters."""

_GRID = 8
_SHAPE = (NUM_PICTURES, 3, *PICTURE_SIZE)
_NOISE = 8.0  # grey levels of 255; coding noise and flat areas stay below, so that they tell nothing
_MIN_EDGES = 64  # of 896; with fewer, likeness is a matter of chance
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601
_BLOCK = 2048  # signatures; two blocks and what comes of them take about 60 MB


def signature(pictures: np.ndarray) -> str:
    """Where a clip is brighter to the right and below, and where darker, in hexadecimal; "" if it is too even to tell.

    A difference hash (of neighbours in an 8 x 8 grid, both ways) that has a third answer, "no difference": plain
    backgrounds would otherwise agree in most bits whatever moves before them.

    Args:
        pictures: (8, 3, 64, 64) uint8 RGB, uniformly spaced in time.
    """
    if pictures.shape != _SHAPE:
        raise ValueError(f"a signature is made of pictures {_SHAPE}, not {pictures.shape}")
    height, width = PICTURE_SIZE
    brightness = np.tensordot(pictures.astype(np.float32), _LUMA, axes=(1, 0))
    blocks = brightness.reshape(NUM_PICTURES, _GRID, height // _GRID, _GRID, width // _GRID).mean(axis=(2, 4))
    steps = np.concatenate([np.diff(blocks, axis=axis).ravel() for axis in (1, 2)])
    up, down = steps > _NOISE, steps < -_NOISE
    if np.count_nonzero(up | down) < _MIN_EDGES:
        return ""
    return np.packbits(np.concatenate([up, down])).tobytes().hex()


def mirrored(text: str) -> str:
    """The signature of the clip whose pictures are mirrored left to right."""
    if not text:
        return ""
    bits = np.unpackbits(np.frombuffer(bytes.fromhex(text), np.uint8)).reshape(2, 2, -1)
    down = bits[:, 0].reshape(2, NUM_PICTURES, _GRID - 1, _GRID)[..., ::-1]
    right = bits[::-1, 1].reshape(2, NUM_PICTURES, _GRID, _GRID - 1)[..., ::-1]  # what rose to the right falls now
    return np.packbits(np.stack([down.reshape(2, -1), right.reshape(2, -1)], axis=1)).tobytes().hex()


def most_alike(some: Sequence[str], others: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """For each clip the one of `others` that it is most like.

    Likeness is the Jaccard index of two signatures' differences by direction, place and time. 1 is the same; a coarser
    re-encoding of a filmed clip stays above 0.9, the same camera at another time is often above 0.85, and clips that
    have nothing in common lie below 0.8.

    Args:
        some: N signatures.
        others: M signatures, at least one.

    Returns:
        Positions in `others`, int64 (N,), and likenesses, float32 (N,); likeness to or of "" is 0.
    """
    best = np.zeros(len(some), np.int64)
    value = np.zeros(len(some), np.float32)
    for column in range(0, len(others), _BLOCK):
        right, right_known = _signs(others[column : column + _BLOCK])
        for row in range(0, len(some), _BLOCK):
            left, left_known = _signs(some[row : row + _BLOCK])
            both = left_known @ right_known.T
            same = (left @ right.T + both) / 2  # the product counts agreements less disagreements
            either = left_known.sum(axis=1)[:, None] + right_known.sum(axis=1)[None] - both
            alike = same / np.maximum(either, 1)
            nearest = alike.argmax(axis=1)
            top = alike[np.arange(len(left)), nearest]
            rows = np.flatnonzero(top > value[row : row + len(left)])
            value[row + rows], best[row + rows] = top[rows], column + nearest[rows]
    return best, value


def _signs(signatures: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """The differences (N, D) as -1, 0, 1, and whether there is one; as float32 for fast products."""
    bits = 2 * NUM_PICTURES * 2 * _GRID * (_GRID - 1)
    empty = bytes(bits // 8)
    packed = np.frombuffer(b"".join(bytes.fromhex(text) or empty for text in signatures), np.uint8)
    up, down = np.split(np.unpackbits(packed.reshape(len(signatures), -1), axis=1).astype(np.float32), 2, axis=1)
    return up - down, up + down
