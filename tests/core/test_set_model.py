"""Types by gene sets: the steps equal plain formulas, shares are right in the limits, alpha follows the tissue."""

import numpy as np
import pytest
from scipy import sparse
from scipy.special import psi

from unmix.core import set_model
from unmix.core.set_model import (
    SetModel,
    choose_set_model,
    fit_set_model,
    held_out_likelihood,
    regress_profiles,
    set_shares,
)


def tissue(alpha: float, depth: float, n: int = 300, seed: int = 0):
    rng = np.random.default_rng(seed)
    S = rng.gamma(1.0, 1.0, (4, 40)) * 0.2 + np.kron(np.eye(4), np.full((1, 10), 3.0))
    S /= S.sum(axis=1, keepdims=True)
    truth = rng.dirichlet(np.full(4, alpha), n)
    totals = rng.lognormal(np.log(depth), 0.3, n)
    return rng.poisson((truth * totals[:, None]) @ S).astype(float), S, truth, totals


def test_steps_are_those_of_variational_bayes(monkeypatch):
    Y, S, truth, totals = tissue(0.5, 300)
    omega = np.random.default_rng(1).uniform(0.3, 1, 40)
    model = SetModel(S, omega, 0.4)
    rate, prior = S @ omega, model.prior
    np.testing.assert_allclose(prior.sum(), 4 * 0.4)
    theta = np.repeat(totals[:, None] / 4, 4, axis=1)
    for _ in range(set_model.FINAL_STEPS):
        z = theta * ((omega * Y / (theta @ S)) @ S.T)
        theta = np.exp(psi(prior + z + 1e-12)) / rate
        theta *= (totals / theta.sum(axis=1))[:, None]
    expected = (prior + z) / rate
    expected /= expected.sum(axis=1, keepdims=True)
    for X in (sparse.csr_array(Y), Y):
        np.testing.assert_allclose(set_shares(X, totals, model), expected, atol=2e-3)
    monkeypatch.setattr(set_model, "FINAL_TOL", 0.0)
    np.testing.assert_allclose(set_shares(Y, totals, model), expected, rtol=1e-7)


def test_one_round_is_expectation_and_maximisation():
    Y, S, truth, totals = tissue(0.5, 300)
    model = SetModel(S, np.ones(40), 1.0)
    theta, (counts, weight, fitted, square, gram) = set_model._round(Y, truth * totals[:, None], totals, model, 0)
    mu = (truth * totals[:, None]) @ S
    np.testing.assert_allclose(counts, S * (theta.T @ (Y / mu)), rtol=1e-9)
    np.testing.assert_allclose(weight, theta.sum(axis=0))
    omega = set_model._inverse_dispersion(S, fitted, square, gram, weight)
    np.testing.assert_allclose(omega, 1 / np.maximum(((Y - mu) ** 2).sum(axis=0) / mu.sum(axis=0), 1), rtol=1e-9)


def test_shares_are_the_truth_in_the_limit_of_many_counts_and_equal_without_any():
    Y, S, truth, totals = tissue(0.5, 1e6)
    model = SetModel(S, np.ones(40), 1.0)
    assert np.abs(set_shares(sparse.csr_array(Y), totals, model) - truth).max() < 0.01
    np.testing.assert_allclose(set_shares(sparse.csr_array((2, 40)), np.array([1.0, 5.0]), model), 0.25)


@pytest.mark.parametrize("alpha, expected", [(0.03, (0.03, 0.1)), (1.0, (0.3, 1.0))])
def test_alpha_follows_the_tissue(alpha, expected):
    Y, S, truth, totals = tissue(alpha, 150, n=500)
    noisy = truth + 0.05 * np.random.default_rng(2).normal(size=truth.shape)
    found = choose_set_model(sparse.csr_array(Y), totals, noisy, np.random.default_rng(0))
    assert found.alpha in expected
    shares = set_shares(sparse.csr_array(Y), totals, found)
    assert np.sqrt(((shares - truth) ** 2).mean()) < 0.09


def test_rounds_mend_noisy_estimates():
    Y, S, truth, totals = tissue(0.3, 1000)
    noisy = truth + 0.2 * np.random.default_rng(2).normal(size=truth.shape)
    shares = set_shares(sparse.csr_array(Y), totals, fit_set_model(sparse.csr_array(Y), totals, noisy, 0.3))
    assert np.sqrt(((shares - truth) ** 2).mean()) < 0.04


def test_held_out_likelihood_is_that_of_poisson_counts_weighted_by_gene():
    Y, S, truth, totals = tissue(0.5, 300, n=50)
    model = SetModel(S, np.ones(40), 0.5)
    a, b = np.arange(0, 40, 2), np.arange(1, 40, 2)
    parts = [(sparse.csr_array(Y[:, g]), g) for g in (a, b)]
    expected, omega = 0.0, np.random.default_rng(3).uniform(0.1, 1, 40)
    for (X, g), other in zip(parts, (b, a), strict=True):
        mu = (set_shares(X, totals, model.of(g)) * totals[:, None]) @ S[:, other]
        expected += ((Y[:, other] * np.log(mu) - mu) * omega[other]).sum()
    np.testing.assert_allclose(held_out_likelihood(*parts, totals, model, omega), expected)


def test_regression_on_the_truth_has_the_best_profiles_and_the_dispersion_of_the_rest(monkeypatch):
    """At the likeliest S every gene's score is zero where S > 0; a gene in bursts counts for less."""
    monkeypatch.setattr(set_model, "REGRESSION_STEPS", 3000)
    monkeypatch.setattr(set_model, "PRIOR_COUNTS", 1e-9)
    Y, S, truth, totals = tissue(0.5, 2000)
    Y[:, 7] *= 5
    model = regress_profiles(Y, totals, truth)
    theta = np.maximum(truth, 1e-3)
    theta *= (totals / theta.sum(axis=1))[:, None]
    score = theta.T @ (Y / (theta @ model.S)) / theta.sum(axis=0)[:, None]
    np.testing.assert_allclose(score[model.S > 1e-4], 1, atol=1e-3)
    assert (score < 1 + 1e-3).all()
    assert model.omega[7] < 0.3 < 0.7 < np.median(model.omega)


def test_no_profile_is_zero_where_the_tissue_has_the_gene():
    """A type that the estimates rule out of a gene may still come to express it."""
    Y, S, truth, totals = tissue(0.5, 300)
    Y[:, 3] = 0
    found = fit_set_model(sparse.csr_array(Y), totals, np.eye(4)[truth.argmax(axis=1)], 0.3)
    assert (found.S[:, 3] < 1e-20).all()
    assert (np.delete(found.S, 3, axis=1) > 0).all()
