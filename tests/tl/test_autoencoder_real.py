"""`tl.autoencoder(likelihood="gaussian")`: real values of any unit, about any mean, also where some do not vary."""

import anndata as ad
import numpy as np
import pytest

import unmix as um

OPTIONS = {"n_latent": 4, "likelihood": "gaussian", "max_epochs": 20, "copy": True}


@pytest.fixture(scope="module")
def values():
    """Log-normalised counts of four groups, 300 x 80."""
    rng = np.random.default_rng(0)
    profiles = rng.gamma(0.5, 1.0, (4, 80)) + 0.05
    X = rng.poisson(profiles[rng.integers(4, size=300)] * 10)
    return np.log1p(1e3 * X / X.sum(axis=1, keepdims=True)).astype(np.float32)


def fitted(values, **options):
    return um.tl.autoencoder(ad.AnnData(values), **{**OPTIONS, **options})


def explained(values, found):
    """Share of the variance of values that a line in the coordinates explains."""
    Z = np.column_stack([np.ones(len(values)), found.obsm["X_ae"]])
    residual = values - Z @ np.linalg.lstsq(Z, values, rcond=None)[0]
    return 1 - (residual**2).sum() / ((values - values.mean(axis=0)) ** 2).sum()


@pytest.mark.parametrize("options", [{}, {"dispersion": "shared"}, {"dispersion": "gene-cell"}, {"kind": "vae"}])
def test_the_unit_does_not_matter(values, options):
    key = options.get("kind", "ae")
    one, two = (fitted(scale * values, denoise=True, **options) for scale in (1, 1024))
    np.testing.assert_array_equal(one.obsm[f"X_{key}"], two.obsm[f"X_{key}"])
    np.testing.assert_allclose(two.layers[f"{key}_denoised"], 1024 * one.layers[f"{key}_denoised"], rtol=1e-5)
    np.testing.assert_allclose(two.obs[f"{key}_nll"] - one.obs[f"{key}_nll"], 80 * np.log(1024), rtol=1e-4)
    if f"{key}_dispersion" in one.var:
        np.testing.assert_allclose(one.var[f"{key}_dispersion"], two.var[f"{key}_dispersion"] * 1024**2, rtol=1e-5)


def test_precisions_are_those_of_the_values(values):
    found = fitted(values, denoise=True, max_epochs=200)
    left = ((values - found.layers["ae_denoised"]) ** 2).mean(axis=0)
    ratio = found.var["ae_dispersion"] * left
    assert 0.5 < ratio.median() < 2


@pytest.mark.parametrize("dispersion", ["gene", "shared", "gene-cell"])
def test_genes_that_do_not_vary_do_not_matter(values, dispersion):
    """One gene of zeros took the share explained here from .8 to .2, as its precision was all that counted."""
    more = np.hstack([values, np.zeros((300, 5)), np.full((300, 5), 3.1)]).astype(np.float32)
    alone, beside = (fitted(x, dispersion=dispersion, denoise=True) for x in (values, more))
    assert explained(values, beside) > explained(values, alone) - 0.05
    np.testing.assert_allclose(beside.obs["ae_nll"].mean(), alone.obs["ae_nll"].mean(), atol=10)
    np.testing.assert_allclose(
        beside.layers["ae_denoised"][:, 80:], more[:, 80:], atol=0.0 if dispersion != "shared" else 0.1
    )
    if dispersion == "gene":
        assert beside.var["ae_dispersion"].isna().to_numpy().tolist() == [False] * 80 + [True] * 10


def test_values_about_another_mean_are_learned_as_well(values):
    """What the encoder does not see is the mean, not 0."""
    assert explained(values, fitted(values + 30)) > explained(values, fitted(values)) - 0.1
