import numpy as np
import pytest
from scipy import sparse

from unmix.core.countmodel import fit_count_model
from unmix.core.smoothing import log_likelihoods, neighbour_means, prior_about


def strip(n):
    """Return the graph of a strip of spots, each beside the next three on either side."""
    i = np.arange(n)
    near = np.abs(i[:, None] - i) <= 3
    return sparse.csr_array((near & (i[:, None] != i)).astype(float))


def tissue(smooth, seed=0, N=240, G=150, K=4, depth=60.0):
    rng = np.random.default_rng(seed)
    S = rng.gamma(0.5, 1.0, (G, K)) + 0.02
    S /= S.sum(axis=0)
    x = np.arange(N) / N * 6 * np.pi if smooth else rng.uniform(0, 6 * np.pi, N)
    F = np.exp(1.5 * np.cos(x[:, None] + np.arange(K) * np.pi / 2))
    F /= F.sum(axis=1, keepdims=True)
    return rng.poisson(depth * F @ S.T).astype(float), S, F


def error(fit, F):
    shares = fit.weights / fit.weights.sum(axis=1, keepdims=True)
    return float(np.sqrt(np.mean((shares - F) ** 2)))


def test_a_smooth_tissue_is_smoothed_and_is_better_for_it():
    Y, S, F = tissue(smooth=True)
    alone = fit_count_model(Y, S, dispersion=0.0)
    together = fit_count_model(Y, S, dispersion=0.0, graph=strip(240))
    assert together.smoothing.strength > 0
    assert error(together, F) < 0.7 * error(alone, F)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_where_the_tissue_is_not_smooth_nothing_changes(seed):
    Y, S, _ = tissue(smooth=False, seed=seed)
    alone = fit_count_model(Y, S, dispersion=0.0)
    asked = fit_count_model(Y, S, dispersion=0.0, graph=strip(240))
    assert asked.smoothing.strength == 0
    np.testing.assert_array_equal(asked.weights, alone.weights)


def test_the_limits_of_the_strength():
    Y, S, _ = tissue(smooth=True, N=60)
    graph = strip(60)
    alone = fit_count_model(Y, S, dispersion=0.0)
    none = fit_count_model(Y, S, dispersion=0.0, graph=graph, smoothing=1e-9)
    np.testing.assert_allclose(none.weights, alone.weights, atol=1e-3)
    rigid = fit_count_model(Y, S, dispersion=0.0, graph=graph, smoothing=1e9)
    shares = alone.weights / alone.weights.sum(axis=1, keepdims=True)
    means = neighbour_means(shares, graph) * alone.weights.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(rigid.weights, means, rtol=1e-3, atol=1e-3 * means.max())


def test_spots_without_neighbours_keep_their_fit():
    Y, S, _ = tissue(smooth=True, N=30)
    graph = strip(30).tolil()
    graph[4] = 0
    alone = fit_count_model(Y, S, dispersion=0.0)
    fit = fit_count_model(Y, S, dispersion=0.0, graph=sparse.csr_array(graph), smoothing=2.0)
    np.testing.assert_allclose(fit.weights[4], alone.weights[4], rtol=1e-6)
    assert np.abs(fit.weights[5] - alone.weights[5]).max() > 1e-3


def test_smoothed_weights_satisfy_the_optimality_conditions():
    Y, S, _ = tissue(smooth=True, N=40)
    graph = strip(40)
    alone = fit_count_model(Y, S, dispersion=0.0)
    fit = fit_count_model(Y, S, dispersion=0.0, graph=graph, smoothing=1.0)
    shares = alone.weights / alone.weights.sum(axis=1, keepdims=True)
    C = neighbour_means(shares, graph)
    total = alone.weights.sum(axis=1)
    var = np.einsum("ikk->ik", alone.covariance) / total[:, None] ** 2
    spread = np.maximum(((shares - C) ** 2 - var).mean(axis=0), (C * (1 - C)).mean(axis=0) / 10)
    prior = prior_about(C, total, spread, 1.0)
    score = (Y / (fit.weights @ S.T) - 1) @ S - prior.precision * (fit.weights - prior.target)
    assert np.abs(score[fit.weights > 0]).max() < 1e-3
    assert score[fit.weights == 0].max(initial=-1.0) < 1e-3


def test_the_held_out_likelihood_is_that_of_the_model():
    rng = np.random.default_rng(0)
    mean = rng.gamma(1.0, 1.0, (3, 8))
    Y = sparse.csr_array(rng.poisson(mean).astype(float))
    dense = Y.toarray()
    np.testing.assert_allclose(log_likelihoods(Y, mean, 0.0), (dense * np.log(mean) - mean).sum(axis=1))
    np.testing.assert_allclose(log_likelihoods(Y, mean, 1e-9), log_likelihoods(Y, mean, 0.0), rtol=1e-6)
