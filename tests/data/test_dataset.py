"""A row is the clip of its video after its question, with the answer's tokens and its weight."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests.support.videos import write_video

from rbft.data.dataset import Example, ExampleDataset
from rbft.data.records import VideoRecord
from rbft.data.sampler import Draw
from rbft.errors import VideoError
from rbft.video.clip import read_clip
from rbft.video.clip_spec import ClipSpec
from rbft.video.sampling import FrameSampling
from rbft.vlm.batch import Item
from rbft.vlm.processing import ClipProcessor
from rbft.vlm.prompt import Prompt

PROMPT = Prompt("Which action does this video show?")
UNIFORM = ClipSpec(FrameSampling(num_frames=4))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    for number in range(2):
        write_video(folder / f"{number}.mp4", num_frames=24 + number, size=(48, 64))
    return folder


@pytest.fixture(scope="module")
def processor(family_folder: Callable[[str], Path]) -> ClipProcessor:
    return ClipProcessor(str(family_folder("qwen2_5_vl")))


def examples() -> list[Example]:
    records = [VideoRecord(str(i), f"{i}.mp4", "archery") for i in range(2)]
    return [Example(records[0], PROMPT, "archery"), Example(records[1], PROMPT, "push up fast", weight=0.25)]


def one(dataset: ExampleDataset, number: int, seed: int = 0, weight: float = 1.0) -> Item:
    """The row of a clip about which one thing is asked."""
    (item,) = dataset[draw(number, seed, weight)]
    return item


def draw(clip: int, seed: int = 0, weight: float = 1.0) -> Draw:
    return Draw(clip, (0, 0, seed), weight, 7.0)


def test_rows_hold_the_clip_of_their_video(root, processor):
    dataset = ExampleDataset(examples(), root, UNIFORM, processor)
    assert len(dataset) == 2
    for number in range(2):
        item = one(dataset, number)
        expected = processor.prompt_inputs(PROMPT, read_clip(f"{number}.mp4", UNIFORM, root=root))
        assert item.index == number
        assert torch.equal(item.prompt.ids, expected.ids)
        assert torch.equal(item.prompt.vision["pixel_values_videos"], expected.vision["pixel_values_videos"])
        assert item.target.tolist() == processor.target_ids(PROMPT, examples()[number].answer).tolist()
        assert item.normalizer == 7.0


def test_weights_multiply_and_fillers_weigh_nothing(root, processor):
    dataset = ExampleDataset(examples(), root, UNIFORM, processor)
    weights = [one(dataset, 0).weight, one(dataset, 1).weight, one(dataset, 1, weight=0.0).weight]
    lengths = [len(processor.target_ids(PROMPT, example.answer)) for example in examples()]
    mean = (lengths[0] + 0.25 * lengths[1]) / sum(lengths)
    assert weights == pytest.approx([1.0 / mean, 0.25 / mean, 0.0])
    assert dataset.supervised == lengths


def test_rows_without_an_answer_supervise_nothing(root, processor):
    dataset = ExampleDataset([Example(examples()[0].record, PROMPT)], root, UNIFORM, processor)
    assert one(dataset, 0).target.tolist() == []
    assert dataset.supervised == [0]


def test_random_frames_follow_the_draw_alone(root, processor):
    dataset = ExampleDataset(examples(), root, UNIFORM.with_mode("random"), processor)
    pixels = [one(dataset, 0, seed).prompt.vision["pixel_values_videos"] for seed in (1, 1, 2)]
    assert torch.equal(pixels[0], pixels[1])
    assert not torch.equal(pixels[0], pixels[2])


def test_all_that_is_asked_about_a_clip_comes_together(root, processor):
    first, second = examples()
    asked = [first, second, replace(first, prompt=Prompt("Why?"), answer="a door"), replace(first, answer="push")]
    dataset = ExampleDataset(asked, root, UNIFORM, processor)
    assert (len(dataset), dataset.clips) == (2, [[0, 2, 3], [1]])
    lengths = [len(processor.target_ids(example.prompt, example.answer)) for example in asked]
    assert dataset.supervised == [lengths[0] + lengths[2] + lengths[3], lengths[1]]
    assert dataset.lengths == [lengths[0] + lengths[2] + lengths[3], lengths[1]]
    weight = one(dataset, 1).weight / 0.25
    items = dataset[draw(0, weight=0.5)]
    clip = read_clip("0.mp4", UNIFORM, root=root)
    for item, number in zip(items, (0, 2, 3), strict=True):
        expected = processor.prompt_inputs(asked[number].prompt, clip)
        assert (item.index, item.weight) == (number, 0.5 * weight)
        assert torch.equal(item.prompt.ids, expected.ids)
        assert torch.equal(item.prompt.types, expected.types)
        assert item.prompt.vision is items[0].prompt.vision
        assert item.target.tolist() == processor.target_ids(asked[number].prompt, asked[number].answer).tolist()


@pytest.mark.parametrize("cells", [1, 2, 6])
def test_max_pixels_bounds_the_visual_tokens(root, processor, cells):
    spec = processor.clip_spec(UNIFORM.sampling, max_pixels=cells * processor.cell**2)
    item = one(ExampleDataset(examples(), root, spec, processor), 0)
    full = one(ExampleDataset(examples(), root, UNIFORM, processor), 0)
    clip = read_clip("0.mp4", spec, root)
    expected = processor.prompt_inputs(PROMPT, clip, sized=True)
    assert torch.equal(item.prompt.vision["pixel_values_videos"], expected.vision["pixel_values_videos"])
    # four frames, two by two in time
    assert 0 < processor.count_visual_tokens(item.prompt.ids) <= 2 * cells
    assert processor.count_visual_tokens(item.prompt.ids) < processor.count_visual_tokens(full.prompt.ids)


def test_a_video_outside_the_root_is_not_read(root, processor, tmp_path):
    inside = tmp_path / "data"
    inside.mkdir()
    (inside / "0.mp4").symlink_to(root / "0.mp4")
    dataset = ExampleDataset(examples(), inside, UNIFORM, processor)
    with pytest.raises(VideoError, match=r"0\.mp4"):
        dataset[draw(0)]


def test_frames_that_a_seed_draws_are_the_same_every_time_and_another_clip(root, processor):
    rows = [replace(examples()[0], frames_seed=seed) for seed in (None, 3, 3, 4)]
    dataset = ExampleDataset(rows, root, UNIFORM, processor)
    assert dataset.clips == [[0], [1, 2], [3]], "rows about the same frames stand together"
    plain, drawn, other = (dataset[draw(number)][0].prompt.vision["pixel_values_videos"] for number in range(3))
    assert not torch.equal(plain, drawn) and not torch.equal(drawn, other)
    again = dataset[draw(1, seed=9)][0].prompt.vision["pixel_values_videos"]
    assert torch.equal(drawn, again), "whatever epoch it is"


def test_another_video_to_compare_with_comes_along(root, processor):
    mine, other = examples()
    dataset = ExampleDataset([replace(mine, contrast=other.record)], root, UNIFORM, processor)
    (item,) = dataset[draw(0)]
    alone = one(ExampleDataset([replace(other, prompt=mine.prompt)], root, UNIFORM, processor), 0)
    assert item.prompt.other is not None and item.prompt.other.video == "1.mp4"
    assert torch.equal(item.prompt.other.vision["pixel_values_videos"], alone.prompt.vision["pixel_values_videos"])
    assert not torch.equal(item.prompt.vision["pixel_values_videos"], alone.prompt.vision["pixel_values_videos"])
    assert item.prompt.to("meta").other.ids.device.type == "meta"


def test_an_answer_that_is_yet_to_be_written_counts_as_one(root, processor):
    rows = [replace(example, answer=None, whole=True, weight=1.0) for example in examples()]
    dataset = ExampleDataset(rows, root, UNIFORM, processor)
    assert dataset.supervised == [1, 1] and dataset.lengths == [0, 0]
    assert one(dataset, 0).weight == 1.0
