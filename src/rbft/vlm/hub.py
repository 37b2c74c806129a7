"""Whether the hub of models can be reached: asked once, and answered within seconds."""

from __future__ import annotations

from functools import cache

from rbft.errors import ModelError, warn

_PATIENCE = 5.0
"""Seconds that the hub has for its first answer."""


@cache
def require_hub(name: str, revision: str | None) -> None:
    """Ask for a model's configuration once, where its libraries would try six times for each of its files.

    Where the hub cannot be reached and the model is in the cache, this process takes it from there and says so.

    Args:
        name: a hub id.
        revision: revision of it.

    Raises:
        ModelError: The hub cannot be reached, and the model is not in the cache.
    """
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url, try_to_load_from_cache
    from huggingface_hub.errors import HfHubHTTPError
    from huggingface_hub.utils import httpx  # the client it was built on, which differs by version

    if constants.HF_HUB_OFFLINE:
        return
    try:
        get_hf_file_metadata(hf_hub_url(name, "config.json", revision=revision), timeout=_PATIENCE)
    except httpx.TransportError as error:
        unreachable = (
            f"the hub cannot be reached at {constants.ENDPOINT} ({str(error).strip() or type(error).__name__})"
        )
        if not isinstance(try_to_load_from_cache(name, "config.json", revision=revision), str):
            raise ModelError(
                f"model.vlm: {name!r} is not on this machine, and {unreachable}. Give a local folder or "
                "`builtin/tiny`, or try again with a connection (HF_ENDPOINT: another address; HTTPS_PROXY: a proxy)."
            ) from error
        warn(f"{unreachable}: {name} is taken from the cache.")
        constants.HF_HUB_OFFLINE = True
    except (HfHubHTTPError, OSError, ValueError):
        # there is an answer: what it means, the loading of the model says
        return
