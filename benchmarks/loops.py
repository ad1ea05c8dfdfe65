"""The published epoch, timed phase by phase, for the baseline loop and the bare loops.

``python -m benchmarks.loops KIND STORE FILES --epochs N`` prints one JSON object per epoch. KIND is

* ``baseline``: the published data path and loop; every chunk is read from its utterance's file,
* ``plain``, ``channels_last``, ``compiled``: three variants of the same loop over chunks in memory: an
  upper bound for any loop without Ray.
"""

from __future__ import annotations

import argparse
import json
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.cluster import KMeans

from benchmarks.baseline_data import NUM_CHUNKS, UtteranceFiles, batches_of, write_utterance_files
from benchmarks.plain_network import PlainNetwork, ccc_loss, utterance_ccc
from raydec.features.chunk_set import ChunkSet, normalizer_of
from raydec.features.store import FeatureStore

ATTRIBUTE = "arousal"
KINDS = ("baseline", "plain", "channels_last", "compiled")


class Source(ABC):
    """Chunks of some utterances, batch by batch."""

    def __init__(self, labels: np.ndarray) -> None:
        self.labels = torch.from_numpy(labels).float()
        self.num_chunks = len(labels) * NUM_CHUNKS

    @abstractmethod
    def batches(self, order: np.ndarray, size: int) -> Iterator[tuple[np.ndarray, torch.Tensor]]:
        """Chunk numbers and chunks, in order."""


class FileSource(Source):
    """Through the published data path."""

    def __init__(
        self, files: UtteranceFiles, labels: np.ndarray, num_loaders: int, device: torch.device
    ) -> None:
        super().__init__(labels)
        self._files, self._num_loaders, self._device = files, num_loaders, device

    def batches(self, order: np.ndarray, size: int) -> Iterator[tuple[np.ndarray, torch.Tensor]]:
        """See :class:`Source`."""
        loader = batches_of(self._files, order, size, self._num_loaders, self._device)
        for start, chunks in zip(range(0, len(order), size), loader, strict=True):
            yield order[start : start + size], chunks.to(self._device, non_blocking=True)


class MemorySource(Source):
    """Tensors that were gathered before the clock started."""

    def __init__(self, chunks: torch.Tensor, labels: np.ndarray) -> None:
        super().__init__(labels)
        self._chunks = chunks

    def batches(self, order: np.ndarray, size: int) -> Iterator[tuple[np.ndarray, torch.Tensor]]:
        """See :class:`Source`."""
        for start in range(0, len(order), size):
            numbers = order[start : start + size]
            yield numbers, self._chunks[torch.from_numpy(numbers).to(self._chunks.device)]


