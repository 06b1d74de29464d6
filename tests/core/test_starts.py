"""Starts and momentum: no run may end where a plain step still descends, and every start leads to a low loss."""

import numpy as np
import pytest
from scipy import sparse

from unmix.core._hals_kernels import ahead, hals, improved_rows
from unmix.core._nmf_kernels import aligned, padded
from unmix.core.factorization import Walk, nmf
from unmix.core.kl import nmf_kl
from unmix.core.simplex import nnls, nnls_kkt
from unmix.core.starts import STARTS, Start


@pytest.fixture(scope="module")
def counts():
    r = np.random.default_rng(0)
    return r.poisson(r.gamma(0.2, 1, (400, 8)) @ r.gamma(0.2, 1, (8, 120))).astype(float)


@pytest.mark.parametrize("seed", range(6))
def test_momentum_does_not_end_where_a_plain_step_still_descends(counts, seed):
    fit = nmf(counts, 8, start="random", rng=seed, walk=Walk(tol=1e-6, max_iter=2000))
    assert fit.converged
    plain = nmf(counts, 8, start=Start(fit.W, fit.H), walk=Walk(tol=0, max_iter=30, extrapolate=False))
    assert plain.loss[-1] > fit.loss[-1] * (1 - 1e-4)


@pytest.mark.parametrize("solve", [nmf, nmf_kl])
def test_every_start_reaches_about_the_same_loss(counts, solve):
    X = sparse.csr_array(np.tile(counts, (3, 1)))
    found = {start: solve(X, 8, start=start, walk=Walk(max_iter=1000)).loss[-1] for start in STARTS}
    assert max(found.values()) < 1.1 * min(found.values()), found
    with pytest.raises(ValueError, match="`start` must be one of"):
        solve(X, 8, start="nope")


def test_many_rows_begin_with_the_loadings_of_a_sample():
    r = np.random.default_rng(0)
    X = sparse.csr_array(r.poisson(r.gamma(0.3, 1, (9000, 3)) @ r.gamma(0.3, 1, (3, 30))).astype(np.float32))
    first = {start: nmf(X, 3, start=start, walk=Walk(max_iter=1)).loss[0] for start in ("auto", "sample", "random")}
    assert first["auto"] == first["sample"] < 0.9 * first["random"]
    assert nmf(X, 3, walk=Walk(max_iter=3)).W.tobytes() == nmf(X, 3, walk=Walk(2, max_iter=3)).W.tobytes()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_sweeps_converge_to_the_exact_solution_row_by_row(dtype):
    r = np.random.default_rng(0)
    H, B = r.random((7, 20)), aligned((150, 8), dtype)
    G = H @ H.T
    B[:, :7] = r.standard_normal((150, 7))
    own, scale = r.random(150), np.where(np.arange(7) < 4, r.random(7), 0)
    W = hals(B, np.ones_like(B), G, 3000)[:, :7]
    assert nnls_kkt(G, B[:, :7], W).max() < (1e-3 if dtype == np.float32 else 1e-9)
    ridged = hals(B, np.ones_like(B), G, 3000, own=own, scale=scale)[:, :7]
    exact = [nnls(G + np.diag(o * scale), b[None, :7])[0] for o, b in zip(own, B.astype(float), strict=True)]
    np.testing.assert_allclose(ridged, exact, atol=1e-3 if dtype == np.float32 else 1e-8)
    alone = hals(B[5:6], np.ones_like(B[5:6]), G, 7)
    assert alone.tobytes() == hals(B, np.ones_like(B), G, 7)[5:6].tobytes()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("k", [5, 16, 21])
@pytest.mark.parametrize("l1, beta", [(0.0, 0.0), (0.3, 0.5)])
def test_one_reading_of_rows_does_what_its_parts_do(counts, dtype, k, l1, beta):
    r = np.random.default_rng(1)
    W, last, H = (padded(r.random((n, k)), dtype) for n in (400, 400, 120))
    G = (H.T @ H)[:k, :k]
    new, Y, XtY, square = improved_rows(sparse.csr_array(counts), W, last, H, G, l1, beta, 3)
    B = (counts @ H).astype(dtype)
    exact = hals(B - dtype(l1), W, G, 3)
    close = {"rtol": 1e-4, "atol": 1e-4} if dtype == np.float32 else {"rtol": 1e-10, "atol": 1e-10}
    np.testing.assert_allclose(new, exact, **close)
    np.testing.assert_allclose(Y, ahead(exact, last, beta), **close)
    np.testing.assert_allclose(XtY, counts.T @ Y, **close)
    np.testing.assert_allclose(square, ((new[:, :k] @ G - 2 * B[:, :k]) * new[:, :k]).sum(), rtol=1e-4)
    assert new[:, k:].max(initial=0.0) == 0


@pytest.mark.parametrize(("k", "spread"), [(6, 2.0), (6, 3.0), (8, 2.0)])
def test_many_rows_end_as_low_as_few_where_some_genes_have_most_counts(k, spread):
    r = np.random.default_rng(k)
    H = np.exp(spread * r.standard_normal((k, 60)))
    X = sparse.csr_array(r.poisson(r.gamma(0.3, 1, (9000, k)) @ H / 10).astype(float))
    low = nmf(X, k, start="nndsvd").loss[-1]
    assert max(nmf(X, k, rng=seed).loss[-1] for seed in range(6)) < 1.001 * low


@pytest.mark.parametrize("solve", [nmf, nmf_kl])
def test_what_a_sample_lacks_is_found_in_all_rows(solve):
    X = np.zeros((9000, 8))
    X[::50, :4], X[7::1500, 4:] = 1.0, 3.0
    for seed in range(4):
        fit = solve(sparse.csr_array(X), 3, rng=seed)
        assert fit.loss[-1] < 1e-2 * X.sum()
