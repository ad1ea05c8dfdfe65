"""The published DeepEmoCluster checkpoints as raydec models.

Their ``.pth.tar`` files contain pickled tensors. They are read with ``weights_only=True``, which runs no code
from the file.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import scipy.io
import torch
from jaxtyping import Float64
from torch import Tensor

from raydec.config import Attribute, ModelConfig
from raydec.errors import UserError
from raydec.features.mel_front_end import MelFrontEnd
from raydec.files.atomic import file_sha256
from raydec.model.assembly import build_network
from raydec.model.directory import check_tensors
from raydec.model.network import Network
from raydec.model.trained import NetworkSpec, TrainedModel
from raydec.version import __version__

# Names of the attributes in the published files.
SHORT_NAMES: dict[Attribute, str] = {"arousal": "act", "dominance": "dom", "valence": "val"}
_FRONT_END = MelFrontEnd()
_FORM = replace(_FRONT_END.usual_format, short="as_is")
_NORM_KEY = "normal_para"
_PARTS = {
    "cnn_features": "encoder.convolutions",
    "cnn_out.0": "encoder.cnn_out",
    "classifier.0": "cluster_head.hidden",
    "top_layer_class": "cluster_head.top",
    "emo_regressor.0": "emotion_head.hidden",
    "top_layer_attri": "emotion_head.top",
}


def read_published(checkpoints: Mapping[Attribute, Path], norm_dir: Path) -> TrainedModel:
    """Read published checkpoints, one network per attribute, into one model.

    Args:
        checkpoints: ``.pth.tar`` file per attribute; any subset.
        norm_dir: folder of the published normalisation terms (``feat_norm_means.mat`` and the like).

    Raises:
        UserError: a file is missing or malformed; the message names it.
    """
    model = ModelConfig.model_validate({})
    networks = []
    for attribute, path in checkpoints.items():
        mean, std = (_norm_terms(norm_dir, SHORT_NAMES[attribute], kind, 1) for kind in ("means", "stds"))
        network, num_clusters = _read_network(path, model)
        spec = NetworkSpec(
            attributes=(attribute,),
            num_clusters=num_clusters,
            model=model.model_dump(mode="json"),
            label_mean=(float(mean[0]),),
            label_std=(float(std[0]),),
        )
        networks.append((spec, network))
    return TrainedModel(
        networks=networks,
        front_end=_FRONT_END,
        chunks=_FORM,
        feature_mean=_norm_terms(norm_dir, "feat", "means", _FRONT_END.n_mels).astype(np.float32),
        feature_std=_norm_terms(norm_dir, "feat", "stds", _FRONT_END.n_mels).astype(np.float32),
        resampler="kaiser",
        extra={
            "corpus": "MSP-Podcast 1.6",
            "label_range": [1.0, 7.0],
            "raydec_version": __version__,
            "source": "published DeepEmoCluster checkpoints, under their authors' licence: "
            + ", ".join(f"{path.name} (sha256 {file_sha256(path)[:16]})" for path in checkpoints.values()),
        },
    )


def _read_network(path: Path, model: ModelConfig) -> tuple[Network, int]:
    weights = _raydec_names(_read_state(path), path)
    top = weights.get("cluster_head.top.weight")
    num_clusters = len(top) if top is not None and top.ndim else 1
    network = build_network(model, _FRONT_END, _FORM, 1, num_clusters)
    check_tensors(network.state_dict(), weights, path)
    network.load_state_dict(weights)
    return network.eval(), num_clusters


def _read_state(path: Path) -> dict[str, Any]:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(f"{path} does not exist") from None
    except pickle.UnpicklingError:
        raise UserError(
            f"{path} is not a published checkpoint: it contains more than pickled tensors"
        ) from None
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, AttributeError, TypeError) as error:
        reason = str(error).split("\n")[0]
        raise UserError(f"{path} is not a published checkpoint: {reason or type(error).__name__}") from None
    state = content.get("state_dict") if isinstance(content, dict) else None
    if not isinstance(state, dict):
        raise UserError(f"{path} is not a published checkpoint: it has no state_dict")
    return state


def _raydec_names(state: Mapping[Any, Any], path: Path) -> dict[str, Tensor]:
    weights: dict[str, Tensor] = {}
    for key, value in state.items():
        # DataParallel adds "module." to the names of the modules that it wraps.
        name = str(key).replace("module.", "")
        match = re.fullmatch(rf"({'|'.join(map(re.escape, _PARTS))})\.(.+)", name)
        if match is None or not isinstance(value, Tensor):
            raise UserError(f"{path} is not a published DeepEmoCluster checkpoint: unexpected entry {key!r}")
        weights[f"{_PARTS[match[1]]}.{match[2]}"] = value
    return weights


def _norm_terms(folder: Path, name: str, kind: str, size: int) -> Float64[np.ndarray, " term"]:
    path = folder / f"{name}_norm_{kind}.mat"
    if not path.is_file():
        raise UserError(f"{path} does not exist; --norm must be the folder with the published *.mat files")
    try:
        terms = np.asarray(scipy.io.loadmat(path)[_NORM_KEY], dtype=np.float64).ravel()
    except Exception as error:  # the parser can raise any exception on arbitrary bytes
        raise UserError(f"{path} has no readable {_NORM_KEY}: {type(error).__name__}: {error}") from None
    if terms.shape != (size,) or not np.isfinite(terms).all() or (kind == "stds" and (terms <= 0).any()):
        raise UserError(f"{path}: {_NORM_KEY} must be {size} finite numbers, standard deviations above 0")
    return terms
