from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import integrate, stats
from sklearn.metrics import log_loss

from raydec.learning.ccc import CccMoments
from raydec.learning.losses import cluster_loss_sum, divergence_sum, emotion_loss, reconstruction_error_sum


def test_emotion_loss_averages_over_labeled_attributes_only() -> None:
    x, y = torch.rand(20, 3), torch.rand(20, 3)
    y[:, 1] = torch.nan
    moments = CccMoments.of(x, y)
    each = [1 - moments.ccc()[attribute].item() for attribute in (0, 2)]
    assert emotion_loss(moments).item() == pytest.approx(np.mean(each))


def test_emotion_loss_of_an_unlabeled_batch_is_zero_with_zero_gradient() -> None:
    x = torch.rand(5, 2, requires_grad=True)
    loss = emotion_loss(CccMoments.of(x, torch.full((5, 2), torch.nan)))
    loss.backward()
    assert loss.item() == 0
    assert x.grad is not None and (x.grad == 0).all()


def test_emotion_loss_uses_the_kind_it_is_given() -> None:
    x = torch.arange(10.0).reshape(10, 1)
    assert emotion_loss(CccMoments.of(x, x)).item() == pytest.approx(0, abs=1e-15)
    assert emotion_loss(CccMoments.of(x, x), "reference").item() == pytest.approx(1 / 10)


@pytest.mark.parametrize("cut", [0, 3, 12])
def test_cluster_loss_sums_over_workers_to_the_global_mean(cut: int) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(12, 5, generator=generator, dtype=torch.float64)
    labels = torch.randint(5, (12,), generator=generator, dtype=torch.int32)
    shares = cluster_loss_sum(logits[:cut], labels[:cut]) + cluster_loss_sum(logits[cut:], labels[cut:])
    expected = log_loss(labels.numpy(), logits.softmax(1).numpy(), labels=range(5))
    assert shares.item() / 12 == pytest.approx(expected)


def test_reconstruction_error_is_the_sum_of_squares() -> None:
    a, b = torch.rand(3, 4, 2), torch.rand(3, 4, 2)
    expected = np.linalg.norm((a - b).numpy().ravel()) ** 2
    assert reconstruction_error_sum(a, b).item() == pytest.approx(expected, rel=1e-5)


def test_divergence_equals_the_integral_of_its_definition() -> None:
    mean, log_variance = 0.7, -0.8
    p = stats.norm(mean, np.exp(log_variance / 2))
    expected, _ = integrate.quad(lambda z: p.pdf(z) * (p.logpdf(z) - stats.norm.logpdf(z)), -10, 10)
    one = divergence_sum(torch.tensor([[mean]]), torch.tensor([[log_variance]]))
    assert one.item() == pytest.approx(expected, rel=1e-5)
    four = divergence_sum(torch.full((2, 2), mean), torch.full((2, 2), log_variance))
    assert four.item() == pytest.approx(4 * expected, rel=1e-5)
    assert divergence_sum(torch.zeros(3, 2), torch.zeros(3, 2)).item() == 0
