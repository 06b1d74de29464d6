"""Factorisations: certificates, invariances, and agreement with scikit-learn, numpy and dense formulas."""

import numpy as np
import pytest
from scipy import sparse
from sklearn.decomposition import non_negative_factorization

from unmix.core.als import als, held_out_loss
from unmix.core.factorization import Penalty, Walk, neighbour_weights, nmf, usages
from unmix.core.kl import kl_usages, nmf_kl
from unmix.core.masks import Speckled, speckles
from unmix.core.rank import choose_rank
from unmix.core.simplex import nnls_kkt
from unmix.core.starts import random_start
from unmix.core.svd import svd

SEED_MATRIX = np.outer([3, 1, 4, 2, 3], [1, 1, 0, 1.0]) + np.outer([1, 3, 2, 1, 2], [1, 1, 4, 1.0])
FIRST = np.zeros((5, 4), bool)
FIRST[0] = FIRST[:, 0] = True
TIGHT = Walk(tol=1e-10, max_iter=3000)


@pytest.fixture(scope="module")
def counts() -> np.ndarray:
    r = np.random.default_rng(0)
    return r.poisson(r.gamma(0.3, 1, (300, 5)) @ r.gamma(0.3, 1, (5, 80))).astype(float)


@pytest.fixture(scope="module")
def start(counts):
    return random_start(*counts.shape, 5, counts.mean(), np.random.default_rng(1))


def kl_loss(X, fit, seen=True):
    P = fit.W @ fit.H
    logs = np.where(X > 0, X * np.log(np.where(X > 0, X, 1) / np.maximum(P, 1e-100)), 0)
    return float(((logs - X + P) * seen).sum())


def half_squares(X, fit):
    return 0.5 * ((X - fit.W @ fit.H) ** 2).sum()


def peer(X, start, **kw):
    W, H, k = start.W.copy(), start.H.copy(), start.W.shape[1]
    return non_negative_factorization(X, W=W, H=H, n_components=k, init="custom", tol=0, **kw)[:2]


def test_the_seed_matrix_is_recovered_by_every_method():
    s = svd(SEED_MATRIX, 2)
    assert np.abs(s.U * s.S @ s.V.T - SEED_MATRIX).max() < 1e-10
    poisson = nmf_kl(SEED_MATRIX, 2, walk=Walk(tol=0, max_iter=20000))
    for fit in (als(SEED_MATRIX, 2), nmf(SEED_MATRIX, 2, walk=TIGHT), poisson):
        assert np.abs(fit.W @ fit.H - SEED_MATRIX).max() < 1e-6


@pytest.mark.parametrize("nonnegative", [False, True])
def test_first_row_and_column_determine_a_rank_one_matrix(nonnegative):
    fit = als(SEED_MATRIX, 1, mask=FIRST, nonnegative=nonnegative, walk=Walk(tol=1e-10, max_iter=100))
    expected = np.outer(SEED_MATRIX[:, 0], SEED_MATRIX[0]) / SEED_MATRIX[0, 0]
    assert np.abs(fit.W @ fit.H - expected).max() < 1e-6
    two = als(SEED_MATRIX, 2, mask=FIRST, nonnegative=nonnegative)
    assert np.abs(two.W @ two.H - SEED_MATRIX)[FIRST].max() < 1e-6


@pytest.mark.parametrize("nonnegative", [False, True])
def test_masked_entries_of_a_low_rank_matrix_are_recovered(nonnegative):
    r = np.random.default_rng(3)
    draw = r.random if nonnegative else r.standard_normal
    X = draw((60, 3)) @ draw((3, 40))
    seen = r.random(X.shape) > 0.4
    hidden = np.where(seen, X, np.nan)
    fit = als(hidden, 3, mask=seen, nonnegative=nonnegative, walk=Walk(tol=1e-8, max_iter=1500))
    assert np.abs(fit.W @ fit.H - X).max() < 1e-3
    if nonnegative:
        assert fit.W.min() >= 0
        assert fit.H.min() >= 0


