"""The rank of the means of counts: exact where it is known, whatever rows and genes do by themselves."""

import numpy as np
import pytest

from unmix.core.count_rank import count_rank, equalise


def mixed(rng, k, n=300, genes=400, phi=0.0, uneven=0.0):
    """Counts whose means mix k profiles; rows of uneven totals, and variance mu + phi mu^2."""
    profiles = rng.gamma(0.5, 1.0, (k, genes)) * rng.lognormal(0.0, 1.0, genes)
    mean = rng.dirichlet(np.full(k, 0.5), n) @ (profiles / profiles.sum(axis=1, keepdims=True))
    mean *= 3000 * rng.lognormal(0.0, uneven, (n, 1))
    return rng.poisson(mean * (rng.gamma(1 / phi, phi, mean.shape) if phi else 1.0))


@pytest.mark.parametrize("k", [1, 2, 3, 6])
@pytest.mark.parametrize(("phi", "uneven"), [(0.0, 0.0), (0.0, 1.0), (0.3, 0.5)])
def test_mixtures_of_k_profiles_have_rank_k_minus_one(k, phi, uneven):
    rng = np.random.default_rng(k)
    assert [count_rank(mixed(rng, k, phi=phi, uneven=uneven)) for _ in range(4)] == 4 * [k - 1]


def test_a_few_genes_of_large_variance_hide_nothing():
    """Permuted, they once set a threshold above which nothing else was seen."""
    rng = np.random.default_rng(0)
    Y = mixed(rng, 6)
    assert count_rank(np.hstack([Y, rng.poisson(500 * rng.gamma(0.5, 2.0, (300, 3)))])) in (5, 6, 7, 8)


def test_orders_sides_and_the_unit_do_not_matter():
    rng = np.random.default_rng(1)
    Y = mixed(rng, 4, uneven=0.5)
    assert count_rank(Y) == 3
    assert count_rank(Y[rng.permutation(300)][:, rng.permutation(400)]) == 3
    assert count_rank(Y.T) == 3
    assert count_rank(0.01 * Y) == 3


def test_rows_and_columns_are_brought_to_a_mean_of_one():
    V = np.random.default_rng(2).gamma(0.3, 1.0, (40, 90))
    u, v = equalise(V)
    scaled = u[:, None] * V * v
    np.testing.assert_allclose(scaled.mean(axis=1), 1, atol=2e-3)
    np.testing.assert_allclose(scaled.mean(axis=0), 1, atol=2e-3)


def test_nothing_to_tell_has_no_rank():
    assert count_rank(np.zeros((20, 30))) == 0
    assert count_rank(np.tile(np.arange(1.0, 31.0), (20, 1))) == 0
    assert count_rank(np.eye(20)) == 0
