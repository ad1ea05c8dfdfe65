"""One run from a config to a run directory: its name, its data, its workers, its results.

This is where the parts meet. ``train`` runs one; ``tune`` runs many. Nothing here imports torch where Ray's
workers train: they are what a start waits for, and this process would import it on their time.
"""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raydec.config import Config, changed_keys, config_from_dict, config_yaml
from raydec.errors import UserError
from raydec.features.store_cache import absolute_store
from raydec.files.storage import is_uri, storage_explained
from raydec.learning.host import import_ahead
from raydec.learning.selection import check_data
from raydec.runs.run_folder import CONFIG_FILE, SUMMARY_FILE, RunFolder, finished_summary, run_location
from raydec.runs.tracking import check_trackers

# Keys that decide where a run computes and is recorded, not what it computes: it may be resumed with others.
PLACEMENT_KEYS = ("ray.", "tracking.", "output_dir", "storage_path", "training.keep_checkpoints")


@dataclass(frozen=True)
class RunResult:
    """A finished run.

    Attributes:
        folder: the run directory, on this machine.
        summary: the content of ``summary.json``: best epoch and CCC by split and attribute.
        already_finished: nothing was trained, because an earlier call had finished it.
    """

    folder: Path
    summary: dict[str, Any]
    already_finished: bool


def resolve(config: Config) -> Config:
    """Give the run its data and name: the demo store where none is named, a free name where none is given.

    Raises:
        UserError: the store cannot be opened or does not have what the config asks for.
    """
    check_trackers(config)
    updates: dict[str, Any] = {"output_dir": str(Path(config.output_dir).absolute())}
    data = config.data
    if data.store is None:
        from raydec.demo import demo_store

        data = data.model_copy(update={"store": str(demo_store(Path(config.output_dir).absolute()))})
        updates["name"] = config.name or _free_name(config, "demo")
    else:
        data = data.model_copy(update={"store": absolute_store(data.store)})
        updates["name"] = config.name or _free_name(config, Path(data.store or "").name)
    resolved = config.model_copy(update={**updates, "data": data})
    check_data(resolved)
    return resolved


def begin(config: Config) -> RunFolder:
    """Create a run's directory, or open the one it goes on in, and claim it for this process.

    Raises:
        UserError: another run has that name, with other settings.
    """
    folder = RunFolder(run_location(config))
    changed = changed_settings(config, folder)
    if changed:
        raise UserError(
            f"run {config.name} exists in {folder.location} with another {', '.join(changed[:5])}; "
            "choose another name, or the same settings to go on with it"
        )
    folder.create()
    folder.write(CONFIG_FILE, config_yaml(config))
    folder.take()
    folder.sync()
    return folder


def changed_settings(config: Config, folder: RunFolder) -> list[str]:
    """Keys on which a run's directory has other settings than these, but for where it computes."""
    written = folder.read(CONFIG_FILE)
    if written is None:
        return []
    earlier = config_from_dict(_parse_yaml(written), type(config))
    return [key for key in changed_keys(earlier, config) if not key.startswith(PLACEMENT_KEYS)]


def train_on_worker(config: Config, worker: Any, clusterer: Any, location: str, claim: str | None) -> None:
    """:func:`raydec.runs.training_loop.train_loop`, by a name that a process without torch can hand on."""
    from raydec.runs.training_loop import train_loop

    train_loop(config, worker, clusterer, location, claim)


def train_run(config: Config) -> RunResult:
    """Train a resolved config to its end, going on where an earlier attempt stopped.

    Starts or joins Ray only when there is something left to train on it.

    Raises:
        UserError: the run's storage cannot be written, or is not shared by all nodes of the cluster; and see
            :func:`begin` and :func:`raydec.ray_runtime.launch.train_on_ray`.
    """
    with storage_explained(run_location(config)):
        folder = begin(config)
    summary = finished_summary(folder)
    already_finished = summary is not None
    if summary is None:
        if config.ray.num_workers == 0:
            from raydec.runs.training_loop import train_here

            train_here(config, folder.location, folder.claim)
        else:
            from raydec.ray_runtime.session import start_ray

            import_ahead("raydec.ray_runtime.launch")
            ray = config.ray
            start_ray(ray.address, ray.num_cpus, ray.object_store_gib, dashboard=ray.dashboard is True)
            from raydec.ray_runtime.launch import train_on_ray
            from raydec.ray_runtime.shared_storage import check_shared

            check_shared(config, folder.location)
            train_on_ray(config, functools.partial(train_on_worker, claim=folder.claim), folder.location)
        summary = finished_summary(folder)
        assert summary is not None, f"{folder.location} has no {SUMMARY_FILE} although training returned"
    assert config.name is not None
    local = folder.local if not is_uri(folder.location) else Path(config.output_dir) / config.name
    folder.fetch(local)
    return RunResult(local, summary, already_finished)


def _free_name(config: Config, stem: str) -> str:
    """``stem``, or ``stem-2`` and so on where finished runs have taken the names before.

    An unfinished run of the same settings is gone on with.
    """
    number = 1
    while True:
        name = stem if number == 1 else f"{stem}-{number}"
        folder = RunFolder(run_location(config.model_copy(update={"name": name})))
        if folder.read(CONFIG_FILE) is None:
            return name
        number += 1


def _parse_yaml(text: str) -> dict[str, Any]:
    from omegaconf import OmegaConf

    parsed = OmegaConf.to_container(OmegaConf.create(text))
    assert isinstance(parsed, dict)
    return json.loads(json.dumps(parsed))
