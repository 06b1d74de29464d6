"""Joint factorisation of modalities: descent under every mix of losses, optimality, missing modalities, plain NMF."""

import numpy as np
import pytest
from scipy import sparse

from unmix.core.factorization import Walk, nmf
from unmix.core.kl import nmf_kl
from unmix.core.simplex import nnls_kkt
from unmix.core.views import joint_views, presence

EVERYONE = np.arange(200)
EXACT = Walk(tol=1e-8, max_iter=4000)
MIXES = [["frobenius"] * 2, ["kl"] * 2, ["kl", "frobenius"], ["frobenius", "kl"]]


@pytest.fixture(scope="module")
def views():
    r = np.random.default_rng(1)
    W = r.dirichlet([0.2] * 3, 200)
    return [r.poisson(W @ r.gamma(0.3, s, (3, m))).astype(float) for m, s in ((60, 20.0), (10, 500.0))]


def poisson_loss(X, fitted):
    logs = np.where(X > 0, X * np.log(np.where(X > 0, X, 1) / np.maximum(fitted, 1e-300)), 0)
    return (logs - X + fitted).sum()


def total_loss(views, rows, fit, losses):
    total = 0.0
    for x, found, h, kind, weight in zip(views, rows, fit.H, losses, fit.weights, strict=True):
        fitted = fit.W[found] @ h
        depth = x.sum(axis=1, keepdims=True) / x.sum(axis=1).mean()
        loss = poisson_loss(x, depth * fitted) if kind == "kl" else 0.5 * ((x - fitted) ** 2).sum()
        total += weight * loss
    return total


@pytest.mark.parametrize("losses", MIXES, ids="-".join)
def test_every_mix_of_losses_descends_on_the_stated_objective(views, losses):
    rows = [EVERYONE, EVERYONE[:150]]
    parts = [views[0], views[1][:150]]
    fit = joint_views([sparse.csr_array(x) for x in parts], rows, 200, 3, losses=losses)
    assert np.all(np.diff(fit.loss) <= 1e-10)
    np.testing.assert_allclose(fit.loss[-1], total_loss(parts, rows, fit, losses), rtol=1e-9)
    again = joint_views(parts, rows, 200, 3, losses=losses, walk=Walk(2, 33))
    np.testing.assert_allclose(again.W, fit.W, rtol=1e-5, atol=1e-8)
    np.testing.assert_allclose(fit.W.mean(axis=0), 1)


def test_balanced_weights_make_trivial_fits_equal(views):
    fit = joint_views(views, [EVERYONE] * 2, 200, 3, losses=["kl", "frobenius"])
    x = views[0]
    independent = np.outer(x.sum(axis=1), x.sum(axis=0)) / x.sum()
    np.testing.assert_allclose(fit.weights[0] * poisson_loss(x, independent), 0.5)
    np.testing.assert_allclose(fit.weights[1] * 0.5 * (views[1] ** 2).sum(), 0.25 * 2)


def test_views_are_nmf_of_the_weighted_hstack(views):
    fit = joint_views(views, [EVERYONE] * 2, 200, 3, walk=EXACT)
    stacked = np.hstack([x / np.linalg.norm(x) for x in views])
    H = np.hstack([h / np.linalg.norm(x) for h, x in zip(fit.H, views, strict=True)])
    np.testing.assert_allclose(fit.loss[-1], 0.5 * ((stacked - fit.W @ H) ** 2).sum(), rtol=1e-8)
    assert fit.loss[-1] <= nmf(stacked, 3, walk=EXACT).loss[-1] * 1.001


@pytest.mark.parametrize("kind", ["frobenius", "kl"])
def test_one_modality_is_plain_nmf(views, kind):
    fit = joint_views(views[:1], [EVERYONE], 200, 3, losses=[kind], weights=[1.0], walk=EXACT)
    plain = nmf(views[0], 3, walk=EXACT) if kind == "frobenius" else nmf_kl(views[0], 3, walk=EXACT)
    loss = poisson_loss(views[0], plain.W @ plain.H) if kind == "kl" else plain.loss[-1]
    assert abs(fit.loss[-1] / loss - 1) < 2e-3


def test_a_modality_of_weight_zero_changes_nothing(views):
    weighted = joint_views(views, [EVERYONE] * 2, 200, 3, weights=[1.0, 0.0], walk=EXACT)
    alone = joint_views(views[:1], [EVERYONE], 200, 3, weights=[1.0], walk=EXACT)
    assert abs(weighted.loss[-1] / alone.loss[-1] - 1) < 1e-3


