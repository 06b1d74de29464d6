"""Archetypes: certificates of optimality, exact recovery, invariances and limits."""

import numpy as np
import pytest
from scipy import sparse
from scipy.optimize import minimize

from unmix.core import _wolfe
from unmix.core.archetype_starts import archetypal_plus_plus, furthest_sum
from unmix.core.archetype_weights import hull_gap, weigh_archetypes, weights_gap
from unmix.core.archetypes import fit_archetypes


def mixtures(n: int, K: int, D: int, noise: float = 0.1, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    Z = 3 * rng.normal(size=(K, D))
    W = rng.dirichlet(np.full(K, 0.5), n)
    return W @ Z + noise * rng.normal(size=(n, D)), Z, W


@pytest.fixture(scope="module")
def noisy():
    X, _, _ = mixtures(600, 5, 8)
    return X, fit_archetypes(X, 5, n_restarts=4)


def test_both_blocks_carry_certificates(noisy):
    X, fit = noisy
    fine = fit_archetypes(X, 5, n_restarts=2, tol=1e-12, max_iter=3000)
    scale = fine.losses[-1]
    assert weights_gap(X, fine.Z, fine.W).max() < 1e-9 * scale
    assert hull_gap(X, fine.Z, fine.W).max() < 1e-4 * scale
    assert hull_gap(X, fit.Z, fit.W).max() < 1e-2 * scale


def test_simplex_and_sparsity(noisy):
    X, fit = noisy
    B = fit.B.toarray()
    for M in (fit.W, B):
        assert M.min() >= 0
        np.testing.assert_allclose(M.sum(axis=1), 1, atol=1e-12)
    assert (B > 0).sum(axis=1).max() <= X.shape[1] + 1
    np.testing.assert_allclose(B @ X, fit.Z, atol=1e-9)


def test_loss_from_products_is_the_direct_one_and_never_rises(noisy):
    X, fit = noisy
    direct = ((X - fit.W @ fit.Z) ** 2).sum()
    np.testing.assert_allclose(fit.losses[-1], direct, rtol=1e-10)
    np.testing.assert_allclose(fit.explained_variance, 1 - direct / ((X - X.mean(0)) ** 2).sum(), rtol=1e-12)
    assert (np.diff(fit.losses) <= 0).all()


@pytest.mark.parametrize("K", [1, 2, 4, 7])
def test_noiseless_vertices_are_recovered_with_one_hot_anchors(K):
    X, Z, _ = mixtures(300, K, 9, noise=0, seed=K)
    X = np.vstack([X, Z])
    if K == 1:
        X = np.vstack([Z, Z])
    fit = fit_archetypes(X, K, max_iter=3000)
    distance = np.linalg.norm(fit.Z[:, None] - Z[None], axis=2)
    assert distance.min(axis=1).max() < 1e-8
    assert (fit.B.toarray() > 0).sum(axis=1).tolist() == [1] * K or K == 1
    np.testing.assert_allclose(fit.W @ fit.Z, X, atol=1e-7)


def test_invariances(noisy):
    X, fit = noisy
    rng = np.random.default_rng(3)
    Q = np.linalg.qr(rng.normal(size=(8, 8)))[0]
    genes = rng.permutation(8)
    for Y, back in (
        (X + 100.0, lambda Z: Z - 100.0),
        (7.0 * X, lambda Z: Z / 7.0),
        (X @ Q, lambda Z: Z @ Q.T),
        (X[:, genes], lambda Z: Z[:, np.argsort(genes)]),
        (np.repeat(X, 2, axis=0), lambda Z: Z),
    ):
        other = fit_archetypes(Y, 5, n_restarts=4)
        np.testing.assert_allclose(other.explained_variance, fit.explained_variance, rtol=1e-4)
        distance = np.linalg.norm(back(other.Z)[:, None] - fit.Z[None], axis=2)
        assert distance.min(axis=0).max() < 0.05 * np.linalg.norm(fit.Z - fit.Z.mean(0), axis=1).min()


def test_threads_and_seeds_do_not_matter_to_the_bits():
    X, _, _ = mixtures(9000, 4, 6)
    a, b = (fit_archetypes(X, 4, n_restarts=2, n_jobs=n, max_iter=20) for n in (1, 2))
    assert np.array_equal(a.W, b.W)
    assert np.array_equal(a.Z, b.Z)
    assert a.losses == fit_archetypes(X, 4, n_restarts=2, max_iter=20, rng=np.random.default_rng(0)).losses


def test_a_coreset_followed_by_the_polish_loses_nothing(noisy):
    X, fit = noisy
    small = fit_archetypes(X, 5, n_restarts=4, coreset=150)
    assert small.W.shape == fit.W.shape
    assert small.explained_variance > fit.explained_variance - 1e-4


def test_relaxed_hull_recovers_corners_that_no_row_reaches():
    rng = np.random.default_rng(1)
    Z = np.array([[0.0, 0.0], [6.0, 0.0], [0.0, 6.0]])
    W = 0.8 * rng.dirichlet(np.ones(3), 500) + 0.2 / 3
    X = W @ Z
    plain, relaxed = fit_archetypes(X, 3), fit_archetypes(X, 3, delta=0.25)
    assert relaxed.explained_variance > plain.explained_variance
    centre = X.mean(axis=0)
    np.testing.assert_allclose(relaxed.Z, centre + 1.25 * (relaxed.B @ X - centre), atol=1e-9)


def test_weights_silence_an_outlier():
    X, _, _ = mixtures(200, 3, 4, noise=0)
    spoiled = np.vstack([X, np.full((1, 4), 500.0)])
    weights = np.append(np.ones(200), 0.0)
    fit = fit_archetypes(spoiled, 3, weights=weights)
    assert ((X - fit.W[:200] @ fit.Z) ** 2).sum() < 0.02 * ((X - X.mean(0)) ** 2).sum()


def test_weights_of_rows_against_slsqp():
    rng = np.random.default_rng(0)
    Z = rng.normal(size=(4, 6))
    X = 2 * rng.normal(size=(6, 6))
    W = weigh_archetypes(X, Z)
    for x, w in zip(X, W, strict=True):
        oracle = minimize(
            lambda v, x=x: ((x - v @ Z) ** 2).sum(), np.full(4, 0.25), bounds=[(0, 1)] * 4,
            constraints={"type": "eq", "fun": lambda v: v.sum() - 1}, options={"ftol": 1e-14},
        )  # fmt: skip
        np.testing.assert_allclose(w, oracle.x, atol=1e-5)


def test_hull_projection_is_the_nearest_point():
    rng = np.random.default_rng(5)
    X = rng.normal(size=(50, 3))
    for t in 3 * rng.normal(size=(10, 3)):
        index, lam, z = np.zeros(5, dtype=np.int64), np.zeros(5), np.empty(3)
        lam[0] = 1.0
        _wolfe.project_on_hull(X, t, index, lam, 1, z, 1e-12)
        assert ((X @ (z - t)) >= z @ (z - t) - 1e-9).all()


def test_more_than_63_parts_take_the_path_without_stored_operators():
    rng = np.random.default_rng(2)
    Z = rng.normal(size=(70, 80))
    X = rng.dirichlet(np.full(70, 0.05), 20) @ Z
    W = weigh_archetypes(X, Z)
    assert weights_gap(X, Z, W).max() < 1e-8


def test_one_archetype_is_the_mean_and_all_rows_are_a_perfect_fit():
    X, _, _ = mixtures(30, 3, 4)
    np.testing.assert_allclose(fit_archetypes(X, 1).Z[0], X.mean(axis=0), atol=1e-7)
    assert fit_archetypes(X, 30, n_restarts=2).explained_variance > 1 - 1e-9


def test_identical_rows_and_too_many_archetypes():
    fit = fit_archetypes(np.ones((6, 3)), 2, n_restarts=2)
    np.testing.assert_allclose(fit.W.sum(axis=1), 1)
    with pytest.raises(ValueError, match="between 1 and the number of rows, 6"):
        fit_archetypes(np.ones((6, 3)), 7)
    with pytest.raises(ValueError, match="finite"):
        fit_archetypes(np.full((6, 3), np.nan), 2)


def test_starts_are_distinct_rows():
    X, _, _ = mixtures(40, 4, 5)
    for n in (1, 5, 40):
        rng = np.random.default_rng(0)
        assert len(set(furthest_sum(X, n, rng))) == n
        assert len(set(archetypal_plus_plus(X, n, rng))) == n


def test_sparse_rows_give_the_fit_of_dense_ones():
    rng = np.random.default_rng(3)
    X = rng.dirichlet(np.full(4, 0.3), 400) @ (5 * rng.random((4, 60)) * (rng.random((4, 60)) < 0.4))
    X = np.where(X > 0.05, X, 0) + 0.01 * (rng.random(X.shape) < 0.1)
    dense = fit_archetypes(X, 4, n_restarts=3, tol=1e-9)
    fit = fit_archetypes(sparse.csr_array(X), 4, n_restarts=3, tol=1e-9)
    np.testing.assert_allclose(fit.explained_variance, dense.explained_variance, rtol=1e-6)
    np.testing.assert_allclose(fit.B @ X, fit.Z, atol=1e-9)
    assert weights_gap(X, fit.Z, fit.W).max() < 1e-6 * fit.losses[-1]
    direct = ((X - fit.W @ fit.Z) ** 2).sum() / ((X - X.mean(axis=0)) ** 2).sum()
    np.testing.assert_allclose(fit.explained_variance, 1 - direct, rtol=1e-8)
    with pytest.raises(ValueError, match="delta=0 or components"):
        fit_archetypes(sparse.csr_array(X), 4, delta=0.1)


def test_of_mixtures_that_are_as_good_the_evenest_is_taken():
    """Five corners in a plane: fits of the same rows in another order had other weights, and so did projections."""
    rng = np.random.default_rng(0)
    angle = 2 * np.pi * np.arange(5) / 5
    Z = np.column_stack([np.cos(angle), np.sin(angle)])
    X = np.vstack([Z, rng.dirichlet(np.ones(5), 100) @ Z])
    W = weigh_archetypes(X, Z)
    np.testing.assert_allclose(W @ Z, X, atol=1e-5)
    np.testing.assert_allclose(W[:5], np.eye(5), atol=1e-5)
    found = minimize(
        lambda w: w @ w, np.full(5, 0.2), bounds=[(0, 1)] * 5, tol=1e-14,
        constraints={"type": "eq", "fun": lambda w: np.append(w @ Z - X[7], w.sum() - 1)},
    )  # fmt: skip
    np.testing.assert_allclose(W[7], found.x, atol=1e-4)
    fit, order = fit_archetypes(X, 5), rng.permutation(len(X))
    again = fit_archetypes(X[order], 5)
    nearest = ((fit.Z[:, None] - again.Z[None]) ** 2).sum(axis=2).argmin(axis=1)
    np.testing.assert_allclose(again.W[:, nearest], fit.W[order], atol=1e-3)
    np.testing.assert_allclose(weigh_archetypes(X, fit.Z), fit.W, atol=1e-6)


def test_a_coreset_holds_as_many_rows_as_archetypes(noisy):
    """Among few rows a corner rests on few; among all it needs the room of all, beyond which memory was overwritten."""
    for coreset in (2, 6):
        fit = fit_archetypes(noisy[0], 5, coreset=coreset)
        assert fit.explained_variance > 0.99 * noisy[1].explained_variance
