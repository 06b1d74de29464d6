"""`tl.joint_nmf`: what must not change where the same data are given in another way."""

import warnings

import anndata as ad
import numpy as np
import pytest

import unmix as um
from unmix._adata.read import CountsWarning

OPTIONS = {"n_components": 3, "tol": 1e-6, "max_iter": 2000, "copy": True}


@pytest.fixture(scope="module")
def modalities():
    """Log-normalised counts of 60 genes and 12 proteins of 120 cells, and the usages that they come from."""
    rng = np.random.default_rng(0)
    usages = rng.dirichlet(np.full(3, 0.3), 120)

    def view(n, depth):
        profiles = rng.gamma(0.5, 1.0, (3, n))
        X = rng.poisson(depth * usages @ (profiles / profiles.sum(axis=1, keepdims=True)))
        return ad.AnnData(np.log1p(100 * X / X.sum(axis=1, keepdims=True)))

    return {"rna": view(60, 800), "adt": view(12, 200)}, usages


def test_zeros_only_are_a_modality_that_is_lacking(modalities):
    """Fitted as a measurement they took a component over."""
    data, usages = modalities
    lacking = {"rna": data["rna"], "adt": data["adt"][15:].copy()}
    zeros = {name: part.copy() for name, part in data.items()}
    zeros["adt"].X[:15] = 0
    one, two = um.tl.joint_nmf(lacking, **OPTIONS), um.tl.joint_nmf(zeros, **OPTIONS)
    np.testing.assert_allclose(two["rna"].obsm["X_joint_nmf"], one["rna"].obsm["X_joint_nmf"], atol=1e-5)
    np.testing.assert_allclose(two["adt"].varm["joint_nmf"], one["adt"].varm["joint_nmf"], atol=1e-5)
    tables = (found["rna"].uns["joint_nmf"]["loadings"]["adt"] for found in (one, two))
    np.testing.assert_allclose(*tables, atol=1e-5)
    shares = two["rna"].obsm["X_joint_nmf"] / two["rna"].obsm["X_joint_nmf"].sum(axis=1, keepdims=True)
    assert (np.abs(np.corrcoef(shares.T, usages.T)[:3, 3:]).max(axis=1) > 0.9).all()


def test_cells_of_zeros_in_every_modality_get_no_usages(modalities):
    data, _ = modalities
    empty = {name: part.copy() for name, part in data.items()}
    for part in empty.values():
        part.X[4] = 0
    found = um.tl.joint_nmf(empty, **OPTIONS)
    assert not found["rna"].obsm["X_joint_nmf"][4].any()


def test_modalities_on_disk_are_copied(modalities, tmp_path):
    """A file that anndata reads into memory is closed by it: nothing may be left to be read then."""
    data, _ = modalities
    for name, part in data.items():
        part.write_h5ad(tmp_path / f"{name}.h5ad")
    on_disk = {name: ad.read_h5ad(tmp_path / f"{name}.h5ad", backed="r") for name in data}
    one, two = um.tl.joint_nmf(data, **OPTIONS), um.tl.joint_nmf(on_disk, **OPTIONS)
    np.testing.assert_allclose(two["rna"].obsm["X_joint_nmf"], one["rna"].obsm["X_joint_nmf"], rtol=1e-5)
    for part in on_disk.values():
        part.file.close()


@pytest.mark.parametrize("loss", ["frobenius", "kl"])
def test_cells_without_counts_do_not_change_how_batches_weigh(modalities, loss):
    cells = modalities[0]["rna"].copy()
    cells.obs["batch"] = ["a", "b"] * 60
    empty = ad.AnnData(np.zeros((40, cells.n_vars)), {"batch": ["a"] * 40}, cells.var)
    empty.obs_names = [f"empty_{i}" for i in range(40)]
    more = ad.concat([cells, empty])
    options = {"batch_key": "batch", "loss": loss, **OPTIONS}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CountsWarning)
        one, two = um.tl.joint_nmf(cells, **options), um.tl.joint_nmf(more, **options)
    assert two.uns["joint_nmf"]["loss"][-1] == pytest.approx(one.uns["joint_nmf"]["loss"][-1], rel=1e-3)
    fitted = [found.obsm["X_joint_nmf"][:120] @ found.varm["joint_nmf"].T for found in (one, two)]
    np.testing.assert_allclose(fitted[1], fitted[0], atol=0.02 * fitted[0].max())
    assert not two.obsm["X_joint_nmf"][120:].any()
