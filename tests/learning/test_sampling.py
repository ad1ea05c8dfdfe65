from __future__ import annotations

import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
import torch

from raydec.learning.randomness import generator_for, integer_seed_for, torch_generator_for
from raydec.learning.sampling import (
    balanced_draw,
    batches,
    shuffled,
    utterance_draw,
)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.mark.parametrize("num_draws", [0, 1, 3, 97, 100, 1000])
def test_balanced_draw_gives_each_cluster_its_quota(num_draws: int) -> None:
    labels = np.repeat(np.array([0, 2, 5, 9], dtype=np.int32), [1, 30, 60, 9])
    labels = labels[rng(1).permutation(len(labels))]
    draws = balanced_draw(labels, num_draws, rng())
    assert draws.dtype == np.int64 and len(draws) == num_draws
    counts = Counter(labels[draws].tolist())
    quotas = [counts[cluster] for cluster in (0, 2, 5, 9)]
    assert max(quotas) - min(quotas) <= 1
    for cluster in (0, 2, 5, 9):
        members = draws[labels[draws] == cluster]
        if len(members) <= (labels == cluster).sum():
            assert len(set(members.tolist())) == len(members)


def test_balanced_draw_shares_the_remainder_fairly_and_shuffles() -> None:
    labels = np.repeat(np.arange(3, dtype=np.int32), 10)
    extra: Counter[int] = Counter()
    generator = rng()
    for _ in range(3000):
        extra.update(Counter(labels[balanced_draw(labels, 4, generator)].tolist()))
    assert all(abs(extra[cluster] - 4000) < 150 for cluster in range(3))
    assert not np.all(np.diff(labels[balanced_draw(labels, 30, generator)]) >= 0)


def test_balanced_draw_of_one_cluster_is_a_permutation() -> None:
    draws = balanced_draw(np.zeros(50, dtype=np.int32), 50, rng())
    assert sorted(draws.tolist()) == list(range(50))


def test_balanced_draw_needs_chunks() -> None:
    with pytest.raises(ValueError, match="empty"):
        balanced_draw(np.zeros(0, dtype=np.int32), 3, rng())


def test_utterance_draw_follows_the_weights() -> None:
    labels = np.array([0, 0, 0, 0, 0, 0, 1, 0, 3, 3], dtype=np.int32)
    sizes = Counter(labels.tolist())
    weights = [sum(1 / sizes[c] for c in labels[i : i + 2].tolist()) for i in range(0, 10, 2)]
    assert sum(weights) == pytest.approx(3)  # one per non-empty cluster
    draws = utterance_draw(labels, 2, 60_000, rng())
    observed = np.bincount(draws, minlength=5) / 60_000
    np.testing.assert_allclose(observed, np.array(weights) / 3, atol=0.01)


def test_utterance_draw_refuses_half_an_utterance() -> None:
    with pytest.raises(ValueError, match="not utterances of 11 chunks"):
        utterance_draw(np.zeros(12, dtype=np.int32), 11, 1, rng())


def test_shuffled_holds_every_row_once() -> None:
    assert sorted(shuffled(20, rng()).tolist()) == list(range(20))
    assert shuffled(20, rng()).tolist() != list(range(20))


@pytest.mark.parametrize("num_rows", [0, 1, 7, 64, 65])
def test_batches_cut_without_loss(num_rows: int) -> None:
    draws = rng().integers(0, 1000, num_rows)
    seen = []
    for batch in batches(draws, 8):
        assert 1 <= len(batch) <= 8
        seen += batch.tolist()
    assert seen == draws.tolist()


def test_generators_depend_on_seed_and_path_only() -> None:
    def draw(*key: int | str) -> int:
        return int(generator_for(31, *key).integers(2**62))

    keys: list[tuple[int | str, ...]] = [
        (),
        (1,),
        ("1",),
        (1, 2),
        (12,),
        ("draw", 1),
        ("draw", 2),
        ("draw1",),
    ]
    assert len({draw(*key) for key in keys}) == len(keys)
    assert draw("draw", 1) == draw("draw", 1)
    assert generator_for(30, "draw").random() != generator_for(31, "draw").random()
    assert torch.equal(
        torch.rand(3, generator=torch_generator_for(31, "noise")),
        torch.rand(3, generator=torch_generator_for(31, "noise")),
    )
    assert 0 <= integer_seed_for(31, "kmeans") < 2**31


def test_generators_are_the_same_in_every_process() -> None:
    code = "from raydec.learning.randomness import integer_seed_for; print(integer_seed_for(31, 'a', 2))"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(other.stdout) == integer_seed_for(31, "a", 2)
