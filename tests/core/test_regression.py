import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from scipy.optimize import minimize
from scipy.optimize import nnls as scipy_nnls

from unmix.core import regression
from unmix.core.regression import EMPTY, INVALID, NOT_CONVERGED, OK, fit_least_squares, fit_poisson

FITS = {
    "nonneg": fit_least_squares,
    "simplex": lambda X, S, **kw: fit_least_squares(X, S, constraint="simplex", **kw),
    "weighted": lambda X, S, **kw: fit_least_squares(X, S, gene_weights=1 / S.mean(axis=1), **kw),
    "poisson": fit_poisson,
}
every_fit = pytest.mark.parametrize("fit", FITS.values(), ids=FITS)


def problem(seed, G=80, K=6, N=12, depth=400):
    """Return signatures (G, K) and counts (N, G) of sparse mixtures of them."""
    rng = np.random.default_rng(seed)
    S = rng.lognormal(0, 1.5, (G, K)) * (rng.random((G, K)) < 0.7) + 1e-3
    W = rng.dirichlet(np.full(K, 0.3), N) * depth
    return S, rng.poisson(W @ (S / S.sum(axis=0)).T).astype(float)


def log_likelihood(Y, S, W):
    mu = W @ S.T
    return (np.where(Y > 0, Y * np.log(np.where(Y > 0, mu, 1.0)), 0.0) - mu).sum(axis=1)


def poisson_kkt(Y, S, W):
    """Largest violation of the conditions of optimality, from their definition."""
    relative = 1 - (np.divide(Y, W @ S.T, out=0 * Y, where=Y > 0) @ S) / S.sum(axis=0)
    return np.where(W > 0, np.abs(relative), np.maximum(-relative, 0)).max(axis=1)


def expectation_maximisation(Y, S, steps):
    W = np.ones((len(Y), S.shape[1]))
    for _ in range(steps):
        W *= (Y / (W @ S.T)) @ S / S.sum(axis=0)
    return W


def test_least_squares_is_the_optimum_of_scipy():
    S, Y = problem(0)
    fit = fit_least_squares(sparse.csr_array(Y), S)
    expected = np.array([scipy_nnls(S, y)[0] for y in Y])
    np.testing.assert_allclose(fit.weights, expected, rtol=0, atol=1e-10 * expected.max())
    omega = np.random.default_rng(0).random(len(S))
    fit = fit_least_squares(Y, S, gene_weights=omega)
    expected = np.array([scipy_nnls(S * np.sqrt(omega)[:, None], y * np.sqrt(omega))[0] for y in Y])
    np.testing.assert_allclose(fit.weights, expected, rtol=0, atol=1e-10 * expected.max())


@every_fit
def test_correlation_and_rmse_are_those_of_the_fitted_genes(fit):
    S, Y = problem(1)
    result = fit(sparse.csr_array(Y), S)
    fitted = result.weights @ S.T
    np.testing.assert_allclose(result.rmse, np.sqrt(((fitted - Y) ** 2).mean(axis=1)), rtol=1e-10)
    np.testing.assert_allclose(
        result.correlation, [np.corrcoef(f, y)[0, 1] for f, y in zip(fitted, Y, strict=True)], rtol=1e-10
    )


