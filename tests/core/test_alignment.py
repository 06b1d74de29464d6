"""Quantile alignment: distributions of the reference, order kept, clusters."""

import numpy as np
from scipy.stats import ks_2samp

from unmix.core.alignment import factor_clusters, quantile_align


def usages(n=400):
    r = np.random.default_rng(0)
    kinds = r.integers(0, 2, 2 * n)
    W = 0.1 * r.gamma(1, 1, (2 * n, 2))
    W[np.arange(2 * n), kinds] += r.gamma(5, 1, 2 * n)
    codes = np.repeat([0, 1], n)
    W[codes == 1] = 2 * W[codes == 1] ** 1.1
    return W, codes, kinds


def test_clusters_are_the_leading_components():
    W, codes, kinds = usages()
    assert np.mean(factor_clusters(W, codes) == kinds) > 0.99


def test_quantiles_become_those_of_the_reference():
    W, codes, kinds = usages()
    aligned, clusters = quantile_align(W, codes, reference=0)
    np.testing.assert_array_equal(aligned[codes == 0], W[codes == 0])
    for c in range(2):
        a, b = ((codes == batch) & (clusters == c) for batch in (0, 1))
        assert ks_2samp(W[a, c], W[b, c]).pvalue < 1e-6
        assert ks_2samp(W[a, c], aligned[b, c]).pvalue > 0.5
        order = np.argsort(W[b, c])
        assert np.all(np.diff(aligned[b, c][order]) >= 0)


def test_the_scale_of_a_component_in_a_batch_does_not_matter():
    W, codes, _ = usages()
    aligned, clusters = quantile_align(W, codes, reference=0)
    other = np.where(codes[:, None] == 1, W * [0.01, 30.0], W)
    again, same = quantile_align(other, codes, reference=0)
    np.testing.assert_array_equal(same, clusters)
    np.testing.assert_allclose(again, aligned, rtol=1e-9)


def test_equal_distributions_and_small_clusters_stay():
    W, _, _ = usages()
    half = np.repeat([0, 1], 400)
    both = np.vstack([W[:400], W[:400]])
    np.testing.assert_allclose(quantile_align(both, half)[0], both, atol=0.15)
    few = np.repeat([0, 1], [395, 5])
    np.testing.assert_array_equal(quantile_align(W[:400], few)[0], W[:400])
    constant = np.ones((100, 1))
    np.testing.assert_array_equal(quantile_align(constant, np.repeat([0, 1], 50))[0], constant)


def test_usages_that_are_zero_but_for_rounding_are_zeros():
    """Multiplicative steps leave numbers so small that a slope between two of them overflows."""
    r = np.random.default_rng(0)
    W, codes = r.gamma(0.3, 1, (200, 2)) + [1, 0], np.repeat([0, 1], [120, 80])
    other = W.copy()
    other[120:160, 1], W[120:160, 1] = 0, 5e-324 * np.arange(40)
    np.testing.assert_allclose(quantile_align(W, codes)[0], quantile_align(other, codes)[0])
