"""Fixtures for all tests: small real videos, tiny models of each family, and the folder of real media."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

# one thread: the models are tiny, and threads of several processes would only wait for each other
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import pytest


@pytest.fixture(autouse=True, scope="session")
def clip_cache_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Tests, and the processes they start, keep decoded clips in a folder of the session, never in the user's own."""
    folder = tmp_path_factory.mktemp("clips")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RBFT_CACHE", str(folder))
        yield folder


@pytest.fixture(autouse=True)
def no_process_group() -> Iterator[None]:
    """A test must not leave a process group to the next one, nor what Lightning tells the processes of one."""
    yield
    import torch.distributed as dist

    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()
    for name in ("LOCAL_RANK", "NODE_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        os.environ.pop(name, None)


@pytest.fixture(scope="session")
def media_root() -> Path:
    """The folder of real videos named by RBFT_MEDIA; tests that need it are skipped without."""
    named = os.environ.get("RBFT_MEDIA")
    if not named:
        pytest.skip("real videos: set RBFT_MEDIA to their folder")
    root = Path(named)
    assert root.is_dir(), f"RBFT_MEDIA={named} is no folder"
    return root


@pytest.fixture(scope="session")
def tokenizers_root() -> Path:
    """The folder of published tokenizers named by RBFT_TOKENIZERS; tests that need it are skipped without."""
    named = os.environ.get("RBFT_TOKENIZERS")
    if not named:
        pytest.skip("published tokenizers: set RBFT_TOKENIZERS to their folder")
    root = Path(named)
    assert root.is_dir(), f"RBFT_TOKENIZERS={named} is no folder"
    return root


@pytest.fixture(scope="session")
def family_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Tiny random models of the six families, each built once a session."""
    from tests.support.families import build_family

    built: dict[str, Path] = {}

    def build(name: str) -> Path:
        if name not in built:
            built[name] = build_family(name, tmp_path_factory.mktemp("models") / name)
        return built[name]

    return build
