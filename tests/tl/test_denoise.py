"""Decoded values: the same at the fit and later, for chosen genes, batches and files, and what they mean."""

import json

import anndata as ad
import numpy as np
import pytest
from anndata import AnnData
from scipy import sparse

import unmix as um


def planted(n=300, g=60, seed=0):
    """Counts in two batches, the second with twice the counts of the first ten genes, and a cell's age."""
    rng = np.random.default_rng(seed)
    profiles = rng.gamma(0.5, 1.0, (3, g)) + 0.05
    batch, group = np.arange(n) % 2, rng.integers(3, size=n)
    mu = 4 * profiles[group] * np.where((np.arange(g) < 10) & (batch == 1)[:, None], 2.0, 1.0)
    X = rng.poisson(rng.gamma(3.0, mu / 3.0)).astype(np.float32)
    X[4] = 0
    adata = AnnData(sparse.csr_matrix(X))
    adata.obs["batch"] = np.array(["one", "two"])[batch]
    adata.obs["age"] = rng.normal(50, 10, n)
    adata.obs["chip"] = np.array(["a", "b", "c"])[rng.integers(3, size=n)]
    return adata


@pytest.fixture(scope="module")
def fitted():
    adata = planted()
    options = {"max_epochs": 30, "batch_key": "batch", "covariates": ["age", "chip"]}
    um.tl.zinb_ae(adata, 4, **options, dispersion="gene", denoise=True)
    return adata


def denoised(adata, **options):
    um.tl.denoise(adata, key="zinb_ae", key_added="later", **options)
    return adata.layers["later_denoised"]


def test_later_equals_at_the_fit_also_from_a_file_with_another_order_of_genes(fitted, tmp_path):
    wanted = fitted.layers["zinb_ae_denoised"]
    assert np.isnan(wanted[4]).all()
    np.testing.assert_allclose(denoised(fitted.copy()), wanted, rtol=1e-5)
    um.save(fitted, tmp_path / "model.safetensors", key="zinb_ae")
    model = um.load(tmp_path / "model.safetensors")
    assert model.n_obs == 0
    new = planted()[:, ::-1].copy()
    np.testing.assert_allclose(denoised(new, fitted=model)[:, ::-1], wanted, rtol=1e-4)
    um.tl.transform(new, model, key="zinb_ae")
    np.testing.assert_allclose(new.obsm["X_zinb_ae"], fitted.obsm["X_zinb_ae"], rtol=1e-3, atol=1e-5)


def test_chosen_genes_are_a_sparse_layer_and_a_file_is_written_without_one(fitted, tmp_path):
    wanted, adata = fitted.layers["zinb_ae_denoised"], fitted.copy()
    layer = denoised(adata, genes=["9", "2"])
    np.testing.assert_allclose(layer[:, [2, 9]].toarray(), wanted[:, [2, 9]], rtol=1e-5)
    assert layer.nnz == 2 * adata.n_obs
    del adata.layers["later_denoised"]
    um.tl.denoise(adata, key="zinb_ae", key_added="later", genes=["9", "2"], out=tmp_path / "x.h5ad")
    assert "later_denoised" not in adata.layers
    written = ad.read_h5ad(tmp_path / "x.h5ad")
    assert list(written.var_names) == ["2", "9"]
    assert list(written.obs_names) == list(adata.obs_names)
    np.testing.assert_allclose(written.X, wanted[:, [2, 9]], rtol=1e-5)
    with pytest.raises(ValueError, match="exists"):
        um.tl.denoise(adata, key="zinb_ae", out=tmp_path / "x.h5ad")
    assert not list(tmp_path.glob(".*"))


def test_dropout_lowers_means_and_library_is_a_factor_per_cell(fitted):
    mean = denoised(fitted.copy())
    with_dropout, scaled = denoised(fitted.copy(), dropout=True), denoised(fitted.copy(), library=False)
    cells = np.arange(fitted.n_obs) != 4
    share = with_dropout[cells] / mean[cells]
    assert share.max() <= 1
    silent = np.isnan(fitted.var["zinb_ae_dropout"])
    np.testing.assert_allclose(1 - share.mean(0)[~silent], fitted.var["zinb_ae_dropout"][~silent], atol=1e-5)
    totals = np.asarray(fitted.X.sum(1)).ravel()[cells]
    np.testing.assert_allclose(mean[cells] / scaled[cells], np.tile(totals[:, None] / np.median(totals), 60), rtol=1e-4)


def test_decoding_for_a_chosen_batch_moves_the_genes_that_differ(fitted):
    one, two = denoised(fitted.copy(), batch="one"), denoised(fitted.copy(), batch="two")
    ratio = np.nanmean(two, axis=0) / np.nanmean(one, axis=0)
    assert np.median(ratio[:10]) > 1.4 * np.median(ratio[10:])
    own = np.where((fitted.obs["batch"] == "two").to_numpy()[:, None], two, one)
    np.testing.assert_allclose(own, fitted.layers["zinb_ae_denoised"], rtol=1e-5)


