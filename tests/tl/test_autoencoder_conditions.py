"""Autoencoders with covariates: what was not varied in the fit has no influence on what is decoded later."""

import anndata as ad
import numpy as np
import pytest

import unmix as um


@pytest.mark.parametrize("dose", [0.0, 1.0, 0.1])
def test_a_covariate_that_was_constant_in_the_fit_has_no_influence(dose, tmp_path):
    """Its weights are those that the network began with: they once moved decoded means by a quarter."""
    cells = ad.AnnData(np.random.default_rng(0).poisson(3.0, (80, 30)).astype(np.float32))
    cells.obs["dose"] = dose
    um.tl.autoencoder(cells, 3, likelihood="nb", max_epochs=2, covariates="dose")
    um.save(cells, tmp_path / "model.safetensors")
    other = cells.copy()
    other.obs["dose"] = dose + 3
    for fitted in (cells, um.load(tmp_path / "model.safetensors")):
        one, two = (um.tl.denoise(data, fitted, key="ae", copy=True) for data in (cells, other))
        np.testing.assert_array_equal(one.layers["ae_denoised"], two.layers["ae_denoised"])
