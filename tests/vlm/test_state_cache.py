"""States on disk are whole or not there, and those of one row never pass for another's."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from tests.support.watch import entries, no_warning

from rbft.vlm.state_cache import StateCache, state_key

KEY, OTHER = "a" * 32, "b" * 32
STATES = torch.randn(5, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float32).to(torch.bfloat16)


def test_what_is_stored_is_read_by_another_process(tmp_path: Path):
    with no_warning():
        StateCache(tmp_path, 10**6, 10**6).store(KEY, STATES)
        again = StateCache(tmp_path, 10**6, 10**6)
        read = again.load(KEY)
        assert read is not None and read.dtype == STATES.dtype and torch.equal(read, STATES)
        shutil.rmtree(tmp_path)
        assert again.load(KEY) is read, "from memory"
        again.clear()
        assert again.load(KEY) is None and again.load(OTHER) is None


@pytest.mark.parametrize("memory", [0, 10**6])
def test_what_is_met_in_inference_can_be_trained_on(tmp_path: Path, memory: int):
    weight = torch.ones(8, requires_grad=True)
    with torch.inference_mode():
        cache = StateCache(tmp_path, 10**6, memory)
        cache.store(KEY, STATES * 2)
        read = [cache.load(KEY), StateCache(tmp_path, 10**6, memory).load(KEY)]
    for states in read:
        assert states is not None
        (states.float() * weight).sum().backward()


def test_a_damaged_entry_is_removed_and_said(tmp_path: Path):
    StateCache(tmp_path, 10**6, 0).store(KEY, STATES)
    (path,) = tmp_path.iterdir()
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.warns(UserWarning, match=r"is damaged \(its content is not as it was written\); it was removed"):
        assert StateCache(tmp_path, 10**6, 0).load(KEY) is None
    assert entries(tmp_path) == entries(tmp_path / "none")
    StateCache(tmp_path, 10**6, 0).store(KEY, STATES)
    (path,) = tmp_path.iterdir()
    path.rename(path.with_name(f"{OTHER}.safetensors"))
    assert StateCache(tmp_path, 10**6, 0).load(OTHER) is None, "of another row"


def test_bounds_hold(tmp_path: Path):
    cache = StateCache(tmp_path / "a", 10**6, STATES.nbytes)
    cache.store(KEY, STATES)
    cache.store(OTHER, STATES)
    shutil.rmtree(tmp_path / "a")
    assert cache.load(KEY) is not None and cache.load(OTHER) is None, "one fits in memory"
    small = StateCache(tmp_path / "b", 10, 10**6)
    with pytest.warns(UserWarning, match=r"cache of states .*Raise data\.state_cache_gb"):
        small.store(KEY, STATES)
    assert small.load(KEY) is not None


def test_each_thing_that_states_depend_on_changes_the_key():
    ids, parents = torch.tensor([1, 2]), torch.tensor([-1, 0])
    keys = {
        state_key("m", "c", ids, parents),
        state_key("n", "c", ids, parents),
        state_key("m", "d", ids, parents),
        state_key("m", "c", ids, ids),
        state_key("m", "c", torch.cat([ids, parents])),
        state_key("m", "c", ids),
        state_key("m", "c", torch.tensor([1]), torch.tensor([2])),
    }
    assert len(keys) == 7
    assert state_key("m", "c", ids.int(), parents) in keys
