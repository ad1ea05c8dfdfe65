"""Checkpoints: the complete state of a run, without pickle.

``state.safetensors`` contains every tensor, ``state.json`` the rest of the tree with placeholders for the
tensors, and ``labels-STAGE-ROW.npy`` the labels of one worker's share of a stage, which starts at ROW. All
randomness in raydec is a function of (seed, epoch, stage, step), so there is no generator state to store.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from raydec.errors import UserError

# Version 1 had the labels of all workers in state.safetensors.
SCHEMA_VERSION = 2


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
    """Stage name to its last assignment, int32 ``[chunk]``: this worker's share."""
    sizes: dict[str, np.ndarray] = field(default_factory=dict)
    """Stage name to the chunks of each cluster over all workers, int64 ``[cluster]``."""
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
    """Write a checkpoint, except its labels, into an existing folder."""
    tensors: dict[str, torch.Tensor] = {}
    tree = _pack({**vars(state), "labels": {}}, "", tensors)
    save_file(tensors, folder / "state.safetensors")
    text = json.dumps({"schema_version": SCHEMA_VERSION, "state": tree})
    (folder / "state.json").write_text(text, encoding="utf-8")


def save_labels(labels: Mapping[str, np.ndarray], first_rows: Mapping[str, int], folder: Path) -> None:
    """Write one worker's share of the labels, which become a part of the checkpoint, into a folder.

    Args:
        labels: stage name to labels.
        first_rows: stage name to the chunk at which the share begins.
        folder: an existing folder.
    """
    for stage, own in labels.items():
        np.save(folder / f"labels-{stage}-{first_rows[stage]:012d}.npy", own, allow_pickle=False)


def load_state(folder: Path, shares: Mapping[str, slice] | None = None) -> RunState:
    """Read a checkpoint written by :func:`save_state` and :func:`save_labels`.

    Args:
        folder: of the checkpoint.
        shares: stage name to the chunks whose labels are wanted; None: those of all chunks of all stages. The
            shares need not be those that were written.

    Raises:
        UserError: the folder has no complete checkpoint of this schema.
    """
    try:
        document = json.loads((folder / "state.json").read_text(encoding="utf-8"))
        tensors = load_file(folder / "state.safetensors")
        version = document["schema_version"]
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise UserError(f"{folder} contains no readable checkpoint: {error}") from None
    if version not in (1, SCHEMA_VERSION):
        raise UserError(f"{folder} has checkpoint schema {version}; this raydec reads {SCHEMA_VERSION}")
    state = RunState(**_unpack(document["state"], tensors))
    if version == 1:
        state.sizes = {stage: np.bincount(labels) for stage, labels in state.labels.items()}
        if shares is not None:
            state.labels = {
                stage: state.labels[stage][rows] for stage, rows in shares.items() if stage in state.labels
            }
        return state
    for stage, sizes in state.sizes.items():
        rows = slice(0, int(sizes.sum())) if shares is None else shares.get(stage)
        if rows is not None:
            state.labels[stage] = _load_labels(folder, stage, rows)
    return state


def _load_labels(folder: Path, stage: str, rows: slice) -> np.ndarray:
    """The labels of some chunks, from the shares that hold them."""
    found = np.empty(rows.stop - rows.start, np.int32)
    num_found = 0
    for path in sorted(folder.glob(f"labels-{stage}-*.npy")):
        first = int(path.stem.rsplit("-", 1)[1])
        try:
            part = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError) as error:
            raise UserError(f"{path} contains no readable labels: {error}") from None
        start, stop = max(first, rows.start), min(first + len(part), rows.stop)
        if start < stop:
            found[start - rows.start : stop - rows.start] = part[start - first : stop - first]
            num_found += stop - start
    if num_found != len(found):
        raise UserError(
            f"{folder} contains no complete checkpoint: it has the labels of {num_found} of the chunks "
            f"{rows.start} to {rows.stop} of the {stage} stage; delete it to resume from an earlier one"
        )
    return found


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
