"""Rows that are scaled when read equal those scaled at once, however they are stored and taken."""

import h5py
import numpy as np
import pytest
from scipy import sparse

from unmix.core import markers, scaled
from unmix.core.blocks import iter_blocks
from unmix.core.markers import rank_markers, rank_streamed
from unmix.core.pca import component_scores, principal_components
from unmix.core.scaled import cross_product, gene_moments, scale_rows


@pytest.fixture(scope="module")
def counts() -> np.ndarray:
    rng = np.random.default_rng(0)
    X = rng.poisson(rng.gamma(0.3, 1, (300, 4)) @ rng.gamma(0.3, 1, (4, 50))).astype(np.float32)
    X[[5, 17]] = 0
    return X


def by_hand(X: np.ndarray) -> np.ndarray:
    X = X[X.sum(axis=1) > 0].astype(float)
    totals = X.sum(axis=1, keepdims=True)
    return X * np.median(totals) / totals


@pytest.mark.parametrize("kind", ["csr", "csc", "dense", "int", "hdf5", "zeros"])
def test_blocks_rows_and_genes(counts, kind, tmp_path):
    X = {"csr": sparse.csr_array, "csc": sparse.csc_array, "int": lambda x: sparse.csr_array(x.astype(int))}.get(
        kind, np.asarray
    )(counts)
    if kind == "hdf5":
        X = h5py.File(tmp_path / "x.h5", "w").create_dataset("x", data=counts)
    if kind == "zeros":
        X = sparse.csr_array(counts)
        X.data[::7] = 0
        counts = X.toarray()
    totals = np.asarray(counts.sum(axis=1, dtype=float))
    Y, target = scale_rows(X, totals, totals > 0)
    expected = by_hand(counts)
    assert target == np.median(totals[totals > 0])
    whole = np.vstack([block.toarray() for _, block in iter_blocks(Y, 64)])
    np.testing.assert_allclose(whole, expected, rtol=1e-12)
    assert Y.gathered().nnz == (expected > 0).sum()
    rows, genes = np.array([200, 3, 9, 150]), np.array([4, 2, 30])
    np.testing.assert_allclose(Y[rows].toarray(), expected[rows], rtol=1e-12)
    some = Y.take(np.sort(rows)).of(genes).logged()
    np.testing.assert_allclose(some.gathered().toarray(), np.log1p(expected[np.sort(rows)][:, genes]), rtol=1e-12)


def test_moments_products_and_markers(counts, monkeypatch):
    X = sparse.csr_array(counts)
    totals = counts.sum(axis=1)
    Y = scale_rows(X, totals, totals > 0)[0].logged()
    dense = np.log1p(by_hand(counts))
    found = gene_moments(Y)
    np.testing.assert_allclose(found.mean, dense.mean(axis=0))
    np.testing.assert_allclose(found.deviation, dense.std(axis=0))
    np.testing.assert_array_equal(found.expressed, (dense > 0).sum(axis=0))
    W = np.random.default_rng(1).random((len(dense), 3))
    np.testing.assert_allclose(cross_product(Y, W), dense.T @ W)
    monkeypatch.setattr(markers, "GATHER_ENTRIES", 300)
    monkeypatch.setattr(scaled, "GATHER_ENTRIES", 300)
    streamed = rank_streamed(Y, W > 0.7, found.expressed)
    at_once = rank_markers(sparse.csc_array(Y.gathered()), W > 0.7)
    for name in vars(at_once):
        np.testing.assert_allclose(getattr(streamed, name), getattr(at_once, name), rtol=1e-9, atol=1e-12)
    assert Y.gathered_if(found.expressed.sum()) is Y


def test_components_of_rows_that_are_read_again_and_again(counts):
    totals = counts.sum(axis=1)
    Y = scale_rows(sparse.csr_array(counts), totals, totals > 0)[0].logged()
    streamed = principal_components(Y, 3, np.random.default_rng(0))
    gathered = principal_components(Y.gathered(), 3, np.random.default_rng(0))
    np.testing.assert_allclose(streamed.values, gathered.values, rtol=1e-9)
    np.testing.assert_allclose(streamed.loadings, gathered.loadings, atol=1e-7)
    np.testing.assert_allclose(component_scores(Y, gathered), gathered.scores, atol=1e-9)
