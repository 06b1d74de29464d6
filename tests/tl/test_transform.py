"""New data under a fit: what must not matter about the fit (order of its genes, its file) and about the data."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy import sparse

import unmix as um


@pytest.fixture(scope="module")
def tissue():
    r = np.random.default_rng(0)
    spectra = r.gamma(0.3, 1, (3, 40)) + 0.02
    X = r.poisson(300 * r.dirichlet([0.3] * 3, 60) @ (spectra / spectra.sum(axis=1, keepdims=True)))
    obs = pd.DataFrame({"batch": np.array(["a", "b"])[np.arange(60) % 2]}, index=[f"c{i}" for i in range(60)])
    return AnnData(
        sparse.csr_matrix(X.astype(np.float32)), obs=obs, var=pd.DataFrame(index=[f"g{j}" for j in range(40)])
    )


def consensus(adata, **options):
    um.tl.metagenes(adata, 3, n_runs=3, n_top_genes=25, max_distance=2.0, max_iter=60, key_added="fit", **options)


def archetypes(adata, **options):
    um.tl.starfysh_archetypes(adata, 3, resolution=None, n_restarts=1, key_added="fit", **options)


def joint(adata, **options):
    um.tl.joint_nmf(adata, 3, batch_key="batch", tol=1e-3, key_added="fit", **options)


def factors(adata, **options):
    um.tl.factorize(adata, 3, tol=1e-8, max_iter=3000, key_added="fit", **options)


FITS = {
    "nmf": lambda a: factors(a),
    "kl": lambda a: factors(a, loss="kl"),
    "als": lambda a: factors(a, method="als"),
    "svd": lambda a: factors(a, method="svd", center=True),
    "nmf zeros": lambda a: factors(a, mask="zeros"),
    "kl zeros": lambda a: factors(a, loss="kl", mask="zeros"),
    "als layer": lambda a: factors(a, method="als", mask="seen"),
    "metagenes": lambda a: consensus(a),
    "joint": lambda a: joint(a),
    "joint kl": lambda a: joint(a, loss="kl"),
    "archetypes": lambda a: archetypes(a),
    "archetypes of genes": lambda a: archetypes(a, use_rep="X"),
}


@pytest.fixture(scope="module", params=FITS)
def fitted(request, tissue):
    adata = tissue.copy()
    adata.layers["seen"] = np.random.default_rng(1).random(adata.shape) < 0.9
    FITS[request.param](adata)
    return adata


def mapped(adata, fitted):
    result = um.tl.transform(adata, fitted, key="fit", key_added="new", copy=True)
    return np.asarray(result.obsm["new" if "new" in result.obsm else "X_new"], dtype=float)


def test_the_order_of_the_genes_of_the_fit_does_not_matter(tissue, fitted):
    turned = fitted[:, np.random.default_rng(2).permutation(fitted.n_vars)].copy()
    np.testing.assert_allclose(mapped(tissue, turned), mapped(tissue, fitted), rtol=1e-4, atol=1e-4)


@pytest.mark.filterwarnings("ignore:.*zarr v2:UserWarning", "ignore:.*Zarr format 3 specification:UserWarning")
def test_a_fit_from_a_file_is_the_fit(tissue, fitted, tmp_path):
    fitted.write_h5ad(tmp_path / "x.h5ad")
    pytest.importorskip("zarr")
    fitted.write_zarr(tmp_path / "x.zarr")
    for back in (ad.read_h5ad(tmp_path / "x.h5ad"), ad.read_zarr(tmp_path / "x.zarr")):
        np.testing.assert_array_equal(mapped(tissue, back), mapped(tissue, fitted))


def test_each_row_is_mapped_by_itself_and_genes_by_name(tissue, fitted):
    new = tissue.copy()
    new.layers["seen"] = fitted.layers["seen"]
    whole = mapped(new, fitted)
    rows, genes = np.arange(59, 20, -2), np.random.default_rng(3).permutation(40)
    part = new[rows, genes].copy()
    part.X = sparse.csc_matrix(part.X.astype(np.int16))
    np.testing.assert_allclose(mapped(part, fitted), whole[rows], atol=1e-5 * np.nanmax(whole))


def test_masked_rows_are_mapped_as_they_were_fitted(tissue):
    for options in ({"mask": "zeros"}, {"mask": "zeros", "loss": "kl"}, {"mask": "seen", "method": "als"}):
        adata = tissue.copy()
        adata.X = adata.X.toarray()
        adata.X[4] = 0
        seen = np.random.default_rng(1).random(adata.shape) < 0.9
        seen[4] = False
        adata.layers["seen"] = seen
        factors(adata, **options)
        fit = np.asarray(adata.obsm["X_fit"])
        assert np.isnan(fit[4]).all()
        assert np.isfinite(np.delete(fit, 4, axis=0)).all()
        np.testing.assert_allclose(mapped(adata, adata), fit, atol=0.01 * np.nanmax(np.abs(fit)))
        everything = tissue.copy()  # without a layer of that name, all of it was observed
        assert np.isfinite(mapped(everything, adata)).all()


def test_a_row_with_entries_of_unknown_genes_alone_was_not_observed(tissue):
    factors(adata := tissue.copy(), mask="zeros")
    new = tissue.copy()
    new.X = new.X.toarray()
    new.X[4] = 0
    more = AnnData(np.ones((60, 5), np.float32), obs=new.obs, var=pd.DataFrame(index=[f"new{j}" for j in range(5)]))
    wide = ad.concat([new, more], axis=1, merge="first")
    np.testing.assert_array_equal(mapped(wide, adata), mapped(new, adata))
    assert np.isnan(mapped(wide, adata)[4]).all()


@pytest.mark.parametrize("loss", ["frobenius", "kl"])
def test_genes_taken_out_of_a_fit_of_modalities_are_as_those_the_new_data_lack(tissue, loss):
    parts = {"rna": tissue[:, :25].copy(), "other": tissue[:, 25:].copy()}
    um.tl.joint_nmf(parts, 3, loss=loss, tol=1e-3, key_added="fit")
    some = np.arange(0, 25, 2)
    expected = mapped(parts["rna"][:, some].copy(), parts["rna"])
    np.testing.assert_allclose(mapped(parts["rna"], parts["rna"][:, some].copy()), expected, rtol=1e-4, atol=1e-5)
    del parts["rna"].uns["fit"]["sums"]  # written before they were
    np.testing.assert_array_equal(mapped(parts["rna"][:, some].copy(), parts["rna"]), expected)
    parts["rna"].uns["fit"]["sums"] = np.ones(2)
    with pytest.raises(ValueError, match="run the tool again"):
        mapped(parts["rna"], parts["rna"])


@pytest.mark.parametrize("use_rep", [None, "X"])
def test_rows_are_weighed_by_the_archetypes_before_they_were_merged(tissue, use_rep):
    options = {"resolution": 0.6, "n_restarts": 1, "n_pcs": 8, "use_rep": use_rep, "key_added": "fit"}
    um.tl.starfysh_archetypes(adata := tissue.copy(), 5, **options)
    assert 1 < adata.obsm["fit"].shape[1] < len(adata.uns["fit"]["corners"]) == 5
    rows = (adata.obs["fit_status"] == "ok").to_numpy()
    np.testing.assert_allclose(mapped(tissue, adata)[rows], adata.obsm["fit"][rows], atol=1e-3)
    adata.uns["fit"]["group"] = adata.uns["fit"]["group"][:4]
    with pytest.raises(ValueError, match="run the tool again"):
        mapped(tissue, adata)


@pytest.mark.filterwarnings("ignore::unmix._adata.signatures.SignatureWarning")
def test_genes_that_archetypes_did_not_see_have_no_influence(tissue):
    """Neither in the totals; and where some are lacking, totals are those that the rest foretells."""
    archetypes(adata := tissue.copy())
    more = tissue.copy()
    more.var_names = [f"new{j}" for j in range(40)]
    more.X = more.X * 9
    wide = ad.concat([tissue, more], axis=1, merge="first")
    np.testing.assert_allclose(mapped(wide, adata), mapped(tissue, adata), atol=1e-6)
    part = tissue[:, tissue.X.toarray().sum(axis=0) > np.median(tissue.X.toarray().sum(axis=0))].copy()
    old = adata.copy()
    del old.uns["fit"]["reduction"]["shares"]
    error = [np.abs(mapped(part, fit) - adata.obsm["fit"]).to_numpy().mean() for fit in (adata, old)]
    assert error[0] < error[1]
    adata.uns["fit"]["reduction"]["shares"] = adata.uns["fit"]["reduction"]["shares"][:3]
    with pytest.raises(ValueError, match="3 shares of 40 genes"):
        mapped(tissue, adata)


def test_loadings_of_batches_follow_their_genes(tissue):
    adata = tissue.copy()
    joint(adata)
    turned = adata[:, np.random.default_rng(2).permutation(adata.n_vars)].copy()
    order = ["part", "component", "gene"]
    before, after = (um.get.joint_loadings(a, key="fit").sort_values(order, ignore_index=True) for a in (adata, turned))
    pd.testing.assert_frame_equal(after, before)
    some = adata[:, ["g7", "g3", "g20"]].copy()
    found = um.get.joint_loadings(some, key="fit").set_index(order)["loading"]
    assert np.allclose(found, before.set_index(order)["loading"].loc[found.index])
    renamed = adata.copy()
    renamed.var_names = [f"ENSG{j}" for j in range(adata.n_vars)]
    assert np.allclose(
        um.get.joint_loadings(renamed, key="fit")["loading"], um.get.joint_loadings(adata, key="fit")["loading"]
    )
