"""Model directories: everything needed for prediction, in files that cannot run code.

They hold ``model.safetensors`` (weights), ``config.json`` (architecture, features, normalisation,
attributes), ``centroids.npy`` (of the first network, if it has any) and ``README.md`` (model card).
"""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from pydantic import Field, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as to_safetensors
from torch import Tensor

from raydec.config import ModelConfig, Section
from raydec.errors import UserError
from raydec.features.front_end import ChunkFormat, FrontEnd, Scale, front_end_of
from raydec.model.assembly import build_network
from raydec.model.card import model_card
from raydec.model.network import Network
from raydec.model.trained import NetworkSpec, TrainedModel

__all__ = ["ChunkFormat", "NetworkSpec", "TrainedModel", "check_tensors", "load_model", "save_model"]

FORMAT = "raydec-model"
SCHEMA_VERSION = 1
WEIGHTS_FILE, CONFIG_FILE = "model.safetensors", "config.json"
_PARENT_KINDS = {"model": "a run directory", "best": "a search"}
"""The kind of folder that contains a model directory, by the name of the model directory."""
CENTROIDS_FILE, CARD_FILE = "centroids.npy", "README.md"
_FILES = frozenset((WEIGHTS_FILE, CONFIG_FILE, CENTROIDS_FILE, CARD_FILE))


class _NetworkEntry(Section):
    attributes: tuple[str, ...]
    num_clusters: int = Field(ge=1)
    model: ModelConfig
    label_mean: tuple[float, ...]
    label_std: tuple[float, ...]
    classes: dict[str, Annotated[tuple[str, ...], Field(min_length=2)]] = Field({})


class _ChunksEntry(Section):
    scale: Scale
    clip: float = Field(gt=0)
    num_chunks: int = Field(ge=2, le=10_000)
    chunk_frames: int = Field(ge=1, le=10_000)
    short: Literal["tile", "as_is"]
    speaker_normalization: Literal["none", "mean"] = "none"


class _NormalizationEntry(Section):
    mean: tuple[float, ...]
    std: tuple[float, ...]


class _ConfigFile(Section):
    """The schema of config.json."""

    format: Literal["raydec-model"]
    schema_version: Literal[1]
    front_end: str = "mel"
    features: dict[str, Any]
    chunks: _ChunksEntry
    feature_normalization: _NormalizationEntry
    networks: tuple[_NetworkEntry, ...] = Field(min_length=1)
    centroids: Literal["centroids.npy"] | None
    resampler: Literal["soxr", "kaiser"]
    extra: dict[str, Any]


def save_model(trained: TrainedModel, path: str | Path) -> None:
    """Write a model directory, replacing an old one as a whole.

    Other files in an old model directory at ``path`` are kept.

    Raises:
        UserError: ``path`` exists and is not a model directory, or cannot be written.
    """
    target = Path(path).absolute()
    _refuse_to_replace_foreign(target)
    partial = target.with_name(f".{target.name}.partial")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        _write_files(trained, partial)
        _swap(partial, target)
    except OSError as error:
        raise UserError(f"cannot write model directory {path}: {error.strerror or error}") from None


def load_model(path: str | Path) -> TrainedModel:
    """Read a model directory. Its networks are on the CPU in evaluation mode.

    Raises:
        UserError: a file is missing, malformed, or inconsistent with the others; the message names it.
    """
    folder = Path(path)
    config, front_end = _read_config(folder)
    weights = _read_weights(folder / WEIGHTS_FILE)
    networks = _load_networks(config, front_end, weights, folder / WEIGHTS_FILE)
    centroids = None
    if config.centroids is not None:
        centroids = _read_centroids(folder / config.centroids, networks[0][1].embedding_dim)
    return TrainedModel(
        networks=networks,
        front_end=front_end,
        chunks=_chunk_format(config),
        feature_mean=np.array(config.feature_normalization.mean, np.float32),
        feature_std=np.array(config.feature_normalization.std, np.float32),
        centroids=centroids,
        resampler=config.resampler,
        extra=config.extra,
    )


