"""Joint factorisation: the stated objectives, their special cases, missing modalities, planted structure."""

import numpy as np
import pytest
from scipy import sparse

from unmix.core.factorization import Walk, nmf
from unmix.core.joint import batch_usages, column_rms, joint_batches, joint_views, presence
from unmix.core.simplex import nnls_kkt


@pytest.fixture(scope="module")
def batches():
    r = np.random.default_rng(0)
    H = r.gamma(0.3, 1, (4, 50))
    own = [np.zeros((4, 50)), np.zeros((4, 50))]
    own[1][:, 40:] = 3.0
    return [r.poisson(r.gamma(0.5, 2, (150, 4)) @ (H + v)).astype(float) for v in own]


def objective(X, fit, lam, D):
    return sum(
        ((x * d - w @ (fit.H + v)) ** 2).sum() + lam * ((w @ v) ** 2).sum()
        for x, d, w, v in zip(X, D, fit.W, fit.V, strict=True)
    )


@pytest.mark.parametrize("scaled", [False, True])
def test_batches_descend_on_the_stated_objective(batches, scaled):
    D = [1 / column_rms(x) if scaled else np.ones(50) for x in batches]
    kinds = [sparse.csr_array(x) for x in batches]
    fit = joint_batches(kinds, 4, scales=D, walk=Walk(tol=1e-5))
    assert np.all(np.diff(fit.loss) <= 1e-8 * fit.loss[0])
    np.testing.assert_allclose(fit.loss[-1], objective(batches, fit, 5.0, D), rtol=1e-8)
    dense = joint_batches(batches, 4, scales=D, walk=Walk(2, 33, tol=1e-5))
    np.testing.assert_allclose(dense.H, fit.H, rtol=1e-5, atol=1e-6)


def test_what_only_one_batch_has_goes_to_its_own_part(batches):
    fit = joint_batches(batches, 4, specificity=0.1)
    w = fit.W[1].mean(axis=0)
    own, whole = w @ fit.V[1], w @ (fit.H + fit.V[1])
    assert own[40:].sum() / whole[40:].sum() > 2 * own[:40].sum() / whole[:40].sum()


def test_one_batch_without_its_own_part_is_plain_nmf(batches):
    X = batches[0]
    fit = joint_batches([X], 4, specificity=1e6, walk=Walk(tol=1e-7, max_iter=3000))
    assert fit.loss[-1] / 2 <= nmf(X, 4, start="random", walk=Walk(tol=1e-7, max_iter=3000)).loss[-1] * 1.03


def test_usages_of_a_batch_are_optimal(batches):
    fit = joint_batches(batches, 4)
    F, V, d = fit.H + fit.V[1], fit.V[1], 1 / column_rms(batches[1])
    W = batch_usages(batches[1], fit.H, V, specificity=5.0, scale=d)
    assert nnls_kkt(F @ F.T + 5 * V @ V.T, (batches[1] * d) @ F.T, W).max() < 1e-6


@pytest.fixture(scope="module")
def views():
    r = np.random.default_rng(1)
    W = r.dirichlet([0.2] * 3, 200)
    return [r.poisson(W @ r.gamma(0.3, s, (3, m))).astype(float) for m, s in ((60, 20.0), (10, 500.0))]


def test_views_are_nmf_of_the_weighted_hstack(views):
    everyone = np.arange(200)
    fit = joint_views(views, [everyone, everyone], 200, 3, walk=Walk(tol=1e-8, max_iter=2000))
    assert np.all(np.diff(fit.loss) <= 1e-12)
    stacked = np.hstack([x / np.linalg.norm(x) for x in views])
    H = np.hstack([h / np.linalg.norm(x) for h, x in zip(fit.H, views, strict=True)])
    direct = 0.5 * ((stacked - fit.W @ H) ** 2).sum()
    np.testing.assert_allclose(fit.loss[-1], direct, rtol=1e-8)
    assert fit.loss[-1] <= nmf(stacked, 3, walk=Walk(tol=1e-8, max_iter=2000)).loss[-1] * 1.001


def test_a_cell_without_a_modality_is_fitted_to_the_others(views):
    everyone, some = np.arange(200), np.arange(150)
    fit = joint_views([views[0], views[1][:150]], [everyone, some], 200, 3)
    predicted = fit.W[150:] @ fit.H[1]
    likeness = [np.corrcoef(p, t)[0, 1] for p, t in zip(predicted.T, views[1][150:].T, strict=True)]
    assert np.median(likeness) > 0.9
    assert [len(found) for found, _ in presence([everyone, some], 200)] == [50, 150]
