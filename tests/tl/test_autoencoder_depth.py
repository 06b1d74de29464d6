"""Autoencoders and depth: a cell counted less deeply lies where it lay."""

import numpy as np
import pytest
from anndata import AnnData
from scipy import sparse

import unmix as um


@pytest.mark.parametrize("kind", ["ae", "vae"])
def test_cells_of_a_tenth_of_the_depth_lie_with_their_group(kind):
    """One in ten was nearer to the middle of another group, where the encoder had seen every cell at its own depth alone."""
    rng = np.random.default_rng(1)
    profiles = (rng.gamma(0.5, 1.0, 400) + 0.02) * rng.lognormal(0, 0.7, (8, 400))
    profiles /= profiles.sum(axis=1, keepdims=True)
    group, depth = rng.integers(8, size=600), 600 * rng.lognormal(0, 0.3, (600, 1))
    X = rng.poisson(profiles[group] * depth)
    cells, shallow = (AnnData(sparse.csr_matrix(x.astype(np.float32))) for x in (X, rng.binomial(X, 0.1)))
    um.tl.autoencoder(cells, 8, kind=kind, likelihood="nb", max_epochs=20)
    um.tl.transform(shallow, cells, key=kind)
    full, thin = (a.obsm[f"X_{kind}"] / cells.obsm[f"X_{kind}"].std(axis=0) for a in (cells, shallow))
    middles = np.array([full[group == g].mean(axis=0) for g in range(8)])
    for z, least in ((full, 0.99), (thin, 0.96)):
        nearest = ((z[:, None] - middles) ** 2).sum(axis=2).argmin(axis=1)
        assert np.mean(nearest == group) > least
