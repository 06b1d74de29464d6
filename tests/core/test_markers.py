"""Markers: scanpy's numbers where definitions coincide, scipy's test with ties, limits."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
from scipy import sparse
from scipy.stats import mannwhitneyu

from unmix.core.markers import rank_markers


@pytest.fixture(scope="module")
def expression():
    rng = np.random.default_rng(0)
    counts = rng.poisson(0.2 + rng.gamma(0.6, 1.5, 60), (150, 60)).astype(np.float32)
    counts[:50, :5] += rng.poisson(3, (50, 5))
    return sparse.csr_matrix(np.log1p(counts)), np.repeat(["a", "b", "c"], 50)


@pytest.mark.parametrize("tie_correct", [False, True])
def test_numbers_are_scanpys(expression, tie_correct):
    X, labels = expression
    adata = ad.AnnData(X, obs=pd.DataFrame({"g": pd.Categorical(labels)}, index=[str(i) for i in range(150)]))
    adata.uns["log1p"] = {"base": None}
    sc.tl.rank_genes_groups(adata, "g", method="wilcoxon", tie_correct=tie_correct, pts=True)
    ours = rank_markers(sparse.csc_array(X), labels[:, None] == np.array(["a", "b", "c"]), tie_correct=tie_correct)
    for k, group in enumerate("abc"):
        theirs = sc.get.rank_genes_groups_df(adata, group).set_index("names").loc[adata.var_names]
        np.testing.assert_allclose(ours.score[:, k], theirs["scores"], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(ours.pval[:, k], theirs["pvals"], rtol=1e-5)
        np.testing.assert_allclose(ours.qval[:, k], theirs["pvals_adj"], rtol=1e-5)
        np.testing.assert_allclose(ours.log_fold_change[:, k], theirs["logfoldchanges"], rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(ours.share[:, k], theirs["pct_nz_group"], rtol=1e-6)
        np.testing.assert_allclose(ours.share_rest[:, k], theirs["pct_nz_reference"], rtol=1e-6)


def test_ties_as_in_scipy_and_overlapping_groups(expression):
    X, _ = expression
    member = np.zeros((150, 2), dtype=bool)
    member[:60, 0] = True
    member[40:90, 1] = True
    ours = rank_markers(sparse.csc_array(X), member)
    dense = X.toarray().astype(float)
    for k in range(2):
        for g in range(0, 60, 7):
            test = mannwhitneyu(
                dense[member[:, k], g], dense[~member[:, k], g], use_continuity=False, method="asymptotic"
            )
            assert ours.pval[g, k] == pytest.approx(test.pvalue, rel=1e-8)


def test_specificity_compares_with_the_best_other_group(expression):
    X, labels = expression
    ours = rank_markers(sparse.csc_array(X), labels[:, None] == np.array(["a", "b", "c"]))
    assert (ours.specificity[:5, 0] > 1).all()
    assert (ours.specificity > 0).sum(axis=1).max() <= 1


def test_empty_groups_full_groups_and_silent_genes():
    X = sparse.csc_array(np.array([[0.0, 1.0], [0.0, 2.0]]))
    ours = rank_markers(X, np.array([[True, False], [True, False]]))
    assert (ours.score == 0).all()
    assert (ours.pval == 1).all()
    assert np.isfinite(ours.log_fold_change).all()
