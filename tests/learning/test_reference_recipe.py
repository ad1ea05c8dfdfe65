"""Ten steps of ``recipe=reference`` against a plain PyTorch loop written from the specification alone."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from corpus_support import mel_format
from torch import nn

from raydec.config import config_from_dict
from raydec.features.mel_front_end import MelFrontEnd
from raydec.learning.ccc import concordance
from raydec.learning.optimizers import Optimizers
from raydec.learning.step import Batch, StepRunner
from raydec.learning.targets.attributes import AttributesTarget
from raydec.learning.targets.registry import Targets
from raydec.learning.worker import LocalWorker
from raydec.model.assembly import build_network
from raydec.model.outputs import Outputs

NUM_CLUSTERS, NUM_CHUNKS, STEPS = 5, 8, 5


class Oracle(nn.Module):
    """SPEC "Network", layer by layer."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        previous = 1
        for channels, stride in [(32, 1), (32, 1), (64, 2), (64, 2), (128, 2), (128, 2), (128, 2)]:
            layers += [nn.Conv2d(previous, channels, 3, stride, 1), nn.BatchNorm2d(channels), nn.ReLU()]
            previous = channels
        self.convolutions = nn.Sequential(*layers)
        self.cnn_out = nn.Linear(1024, 256)
        self.cluster_hidden = nn.Linear(256, 256)
        self.top = nn.Linear(256, NUM_CLUSTERS)
        self.emotion_hidden = nn.Linear(256, 256)
        self.emotion_top = nn.Linear(256, 1)

    def forward(self, chunks: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = self.convolutions(chunks[:, None]).flatten(1)
        x = F.relu(self.cnn_out(x))
        logits = self.top(F.relu(self.cluster_hidden(x)))
        emotion = self.emotion_top(F.relu(self.emotion_hidden(x)))
        return logits, emotion[:, 0]

    def body(self) -> list[nn.Parameter]:
        top = set(self.top.parameters())
        return [p for p in self.parameters() if p not in top]


def published_ccc_loss(prediction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """A population covariance over sample variances (SPEC "Quirks that matter")."""
    covariance = ((prediction - prediction.mean()) * (target - target.mean())).mean()
    spread = prediction.var() + target.var() + (prediction.mean() - target.mean()) ** 2
    return 1 - 2 * covariance / spread


def make_data(seed: int) -> list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    return [
        (
            torch.randn(NUM_CHUNKS, 62, 128, generator=generator, dtype=torch.float64).clamp(-3, 3),
            torch.randint(NUM_CLUSTERS, (NUM_CHUNKS,), generator=generator),
            torch.randn(NUM_CHUNKS, generator=generator, dtype=torch.float64),
        )
        for _ in range(2 * STEPS)
    ]


def paired_parameters(network: nn.Module, oracle: Oracle) -> list[tuple[str, torch.Tensor, torch.Tensor]]:
    """Both state dicts list the same tensors in the same order, apart from the counters of batch norm."""
    ours = [(k, v) for k, v in network.state_dict().items() if "num_batches" not in k]
    theirs = [v for k, v in oracle.state_dict().items() if "num_batches" not in k]
    assert [v.shape for _, v in ours] == [v.shape for v in theirs]
    return [(name, a, b) for (name, a), b in zip(ours, theirs, strict=True)]


def train_oracle(oracle: Oracle, fresh_top: nn.Linear) -> None:
    """SPEC "One epoch": an unlabeled stage with the emotion branch frozen, then the joint stage."""
    oracle.train()
    sgd = torch.optim.SGD(oracle.body(), lr=0.001)
    adam = torch.optim.Adam(oracle.body(), lr=0.0005)
    top = torch.optim.SGD(oracle.top.parameters(), lr=0.05)
    data = make_data(7)
    emotion = [*oracle.emotion_hidden.parameters(), *oracle.emotion_top.parameters()]
    for parameter in emotion:
        parameter.requires_grad_(False)
    for chunks, labels, _ in data[:STEPS]:
        oracle.zero_grad()
        F.cross_entropy(oracle(chunks)[0], labels).backward()
        sgd.step()
        top.step()
    for parameter in emotion:
        parameter.requires_grad_(True)
    oracle.top.load_state_dict(fresh_top.state_dict())
    top = torch.optim.SGD(oracle.top.parameters(), lr=0.05)
    for chunks, labels, target in data[STEPS:]:
        oracle.zero_grad()
        logits, emotion_prediction = oracle(chunks)
        (F.cross_entropy(logits, labels) + published_ccc_loss(emotion_prediction, target)).backward()
        sgd.step()
        adam.step()
        top.step()


def test_ten_steps_follow_the_specification() -> None:
    config = config_from_dict(
        {
            "data": {"store": "unused", "attributes": ["arousal"]},
            "model": {"dropout": 0.0},
            "training": {"recipe": "reference"},
            "loss": {"ccc": "reference"},
        }
    )
    network = build_network(config.model, MelFrontEnd(), mel_format(), 1, NUM_CLUSTERS)
    network.initialize(torch.Generator().manual_seed(1))
    # In float64: Adam turns the rounding of a gradient near zero into a full step of either sign.
    network.double()
    oracle = Oracle().double()
    for _, ours, theirs in paired_parameters(network, oracle):
        theirs.copy_(ours)

    optimizers = Optimizers(config.training, network, total_steps=2 * STEPS)
    arousal = AttributesTarget(Outputs(("arousal",), (0.0,), (1.0,)), 1.0, config.loss.ccc)
    runner = StepRunner(config, network, optimizers, LocalWorker(), Targets((arousal,), "ccc"))
    network.train()
    fresh_top = nn.Linear(256, NUM_CLUSTERS).double()
    for step, (chunks, labels, target) in enumerate(make_data(7)):
        supervised = step >= STEPS
        if step == STEPS:
            network.reset_cluster_head(NUM_CLUSTERS, torch.Generator().manual_seed(2))
            optimizers.renew_top()
            fresh_top.load_state_dict(network.cluster_head.top.state_dict())
        for parameter in network.emotion_head_parameters():
            parameter.requires_grad_(supervised)
        batch = Batch(
            chunks, labels, target[:, None] if supervised else None, NUM_CHUNKS, slice(0, NUM_CHUNKS), 1
        )
        runner.run(batch, epoch=0, stage="test", step=step, global_step=step)

    train_oracle(oracle, fresh_top)
    moved = []
    for name, ours, theirs in paired_parameters(network, oracle):
        torch.testing.assert_close(
            ours, theirs, rtol=1e-5, atol=1e-5, msg=lambda m, name=name: f"{name}: {m}"
        )
        moved.append(name)
    assert len(moved) == 59 - 7


def test_the_exact_ccc_differs_from_the_published_one_by_one_part_in_the_batch_size() -> None:
    """The deliberate difference, pinned: for a perfect prediction the published loss is 1/N instead of 0."""
    target = torch.randn(704, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert abs(float(published_ccc_loss(target, target)) - 1 / 704) < 1e-9


def test_the_published_validation_depends_on_the_batches_and_the_exact_one_does_not() -> None:
    """The deliberate difference, pinned: the mean over batches of chunks against the CCC of a split."""
    rng = np.random.default_rng(0)
    truth = rng.normal(size=256)
    speaker_offset = np.repeat(rng.normal(scale=0.5, size=4), 64)  # utterances of a speaker are consecutive
    chunks = (0.6 * truth + speaker_offset)[:, None] + rng.normal(scale=0.7, size=(256, 11))

    def published(order: np.ndarray, batch: int) -> float:
        scores = []
        for rows in order.reshape(-1, batch):
            x, y = chunks[rows].ravel(), np.repeat(truth[rows], 11)
            covariance = np.mean((x - x.mean()) * (y - y.mean()))
            scores.append(2 * covariance / (x.var(ddof=1) + y.var(ddof=1) + (x.mean() - y.mean()) ** 2))
        return float(np.mean(scores))

    in_order, shuffled = np.arange(256), rng.permutation(256)
    exact = concordance(chunks.mean(axis=1), truth)
    assert concordance(chunks.mean(axis=1)[shuffled], truth[shuffled]) == pytest.approx(exact, abs=1e-12)
    by_size = {batch: published(in_order, batch) for batch in (16, 64, 256)}
    assert max(by_size.values()) - min(by_size.values()) > 0.02
    assert abs(published(shuffled, 64) - by_size[64]) > 0.02
    # One chunk is less accurate than the mean of eleven, so every published value is lower.
    assert exact - max(by_size.values()) > 0.05
