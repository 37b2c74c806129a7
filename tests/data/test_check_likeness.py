"""Signatures tell copies from other videos, and say nothing where there is nothing to see."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.display_matrix import EIGHT, shown, write_oriented
from tests.support.scenes import scene
from tests.support.videos import write_video

from rbft.data import perceptual_hash as module
from rbft.data.leaks import near_duplicates
from rbft.data.perceptual_hash import NUM_PICTURES, PICTURE_SIZE, mirrored, most_alike, signature
from rbft.data.records import VideoRecord
from rbft.data.video_facts import inspect_video


def pictures(seed, shift=0.0, noise=0.0):
    frames = scene(seed, NUM_PICTURES, PICTURE_SIZE).transpose(0, 3, 1, 2).astype(np.float32)
    frames += shift + noise * np.random.default_rng(seed + 1).standard_normal(frames.shape)
    return frames.clip(0, 255).astype(np.uint8)


def test_small_changes_stay_alike_and_other_clips_do_not():
    originals = [signature(pictures(seed)) for seed in range(40)]
    changed = [signature(pictures(seed, shift=10, noise=8)) for seed in range(40)]
    best, value = most_alike(changed, originals)
    assert best.tolist() == list(range(40)) and value.min() > 0.9
    _, value = most_alike(originals[:20], originals[20:])
    assert value.max() < 0.6


def test_time_matters():
    one, other, half = pictures(1), pictures(2), NUM_PICTURES // 2
    there = signature(np.concatenate([one[:half], other[half:]]))
    back = signature(np.concatenate([other[:half], one[half:]]))
    _, value = most_alike([back], [there])
    assert value[0] < 0.6


@pytest.mark.parametrize("seed", range(5))
def test_a_mirrored_signature_is_that_of_the_mirrored_pictures(seed):
    found = pictures(seed)
    assert mirrored(signature(found)) == signature(np.ascontiguousarray(found[..., ::-1])) != signature(found)
    assert mirrored(mirrored(signature(found))) == signature(found)
    assert mirrored("") == ""


def test_even_pictures_have_no_signature_and_are_like_nothing():
    gray = np.full((NUM_PICTURES, 3, *PICTURE_SIZE), 128, np.uint8)
    assert signature(gray) == ""
    _, value = most_alike(["", signature(pictures(0))], ["", ""])
    assert value.tolist() == [0, 0]


def test_wrong_pictures_are_refused():
    with pytest.raises(ValueError, match="pictures"):
        signature(np.zeros((4, 3, *PICTURE_SIZE), np.uint8))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 12), st.integers(1, 12), st.integers(1, 5))
def test_blocks_give_what_counting_bit_by_bit_gives(seed, some, others, block):
    rng = np.random.default_rng(seed)
    bits = len(signature(pictures(0))) * 4 // 2

    def draw(count):
        signs = rng.choice([-1, 0, 1], (count, bits), p=[0.2, 0.6, 0.2])
        return signs, [np.packbits(np.concatenate([row > 0, row < 0])).tobytes().hex() for row in signs]

    (left, some_texts), (right, other_texts) = draw(some), draw(others)
    agree = ((left[:, None] == right[None]) & (left[:, None] != 0)).sum(axis=2)
    either = ((left[:, None] != 0) | (right[None] != 0)).sum(axis=2)
    expected = agree / either
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_BLOCK", block)
        best, value = most_alike(some_texts, other_texts)
    np.testing.assert_allclose(value, expected.max(axis=1), rtol=1e-6)
    np.testing.assert_allclose(expected[np.arange(some), best], expected.max(axis=1), rtol=1e-6)


def test_copies_are_found_whatever_way_they_are_stored_and_mirrored_too(tmp_path):
    frames, matrix = scene(3, size=(96, 96)), EIGHT["rows as columns"]
    write_oriented(tmp_path / "camera.mp4", matrix, frames)
    upright = np.stack([shown(frame, matrix) for frame in frames])
    write_video(tmp_path / "converted.mp4", upright, codec_options={"crf": "30"})
    write_video(tmp_path / "mirrored.mp4", np.ascontiguousarray(upright[:, :, ::-1]), codec_options={"crf": "30"})
    names = ("camera.mp4", "converted.mp4", "mirrored.mp4")
    facts = {name: inspect_video(name, tmp_path, name, 60) for name in names}
    for name, said in zip(names[1:], (False, True), strict=True):
        sides = {"train": [VideoRecord("a", "camera.mp4", "x")], "test": [VideoRecord("b", name, "x")]}
        (finding,) = near_duplicates(sides, facts, 0.9, [])
        assert (" mirrored, likeness" in finding.message) == said
