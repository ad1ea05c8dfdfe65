"""Recovery when Ray Train's list of checkpoints is damaged.

Ray Train overwrites the list in place. If the disk is full or the machine dies at that moment, the list is
truncated and Ray Train refuses to start, although the checkpoints themselves still exist.
"""

from __future__ import annotations

import json
import logging
import tempfile
from pathlib import Path

from pyarrow import fs

from raydec.errors import UserError
from raydec.files.storage import CHECKPOINT_FOLDER

SNAPSHOT_FILE = "checkpoint_manager_snapshot.json"
logger = logging.getLogger(__name__)


def mend_snapshot(run_folder: str) -> str | None:
    """Delete the list of checkpoints if it is damaged.

    Args:
        run_folder: absolute path or URI.

    Returns:
        Path or URI of the newest readable checkpoint, from which to start; None if the list is intact or does
        not exist, or if no checkpoint is readable.
    """
    storage, root = fs.FileSystem.from_uri(run_folder)
    snapshot = f"{root}/{CHECKPOINT_FOLDER}/{SNAPSHOT_FILE}"
    if storage.get_file_info(snapshot).type != fs.FileType.File or _is_readable(storage, snapshot):
        return None
    storage.delete_file(snapshot)
    selector = fs.FileSelector(f"{root}/{CHECKPOINT_FOLDER}")
    folders = [info for info in storage.get_file_info(selector) if info.type == fs.FileType.Directory]
    for folder in sorted(folders, key=lambda info: info.base_name, reverse=True):
        if folder.base_name.startswith("epoch-") and _is_complete(storage, folder.path):
            logger.warning("the list of checkpoints was damaged; resuming from %s", folder.base_name)
            return f"{run_folder.rstrip('/')}/{CHECKPOINT_FOLDER}/{folder.base_name}"
    return None


def _is_readable(storage: fs.FileSystem, path: str) -> bool:
    with storage.open_input_stream(path) as stream:
        try:
            return isinstance(json.loads(bytes(stream.read())), dict)
        except ValueError:
            return False


def _is_complete(storage: fs.FileSystem, path: str) -> bool:
    from raydec.learning.checkpoint import load_state  # imports torch, so only if needed

    with tempfile.TemporaryDirectory(prefix="raydec-checkpoint-") as local:
        fs.copy_files(path, local, source_filesystem=storage)
        try:
            load_state(Path(local))
        except UserError:
            return False
    return True
