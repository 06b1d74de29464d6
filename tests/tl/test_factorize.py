"""`tl.factorize` and `tl.transform`: completion, masks, rank choice, smoothing, new rows, refusals."""

import anndata as ad
import numpy as np
import pytest
from anndata import AnnData
from scipy import sparse

import unmix as um
from unmix._adata.convergence import ConvergenceWarning
from unmix._adata.signatures import SignatureWarning


@pytest.fixture
def cells():
    r = np.random.default_rng(0)
    X = r.poisson(r.gamma(0.3, 1, (120, 3)) @ r.gamma(0.3, 12, (3, 50))).astype(np.float32)
    adata = AnnData(sparse.csr_matrix(X))
    adata.var_names = [f"g{i}" for i in range(50)]
    adata.obs_names = [f"c{i}" for i in range(120)]
    return adata


@pytest.mark.parametrize(
    "options",
    [{}, {"loss": "kl"}, {"method": "als"}, {"method": "svd"}, {"method": "svd", "center": True}],
    ids=lambda o: "-".join(map(str, o.values())) or "nmf",
)
def test_transform_of_the_fitted_rows_gives_their_usages(cells, options):
    um.tl.factorize(cells, 3, tol=1e-9, max_iter=5000, complete=True, **options)
    key = options.get("method", "nmf")
    new = cells[:, ::-1].copy()
    um.tl.transform(new, cells, key=key, key_added="new")
    usages = cells.obsm[f"X_{key}"]  # multiplicative updates reach zeros slowly
    np.testing.assert_allclose(new.obsm["X_new"], usages, rtol=1e-2, atol=1e-3 * np.abs(usages).max())
    mean = cells.uns[key]["mean"] if key == "svd" else 0
    np.testing.assert_allclose(
        cells.layers[f"{key}_completed"], cells.obsm[f"X_{key}"] @ cells.varm[key].T + mean, atol=1e-4
    )


@pytest.mark.parametrize("mask", [None, "seen"])
def test_least_squares_has_one_answer_whatever_it_begins_with(cells, mask):
    cells.layers["seen"] = np.random.default_rng(0).random(cells.shape) < 0.9
    options = {"method": "als", "mask": mask, "tol": 1e-10, "max_iter": 5000}
    um.tl.factorize(cells, 3, **options)
    other = cells[:, ::-1].copy()
    um.tl.factorize(other, 3, rng=1, **options)
    np.testing.assert_allclose(other.varm["als"][::-1], cells.varm["als"], atol=1e-2 * np.abs(cells.varm["als"]).max())
    W, V = cells.obsm["X_als"].astype(float), cells.varm["als"]
    for gram in (W.T @ W, V.T @ V):
        np.testing.assert_allclose(gram / gram[0, 0], np.diag(np.diag(gram)) / gram[0, 0], atol=1e-6)
        assert (np.diff(np.diag(gram)) < 0).all()
    np.testing.assert_allclose(np.diag(W.T @ W), np.diag(V.T @ V), rtol=1e-5)
    if mask is None:
        um.tl.factorize(cells, 3, method="svd")
        cosines = np.abs((V / np.linalg.norm(V, axis=0)).T @ cells.varm["svd"])
        np.testing.assert_allclose(np.diag(cosines), 1, atol=1e-4)


def test_centred_svd_is_pca(cells):
    um.tl.factorize(cells, 4, method="svd", center=True)
    dense = cells.X.toarray().astype(float)
    S = np.linalg.svd(dense - dense.mean(axis=0), compute_uv=False)
    np.testing.assert_allclose(cells.uns["svd"]["singular_values"], S[:4], rtol=1e-6)
    np.testing.assert_allclose(cells.uns["svd"]["variance_ratio"], (S**2)[:4] / (S**2).sum(), rtol=1e-6)


def test_hidden_entries_are_completed_and_observed_ones_kept():
    r = np.random.default_rng(1)
    truth = r.standard_normal((60, 3)) @ r.standard_normal((3, 40))
    seen = r.random(truth.shape) > 0.4
    adata = AnnData(np.where(seen, truth, np.nan))
    adata.layers["seen"] = seen
    um.tl.factorize(adata, 3, method="als", mask="seen", complete=True, tol=1e-6, max_iter=2000)
    filled = adata.layers["als_completed"]
    assert np.abs(filled - truth).max() < 1e-3
    np.testing.assert_array_equal(filled[seen], truth[seen].astype(np.float32))
    um.tl.factorize(adata, 3, method="als", mask=seen, complete=["1", "4"], key_added="few", tol=1e-6, max_iter=2000)
    some = adata.layers["few_completed"].toarray()
    assert np.abs(some[:, [1, 4]] - truth[:, [1, 4]]).max() < 1e-3
    assert adata.uns["few"]["params"]["mask"] == "array"


