"""Joint factorisation of batches of counts: the stated objective, its limits, unmeasured variables, known loadings."""

import numpy as np
import pytest
from scipy import sparse

from unmix.core.factorization import Walk
from unmix.core.joint_counts import SPECIFICITY, count_usages, joint_counts
from unmix.core.joint_loadings import Known
from unmix.core.kl import kl_usages, nmf_kl
from unmix.core.starts import Start

CODES = np.repeat([0, 1], 150)
EXACT = Walk(tol=1e-8, max_iter=5000)


@pytest.fixture(scope="module")
def X():
    r = np.random.default_rng(0)
    H = r.gamma(0.3, 1, (4, 50))
    own = np.zeros((2, 4, 50))
    own[1][:, 40:] = 3.0
    return np.vstack([r.poisson(r.gamma(0.5, 2, (150, 4)) @ (H + v)).astype(float) for v in own])


def objective(X, fit, price, seen=None, codes=CODES):
    total = 0.0
    for b, v in enumerate(fit.V):
        w, x = fit.W[codes == b], X[codes == b]
        at = np.ones(X.shape[1], bool) if seen is None else seen[b]
        rate = (w @ (fit.H + v))[:, at]
        logs = x[:, at] * np.log(np.where(x[:, at] > 0, x[:, at], 1) / np.maximum(rate, 1e-300))
        total += logs.sum() - x[:, at].sum() + rate.sum() + price * (w @ v[:, at]).sum()
    return total


@pytest.mark.parametrize("price", [0.0, SPECIFICITY, 2.0])
def test_batches_descend_on_the_stated_objective(X, price):
    fit = joint_counts(X, CODES, 4, specificity=price)
    assert np.all(np.diff(fit.loss) <= 1e-8 * fit.loss[0])
    np.testing.assert_allclose(fit.loss[-1], objective(X, fit, price), rtol=1e-8)
    np.testing.assert_allclose(fit.W.mean(axis=0), 1)


def test_one_batch_without_its_own_part_is_plain_nmf(X):
    one, r = X[:150], np.random.default_rng(1)
    H, none = r.random((4, 50)), np.zeros((4, 50))
    walk = Walk(tol=0, max_iter=30)
    fit = joint_counts(one, np.zeros(150, int), 4, known=Known(H, {0: none}), walk=walk, rng=3)
    assert not fit.V.any()
    first = joint_counts(one, np.zeros(150, int), 4, known=Known(H, {0: none}), walk=Walk(tol=0, max_iter=1), rng=3)
    plain = nmf_kl(one, 4, start=Start(first.W, first.H), walk=Walk(tol=0, max_iter=3000))
    long = joint_counts(one, np.zeros(150, int), 4, known=Known(H, {0: none}), walk=Walk(tol=0, max_iter=3000), rng=3)
    np.testing.assert_allclose(long.loss[-1], plain.loss[-1], rtol=1e-3)


def test_nothing_depends_on_storage_blocks_threads_or_order(X):
    fit = joint_counts(X, CODES, 4)
    for other in (sparse.csr_array(X), sparse.csc_array(X)):
        again = joint_counts(other, CODES, 4, walk=Walk(2, 33))
        np.testing.assert_allclose(again.H, fit.H, rtol=1e-6, atol=1e-8)
    threads = [joint_counts(X, CODES, 4, walk=Walk(n, 33)).W.tobytes() for n in (1, 2)]
    assert threads[0] == threads[1]
    order = np.random.default_rng(0).permutation(300)
    shuffled = joint_counts(X[order], CODES[order], 4, walk=EXACT)
    assert abs(shuffled.loss[-1] / joint_counts(X, CODES, 4, walk=EXACT).loss[-1] - 1) < 0.02


def test_what_only_one_batch_has_goes_to_its_own_part():
    r = np.random.default_rng(0)
    H, W = r.gamma(0.3, 4, (4, 50)), r.gamma(0.5, 2, (300, 4))
    more = np.zeros((4, 50))
    more[:, 48:] = 2.0 + 3 * H[:, 48:]
    X = r.poisson(np.vstack([W[:150] @ H, W[150:] @ (H + more)])).astype(float)
    fit = joint_counts(X, CODES, 4, walk=EXACT)
    own, shared = fit.W[150:].mean(axis=0) @ fit.V[1], fit.W[150:].mean(axis=0) @ fit.H
    assert (own[48:] > 0.5 * shared[48:]).all()
    assert own[:48].sum() < 0.1 * own[48:].sum()
    assert (fit.W[:150] @ fit.V[0]).sum() < 0.02 * X[:150].sum()


@pytest.mark.parametrize("fold, has_own", [(1.6, False), (4.0, True)])
def test_a_part_of_its_own_begins_at_the_fold_change_of_the_price(fold, has_own):
    """Rank 1, batches of one size: with lambda = 1/3 the threshold is 2, in shares of the total."""
    X = np.repeat(np.array([[30.0, 10.0], [30.0, 10.0 * fold]]), 20, axis=0)
    X[:20] *= X[20:].sum(axis=1, keepdims=True) / X[:20].sum(axis=1, keepdims=True)
    H = np.array([[40.0, 15.0]])
    fit = joint_counts(X, np.repeat([0, 1], 20), 1, known=Known(H, {}), walk=Walk(tol=1e-12, max_iter=20000))
    share = fit.V[1][0, 1] / (fit.H + fit.V[1])[0, 1]
    assert (share > 0.05) == has_own, share


def test_what_a_batch_did_not_measure_does_not_matter(X):
    seen = np.ones((2, 50), bool)
    seen[1, :10] = False
    fit = joint_counts(X, CODES, 4, measured=seen)
    assert np.all(np.diff(fit.loss) <= 1e-8 * fit.loss[0])
    np.testing.assert_allclose(fit.loss[-1], objective(X, fit, SPECIFICITY, seen), rtol=1e-8)
    assert not fit.H[:, :10].any()
    assert not fit.V[1][:, :10].any()
    other = X.copy()
    other[150:, :10] = 77
    np.testing.assert_allclose(joint_counts(other, CODES, 4, measured=seen).V, fit.V, rtol=1e-10)


def test_known_loadings_are_kept_and_usages_optimal(X):
    fit = joint_counts(X, CODES, 4)
    kept = joint_counts(X, CODES, 4, known=Known(fit.H, {0: fit.V[0], 1: fit.V[1]}, keep=True))
    np.testing.assert_array_equal(kept.H, fit.H)
    np.testing.assert_array_equal(kept.V, fit.V)
    every = np.ones(50, bool)
    W = count_usages(X[150:], fit.H, fit.V[1], specificity=SPECIFICITY, measured=every)
    F = fit.H + fit.V[1]
    slope = F.sum(axis=1) + SPECIFICITY * fit.V[1].sum(axis=1) - (X[150:] / np.maximum(W @ F, 1e-300)) @ F.T
    filled = X[150:].sum(axis=1) > 0
    assert np.abs(W * slope)[filled].max() < 1e-2
    assert slope[filled].min() > -2e-2
    plain = count_usages(X, fit.H, 0 * fit.H, specificity=1.0, measured=every)
    np.testing.assert_allclose(plain, kl_usages(X, fit.H), atol=1e-8)


def test_empty_rows_and_variables_have_nothing(X):
    other = X.copy()
    other[3], other[:, 7] = 0, 0
    fit = joint_counts(other, CODES, 4)
    assert not fit.W[3].any()
    assert np.isfinite(fit.loss).all()
    assert not (fit.H + fit.V.sum(axis=0))[:, 7].any()
