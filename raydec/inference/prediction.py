"""Predict emotional attributes, emotion classes and clusters of recordings with a trained model."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Float32, Float64, Int64, Num
from torch import Tensor

from raydec.errors import UserError
from raydec.features.audio import prepare_waveform
from raydec.features.chunking import cut
from raydec.features.kaiser import resample_kaiser
from raydec.features.normalization import FrameNormalizer
from raydec.features.speaker_means import offsets_of
from raydec.features.store import FeatureStore
from raydec.files.atomic import file_sha256
from raydec.inference.spectrograms import frames_of, open_recording, stream_windows
from raydec.learning.dependency import most_frequent_clusters
from raydec.model.bundle import with_encoder
from raydec.model.directory import CENTROIDS_FILE, CONFIG_FILE, WEIGHTS_FILE, load_model
from raydec.model.folding import folded
from raydec.model.hub import local_model
from raydec.model.network import joined
from raydec.model.trained import TrainedModel

# Utterances per forward pass. The number is fixed, and short batches are filled up, so that a prediction
# never depends on what else is predicted; one utterance at a time keeps a CPU's caches warm.
_UTTERANCES_PER_PASS = {"cpu": 1, "cuda": 64}
# Utterances whose frames are in memory at the same time.
_UTTERANCES_IN_MEMORY = 256
SILENT = "silent: every sample is zero"
"""The error of a window without sound, in a recording that has some."""


@dataclass(frozen=True)
class Prediction(Mapping[str, float]):
    """A model's prediction for one recording: a mapping from output names to numbers.

    Attributes:
        scores: per attribute, in the scale of the training labels, and per class its probability, under
            names such as ``emotion_A``.
        cluster: most frequent cluster of its chunks; None for a model without clusters.
        probabilities: of each class, by group: ``{"emotion": {"A": 0.7, "N": 0.3}}``; empty for a model
            without classes.
    """

    scores: dict[str, float]
    cluster: int | None
    probabilities: dict[str, dict[str, float]] = field(default_factory=dict)

    @property
    def classes(self) -> dict[str, str]:
        """The most probable class of each group."""
        return {group: max(found, key=found.__getitem__) for group, found in self.probabilities.items()}

    def __getitem__(self, name: str) -> float:
        return self.scores[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.scores)

    def __len__(self) -> int:
        return len(self.scores)


@dataclass(frozen=True, kw_only=True)
class WindowPrediction(Prediction):
    """A model's prediction for one window of a stream.

    Attributes:
        start: its beginning in seconds from that of the stream, to the millisecond.
        end: its end.
        error: why it has no scores; None for one that has.
    """

    start: float
    end: float
    error: str | None = None


@dataclass(frozen=True)
class Predictions:
    """A model's predictions for many utterances.

    Attributes:
        scores: attributes in the scale of the training labels, then probabilities of classes.
        clusters: most frequent cluster of each utterance's chunks, the lowest number on ties; None for a
            model without clusters.
        embeddings: mean of the first network's embeddings over each utterance's chunks; None unless
            requested.
        distances: mean over each utterance's chunks of the distances to all centroids; None unless
            requested, and for a model without centroids.
    """

    scores: Float64[np.ndarray, "utterance output"]
    clusters: Int64[np.ndarray, " utterance"] | None
    embeddings: Float32[np.ndarray, "utterance d"] | None = None
    distances: Float32[np.ndarray, "utterance cluster"] | None = None


def load(path: str | Path, device: str = "auto", *, encoder: str | Path | None = None) -> Predictor:
    """Load a model directory for prediction.

    Args:
        path: a model directory, or ``hf:owner/name`` for one on the Hugging Face Hub.
        device: ``auto`` uses a GPU if there is one.
        encoder: folder of the pretrained encoder that the model names; None: in the model directory, or
            on the Hub.

    Raises:
        UserError: no model directory, a damaged one, a device that does not exist, or another encoder than
            the one that the model names.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        place = torch.empty(0, device=device).device
    except (RuntimeError, AssertionError) as error:  # torch's errors for a device that does not exist
        raise UserError(f"device {device!r} cannot be used: {str(error).splitlines()[0]}") from None
    folder = local_model(path)
    trained = load_model(folder)
    trained.front_end = with_encoder(trained.front_end, folder, encoder)
    for _, network in trained.networks:
        network.encoder.located(trained.front_end)
    return Predictor(trained, place)


