import numpy as np
import pytest
import qpsolvers
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from scipy.optimize import nnls as scipy_nnls

from unmix.core.simplex import nnls, nnls_kkt, project_simplex, simplex_kkt, simplex_ls

FITS = [(nnls, nnls_kkt), (simplex_ls, simplex_kkt)]
IDS = ["nnls", "simplex"]


def problem(seed, m=30, K=6, N=8, positive=False, rank=None):
    """Return a design A (m, K), of the given rank, and responses Y (N, m)."""
    rng = np.random.default_rng(seed)
    A = rng.random((m, K)) if positive else rng.standard_normal((m, K))
    if rank is not None:
        A = A[:, :rank] @ rng.random((rank, K))
    Y = rng.random((N, K)) @ A.T + rng.standard_normal((N, m))
    return A, Y


def objective(A, Y, W):
    return ((Y - W @ A.T) ** 2).sum(axis=1)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**32), m=st.integers(1, 12), K=st.integers(1, 9), rank=st.integers(1, 9))
@pytest.mark.parametrize("fit, kkt", FITS, ids=IDS)
def test_any_problem_ends_with_a_certificate(fit, kkt, seed, m, K, rank):
    A, Y = problem(seed, m=m, K=K, rank=min(rank, K), positive=bool(seed % 2))
    W = fit(A.T @ A, Y @ A)
    assert (W >= 0).all()
    assert kkt(A.T @ A, Y @ A, W).max() < 1e-11


@pytest.mark.parametrize("fit, kkt", FITS, ids=IDS)
@pytest.mark.parametrize("K", [1, 2, 20, 60])
def test_a_certificate_at_every_size(fit, kkt, K):
    A, Y = problem(K, m=2 * K + 3, K=K, N=50, positive=True)
    W = fit(A.T @ A, Y @ A)
    assert kkt(A.T @ A, Y @ A, W).max() < 1e-13
    assert (W == 0).any() or K == 1  # exact zeros


@pytest.mark.parametrize("fit, kkt", FITS, ids=IDS)
@pytest.mark.parametrize("noise", [0.0, 1e-14, 1e-10, 1e-7, 1e-4])
def test_equal_and_nearly_equal_columns(fit, kkt, noise):
    A, Y = problem(3, m=40, K=10, N=200, positive=True)
    rng = np.random.default_rng(4)
    A = np.hstack([A, A + noise * rng.standard_normal(A.shape), np.zeros((40, 1))])
    assert kkt(A.T @ A, Y @ A, fit(A.T @ A, Y @ A)).max() < 1e-11


@pytest.mark.parametrize("start", ["zeros", "ones", "answer", "random"])
@pytest.mark.parametrize("fit, kkt", FITS, ids=IDS)
def test_the_start_does_not_move_the_answer(fit, kkt, start):
    A, Y = problem(5, m=50, K=12, N=40, positive=True)
    W = fit(A.T @ A, Y @ A)
    guess = {"zeros": 0 * W, "ones": 0 * W + 1, "answer": W, "random": np.random.default_rng(0).normal(size=W.shape)}
    np.testing.assert_allclose(fit(A.T @ A, Y @ A, guess[start]), W, rtol=0, atol=1e-12)


def test_nnls_is_the_optimum_of_scipy():
    A, Y = problem(6, m=120, K=15, N=60, positive=True)
    expected = np.array([scipy_nnls(A, y)[0] for y in Y])
    W = nnls(A.T @ A, Y @ A)
    np.testing.assert_allclose(W, expected, rtol=0, atol=1e-10)
    np.testing.assert_array_equal(W == 0, expected == 0)


@pytest.mark.parametrize("solver", ["daqp", "clarabel"])
@pytest.mark.parametrize("total", [None, 1.0], ids=["nnls", "simplex"])
def test_the_optimum_of_quadratic_programming(solver, total):
    A, Y = problem(7, m=40, K=7, N=10, positive=True)
    P, K = A.T @ A, A.shape[1]
    options = {} if solver == "daqp" else {"tol_gap_abs": 1e-13, "tol_gap_rel": 1e-13, "tol_feas": 1e-13}
    matrix = sparse.csc_matrix if solver == "clarabel" else np.asarray
    equality = {} if total is None else {"A": matrix(np.ones((1, K))), "b": np.ones(1)}
    expected = np.array(
        [qpsolvers.solve_qp(matrix(P), -A.T @ y, lb=np.zeros(K), **equality, solver=solver, **options) for y in Y]
    )
    W = (nnls if total is None else simplex_ls)(P, Y @ A)
    np.testing.assert_allclose(W, expected, rtol=0, atol=1e-10 if solver == "daqp" else 1e-6)
    assert (objective(A, Y, W) <= objective(A, Y, np.maximum(expected, 0)) * (1 + 1e-12) + 1e-9).all()


