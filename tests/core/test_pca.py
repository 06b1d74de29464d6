"""Implicitly centred components equal dense ones; permuted data has none above the threshold."""

import numpy as np
import pytest
from scipy import sparse

from unmix.core.pca import parallel_analysis, permute_columns, principal_components


@pytest.fixture(scope="module")
def low_rank():
    rng = np.random.default_rng(0)
    return sparse.csr_array(rng.poisson(rng.gamma(2, 1, (120, 3)) @ rng.gamma(1, 1, (3, 80))).astype(float))


@pytest.mark.parametrize("k", [3, 79])
def test_components_are_those_of_the_dense_matrix(low_rank, k):
    found = principal_components(low_rank, k, np.random.default_rng(0))
    dense = low_rank.toarray() - low_rank.toarray().mean(axis=0)
    np.testing.assert_allclose(found.values, np.linalg.svd(dense, compute_uv=False)[:k], rtol=1e-8)
    np.testing.assert_allclose(found.loadings.T @ found.loadings, np.eye(k), atol=1e-9)
    np.testing.assert_allclose(dense @ found.loadings, found.scores, atol=1e-8)


def test_parallel_analysis_finds_the_rank(low_rank):
    rng = np.random.default_rng(0)
    scale = 1 / np.sqrt(np.asarray(low_rank.mean(axis=0)))
    scaled = sparse.csr_array(low_rank.multiply(scale[None]))
    values = principal_components(scaled, 10, rng).values
    assert parallel_analysis(scaled, values, rng)[0] == 3


def test_permutation_keeps_every_column_and_breaks_their_ties(low_rank):
    permuted = permute_columns(low_rank, np.random.default_rng(1))
    np.testing.assert_array_equal(np.sort(permuted.toarray(), axis=0), np.sort(low_rank.toarray(), axis=0))
    assert abs(permuted - low_rank).sum() > 0