def test_ridge_shrinks_the_singular_values(counts):
    X = counts - counts.mean()
    fit = als(X, 4, ridge=5.0, walk=TIGHT)
    singular = np.linalg.svd(fit.W @ fit.H, compute_uv=False)[:4]
    np.testing.assert_allclose(singular, np.linalg.svd(X, compute_uv=False)[:4] - 5.0, rtol=1e-5)


@pytest.mark.parametrize("extrapolate", [False, True])
def test_loss_is_monotone_and_that_of_the_factors(counts, start, extrapolate):
    fit = nmf(counts, 5, start=start, walk=Walk(extrapolate=extrapolate))
    assert fit.converged
    assert np.all(np.diff(fit.loss) <= 1e-9)
    np.testing.assert_allclose(fit.loss[-1], half_squares(counts, fit), rtol=1e-10)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_squared_loss_equals_that_of_scikit_learn(counts, start, dtype):
    W, H = peer(counts, start, max_iter=1000)
    fit = nmf(counts, 5, start=start, walk=Walk(tol=1e-8, max_iter=3000), dtype=dtype)
    assert half_squares(counts, fit) <= 0.5 * ((counts - W @ H) ** 2).sum() * (1 + 1e-4)


def test_kl_loss_is_monotone_and_that_of_scikit_learn(counts, start):
    fit = nmf_kl(counts, 5, start=start, walk=Walk(tol=1e-8, max_iter=3000))
    assert np.all(np.diff(fit.loss) <= 1e-7)
    np.testing.assert_allclose(fit.loss[-1], kl_loss(counts, fit), rtol=1e-9)
    W, H = peer(counts, start, max_iter=1500, solver="mu", beta_loss="kullback-leibler")
    assert fit.loss[-1] <= kl_loss(counts, type(fit)(W, H, fit.loss, True)) * (1 + 1e-5)


def test_usages_satisfy_the_optimality_conditions(counts, start):
    W = usages(counts, start.H)
    assert nnls_kkt(start.H @ start.H.T, counts @ start.H.T, W).max() < 1e-6
    U = kl_usages(counts, start.H)
    slope = start.H.sum(axis=1) - (counts / np.maximum(U @ start.H, 1e-300)) @ start.H.T
    filled = counts.sum(axis=1) > 0
    assert np.abs(U * slope)[filled].max() < 1e-2
    assert slope[filled].min() > -1e-2


@pytest.mark.parametrize("kind", [sparse.csr_matrix, sparse.csc_array, np.asarray, lambda X: X.astype(np.uint16)])
@pytest.mark.parametrize("walk", [Walk(max_iter=40), Walk(2, 37, max_iter=40)])
def test_any_kind_of_matrix_and_of_walk_gives_the_same(counts, start, kind, walk):
    for solve in (nmf, nmf_kl):
        one, other = (solve(X, 5, start=start, walk=w) for X, w in ((counts, Walk(max_iter=40)), (kind(counts), walk)))
        np.testing.assert_allclose(other.W, one.W, rtol=1e-6, atol=1e-8)


def test_threads_change_no_bit(counts, start):
    fits = [nmf(counts, 5, start=start, walk=Walk(n, 50, max_iter=30), dtype=np.float32) for n in (1, 2)]
    assert fits[0].W.tobytes() == fits[1].W.tobytes()
    assert fits[0].H.tobytes() == fits[1].H.tobytes()


def test_rows_and_columns_may_be_permuted_and_the_matrix_scaled(counts, start):
    r = np.random.default_rng(0)
    rows, columns = r.permutation(300), r.permutation(80)
    moved = type(start)(2 * start.W[rows], 2 * start.H[:, columns])
    for solve, walk in ((nmf, Walk(max_iter=20)), (nmf_kl, Walk(max_iter=20))):
        one = solve(counts, 5, start=start, walk=walk)
        two = solve(4 * counts[rows][:, columns], 5, start=moved, walk=walk)
        np.testing.assert_allclose(two.W @ two.H, 4 * (one.W @ one.H)[rows][:, columns], rtol=1e-6, atol=1e-6)


