"""A trained model as one ONNX file, for programs that have neither raydec nor PyTorch.

Input ``chunks``, float32 ``[chunk, frame, mel]``: mel frames, cut and normalised as described in the model
directory and, as JSON, in the file's metadata: ``attributes``, ``features``, ``chunks``, ``feature_mean`` and
``feature_std``. Outputs, all float32 with one row per chunk:

- ``scores`` ``[chunk, attribute]``: every attribute in the scale of its training labels, in the order of the
  metadata's ``attributes``. The score of an utterance is the mean over its chunks. Models that predict only
  classes do not have it.
- ``emotion_probabilities`` ``[chunk, class]``: only for models that predict classes, in the order of the
  metadata's ``classes``. The probability for an utterance is the mean over its chunks.
- ``embedding`` ``[chunk, d]``: the input of K-means. A chunk's cluster is the nearest row of the model
  directory's ``centroids.npy``, by the embedding of the first network.
- ``cluster_logits`` ``[chunk, cluster]``: only for networks that have a cluster head.

A model directory with several networks has the last two for each, named after what the network predicts
(``embedding_arousal``). The number of chunks is free; networks with a temporal layer or attentive pooling
take whole utterances, a multiple of ``num_chunks``. The number of frames is fixed, except for models that
take shorter chunks of very short utterances (``chunks.short`` is ``as_is``).
"""

from __future__ import annotations

import importlib.util
import json
import logging
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor, nn

from raydec.config import ModelConfig
from raydec.errors import UserError
from raydec.features.waveform_front_end import WaveformFrontEnd
from raydec.files.atomic import publish, temporary_file
from raydec.model.folding import folded
from raydec.model.network import joined
from raydec.model.trained import TrainedModel
from raydec.verbosity import silenced
from raydec.version import __version__

REQUIREMENTS = ("onnx", "onnxruntime", "onnxscript")
INPUT, SCORES, EMBEDDING, CLUSTER_LOGITS = "chunks", "scores", "embedding", "cluster_logits"
PROBABILITIES = "_probabilities"
TOLERANCE = 1e-4
"""Largest allowed difference from PyTorch. For outputs other than scores it is multiplied by the output's
largest magnitude if that exceeds 1: embeddings reach 1000, where float32 has a precision of only 1e-4."""


@dataclass(frozen=True)
class OnnxExport:
    """The exported file.

    Attributes:
        outputs: name and width of each output.
        largest_difference: from PyTorch, over all outputs and checked batches, as in :data:`TOLERANCE`.
        num_bytes: size of the file.
    """

    outputs: dict[str, int]
    largest_difference: float
    num_bytes: int


class _Graph(nn.Module):
    """The exported graph: the networks of a model side by side, with scores in the scale of the labels."""

    mean: Tensor
    std: Tensor

    def __init__(self, trained: TrainedModel) -> None:
        super().__init__()
        self.networks = nn.ModuleList([folded(network) for _, network in trained.networks])
        self._specs = [spec.outputs for spec, _ in trained.networks]
        self._columns = _predicted(trained)
        self.register_buffer("mean", torch.from_numpy(trained.outputs.mean).float())
        self.register_buffer("std", torch.from_numpy(trained.outputs.std).float())

    def forward(self, chunks: Float[Tensor, "chunk frame width"]) -> tuple[Tensor, ...]:
        outputs = [network(chunks) for network in self.networks]
        scores = joined([output.emotion for output in outputs], self._specs) * self.std + self.mean
        predicted = (scores[:, columns] for columns in self._columns.values())
        others = [(output.embedding, output.cluster_logits) for output in outputs]
        return (*predicted, *(tensor for pair in others for tensor in pair if tensor is not None))


