"""Checkpoints: the complete state of a run, without pickle.

A checkpoint is a folder of two files: ``state.safetensors`` holds every tensor, ``state.json`` the rest of
the tree with placeholders for the tensors. All randomness in raydec is a function of
(seed, epoch, stage, step), so there is no generator state to store.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from raydec.errors import UserError

SCHEMA_VERSION = 1


@dataclass
class RunState:
    """The state of a run at the end of an epoch."""

    epoch: int = 0
    """Epochs finished."""
    global_step: int = 0
    """Optimiser steps taken."""
    network: dict[str, torch.Tensor] = field(default_factory=dict)
    optimizers: dict[str, Any] = field(default_factory=dict)
    labels: dict[str, np.ndarray] = field(default_factory=dict)
    """Stage name to its last assignment, int32 ``[chunk]``."""
    centroids: np.ndarray | None = None
    """The last centroids, float32 ``[cluster, dimension]``, for a warm start."""
    emotion_head_frozen: bool = False
    best_score: float | None = None
    best_epoch: int = 0
    best_network: dict[str, torch.Tensor] = field(default_factory=dict)
    best_centroids: np.ndarray | None = None
    """Centroids from the start of the best epoch; those of the saved model are fitted at the end."""
    history: list[dict[str, float | int | None]] = field(default_factory=list)
    """One object per epoch: the lines of ``metrics.jsonl``."""


def save_state(state: RunState, folder: Path) -> None:
    """Write a checkpoint into an existing, empty folder."""
    tensors: dict[str, torch.Tensor] = {}
    tree = _pack(vars(state), "", tensors)
    save_file(tensors, folder / "state.safetensors")
    text = json.dumps({"schema_version": SCHEMA_VERSION, "state": tree})
    (folder / "state.json").write_text(text, encoding="utf-8")


def load_state(folder: Path) -> RunState:
    """Read a checkpoint written by :func:`save_state`.

    Raises:
        UserError: the folder holds no complete checkpoint of this schema.
    """
    try:
        document = json.loads((folder / "state.json").read_text(encoding="utf-8"))
        tensors = load_file(folder / "state.safetensors")
        version = document["schema_version"]
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise UserError(f"{folder} holds no readable checkpoint: {error}") from None
    if version != SCHEMA_VERSION:
        raise UserError(f"{folder} has checkpoint schema {version}; this raydec reads {SCHEMA_VERSION}")
    return RunState(**_unpack(document["state"], tensors))


def _pack(node: Any, path: str, tensors: dict[str, torch.Tensor]) -> Any:
    if isinstance(node, torch.Tensor):
        tensors[path] = node.detach().cpu().contiguous().clone()
        return {"$tensor": path}
    if isinstance(node, np.ndarray):
        tensors[path] = torch.from_numpy(node.copy())
        return {"$array": path}
    if isinstance(node, dict):
        # Optimiser states have integer keys, which JSON objects do not allow.
        return {"$items": [[key, _pack(value, f"{path}/{key}", tensors)] for key, value in node.items()]}
    if isinstance(node, list | tuple):
        return [_pack(value, f"{path}/{index}", tensors) for index, value in enumerate(node)]
    return node


def _unpack(node: Any, tensors: dict[str, torch.Tensor]) -> Any:
    if isinstance(node, list):
        return [_unpack(value, tensors) for value in node]
    if not isinstance(node, dict):
        return node
    if "$tensor" in node:
        return tensors[node["$tensor"]]
    if "$array" in node:
        return tensors[node["$array"]].numpy()
    return {key: _unpack(value, tensors) for key, value in node["$items"]}
