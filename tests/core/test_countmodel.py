import numpy as np
import pytest
from scipy import sparse
from scipy.optimize import minimize

from unmix.core import countmodel
from unmix.core.countmodel_shared import MAX_SPOTS, _sample
from unmix.core.informative import keep_informative
from unmix.core.platform import PooledFit, bending


def simulate(seed=0, N=120, G=600, K=5, depth=3000.0, tau=0.0, phi=0.0):
    rng = np.random.default_rng(seed)
    S = rng.gamma(0.4, 1.0, (G, K)) + 0.01
    S /= S.sum(axis=0)
    F = rng.dirichlet(np.full(K, 0.6), N)
    p = np.exp(rng.normal(0, tau, G))
    m = depth * (F @ S.T) * p
    rate = m * rng.gamma(1 / phi, phi, m.shape) if phi else m
    return rng.poisson(rate).astype(float), S, F, p


def fit_count_model(Y, S, **options):
    """Fit with profiles that are known exactly."""
    return countmodel.fit_count_model(Y, S, np.zeros_like(S), **options)


def shares(W):
    return W / W.sum(axis=1, keepdims=True)


def error(W, F):
    return float(np.sqrt(np.mean((shares(W) - F) ** 2)))


@pytest.mark.parametrize("phi", [0.0, 0.1])
def test_weights_satisfy_the_optimality_conditions(phi):
    Y, S, _, _ = simulate(N=20, phi=phi)
    W = fit_count_model(Y, S, platform=False, dispersion=phi, prior=False).weights
    m = W @ S.T
    score = ((Y / m - 1) / (1 + phi * m)) @ S / S.sum(axis=0)
    assert (W >= 0).all()
    assert (W == 0).any()
    assert np.abs(score[W > 0]).max() < 1e-3
    assert score[W == 0].max() < 1e-3


@pytest.mark.parametrize("phi", [0.0, 0.2])
def test_weights_agree_with_a_general_optimiser(phi):
    Y, S, _, _ = simulate(N=3, G=80, phi=phi)
    W = fit_count_model(Y, S, platform=False, dispersion=phi, prior=False).weights
    for y, w in zip(Y, W, strict=True):

        def loss(x, y=y):
            m = S @ x + 1e-12
            return -(y @ np.log(m)) + (m.sum() if phi == 0 else (y + 1 / phi) @ np.log1p(phi * m))

        best = minimize(loss, np.full(5, y.sum() / 5), bounds=[(0, None)] * 5, method="L-BFGS-B")
        assert loss(w) <= best.fun + 1e-6 * abs(best.fun)


@pytest.mark.parametrize("tau", [0.3, 0.7])
def test_the_size_of_the_platform_effect_is_found_and_its_harm_undone(tau):
    Y, S, F, p = simulate(tau=tau)
    with_factors, without = fit_count_model(Y, S), fit_count_model(Y, S, platform=False)
    known = fit_count_model(Y, S * p[:, None], platform=False)
    assert with_factors.model.tau == pytest.approx(tau, rel=0.2)
    harm = [error(fit.weights, F) ** 2 - error(known.weights, F) ** 2 for fit in (with_factors, without)]
    assert harm[0] < 0.5 * harm[1]
    found = with_factors.model.log_p
    assert np.corrcoef(found, np.log(p)[with_factors.model.genes])[0, 1] > 0.9


def test_no_platform_effect_costs_nothing():
    Y, S, F, _ = simulate()
    fit = fit_count_model(Y, S)
    assert fit.model.tau < 0.05
    assert error(fit.weights, F) < 1.05 * error(fit_count_model(Y, S, platform=False).weights, F)


@pytest.mark.parametrize("phi", [0.0, 0.05, 0.2])
def test_the_dispersion_is_chosen_by_likelihood(phi):
    Y, S, _, _ = simulate(phi=phi, depth=8000.0)
    chosen = fit_count_model(Y, S, platform=False).model.dispersion
    assert phi / 2 <= chosen <= max(2 * phi, 0.005)


@pytest.mark.parametrize("tau", [0.0, 0.5])
def test_intervals_cover(tau):
    Y, S, F, _ = simulate(seed=1, N=300, tau=tau)
    fit = fit_count_model(Y, S, dispersion=0.0)
    W = fit.weights
    total, P = W.sum(axis=1), shares(W)
    J = (np.eye(5)[None] - P[:, :, None]) / total[:, None, None]
    se = np.sqrt(np.einsum("ikl,ilm,ikm->ik", J, fit.covariance, J))
    free = F > 0.02
    assert 0.85 <= np.mean(np.abs(P - F)[free] <= 1.645 * se[free]) <= 0.95


