"""Thinned cells: against SciPy's binomial distribution, and against cells of which fewer molecules were counted."""

import numpy as np
import pytest
from scipy import sparse, stats

from unmix.core.thinning import LARGE, LEAST_SHARE, binomial, random_shares, thinned
from unmix.core.training import Rows, gene_moments, make_batch


@pytest.mark.parametrize("share", [0.05, 0.4, 0.7, 1.0])
@pytest.mark.parametrize("n", [1, 2, 7, 64])
def test_small_counts_are_thinned_by_inversion(n, share):
    draws = (np.arange(2000) + 0.5) / 2000
    kept = np.array([binomial(float(n), share, u) for u in draws])
    law = stats.binom(n, share)
    np.testing.assert_allclose([(kept == k).mean() for k in range(n + 1)], law.pmf(np.arange(n + 1)), atol=1e-3)


@pytest.mark.parametrize("share", [0.05, 0.4, 0.97, 1.0])
def test_large_counts_have_mean_and_variance_of_the_binomial(share):
    kept = np.array([binomial(1000.0, share, z) for z in stats.norm.ppf((np.arange(2000) + 0.5) / 2000)])
    assert kept.mean() == pytest.approx(1000 * share, rel=1e-3)
    assert kept.var() == pytest.approx(1000 * share * (1 - share), rel=0.03)
    assert binomial(65.0, 0.99, 9.0) == 65.0
    assert binomial(65.0, 0.01, -9.0) == 0.0


def batch_of(X, genes=None):
    rows = Rows(sparse.csr_array(X), X.sum(axis=1), np.zeros(len(X), np.int64), np.zeros((len(X), 0), np.float32))
    return make_batch(rows.X, rows, np.arange(len(X)), genes or gene_moments(rows)), gene_moments(rows)


def planted(unit=1.0):
    X = np.random.default_rng(0).poisson(np.geomspace(0.05, 40, 60), (80, 60)) * unit
    X[3] = 0
    return X


def test_inputs_are_those_of_cells_with_fewer_molecules():
    X = planted()
    batch, genes = batch_of(X)
    shares = random_shares(80, np.random.default_rng(1))
    assert LEAST_SHARE <= shares.min() < 0.1
    assert 0.3 < (shares == 1).mean() < 0.7
    found = thinned(batch, shares, genes.input_scale, np.random.default_rng(2))
    rows, columns = X.nonzero()
    draws, left = np.random.default_rng(2).random(len(rows)), np.zeros(X.shape)
    draws = np.where(X[rows, columns] > LARGE, stats.norm.ppf(draws), draws)
    left[rows, columns] = [binomial(*at) for at in zip(X[rows, columns], shares[rows], draws, strict=True)]
    wanted, _ = batch_of(left, genes)
    np.testing.assert_allclose(dense(found), dense(wanted), rtol=1e-5)
    assert found.counts is batch.counts
    np.testing.assert_array_equal(found.log_size, batch.log_size)


def dense(batch):
    return sparse.csr_array((batch.inputs, batch.indices, batch.indptr), (80, 60)).toarray()


def test_all_molecules_are_the_cell_itself_and_units_do_not_matter():
    (batch, genes), (halves, of_halves) = batch_of(planted()), batch_of(planted(0.5))
    whole = thinned(batch, np.ones(80), genes.input_scale, np.random.default_rng(2))
    np.testing.assert_array_equal(whole.inputs, batch.inputs)
    some = thinned(halves, np.full(80, 0.3), of_halves.input_scale, np.random.default_rng(2))
    assert 0 < np.mean(some.inputs == 0) < 0.7
    ratio = np.expm1(dense(some) * of_halves.input_scale).sum(axis=1)
    np.testing.assert_allclose(np.delete(ratio, 3), of_halves.median_total, rtol=1e-4)