def test_new_cells_are_mapped_as_of_a_chosen_batch(fitted):
    new = planted(seed=1)
    um.tl.transform(new, fitted, key="zinb_ae", batch="two")
    without = planted(seed=1)
    del without.obs["batch"]
    um.tl.transform(without, fitted, key="zinb_ae", batch="two")
    np.testing.assert_array_equal(without.obsm["X_zinb_ae"], new.obsm["X_zinb_ae"])
    with pytest.raises(ValueError, match="among the batches"):
        um.tl.transform(new, fitted, key="zinb_ae", batch="three")
    new.obs["age"] = np.nan
    with pytest.raises(ValueError, match="missing or infinite"):
        um.tl.transform(new, fitted, key="zinb_ae")


def test_damaged_and_foreign_files_are_refused(fitted, tmp_path):
    from safetensors.numpy import save_file

    path = tmp_path / "model.safetensors"
    um.save(fitted, path, key="zinb_ae")
    content = path.read_bytes()
    damages = {
        "of which the header": (2**40).to_bytes(8, "little") + content[8:],
        "bytes, of which": content[:6],
        "is damaged": content[:-100],
    }
    for message, data in damages.items():
        path.write_bytes(data)
        with pytest.raises(ValueError, match=message):
            um.load(path)
    save_file({"x": np.zeros(3)}, path)
    with pytest.raises(ValueError, match="no autoencoder of this package"):
        um.load(path)
    about = {"format": "unmix.autoencoder/1", "key": "ae", "entry": json.dumps({"design": {}})}
    save_file({"x": np.zeros(3)}, path, metadata=about)
    with pytest.raises(ValueError, match="is damaged"):
        um.load(path)


def test_a_model_that_was_changed_is_refused(fitted):
    for part, value in (("moments", {}), ("weights", 3), ("genes", fitted.uns["zinb_ae"]["genes"][:-1])):
        changed = fitted.copy()
        changed.uns["zinb_ae"][part] = value
        with pytest.raises(ValueError, match="no longer as the tool left it"):
            um.tl.denoise(changed, key="zinb_ae")
    changed = fitted.copy()
    changed.uns["zinb_ae"]["moments"]["median_total"] = 0.0
    with pytest.raises(ValueError, match="above zero"):
        um.tl.denoise(changed, key="zinb_ae")


def test_refuses_what_is_not_there(fitted):
    with pytest.raises(KeyError, match="unknown"):
        denoised(fitted.copy(), genes=["no such gene"])
    with pytest.raises(KeyError, match="no result of"):
        um.tl.denoise(fitted.copy(), key="pca")
    with pytest.raises(ValueError, match="genes of the fit are missing"):
        um.tl.denoise(fitted[:, :50].copy(), fitted, key="zinb_ae")
    with pytest.raises(ValueError, match="n_samples"):
        um.tl.autoencoder(fitted.copy(), n_samples=3)
    with pytest.raises(ValueError, match="needs `batch_key`"):
        um.tl.autoencoder(fitted.copy(), dispersion="gene-batch")
    with pytest.raises(ValueError, match="learning_rate"):
        um.tl.autoencoder(fitted.copy(), learning_rate=0)
    with pytest.raises(KeyError, match="covariate|groupby"):
        um.tl.autoencoder(fitted.copy(), covariates="no such column")


def test_posterior_samples_have_its_moments():
    adata = planted()
    um.tl.autoencoder(adata, 3, kind="vae", likelihood="nb", max_epochs=3, n_samples=2000)
    draws = adata.obsm["X_vae_samples"]
    assert draws.shape == (300, 2000, 3)
    cells = np.arange(300) != 4
    mean, variance = adata.obsm["X_vae"][cells], adata.obsm["X_vae_variance"][cells]
    assert np.abs((draws[cells].mean(1) - mean) / np.sqrt(variance / 2000)).max() < 5
    np.testing.assert_allclose(draws[cells].var(1), variance, rtol=0.25)


def test_what_an_earlier_fit_decoded_goes_with_it_and_a_file_takes_nothing(fitted, tmp_path):
    adata = fitted.copy()
    um.tl.denoise(adata, key="zinb_ae", genes=["9"])
    um.tl.denoise(adata, key="zinb_ae", key_added="kept", genes=["9"])
    before = adata.layers["zinb_ae_denoised"].copy()
    um.tl.denoise(adata, key="zinb_ae", out=tmp_path / "x.h5ad")
    np.testing.assert_array_equal(adata.layers["zinb_ae_denoised"].toarray(), before.toarray())
    um.tl.zinb_ae(adata, 2, max_epochs=1)
    assert list(adata.layers) == ["kept_denoised"]
    assert sorted(adata.uns) == ["kept_denoised", "zinb_ae"]
    um.tl.denoise(adata, key="zinb_ae", genes=["9"])
    um.tl.zinb_ae(adata, 2, max_epochs=1, denoise=True)
    assert adata.layers["zinb_ae_denoised"].shape == adata.shape
    assert "zinb_ae_denoised" not in adata.uns
    adata.uns["zinb_ae_denoised"] = {"mine": 1}
    um.tl.zinb_ae(adata, 2, max_epochs=1)
    assert sorted(adata.uns) == ["kept_denoised", "zinb_ae", "zinb_ae_denoised"]
    assert list(adata.layers) == ["kept_denoised"]
