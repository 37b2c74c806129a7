"""A hub that cannot be reached is told within seconds, in one message, and a model in the cache is taken from there."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub import constants
from huggingface_hub.utils import httpx

from rbft.errors import ModelError
from rbft.vlm.hub import require_hub


@pytest.fixture
def online(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    require_hub.cache_clear()
    yield
    require_hub.cache_clear()


def unreachable(*_: object, **__: object) -> None:
    raise httpx.ConnectError("connection refused")


def test_it_ends_within_seconds_with_one_message(tmp_path: Path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: a connection is refused
        address = f"http://127.0.0.1:{taken.getsockname()[1]}"
        code = (
            "import sys, time; sys.argv = ['x']; import transformers; from rbft.vlm.loading import load_config\n"
            "from rbft.errors import ModelError; start = time.monotonic()\n"
            "try: load_config('some/model', None)\n"
            "except ModelError as error: print(error)\n"
            "print(time.monotonic() - start)"
        )
        own = {"HF_ENDPOINT": address, "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "0"}
        environment = {key: value for key, value in os.environ.items() if "proxy" not in key.lower()} | own
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    message, seconds = done.stdout.splitlines()
    assert message.startswith(
        f"model.vlm: 'some/model' is not on this machine, and the hub cannot be reached at {address}"
    )
    assert float(seconds) < 8
    assert "Retrying" not in done.stderr


@pytest.mark.usefixtures("online")
def test_a_model_in_the_cache_is_taken_from_there(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", unreachable)
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_, **__: "/cache/config.json")
    with pytest.warns(UserWarning, match=r"connection refused\): some/model is taken from the cache"):
        require_hub("some/model", None)
    assert constants.HF_HUB_OFFLINE is True


@pytest.mark.usefixtures("online")
def test_an_answer_of_the_hub_is_left_to_the_loading(monkeypatch: pytest.MonkeyPatch):
    asked = []

    def refuses(url: str, **_: object) -> None:
        asked.append(url)
        raise OSError("401")

    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", refuses)
    require_hub("some/model", "main")
    require_hub("some/model", "main")
    assert len(asked) == 1 and asked[0].endswith("some/model/resolve/main/config.json")
    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", unreachable)
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_, **__: None)
    with pytest.raises(ModelError, match="other/model' is not on this machine"):
        require_hub("other/model", None)