def test_threads_blocks_and_formats_do_not_matter():
    Y, S, _, _ = simulate(N=70, tau=0.3)
    a = fit_count_model(Y, S)
    b = fit_count_model(sparse.csr_array(Y), S, n_jobs=2, block_rows=64)
    np.testing.assert_array_equal(a.weights, b.weights)
    np.testing.assert_array_equal(a.covariance, b.covariance)


def test_unit_of_the_profiles_and_order_of_genes_do_not_matter():
    Y, S, _, _ = simulate(N=40, tau=0.3)
    order = np.random.default_rng(0).permutation(S.shape[0])
    a, b = fit_count_model(Y, S), fit_count_model(Y[:, order], 1e4 * S[order])
    np.testing.assert_allclose(b.weights * 1e4, a.weights, rtol=1e-3, atol=2.0)


def test_a_spot_without_counts_is_nan_and_stays_in_its_place():
    Y, S, F, _ = simulate(N=30)
    Y[7] = 0
    fit = fit_count_model(Y, S)
    assert np.isnan(fit.weights[7]).all()
    assert np.isfinite(np.delete(fit.weights, 7, axis=0)).all()


def test_genes_that_no_type_changes_are_the_ones_left_out():
    S = np.vstack([np.eye(3), np.ones((4, 3))])
    np.testing.assert_array_equal(keep_informative(S), [0, 1, 2])


def test_profiles_that_differ_by_chance_alone_are_refused():
    S = np.column_stack([np.arange(1.0, 31), np.arange(1.0, 31) + 0.01 * (np.arange(30) % 2)])
    with pytest.raises(ValueError, match="beyond chance"):
        countmodel.fit_count_model(np.ones((4, 30)), S, S * 1e200)


def test_a_type_without_counts_in_any_gene_starts_at_nothing():
    assert countmodel.start(sparse.csr_array([[4.0], [8.0]]), np.array([[2.0, 0.0]])).tolist() == [
        [1.0, 0.0],
        [2.0, 0.0],
    ]


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="must share"):
        fit_count_model(np.ones((2, 3)), np.ones((4, 2)))
    with pytest.raises(ValueError, match="tell its types apart"):
        fit_count_model(np.ones((2, 3)), np.ones((3, 2)))


def test_without_variances_neither_factors_nor_dispersion_are_fitted():
    Y, S, _, _ = simulate(N=30, tau=0.5, phi=0.1)
    model = countmodel.fit_count_model(Y, S).model
    assert model.tau == model.dispersion == 0
    assert not model.log_p.any()


def test_what_spots_share_is_found_from_real_rows_with_counts():
    rng = np.random.default_rng(0)
    S = rng.gamma(0.5, 1.0, (60, 3))
    Y = rng.poisson(300 * rng.dirichlet(np.ones(3), 2 * MAX_SPOTS) @ S.T)
    sample = _sample(Y, np.arange(60)).toarray()
    assert len(sample) == MAX_SPOTS
    assert set(map(bytes, sample)) <= set(map(bytes, Y.astype(float)))
    wide = np.zeros((60 * MAX_SPOTS, 60), dtype=np.int64)
    wide[np.arange(60) * MAX_SPOTS + 7] = Y[:60]
    np.testing.assert_array_equal(_sample(sparse.csr_array(wide), np.arange(60)).toarray(), Y[:60])


def test_bending_is_the_curvature_of_tempered_evidence_where_the_factor_is_too_small():
    rng = np.random.default_rng(0)
    observed, expected, v = rng.gamma(2.0, 20.0, 50), rng.gamma(1.0, 5.0, 50), rng.gamma(1.0, 0.5, 50)

    def evidence(log_p):
        e = expected * np.exp(log_p)
        return (observed - e) / (1 + e * v)

    fit = PooledFit(observed, expected, expected, np.eye(1)).tempered(v)
    curvature = -(evidence(1e-5) - evidence(-1e-5)) / 2e-5
    above = observed > expected
    np.testing.assert_allclose((bending(fit) * fit.trust * expected)[above], curvature[above], rtol=1e-6)
    assert (bending(fit)[~above] == 1).all()
