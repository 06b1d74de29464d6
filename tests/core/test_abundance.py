import numpy as np
import pytest
from scipy import sparse, stats

from unmix.core._abundance_kernels import propagate_rows, truncated_moments
from unmix.core._countmodel_kernels import fit_rows
from unmix.core.abundance import Abundance, estimate_abundance, fit_slab, posterior


def rows_of(Y):
    Y = sparse.csr_array(Y.astype(float))
    return Y.indptr.astype(np.int64), Y.indices.astype(np.int64), Y.data


def tissue(rng, N=300, G=150, depth=300.0):
    """Spots whose amounts are drawn from the prior itself: rare and frequent types, two of them alike."""
    S = rng.gamma(0.5, 1.0, (G, 5)) + 0.02
    S[:, 1] = S[:, 0] * rng.lognormal(0.0, 0.5, G)
    S /= S.sum(axis=0)
    pi = np.array([0.7, 0.3, 0.2, 0.5, 0.1])
    amount = np.array([0.5, 0.3, 0.5, 0.25, 0.6]) * np.abs(rng.normal(1.0, 0.35, (N, 5)))
    x = (rng.random((N, 5)) < pi) * amount
    x = x[x.sum(axis=1) > 0]
    F = x / x.sum(axis=1, keepdims=True)
    rows = rows_of(rng.poisson(depth * F @ S.T))
    W = fit_rows(*rows, S, 0.0, np.full(F.shape, depth / 5), 50)[0]
    return rows, S, F, W


def by_grid(H, b, pi, mu, s):
    """Moments of two amounts by summing over a fine grid and the four patterns of presence."""
    x = np.linspace(0.0, 3.0, 1501)
    mass = [stats.norm.pdf(x, m, np.sqrt(v)) / stats.norm.sf(0, m, np.sqrt(v)) for m, v in zip(mu, s, strict=True)]
    weight = [np.concatenate([[1 - p], p * f * (x[1] - x[0])]) for p, f in zip(pi, mass, strict=True)]
    X = np.concatenate([[0.0], x])
    log = (
        b[0] * X[:, None] + b[1] * X[None] - 0.5 * H[0, 0] * X[:, None] ** 2 - 0.5 * H[1, 1] * X[None] ** 2
        - H[0, 1] * X[:, None] * X[None]
    )  # fmt: skip
    joint = np.exp(log - log.max()) * weight[0][:, None] * weight[1][None]
    joint /= joint.sum()
    return (
        np.array([(joint.sum(axis=1) * X).sum(), (joint.sum(axis=0) * X).sum()]),
        np.array([1 - joint[0].sum(), 1 - joint[:, 0].sum()]),
    )


@pytest.mark.parametrize(("m", "v"), [(1.0, 0.5), (-2.0, 0.3), (-9.0, 0.04), (5.0, 1.0)])
def test_moments_of_a_cut_normal(m, v):
    s = np.sqrt(v)
    cut = stats.truncnorm(-m / s, np.inf, loc=m, scale=s)
    first, second, tail = truncated_moments(m, v)
    np.testing.assert_allclose([first, second], [cut.mean(), cut.moment(2)], rtol=2e-2 if m < -5 else 1e-8)
    np.testing.assert_allclose(tail, stats.norm.logsf(-m / s), rtol=1e-6)


def test_the_slab_has_the_moments_asked_for():
    mu, s = np.array([0.3, -0.5, 1.0]), np.array([0.04, 0.3, 0.01])
    moments = np.array([truncated_moments(m, v)[:2] for m, v in zip(mu, s, strict=True)]).T
    found = fit_slab(*moments)
    np.testing.assert_allclose(found[0], mu, atol=5e-3)
    np.testing.assert_allclose(found[1], s, rtol=1e-2)


