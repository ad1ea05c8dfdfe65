"""One optimiser step over a global batch, of which each worker holds a share.

A step is the same function of the global batch for any number of workers: the cross-entropy is a sum over
all chunks divided once, the losses of targets are functions of the global batch's statistics, batch-norm
statistics are those of the global batch, dropout masks belong to positions in it, and parameter gradients
are summed over workers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from raydec.config import Config
from raydec.features.chunk_set import ChunkSet
from raydec.learning.epoch_draw import BatchDraw
from raydec.learning.losses import cluster_loss_sum, divergence_sum, reconstruction_error_sum
from raydec.learning.mergeable import merged_over_workers
from raydec.learning.optimizers import Optimizers
from raydec.learning.randomness import torch_generator_for
from raydec.learning.targets.registry import Targets
from raydec.learning.worker import Worker
from raydec.model.batch_norm import biases_without_effect
from raydec.model.network import Network, NetworkOutput
from raydec.model.noise import Noise
from raydec.model.temporal import draw_triplets, triplet_loss

# The temporal successor's number (SPEC "The temporal successor").
TRIPLETS_PER_UTTERANCE = 10


@dataclass(frozen=True)
class Batch:
    """A worker's share of a global batch.

    Attributes:
        chunks: float32 ``[chunk, frame, mel]``.
        pseudo_labels: int64 ``[chunk]``, or None in a stage without clusters.
        targets: float32 ``[chunk, column]``, encoded labels, NaN where unlabeled; None when unsupervised.
        num_draws: draws of the whole batch; a draw is a chunk, or an utterance with all its chunks.
        own: the draws of this worker.
        chunks_per_draw: chunks of a draw.
    """

    chunks: Tensor
    pseudo_labels: Tensor | None
    targets: Tensor | None
    num_draws: int
    own: slice
    chunks_per_draw: int

    @property
    def num_global_chunks(self) -> int:
        """Chunks of the whole batch."""
        return self.num_draws * self.chunks_per_draw


StepLosses = Mapping[str, Tensor]
"""Losses of the global batch by name, before weighting. They are on the device: reading one waits for it."""


def read_losses(records: Sequence[StepLosses]) -> list[dict[str, float]]:
    """The numbers of several steps, fetched from the device at once."""
    named = [(row, name, value) for row, losses in enumerate(records) for name, value in losses.items()]
    read: list[dict[str, float]] = [{} for _ in records]
    if named:
        values = torch.stack([value.double() for _, _, value in named]).tolist()
        for (row, name, _), value in zip(named, values, strict=True):
            read[row][name] = value
    return read


class StepRunner:
    """Forward, backward, sum over workers, step."""

    def __init__(
        self, config: Config, network: Network, optimizers: Optimizers, worker: Worker, targets: Targets
    ) -> None:
        self._config = config
        self._targets = [(target, target.criterion(), *columns) for target, *columns in targets.parts()]
        self._network = network
        self._optimizers = optimizers
        self._worker = worker
        self._use_bf16 = uses_bf16(config, worker.device)

    def run(self, batch: Batch, *, epoch: int, stage: str, step: int, global_step: int) -> StepLosses:
        """Take one optimiser step; every worker calls it with its share of the same batch."""
        generator = torch_generator_for(self._config.seed, "noise", epoch, stage, step)
        noise = Noise(generator, batch.num_draws, batch.own.start, batch.own.stop)
        self._optimizers.zero_grad()
        with torch.autocast(self._worker.device.type, torch.bfloat16, enabled=self._use_bf16):
            output = self._network(batch.chunks, noise)
        loss, summed, replicated = self._losses(output, batch, generator)
        loss.backward()
        parameters = self._stepped_parameters(supervised=batch.targets is not None)
        totals = self._sum_over_workers(parameters, summed)
        if self._config.training.recipe == "modern":
            nn.utils.clip_grad_norm_(parameters, self._config.training.gradient_clip)
        self._optimizers.step(global_step, supervised=batch.targets is not None)
        return totals | {name: value.detach() for name, value in replicated.items()}

    def _stepped_parameters(self, *, supervised: bool) -> list[nn.Parameter]:
        """Parameters that the loss depends on, the same list on every worker.

        A worker without rows may lack a gradient that others have; it contributes zeros.
        """
        idle = biases_without_effect(self._network)
        if not supervised:
            idle += self._network.emotion_head_parameters()
        for parameter in idle:
            parameter.grad = None
        idle_ids = {id(parameter) for parameter in idle}
        stepped = [p for p in self._network.parameters() if p.requires_grad and id(p) not in idle_ids]
        for parameter in stepped:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        return stepped

    def _losses(
        self, output: NetworkOutput, batch: Batch, generator: torch.Generator
    ) -> tuple[Tensor, dict[str, Tensor], dict[str, Tensor]]:
        """The weighted loss; the means that are still to be summed over workers; the global terms."""
        weights, num_chunks = self._config.loss, batch.num_global_chunks
        summed: dict[str, tuple[float, Tensor]] = {}
        replicated: dict[str, tuple[float, Tensor]] = {}
        if batch.pseudo_labels is not None and output.cluster_logits is not None:
            cross_entropy = cluster_loss_sum(_wide(output.cluster_logits), batch.pseudo_labels)
            weight = 1.0 if weights.cluster_weight is None else weights.cluster_weight
            summed["cluster"] = weight, cross_entropy / num_chunks
        if output.reconstruction is not None:
            error = reconstruction_error_sum(_wide(output.reconstruction), batch.chunks)
            values_per_chunk = batch.chunks[0].numel() if len(batch.chunks) else 1
            summed["reconstruction"] = weights.reconstruction_weight, error / (num_chunks * values_per_chunk)
        if output.latent_mean is not None and output.latent_log_variance is not None:
            divergence = divergence_sum(_wide(output.latent_mean), _wide(output.latent_log_variance))
            summed["divergence"] = weights.kl_weight, divergence / num_chunks
        if output.sequence is not None and self._config.model.temporal == "triplet":
            summed["triplet"] = weights.triplet_weight, self._triplet_mean(output.sequence, batch, generator)
        if batch.targets is not None:
            predicted, labels = _wide(output.emotion), batch.targets
            if weights.ccc_level == "utterance":
                # Scores are means over an utterance's chunks.
                predicted = predicted.view(-1, batch.chunks_per_draw, predicted.shape[1]).mean(dim=1)
                labels = labels[:: batch.chunks_per_draw]
            replicated = self._target_losses(predicted, labels)
        terms = [weight * value for weight, value in [*summed.values(), *replicated.values()]]
        # A target's loss is float64; without the cast, every gradient would be float64.
        loss = torch.stack([term.to(_wide(output.embedding).dtype) for term in terms]).sum()
        return (
            loss,
            {name: value for name, (_, value) in summed.items()},
            {name: value for name, (_, value) in replicated.items()},
        )

    def _target_losses(self, output: Tensor, labels: Tensor) -> dict[str, tuple[float, Tensor]]:
        """Weight and loss of every target over the global batch."""
        losses = {}
        for target, criterion, outputs, columns in self._targets:
            local = criterion.statistics(output[:, outputs], labels[:, columns])
            merged = merged_over_workers(local, self._worker.all_gather, self._worker.rank)
            losses[target.loss_name] = target.loss_weight, criterion.loss(merged)
        return losses

    def _triplet_mean(self, sequence: Tensor, batch: Batch, generator: torch.Generator) -> Tensor:
        """This worker's part of the mean over all triplets of the global batch."""
        triplets = draw_triplets(self._network.num_chunks, batch.num_draws, TRIPLETS_PER_UTTERANCE, generator)
        losses = triplet_loss(_wide(sequence), triplets[batch.own], self._config.loss.triplet_margin)
        return losses.sum() / triplets[..., 0].numel()

    def _sum_over_workers(
        self, parameters: Sequence[nn.Parameter], summed: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        """Sum gradients and loss shares over workers in one collective; gradients in place."""
        if self._worker.world_size == 1:
            return {name: value.detach() for name, value in summed.items()}
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        pieces = [*gradients, *(value.detach().float() for value in summed.values())]
        totals = self._worker.all_sum(torch.cat([piece.reshape(-1) for piece in pieces]))
        parts = totals.split([piece.numel() for piece in pieces])
        for gradient, total in zip(gradients, parts, strict=False):
            gradient.copy_(total.view_as(gradient))
        return dict(zip(summed, (part.squeeze() for part in parts[len(gradients) :]), strict=True))


def _wide(tensor: Tensor) -> Tensor:
    """A bfloat16 activation as float32; wider types are unchanged."""
    return tensor.float() if tensor.dtype == torch.bfloat16 else tensor


def uses_bf16(config: Config, device: torch.device) -> bool:
    """Whether activations are bfloat16: if requested, or on a GPU that supports it."""
    if config.training.precision == "auto":
        return device.type == "cuda" and torch.cuda.is_bf16_supported()
    return config.training.precision == "bf16"


class BatchSource:
    """Turns global draws into a worker's share of tensors.

    Args:
        chunk_set: the set that is drawn from.
        worker: whose share.
        targets: float ``[utterance, column]``, encoded labels, NaN where unlabeled, or None.
        by_utterance: draws are utterances, each with some of its chunks, in order; else chunks.
        chunks_per_utterance: chunks of each; None: all.
        random_offsets: the utterance is divided into equal parts, and a chunk begins at a random place in
            each; otherwise chunks are the embedded ones, or a random selection of them.
    """

    def __init__(
        self,
        chunk_set: ChunkSet,
        worker: Worker,
        targets: np.ndarray | None,
        *,
        by_utterance: bool,
        chunks_per_utterance: int | None = None,
        random_offsets: bool = False,
    ) -> None:
        self._num_taken = chunks_per_utterance or chunk_set.num_chunks
        self._random_offsets = random_offsets
        self._set = chunk_set
        self._worker = worker
        self._targets = targets
        self._by_utterance = by_utterance

    def batch(self, draws: BatchDraw, rng: np.random.Generator) -> Batch:
        """This worker's share of a global batch.

        Args:
            draws: this worker's share.
            rng: in the same state on every worker; draws the places of chunks.
        """
        device, labels = self._worker.device, draws.labels
        if self._by_utterance:
            per_draw = self._num_taken
            places = self._places(draws, rng)
            # A chunk between two embedded ones gets the cluster of the nearest.
            nearest = np.rint(places * (self._set.num_chunks - 1)).astype(int)
            own = (draws.rows[:, None] * self._set.num_chunks + nearest).reshape(-1)
            labels = None if labels is None else np.take_along_axis(labels, nearest, axis=1)
            places, utterances = places.reshape(-1), draws.rows.repeat(per_draw)
        else:
            per_draw = 1
            own = draws.rows
            utterances = self._set.utterance_of(own)
        if self._by_utterance and self._random_offsets:
            chunks = self._set.gather_at(utterances, places, device)
        else:
            chunks = self._set.gather(own, device)
        targets = None
        if self._targets is not None:
            targets = torch.from_numpy(self._targets[utterances].astype(np.float32))
        return Batch(
            chunks=chunks,
            pseudo_labels=None
            if labels is None
            else torch.from_numpy(labels.reshape(-1).astype(np.int64)).to(device),
            targets=None if targets is None else targets.to(device),
            num_draws=draws.num_draws,
            own=draws.own,
            chunks_per_draw=per_draw,
        )

    def _places(self, draws: BatchDraw, rng: np.random.Generator) -> np.ndarray:
        """Where the chunks of own draws begin: 0 to 1, ``[draw, chunk]``, ascending."""
        taken, there = self._num_taken, self._set.num_chunks
        if self._random_offsets:
            return (np.arange(taken) + _own_random(rng, draws, taken)) / taken
        if taken >= there:
            return np.tile(np.arange(there) / (there - 1), (len(draws.rows), 1))
        chosen = _own_random(rng, draws, there).argsort(axis=1)[:, :taken]
        return np.sort(chosen, axis=1) / (there - 1)


def _own_random(rng: np.random.Generator, draws: BatchDraw, width: int) -> np.ndarray:
    """Own rows of the random numbers ``[draw, width]`` of a global batch; the others are skipped."""
    generator = rng.bit_generator
    assert isinstance(generator, np.random.PCG64), "each double must take one step of the generator"
    generator.advance(draws.own.start * width)
    return rng.random((len(draws.rows), width))
