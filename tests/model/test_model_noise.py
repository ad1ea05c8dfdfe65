import itertools

import pytest
import torch
from scipy import stats

from raydec.model.noise import Noise, dropout

CPU = torch.device("cpu")


def noise(start: int, stop: int, *, num_rows: int = 7, seed: int = 5) -> Noise:
    return Noise(torch.Generator().manual_seed(seed), num_rows, start, stop)


@pytest.mark.parametrize("cuts", [(0, 7), (0, 3, 7), (0, 0, 2, 2, 6, 7)])
@pytest.mark.parametrize("repeats", [1, 11])
def test_draws_joined_over_any_slicing_equal_the_whole(cuts: tuple[int, ...], repeats: int) -> None:
    workers = [noise(a, b) for a, b in itertools.pairwise(cuts)]
    whole = noise(0, 7)
    for name in ("uniform", "normal", "uniform"):
        parts = [getattr(w, name)((repeats * (w._stop - w._start), 4), CPU) for w in workers]
        assert torch.equal(torch.cat(parts), getattr(whole, name)((repeats * 7, 4), CPU))


def test_draws_are_uniform_and_normal_and_never_repeat() -> None:
    source = noise(0, 7)
    first, second = source.uniform((7, 3000), CPU), source.uniform((7, 3000), CPU)
    assert stats.kstest(first.flatten(), "uniform").pvalue > 1e-3
    assert stats.kstest(source.normal((7, 3000), CPU).flatten(), "norm").pvalue > 1e-3
    assert abs(torch.corrcoef(torch.stack([first.flatten(), second.flatten()]))[0, 1]) < 0.03


def test_takes_one_number_from_the_generator_whatever_is_drawn() -> None:
    used, idle = torch.Generator().manual_seed(1), torch.Generator().manual_seed(1)
    Noise(used, 4, 0, 4).uniform((4, 100), CPU)
    Noise(idle, 4, 0, 0)
    assert torch.equal(used.get_state(), idle.get_state())


def test_dropout_zeroes_its_share_and_keeps_the_mean() -> None:
    dropped = dropout(torch.ones(7, 5000), 0.3, noise(0, 7))
    assert set(dropped.unique().tolist()) == {0.0, torch.tensor(1 / 0.7).item()}
    assert (dropped == 0).float().mean().item() == pytest.approx(0.3, abs=0.01)


def test_dropout_without_noise_or_probability_is_the_identity() -> None:
    x = torch.ones(3, 2)
    assert dropout(x, 0.5, None) is x
    assert dropout(x, 0.0, noise(0, 3, num_rows=3)) is x


def test_rows_that_do_not_fit_the_batch_are_refused() -> None:
    with pytest.raises(AssertionError, match="not a multiple"):
        noise(0, 3).uniform((4, 2), CPU)
    with pytest.raises(AssertionError, match="not within"):
        noise(5, 9)
