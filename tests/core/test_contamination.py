"""A share of the pooled mean in every profile: found from spots, and taken out."""

import numpy as np
import pytest
from scipy import sparse

import unmix as um
from unmix.core._countmodel_kernels import csr_parts, fit_rows
from unmix.core.contamination import choose_contamination, purified


def _tissue(rng, n_spots=80, n_genes=400, K=6, depth=4000.0):
    S = rng.lognormal(0.0, 1.2, (n_genes, K))
    S *= 1e4 / S.sum(axis=0)
    W = rng.dirichlet(np.full(K, 0.3), n_spots)
    return S, W, sparse.csr_array(rng.poisson(depth / 1e4 * W @ S.T).astype(float))


def _chosen(S, Y):
    nothing = np.zeros(S.shape[0])
    W = fit_rows(*csr_parts(Y), S, 0.0, np.full((Y.shape[0], S.shape[1]), 0.05), 50)[0]
    return choose_contamination(Y, S, S.mean(axis=1), nothing, 0.0, W), W / W.sum(axis=1, keepdims=True)


def test_profiles_are_what_they_were_before_the_mean_was_added():
    S, *_ = _tissue(np.random.default_rng(0))
    pooled = S @ np.array([0.3, 0.2, 0.2, 0.1, 0.1, 0.1])
    mixed = 0.7 * S + 0.3 * pooled[:, None]
    found = purified(mixed, pooled, 0.3)
    np.testing.assert_allclose(found, np.maximum(S, 0.02 / 0.7 * mixed), rtol=1e-8)
    assert np.mean(np.isclose(found, S)) > 0.95
    assert purified(S, pooled, 0.0) is S


@pytest.mark.parametrize("q", [0.1, 0.2, 0.3])
def test_the_share_is_found_and_amounts_are_right_without_it(q):
    S, W, Y = _tissue(np.random.default_rng(1))
    mixed = (1 - q) * S + q * S.mean(axis=1)[:, None]
    found, before = _chosen(mixed, Y)
    assert abs(found - q) < 0.06
    clean = purified(mixed, mixed.mean(axis=1), found)
    again = fit_rows(*csr_parts(Y), clean, 0.0, np.full(W.shape, 0.05), 50)[0]
    error = again / again.sum(axis=1, keepdims=True) - W
    assert np.sqrt((error**2).mean()) < 0.7 * np.sqrt(((before - W) ** 2).mean())


@pytest.mark.parametrize("seed", range(4))
def test_nothing_is_taken_from_profiles_that_hold_nothing_else(seed):
    S, _, Y = _tissue(np.random.default_rng(seed), depth=500.0)
    assert _chosen(S, Y)[0] == 0


@pytest.mark.parametrize("seed", range(2))
def test_ambient_tissue_is_no_ambient_reference(seed):
    S, W, _ = _tissue(rng := np.random.default_rng(seed))
    Y = sparse.csr_array(rng.poisson(0.4 * (0.7 * W + 0.3 / W.shape[1]) @ S.T).astype(float))
    assert _chosen(S, Y)[0] == 0


def test_a_gene_of_few_spots_does_not_decide():
    S, _, Y = _tissue(np.random.default_rng(3))
    few = Y.toarray()
    few[:4, np.argsort(-S.mean(axis=1))[:2]] *= 20
    assert _chosen(S, sparse.csr_array(few))[0] == 0


def test_too_few_genes_and_a_single_type_leave_profiles_as_they_are():
    S, W, Y = _tissue(np.random.default_rng(4), n_genes=9)
    assert choose_contamination(Y, S, S.mean(axis=1), np.zeros(9), 0.0, W) == 0
    S, W, Y = _tissue(np.random.default_rng(4), K=1)
    assert choose_contamination(Y, S, S[:, 0], np.zeros(400), 0.0, W) == 0


def test_ambient_rna_of_the_reference_costs_the_default_little():
    spots, reference = um.datasets.simulate_spots(100, 400, 6, rng=5)
    X = np.asarray(reference.X.toarray() if sparse.issparse(reference.X) else reference.X, dtype=float)
    ambient = X.sum(axis=0) / X.sum()
    dirty = reference.copy()
    added = np.random.default_rng(5).poisson(0.3 / 0.7 * X.sum(axis=1, keepdims=True) * ambient)
    dirty.X = sparse.csr_matrix((X + added).astype(np.float32))
    errors = {}
    for name, cells in (("clean", reference), ("dirty", dirty)):
        um.tl.deconvolve(spots, cells, groupby="cell_type")
        found = spots.obsm["deconvolve"]
        truth = spots.obsm["truth_proportions"].reindex(columns=found.columns)
        errors[name] = float(np.sqrt(((found - truth) ** 2).to_numpy().mean()))
    um.tl.deconvolve(spots, dirty, groupby="cell_type", method="poisson")
    poisson = float(np.sqrt(((spots.obsm["deconvolve"] - truth) ** 2).to_numpy().mean()))
    assert errors["dirty"] < 1.5 * errors["clean"]
    assert errors["dirty"] < 0.5 * poisson
