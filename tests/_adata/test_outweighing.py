"""The warning of a handful of rows that outweighs all others: when it comes, and when it does not."""

import warnings

import numpy as np
import pytest
from anndata import AnnData
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

import unmix as um
from unmix._adata.outweighing import OutweighedWarning, row_squares, warn_outweighed


def cells(n=400, giants=0, seed=0):
    """Counts of three programs at log-normal depths, some cells at 100 times the depth."""
    r = np.random.default_rng(seed)
    depth = r.lognormal(0, 0.6, n)
    depth[:giants] *= 100
    X = r.poisson(depth[:, None] * (r.dirichlet([0.2] * 3, n) @ r.gamma(0.3, 3, (3, 80))))
    adata = AnnData(sparse.csr_matrix(X.astype(np.float32)))
    adata.obs["batch"] = ["a", "a", "b", "b"] * (n // 4)
    return adata


CALLS = {
    "nmf": lambda a: um.tl.factorize(a, 3, tol=1e-3),
    "svd": lambda a: um.tl.factorize(a, 3, method="svd"),
    "zeros are missing": lambda a: um.tl.factorize(a, 3, method="als", mask="zeros", tol=1e-2),
    "metagenes": lambda a: um.tl.metagenes(a, 3, n_runs=3, max_distance=2.0, tol=1e-3),
    "modalities": lambda a: um.tl.joint_nmf({"a": a, "b": cells()}, 3, tol=1e-3),
    "batches": lambda a: um.tl.joint_nmf(a, 3, batch_key="batch", tol=1e-3),
}
LIKELIHOOD = {
    "nmf": lambda a: um.tl.factorize(a, 3, loss="kl", tol=1e-3),
    "metagenes": lambda a: um.tl.metagenes(a, 3, n_runs=3, loss="kl", max_distance=2.0, tol=1e-3),
}


@pytest.mark.parametrize("call", CALLS)
def test_giants_are_warned_of_and_log_normal_depth_is_not(call):
    with pytest.warns(OutweighedWarning, match=r"\d of 400 rows \('\d', .* of the sum of squares"):
        CALLS[call](cells(giants=4))
    CALLS[call](cells())


@pytest.mark.parametrize("call", LIKELIHOOD)
def test_a_likelihood_is_not_warned_of(call):
    LIKELIHOOD[call](cells(giants=4))


@given(st.integers(1, 1000), st.floats(1e-3, 1e3), st.floats(0, 1.0))
def test_a_warning_means_most_of_the_squares_in_a_handful(n, unit, sigma):
    squares = unit * np.random.default_rng(n).lognormal(0, 2 * sigma, n)
    few = np.sort(squares)[::-1][: n // 100].sum() > 0.5 * squares.sum()
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        warn_outweighed(squares, np.arange(n), "wait")
    assert len(said) == few


def test_no_row_outweighs_others_where_there_are_few_or_none_has_anything():
    warn_outweighed(np.r_[1e9, np.ones(98)], np.arange(99), "wait")
    warn_outweighed(np.zeros(200), np.arange(200), "wait")


def test_row_squares_do_not_depend_on_how_a_matrix_is_kept():
    X = cells(60).X
    expected = (X.toarray().astype(float) ** 2).sum(axis=1)
    codes, scales = np.arange(60) % 2, np.random.default_rng(0).random((2, 80))
    weighted = ((X.toarray().astype(float) * scales[codes]) ** 2).sum(axis=1)
    for kept in (X, X.toarray(), X.astype(np.uint8), X.tocsc()):
        np.testing.assert_allclose(row_squares(kept), expected)
        np.testing.assert_allclose(row_squares(kept, scales, codes), weighted)
