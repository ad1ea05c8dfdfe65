"""Predict emotional attributes and clusters of recordings with a trained model."""

from __future__ import annotations

import hashlib
import itertools
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from jaxtyping import Float, Float32, Float64, Int64, Num
from torch import Tensor

from raydec.corpus.audio_files import printable
from raydec.errors import UserError
from raydec.features.audio import AudioError, load_audio, prepare_waveform
from raydec.features.chunking import chunk_utterance
from raydec.features.files import file_sha256
from raydec.features.kaiser import load_audio_kaiser, resample_kaiser
from raydec.features.mel import FrameNormalizer, mel_frames
from raydec.features.store import FeatureStore
from raydec.model.directory import CENTROIDS_FILE, CONFIG_FILE, WEIGHTS_FILE, load_model
from raydec.model.folding import folded
from raydec.model.saved import SavedModel

# Utterances per forward pass. The number is fixed, and short batches are filled up, so that a prediction
# never depends on what else is predicted; one utterance at a time keeps a CPU's caches warm.
_UTTERANCES_PER_PASS = {"cpu": 1, "cuda": 64}
# Utterances whose frames are in memory together.
_UTTERANCES_IN_MEMORY = 256


@dataclass(frozen=True)
class Prediction(Mapping[str, float]):
    """What a model says of one recording: a mapping from attribute to score.

    Attributes:
        scores: per attribute, in the scale of the training labels.
        cluster: most frequent cluster of its chunks; None for a model without clusters.
    """

    scores: dict[str, float]
    cluster: int | None

    def __getitem__(self, attribute: str) -> float:
        return self.scores[attribute]

    def __iter__(self) -> Iterator[str]:
        return iter(self.scores)

    def __len__(self) -> int:
        return len(self.scores)


@dataclass(frozen=True)
class Predictions:
    """What a model says of many utterances.

    Attributes:
        scores: in the scale of the training labels.
        clusters: most frequent cluster of each utterance's chunks, the lowest number on ties; None for a
            model without clusters.
    """

    scores: Float64[np.ndarray, "utterance attribute"]
    clusters: Int64[np.ndarray, " utterance"] | None