class Predictor:
    """A model ready to predict. Scores do not depend on batch size or order.

    Args:
        trained: the model.
        device: where its networks run.

    Attributes:
        trained: the model.
        outputs: what it predicts, in the order of its scores.
    """

    def __init__(self, trained: TrainedModel, device: torch.device) -> None:
        self.trained = trained
        self.outputs = trained.outputs
        self._device = device
        self._networks = [folded(network.to(device)) for _, network in trained.networks]
        self._normalizer = FrameNormalizer(
            trained.feature_mean, trained.feature_std, trained.chunks.scale, trained.chunks.clip
        )
        self._centroids = None
        if trained.centroids is not None:
            # A copy: in a Ray worker the array is a view of shared memory, which may not be written to.
            self._centroids = torch.tensor(trained.centroids, dtype=torch.float64, device=device)

    @property
    def attributes(self) -> tuple[str, ...]:
        """The attributes that it predicts."""
        return self.outputs.attributes

    @property
    def embedding_dim(self) -> int:
        """Width of an embedding."""
        return self._networks[0].embedding_dim

    @property
    def num_centroids(self) -> int | None:
        """Centroids of the model; None for one that has none."""
        return None if self._centroids is None else len(self._centroids)

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
            sample_rate: of the samples in Hz; not needed for a file.

        Raises:
            UserError: not audio, silent, or samples without their rate.
        """
        if isinstance(audio, str | Path):
            frames = frames_of(self.trained, open_recording(self.trained, str(audio)))
        elif sample_rate is None:
            raise UserError("samples come without a rate; pass sample_rate in Hz")
        else:
            frames = self.trained.front_end.frames(self._resampled(audio, sample_rate))
        return self._predict_one(frames)

    def stream(
        self,
        blocks: Iterable[Num[np.ndarray, "_"] | Num[np.ndarray, "_ _"]],
        sample_rate: int,
        *,
        window_s: float = 4.0,
        hop_s: float | None = None,
    ) -> Iterator[WindowPrediction]:
        """Predict windows of a live stream, each as soon as it is complete.

        The scores equal those of the same windows of a file: a window is normalised by its own peak and does
        not depend on samples outside it. It is returned half a hop after its end, once it cannot be the
        last window, which extends to the end of the stream.

        Args:
            blocks: samples in blocks of any length, one column per channel.
            sample_rate: of the samples in Hz.
            window_s: length of a window in seconds.
            hop_s: seconds from the start of one window to that of the next; default: ``window_s``.

        Raises:
            UserError: a hop longer than a window, or unusable samples.
        """
        if not 0 < (window_s if hop_s is None else hop_s) <= window_s:
            raise UserError(f"hop_s={hop_s} must be above 0 and at most window_s={window_s}")
        rate = self.trained.front_end.sample_rate
        for place, samples in stream_windows(self.trained, blocks, sample_rate, window_s, hop_s):
            times = round(place / rate, 3), round((place + len(samples)) / rate, 3)
            if not samples.any():
                yield WindowPrediction({}, None, start=times[0], end=times[1], error=SILENT)
            else:
                found = self._predict_one(self.trained.front_end.frames(samples))
                yield WindowPrediction(**vars(found), start=times[0], end=times[1])

    def _predict_one(self, frames: Float[Tensor, "frame width"]) -> Prediction:
        result = self.predict_frames([frames])
        scores = dict(zip(self.outputs.names, result.scores[0].tolist(), strict=True))
        cluster = None if result.clusters is None else int(result.clusters[0])
        return Prediction(scores, cluster, self.outputs.by_class(result.scores[0]))

    def _resampled(
        self, audio: Num[np.ndarray, " sample"] | Num[np.ndarray, "sample channel"], sample_rate: int
    ) -> Float32[np.ndarray, " resampled"]:
        wanted = self.trained.front_end.sample_rate
        if self.trained.resampler == "kaiser":
            return resample_kaiser(prepare_waveform(audio, sample_rate, sample_rate), sample_rate, wanted)
        return prepare_waveform(audio, sample_rate, wanted)

    def predict_frames(
        self,
        frames: Sequence[Float[Tensor, "_ width"]],
        *,
        details: bool = False,
        offsets: Sequence[Float32[Tensor, " width"] | None] | None = None,
    ) -> Predictions:
        """Predict utterances from their frames, computed by the model's front end, at least one each.

        Args:
            frames: of each utterance.
            details: give embeddings and distances too.
            offsets: subtracted from the frames of each utterance, for a model that normalises by speaker;
                None for an unknown speaker.
        """
        outputs = _Room.for_utterances(len(frames), len(self.outputs))
        if details:
            outputs.embeddings = np.empty((len(frames), self.embedding_dim), np.float32)
            if self.num_centroids is not None:
                outputs.distances = np.empty((len(frames), self.num_centroids), np.float32)
        by_length: dict[int, list[tuple[int, Tensor]]] = defaultdict(list)
        per_pass = _UTTERANCES_PER_PASS["cuda" if self._device.type == "cuda" else "cpu"]
        for i, utterance in enumerate(frames):
            chunks = self._chunks(utterance, None if offsets is None else offsets[i])
            # Utterances shorter than a chunk may have shorter chunks, which need passes of their own.
            waiting = by_length[chunks.shape[1]]
            waiting.append((i, chunks))
            if len(waiting) == per_pass:
                self._run(waiting, per_pass, outputs)
                waiting.clear()
        for waiting in by_length.values():
            if waiting:
                self._run(waiting, per_pass, outputs)
        clusters = outputs.clusters if self.has_clusters else None
        return Predictions(outputs.scores, clusters, outputs.embeddings, outputs.distances)

    def predict_store(self, store: FeatureStore, rows: Int64[np.ndarray, " row"]) -> Predictions:
        """Predict utterances of a feature store.

        Raises:
            UserError: the store's features are not the ones this model was trained on.
        """
        differences = store.front_end.differences(self.trained.front_end)
        if differences:
            raise UserError(
                f"{store.path} was made with other features than the model's: {', '.join(differences)}"
            )
        for network in self._networks:
            network.encoder.located(store.front_end)
        parts = []
        for start in range(0, len(rows), _UTTERANCES_IN_MEMORY):
            block = rows[start : start + _UTTERANCES_IN_MEMORY]
            frames = [torch.from_numpy(store.frames(int(row)).astype(np.float32)) for row in block]
            parts.append(self.predict_frames(frames, offsets=self._offsets(store, block)))
        return _concatenate(parts) if parts else self.predict_frames([])

    def _offsets(self, store: FeatureStore, rows: np.ndarray) -> list[Tensor] | None:
        if self.trained.chunks.speaker_normalization == "none":
            return None
        found = offsets_of(store, rows, self.trained.chunks.scale, self.trained.feature_mean)
        return [torch.from_numpy(found.values[place]) for place in found.speaker]

    def _chunks(
        self, frames: Float[Tensor, "frame width"], offset: Float32[Tensor, " width"] | None
    ) -> Float[Tensor, "chunk m width"]:
        return cut(self._normalizer.normalize(frames, offset), self.trained.chunks)

    def _run(self, items: list[tuple[int, Tensor]], per_pass: int, outputs: _Room) -> None:
        """Predict utterances of one chunk length and write the results where they belong."""
        indices = [i for i, _ in items]
        filling = [torch.zeros_like(items[0][1])] * (per_pass - len(items))
        batch = torch.cat([chunks for _, chunks in items] + filling).to(self._device)
        emotion, embedding, distances, logits = self._forward(batch)
        count, num_chunks = len(items), self.trained.chunks.num_chunks

        def by_utterance(values: Tensor) -> Tensor:
            return values.view(-1, num_chunks, *values.shape[1:])[:count]

        scores = by_utterance(emotion).mean(dim=1).cpu().numpy()
        outputs.scores[indices] = self.outputs.in_label_scale(scores)
        # The nearest centroid; for a model without centroids, the prediction of the cluster head.
        closeness = logits if distances is None else -distances
        if closeness is not None:
            chosen = by_utterance(closeness.argmax(dim=1)).reshape(-1).cpu().numpy()
            outputs.clusters[indices] = most_frequent_clusters(chosen, num_chunks)
        if outputs.embeddings is not None:
            outputs.embeddings[indices] = by_utterance(embedding.double()).mean(dim=1).float().cpu().numpy()
        if outputs.distances is not None:
            assert distances is not None
            outputs.distances[indices] = by_utterance(distances).mean(dim=1).float().cpu().numpy()

    # TF32 would lose three digits on a GPU, but predictions should agree on all devices.
    @torch.backends.cudnn.flags(enabled=True, allow_tf32=False)
    @torch.inference_mode()
    def _forward(
        self, chunks: Float[Tensor, "chunk frame width"]
    ) -> tuple[
        Float[Tensor, "chunk output"],
        Float[Tensor, "chunk d"],
        Float64[Tensor, "chunk cluster"] | None,
        Float[Tensor, "chunk cluster"] | None,
    ]:
        """Outputs to be averaged; the first network's embeddings, distances to centroids, and logits."""
        outputs = [network(chunks) for network in self._networks]
        specs = [spec.outputs for spec, _ in self.trained.networks]
        emotion = joined([output.emotion.double() for output in outputs], specs)
        embedding, distances = outputs[0].embedding, None
        if self._centroids is not None:
            distances = torch.cdist(embedding.double(), self._centroids)
        return emotion, embedding, distances, outputs[0].cluster_logits


@dataclass
class _Room:
    """Arrays for the predictions, filled pass by pass."""

    scores: np.ndarray
    clusters: np.ndarray
    embeddings: np.ndarray | None = None
    distances: np.ndarray | None = None

    @classmethod
    def for_utterances(cls, count: int, num_outputs: int) -> _Room:
        return cls(np.empty((count, num_outputs)), np.empty(count, np.int64))


def model_fingerprint(path: str | Path) -> str:
    """Checksum of the files that decide a model's predictions; its model card may change."""
    names = (WEIGHTS_FILE, CONFIG_FILE, CENTROIDS_FILE)
    present = [Path(path) / name for name in names if (Path(path) / name).exists()]
    return hashlib.sha256(" ".join(map(file_sha256, present)).encode()).hexdigest()


def _concatenate(parts: Sequence[Predictions]) -> Predictions:
    clusters = [part.clusters for part in parts if part.clusters is not None]
    return Predictions(
        np.concatenate([part.scores for part in parts]), np.concatenate(clusters) if clusters else None
    )
