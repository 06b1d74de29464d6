"""`tl.starfysh_archetypes` where most spots hold hardly any counts."""

import numpy as np
import pytest
from scipy import sparse

import unmix as um


@pytest.mark.parametrize(("share", "left"), [(0.5, 0.03), (0.8, 0.01)])
def test_most_of_the_spots_may_lie_off_the_tissue(share, left):
    spots, _ = um.datasets.simulate_spots(750, 600, 4, rng=0, depth=1500.0)
    rng = np.random.default_rng(0)
    X, off = spots.X.toarray().astype(int), rng.random(750) < share
    X[off] = rng.binomial(X[off], left)
    spots.X = sparse.csr_matrix(X.astype(np.float32))
    um.tl.starfysh_archetypes(spots, 4, n_restarts=3, resolution=None)
    lost = (spots.obs["archetypes_status"] != "ok").to_numpy()
    assert lost[off].all()
    assert lost[~off].mean() < 0.02
    W, truth = um.get.archetypes(spots).to_numpy()[~off], spots.obsm["truth_proportions"].to_numpy()[~off]
    assert np.corrcoef(W.T, truth.T)[:4, 4:].max(axis=1).min() > 0.98


def test_archetypes_that_are_asked_for_have_room():
    """Four fifths of the spots hold a thirtieth of the counts, so that chance hides all but two dimensions: .3 became .98."""
    spots, _ = um.datasets.simulate_spots(600, 600, 4, rng=0, depth=1500.0)
    rng = np.random.default_rng(0)
    X, thin = spots.X.toarray().astype(int), rng.random(600) < 0.8
    X[thin] = rng.binomial(X[thin], 0.03)
    spots.X = sparse.csr_matrix(X.astype(np.float32))
    um.tl.starfysh_archetypes(spots, 4, n_restarts=3, resolution=None)
    assert spots.uns["archetypes"]["archetypes"].shape == (4, 3)
    W, truth = um.get.archetypes(spots).to_numpy()[~thin], spots.obsm["truth_proportions"].to_numpy()[~thin]
    assert np.corrcoef(W.T, truth.T)[:4, 4:].max(axis=1).min() > 0.95
    um.tl.starfysh_archetypes(spots, 4, n_pcs=2, n_restarts=1, resolution=None)
    assert spots.uns["archetypes"]["archetypes"].shape == (4, 2)