def load(path: str | Path, device: str = "auto") -> Predictor:
    """Load a model directory for prediction.

    Args:
        path: a model directory.
        device: ``auto`` takes a GPU if there is one.

    Raises:
        UserError: no model directory, a damaged one, or a device that does not exist.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        place = torch.empty(0, device=device).device
    except (RuntimeError, AssertionError) as error:  # torch's answers to a device it does not have
        raise UserError(f"device {device!r} cannot be used: {str(error).splitlines()[0]}") from None
    return Predictor(load_model(path), place)


class Predictor:
    """A model ready to predict. Scores do not depend on batch size or order.

    Args:
        saved: the model.
        device: where its networks run.

    Attributes:
        saved: the model.
        attributes: what it predicts, in the order of its scores.
    """

    def __init__(self, saved: SavedModel, device: torch.device) -> None:
        self.saved = saved
        self.attributes = saved.attributes
        self._device = device
        self._networks = [folded(network.to(device)) for _, network in saved.networks]
        self._normalizer = FrameNormalizer(
            saved.feature_mean, saved.feature_std, saved.chunks.scale, saved.chunks.clip
        )
        self._label_mean = np.array([value for spec, _ in saved.networks for value in spec.label_mean])
        self._label_std = np.array([value for spec, _ in saved.networks for value in spec.label_std])
        self._centroids = None
        if saved.centroids is not None:
            self._centroids = torch.from_numpy(saved.centroids).double().to(device)

    @property
    def has_clusters(self) -> bool:
        """Whether predictions name a cluster."""
        return self._centroids is not None or self._networks[0].has_cluster_head

    def predict(
        self,
        audio: str | Path | Num[np.ndarray, " sample"] | Num[np.ndarray, "sample channel"],
        sample_rate: int | None = None,
    ) -> Prediction:
        """Predict one recording.

        Args:
            audio: an audio file, or samples.
            sample_rate: of the samples in Hz; a file knows its own.

        Raises:
            UserError: not audio, silent, or samples without their rate.
        """
        wanted_rate = self.saved.features.sample_rate
        if isinstance(audio, str | Path):
            waveform = self.load_audio(audio)
        elif sample_rate is None:
            raise UserError("samples come without a rate; pass sample_rate in Hz")
        elif self.saved.resampler == "kaiser":
            waveform = resample_kaiser(
                prepare_waveform(audio, sample_rate, sample_rate), sample_rate, wanted_rate
            )
        else:
            waveform = prepare_waveform(audio, sample_rate, wanted_rate)
        result = self.predict_frames([mel_frames(waveform, self.saved.features)])
        scores = dict(zip(self.attributes, result.scores[0].tolist(), strict=True))
        return Prediction(scores, None if result.clusters is None else int(result.clusters[0]))

    def load_audio(self, path: str | Path) -> Float32[np.ndarray, " sample"]:
        """Decode a file to mono samples at the model's rate, by the model's resampler.

        Raises:
            AudioError: see :func:`raydec.features.audio.load_audio`.
        """
        load_file = load_audio_kaiser if self.saved.resampler == "kaiser" else load_audio
        return load_file(path, self.saved.features.sample_rate)

    def predict_frames(self, frames: Sequence[Float[Tensor, "_ mel"]]) -> Predictions:
        """Predict utterances from their mel power, [frame, mel] each, at least one frame."""
        scores = np.empty((len(frames), len(self.attributes)))
        clusters = np.empty(len(frames), np.int64)
        by_length: dict[int, list[tuple[int, Tensor]]] = defaultdict(list)
        per_pass = _UTTERANCES_PER_PASS["cuda" if self._device.type == "cuda" else "cpu"]
        for i, utterance in enumerate(frames):
            chunks = self._chunks(utterance)
            # Utterances shorter than a chunk may have shorter chunks, which need passes of their own.
            waiting = by_length[chunks.shape[1]]
            waiting.append((i, chunks))
            if len(waiting) == per_pass:
                self._run(waiting, per_pass, scores, clusters)
                waiting.clear()
        for waiting in by_length.values():
            if waiting:
                self._run(waiting, per_pass, scores, clusters)
        return Predictions(scores, clusters if self.has_clusters else None)

    def predict_store(self, store: FeatureStore, rows: Int64[np.ndarray, " row"]) -> Predictions:
        """Predict utterances of a feature store.

        Raises:
            UserError: the store's features are not the ones this model was trained on.
        """
        differences = store.parameters.differences(self.saved.features)
        if differences:
            raise UserError(
                f"{store.path} was made with other features than the model's: {', '.join(differences)}"
            )
        parts = []
        for start in range(0, len(rows), _UTTERANCES_IN_MEMORY):
            block = rows[start : start + _UTTERANCES_IN_MEMORY]
            frames = [torch.from_numpy(store.frames(int(row)).astype(np.float32)) for row in block]
            parts.append(self.predict_frames(frames))
        return _concatenate(parts) if parts else self.predict_frames([])

    def _chunks(self, frames: Float[Tensor, "frame mel"]) -> Float[Tensor, "chunk m mel"]:
        form = self.saved.chunks
        normalized = self._normalizer.normalize(frames)
        return chunk_utterance(normalized, form.num_chunks, form.chunk_frames, form.short)

    def _run(
        self, items: list[tuple[int, Tensor]], per_pass: int, scores: np.ndarray, clusters: np.ndarray
    ) -> None:
        """Predict utterances of one chunk length and write the results where they belong."""
        indices = [i for i, _ in items]
        filling = [torch.zeros_like(items[0][1])] * (per_pass - len(items))
        batch = torch.cat([chunks for _, chunks in items] + filling).to(self._device)
        emotion, chunk_clusters = self._forward(batch)
        scores[indices] = emotion[: len(items)] * self._label_std + self._label_mean
        if chunk_clusters is not None:
            clusters[indices] = [np.bincount(row).argmax() for row in chunk_clusters[: len(items)]]

    # TF32 would cost three digits on a GPU; predictions are to be the same everywhere.
    @torch.backends.cudnn.flags(enabled=True, allow_tf32=False)
    @torch.inference_mode()
    def _forward(
        self, chunks: Float[Tensor, "chunk frame mel"]
    ) -> tuple[Float64[np.ndarray, "utterance attribute"], Int64[np.ndarray, "utterance position"] | None]:
        """Normalised scores per utterance, and the cluster of each chunk."""
        outputs = [network(chunks) for network in self._networks]
        num_chunks = self.saved.chunks.num_chunks
        emotion = torch.cat([output.emotion.double() for output in outputs], dim=1)
        by_utterance = emotion.view(-1, num_chunks, len(self.attributes)).mean(dim=1)
        clusters: Tensor | None = None
        if self._centroids is not None:
            clusters = torch.cdist(outputs[0].embedding.double(), self._centroids).argmin(dim=1)
        elif outputs[0].cluster_logits is not None:
            clusters = outputs[0].cluster_logits.argmax(dim=1)
        by_chunk = None if clusters is None else clusters.view(-1, num_chunks).cpu().numpy()
        return by_utterance.cpu().numpy(), by_chunk


def model_fingerprint(path: str | Path) -> str:
    """Checksum of the files that decide a model's predictions; its model card may change."""
    names = (WEIGHTS_FILE, CONFIG_FILE, CENTROIDS_FILE)
    present = [Path(path) / name for name in names if (Path(path) / name).exists()]
    return hashlib.sha256(" ".join(map(file_sha256, present)).encode()).hexdigest()


