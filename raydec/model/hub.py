"""Models on the Hugging Face Hub, named ``hf:owner/name`` or ``hf:owner/name@revision``.

Only the files of a model directory are downloaded or uploaded, so other files of a repository, such as code,
are ignored. Needs the extra ``hf``.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

from raydec.errors import UserError
from raydec.features.encoder_source import PATTERNS
from raydec.files.hub import is_hub_name, parse_hub_name, reason
from raydec.model.bundle import BUNDLE_FOLDER
from raydec.model.directory import CARD_FILE, CENTROIDS_FILE, CONFIG_FILE, WEIGHTS_FILE, load_model

_FILES = (WEIGHTS_FILE, CONFIG_FILE, CENTROIDS_FILE, CARD_FILE)
_ENCODER_FILES = tuple(f"{BUNDLE_FOLDER}/{pattern}" for pattern in PATTERNS)


def local_model(name: str | Path) -> Path:
    """The folder of a model: the named folder, or the local copy of a model on the Hub, downloaded if needed.

    Args:
        name: a model directory, or ``hf:owner/name`` with an optional ``@revision`` (branch, tag or commit).

    Raises:
        UserError: a malformed name, ``huggingface_hub`` is not installed, or the Hub has no such model or
            cannot be reached.
    """
    if not is_hub_name(name):
        return Path(name)
    repository, revision = parse_hub_name(str(name))
    hub = open_hub()
    try:
        return Path(
            hub.snapshot_download(repository, revision=revision, allow_patterns=[*_FILES, *_ENCODER_FILES])
        )
    except Exception as error:  # errors come from several libraries and have no common base class
        raise UserError(f"cannot fetch {name}: {reason(error)}") from None


def upload_model(folder: str | Path, name: str, *, private: bool = False) -> str:
    """Upload a model directory to the Hub; the repository is created if it does not exist.

    Args:
        folder: the model directory; it is loaded first, so that no broken model is published.
        name: ``hf:owner/name``, or with ``@branch``.
        private: make a new repository private.

    Returns:
        URL of the model.

    Raises:
        UserError: not a model directory, a malformed name, ``huggingface_hub`` is not installed, or the Hub
            refuses the upload.
    """
    repository, revision = parse_hub_name(name)
    load_model(folder)
    hub = open_hub()
    try:
        hub.create_repo(repository, private=private, exist_ok=True)
        hub.upload_folder(
            repo_id=repository,
            folder_path=str(folder),
            revision=revision,
            allow_patterns=[*_FILES, *_ENCODER_FILES],
            commit_message="Upload a raydec model",
        )
    except Exception as error:  # as above
        raise UserError(f"cannot upload to {name}: {reason(error)}; try hf auth login") from None
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
