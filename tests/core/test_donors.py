import numpy as np
import pytest

from unmix.core.donors import combine_donors


def donors(sd, noise, seed=0, K=5, D=6, G=3000):
    rng = np.random.default_rng(seed)
    S = rng.gamma(1.0, 10.0, (K, 1, G)) + 1
    x = S * (1 + sd * rng.normal(size=(K, D, G)))
    v = noise * S * np.ones((1, D, 1))
    return np.maximum(x + np.sqrt(v) * rng.normal(size=x.shape), 0), v, S[:, 0]


@pytest.mark.parametrize(("sd", "noise"), [(0.0, 0.5), (0.2, 0.0), (0.2, 0.5)])
def test_the_variance_between_donors_is_found(sd, noise):
    x, v, _ = donors(sd, noise)
    found = combine_donors(x, v, np.ones(x.shape[:2], dtype=bool))
    assert float(np.median(found.between)) == pytest.approx(sd**2, abs=0.006)


def test_errors_are_as_large_as_they_say():
    x, v, S = donors(0.2, 0.5)
    found = combine_donors(x, v, np.ones(x.shape[:2], dtype=bool))
    z = (found.profiles - S) / np.sqrt(found.variances)
    assert float(z.std()) == pytest.approx(1.0, abs=0.1)


def test_donors_that_are_sure_weigh_more_and_absent_ones_nothing():
    x, v, _ = donors(0.0, 0.5)
    v[:, 0] *= 1e-3
    present = np.ones(x.shape[:2], dtype=bool)
    present[2, 1] = False
    x[2, 1] = 1e6
    found = combine_donors(x, v, present)
    assert np.abs(found.profiles - x[:, 0]).mean() < 0.6 * np.abs(found.profiles - x[:, 3]).mean()
    assert found.profiles[2].max() < 1e5


def test_one_donor_says_nothing_of_others():
    x, v, _ = donors(0.2, 0.5, D=1)
    found = combine_donors(x, v, np.ones(x.shape[:2], dtype=bool))
    np.testing.assert_allclose(found.profiles, x[:, 0])
    np.testing.assert_allclose(found.variances, v[:, 0])
    assert (found.between == 0).all()
