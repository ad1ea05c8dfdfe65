"""Models on the Hugging Face Hub, named ``hf:owner/name`` or ``hf:owner/name@revision``.

Only the files of a model directory are fetched or sent, whatever else a repository holds: nothing that could
run code. Needs the extra ``hf``.
"""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import Any

from raydec.errors import UserError
from raydec.model.directory import CARD_FILE, CENTROIDS_FILE, CONFIG_FILE, WEIGHTS_FILE, load_model

_NAME = re.compile(r"hf:(?P<repository>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w./-]+))?")
_FILES = (WEIGHTS_FILE, CONFIG_FILE, CENTROIDS_FILE, CARD_FILE)


def is_hub_name(name: str | Path) -> bool:
    """Whether a model's name means the Hub and not a folder."""
    return str(name).startswith("hf:")


def local_model(name: str | Path) -> Path:
    """The folder of a model: the one named, or one that was downloaded, this time or earlier.

    Args:
        name: a model directory, or ``hf:owner/name`` with an optional ``@revision`` (branch, tag or commit).

    Raises:
        UserError: a malformed name, ``huggingface_hub`` is not installed, or the Hub has no such model or
            cannot be reached.
    """
    if not is_hub_name(name):
        return Path(name)
    repository, revision = _parse(str(name))
    hub = open_hub()
    try:
        return Path(hub.snapshot_download(repository, revision=revision, allow_patterns=list(_FILES)))
    except Exception as error:  # its errors come from several libraries, with no base class in common
        raise UserError(f"cannot fetch {name}: {_reason(error)}") from None


def upload_model(folder: str | Path, name: str, *, private: bool = False) -> str:
    """Send a model directory to the Hub, making the repository if it is not there.

    Args:
        folder: the model directory; it is read first, so that nothing broken is published.
        name: ``hf:owner/name``, or with ``@branch``.
        private: make a new repository private.

    Returns:
        Where it can be seen.

    Raises:
        UserError: no model directory, a malformed name, ``huggingface_hub`` is not installed, or the Hub
            refuses.
    """
    repository, revision = _parse(name)
    load_model(folder)
    hub = open_hub()
    try:
        hub.create_repo(repository, private=private, exist_ok=True)
        hub.upload_folder(
            repo_id=repository,
            folder_path=str(folder),
            revision=revision,
            allow_patterns=list(_FILES),
            commit_message="Upload a raydec model",
        )
    except Exception as error:  # as above
        raise UserError(f"cannot upload to {name}: {_reason(error)}; try hf auth login") from None
    return f"https://huggingface.co/{repository}"


def open_hub() -> Any:
    """The Hub's client, ``huggingface_hub.HfApi``.

    Raises:
        UserError: it is not installed.
    """
    if importlib.util.find_spec("huggingface_hub") is None:
        raise UserError('models named hf:... need huggingface_hub; install with: pip install "raydec[hf]"')
    from huggingface_hub import HfApi

    return HfApi(library_name="raydec")


def _parse(name: str) -> tuple[str, str | None]:
    found = _NAME.fullmatch(name)
    if found is None:
        raise UserError(f"{name!r} is no model on the Hub; write hf:owner/name or hf:owner/name@revision")
    return found["repository"], found["revision"]


def _reason(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0].rstrip(".") if lines else type(error).__name__