def result_schema(predictor: Predictor) -> pa.Schema:
    """Columns of :func:`predict_files`: file, start, end, one per attribute, cluster, error."""
    return pa.schema(
        [
            ("file", pa.string()),
            ("start", pa.float64()),
            ("end", pa.float64()),
            *((name, pa.float64()) for name in predictor.attributes),
            ("cluster", pa.int64()),
            ("error", pa.string()),
        ]
    )


def predict_files(predictor: Predictor, files: Sequence[str], window_s: float | None = None) -> pa.Table:
    """Predict a list of files; needs nothing else, so that any process can take any part of a list.

    Args:
        predictor: a loaded model.
        files: audio files.
        window_s: predict windows of this many seconds instead of whole files. They follow each other
            without overlap; a rest shorter than half a window joins the last one.

    Returns:
        One row per file or window, in order; ``start`` and ``end`` in seconds. What cannot be predicted is
        a row with the reason in ``error``.
    """
    rows: list[dict[str, object]] = []
    waiting: list[tuple[dict[str, object], Tensor]] = []
    for file in files:
        for row, frames in _spectrograms(predictor, file, window_s):
            rows.append(row)
            if frames is not None:
                waiting.append((row, frames))
            if len(waiting) == _UTTERANCES_IN_MEMORY:
                _complete(predictor, waiting)
    _complete(predictor, waiting)
    return pa.Table.from_pylist(rows, schema=result_schema(predictor))


def _spectrograms(
    predictor: Predictor, file: str, window_s: float | None
) -> Iterator[tuple[dict[str, object], Tensor | None]]:
    """Rows without scores, and the mel frames to predict them from (None: the row has its error)."""
    parameters = predictor.saved.features
    rate = parameters.sample_rate
    name = printable(file)
    try:
        waveform = predictor.load_audio(file)
    except AudioError as error:
        yield {"file": name, "error": error.reason}, None
        return
    window = len(waveform) if window_s is None else max(1, round(window_s * rate))
    for start, stop in window_bounds(len(waveform), window):
        row: dict[str, object] = {"file": name, "start": start / rate, "end": stop / rate}
        samples = waveform[start:stop]
        if samples.any():
            yield row, mel_frames(samples, parameters)
        else:
            yield row | {"error": "silent: every sample is zero"}, None


def window_bounds(num_samples: int, window: int) -> list[tuple[int, int]]:
    """First and one past the last sample of each window; see :func:`predict_files`."""
    num_windows = max(1, num_samples // window + (num_samples % window * 2 >= window))
    return list(itertools.pairwise([*range(0, num_windows * window, window), num_samples]))


def _complete(predictor: Predictor, waiting: list[tuple[dict[str, object], Tensor]]) -> None:
    """Predict what waits, write the scores into the rows, and leave nothing waiting."""
    result = predictor.predict_frames([frames for _, frames in waiting])
    for i, (row, _) in enumerate(waiting):
        row.update(zip(predictor.attributes, result.scores[i].tolist(), strict=True))
        row["cluster"] = None if result.clusters is None else int(result.clusters[i])
    waiting.clear()


def _concatenate(parts: Sequence[Predictions]) -> Predictions:
    clusters = [part.clusters for part in parts if part.clusters is not None]
    return Predictions(
        np.concatenate([part.scores for part in parts]), np.concatenate(clusters) if clusters else None
    )
