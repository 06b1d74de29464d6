from dataclasses import replace

import numpy as np
import pytest
from scipy import sparse

from unmix.core.countmodel import fit_count_model
from unmix.core.shrinkage import shrink_one
from unmix.core.unknown import _mixture_within, find_unknown


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


def test_known_types_that_deviate_from_their_reference_are_no_unknown_type():
    """By a log-sd of a quarter in every gene of every type: their mean deviation had been a type of 12% of the tissue."""
    rng = np.random.default_rng(3)
    _, S, F = tissue(3, N=60)
    there = S * rng.lognormal(0, 0.25, S.shape)
    Y = rng.poisson(20_000 * F @ there.T).astype(float)
    assert not fit_count_model(Y, S, S / 2e5, unknown=True).model.unknown
    lacking = fit_count_model(Y, S[:, :-1], S[:, :-1] / 2e5, unknown=True)
    shares = lacking.weights[:, -1] / lacking.weights.sum(axis=1)
    assert np.corrcoef(shares, F[:, -1])[0, 1] > 0.95


def test_what_known_types_hold_of_a_profile():
    """All of a mixture; nothing of a profile without their markers, however hard it is tried; the rest is as it was."""
    rng = np.random.default_rng(0)
    S, own = rng.gamma(0.5, 1.0, (80, 3)), np.zeros(80)
    S[:3], S[70:] = np.eye(3), 0
    own[70:] = 1.0
    u = S @ [0.2, 0.3, 0.0] + own
    np.testing.assert_allclose(_mixture_within(u, np.full(80, 1e-6), S, 1.0), [0.2, 0.3, 0.0], atol=1e-3)
    assert _mixture_within(own, np.full(80, 1e-6), S, 1.0).max() < 1e-4
    doubled = S * [2.0, 1.0, 1.0]  # the size of a cell makes no difference
    np.testing.assert_allclose(_mixture_within(u, np.full(80, 1e-6), doubled, 1.0), [0.1, 0.3, 0.0], atol=1e-3)


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


def test_a_type_that_a_second_turn_does_not_support_leaves_nothing_behind(monkeypatch):
    """The factors of genes of the first turn were those of a tissue with the type."""
    Y, S, _ = tissue(N=60, tau=0.4)
    known, turns = S[:, :-1], []

    def supported_once(*args):
        found = find_unknown(*args)
        turns.append(found)
        return found if len(turns) == 1 else replace(found, gain=0.0)

    plain = fit_count_model(Y, known, known / 2e5)
    monkeypatch.setattr("unmix.core.countmodel_shared.find_unknown", supported_once)
    asked = fit_count_model(Y, known, known / 2e5, unknown=True)
    assert len(turns) == 2
    assert turns[0].supported
    assert asked.model.chosen["unknown"].startswith("not supported")
    np.testing.assert_array_equal(asked.weights, plain.weights)
    np.testing.assert_array_equal(asked.model.total, plain.model.total)