def test_block_mask_equals_fitting_without_those_rows(views):
    """Every row of W is optimal on what it has, every H on the rows that have it, as if the others did not exist."""
    parts, rows = [views[0], views[1][:150]], [EVERYONE, EVERYONE[:150]]
    fit = joint_views(parts, rows, 200, 3, walk=EXACT)
    W, (a, b) = fit.W, fit.weights
    for x, h, found in zip(parts, fit.H, rows, strict=True):
        assert nnls_kkt(W[found].T @ W[found], x.T @ W[found], h.T).max() < 1e-3
    grams = [a * fit.H[0] @ fit.H[0].T, b * fit.H[1] @ fit.H[1].T]
    cross = [a * parts[0] @ fit.H[0].T, b * parts[1] @ fit.H[1].T]
    assert nnls_kkt(grams[0] + grams[1], cross[0][:150] + cross[1], W[:150]).max() < 1e-3
    assert nnls_kkt(grams[0], cross[0][150:], W[150:]).max() < 1e-3


def test_stationarity_under_poisson(views):
    fit = joint_views(views, [EVERYONE] * 2, 200, 3, losses=["kl", "frobenius"], walk=Walk(tol=1e-9, max_iter=8000))
    x, depth = views[0], views[0].sum(axis=1) / views[0].sum(axis=1).mean()
    scaled = depth[:, None] * fit.W
    gradient = scaled.sum(axis=0)[:, None] - scaled.T @ (x / np.maximum(scaled @ fit.H[0], 1e-12))
    size = scaled.sum(axis=0)[:, None]
    assert np.abs(gradient * (fit.H[0] > 1e-3) / size).max() < 0.02
    assert (gradient / size).min() > -0.02


@pytest.mark.parametrize("losses", MIXES[:3], ids="-".join)
def test_a_cell_without_a_modality_is_fitted_to_the_others(views, losses):
    fit = joint_views([views[0], views[1][:150]], [EVERYONE, EVERYONE[:150]], 200, 3, losses=losses)
    predicted, truth = fit.W[150:] @ fit.H[1], views[1][150:]
    truth = truth / truth.sum(axis=1, keepdims=True) if losses[1] == "kl" else truth  # predicted at equal depth
    likeness = [np.corrcoef(p, t)[0, 1] for p, t in zip(predicted.T, truth.T, strict=True)]
    assert np.median(likeness) > 0.9
    assert [len(found) for found, _ in presence([EVERYONE, EVERYONE[:150]], 200)] == [50, 150]


@pytest.mark.parametrize("losses", MIXES[:2], ids="-".join)
def test_scale_of_a_modality_does_not_matter(views, losses):
    fit = joint_views(views, [EVERYONE] * 2, 200, 3, losses=losses)
    other = joint_views([views[0], 7 * views[1]], [EVERYONE] * 2, 200, 3, losses=losses)
    np.testing.assert_allclose(other.W, fit.W, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(other.H[1], 7 * fit.H[1], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("losses", MIXES, ids="-".join)
def test_rows_without_counts_have_no_usage(views, losses):
    holes = [x.copy() for x in views]
    holes[0][5], holes[1][5], holes[0][:, 2] = 0, 0, 0
    fit = joint_views(holes, [EVERYONE] * 2, 200, 3, losses=losses)
    assert np.abs(fit.W[5]).max() < 1e-6
    assert np.isfinite(fit.W).all()


def test_order_of_modalities_does_not_matter():
    r = np.random.default_rng(0)
    W = np.repeat(np.eye(2), 100, axis=0) * r.gamma(2, 1, (200, 1))
    a, b = W @ r.gamma(1, 1, (2, 12)), W @ r.gamma(1, 9, (2, 5))
    fit = joint_views([a, b], [EVERYONE] * 2, 200, 2, walk=EXACT)
    swapped = joint_views([b, a], [EVERYONE] * 2, 200, 2, walk=EXACT)
    np.testing.assert_allclose(fit.loss[-1], swapped.loss[-1], atol=1e-6)
    for one, other in zip(fit.H, swapped.H[::-1], strict=True):
        np.testing.assert_allclose(swapped.W @ other, fit.W @ one, rtol=0.01, atol=0.01 * one.max())
