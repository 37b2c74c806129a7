"""Stored features answer as the vision tower does, to the last bit, and nothing else ever passes for them."""

from __future__ import annotations

import multiprocessing
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.support.models import Loaded, load, make_clip
from tests.support.watch import entries, no_warning

from rbft.vlm.batch import EncodedClip, PromptInputs
from rbft.vlm.feature_cache import FeatureCache, feature_key
from rbft.vlm.generation import generate
from rbft.vlm.loading import load_model
from rbft.vlm.model import VLM
from rbft.vlm.model_parts import parts_of
from rbft.vlm.prompt import Prompt
from rbft.vlm.tuning import LoRA

GB = 10**9
PROMPTS = (
    Prompt("Which action?"),
    Prompt("Explain step by step what happens.", "Be brief."),
    Prompt("Name it: archery, fencing\nor neither?"),
)
CLIPS = (make_clip(0, frames=4), make_clip(1, frames=8), make_clip(2, frames=5))


def asked(loaded: Loaded, prompt: Prompt, number: int) -> PromptInputs:
    """With pixels, as when a clip is seen first."""
    return replace(loaded.processor.prompt_inputs(prompt, CLIPS[number]), key=f"clip{number}")


def recalled(loaded: Loaded, prompt: Prompt, number: int) -> PromptInputs:
    """With stored features."""
    assert loaded.vlm.features is not None
    clip = loaded.vlm.features.load(f"clip{number}")
    assert clip is not None
    return loaded.processor.encoded_inputs(prompt, clip, "clip.mp4")


@pytest.fixture
def cached(loaded: Loaded, tmp_path: Path):
    """The model with its clips stored under `clip0` to `clip2`."""
    loaded.vlm.features = FeatureCache(tmp_path, GB)
    with torch.no_grad():
        loaded.vlm.encode([asked(loaded, PROMPTS[0], number) for number in range(3)])
    yield loaded
    loaded.vlm.features = None


def test_tokens_of_any_prompt_are_those_beside_pixels(cached):
    for prompt in PROMPTS:
        for number in range(3):
            expected, found = asked(cached, prompt, number), recalled(cached, prompt, number)
            assert found.ids.dtype == expected.ids.dtype
            assert torch.equal(found.ids, expected.ids)
            assert (found.types is None) is (expected.types is None)
            if expected.types is not None:
                assert found.types.dtype == expected.types.dtype
                assert torch.equal(found.types, expected.types)
            assert found.vision == {}
            assert found.key is None


@pytest.mark.parametrize("hits", [(True, True, True), (True, False, True)], ids=["all", "some"])
def test_a_pass_over_stored_features_is_the_pass_over_pixels_to_the_last_bit(cached, hits):
    with_pixels = [asked(cached, PROMPTS[number], number) for number in range(3)]
    mixed = [
        recalled(cached, PROMPTS[number], number) if hit else with_pixels[number] for number, hit in enumerate(hits)
    ]
    targets = [cached.target(prompt.question, "the person jumps") for prompt in PROMPTS]
    with torch.no_grad():
        expected, rows = cached.vlm.target_log_probs(with_pixels, targets)
        found, found_rows = cached.vlm.target_log_probs(mixed, targets)
    assert torch.equal(found, expected)
    assert torch.equal(found_rows, rows)
    written = [generate(cached.vlm, prompts, max_new_tokens=5) for prompts in (with_pixels, mixed)]
    assert [[ids.tolist() for ids in row] for row in written[0]] == [
        [ids.tolist() for ids in row] for row in written[1]
    ]


def test_an_entry_holds_all_that_the_encoder_gives(cached, folder):
    encoded = cached.vlm._encoded(replace(asked(cached, PROMPTS[0], 1), key=None))
    stored = cached.vlm.features.load("clip1")
    assert (stored.modality, stored.joined, stored.text) == (encoded.modality, encoded.joined, encoded.text)
    assert torch.equal(stored.features, encoded.features)
    assert len(stored.deepstack) == len(encoded.deepstack) == (2 if folder.name == "qwen3_vl" else 0)
    assert all(map(torch.equal, stored.deepstack, encoded.deepstack))
    assert stored.positions.keys() == encoded.positions.keys()
    assert all(torch.equal(value, encoded.positions[key]) for key, value in stored.positions.items())