def test_a_mask_of_ones_changes_nothing(counts, start):
    seen = np.ones(counts.shape, bool)
    np.testing.assert_allclose(nmf_kl(counts, 5, mask=seen, start=start).H, nmf_kl(counts, 5, start=start).H)
    plain, masked = (als(counts, 5, mask=m, start=start, nonnegative=True) for m in (None, seen))
    np.testing.assert_allclose(masked.W @ masked.H, plain.W @ plain.H, rtol=1e-5, atol=1e-6)


def test_what_is_masked_has_no_influence_and_masked_rows_drop_out(counts, start):
    seen = np.random.default_rng(0).random(counts.shape) < 0.8
    seen[:40] = False
    garbage = np.where(seen, counts, 99.0)
    rest = type(start)(start.W[40:], start.H)
    for solve in (nmf_kl, lambda X, k, **kw: als(X, k, nonnegative=True, **kw)):
        fit = solve(counts, 5, mask=seen, start=start, walk=Walk(max_iter=20))
        np.testing.assert_allclose(fit.H, solve(garbage, 5, mask=seen, start=start, walk=Walk(max_iter=20)).H)
        without = solve(counts[40:], 5, mask=seen[40:], start=rest, walk=Walk(max_iter=20))
        np.testing.assert_allclose(fit.H, without.H, rtol=1e-8, atol=1e-10)


def test_masked_losses_are_those_of_the_observed_entries(counts, start):
    seen = np.random.default_rng(0).random(counts.shape) < 0.3
    fit = nmf_kl(counts, 5, mask=seen, start=start, walk=Walk(max_iter=30))
    np.testing.assert_allclose(fit.loss[-1], kl_loss(counts, fit, seen), rtol=1e-9)
    assert np.all(np.diff(fit.loss) <= 1e-7)
    zeros = als(counts, 2, mask="zeros", walk=Walk(max_iter=30))
    expected = 0.5 * ((counts - zeros.W @ zeros.H)[counts > 0] ** 2).sum()
    np.testing.assert_allclose(zeros.loss[-1], expected, rtol=1e-5)


def test_speckles_do_not_depend_on_the_block_and_are_held_out(counts, start):
    mask = Speckled(0.1, 7)
    indptr, indices = speckles(np.arange(300), 80, mask)
    assert np.array_equal(speckles(np.arange(100, 300), 80, mask)[1], indices[indptr[100] :])
    rows = np.repeat(np.arange(300), np.diff(indptr))
    fit = nmf_kl(counts, 5, mask=mask, start=start, walk=Walk(max_iter=10))
    expected = ((counts - fit.W @ fit.H)[rows, indices] ** 2).mean()
    np.testing.assert_allclose(held_out_loss(counts, fit, mask, walk=Walk(block_rows=77)), expected)


def test_held_out_entries_find_the_planted_rank():
    r = np.random.default_rng(2)
    X = r.poisson(r.gamma(0.5, 1, (200, 3)) @ r.gamma(0.5, 4, (3, 60))).astype(float)
    assert choose_rank(X, ranks=[1, 2, 3, 4, 6], n_masks=2).chosen == 3
    assert choose_rank(X, ranks=[1, 2, 3, 4, 6], loss="kl", n_masks=2).chosen == 3


def test_penalties_are_in_the_loss_and_do_what_they_say(counts, start):
    fit = nmf(counts, 5, start=start, penalty=Penalty(l1=2.0, l2=0.5))
    extra = 2.0 * (fit.W.sum() + fit.H.sum()) + 0.25 * ((fit.W**2).sum() + (fit.H**2).sum())
    np.testing.assert_allclose(fit.loss[-1], half_squares(counts, fit) + extra, rtol=1e-10)
    plain = nmf(counts, 5, start=start)
    assert (fit.W > 0).mean() < (plain.W > 0).mean()


def test_rows_without_neighbours_do_not_change_how_strongly_others_are_drawn():
    chain = sparse.diags_array([np.ones(9), np.ones(9)], offsets=[-1, 1])
    S, degree = neighbour_weights(chain, 10)
    wide, degrees = neighbour_weights(sparse.block_diag([chain, np.zeros((5, 5))]), 15)
    np.testing.assert_allclose(wide.toarray()[:10, :10], S.toarray())
    np.testing.assert_allclose(degrees, np.r_[degree, np.zeros(5)])