@pytest.mark.parametrize("correlation", [0.0, 0.6, 0.9])
def test_moments_agree_with_sums_over_a_grid(correlation):
    rng = np.random.default_rng(1)
    pi, mu, s = np.array([0.6, 0.2]), np.array([0.4, -0.3]), np.array([0.05, 0.3])
    for _ in range(5):
        d = rng.uniform(5.0, 30.0, 2)
        H = np.array([[d[0] ** 2, correlation * d[0] * d[1]], [correlation * d[0] * d[1], d[1] ** 2]])
        b = H @ rng.uniform(0.0, 0.6, 2)
        tau = np.ones((1, 2))
        present, first, _, mean, _ = propagate_rows(H[None], b[None], pi, mu, s, tau, np.zeros((1, 2)), 100)
        np.testing.assert_allclose(mean, present * first, atol=2e-4)
        true, there = by_grid(H, b, pi, mu, s)
        np.testing.assert_allclose(mean[0], true, atol=0.05 if correlation > 0.8 else 0.01)
        np.testing.assert_allclose(present[0], there, atol=0.15 if correlation > 0.8 else 0.03)


@pytest.mark.parametrize("amount", [0.08, 0.3])
def test_types_that_are_the_same_do_not_pass_an_amount_to_and_fro(amount):
    """As many sweeps more or fewer make no difference, and both together have the amount that the counts ask for."""
    pi, mu, s = np.full(2, 0.2), np.full(2, 0.55), np.full(2, 0.06)
    H = 3000.0 * np.ones((1, 2, 2)) + 1e-3 * np.eye(2)
    found = [
        propagate_rows(
            H, np.full((1, 2), 3000.0 * amount), pi, mu, s, np.tile(1 / s, (1, 1)), np.tile(mu / s, (1, 1)), n
        )
        for n in (100, 101, 140)
    ]
    true, _ = by_grid(H[0], np.full(2, 3000.0 * amount), pi, mu, s)
    for present, _, _, mean, _ in found:
        assert abs(mean.sum() - true.sum()) < 0.015  # less than a standard deviation of what the counts say
        np.testing.assert_allclose(mean, found[0][3], atol=2e-3)
        np.testing.assert_allclose(present, found[0][0], atol=0.05)


def test_posterior_means_are_nearer_to_the_truth_and_presence_can_be_believed():
    rng = np.random.default_rng(0)
    rows, S, F, W = tissue(rng)
    prior = estimate_abundance(rows, S, 0.0, W, np.ones(5))
    found = posterior(rows, S, 0.0, W, prior)

    def error(weights):
        return np.sqrt(np.mean((weights / weights.sum(axis=1, keepdims=True) - F) ** 2))

    assert error(found.weights) < 0.95 * error(W)
    brier, of_likeliest = (np.mean((p - (F > 0)) ** 2) for p in (found.present, (W > 0).astype(float)))
    assert brier < 0.5 * of_likeliest
    assert abs(found.present.mean() - (F > 0).mean()) < 0.05
    assert (F[found.present > 0.95] > 0).mean() > 0.9
    assert (F[found.present < 0.1] > 0).mean() < 0.1
    assert np.abs(prior.present - (F > 0).mean(axis=0)).max() < 0.2
    assert (found.weights[found.present < 0.05] == 0).all()


def test_where_counts_decide_the_prior_does_nothing():
    rows, S, _, W = tissue(np.random.default_rng(2), N=40, depth=1e6)
    found = posterior(rows, S, 0.0, W, estimate_abundance(rows, S, 0.0, W, np.ones(5)))
    np.testing.assert_allclose(found.weights, W, atol=4e-3 * W.sum(axis=1).max())


def test_a_prior_is_not_learned_from_few_spots():
    rows, S, _, W = tissue(np.random.default_rng(3), N=15)
    assert estimate_abundance(rows, S, 0.0, W, np.ones(5)) is None


def test_shared_errors_widen_the_posterior_up_to_the_prior():
    rows, S, _, W = tissue(np.random.default_rng(4), N=30)
    prior = Abundance(np.full(5, 0.5), np.full(5, 0.2), np.full(5, 0.1), np.ones(5))
    sd = []
    for size in (0.0, 1e-3, 1e3):
        errors = np.tile(size * S.sum(axis=0)[:, None] * np.eye(5), (len(W), 1, 1))
        found = posterior(rows, S, 0.0, W, prior, errors)
        sd.append(np.sqrt(np.einsum("ikk->ik", found.covariance)) / W.sum(axis=1)[:, None])
    assert (sd[1] >= sd[0] - 1e-9).all()
    assert (sd[2] >= sd[1] - 1e-9).all()
    assert np.isfinite(sd[2]).all()
    assert sd[2].max() < 40.0