def digest_of(folder: Path, dtype="float32", attention: str | None = None, change: Callable | None = None) -> str:
    model = load_model(str(folder), None, dtype, attention)
    if change is not None:
        with torch.no_grad():
            change(model)
    return VLM(model, 0, (1,)).vision_digest("32-true")


def nudge(part: str) -> Callable:
    """Moves one weight of the first parameter whose name holds `part` by one bit."""

    def change(model) -> None:
        weight = next(value for name, value in model.named_parameters() if part in name).view(-1)
        weight[0] = weight[0].nextafter(weight.new_tensor(torch.inf))

    return change


PROJECTORS = {
    "qwen2_vl": "visual.merger.",
    "qwen2_5_vl": "visual.merger.",
    "qwen3_vl": "visual.deepstack_merger_list.",
    "smolvlm": "connector.",
    "llava_onevision": "image_newline",
    "internvl": "multi_modal_projector.",
}


def test_the_digest_is_of_all_that_encodes_and_of_nothing_else(folder, tmp_path):
    plain = digest_of(folder)
    language = "text_model.layers." if folder.name == "smolvlm" else "language_model.layers."
    tower = "visual.blocks." if folder.name.startswith("qwen") else "vision"
    assert digest_of(folder, change=nudge(language)) == plain
    elsewhere = Path(shutil.copytree(folder, tmp_path / "elsewhere"))
    assert digest_of(elsewhere) == plain
    others = [
        digest_of(folder, change=nudge(tower)),
        digest_of(folder, change=nudge(PROJECTORS[folder.name])),
        digest_of(folder, dtype="bfloat16"),
        digest_of(folder, attention="eager"),
        load(folder).vlm.vision_digest("bf16-mixed"),
    ]
    assert len({plain, *others}) == 6


def test_adapters_in_the_language_model_keep_the_digest_and_stay_frozen_towers(folder):
    plain, adapted = load(folder).vlm, load(folder, LoRA()).vlm
    assert adapted.vision_digest() == plain.vision_digest()
    assert adapted.vision_frozen
    parts = parts_of(plain.base)
    tower = [
        name
        for name, module in plain.base.named_modules()
        if isinstance(module, torch.nn.Linear) and parts[f"{name}.weight"] == "vision"
    ]
    inside = load(folder, LoRA(targets=re.escape(tower[0]))).vlm
    assert not inside.vision_frozen, "an adapter in the vision tower trains it"
    assert inside.vision_digest() != plain.vision_digest()


# -- the folder, whatever the family


def clip_of(seed: int = 0, dtype: torch.dtype = torch.float32) -> EncodedClip:
    generator = torch.Generator().manual_seed(seed)
    features, *levels = torch.randn((3, 24, 64), generator=generator).to(dtype)
    positions = {"video_grid_thw": torch.tensor([[2, 4, 6]]), "second_per_grid_ts": torch.tensor([0.4])}
    return EncodedClip("video", features, tuple(levels), False, positions, "<0.1 seconds>\n<video>ü")


def same(one: EncodedClip, other: EncodedClip) -> bool:
    tensors = [
        (clip.features, *clip.deepstack, *(clip.positions[key] for key in sorted(clip.positions)))
        for clip in (one, other)
    ]
    return all(
        left.dtype == right.dtype and torch.equal(left, right) for left, right in zip(*tensors, strict=True)
    ) and ((one.modality, one.joined, one.text) == (other.modality, other.joined, other.text))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_a_stored_clip_comes_back_as_it_was(tmp_path, dtype):
    with no_warning():
        FeatureCache(tmp_path, GB).store("a", clip_of(dtype=dtype))
        assert same(FeatureCache(tmp_path, GB).load("a"), clip_of(dtype=dtype))
        assert FeatureCache(tmp_path, GB).load("b") is None
        assert FeatureCache(tmp_path / "nowhere", GB).load("a") is None