@pytest.mark.parametrize("options", [{"loss": "kl"}, {}, {"method": "als"}])
def test_what_nobody_observed_is_not_made_up(options):
    r = np.random.default_rng(1)
    adata = AnnData(r.poisson(5.0, (30, 20)).astype(float))
    seen = r.random(adata.shape) < 0.8
    seen[3], seen[:, 5] = False, False
    um.tl.factorize(adata, 2, mask=seen, complete=True, tol=1e-3, key_added="few", **options)
    usages, filled = adata.obsm["X_few"], adata.layers["few_completed"]
    assert np.isnan(usages[3]).all()
    assert np.isnan(filled[3]).all()
    assert np.isfinite(np.delete(usages, 3, axis=0)).all()
    assert (adata.varm["few"][5] == 0).all()


def test_zeros_as_missing_lets_expression_be_filled_in(cells):
    um.tl.factorize(cells, 1, method="nmf", mask="zeros", complete=True, tol=1e-4)
    filled, X = cells.layers["nmf_completed"], cells.X.toarray()
    np.testing.assert_array_equal(filled[X > 0], X[X > 0])
    filled_in = (X == 0) & (X.sum(axis=1) > 0)[:, None] & (X.sum(axis=0) > 0)
    assert filled[filled_in].min() > 0


def test_auto_finds_the_planted_rank_and_keeps_the_curve(cells):
    um.tl.factorize(cells, "auto", loss="kl", ranks=[1, 2, 3, 5])
    assert cells.obsm["X_nmf"].shape[1] == 3
    assert cells.uns["nmf"]["held_out"].shape == (4, 3)
    np.testing.assert_array_equal(cells.uns["nmf"]["ranks"], [1, 2, 3, 5])


def test_new_rows_may_lack_genes_and_have_others(cells):
    um.tl.factorize(cells, 3)
    new = AnnData(sparse.hstack([cells.X[:, :40], np.ones((120, 2))]).tocsr())
    new.var_names = [*cells.var_names[:40], "x", "y"]
    um.tl.transform(new, cells, key="nmf")
    assert new.uns["nmf"]["n_shared_genes"] == 40
    likeness = [np.corrcoef(a, b)[0, 1] for a, b in zip(new.obsm["X_nmf"].T, cells.obsm["X_nmf"].T, strict=True)]
    assert min(likeness) > 0.9
    with pytest.warns(SignatureWarning, match="20 of the 50 genes of the fit"):
        um.tl.transform(new[:, :20].copy(), cells, key="nmf")
    new.var_names = [f"other{i}" for i in range(new.n_vars)]
    with pytest.raises(ValueError, match="share no gene"):
        um.tl.transform(new, cells, key="nmf")
    with pytest.raises(KeyError, match=r"there are \['nmf'\]"):
        um.tl.transform(new, cells, key="als")


def test_refusals_and_warnings(cells):
    with pytest.raises(ValueError, match='needs method="nmf"'):
        um.tl.factorize(cells, 3, method="als", loss="kl")
    with pytest.raises(ValueError, match="`method` must be one of"):
        um.tl.factorize(cells, 3, method="pca")
    with pytest.raises(ValueError, match="n_components"):
        um.tl.factorize(cells, 51, method="svd")
    with pytest.raises(ValueError, match="shape of the matrix"):
        um.tl.factorize(cells, 3, method="als", mask=np.ones((2, 2), bool))
    with pytest.raises(KeyError, match="not in obsp"):
        um.tl.factorize(cells, 3, graph="spatial_connectivities")
    with pytest.warns(ConvergenceWarning, match="raise `max_iter`"):
        um.tl.factorize(cells, 3, max_iter=2)


@pytest.mark.realdata
def test_components_of_sorted_blood_cells_follow_their_populations(shared_data):
    from sklearn.metrics import roc_auc_score

    adata = ad.read_h5ad(next((shared_data / "pbmc_facs").glob("*.h5ad")))[::4].copy()
    adata.X = adata.X.astype(np.float32)
    um.tl.factorize(adata, 6, loss="kl", max_iter=200, tol=1e-4)
    shares = adata.obsm["X_nmf"] / adata.obsm["X_nmf"].sum(axis=1, keepdims=True)
    for population in ("CD19+ B", "CD14+ Monocyte", "CD56+ NK"):
        assert max(roc_auc_score(adata.obs["facs_population"] == population, share) for share in shares.T) > 0.9
