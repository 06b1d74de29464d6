"""`tl.metagenes`: planted programs, choice of their number, new cells, real blood cells."""

import anndata as ad
import numpy as np
import pytest
from anndata import AnnData
from scipy import sparse

import unmix as um


@pytest.fixture(scope="module")
def planted():
    r = np.random.default_rng(0)
    W, H = r.dirichlet([0.2] * 3, 300), r.gamma(0.2, 1, (3, 200))
    H /= H.sum(axis=1, keepdims=True)
    X = r.poisson(r.lognormal(6, 0.5, (300, 1)) * (W @ H)).astype(np.float32)
    X[5] = 0
    adata = AnnData(sparse.csr_matrix(X), obsm={"truth": W}, varm={"truth": H.T})
    adata.var_names = [f"g{i}" for i in range(200)]
    um.tl.metagenes(adata, [2, 3, 5], n_runs=15, n_top_genes=100)
    return adata


def matched(found, truth):
    return np.array([[np.corrcoef(f, t)[0, 1] for t in truth.T] for f in found.T])


def test_planted_programs_and_their_number_are_found(planted):
    assert planted.uns["metagenes"]["stability"]["silhouette"].argmax() == 1
    filled = np.arange(300) != 5
    usage = planted.obsm["X_metagenes"]
    assert matched(usage[filled], planted.obsm["truth"][filled]).max(axis=0).min() > 0.97
    assert matched(planted.varm["metagenes"], planted.varm["truth"]).max(axis=0).min() > 0.99
    np.testing.assert_allclose(usage[filled].sum(axis=1), 1, rtol=1e-5)
    assert np.isnan(usage[5]).all()
    assert (np.diff(np.nansum(usage, axis=0)) < 0).all()


def test_top_genes_mark_their_program(planted):
    top = planted.uns["metagenes"]["top_genes"]
    profile = planted.varm["truth"] / planted.varm["truth"].sum(axis=1, keepdims=True)
    match = matched(planted.varm["metagenes"], planted.varm["truth"]).argmax(axis=1)
    for c in range(3):
        assert profile[planted.var_names.get_indexer(top[f"{c + 1}"][:10]), match[c]].mean() > 0.8


def test_transform_of_the_same_cells_gives_their_usages(planted):
    new = planted[:, ::-1].copy()
    um.tl.transform(new, planted, key="metagenes", key_added="again")
    np.testing.assert_allclose(new.obsm["X_again"], planted.obsm["X_metagenes"], atol=1e-5)


def test_auto_chooses_by_held_out_entries(planted):
    um.tl.metagenes(planted, "auto", n_runs=5, n_top_genes=100, key_added="auto", max_distance=2.0)
    assert planted.obsm["X_auto"].shape[1] == 3
    assert {"ranks", "held_out"} <= set(planted.uns["auto"]["selection"])


def test_refusals(planted):
    with pytest.raises(ValueError, match="`n_components` must be an integer"):
        um.tl.metagenes(planted, 0)
    with pytest.raises(ValueError, match="`n_runs`"):
        um.tl.metagenes(planted, 2, n_runs=1)
    with pytest.raises(KeyError, match="do not exist"):
        um.tl.metagenes(planted, 2, genes=["g1", "nope"])


@pytest.mark.realdata
def test_programs_of_sorted_blood_cells_are_named_by_their_top_genes(shared_data):
    adata = ad.read_h5ad(next((shared_data / "pbmc_facs").glob("*.h5ad")))[::3].copy()
    adata.var_names = adata.var.iloc[:, 0].astype(str)
    adata.var_names_make_unique()
    um.tl.metagenes(adata, 8, n_runs=10, n_top_genes=1000, n_top=20)
    top = adata.uns["metagenes"]["top_genes"]
    programs = [set(top[c]) for c in top]
    for markers in ({"CD79A", "CD79B", "MS4A1"}, {"GNLY", "NKG7", "GZMB"}, {"LYZ", "CST3", "S100A9"}):
        assert any(len(markers & program) >= 2 for program in programs), (markers, top.head(8).to_string())
