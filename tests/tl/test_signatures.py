"""`pp.signatures`: what it says of markers agrees with the q-values that it stores."""

import anndata as ad
import numpy as np
import pytest
from anndata import AnnData
from scipy import sparse

import unmix as um

pytestmark = pytest.mark.filterwarnings("ignore::unmix._adata.signatures.SignatureWarning")


@pytest.fixture(scope="module")
def reference():
    return um.datasets.pbmc_spots()[1]


def markers_with_q_values(reference):
    names = list(reference.uns["signatures"]["names"])
    q_values = reference.varm["signatures_qvals"].set_axis(names, axis=1)
    changes = reference.varm["signatures_logfc"].set_axis(names, axis=1)
    marker = reference.var["signatures_marker"].dropna().astype(str)
    return names, q_values, changes, marker, np.array([q_values.at[gene, kind] for gene, kind in marker.items()])


def test_markers_that_do_not_pass_are_counted(reference):
    um.pp.signatures(reference, "cell_type")
    names, q_values, changes, marker, own = markers_with_q_values(reference)
    filled = dict(zip(names, reference.uns["signatures"]["n_filled"], strict=True))
    assert filled == {name: int((own[marker == name] > 0.01).sum()) for name in names}
    passing = ((q_values <= 0.01) & (changes > 0)).sum()
    assert sum(filled.values()) > 0
    assert all(n <= max(50 - passing[name], 0) for name, n in filled.items())


def test_a_gene_is_a_marker_where_it_passes(reference):
    um.pp.signatures(reference, "cell_type", n_markers=(90, 150))
    _, q_values, changes, marker, own = markers_with_q_values(reference)
    passes = (q_values.loc[marker.index] <= 0.01) & (changes.loc[marker.index] > 0)
    np.testing.assert_array_equal(own <= 0.01, passes.any(axis=1))
    best = changes.loc[marker.index].where(passes)[passes.any(axis=1)].idxmax(axis=1)
    assert (best == marker[own <= 0.01]).all()


def test_no_marker_is_above_max_q_where_all_types_have_enough(reference):
    um.pp.signatures(reference, "cell_type", n_markers=(5, 50), min_cells=4)
    assert markers_with_q_values(reference)[4].max() <= 0.01
    assert reference.uns["signatures"]["n_filled"].sum() == 0


@pytest.mark.parametrize("test", ["welch", "wilcoxon"])
def test_genes_without_counts_do_not_make_the_others_less_significant(reference, test):
    cells = reference[:, :100].copy()
    silent = AnnData(sparse.csr_matrix((cells.n_obs, 300), dtype=np.float32), cells.obs)
    silent.var_names = [f"silent_{j}" for j in range(300)]
    more = ad.concat([cells, silent], axis=1, merge="same")
    for adata in (cells, more):
        um.pp.signatures(adata, "cell_type", test=test)
    q = more.varm["signatures_qvals"]
    np.testing.assert_array_equal(q.iloc[:100], cells.varm["signatures_qvals"])
    assert (q.iloc[100:] == 1).all(axis=None)
