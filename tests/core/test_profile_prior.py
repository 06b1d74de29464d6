import numpy as np
import pytest

from unmix.core import profile_prior
from unmix.core.profile_prior import (
    SCALES,
    ProfilePrior,
    covariances,
    estimate_prior,
    exposure_of_entries,
    mixed_ratios,
    posterior_moments,
    responsibilities,
    shrink_alike,
)
from unmix.core.shrinkage import shrink_profiles


def reference(rng, n, G=1500):
    """Two lineages; two subtypes of the first differ by little, in few genes."""
    mean = rng.lognormal(0.0, 1.0, G)
    lineage = mean[:, None] * rng.lognormal(0.0, 0.7, (G, 2))
    subtype = lineage[:, 0] * np.where(rng.random(G) < 0.1, rng.lognormal(0.0, 0.5, G), 1.0)
    truth = np.column_stack([lineage[:, 0], subtype, lineage[:, 1]])
    S = rng.poisson(truth * n) / n
    return truth, S, np.maximum(S, 0.5 / n) / n


def slope(S, truth):
    """How much of a difference between the subtypes is true."""
    d, w = S[:, 0] - S[:, 1], 1 / truth.mean(axis=1)
    return (w * d * (truth[:, 0] - truth[:, 1])).sum() / (w * d * d).sum()


def test_differences_between_subtypes_are_believed_as_far_as_they_are_true():
    truth, S, V = reference(np.random.default_rng(0), 30.0)
    alone = shrink_profiles(S, V)
    alike = shrink_alike(S, V, alone)
    assert slope(alone.mean, truth) < 0.75
    assert abs(slope(alike.mean, truth) - 1) < 0.1
    assert ((alike.mean - truth) ** 2).sum() < ((alone.mean - truth) ** 2).sum()


def test_posterior_variances_are_those_of_the_errors():
    truth, S, V = reference(np.random.default_rng(1), 30.0)
    alike = shrink_alike(S, V, shrink_profiles(S, V))
    known = alike.variance > 1e-6 * truth**2
    assert known.mean() > 0.9
    squares = (alike.mean - truth)[known] ** 2 / alike.variance[known]
    assert 0.6 < np.median(squares) / 0.455 < 1.6  # .455 is the median of chi-square


def test_a_marker_of_few_counts_is_drawn_to_what_markers_are():
    rng = np.random.default_rng(6)
    mean = rng.lognormal(0.0, 1.0, 800)
    truth = np.repeat(mean[:, None], 6, axis=1)
    for k in range(6):
        truth[rng.permutation(800)[:40], k] *= 8
    exposure = np.array([0.5, 30, 30, 30, 30, 30])
    S = rng.poisson(truth * exposure) / exposure
    V = np.maximum(S, 0.1 / exposure) / exposure
    alone = shrink_profiles(S, V)
    alike = shrink_alike(S, V, alone)
    log_error = [np.abs(np.log(found.mean[:, 0] / truth[:, 0])).mean() for found in (alone, alike)]
    assert log_error[1] < 0.8 * log_error[0]
    high = alike.mean[:, 0] > 3 * mean
    assert high.any()
    assert 0.7 < truth[high, 0].sum() / alike.mean[high, 0].sum() < 1.3


def quadrature(n, expected, C):
    """Marginal likelihood, and moments of exp(d), for two types on a grid."""
    x = np.linspace(-9, 9, 721)
    a, b = np.meshgrid(x, x, indexing="ij")
    P = np.linalg.inv(C)
    log_p = -0.5 * (P[0, 0] * a * a + 2 * P[0, 1] * a * b + P[1, 1] * b * b) + 0.5 * np.linalg.slogdet(P)[1]
    log_p = log_p - np.log(2 * np.pi) + n[0] * a - expected[0] * np.exp(a) + n[1] * b - expected[1] * np.exp(b)
    weight = np.exp(log_p)
    total = weight.sum() * (x[1] - x[0]) ** 2
    share = weight / weight.sum()
    return np.log(total), np.array([(share * np.exp(a)).sum(), (share * np.exp(b)).sum()])


@pytest.mark.parametrize("n", [(0.0, 3.0), (12.0, 9.0), (40.0, 0.0)])
def test_bounds_and_means_against_quadrature(n):
    counts, expected = np.array([n]), np.array([[4.0, 6.0]])
    U = np.array([[1.0, 0.6], [0.6, 1.0]])
    C = covariances(U)[1]
    state = profile_prior._State.begin(counts, expected, len(C))
    state.improve(counts, expected, C, np.ones((1, len(C)), bool), 60)
    for j in range(len(C)):
        exact, means = quadrature(counts[0], expected[0], C[j])
        assert exact - 0.15 < state.bounds[0, j] <= exact + 1e-6
        found = np.exp(state.d[0, j] + state.v[0, j] / 2)
        np.testing.assert_allclose(found, means, rtol=0.06)