def _write_files(trained: TrainedModel, folder: Path) -> None:
    weights: dict[str, Tensor] = {}
    for i, (_, network) in enumerate(trained.networks):
        for name, tensor in network.state_dict().items():
            weights[f"networks.{i}.{name}"] = tensor.detach().cpu().contiguous()
    # safetensors' own writer would make the file readable only by its owner.
    (folder / WEIGHTS_FILE).write_bytes(to_safetensors(weights, metadata={"format": "pt"}))
    if trained.centroids is not None:
        np.save(folder / CENTROIDS_FILE, trained.centroids.astype(np.float32), allow_pickle=False)
    config = _config_dict(trained)
    text = json.dumps(config, indent=2, ensure_ascii=False, allow_nan=False)
    (folder / CONFIG_FILE).write_text(text + "\n", encoding="utf-8")
    (folder / CARD_FILE).write_text(model_card(config), encoding="utf-8")


def _config_dict(trained: TrainedModel) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "schema_version": SCHEMA_VERSION,
        "front_end": trained.front_end.name,
        "features": trained.front_end.to_dict(),
        "chunks": _chunks_entry(trained.chunks),
        "feature_normalization": {
            "mean": [float(value) for value in trained.feature_mean],
            "std": [float(value) for value in trained.feature_std],
        },
        "networks": [_network_entry(spec) for spec, _ in trained.networks],
        "centroids": None if trained.centroids is None else CENTROIDS_FILE,
        "resampler": trained.resampler,
        "extra": _plain(trained.extra),
    }


def _chunks_entry(form: ChunkFormat) -> dict[str, Any]:
    """The chunk format in ``config.json``; without speaker normalisation, older versions can read it."""
    entry = asdict(form)
    if form.speaker_normalization == "none":
        del entry["speaker_normalization"]
    return entry


def _network_entry(spec: NetworkSpec) -> dict[str, Any]:
    """One network of ``config.json``; without classes, older versions of raydec can read it."""
    return {key: value for key, value in asdict(spec).items() if key != "classes" or value}


