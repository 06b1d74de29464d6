"""Counts behind normalised values: found exactly or not at all."""

import numpy as np
import pytest
from scipy import sparse

from unmix.core.lattice import Scale, counts_of, scale_of, units


def planted(n=60, g=200, depth=1.0, seed=0):
    rng = np.random.default_rng(seed)
    means = rng.gamma(0.5, 2.0, g) * depth
    return rng.poisson(means * rng.lognormal(0, 0.5, (n, 1))), rng.lognormal(0, 2, n)


def through(counts, unit, log, dtype):
    values = counts * unit[:, None]
    return (values if log is None else np.log1p(values) / log).astype(dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("log", [None, 1.0, np.log(2), np.log(10)])
@pytest.mark.parametrize("depth", [0.3, 1.0, 300.0])
@pytest.mark.parametrize("form", [np.asarray, sparse.csr_matrix, sparse.csc_matrix])
def test_counts_come_back(dtype, log, depth, form):
    counts, unit = planted(depth=depth)
    X = form(through(counts, unit, log, dtype))
    scale = scale_of(X)
    assert (scale.log is None) == (log is None)
    found = units(X, scale)
    np.testing.assert_allclose(found, unit, rtol=1e-5)
    assert np.array_equal(counts_of(X, scale, found).toarray(), counts)


@pytest.mark.parametrize("unit", [0.7, 4.0, 25.0])
@pytest.mark.parametrize("decimals", [3, 5])
@pytest.mark.parametrize("log", [None, 1.0])
def test_counts_come_back_from_rounded_tables(unit, decimals, log):
    counts, _ = planted()
    X = np.round(through(counts, np.full(len(counts), unit), log, np.float64), decimals).astype(np.float32)
    scale = scale_of(X)
    assert np.array_equal(counts_of(X, scale, units(X, scale)).toarray(), counts)


def test_a_table_rounded_too_far_is_refused():
    counts, unit = planted(depth=30.0)
    assert scale_of(np.round(np.log1p(counts * unit[:, None]), 1)) is None


def test_another_base_has_to_be_told():
    counts, unit = planted()
    X = through(counts, unit, np.log(3), np.float64)
    assert scale_of(X) is None
    assert scale_of(X, 3.0).log == pytest.approx(np.log(3))


def test_rows_without_a_count_of_one():
    counts, unit = planted()
    rows = (counts > 0).sum(axis=1) > 20
    for least in (2, 3, 7, 12):
        high = np.where(counts > 0, counts + least - 1, 0)
        X = through(high, unit, None, np.float32)
        assert np.array_equal(counts_of(X, scale_of(X), units(X, scale_of(X))).toarray()[rows], high[rows])


def test_a_common_divisor_cannot_be_seen():
    X = np.array([[2.0, 4.0, 0.0], [0.0, 0.5, 0.0]])
    assert np.array_equal(counts_of(X, Scale(None), units(X, Scale(None))).toarray(), [[1, 2, 0], [0, 1, 0]])


@pytest.mark.parametrize(
    "spoil",
    [
        np.sqrt,
        lambda X: np.maximum(X - 0.05 * X.mean(axis=0), 0),
        lambda X: X * np.random.default_rng(0).lognormal(0, 0.5, X.shape[1]),
        lambda X: X @ np.random.default_rng(0).dirichlet(np.ones(X.shape[1]), X.shape[1]),
        lambda X: X + 1e-3 * np.random.default_rng(0).random(X.shape) * (X > 0),
    ],
    ids=["square root", "ambient", "gene lengths", "imputed", "noise"],
)
@pytest.mark.parametrize("log", [None, 1.0])
def test_what_is_no_lattice_is_refused(spoil, log):
    counts, unit = planted()
    assert scale_of(through(spoil(counts.astype(float)), unit, log, np.float32)) is None


def test_random_values_fit_no_unit():
    X = np.random.default_rng(0).random((2000, 8))
    assert np.isnan(units(X, Scale(None))).mean() > 0.999


def test_counts_that_rounding_has_lost_are_refused():
    X = np.array([[1.0, 3e6, 2e6, 1e6]], dtype=np.float32) * np.float32(0.37)
    assert np.isnan(units(X, Scale(None)))[0]


def test_blocks_and_threads_change_nothing():
    counts, unit = planted(n=9000, g=30)
    X = through(counts, unit, 1.0, np.float32)
    scale = scale_of(X)
    assert np.array_equal(units(X, scale, n_jobs=2), np.concatenate([units(x, scale) for x in np.split(X, 9)]))
