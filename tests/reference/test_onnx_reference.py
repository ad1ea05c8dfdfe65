"""The exported published model, run by ONNX Runtime alone, against torch and the published scores."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch

from raydec.errors import AudioError
from raydec.features.audio import measure_audio
from raydec.features.chunking import chunk_utterance
from raydec.features.kaiser import KaiserResampler
from raydec.features.mel import mel_frames
from raydec.features.normalization import FrameNormalizer
from raydec.model.onnx_export import export_onnx
from raydec.model.published import SHORT_NAMES, read_published
from raydec.model.trained import TrainedModel

onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is in the onnx extra")
pytest.importorskip("onnxscript", reason="onnxscript is in the onnx extra")

pytestmark = pytest.mark.reference


@pytest.fixture(scope="module")
def published(reference_dir: Path) -> TrainedModel:
    """The three published checkpoints as one raydec model."""
    weights = reference_dir / "weights"
    paths = {name: next(weights.glob(f"*_{short.title()}.pth.tar")) for name, short in SHORT_NAMES.items()}
    return read_published(paths, reference_dir / "norm")


@pytest.fixture(scope="module")
def session(
    published: TrainedModel, tmp_path_factory: pytest.TempPathFactory
) -> onnxruntime.InferenceSession:
    path = tmp_path_factory.mktemp("onnx") / "published.onnx"
    export_onnx(published, path)
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


@pytest.fixture(scope="module")
def recordings(reference_dir: Path, published: TrainedModel) -> dict[str, torch.Tensor]:
    """Normalised chunks of every recording that can be decoded."""
    form = published.chunks
    normalizer = FrameNormalizer(published.feature_mean, published.feature_std, form.scale, form.clip)
    chunks = {}
    for path in sorted((reference_dir / "wav").iterdir()):
        try:
            recording = measure_audio(path, published.front_end.sample_rate, resampler=KaiserResampler)
            frames = mel_frames(recording.samples(), published.front_end)
        except AudioError:
            continue
        normalized = normalizer.normalize(frames)
        chunks[path.name] = chunk_utterance(normalized, form.num_chunks, form.chunk_frames, form.short)
    return chunks


def run(session: onnxruntime.InferenceSession, chunks: torch.Tensor) -> dict[str, np.ndarray]:
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {"chunks": chunks.numpy()}), strict=True))


def test_onnx_gives_torchs_outputs_on_every_recording(
    published: TrainedModel, session: onnxruntime.InferenceSession, recordings: dict[str, torch.Tensor]
) -> None:
    # All but silence, an empty file and garbage; some have chunks of fewer than 62 frames.
    assert len(recordings) == 22 and {len(chunks[0]) for chunks in recordings.values()} >= {61, 62}
    for name, chunks in recordings.items():
        found = run(session, chunks)
        for column, (spec, network) in enumerate(published.networks):
            (attribute,) = spec.attributes
            with torch.no_grad():
                wanted = network(chunks)
            scores = wanted.emotion[:, 0].double() * spec.label_std[0] + spec.label_mean[0]
            pairs = {
                "scores": (found["scores"][:, column], scores),
                "embedding": (found[f"embedding_{attribute}"], wanted.embedding),
                "cluster_logits": (found[f"cluster_logits_{attribute}"], wanted.cluster_logits),
            }
            for output, (ours, theirs) in pairs.items():
                difference = np.abs(ours - theirs.numpy()).max()
                # These embeddings reach 1400, where torch's own are 3e-4 from what float64 gives.
                limit = 1e-6 * np.abs(theirs.numpy()).max() if output == "embedding" else 1e-4
                assert difference < limit, (name, attribute, output, difference)


def test_onnx_alone_gives_the_published_scores(
    reference_dir: Path, session: onnxruntime.InferenceSession, recordings: dict[str, torch.Tensor]
) -> None:
    with open(reference_dir / "predictions.csv", newline="", encoding="utf-8") as file:
        expected = {row["file"]: row for row in csv.DictReader(file) if row["status"] == "ok"}
    assert len(expected) == 20 and expected.keys() <= recordings.keys()
    for name, row in expected.items():
        scores = run(session, recordings[name])["scores"].mean(axis=0)
        published_scores = [float(row[short]) for short in SHORT_NAMES.values()]
        # One recording has another sample rate, and resamplers differ.
        limit = 1e-3 if name == "e02_stereo44k1.wav" else 1e-4
        assert np.abs(scores - published_scores).max() < limit, (name, scores)