def _plain(value: Any) -> Any:
    """The same value for JSON, without NaN and NumPy types."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        return _plain(value.item())
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _refuse_to_replace_foreign(target: Path) -> None:
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return
    try:
        document = json.loads((target / CONFIG_FILE).read_text(encoding="utf-8"))
        is_ours = document.get("format") == FORMAT
    except (OSError, ValueError, AttributeError):
        is_ours = False
    if not is_ours:
        raise UserError(
            f"{target} exists and is not a raydec model directory; choose another path or remove it"
        )


def _swap(partial: Path, target: Path) -> None:
    if not target.exists():
        os.rename(partial, target)
        return
    for item in target.iterdir():
        if item.name not in _FILES:
            os.rename(item, partial / item.name)
    old = target.with_name(f".{target.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    os.rename(target, old)
    os.rename(partial, target)
    shutil.rmtree(old, ignore_errors=True)


def _read_config(folder: Path) -> tuple[_ConfigFile, FrontEnd]:
    path = folder / CONFIG_FILE
    if not folder.is_dir():
        raise UserError(f"{folder} is not a model directory: no such folder")
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        for name, kind in _PARENT_KINDS.items():
            if (folder / name / CONFIG_FILE).is_file():
                raise UserError(f"{folder} is {kind}, not a model directory; name {folder / name}") from None
        raise UserError(f"{folder} is not a model directory: {CONFIG_FILE}: {error.strerror}") from None
    except (ValueError, RecursionError):
        raise UserError(f"{path} is not JSON; the model directory is damaged") from None
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise UserError(f"{path} is not the config of a raydec model")
    if document.get("schema_version") != SCHEMA_VERSION:
        version = document.get("schema_version")
        raise UserError(f"{path} has schema_version {version!r}, but this raydec reads {SCHEMA_VERSION}")
    try:
        config = _ConfigFile.model_validate(document)
        front_end = front_end_of(document)
        front_end.check()
        front_end.check_format(_chunk_format(config))
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        key = ".".join(str(part) for part in problem["loc"])
        raise UserError(f"{path}: {key}: {problem['msg'].lower()}") from None
    except (ValueError, UserError) as error:
        raise UserError(f"{path}: features: {error}") from None
    _check_lengths(config, front_end, path)
    return config, front_end


def _chunk_format(config: _ConfigFile) -> ChunkFormat:
    return ChunkFormat(**config.chunks.model_dump())


def _check_lengths(config: _ConfigFile, front_end: FrontEnd, path: Path) -> None:
    normalization = config.feature_normalization
    if not len(normalization.mean) == len(normalization.std) == front_end.width:
        raise UserError(
            f"{path}: feature_normalization must have {front_end.width} means and standard deviations"
        )
    names = [name for entry in config.networks for name in (*entry.attributes, *entry.classes)]
    if len(set(names)) != len(names):
        raise UserError(f"{path}: an attribute is predicted twice: {', '.join(names)}")
    for entry in config.networks:
        if not entry.attributes and not entry.classes:
            raise UserError(f"{path}: a network predicts nothing: it has neither attributes nor classes")
        if any(len(set(classes)) != len(classes) for classes in entry.classes.values()):
            raise UserError(f"{path}: classes lists a class twice")
        if not len(entry.label_mean) == len(entry.label_std) == len(entry.attributes):
            raise UserError(f"{path}: label_mean and label_std must have one number per attribute")


def _read_weights(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path, device="cpu")
    except FileNotFoundError:
        raise UserError(f"{path} is missing; the model directory is incomplete") from None
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} is not a safetensors file: {error}") from None


def _load_networks(
    config: _ConfigFile, front_end: FrontEnd, weights: dict[str, Tensor], path: Path
) -> list[tuple[NetworkSpec, Network]]:
    networks, known = [], set()
    for i, entry in enumerate(config.networks):
        prefix = f"networks.{i}."
        own = {name.removeprefix(prefix): t for name, t in weights.items() if name.startswith(prefix)}
        known |= {prefix + name for name in own}
        networks.append((_spec(entry), _load_network(entry, _chunk_format(config), front_end, own, path)))
    stray = sorted(weights.keys() - known)
    if stray:
        raise UserError(f"{path} contains a tensor that {CONFIG_FILE} does not mention: {stray[0]}")
    return networks


def _spec(entry: _NetworkEntry) -> NetworkSpec:
    return NetworkSpec(
        attributes=entry.attributes,
        num_clusters=entry.num_clusters,
        model=entry.model.model_dump(mode="json"),
        label_mean=entry.label_mean,
        label_std=entry.label_std,
        classes=entry.classes,
    )


def _load_network(
    entry: _NetworkEntry,
    form: ChunkFormat,
    front_end: FrontEnd,
    weights: dict[str, Tensor],
    path: Path,
) -> Network:
    def build() -> Network:
        return build_network(entry.model, front_end, form, len(_spec(entry).outputs), entry.num_clusters)

    # First without allocating memory, in case a config needs far more than the weights have.
    with torch.device("meta"):
        expected = build().state_dict()
    check_tensors(expected, weights, path)
    network = build()
    network.load_state_dict(weights)
    return network.eval()


def check_tensors(expected: Mapping[str, Tensor], found: Mapping[str, Tensor], path: Path) -> None:
    """Compare names, shapes and types of tensors with a network's, and refuse NaN and infinity.

    Raises:
        UserError: a tensor is wrong; the message names the file and the first such tensor.
    """
    for name in sorted(expected.keys() | found.keys()):
        if name not in found:
            raise UserError(f"{path} lacks the tensor {name}")
        if name not in expected:
            raise UserError(f"{path} contains a tensor {name} that the network does not have")
        wanted, tensor = expected[name], found[name]
        if tensor.shape != wanted.shape or tensor.dtype != wanted.dtype:
            raise UserError(
                f"{path}: {name} is {tensor.dtype} {list(tensor.shape)}; "
                f"the network needs {wanted.dtype} {list(wanted.shape)}"
            )
        if not torch.isfinite(tensor).all():
            raise UserError(f"{path}: {name} contains NaN or infinite values; the training diverged")


def _read_centroids(path: Path, embedding_dim: int) -> Float[np.ndarray, "cluster d"]:
    try:
        with path.open("rb") as file:
            centroids = np.lib.format.read_array(file, allow_pickle=False)
    except FileNotFoundError:
        raise UserError(f"{path} is missing; the model directory is incomplete") from None
    except (ValueError, OSError, EOFError, MemoryError) as error:
        raise UserError(f"{path} is not an npy file of numbers: {error}") from None
    if centroids.ndim != 2 or centroids.dtype != np.float32 or centroids.shape[1] != embedding_dim:
        raise UserError(
            f"{path} is {centroids.dtype} {list(centroids.shape)}; "
            f"it must be float32 with {embedding_dim} columns"
        )
    if not np.isfinite(centroids).all():
        raise UserError(f"{path} contains NaN or infinite values")
    return centroids
