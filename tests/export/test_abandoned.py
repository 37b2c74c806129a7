"""What a killed export leaves is removed by the next one, and what another one is at is not."""

from __future__ import annotations

import os
from pathlib import Path

from rbft.export.build import _LOCK, _UNFINISHED, _lock_of, _release, _remove_abandoned


def leave(folder: Path, name: str, age: float = 3600.0) -> Path:
    made = folder / f".model.{name}{_UNFINISHED}"
    made.mkdir()
    (made / "weights").touch()
    then = made.stat().st_mtime - age
    os.utime(made, (then, then))
    return made


def test_only_what_nobody_is_at_is_removed(tmp_path: Path):
    killed, young, busy = leave(tmp_path, "a"), leave(tmp_path, "b", age=0.0), leave(tmp_path, "c")
    held = _lock_of(busy)
    held.acquire()
    _remove_abandoned(tmp_path / "model")
    assert not killed.exists() and young.exists() and busy.exists()
    _release(held)
    _remove_abandoned(tmp_path / "model")
    assert not busy.exists() and list(tmp_path.glob(f"*{_LOCK}")) == []