def test_smoothing_descends_and_brings_neighbours_together(counts, start):
    chain = sparse.diags_array([np.ones(299)], offsets=[1], shape=(300, 300)).tocsr()
    roughness = []
    for weight in (0.0, 1.0, 10.0):
        fit = nmf(counts, 5, start=start, penalty=Penalty(smoothing=weight, graph=chain))
        assert np.all(np.diff(fit.loss) <= 1e-9)
        roughness.append((np.diff(fit.W, axis=0) ** 2).sum() / (fit.W**2).sum())
    assert roughness[0] > 2 * roughness[1] > 2 * roughness[2]
    with pytest.raises(ValueError, match="must be a matrix of shape"):
        nmf(counts, 5, penalty=Penalty(smoothing=1.0, graph=chain[:10]))


def test_penalties_go_together_with_a_mask(counts, start):
    seen = np.random.default_rng(2).random(counts.shape) > 0.3
    chain = sparse.diags_array([np.ones(299)], offsets=[1], shape=(300, 300)).tocsr()
    S, degree = neighbour_weights(chain, 300)
    for penalty in (Penalty(l1=1.0, l2=0.5), Penalty(l1=0.3, l2=0.2, smoothing=5.0, graph=chain)):
        fit = als(
            counts, 5, mask=seen, nonnegative=True, penalty=penalty, start=start, walk=Walk(tol=1e-7, max_iter=300)
        )
        rough = np.einsum("ic,ic->c", fit.W, degree[:, None] * fit.W - S @ fit.W)
        expected = 0.5 * ((counts - fit.W @ fit.H)[seen] ** 2).sum() + penalty.l1 * (fit.W.sum() + fit.H.sum())
        expected += 0.5 * penalty.l2 * ((fit.W**2).sum() + (fit.H**2).sum())
        expected += 0.5 * penalty.smoothing * (fit.H**2).sum(axis=1) @ rough
        np.testing.assert_allclose(fit.loss[-1], expected, rtol=1e-8)
        assert np.all(np.diff(fit.loss) <= 0)
        options = {"nonnegative": True, "penalty": penalty, "start": start, "walk": Walk(tol=0, max_iter=15)}
        full, none = (als(counts, 5, mask=mask, **options) for mask in (np.ones(counts.shape, bool), None))
        np.testing.assert_allclose(full.loss, none.loss, rtol=1e-8)


def test_extreme_ranks_and_empty_rows_and_columns(counts):
    X = counts.copy()
    X[3], X[:, 7] = 0, 0
    for solve in (nmf, nmf_kl):
        for k in (1, 80, 90):
            fit = solve(X, k, walk=Walk(max_iter=15))
            assert np.isfinite(fit.W).all()
            assert np.isfinite(fit.H).all()
            np.testing.assert_allclose((fit.W @ fit.H)[3], 0, atol=1e-10)
    assert np.isfinite(nmf(np.zeros((4, 3)), 2).W).all()
    s = svd(X, 1, n_passes=10)
    one = nmf(X, 1, walk=TIGHT)
    np.testing.assert_allclose(half_squares(X, one), 0.5 * (s.total - s.S[0] ** 2), rtol=1e-8)
    with pytest.raises(ValueError, match="n_components"):
        nmf(X, 0)


@pytest.mark.parametrize("center", [False, True])
def test_svd_is_that_of_lapack(counts, center):
    dense = counts - center * counts.mean(axis=0)
    U, S, Vt = np.linalg.svd(dense, full_matrices=False)
    found = svd(sparse.csr_array(counts), 5, center=center, n_passes=8, block_rows=64)
    np.testing.assert_allclose(found.S, S[:5], rtol=1e-8)
    assert np.abs(np.abs((found.V * Vt[:5].T).sum(axis=0)) - 1).max() < 1e-6
    np.testing.assert_allclose(found.U.T @ found.U, np.eye(5), atol=1e-6)
    np.testing.assert_allclose(found.total, (dense**2).sum())
    assert np.array_equal(svd(counts, 5).V.argmax(axis=0), np.abs(svd(counts, 5).V).argmax(axis=0))
