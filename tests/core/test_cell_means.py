"""Means of least variance: where they are the plain ones, by how much they are better, and whether their variances hold."""

import numpy as np
import pytest

from unmix.core.cell_means import least_variance_means, means_by_number, plain_means
from unmix.core.cell_moments import SCALE, moments

G = 200


def cells(rng, rate, depth, scatter):
    """Return counts of cells of one rate whose amounts differ by Gamma factors of relative variance `scatter`."""
    factors = 1.0 if scatter == 0 else rng.gamma(1 / scatter, scatter, (len(depth), len(rate)))
    return rng.poisson(rate * factors * depth[:, None])


def drawn(scatter, n=12, n_draws=300):
    """Return errors of both means and of the summed counts' shares, and the variances, over draws of two types' cells."""
    rng = np.random.default_rng(0)
    rate = rng.dirichlet(np.full(G, 0.5), 2)
    errors, variances = [], []
    for _ in range(n_draws):
        depth = rng.lognormal(5.0, 1.2, 2 * n)
        X = np.vstack([cells(rng, rate[k], depth[k * n : (k + 1) * n], scatter) for k in range(2)])
        X[X.sum(axis=1) == 0, 0] = 1
        m = moments(X, np.repeat([0, 1], n), 2)
        found, variance = least_variance_means(m)
        plain, summed = plain_means(m)[0], SCALE * m.count / m.depth[:, None]
        truth = SCALE * rate
        errors.append([(how - truth) ** 2 for how in (found, plain, summed)])
        variances.append(variance)
    used = (rate > 1e-4).ravel()
    return np.mean(errors, axis=0).reshape(3, -1)[:, used], np.mean(variances, axis=0).ravel()[used]


@pytest.mark.parametrize("scatter", [0.0, 0.3, 3.0])
def test_no_mean_is_better_and_the_variance_is_that_of_the_errors(scatter):
    errors, variance = drawn(scatter)
    found, plain, summed = np.log(errors).mean(axis=1)
    assert found < min(plain, summed) + np.log(1.1)
    if scatter == 0:
        assert found < plain - np.log(1.5)  # cells of few counts
    if scatter == 3:
        assert found < summed - np.log(1.1)  # one deep cell
    assert abs(np.log(variance / errors[0]).mean()) < np.log(1.25)


def test_cells_of_one_depth_have_one_mean():
    rng = np.random.default_rng(1)
    X = rng.multinomial(500, rng.dirichlet(np.ones(30)), 40).astype(float)
    m = moments(X, np.repeat([0, 1], 20), 2)
    for ours, plain in zip(least_variance_means(m), plain_means(m), strict=True):
        np.testing.assert_allclose(ours, plain, rtol=1e-9)


def test_the_unit_of_the_counts_does_not_matter():
    rng = np.random.default_rng(2)
    X, labels = cells(rng, rng.dirichlet(np.ones(30)), rng.lognormal(6.0, 1.0, 40), 0.5), np.repeat([0, 1], 20)
    one, other = (least_variance_means(moments(X * unit, labels, 2)) for unit in (1.0, 7.0))
    for ours, theirs in zip(one, other, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-8)


def test_cells_given_twice_leave_the_mean_and_halve_the_variance():
    rng = np.random.default_rng(3)
    X, labels = cells(rng, rng.dirichlet(np.ones(30)), rng.lognormal(6.0, 1.0, 400), 0.5), np.repeat([0, 1], 200)
    mean, variance = least_variance_means(moments(X, labels, 2))
    again, half = least_variance_means(moments(np.tile(X, (2, 1)), np.tile(labels, 2), 2))
    np.testing.assert_allclose(again, mean, rtol=1e-2, atol=1e-3)
    assert 0.45 < np.median(half / variance) < 0.55


def test_one_cell_a_type_has_counting_variance():
    X = np.array([[30.0, 70.0], [400.0, 600.0]])
    mean, variance = least_variance_means(moments(X, np.array([0, 1]), 2))
    np.testing.assert_allclose(mean, SCALE * X / X.sum(axis=1, keepdims=True))
    np.testing.assert_allclose(variance, SCALE**2 * X / X.sum(axis=1, keepdims=True) ** 2)


def test_types_of_few_cells_alone_get_the_mean_of_least_variance():
    rng = np.random.default_rng(4)
    rate, labels = rng.dirichlet(np.ones(30)), np.repeat([0, 1], [5, 40])
    m = moments(cells(rng, rate, rng.lognormal(5.0, 1.0, 45), 0.5), labels, 2)
    for found, few, plain in zip(means_by_number(m, 10), least_variance_means(m), plain_means(m), strict=True):
        np.testing.assert_array_equal(found[0], few[0])
        np.testing.assert_array_equal(found[1], plain[1])