@pytest.mark.parametrize("fit", [nnls, simplex_ls], ids=IDS)
def test_one_gram_a_row_is_row_by_row(fit):
    rng = np.random.default_rng(8)
    A = rng.random((9, 20, 5))
    gram, cross = np.einsum("nmj,nmk->njk", A, A), np.einsum("nmk,nm->nk", A, rng.standard_normal((9, 20)) + 1)
    expected = np.vstack([fit(gram[i], cross[i : i + 1]) for i in range(9)])
    np.testing.assert_allclose(fit(gram, cross), expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize("fit", [nnls, simplex_ls], ids=IDS)
def test_exact_mixtures_come_back(fit):
    rng = np.random.default_rng(9)
    A = rng.lognormal(size=(200, 20))
    W = rng.dirichlet(np.full(20, 0.2), 100) * (rng.random((100, 20)) < 0.5)
    W = W[W.sum(axis=1) > 0]
    W /= W.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(fit(A.T @ A, (W @ A.T) @ A), W, rtol=0, atol=1e-12)


@pytest.mark.parametrize("unit", [1e-150, 1e-3, 1e6, 1e100])
def test_units_do_not_matter(unit):
    A, Y = problem(10, positive=True)
    np.testing.assert_allclose(nnls(A.T @ A, Y @ A * unit), nnls(A.T @ A, Y @ A) * unit, rtol=1e-12)
    np.testing.assert_allclose(simplex_ls(A.T @ A * unit, Y @ A * unit), simplex_ls(A.T @ A, Y @ A), atol=1e-13)


def test_columns_of_very_different_size():
    A, Y = problem(11, m=60, K=8, N=30, positive=True)
    size = 10.0 ** np.arange(-8, 8, 2)
    W = nnls((A * size).T @ (A * size), Y @ (A * size))
    np.testing.assert_allclose(W * size, nnls(A.T @ A, Y @ A), rtol=0, atol=1e-11)


def test_rows_do_not_see_each_other():
    A, Y = problem(12, m=25, K=10, N=20, positive=True)
    for fit, _ in FITS:
        together = fit(A.T @ A, Y @ A)
        alone = np.vstack([fit(A.T @ A, (Y @ A)[i : i + 1]) for i in range(len(Y))])
        np.testing.assert_allclose(together, alone, rtol=0, atol=1e-13)


def test_more_columns_than_the_space_has_dimensions():
    """On the simplex columns may be linearly dependent, as long as they are the corners of a simplex."""
    corners = np.array([[0.0, 0.0, 1.0], [0.0, 1.0, 0.0]]).T @ np.eye(2)
    A = corners.T  # three points of a plane, one of them the origin
    W = simplex_ls(A.T @ A, np.array([[0.25, 0.5]]) @ A)
    np.testing.assert_allclose(W, [[0.25, 0.5, 0.25]], atol=1e-14)


def test_nothing_to_fit():
    assert not nnls(np.eye(3), np.zeros((2, 3))).any()
    assert not nnls(np.eye(3), -np.ones((2, 3))).any()
    assert not nnls(np.zeros((3, 3)), np.zeros((1, 3))).any()
    np.testing.assert_allclose(simplex_ls(np.zeros((3, 3)), np.zeros((1, 3))).sum(axis=1), 1)
    assert nnls(np.eye(3), np.zeros((0, 3))).shape == simplex_ls(np.eye(3), np.zeros((0, 3))).shape == (0, 3)


def test_certificates_see_a_wrong_answer():
    A, Y = problem(13, positive=True)
    for fit, kkt in FITS:
        W = fit(A.T @ A, Y @ A)
        assert kkt(A.T @ A, Y @ A, W + 1e-3).min() > 1e-5
        assert kkt(A.T @ A, Y @ A, np.where(W.max(axis=1, keepdims=True) == W, 0, W)).min() > 1e-4


@pytest.mark.parametrize(
    "gram, cross", [(np.eye(3), np.ones((2, 4))), (np.eye(3), np.ones(3)), (np.ones(3), np.ones((1, 3)))]
)
def test_shapes_are_checked(gram, cross):
    with pytest.raises(ValueError, match="gram has shape"):
        nnls(gram, cross)


def test_one_gram_or_one_for_each_row():
    with pytest.raises(ValueError, match="2 matrices for 3 rows"):
        simplex_ls(np.ones((2, 4, 4)), np.ones((3, 4)))


@settings(max_examples=50, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**32), K=st.integers(1, 30), total=st.floats(0.01, 100))
def test_projection_satisfies_its_variational_inequality(seed, K, total):
    rng = np.random.default_rng(seed)
    V = 10 * rng.standard_normal((5, K))
    W = project_simplex(V, total)
    np.testing.assert_allclose(W.sum(axis=1), total)
    assert (W >= 0).all()
    corners = ((V - W).max(axis=1) * total, ((V - W) * W).sum(axis=1))  # <v - w, x - w> <= 0 at every corner x
    assert (corners[0] - corners[1] <= 1e-9 * total * 10).all()
    np.testing.assert_allclose(project_simplex(W, total), W, atol=1e-12 * total)


def test_projection_needs_a_positive_sum():
    with pytest.raises(ValueError, match="total is 0"):
        project_simplex(np.ones(3), 0)


def test_projection_of_one_vector():
    np.testing.assert_allclose(project_simplex(np.array([0.5, 0.5])), [0.5, 0.5])
