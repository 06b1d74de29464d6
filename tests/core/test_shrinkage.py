import numpy as np
import pytest

from unmix.core.shrinkage import STRENGTHS, effective_exposure, shrink_profiles, shrink_sizes


def reference(rng, exposure, strength=3.0, G=800, K=4):
    """Profiles whose ratios to the gene's mean are Gamma(strength, strength), seen through Poisson counts."""
    mean = rng.gamma(0.5, 1.0, (G, 1)) + 0.05
    truth = mean * rng.gamma(strength, 1 / strength, (G, K))
    S = rng.poisson(truth * exposure) / exposure
    V = np.maximum(S, 0.5 / exposure) / exposure
    return truth, S, V


def test_exposure_is_mean_over_variance():
    S = np.array([[1.0, 2.0], [3.0, 8.0], [5.0, 4.0]])
    np.testing.assert_allclose(effective_exposure(S, S / np.array([7.0, 11.0])), [7.0, 11.0])


def test_shrinking_moves_every_type_towards_the_truth():
    exposure = np.array([2.0, 20.0, 200.0, 5.0])
    truth, S, V = reference(np.random.default_rng(0), exposure)
    shrunk = shrink_profiles(S, V)
    before, after = ((S - truth) ** 2).mean(0), ((shrunk.mean - truth) ** 2).mean(0)
    assert (after < before).all()
    assert after[0] < 0.6 * before[0]  # few cells gain most
    assert after[2] > 0.8 * before[2]  # many cells keep what they say


def test_posterior_variance_is_that_of_the_error():
    exposure = np.array([10.0, 20.0, 60.0, 30.0, 10.0, 20.0, 60.0, 30.0])  # the means of the genes are well known
    truth, S, V = reference(np.random.default_rng(1), exposure, K=8)
    shrunk = shrink_profiles(S, V)
    seen = S.any(axis=1)
    z = ((shrunk.mean - truth) / np.sqrt(np.where(seen[:, None], shrunk.variance, 1.0)))[seen]
    assert 0.86 < np.mean(np.abs(z) < 1.645) < 0.96


@pytest.mark.parametrize("strength", [0.3, 3.0, 30.0])
def test_the_strength_that_made_the_data_is_found(strength):
    _, S, V = reference(np.random.default_rng(2), np.full(8, 50.0), strength, G=1500, K=8)
    weights = shrink_profiles(S, V).strengths
    assert abs(weights @ np.log(STRENGTHS) - np.log(strength)) < np.log(2)  # candidates are a factor 3 apart


def test_exact_profiles_are_left_alone():
    S = np.random.default_rng(3).gamma(1.0, size=(30, 3))
    np.testing.assert_array_equal(shrink_profiles(S, np.zeros_like(S)).mean, S)


def test_units_do_not_matter():
    _, S, V = reference(np.random.default_rng(4), np.full(4, 10.0), G=100)
    a, b = shrink_profiles(S, V), shrink_profiles(S * 1e4, V * 1e8)
    np.testing.assert_allclose(b.mean, 1e4 * a.mean, rtol=1e-9)
    np.testing.assert_allclose(b.variance, 1e8 * a.variance, rtol=1e-6)


def test_sizes_end_as_uncertain_as_their_distance_from_the_truth():
    rng = np.random.default_rng(0)
    v = np.tile([0.001, 0.02, 0.2, 0.05, 0.5, 0.01], 4)
    off, said = [], []
    for _ in range(400):
        truth = rng.normal(8.0, 0.4, v.size)
        sizes, variances = shrink_sizes(np.exp(truth + np.sqrt(v) * rng.standard_normal(v.size)), v)
        off.append((np.log(sizes) - truth) ** 2)
        said.append(variances)
    np.testing.assert_allclose(np.mean(said, axis=0), np.mean(off, axis=0), rtol=0.2)
    assert (np.mean(said, axis=0) <= v).all()