class PublishedLoop:
    """One epoch as published (semi-supervised, one attribute).

    Args:
        kind: one of :data:`KINDS`.
        num_clusters: K.
        device: where the network is.
        batch: chunks per training batch.
        embed_batch: chunks per batch without gradients.
    """

    def __init__(
        self, kind: str, num_clusters: int, device: torch.device, batch: int, embed_batch: int
    ) -> None:
        self._batch = batch
        self._clusters, self._device, self._embed_batch = num_clusters, device, embed_batch
        self.network = PlainNetwork(num_clusters).to(device)
        if kind in ("channels_last", "compiled"):
            self.network.to(memory_format=torch.channels_last)
        self._forward = torch.compile(self.network) if kind == "compiled" else self.network
        body = self.network.body()
        self._sgd, self._adam = torch.optim.SGD(body, 0.001), torch.optim.Adam(body, 0.0005)
        self._rng = np.random.default_rng()
        self.clock: dict[str, float] = {}

    def epoch(self, unlabeled: Source | None, labeled: Source, validation: Source) -> dict[str, float]:
        """Run it; returns seconds by phase and the validation CCC."""
        self.clock = {}
        begun = time.perf_counter()
        num_trained = 0
        for source, supervised in ((unlabeled, False), (labeled, True)):
            if source is not None:
                self._stage(source, supervised)
                num_trained += source.num_chunks
        with self._timed("validate"):
            predicted = self._without_gradients(validation, self.network.emotion)
        seconds = {f"{name}_s": value for name, value in self.clock.items()}
        return seconds | {
            "epoch_s": time.perf_counter() - begun,
            "train_chunks": num_trained,
            "ccc": utterance_ccc(predicted, validation.labels),
        }

    def _stage(self, source: Source, supervised: bool) -> None:
        with self._timed("embed"):
            embeddings = self._without_gradients(source, self.network.embed).numpy()
        with self._timed("kmeans"):
            # As in faiss by default: a random start, 20 iterations, all points.
            fit = KMeans(self._clusters, init="random", n_init=1, max_iter=20, tol=0).fit(embeddings)
            labels = torch.from_numpy(fit.labels_.astype(np.int64))
        with self._timed("train"):
            self._train(source, labels, supervised)

    def _train(self, source: Source, labels: torch.Tensor, supervised: bool) -> None:
        self.network.renew_top(self._clusters)
        top = torch.optim.SGD(self.network.top.parameters(), 0.05)
        if not supervised:  # never unfrozen, as published
            for layer in (self.network.emotion_hidden, self.network.emotion_top):
                layer.requires_grad_(False)
        steppers = [self._sgd, top, *([self._adam] if supervised else [])]
        self.network.train()
        for numbers, chunks in source.batches(self._balanced_draw(labels.numpy()), self._batch):
            logits, emotion = self._forward(chunks)
            loss = F.cross_entropy(logits, labels[numbers].to(self._device))
            if supervised:
                target = source.labels[numbers // NUM_CHUNKS].to(self._device)
                loss = loss + ccc_loss(emotion, target)
            for stepper in steppers:
                stepper.zero_grad()
            loss.backward()
            for stepper in steppers:
                stepper.step()
            loss.item()

    def _balanced_draw(self, labels: np.ndarray) -> np.ndarray:
        clusters = np.unique(labels)
        quota = -(-len(labels) // len(clusters))
        drawn = []
        for cluster in clusters:
            members = np.flatnonzero(labels == cluster)
            drawn.append(self._rng.choice(members, quota, replace=len(members) < quota))
        return self._rng.permutation(np.concatenate(drawn))[: len(labels)]

    @torch.no_grad()
    def _without_gradients(self, source: Source, function) -> torch.Tensor:
        self.network.eval()
        parts = [
            function(chunks).cpu()
            for _, chunks in source.batches(np.arange(source.num_chunks), self._embed_batch)
        ]
        return torch.cat(parts)

    @contextmanager
    def _timed(self, phase: str) -> Iterator[None]:
        begun = time.perf_counter()
        yield
        if self._device.type == "cuda":
            torch.cuda.synchronize()
        self.clock[phase] = self.clock.get(phase, 0.0) + time.perf_counter() - begun


def open_sources(
    kind: str, store: FeatureStore, files: Path, num_loaders: int, device: torch.device
) -> list[Source | None]:
    """The unlabeled, labeled and validation chunks for a loop."""
    form = store.front_end.usual_format
    normalizer = normalizer_of(store, form)
    paths = write_utterance_files(store, files) if kind == "baseline" else []
    scale = store.label_stats[ATTRIBUTE]
    sources: list[Source | None] = []
    for split in ("unlabeled", "train", "validation"):
        rows = store.rows(split=split)
        chunks = ChunkSet(store, rows, normalizer, form)
        labels = (chunks.labels([ATTRIBUTE])[:, 0] - scale.mean) / scale.std
        if not len(rows):
            sources.append(None)
        elif kind == "baseline":
            mine = UtteranceFiles([paths[row] for row in rows], normalizer.mean, normalizer.std)
            sources.append(FileSource(mine, labels, num_loaders, device))
        else:
            sources.append(MemorySource(chunks.gather(np.arange(len(chunks))).to(device), labels))
    return sources


def main() -> None:
    """Run some epochs of one kind of loop."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("store", type=Path)
    parser.add_argument("files", type=Path)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--loaders", type=int, default=0)
    parser.add_argument("--clusters", type=int, default=10)
    parser.add_argument("--batch-utterances", type=int, default=64)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    if options.kind != "baseline":  # the baseline uses the allocator's defaults, like the original
        from raydec.learning.host import keep_freed_memory

        keep_freed_memory()
    torch.backends.cudnn.benchmark = True
    torch.manual_seed(31)
    device = torch.device(options.device)
    sources = open_sources(
        options.kind, FeatureStore.open(options.store), options.files, options.loaders, device
    )
    batch = options.batch_utterances * NUM_CHUNKS
    embed_batch = batch if options.kind == "baseline" or device.type == "cuda" else 16
    loop = PublishedLoop(options.kind, options.clusters, device, batch, embed_batch)
    for epoch in range(1, options.epochs + 1):
        print(json.dumps({"epoch": epoch} | loop.epoch(*sources)), flush=True)


if __name__ == "__main__":
    main()
