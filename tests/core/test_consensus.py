"""Consensus: agreement with scikit-learn and dense formulas, planted programs, stability of the right rank."""

import numpy as np
import pytest
from scipy import sparse
from sklearn.metrics import silhouette_score

from unmix.core.brunet import brunet
from unmix.core.consensus import combine, fano_genes, gene_moments, refit_spectra, silhouette
from unmix.core.factorization import Walk
from unmix.core.replicates import replicate


@pytest.fixture(scope="module")
def planted():
    r = np.random.default_rng(0)
    H = r.gamma(0.3, 1, (3, 60))
    W = r.dirichlet([0.3] * 3, 200)
    return r.poisson(20 * W @ H).astype(float), W, H


def test_planted_programs_are_found_and_the_rank_is_the_stable_one(planted):
    X, _, H = planted
    stable = {}
    for k in (2, 3, 4, 5):
        runs = replicate(sparse.csr_array(X), k, n_runs=20)
        stable[k] = (
            combine(runs, k, max_distance=2.0).silhouette,
            brunet(runs.labels).cophenetic,
            brunet(runs.labels).dispersion,
        )
        if k == 3:
            found = combine(runs, 3).spectra
    cosine = (H / np.linalg.norm(H, axis=1)[:, None]) @ (found / np.linalg.norm(found, axis=1)[:, None]).T
    assert cosine.max(axis=1).min() > 0.99
    assert stable[3][0] > 0.95 > stable[5][0]
    assert stable[3][1] > stable[5][1]
    assert stable[3][2] > stable[5][2]


def test_threads_change_nothing(planted):
    runs = [replicate(planted[0], 3, n_runs=4, walk=Walk(n_jobs=n)) for n in (1, 2)]
    assert np.array_equal(runs[0].spectra, runs[1].spectra)
    assert np.array_equal(runs[0].labels, runs[1].labels)


def test_isolated_spectra_are_left_out(planted):
    runs = replicate(planted[0], 3, n_runs=10)
    runs.spectra[4] = np.eye(60)[7]
    found = combine(runs, 3)
    assert not found.kept[4]
    assert found.kept.sum() == 29
    with pytest.raises(ValueError, match="no program recurs"):
        combine(runs, 3, max_distance=1e-9)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, bool])
@pytest.mark.parametrize("make", [np.asarray, sparse.csr_array])
def test_small_integers_do_not_overflow(dtype, make):
    r = np.random.default_rng(0)
    X = r.poisson(60, (30, 8)).clip(max=255).astype(dtype)
    U, scale = r.random((30, 2)), r.random(30)
    found, exact = refit_spectra(make(X), U, scale), refit_spectra(X.astype(float), U, scale)
    for a, b in zip(found, exact, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9)


def test_silhouette_is_that_of_scikit_learn():
    r = np.random.default_rng(0)
    points, labels = r.random((30, 4)), np.append(r.integers(0, 3, 29), 3)
    distances = np.linalg.norm(points[:, None] - points, axis=2)
    np.testing.assert_allclose(silhouette(distances, labels), silhouette_score(points, labels), rtol=1e-10)


def test_spectra_and_scores_are_those_of_dense_least_squares(planted):
    X, W, _ = planted
    scale = np.random.default_rng(1).random(200) + 0.5
    T = X * scale[:, None]
    spectra, scores = refit_spectra(sparse.csr_array(X), 7 * W, scale)
    expected = np.maximum(np.linalg.lstsq(W, T, rcond=None)[0], 0)
    agree = (np.linalg.lstsq(W, T, rcond=None)[0] >= 0).all(axis=0)
    np.testing.assert_allclose(spectra[:, agree], expected[:, agree], atol=1e-8)
    filled = T.std(axis=0) > 0
    z = (T - T.mean(axis=0))[:, filled] / T.std(axis=0)[filled]
    np.testing.assert_allclose(scores[:, filled], np.linalg.lstsq(7 * W, z, rcond=None)[0], atol=1e-8)
    mean, variance = gene_moments(sparse.csr_array(X), scale)
    np.testing.assert_allclose(mean, T.mean(axis=0))
    np.testing.assert_allclose(variance, T.var(axis=0), atol=1e-10)


def test_overdispersed_genes_are_chosen():
    r = np.random.default_rng(0)
    X = r.poisson(5.0, (2000, 100)).astype(float)
    X[:1000, [3, 50]] *= 6
    assert fano_genes(X.mean(axis=0), X.var(axis=0), 2).tolist() == [3, 50]
