"""Checks, before a run on several machines, that all of them can read its store and its directory."""

from __future__ import annotations

import secrets
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from raydec.config import Config
from raydec.errors import UserError
from raydec.files.storage import is_uri

_ANSWER_S = 120.0


def check_shared(config: Config, location: str) -> None:
    """Refuse to start on several nodes without storage that all of them share; Ray must be running.

    Nodes that join later are not checked.

    Args:
        config: the run's settings, or the settings common to all trials of a search.
        location: absolute path or URI of the run's directory, which exists.

    Raises:
        UserError: ``storage_path`` is unset, or a node cannot read it or the feature store.
    """
    nodes = [node for node in ray.nodes() if node["Alive"]]
    if len(nodes) < 2:
        return
    if config.storage_path is None:
        raise UserError(
            f"the cluster has {len(nodes)} nodes, but storage_path is unset, so results would be spread "
            "over the nodes; set storage_path to a bucket or folder that every node can reach"
        )
    wanted: dict[str, str] = {}
    store = config.data.store
    if store is not None and not is_uri(store):
        wanted[str(Path(store) / "store.json")] = f"the feature store data.store={store}"
    probe = None if is_uri(location) else Path(location) / f".probe-{secrets.token_hex(8)}"
    try:
        if probe is not None:
            probe.write_text("")
            wanted[str(probe)] = f"storage_path={config.storage_path}"
        _look_everywhere(wanted, nodes)
    finally:
        if probe is not None:
            probe.unlink(missing_ok=True)


def _look_everywhere(wanted: Mapping[str, str], nodes: list[dict[str, Any]]) -> None:
    look = ray.remote(num_cpus=0)(_missing)
    asked = {
        look.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)).remote(
            list(wanted)
        ): node["NodeManagerAddress"]
        for node in nodes
    }
    for answer, address in asked.items():
        host, missing = ray.get(answer, timeout=_ANSWER_S)
        if missing:
            raise UserError(
                f"node {host} ({address}) does not see {wanted[missing[0]]}; "
                "use a bucket, or a folder that every node can reach under the same path"
            )


def _missing(paths: list[str]) -> tuple[str, list[str]]:
    """Host name, and the paths that do not exist on this node."""
    return socket.gethostname(), [path for path in paths if not Path(path).exists()]