def test_posteriors_are_stationary(monkeypatch):
    monkeypatch.setattr(profile_prior, "NEAR", -1.0)
    rng = np.random.default_rng(2)
    n, expected = rng.poisson(3.0, (20, 4)).astype(float), rng.gamma(2.0, 2.0, (20, 4))
    root = rng.normal(size=(4, 4))
    C = covariances(root @ root.T)[1]
    state = profile_prior._State.begin(n, expected, len(C))
    P = state.improve(n, expected, C, np.ones((20, len(C)), bool), 300)
    means = expected[:, None] * np.exp(state.d + state.v / 2)
    slopes = np.einsum("jkl,gjl->gjk", P, state.d) - n[:, None] + means
    spread = np.linalg.inv(P + means[..., None] * np.eye(4))
    assert np.abs(np.einsum("gjkl,gjl->gjk", spread, slopes)).max() < 5e-3
    np.testing.assert_allclose(np.einsum("gjkk->gjk", spread), state.v, atol=5e-3)


def test_em_raises_the_bound(monkeypatch):
    rng = np.random.default_rng(3)
    truth, S, _ = reference(rng, 5.0, G=300)
    n, expected = S * 5.0, np.repeat(truth.mean(axis=1, keepdims=True), 3, axis=1) * 5.0
    values = []
    for rounds in (1, 2, 4, 8, 16, 32):
        monkeypatch.setattr(profile_prior, "N_EM", rounds)
        prior = estimate_prior(n, expected)
        at = expected * np.exp(prior.offset)
        C = covariances(prior.U)[1]
        state = profile_prior._State.begin(n, at, len(C))
        state.improve(n, at, C, np.ones(state.bounds.shape, bool), 60)
        log_p = state.bounds + np.log(prior.pi) + (n * prior.offset).sum(axis=1, keepdims=True)
        values.append(np.logaddexp.reduce(log_p, axis=1).sum())
    assert (np.diff(values) > -0.5).all()
    assert values[-1] > values[0] + 10


def test_expected_counts_of_a_type_add_up_to_those_seen():
    truth, S, _ = reference(np.random.default_rng(4), 5.0, G=600)
    n, expected = S * 5.0, np.repeat(truth.mean(axis=1, keepdims=True), 3, axis=1) * 5.0
    n[:, 1] *= 0.7
    prior = estimate_prior(n, expected)
    found = (expected * posterior_moments(n, expected, prior)[0]).sum(axis=0)
    np.testing.assert_allclose(found, n.sum(axis=0), rtol=0.01)


def test_nothing_depends_on_the_order_of_types_and_genes():
    _, S, V = reference(np.random.default_rng(5), 8.0, G=300)
    genes, types = np.random.default_rng(0).permutation(300), np.array([2, 0, 1])
    one = shrink_alike(S, V, shrink_profiles(S, V)).mean
    S, V = S[np.ix_(genes, types)], V[np.ix_(genes, types)]
    np.testing.assert_allclose(shrink_alike(S, V, shrink_profiles(S, V)).mean, one[np.ix_(genes, types)], rtol=1e-6)


def test_a_prior_without_spread_leaves_the_gene_s_level_alone():
    pi = np.r_[1.0, np.full(len(SCALES) - 1 + 2 * len(profile_prior.BESIDE), 1e-12)]
    prior = ProfilePrior(np.eye(2), pi / pi.sum(), np.zeros(2))
    first, _ = posterior_moments(np.array([[300.0, 500.0]]), np.array([[400.0, 400.0]]), prior)
    np.testing.assert_allclose(first[0, 0], first[0, 1], rtol=0.3)
    np.testing.assert_allclose(first.mean(), 1.0, atol=0.02)


def test_responsibilities_are_shares():
    R = responsibilities(np.array([[-1000.0, -1001.0, -np.inf]]), np.full(3, 1 / 3))
    np.testing.assert_allclose(R, [[1 / (1 + np.exp(-1)), 1 / (1 + np.e), 0.0]])


def test_many_cells_leave_the_profiles_as_they_are():
    _, S, V = reference(np.random.default_rng(3), 1e6, G=200)
    np.testing.assert_allclose(shrink_alike(S, V, shrink_profiles(S, V)).mean, S, rtol=2e-2, atol=1e-3)


def test_profiles_without_sampling_are_left_alone():
    S = np.random.default_rng(4).gamma(1.0, 1.0, (20, 3))
    shrunk = shrink_profiles(S, np.zeros_like(S))
    assert shrink_alike(S, np.zeros_like(S), shrunk) is shrunk


def test_genes_whose_cells_scatter_count_less_and_more_so_where_expressed():
    rng = np.random.default_rng(7)
    S = rng.gamma(2.0, 5.0, (50, 4))
    psi = np.r_[np.zeros(25), np.full(25, 0.4)]
    V = S / 100 * (1 + psi[:, None] * S)
    E = exposure_of_entries(S, V, S, np.full(4, 100.0))
    np.testing.assert_allclose(E[:25], 100.0, rtol=1e-9)
    np.testing.assert_allclose(E[25:], 100 / (1 + 0.4 * S[25:]), rtol=0.2)


