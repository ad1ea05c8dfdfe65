"""Opens the directory of a new run, or of an unfinished earlier attempt.

Torch-free, because the process that starts Ray's workers does not import torch.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

from raydec.config import Config, changed_keys, config_from_dict, config_yaml
from raydec.errors import UserError
from raydec.runs.run_folder import (
    CONFIG_FILE,
    MODEL_FOLDER,
    SEARCH_FILE,
    SUMMARY_FILE,
    RunFolder,
    run_location,
)

# Keys that determine the length of a run.
_LENGTH_KEYS = {"training.epochs", "training.patience"}
_KINDS = {
    CONFIG_FILE: "a training run",
    SEARCH_FILE: "a search",
    "store.json": "a feature store",
    "config.json": "a model directory",
}
"""The kind of a folder, by a file that it contains."""

# Keys that affect where a run computes and is recorded, but not its results; they may change on resuming.
PLACEMENT_KEYS = (
    "ray.",
    "tracking.",
    "output_dir",
    "storage_path",
    "training.keep_checkpoints",
    "training.gradient_checkpointing",
    "data.encoder",
)


def begin(config: Config) -> RunFolder:
    """Create a run's directory, or open that of a run to be resumed, and claim it for this process.

    Raises:
        UserError: the name is taken by a run with other settings (unless the run only becomes longer, which
            is possible with a constant learning rate), or by something other than a run.
    """
    folder = RunFolder(run_location(config))
    refuse_other_kind(folder, CONFIG_FILE)
    changed = changed_settings(config, folder)
    extends = bool(changed) and _extends(config, folder, changed)
    if changed and not extends:
        raise UserError(
            f"run {config.name} exists in {folder.location} but differs in {', '.join(changed[:5])}; "
            "choose another name, or use the same settings to resume it"
        )
    folder.create()
    if extends:
        # Removed first: a run without a summary is unfinished, so it can be resumed even after a crash here.
        folder.remove(SUMMARY_FILE)
    folder.write(CONFIG_FILE, config_yaml(config))
    folder.take()
    folder.sync()
    return folder


def refuse_other_kind(folder: RunFolder, own: str) -> None:
    """Check that a name is free or taken by the same kind of folder, because two kinds would interfere.

    Args:
        folder: the folder of this name.
        own: the file that every folder of the wanted kind contains.

    Raises:
        UserError: it is another kind of folder.
    """
    for marker, kind in _KINDS.items():
        if marker != own and folder.read(own) is None and folder.read(marker) is not None:
            raise UserError(f"{folder.location} is {kind}; choose another name")


def _extends(config: Config, folder: RunFolder, changed: Sequence[str]) -> bool:
    """Whether a run can be extended, with the same result as if it had been longer from the start.

    Raises:
        UserError: the run would be longer, but its learning rate schedule depends on its length.
    """
    if not set(changed) <= _LENGTH_KEYS:
        return False
    earlier = _stored(folder, type(config)).training
    now = config.training
    patience = [math.inf if value is None else value for value in (earlier.patience, now.patience)]
    if now.epochs < earlier.epochs or patience[1] < patience[0]:
        return False
    if now.recipe == "modern" and now.epochs > earlier.epochs:
        raise UserError(
            f"run {config.name} cannot be extended from {earlier.epochs} to {now.epochs} epochs: with "
            "training.recipe=modern its learning rate falls along a cosine that ends after "
            f"{earlier.epochs}. Start another run from its model: "
            f"model.init={folder.location}/{MODEL_FOLDER} name=NAME"
        )
    return True


def changed_settings(config: Config, folder: RunFolder) -> list[str]:
    """Keys on which these settings differ from those in a run's directory, except placement keys."""
    if folder.read(CONFIG_FILE) is None:
        return []
    earlier = _stored(folder, type(config))
    return [key for key in changed_keys(earlier, config) if not key.startswith(PLACEMENT_KEYS)]


def train_on_worker(config: Config, worker: Any, clusterer: Any, location: str, claim: str | None) -> None:
    """:func:`raydec.runs.training_loop.train_loop`, importable without torch."""
    from raydec.runs.training_loop import train_loop

    train_loop(config, worker, clusterer, location, claim)


def _stored(folder: RunFolder, schema: type[Config]) -> Config:
    written = folder.read(CONFIG_FILE)
    assert written is not None
    return config_from_dict(_parse_yaml(written), schema)


def _parse_yaml(text: str) -> dict[str, Any]:
    from omegaconf import OmegaConf

    parsed = OmegaConf.to_container(OmegaConf.create(text))
    assert isinstance(parsed, dict)
    return json.loads(json.dumps(parsed))
