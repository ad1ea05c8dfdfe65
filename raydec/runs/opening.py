"""Opening a run's directory: a new run, or one that an earlier attempt left unfinished.

Free of torch, as the process that starts Ray's workers is.
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

# Keys that say how long a run is.
_LENGTH_KEYS = {"training.epochs", "training.patience"}
_KINDS = {
    CONFIG_FILE: "a training run",
    SEARCH_FILE: "a search",
    "store.json": "a feature store",
    "config.json": "a model directory",
}
"""The file that tells what a folder is."""

# Keys that decide where a run computes and is recorded, not what it computes: it may be resumed with others.
PLACEMENT_KEYS = ("ray.", "tracking.", "output_dir", "storage_path", "training.keep_checkpoints")


def begin(config: Config) -> RunFolder:
    """Create a run's directory, or open the one it goes on in, and claim it for this process.

    Raises:
        UserError: something else has that name: a run with other settings (unless it is only to be longer,
            which a constant learning rate allows), or what is no run.
    """
    folder = RunFolder(run_location(config))
    refuse_other_kind(folder, CONFIG_FILE)
    changed = changed_settings(config, folder)
    extends = bool(changed) and _extends(config, folder, changed)
    if changed and not extends:
        raise UserError(
            f"run {config.name} exists in {folder.location} with another {', '.join(changed[:5])}; "
            "choose another name, or use the same settings to resume it"
        )
    folder.create()
    if extends:
        # First: a run that has no summary is not finished, and goes on whatever comes next.
        folder.remove(SUMMARY_FILE)
    folder.write(CONFIG_FILE, config_yaml(config))
    folder.take()
    folder.sync()
    return folder


def refuse_other_kind(folder: RunFolder, own: str) -> None:
    """See that a name is free, or taken by the same kind of thing: two kinds in one folder spoil each other.

    Args:
        folder: what has the name.
        own: the file that every folder of the wanted kind has.

    Raises:
        UserError: it is something else.
    """
    for marker, kind in _KINDS.items():
        if marker != own and folder.read(own) is None and folder.read(marker) is not None:
            raise UserError(f"{folder.location} is {kind}; choose another name")


def _extends(config: Config, folder: RunFolder, changed: Sequence[str]) -> bool:
    """Whether a run can go on as if it had been meant to be longer from the start.

    Raises:
        UserError: it would be longer, but its learning rate has been falling towards another end.
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
    """Keys on which a run's directory has other settings than these, but for where it computes."""
    if folder.read(CONFIG_FILE) is None:
        return []
    earlier = _stored(folder, type(config))
    return [key for key in changed_keys(earlier, config) if not key.startswith(PLACEMENT_KEYS)]


def train_on_worker(config: Config, worker: Any, clusterer: Any, location: str, claim: str | None) -> None:
    """:func:`raydec.runs.training_loop.train_loop`, by a name that a process without torch can hand on."""
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