def test_a_type_that_goes_alone_needs_no_fit_of_all_types(monkeypatch):
    rng = np.random.default_rng(9)
    lineage = rng.integers(3, size=9)
    truth = rng.lognormal(0.0, 1.0, (900, 3))[:, lineage] * rng.lognormal(0.0, 0.2, (900, 9))
    truth *= np.where(rng.random((900, 9)) < 0.05, 8.0, 1.0)
    expected = np.broadcast_to(truth.mean(axis=1, keepdims=True), truth.shape) * rng.lognormal(2.0, 1.5, 9)
    n = rng.poisson(truth / truth.mean(axis=1, keepdims=True) * expected).astype(float)
    found = {}
    for near in (-1.0, profile_prior.NEAR):
        monkeypatch.setattr(profile_prior, "NEAR", near)
        prior = estimate_prior(n, expected)
        found[near] = prior.U, prior.pi, *posterior_moments(n, expected, prior)
    (U, pi, mean, square), (near_U, near_pi, near, near_square) = found.values()
    np.testing.assert_allclose(near_U, U, rtol=0.01, atol=1e-3)
    np.testing.assert_allclose(near_pi, pi, rtol=0.02, atol=1e-3)
    variance = square - mean**2
    assert (np.abs(near - mean) < 0.05 * np.sqrt(variance)).all()
    np.testing.assert_allclose(near_square - near**2, variance, rtol=0.1)


def test_a_reference_of_one_cell_again_and_again_has_a_prior_all_the_same():
    """Its sampling variances are 0, so that effective counts are beyond all precision."""
    rng = np.random.default_rng(0)
    expected = rng.gamma(2.0, 1e17, (40, 4))
    for n in (expected / 7, expected * rng.lognormal(0, 1e-9, (40, 4)), expected):
        prior = estimate_prior(n, expected)
        assert np.isfinite(prior.U).all()
        assert all(np.isfinite(part).all() for part in posterior_moments(n, expected, prior))


def few_cells_of_a_subtype(rng, G=2500):
    """Four types of many cells, and a fifth, much like the first, of three: most of its genes have no count."""
    mean = rng.lognormal(0.0, 1.0, G)
    truth = mean[:, None] * rng.lognormal(0.0, 0.8, (G, 5))
    truth[:, 4] = truth[:, 0] * rng.lognormal(0.0, 0.3, G)
    exposure = np.array([30.0, 30, 30, 30, 0.2])
    return truth, rng.poisson(truth * exposure) / exposure, exposure


def test_three_cells_of_a_subtype_are_taken_for_its_like_and_no_noise_for_its_own():
    truth, S, exposure = few_cells_of_a_subtype(np.random.default_rng(3))
    V = np.maximum(S, 0.1 / exposure) / exposure
    found = shrink_alike(S, V, shrink_profiles(S, V)).mean
    weight = 1 / truth.mean(axis=1)
    error = (weight * (found[:, 4] - truth[:, 4]) ** 2).sum()
    assert error < 1.5 * (weight * (truth[:, 0] - truth[:, 4]) ** 2).sum()  # of the first type in its place
    difference = found[:, 4] - found[:, 0]
    assert (weight * difference * (truth[:, 4] - truth[:, 0])).sum() > 0.3 * (weight * difference**2).sum()


def test_the_mixture_of_others_is_the_likeliest():
    truth, S, exposure = few_cells_of_a_subtype(np.random.default_rng(4))
    n, expected = S * exposure, truth.mean(axis=1, keepdims=True) * exposure
    mixed, ratio = mixed_ratios(n, expected), (n + 0.5) / (expected + 0.5)
    share = np.linalg.lstsq(ratio[:, :4], mixed[:, 4], rcond=None)[0]
    np.testing.assert_allclose(ratio[:, :4] @ share, mixed[:, 4], rtol=1e-6)
    assert share.min() > -1e-6
    counts = ratio[:, :4] * expected[:, [4]]
    gradient = counts.T @ (n[:, 4] / (counts @ share) - 1) / counts.sum(axis=0)
    assert np.abs(gradient[share > 0.01]).max() < 1e-2
    assert gradient.max() < 1e-2  # no type left out would add to the likelihood


def test_single_cells_that_hold_another_type_s_marker_do_not_take_it_away():
    rng = np.random.default_rng(5)
    G, exposure = 600, np.array([0.3, 30.0, 30.0, 30.0])
    mean = rng.lognormal(0.0, 1.0, G)
    truth = mean[:, None] * rng.lognormal(0.0, 0.3, (G, 4))
    truth[0] = 3000.0, 60.0, 60.0, 60.0
    S = rng.poisson(truth * exposure) / exposure
    V = np.maximum(S, 0.1 / exposure) / exposure
    V[0, 0] = (0.3 * S[0, 0]) ** 2  # three cells that agree
    V[0, 1:] = (0.5 * S[0, 1:]) ** 2  # many without the gene, and some with a lot of it
    E = exposure_of_entries(S, V, S, exposure)
    assert 5 < S[0, 0] * E[0, 0] < 20  # counts' worth: 11 by its own cells
    assert shrink_alike(S, V, shrink_profiles(S, V)).mean[0, 0] > 1500