def test_whoever_writes_to_features_writes_to_a_copy(tmp_path):
    cache = FeatureCache(tmp_path, GB)
    cache.store("a", clip_of())
    (entry,) = entries(tmp_path)
    content = entry.read_bytes()
    mine, other = cache.load("a"), cache.load("a")
    mine.features.fill_(7)
    assert same(other, clip_of())
    assert entry.read_bytes() == content


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_rows_in_use_keep_no_file_open(tmp_path):
    cache = FeatureCache(tmp_path, GB)
    for number in range(20):
        cache.store(str(number), clip_of(number))
    before = open_files()
    rows = [cache.load(str(number % 20)) for number in range(2000)]
    assert open_files() <= before + 1
    assert same(rows[-1], clip_of(19))
    mapped = Path("/proc/self/maps").read_text().count(str(tmp_path))
    del rows
    assert Path("/proc/self/maps").read_text().count(str(tmp_path)) < mapped / 100


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda content: b"",
    "in its head": lambda content: content[:5],
    "in its header": lambda content: content[:60],
    "in its numbers": lambda content: content[: len(content) // 2],
    "one byte short": lambda content: content[:-1],
    "too long": lambda content: content + b"\0",
    "one bit": lambda content: content[:-5] + bytes([content[-5] ^ 1]) + content[-4:],
    "other words": lambda content: content.replace(b"seconds>", b"minutes>"),
    "other shape": lambda content: content.replace(b'"shape":[24,64]', b'"shape":[64,24]'),
    "nothing": lambda content: b"\0" * len(content),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_entry_is_removed_and_said_once(tmp_path, damage):
    cache = FeatureCache(tmp_path, GB)
    for number in range(2):
        cache.store(str(number), clip_of(number))
    for entry in entries(tmp_path):
        content = entry.read_bytes()
        assert damage(content) != content
        entry.write_bytes(damage(content))
    with pytest.warns(UserWarning, match=r"feature cache .*damaged .* removed and the video encoded again") as said:
        assert [cache.load(str(number)) for number in range(2)] == [None, None]
    assert len(said) == 1
    assert entries(tmp_path) == []
    cache.store("0", clip_of(0))
    assert same(cache.load("0"), clip_of(0))


def test_a_foreign_entry_is_refused(tmp_path):
    cache = FeatureCache(tmp_path, GB)
    cache.store("mine", clip_of(0))
    cache.store("other", clip_of(1))
    shutil.copy(tmp_path / "other.safetensors", tmp_path / "mine.safetensors")
    with pytest.warns(UserWarning, match="of another clip"):
        assert cache.load("mine") is None
    # somebody's features without a word on where they are from
    save_file(load_file(tmp_path / "other.safetensors"), tmp_path / "other.safetensors")
    assert cache.load("other") is None
    assert entries(tmp_path) == []


def test_each_part_and_its_place_make_the_key():
    assert len({feature_key("a", "b", "c"), feature_key("b", "a", "c"), feature_key("ab", "", "c")}) == 3
    assert feature_key("a", "b") == feature_key("a", "b")


def test_the_limit_holds_and_names_its_setting(tmp_path):
    FeatureCache(tmp_path / "probe", GB).store("0", clip_of())
    size = entries(tmp_path / "probe")[0].stat().st_size
    cache = FeatureCache(tmp_path / "full", 2 * size + 100)
    with pytest.warns(UserWarning, match=r"its limit is .*data\.feature_cache_gb.*encoded every time") as said:
        for number in range(5):
            cache.store(str(number), clip_of(number))
    assert len(said) == 1
    assert len(entries(cache.folder)) == 2
    assert same(cache.load("1"), clip_of(1)), "a full cache is still read"


def test_a_folder_that_cannot_be_written_to_names_its_setting(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.warns(UserWarning, match=r"cannot be written to .*data\.cache_features") as said:
        for number in range(2):
            FeatureCache(tmp_path / "file" / "features", GB).store(str(number), clip_of())
    assert len(said) == 1


def test_the_folders_made_on_the_way_are_private_too(tmp_path):
    FeatureCache(tmp_path / "cache" / "features", GB).store("0", clip_of())
    assert [path.stat().st_mode & 0o777 for path in (tmp_path / "cache", tmp_path / "cache" / "features")] == [
        0o700
    ] * 2


def _store_all(folder: Path, start) -> None:
    start.wait()
    cache = FeatureCache(folder, GB)
    for number in range(10):
        cache.store(str(number), clip_of(number))
        assert same(cache.load(str(number)), clip_of(number))


def test_processes_store_the_same_entries_at_once(tmp_path):
    context = multiprocessing.get_context("fork")
    start = context.Barrier(4)
    processes = [context.Process(target=_store_all, args=(tmp_path, start)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 4
    assert {entry.suffix for entry in entries(tmp_path)} == {".safetensors"}
    assert len(entries(tmp_path)) == 10
