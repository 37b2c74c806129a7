"""Upload of an export to the Hugging Face Hub, only when it is asked for."""

from __future__ import annotations

import os
from pathlib import Path

from rbft.errors import ConfigError, StageError

TOKEN = "HF_TOKEN"


def require_pushable(repo: str) -> str:
    """The token to push with.

    Raises:
        ConfigError: There is none, or the name is no repository's.
    """
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(repo)
    except HFValidationError as error:
        raise ConfigError(f"--push {repo}: no name of a repository ({error}); say NAME/REPOSITORY.") from error
    token = os.environ.get(TOKEN)
    if not token:
        raise ConfigError(f"--push {repo}: set the environment variable {TOKEN} to a token that may write there.")
    return token


def push(folder: Path, repo: str, token: str, *, public: bool) -> str:
    """Upload a folder; a repository that is not there yet is made.

    Args:
        folder: The export.
        repo: `NAME/REPOSITORY`.
        token: May write there.
        public: Whether a new repository is open to everybody.

    Returns:
        Where it is.

    Raises:
        StageError: The hub refused or could not be reached.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError
    from huggingface_hub.utils import httpx  # the client it was built on, which differs by version

    api = HfApi(token=token)
    try:
        made = api.create_repo(repo, private=not public, exist_ok=True)
        api.upload_folder(repo_id=made.repo_id, folder_path=folder, commit_message="rbft export")
    except (HfHubHTTPError, httpx.HTTPError, OSError, ValueError) as error:
        reason = str(error).strip().split("\n")[0].replace(token, "***")
        raise StageError(f"--push {repo}: the hub did not take it ({reason}). The export is in {folder}.") from error
    return str(made)