@settings(max_examples=60, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**32), G=st.integers(1, 30), K=st.integers(1, 12), depth=st.integers(1, 300))
def test_poisson_always_ends_with_a_certificate(seed, G, K, depth):
    S, Y = problem(seed, G=G, K=K, N=5, depth=depth)
    if seed % 3 == 0:
        S[:, K // 2 :] = S[:, : K - K // 2]  # equal columns
    fit = fit_poisson(Y, S)
    seen = Y.sum(axis=1) > 0
    assert (fit.status == np.where(seen, OK, EMPTY)).all()
    assert (fit.weights[seen] >= 0).all()
    assert np.isnan(fit.weights[~seen]).all()
    assert (poisson_kkt(Y, S, fit.weights)[seen] < 2e-10).all()
    np.testing.assert_allclose((fit.weights @ S.sum(axis=0))[seen], Y.sum(axis=1)[seen], rtol=1e-9)


def test_poisson_is_the_limit_of_expectation_maximisation():
    S, Y = problem(2)
    fit = fit_poisson(sparse.csr_array(Y), S)
    em = expectation_maximisation(Y, S, 20_000)
    assert (log_likelihood(Y, S, fit.weights) >= log_likelihood(Y, S, em) - 1e-9).all()
    np.testing.assert_allclose(fit.weights, em, rtol=0, atol=1e-5 * em.max())
    assert (fit.weights == 0).any()


def test_poisson_is_the_optimum_of_a_general_minimiser():
    S, Y = problem(3, G=40, K=4, N=6)
    fit = fit_poisson(Y, S)
    for y, w in zip(Y, fit.weights, strict=True):

        def loss(v, y=y):
            return -log_likelihood(y[None], S, v[None])[0], S.sum(axis=0) - (y / (S @ v)) @ S

        found = minimize(loss, np.full(4, w.mean()), jac=True, bounds=[(1e-12, None)] * 4, method="L-BFGS-B", tol=1e-14)
        assert loss(w)[0] <= found.fun + 1e-8
        np.testing.assert_allclose(w, found.x, rtol=0, atol=1e-3 * w.max())


def test_every_newton_step_raises_the_likelihood():
    S, Y = problem(4, K=10, depth=3000)
    S[S < 0.5] = 0.0
    S[0] += 1.0
    Y[:, S.sum(axis=1) == 0] = 0
    Y = np.vstack([Y, Y[:, ::-1] * (S.sum(axis=1) > 0), 50 * Y])  # also rows that are no mixtures
    climb = np.array([log_likelihood(Y, S, fit_poisson(Y, S, max_iter=m).weights) for m in range(12)])
    assert (np.diff(climb, axis=0) >= -1e-12 * np.abs(climb[1:])).all()
    assert (fit_poisson(Y, S).status == OK).all()


@every_fit
def test_exact_mixtures_come_back(fit):
    rng = np.random.default_rng(5)
    S = rng.lognormal(size=(100, 8))
    W = rng.dirichlet(np.full(8, 0.3), 30) * (rng.random((30, 8)) < 0.5)
    W = W[W.sum(axis=1) > 0]
    W /= W.sum(axis=1, keepdims=True)
    result = fit(sparse.csr_array(W @ S.T), S)
    np.testing.assert_allclose(result.weights, W, rtol=0, atol=1e-9 if fit is fit_poisson else 1e-12)
    np.testing.assert_allclose(result.correlation, 1, rtol=1e-12)
    np.testing.assert_allclose(result.rmse, 0, atol=1e-6)


@pytest.mark.parametrize("name", ["nonneg", "weighted", "poisson"])
@pytest.mark.parametrize("unit", [1e-3, 1e4])
def test_the_scale_of_a_row_is_the_scale_of_its_weights(name, unit):
    S, Y = problem(6)
    once, scaled = FITS[name](Y, S), FITS[name](Y * unit, S)
    np.testing.assert_allclose(scaled.weights, once.weights * unit, rtol=0, atol=1e-9 * unit * once.weights.max())
    np.testing.assert_allclose(scaled.correlation, once.correlation, rtol=1e-9)


@every_fit
def test_the_order_of_the_genes_does_not_matter(fit):
    S, Y = problem(7)
    order = np.random.default_rng(0).permutation(len(S))
    np.testing.assert_allclose(
        fit(sparse.csr_array(Y[:, order]), S[order]).weights, fit(Y, S).weights, rtol=1e-9, atol=1e-9
    )


@every_fit
def test_input_kinds_blocks_and_threads_agree(fit):
    S, Y = problem(8, N=70)
    expected = fit(Y, S)
    X = sparse.csr_array(Y)
    for kind in (X.astype(np.uint16), X.astype(np.float32), X.tocsc(), Y.astype(np.int64), np.asfortranarray(Y)):
        for block_rows in (7, None):
            found = fit(kind, S, block_rows=block_rows)
            np.testing.assert_allclose(found.weights, expected.weights, rtol=1e-10, atol=1e-10)
            np.testing.assert_allclose(found.rmse, expected.rmse, rtol=1e-10)
    one, two = (fit(X, S, block_rows=7, n_jobs=n) for n in (1, 2))
    for field in ("weights", "correlation", "rmse", "kkt"):
        np.testing.assert_array_equal(getattr(one, field), getattr(two, field))


@every_fit
@pytest.mark.parametrize("make", [np.asarray, sparse.csr_array])
def test_columns_select_genes_without_the_others_being_seen(fit, make):
    S, Y = problem(9)
    rng = np.random.default_rng(0)
    columns = rng.permutation(200)[: len(S)]
    X = rng.poisson(5.0, (len(Y), 200)).astype(float)
    X[:, columns] = Y
    np.testing.assert_allclose(fit(make(X), S, columns=columns).weights, fit(Y, S).weights, rtol=1e-10, atol=1e-10)


@every_fit
def test_counts_that_would_overflow_their_type(fit):
    S, Y = problem(10)
    Y = np.minimum(Y * 1000, 60_000)
    expected = fit(Y, S)
    for kind in (Y.astype(np.uint16), sparse.csr_array(Y).astype(np.uint16)):
        np.testing.assert_allclose(fit(kind, S).weights, expected.weights, rtol=1e-9, atol=1e-6)


@every_fit
@pytest.mark.parametrize("make", [np.asarray, sparse.csr_array])
def test_rows_that_cannot_be_fitted_say_why_and_stay(fit, make):
    S, Y = problem(11)
    Y[2], Y[4, 3], Y[5, 3] = 0, np.nan, np.inf
    result = fit(make(Y), S)
    assert result.status[[2, 4, 5]].tolist() == [EMPTY, INVALID, INVALID]
    assert (np.delete(result.status, [2, 4, 5]) == OK).all()
    for field in (result.weights, result.correlation, result.rmse, result.kkt):
        assert np.isnan(field[[2, 4, 5]]).all()
    np.testing.assert_allclose(result.weights[6:], fit(Y[6:], S).weights, rtol=1e-9, atol=1e-9)


def test_a_negative_count_is_invalid_for_counts_alone():
    S, Y = problem(12)
    Y[0, 0] = -1
    assert fit_poisson(Y, S).status[0] == INVALID
    assert fit_least_squares(Y, S).status[0] == OK


def test_genes_in_no_profile_do_not_count():
    S, Y = problem(13)
    S[:5] = 0
    Y[0], Y[0, 2] = 0, 7
    fit = fit_poisson(Y, S)
    assert fit.status[0] == EMPTY
    np.testing.assert_allclose(fit.weights[1:], fit_poisson(Y[1:, 5:], S[5:]).weights, rtol=1e-9, atol=1e-9)


def test_a_type_without_genes_has_no_weight():
    S, Y = problem(14)
    S[:, 2] = 0
    for fit in FITS.values():
        if fit is not FITS["simplex"]:
            result = fit(Y, S)
            assert (result.weights[:, 2] == 0).all()
            assert (result.status == OK).all()


@every_fit
def test_one_gene_or_one_type(fit):
    one_gene = fit(np.array([[3.0], [0.0]]), np.array([[2.0]]))
    assert one_gene.status.tolist() == [OK, EMPTY]
    assert np.isnan(one_gene.correlation).all()
    S, Y = problem(15, K=1)
    assert (fit(Y, S).status == OK).all()


def test_one_type_is_a_ratio():
    S, Y = problem(16, K=1)
    np.testing.assert_allclose(fit_poisson(Y, S).weights[:, 0], Y.sum(axis=1) / S.sum(), rtol=1e-12)
    np.testing.assert_allclose(fit_least_squares(Y, S).weights, Y @ S / (S**2).sum(), rtol=1e-12)


def test_too_few_steps_are_reported():
    S, Y = problem(17)
    fit = fit_poisson(Y, S, max_iter=1)
    assert (fit.status == NOT_CONVERGED).any()
    assert not fit.converged.all()
    np.testing.assert_allclose(fit.kkt, poisson_kkt(Y, S, fit.weights), rtol=1e-6)


@every_fit
def test_no_rows(fit):
    S, Y = problem(18)
    assert fit(Y[:0], S).weights.shape == (0, 6)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"S": np.ones((3, 2))}, "S has 3 rows and X has 80 columns"),
        ({"S": np.full((80, 2), np.nan)}, "finite"),
        ({"S": np.ones((2, 2)), "columns": np.array([1, 1])}, "more than once"),
        ({"constraint": "sum"}, "'nonneg' or 'simplex'"),
        ({"gene_weights": -np.ones(80)}, "gene_weights"),
    ],
)
def test_what_cannot_be_meant_is_refused(change, message):
    S, Y = problem(19)
    with pytest.raises(ValueError, match=message):
        fit_least_squares(Y, **{"S": S, **change})


def test_negative_signatures_are_refused_for_counts():
    S, Y = problem(20)
    with pytest.raises(ValueError, match="negative entries"):
        fit_poisson(Y, -S)


def test_blocks_are_never_made_dense(monkeypatch):
    S, Y = problem(21)
    for method in ("toarray", "todense"):
        monkeypatch.setattr(sparse.csr_array, method, lambda *_: pytest.fail("a dense copy was made"))
    for fit in FITS.values():
        assert (fit(sparse.csr_array(Y), S, columns=np.arange(80)).status == regression.OK).all()