def require_onnx() -> None:
    """Check that the ``onnx`` extra is installed.

    Raises:
        UserError: it is not; the message says how to install it.
    """
    missing = [name for name in REQUIREMENTS if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(f'ONNX export needs {", ".join(missing)}; install with: pip install "raydec[onnx]"')


def export_onnx(trained: TrainedModel, path: str | Path) -> OnnxExport:
    """Write a model as one ONNX file, after checking that ONNX Runtime reproduces PyTorch's outputs.

    An existing file at ``path`` is replaced only if the check passes.

    Args:
        trained: the model, on the CPU.
        path: ends in ``.onnx``; missing folders are created.

    Raises:
        UserError: the ``onnx`` extra is not installed, the model contains its encoder, or ``path`` cannot be
            written.
        RuntimeError: ONNX Runtime's outputs differ from PyTorch's by more than :data:`TOLERANCE`.
    """
    require_onnx()
    if isinstance(trained.front_end, WaveformFrontEnd):
        raise UserError(
            "a model that contains its encoder cannot be exported to ONNX; use raydec.predict instead"
        )
    target = Path(path).absolute()
    if target.suffix.lower() != ".onnx":
        raise UserError(f"{path} does not end in .onnx; choose a name that does")
    content = _convert(trained)
    outputs, difference = _check(trained, content)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with temporary_file(target.parent) as file:
            file.write(content)
            publish(file, target)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from None
    return OnnxExport(outputs, difference, len(content))


def _predicted(trained: TrainedModel) -> dict[str, slice]:
    """The outputs that are predictions, and their columns among all that the model predicts."""
    outputs = trained.outputs
    scores = {SCORES: slice(len(outputs.attributes))} if outputs.attributes else {}
    return scores | {group + PROBABILITIES: columns for group, columns in outputs.groups.items()}


def output_names(trained: TrainedModel) -> list[str]:
    """Names of the outputs, in order."""
    alone = len(trained.networks) == 1
    names = [*_predicted(trained)]
    for spec, network in trained.networks:
        suffix = "" if alone else "_" + "_".join([*spec.attributes, *spec.classes])
        names += [EMBEDDING + suffix, *([CLUSTER_LOGITS + suffix] if network.has_cluster_head else [])]
    return names


def _convert(trained: TrainedModel) -> bytes:
    graph = _Graph(trained).eval()
    # Sizes that no other axis has, so that the exporter cannot confuse two axes.
    num_frames = _frame_counts(trained)[-1]
    example = torch.zeros(3 * trained.chunks.num_chunks, num_frames, trained.front_end.width)
    # The exporter's warnings about packages and APIs do not concern the user.
    with silenced("torch.onnx", logging.ERROR):
        program = torch.onnx.export(
            graph,
            (example,),
            input_names=[INPUT],
            output_names=output_names(trained),
            dynamic_shapes={INPUT: _free_axes(trained)},
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    assert program is not None
    _drop_stack_traces(program.model)
    program.model.metadata_props.update(_metadata(trained))
    return program.model_proto.SerializeToString()


def _drop_stack_traces(model: Any) -> None:
    """Drop the stack traces that the exporter records: they contain paths of this machine."""
    model.metadata_props.clear()
    model.graph.metadata_props.clear()
    for node in model.graph:
        node.metadata_props.clear()
        node.doc_string = None
        for value in node.outputs:
            value.metadata_props.clear()
    for value in (*model.graph.inputs, *model.graph.initializers.values()):
        value.metadata_props.clear()


def _free_axes(trained: TrainedModel) -> dict[int, Any]:
    """The input's axes whose length is free, as torch.export describes them."""
    axes: dict[int, Any] = {0: torch.export.Dim("chunk")}
    if _takes_whole_utterances(trained):
        axes[0] = trained.chunks.num_chunks * torch.export.Dim("utterance")
    shortest, *longer = _frame_counts(trained)
    if longer:
        axes[1] = torch.export.Dim("frame", min=shortest, max=longer[-1])
    return axes


def _takes_whole_utterances(trained: TrainedModel) -> bool:
    return any(ModelConfig.model_validate(spec.model).needs_whole_utterances for spec, _ in trained.networks)


def _frame_counts(trained: TrainedModel) -> list[int]:
    """Fewest and most frames of a chunk; a single number if they are equal."""
    form = trained.chunks
    most = form.chunk_frames
    if form.short == "tile":
        return [most]
    # The shortest utterances that chunk_utterance leaves as they are and that the encoder accepts.
    fewest = max(1, most - form.num_chunks + 2)
    trunks = [network.encoder for _, network in trained.networks]
    usable = [n for n in range(fewest, most) if all(trunk.takes(n) for trunk in trunks)]
    return [*usable[:1], most]


def _metadata(trained: TrainedModel) -> dict[str, str]:
    documents = {
        "attributes": trained.attributes,
        **({"classes": trained.outputs.classes} if trained.outputs.classes else {}),
        "front_end": trained.front_end.name,
        "features": trained.front_end.to_dict(),
        "chunks": asdict(trained.chunks),
        "feature_mean": [float(value) for value in trained.feature_mean],
        "feature_std": [float(value) for value in trained.feature_std],
    }
    return {"raydec_version": __version__} | {key: json.dumps(value) for key, value in documents.items()}


def _check(trained: TrainedModel, content: bytes) -> tuple[dict[str, int], float]:
    """Widths of the outputs, and the largest difference between ONNX Runtime and the networks."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors only: warnings are about its own optimisations
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    names = output_names(trained)
    worst, found = 0.0, {}
    for chunks in _inputs(trained):
        found = dict(zip(names, session.run(names, {INPUT: chunks.numpy()}), strict=True))
        for name, wanted in _torch_outputs(trained, chunks).items():
            difference = _difference(name, found[name], wanted)
            if not difference <= TOLERANCE:
                raise RuntimeError(
                    f"ONNX output {name} differs from PyTorch's by {difference:.2g} for {len(chunks)} "
                    f"chunks of {chunks.shape[1]} frames; at most {TOLERANCE:g} is allowed"
                )
            worst = max(worst, difference)
    return {name: values.shape[1] for name, values in found.items()}, worst


def _inputs(trained: TrainedModel) -> Iterator[Float32[Tensor, "chunk frame width"]]:
    """Noise that varies like normalised features: a batch of one chunk, and larger batches."""
    generator = torch.Generator().manual_seed(0)
    unit = trained.chunks.num_chunks if _takes_whole_utterances(trained) else 1
    for num_frames in _frame_counts(trained):
        for count in (1, 2, 7):
            noise = torch.randn(count * unit, num_frames, trained.front_end.width, generator=generator)
            yield noise.clamp(-trained.chunks.clip, trained.chunks.clip)


@torch.inference_mode()
def _torch_outputs(
    trained: TrainedModel, chunks: Float32[Tensor, "chunk frame width"]
) -> Mapping[str, np.ndarray]:
    """The networks' own outputs: neither folded nor traced, de-normalised in float64."""
    emotions, others = [], []
    for _, network in trained.networks:
        output = network(chunks)
        emotions.append(output.emotion.double())
        others += [output.embedding, *([output.cluster_logits] if network.has_cluster_head else [])]
    found = joined(emotions, [spec.outputs for spec, _ in trained.networks]).numpy()
    predicted = trained.outputs.in_label_scale(found)
    values = [predicted[:, columns] for columns in _predicted(trained).values()]
    return dict(zip(output_names(trained), [*values, *(tensor.numpy() for tensor in others)], strict=True))


def _difference(name: str, found: np.ndarray, wanted: np.ndarray) -> float:
    """Largest difference of an element, as in :data:`TOLERANCE`."""
    if found.shape != wanted.shape:
        raise RuntimeError(f"ONNX output {name} is {list(found.shape)}, PyTorch's is {list(wanted.shape)}")
    is_prediction = name == SCORES or name.endswith(PROBABILITIES)
    magnitude = 1.0 if is_prediction else max(1.0, float(np.abs(wanted).max()))
    return float(np.abs(found - wanted).max()) / magnitude
