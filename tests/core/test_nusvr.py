import numpy as np
import pytest
import qpsolvers
from sklearn.svm import NuSVR

from unmix.core.cibersort import zscore
from unmix.core.nusvr import solve_nusvr, solve_nusvr_simplex

NUS = (0.25, 0.5, 0.75)


def problem(G=120, K=6, N=40, zeros=0.0, seed=0):
    """Signature with markers and spots of counts; `zeros` of the entries are lost. Scaled as CIBERSORT does."""
    random = np.random.default_rng(seed)
    S = random.lognormal(0, 1, (G, K))
    for j in range(K):
        S[j * (G // K) : (j + 1) * (G // K), j] *= 10
    Y = random.poisson(random.dirichlet(np.ones(K), N) @ S.T * 5) * (random.random((N, G)) >= zeros)
    Y = Y[Y.std(axis=1) > 0].astype(float)
    return (S - S.mean()) / S.std(ddof=1), (Y - Y.mean(1, keepdims=True)) / Y.std(1, ddof=1, keepdims=True)


def primal(X, Y, w, nu, C=1.0):
    """The objective of the weights alone: the best thresholds are order statistics."""
    k = nu * len(X) / 2
    f = int(k)

    def top(r):
        r = -np.sort(-r, axis=1)
        return r[:, :f].sum(axis=1) + (k - f) * r[:, min(f, len(X) - 1)]

    r = Y - w @ X.T
    return 0.5 * (w**2).sum(axis=1) + C * (top(r) + top(-r))


def oracle(X, y, nu, C, simplex, solver="clarabel"):
    """The same primal as a quadratic program over (w, u, v, hinges)."""
    G, K = X.shape
    n = K + 2 + 2 * G
    P = np.zeros((n, n))
    P[:K, :K] = np.eye(K)
    q = np.concatenate([np.zeros(K), [C * nu * G / 2, -C * nu * G / 2], np.full(2 * G, C)])
    one, eye, none = np.ones((G, 1)), np.eye(G), np.zeros((G, G))
    A = np.block([[-X, -one, 0 * one, -eye, none], [X, 0 * one, one, none, -eye]])
    lower = np.concatenate([np.full(K, 0.0 if simplex else -np.inf), [-np.inf] * 2, np.zeros(2 * G)])
    equal = (np.concatenate([np.ones(K), np.zeros(2 + 2 * G)])[None], np.ones(1)) if simplex else (None, None)
    x = qpsolvers.solve_qp(
        P, q, A, np.concatenate([-y, y]), *equal, lower, None, solver=solver, tol_gap_abs=1e-11, tol_gap_rel=1e-11
    )
    return x[:K]


@pytest.fixture(autouse=True)
def _sparse_matrices(monkeypatch):
    """Hand the interior-point oracle the sparse matrices it asks for."""
    from scipy import sparse

    solve = qpsolvers.solve_qp

    def wrapped(P, q, G, h, A=None, b=None, *args, **kwargs):
        P, G, A = (None if matrix is None else sparse.csc_matrix(matrix) for matrix in (P, G, A))
        return solve(P, q, G, h, A, b, *args, **kwargs)

    monkeypatch.setattr(qpsolvers, "solve_qp", wrapped)


@pytest.mark.parametrize("zeros", [0.0, 0.5, 0.8, 0.95])
@pytest.mark.parametrize("solve", [solve_nusvr, solve_nusvr_simplex])
def test_every_fit_carries_its_certificate(solve, zeros):
    X, Y = problem(zeros=zeros)
    for nu in NUS:
        fit = solve(X, Y, nu)
        assert fit.gap.max() <= 1e-8
        np.testing.assert_allclose(fit.objective, primal(X, Y, fit.w, nu), rtol=1e-9)
        assert (fit.epsilon >= -1e-12).all()


@pytest.mark.parametrize("zeros", [0.0, 0.6])
def test_never_above_libsvm(zeros):
    X, Y = problem(N=5, zeros=zeros)
    for nu in NUS:
        fit = solve_nusvr(X, Y, nu)
        w = [NuSVR(kernel="linear", nu=nu, C=1.0, tol=1e-8).fit(X, y).coef_[0] for y in Y]
        libsvm = primal(X, Y, np.array(w), nu)
        assert (fit.objective <= libsvm * (1 + 1e-12)).all()
        np.testing.assert_allclose(fit.objective, libsvm, rtol=1e-5)


@pytest.mark.parametrize("C", [0.01, 1.0, 50.0])
@pytest.mark.parametrize("simplex", [False, True])
def test_agrees_with_a_quadratic_program(simplex, C):
    X, Y = problem(G=40, K=4, N=4)
    for nu in (0.2, 0.5, 1.0):
        fit = (solve_nusvr_simplex if simplex else solve_nusvr)(X, Y, nu, C=C)
        expected = np.array([oracle(X, y, nu, C, simplex) for y in Y])
        np.testing.assert_allclose(fit.w, expected, atol=2e-5)
        assert (fit.objective <= primal(X, Y, expected, nu, C) * (1 + 1e-8) + 1e-9).all()


@pytest.mark.parametrize("solve", [solve_nusvr, solve_nusvr_simplex])
def test_ties_of_genes_without_counts_anywhere(solve):
    """Genes that are 0 in most signatures and spots are exact ties, so that the dual is far from unique."""
    random = np.random.default_rng(3)
    S = random.poisson(random.lognormal(-1, 2, (300, 8)) * (random.random((300, 8)) < 0.3)).astype(float)
    Y = random.poisson(random.dirichlet(np.full(8, 0.3), 60) @ S.T).astype(float)
    Y = Y[Y.std(axis=1) > 0]
    X, Y = zscore(S.ravel()).reshape(S.shape), zscore(Y)
    for nu in NUS:
        fit = solve(X, Y, nu)
        assert fit.gap.max() <= 1e-8
        np.testing.assert_allclose(solve(X, Y[7:20], nu).w, fit.w[7:20], atol=1e-6)


def test_simplex_weights_are_on_the_simplex():
    X, Y = problem(zeros=0.3)
    w = solve_nusvr_simplex(X, Y, 0.5).w
    assert (w >= 0).all()
    np.testing.assert_allclose(w.sum(axis=1), 1, atol=1e-12)


def test_simplex_equals_the_free_fit_where_the_constraint_costs_nothing():
    X, _ = problem()
    p = np.random.default_rng(1).dirichlet(np.full(X.shape[1], 5.0), 8)
    for solve in (solve_nusvr, solve_nusvr_simplex):
        np.testing.assert_allclose(solve(X, p @ X.T, 0.5, C=1e6).w, p, atol=1e-5)


@pytest.mark.parametrize("solve", [solve_nusvr, solve_nusvr_simplex])
def test_a_row_does_not_depend_on_its_block(solve):
    X, Y = problem(N=70)
    whole = solve(X, Y, 0.5)
    for rows in (slice(0, 1), slice(13, 50), slice(69, 70)):
        part = solve(X, Y[rows], 0.5)
        np.testing.assert_allclose(part.w, whole.w[rows], atol=1e-10)
        np.testing.assert_array_equal(solve(X, Y[rows], 0.5).w, part.w)
    twice = solve(X, np.repeat(Y[:5], 2, axis=0), 0.5).w
    np.testing.assert_array_equal(twice[::2], twice[1::2])


def test_order_of_genes_does_not_matter():
    X, Y = problem(zeros=0.3)
    order = np.random.default_rng(0).permutation(len(X))
    np.testing.assert_allclose(solve_nusvr(X[order], Y[:, order], 0.5).w, solve_nusvr(X, Y, 0.5).w, atol=1e-9)


@pytest.mark.parametrize("factor", [1e-6, 1e6])
def test_units_of_y_and_of_x(factor):
    X, Y = problem(N=10)
    w = solve_nusvr(X, Y, 0.5, C=2.0).w
    np.testing.assert_allclose(solve_nusvr(X, Y * factor, 0.5, C=2.0 * factor).w, w * factor, rtol=1e-7)
    np.testing.assert_allclose(solve_nusvr(X * factor, Y, 0.5, C=2.0 / factor**2).w, w / factor, rtol=1e-7)
    np.testing.assert_allclose(solve_nusvr(X, Y + 7.0, 0.5, C=2.0).w, w, rtol=1e-7)


def test_intercept_and_tube_split_the_residuals():
    X, Y = problem()
    for nu in NUS:
        fit = solve_nusvr(X, Y, nu)
        outside = np.abs(Y - fit.w @ X.T - fit.b[:, None]) - fit.epsilon[:, None]
        share = (outside > 1e-9).mean(axis=1)
        assert (share <= nu).all()
        assert ((outside > -1e-9).mean(axis=1) >= nu).all()


def test_identical_types_share_their_weight():
    X, Y = problem(N=6)
    single = solve_nusvr(X, Y, 0.5)
    double = solve_nusvr(np.c_[X[:, :1], X] / np.sqrt([2, 2] + [1] * (X.shape[1] - 1)), Y, 0.5)
    np.testing.assert_allclose(double.w[:, 0], double.w[:, 1], atol=1e-12)
    np.testing.assert_allclose(double.w[:, 0] * np.sqrt(2), single.w[:, 0], atol=1e-8)


def test_duplicated_genes_are_exact_ties():
    X, Y = problem(N=10)
    twice = solve_nusvr(np.repeat(X, 2, axis=0), np.repeat(Y, 2, axis=1), 0.5, C=0.5)
    np.testing.assert_allclose(twice.w, solve_nusvr(X, Y, 0.5).w, atol=1e-6)
    assert twice.gap.max() <= 1e-8


def test_mostly_zero_responses_decide_nothing():
    """With all but a few genes tied at 0, both quantiles sit on the tie and w = 0 is optimal."""
    X, _ = problem()
    Y = np.zeros((3, len(X)))
    Y[0, 5] = Y[1, [5, 77]] = 1.0
    fit = solve_nusvr(X, Y, 0.75)
    assert fit.degenerate.all()
    assert (fit.w == 0).all()
    assert fit.gap.max() <= 1e-8
    assert not solve_nusvr(*problem(), 0.5).degenerate.any()


@pytest.mark.parametrize("solve", [solve_nusvr, solve_nusvr_simplex])
@pytest.mark.parametrize("shape", [(5, 1), (5, 8), (1, 1), (2, 3)])
def test_few_genes_and_many_types(solve, shape):
    random = np.random.default_rng(0)
    X, Y = random.normal(size=shape), random.normal(size=(7, shape[0]))
    Y[0] = 3.0
    for nu in (0.05, 0.5, 1.0):
        fit = solve(X, Y, nu)
        assert np.isfinite(fit.w).all()
        assert fit.gap.max() <= 1e-8
    assert solve(X, Y[:0], 0.5).w.shape == (0, shape[1])
    assert np.isfinite(solve(np.zeros(shape), Y, 0.5).w).all()


@pytest.mark.parametrize(
    "X, Y, nu, C, match",
    [
        (np.ones((3, 2)), np.ones((1, 4)), 0.5, 1, "same genes"),
        (np.ones((3, 2)), np.full((1, 3), np.nan), 0.5, 1, "finite"),
        (np.ones((3, 2)), np.ones((1, 3)), 0.0, 1, "nu"),
        (np.ones((3, 2)), np.ones((1, 3)), 0.5, 0, "C"),
    ],
)
def test_errors_say_what_was_given(X, Y, nu, C, match):
    with pytest.raises(ValueError, match=match):
        solve_nusvr(X, Y, nu, C=C)
