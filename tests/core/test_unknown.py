import numpy as np
import pytest
from scipy import sparse

from unmix.core.countmodel import fit_count_model
from unmix.core.shrinkage import shrink_one
from unmix.core.unknown import find_unknown


def tissue(seed=0, N=150, G=500, K=6, depth=3000.0, tau=0.0):
    rng = np.random.default_rng(seed)
    S = rng.gamma(0.3, 1.0, (G, K)) + 0.05
    S /= S.sum(axis=0)
    F = rng.dirichlet(np.full(K, 0.5), N)
    p = np.exp(rng.normal(0, tau, G))
    return rng.poisson(depth * (F @ S.T) * p).astype(float), S, F


@pytest.mark.parametrize("tau", [0.0, 0.4])
def test_a_missing_type_is_found_and_no_other_takes_its_place(tau):
    Y, S, F = tissue(tau=tau)
    known = S[:, :-1]
    fit = fit_count_model(Y, known, known / 2e5, unknown=True)
    assert fit.model.unknown
    shares = fit.weights / fit.weights.sum(axis=1, keepdims=True)
    assert np.corrcoef(shares[:, -1], F[:, -1])[0, 1] > 0.95
    slopes = [np.polyfit(F[:, -1], shares[:, k] - F[:, k], 1)[0] for k in range(5)]
    assert max(slopes) < 1 / 3
    assert np.corrcoef(fit.model.S[:, -1], S[fit.model.genes, -1])[0, 1] > (
        0.95 if tau == 0 else 0.8
    )  # factors blur profiles


@pytest.mark.parametrize("tau", [0.0, 0.4])
def test_where_nothing_is_missing_nothing_is_added(tau):
    Y, S, _ = tissue(seed=1, tau=tau)
    plain, asked = (fit_count_model(Y, S, S / 2e5, unknown=unknown) for unknown in (False, True))
    assert not asked.model.unknown
    assert asked.model.chosen["unknown"].startswith("not supported")
    np.testing.assert_array_equal(asked.weights, plain.weights)


def test_the_type_raises_the_likelihood_by_what_it_says():
    Y, S, _ = tissue(N=60)
    without = fit_count_model(Y, S[:, :-1], np.zeros((500, 5)), platform=False, dispersion=0.0, prior=False)
    found = find_unknown(sparse.csr_array(Y), S[:, :-1], without.weights, np.ones(500), 0.0, np.full(8, 1 / 8))
    A = np.column_stack([S[:, :-1], found.profile])
    mean = found.weights @ A.T + 1e-12
    assert (Y * np.log(mean) - mean).sum() == pytest.approx(found.log_likelihood, rel=1e-9)
    assert found.gain == pytest.approx(found.log_likelihood - without.log_likelihood.sum(), rel=1e-3)
    assert 0 < found.n_parameters <= 500 + 60


def test_an_unknown_type_needs_variances():
    Y, S, _ = tissue(N=5)
    with pytest.raises(ValueError, match="variances"):
        fit_count_model(Y, S, unknown=True)


def test_the_profile_lies_between_its_prior_and_the_data():
    m, n = np.full(3, 2.0), np.array([0.0, 4.0, 900.0])
    E = np.array([0.0, 1.0, 100.0])
    mean, variance, share = shrink_one(n, E, m, np.full(8, 1 / 8))
    assert mean[0] == pytest.approx(2.0)
    assert 2.0 < mean[1] < 4.0
    assert mean[2] == pytest.approx(9.0, rel=0.02)
    assert (np.diff(share) > 0).all()
    assert variance[2] < variance[1]
