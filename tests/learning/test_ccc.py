from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from jaxtyping import TypeCheckError

from raydec.learning.ccc import CccMoments, concordance
from raydec.learning.mergeable import merged_over_workers


def oracle(x: np.ndarray, y: np.ndarray) -> float:
    """CCC by its definition, in long doubles."""
    keep = ~np.isnan(y)
    x, y = x[keep].astype(np.longdouble), y[keep].astype(np.longdouble)
    if len(x) == 0:
        return 0.0
    covariance = ((x - x.mean()) * (y - y.mean())).mean()
    denominator = x.var() + y.var() + (x.mean() - y.mean()) ** 2
    return float(2 * covariance / denominator) if denominator > 0 else 0.0


def published_loss(x: np.ndarray, y: np.ndarray) -> float:
    """1 - CCC with population covariance and sample variances."""
    covariance = ((x - x.mean()) * (y - y.mean())).mean()
    return float(1 - 2 * covariance / (x.var(ddof=1) + y.var(ddof=1) + (x.mean() - y.mean()) ** 2))


def closed_form_gradient(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Derivative of the exact CCC in x, worked out on paper."""
    n, dx, dy = len(x), x - x.mean(), y - y.mean()
    offset = x.mean() - y.mean()
    numerator, denominator = 2 * (dx * dy).mean(), (dx**2).mean() + (dy**2).mean() + offset**2
    return (2 * dy / n * denominator - numerator * (2 * dx + 2 * offset) / n) / denominator**2


def moments_over(x: torch.Tensor, y: torch.Tensor, cuts: list[int]) -> CccMoments:
    bounds = [0, *sorted(min(cut, len(x)) for cut in cuts), len(x)]
    parts = [CccMoments.of(x[a:b], y[a:b]) for a, b in pairwise(bounds)]
    total = parts[0]
    for part in parts[1:]:
        total = total.merge(part)
    return total


def vectors(rng: np.random.Generator, n: int, attributes: int = 3) -> tuple[np.ndarray, np.ndarray]:
    y = rng.normal(size=(n, attributes))
    return 0.6 * y + rng.normal(size=(n, attributes)) + 0.3, y


values = st.floats(-8, 8, width=32)


@settings(deadline=None, max_examples=60)
@given(
    data=hnp.arrays(np.float64, st.tuples(st.integers(0, 12), st.just(2)), elements=values),
    missing=st.lists(st.integers(0, 11), max_size=6),
    cuts=st.lists(st.integers(0, 12), max_size=4),
)
def test_any_split_equals_the_definition_on_the_whole(
    data: np.ndarray, missing: list[int], cuts: list[int]
) -> None:
    x, y = data[:, :1].copy(), data[:, 1:].copy()
    y[[row for row in missing if row < len(y)]] = np.nan
    prediction = torch.from_numpy(x).requires_grad_()
    result = moments_over(prediction, torch.from_numpy(y), cuts).ccc()
    assert result.item() == pytest.approx(oracle(x[:, 0], y[:, 0]), abs=1e-9)
    assert concordance(x[:, 0], y[:, 0]) == pytest.approx(oracle(x[:, 0], y[:, 0]), abs=1e-9)
    result.sum().backward()
    assert prediction.grad is not None and torch.isfinite(prediction.grad).all()
    assert (prediction.grad[np.isnan(y)] == 0).all()


@pytest.mark.parametrize("cuts", [[], [0], [20], [3, 3, 11], [0, 1, 19, 20]])
def test_gradient_over_any_split_equals_the_closed_form(cuts: list[int]) -> None:
    x, y = vectors(np.random.default_rng(0), 20)
    prediction = torch.from_numpy(x).requires_grad_()
    moments_over(prediction, torch.from_numpy(y), cuts).ccc().sum().backward()
    expected = np.stack([closed_form_gradient(x[:, a], y[:, a]) for a in range(3)], axis=1)
    np.testing.assert_allclose(prediction.grad, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("kind", ["exact", "reference"])
def test_gradient_equals_finite_differences(kind: str) -> None:
    x, y = vectors(np.random.default_rng(1), 9)
    y[2, 1] = np.nan
    prediction = torch.from_numpy(x).requires_grad_()
    target = torch.from_numpy(y)
    assert torch.autograd.gradcheck(lambda p: moments_over(p, target, [4]).ccc(kind), [prediction])


def test_a_missing_target_counts_for_nothing_even_beside_a_nan_prediction() -> None:
    x, y = vectors(np.random.default_rng(2), 30)
    y[::4, 0], y[1::3, 2] = np.nan, np.nan
    x_dirty = np.where(np.isnan(y), np.nan, x)
    prediction = torch.from_numpy(x_dirty).requires_grad_()
    result = CccMoments.of(prediction, torch.from_numpy(y)).ccc()
    np.testing.assert_allclose(result.detach(), [oracle(x[:, a], y[:, a]) for a in range(3)], rtol=1e-12)
    result.sum().backward()
    assert prediction.grad is not None and torch.isfinite(prediction.grad).all()


def test_reference_kind_is_the_published_loss() -> None:
    x, y = vectors(np.random.default_rng(3), 704, 1)
    moments = moments_over(torch.from_numpy(x), torch.from_numpy(y), [100, 600])
    assert 1 - moments.ccc("reference").item() == pytest.approx(published_loss(x[:, 0], y[:, 0]), rel=1e-12)
    perfect = CccMoments.of(torch.from_numpy(x), torch.from_numpy(x))
    assert 1 - perfect.ccc("reference").item() == pytest.approx(1 / 704, rel=1e-9)
    assert perfect.ccc().item() == pytest.approx(1, abs=1e-15)


@pytest.mark.parametrize("kind", ["exact", "reference"])
@pytest.mark.parametrize(
    ("x", "y"),
    [([0.1] * 7, [0.1] * 7), ([0.1] * 7, [0.3] * 7), ([0.1], [0.1]), ([0.1], [0.7]), ([], [])],
    ids=["equal constants", "two constants", "one equal row", "one row", "no row"],
)
def test_undefined_is_zero_with_zero_gradient(kind: str, x: list[float], y: list[float]) -> None:
    prediction = torch.tensor(x, dtype=torch.float32).reshape(-1, 1).requires_grad_()
    target = torch.tensor(y, dtype=torch.float32).reshape(-1, 1)
    for cuts in ([], [2]):
        result = moments_over(prediction, target, cuts).ccc(kind)
        assert result.item() == 0
        (gradient,) = torch.autograd.grad(result.sum(), prediction)
        assert (gradient == 0).all()
    assert concordance(np.array(x, dtype=float), np.array(y, dtype=float)) == 0


def test_varying_prediction_of_a_constant_target_is_zero_with_zero_gradient() -> None:
    x, _ = vectors(np.random.default_rng(4), 11, 1)
    prediction = torch.from_numpy(x).requires_grad_()
    result = CccMoments.of(prediction, torch.full((11, 1), 0.1, dtype=torch.float64)).ccc()
    (gradient,) = torch.autograd.grad(result.sum(), prediction)
    assert result.item() == 0
    assert (gradient == 0).all()


def test_constant_prediction_scores_zero_and_can_leave_the_constant() -> None:
    _, y = vectors(np.random.default_rng(4), 11, 1)
    x = np.full((11, 1), 0.1)
    prediction = torch.from_numpy(x).requires_grad_()
    result = moments_over(prediction, torch.from_numpy(y), [5]).ccc()
    (gradient,) = torch.autograd.grad(result.sum(), prediction)
    assert result.item() == 0
    np.testing.assert_allclose(gradient[:, 0], closed_form_gradient(x[:, 0], y[:, 0]), atol=1e-12)


@pytest.mark.parametrize(("scale", "shift"), [(1e-20, 0), (1e-20, 1e-20), (1, 1e6), (1e-3, 1e6), (1e12, 0)])
def test_values_and_gradients_hold_far_from_zero_and_at_any_scale(scale: float, shift: float) -> None:
    x, y = vectors(np.random.default_rng(5), 200, 1)
    x_moved, y_moved = x * scale + shift, y * scale + shift
    prediction = torch.from_numpy(x_moved).requires_grad_()
    result = moments_over(prediction, torch.from_numpy(y_moved), [1, 77]).ccc()
    # A shift rounds the inputs themselves; the oracle must see the same ones.
    x_seen, y_seen = x_moved[:, 0] - shift, y_moved[:, 0] - shift
    # Means are float64: their rounding error relative to the spread limits the accuracy.
    rel = 1e-9 + 1e-15 * shift / scale
    assert result.item() == pytest.approx(oracle(x_seen, y_seen), rel=rel)
    assert concordance(x_moved[:, 0], y_moved[:, 0]) == pytest.approx(oracle(x_seen, y_seen), rel=rel)
    result.sum().backward()
    expected = closed_form_gradient(x_seen / scale, y_seen / scale) / scale
    np.testing.assert_allclose(prediction.grad[:, 0], expected, rtol=1e-6, atol=rel / scale)


def test_two_rows_by_hand() -> None:
    # var x = 1, var y = 4, covariance 2, means 1 and 2: 4 / (1 + 4 + 1).
    x, y = torch.tensor([[0.0], [2.0]]), torch.tensor([[0.0], [4.0]])
    assert CccMoments.of(x, y).ccc().item() == pytest.approx(4 / 6)


def test_shapes_that_would_broadcast_are_refused() -> None:
    with pytest.raises((ValueError, TypeCheckError)):
        CccMoments.of(torch.zeros(4, 1), torch.zeros(4, 2))
    with pytest.raises(ValueError, match="the same length"):
        concordance(np.zeros(4), np.zeros(3))


def test_stack_and_unstack_are_inverse() -> None:
    moments = CccMoments.of(torch.rand(5, 2), torch.rand(5, 2))
    assert torch.equal(CccMoments.unstack(moments.stack()).stack(), moments.stack())


@pytest.mark.parametrize("sizes", [[6, 5], [0, 11], [11, 0, 0], [3, 3, 5]])
def test_parameter_gradients_summed_over_workers_are_those_of_the_global_batch(sizes: list[int]) -> None:
    rng = np.random.default_rng(6)
    inputs, y = torch.from_numpy(rng.normal(size=(11, 4))), torch.from_numpy(rng.normal(size=(11, 2)))
    y[4, 0] = torch.nan
    weight = torch.from_numpy(rng.normal(size=(4, 2))).requires_grad_()
    whole = CccMoments.of(inputs @ weight, y).ccc()
    (expected,) = torch.autograd.grad(whole.sum(), weight)

    shares = [CccMoments.of(i @ weight, t) for i, t in zip(inputs.split(sizes), y.split(sizes), strict=True)]
    everything = torch.stack([share.stack().detach() for share in shares])
    gradients = []
    for rank, share in enumerate(shares):
        result = merged_over_workers(share, lambda _: everything, rank).ccc()
        torch.testing.assert_close(result, whole, rtol=1e-12, atol=1e-14)
        gradients.append(torch.autograd.grad(result.sum(), weight, retain_graph=True)[0])
    torch.testing.assert_close(sum(gradients), expected, rtol=1e-10, atol=1e-12)


WHOLE = st.integers(1, 4)


@settings(deadline=None, max_examples=60)
@given(
    rows=st.lists(st.tuples(values, values, WHOLE), max_size=10),
    missing=st.sets(st.integers(0, 9)),
    cuts=st.lists(st.integers(0, 10), max_size=4),
    kind=st.sampled_from(["exact", "reference"]),
)
def test_a_row_of_weight_three_counts_as_three_rows(
    rows: list[tuple[float, float, int]], missing: set[int], cuts: list[int], kind: str
) -> None:
    x, y, weight = np.array(rows, dtype=np.float64).reshape(-1, 3).T
    y[[row for row in missing if row < len(y)]] = np.nan
    repeats = weight.astype(int)
    predictions = [
        torch.from_numpy(x[:, None]).requires_grad_(),
        torch.from_numpy(x[:, None]).requires_grad_(),
    ]
    column = torch.from_numpy(y[:, None])
    found = weighted_moments(predictions[0], column, torch.from_numpy(weight[:, None]), cuts)
    repeated = [each.repeat_interleave(torch.from_numpy(repeats), 0) for each in (predictions[1], column)]
    wanted = CccMoments.of(*repeated)
    assert found.ccc(kind).item() == pytest.approx(wanted.ccc(kind).item(), abs=1e-9)
    if kind == "exact":
        assert found.ccc().item() == pytest.approx(
            oracle(np.repeat(x, repeats), np.repeat(y, repeats)), abs=1e-9
        )
    gradients = [
        torch.autograd.grad(m.ccc(kind).sum(), p)[0]
        for m, p in zip((found, wanted), predictions, strict=True)
    ]
    torch.testing.assert_close(*gradients, rtol=1e-7, atol=1e-9)


def weighted_moments(x: torch.Tensor, y: torch.Tensor, weight: torch.Tensor, cuts: list[int]) -> CccMoments:
    bounds = [0, *sorted(min(cut, len(x)) for cut in cuts), len(x)]
    total, *parts = [CccMoments.of(x[a:b], y[a:b], weight[a:b]) for a, b in pairwise(bounds)]
    for part in parts:
        total = total.merge(part)
    return total


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
@pytest.mark.parametrize("cuts", [[], [1], [0, 5, 5, 19]])
def test_fractional_weights_are_those_of_numpy_and_only_their_ratios_count(
    cuts: list[int], scale: float
) -> None:
    rng = np.random.default_rng(8)
    x, y = vectors(rng, 20, 1)
    weight = rng.uniform(0.01, 1, (20, 1))
    found = weighted_moments(*map(torch.from_numpy, (x, y, weight * scale)), cuts).ccc().item()
    covariance = np.cov(x[:, 0], y[:, 0], aweights=weight[:, 0], ddof=0)
    offset = np.average(x, weights=weight) - np.average(y, weights=weight)
    assert found == pytest.approx(2 * covariance[0, 1] / (np.trace(covariance) + offset**2), rel=1e-12)


def test_equal_weights_of_one_change_no_bit() -> None:
    x, y = vectors(np.random.default_rng(9), 33)
    y[::4, 0] = np.nan
    plain, weighted = (
        CccMoments.of(torch.from_numpy(x), torch.from_numpy(y), *weight)
        for weight in ((), (torch.ones(33, 3),))
    )
    assert torch.equal(plain.stack(), weighted.stack())
