import numpy as np
import pytest

from unmix.core.countmodel import fit_count_model
from unmix.core.scatter import CellScatter, cell_scatter
from unmix.core.share_errors import ShareErrors, share_errors, with_scatter


def cells_of(rng, S, n, state_sd, depth=3000.0):
    """Cells whose profile is their type's, moved along one program of genes of their own size."""
    K, G = S.shape[1], S.shape[0]
    labels = np.repeat(np.arange(K), n)
    program = rng.normal(size=G)
    state = np.exp(state_sd * rng.normal(size=(len(labels), 1)) * program[None])
    profile = S.T[labels] * state
    return rng.poisson(depth * profile / profile.sum(axis=1, keepdims=True)).astype(float), labels


def pools(rng, cells, labels, n_spots, n_cells):
    Y, F = np.zeros((n_spots, cells.shape[1])), np.zeros((n_spots, labels.max() + 1))
    for i in range(n_spots):
        own = rng.choice(len(labels), n_cells)
        Y[i] = rng.binomial(cells[own].sum(axis=0).astype(int), 0.2)
        F[i] = np.bincount(labels[own], minlength=F.shape[1]) / n_cells
    return Y, F


def case(state_sd, n_cells=6):
    rng = np.random.default_rng(0)
    S = rng.gamma(0.4, 1.0, (300, 4)) + 0.02
    cells, labels = cells_of(rng, S / S.sum(axis=0), 120, state_sd)
    first = np.arange(len(labels)) % 2 == 0
    share = cells[first] / cells[first].sum(axis=1, keepdims=True)
    profiles = np.stack([share[labels[first] == k].mean(axis=0) for k in range(4)], axis=1)
    Y, F = pools(rng, cells[~first], labels[~first], 200, n_cells)
    fit = fit_count_model(Y, profiles, np.zeros_like(profiles), platform=False)
    return fit, cell_scatter(cells[first], labels[first], fit.model.genes, fit.model), F


def covered(fit, covariance, F):
    P = fit.weights / fit.weights.sum(axis=1, keepdims=True)
    inside = np.abs(P - F) <= 1.645 * share_errors(fit.weights, covariance)
    return inside[P > 0].mean()


def test_intervals_cover_pools_of_few_different_cells():
    fit, cells, F = case(state_sd=1.0)
    assert covered(fit, fit.covariance, F) < 0.8
    assert 0.85 <= covered(fit, with_scatter(fit.weights, fit.covariance, cells, 6.0, fit.present), F) <= 0.97


@pytest.mark.parametrize("n_cells", [3, 12])
def test_the_number_of_cells_is_found_from_the_residuals(n_cells):
    fit, cells, F = case(state_sd=1.0, n_cells=n_cells)
    found = float(ShareErrors().described(fit.model, cells).split(",")[0])
    assert 0.6 * n_cells < found < 1.6 * n_cells
    covariance = with_scatter(fit.weights, fit.covariance, cells, np.nan, fit.present)
    assert 0.82 <= covered(fit, covariance, F) <= 0.97


def test_a_cell_weighs_what_its_depth_says():
    _, cells, _ = case(state_sd=0.0)
    np.testing.assert_allclose(cells.unit, 3000.0, rtol=0.05)


def test_cells_that_are_all_alike_scatter_only_in_depth():
    _, cells, _ = case(state_sd=0.0)
    spread = np.sqrt(np.einsum("kaa->ka", cells.covariance).max(axis=1))
    assert (spread < 0.05 * cells.unit).all()


def test_the_scatter_falls_as_the_number_of_cells():
    fit, cells, _ = case(state_sd=1.0)
    one, ten = (with_scatter(fit.weights, fit.covariance, cells, n) - fit.covariance for n in (1.0, 10.0))
    np.testing.assert_allclose(one, 10 * ten, rtol=1e-6, atol=1e-6 * np.abs(one).max())


def test_errors_on_the_way_are_those_of_the_covariances():
    rng = np.random.default_rng(1)
    S = rng.gamma(0.4, 1.0, (60, 3)) + 0.02
    Y = rng.poisson(rng.gamma(1.0, 200.0, (40, 3)) @ (S / S.sum(axis=0)).T).astype(float)
    Y[5] = 0
    sizes, cells = np.array([1.0, 2.0, 5.0]), np.arange(1.0, 41.0)
    scatter = CellScatter(np.full(3, 50.0), np.stack([np.eye(3) * k for k in (10.0, 20.0, 30.0)]), 0.1)
    kept = fit_count_model(Y, S)
    expected = share_errors(kept.weights, with_scatter(kept.weights, kept.covariance, scatter, cells), sizes)
    errors = ShareErrors(sizes, lambda model: scatter, cells)
    lean = fit_count_model(Y, S, errors=errors, block_rows=7)
    np.testing.assert_allclose(lean.se, expected, rtol=1e-10)
    np.testing.assert_array_equal(lean.weights, kept.weights)
    assert lean.covariance.size == 0
    plain = fit_count_model(Y, S, errors=ShareErrors())
    np.testing.assert_allclose(plain.se, share_errors(kept.weights, kept.covariance), rtol=1e-10)


def test_sizes_that_few_cells_tell_widen_the_shares_as_drawn_sizes_do():
    rng = np.random.default_rng(0)
    W, sizes, v = np.array([[30.0, 50.0, 5.0, 0.0]]), np.array([1.0, 2.0, 0.5, 1.0]), np.array([0.01, 0.0, 0.004, 0.02])
    found = share_errors(W, np.zeros((1, 4, 4)), sizes, v)[0]
    drawn = W / (sizes * np.exp(np.sqrt(v) * rng.standard_normal((100_000, 4))))
    np.testing.assert_allclose(found, (drawn / drawn.sum(axis=1, keepdims=True)).std(axis=0), rtol=0.02, atol=1e-12)


def test_an_unknown_type_differs_in_size_as_the_others_do():
    fit = fit_count_model(np.full((2, 3), 5.0), np.array([[9.0, 1.0], [1.0, 9.0], [5.0, 6.0]]))
    errors = ShareErrors(np.array([1.0]), size_variances=np.array([0.1]))
    sizes, variances, _ = errors.constants(fit.model)
    assert sizes.tolist() == [1.0, 1.0]
    assert variances.tolist() == [0.1, 0.0]
