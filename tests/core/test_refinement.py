"""Gene sets: activities are affine in abundance, shares are exact where mixing is, sets change as the rules say."""

import numpy as np
from scipy import sparse
from scipy.stats import multivariate_normal

from unmix.core.markers import Markers
from unmix.core.refinement import (
    EVENNESS,
    Thresholds,
    _background,
    _likeliest_ridge,
    refine_sets,
    scale_activities,
    set_activities,
)


def statistics(genes: int, groups: int) -> Markers:
    zero = np.zeros((genes, groups))
    return Markers(zero.copy(), zero + 1, zero + 1, zero.copy(), zero.copy(), zero.copy(), zero.copy())


def test_activities_estimate_the_shares_of_pure_markers_of_any_strength():
    rng = np.random.default_rng(0)
    truth = np.vstack([np.eye(4), rng.dirichlet(np.full(4, 0.2), 200)])
    sets = np.kron(np.eye(4), np.ones((5, 1)))
    Y = sparse.csr_array(truth @ (sets * rng.gamma(2, 1, (20, 1))).T)
    estimates = scale_activities(set_activities(Y, sets, rng))
    assert np.sqrt(((estimates - truth) ** 2).mean()) < 0.02


def test_noise_of_absent_types_does_not_add_up():
    """The mean estimate of an absent type is zero, as noise of either sign counts; cut at zero it would not be."""
    rng = np.random.default_rng(2)
    truth = np.repeat(np.eye(8), 60, axis=0)
    sets = np.kron(np.eye(8), np.ones((10, 1)))
    Y = sparse.csr_array(rng.poisson(truth @ (4.0 * sets).T + 1.0).astype(float))
    estimates = scale_activities(set_activities(Y, sets, rng))
    assert np.abs(estimates[truth == 0].mean()) < 0.01
    assert np.abs(np.maximum(estimates, 0)[truth == 0].mean()) > 0.02


def test_a_background_is_not_chosen_by_its_own_noise():
    """Where all rows are alike, the level of the lowest tenth by other genes is that of all rows."""
    rng = np.random.default_rng(3)
    Y = sparse.csr_array(rng.poisson(2.0, (2000, 20)).astype(float))
    level = _background(Y, np.ones((20, 1)), rng)
    np.testing.assert_allclose(level, Y.sum() / 2000, rtol=0.01)
    chosen = np.sort(np.asarray(Y.sum(axis=1)).ravel())[:200].mean()
    assert chosen < 0.8 * level


def test_activities_do_not_depend_on_the_unit_of_expression():
    Y = np.random.default_rng(1).gamma(1, 1, (100, 6))
    sets = np.kron(np.eye(2), np.ones((3, 1)))
    reference = set_activities(sparse.csr_array(Y), sets, np.random.default_rng(0))
    again = set_activities(sparse.csr_array(7 * Y), sets, np.random.default_rng(0))
    np.testing.assert_allclose(again, reference)
    np.testing.assert_allclose(np.maximum(reference, 0).mean(axis=0), 1)
    assert (reference < 0).any()


def test_sets_gain_free_markers_and_lose_falling_genes():
    markers = statistics(8, 2)
    sets = np.zeros((8, 2))
    sets[:3, 0] = sets[3:6, 1] = 1
    markers.log_fold_change[:, 0] = [2, 2, -1, 3, 0, 0, 2, 2]
    for name, value in (("specificity", 1), ("share", 1), ("score", 5)):
        getattr(markers, name)[:, 0] = value
    markers.qval[:, 0] = 0
    markers.qval[7, 0] = 0.5
    refined = refine_sets(sets, markers, np.array([0, -1]), Thresholds())
    assert np.flatnonzero(refined[:, 0]).tolist() == [0, 1, 6]
    np.testing.assert_array_equal(refined[:, 1], sets[:, 1])


def test_the_pull_to_equal_scales_is_the_likeliest():
    """The marginal law of what rows miss, evaluated as a multivariate normal one, has its largest density there."""
    rng = np.random.default_rng(0)
    A = rng.gamma(1.0, 1.0, (60, 4))
    n, missing = len(A), 1.0 - A.mean(axis=1)

    def log_density(ridge):
        C = np.eye(n) + A @ A.T / ridge
        s = missing @ np.linalg.solve(C, missing) / n
        return multivariate_normal(cov=s * C).logpdf(missing)

    best = max(n * EVENNESS, key=log_density)
    np.testing.assert_allclose(_likeliest_ridge(A, A.T @ A), best)


def test_unequal_scales_are_found_where_rows_tell_them_and_equal_ones_where_they_do_not():
    rng = np.random.default_rng(1)
    truth = rng.dirichlet(np.full(3, 0.5), 300)
    scales = np.array([0.7, 0.2, 0.1])
    np.testing.assert_allclose(
        scale_activities(truth / scales) / (truth / scales), np.tile(scales, (300, 1)), rtol=0.02
    )
    noise = 1.0 + rng.normal(size=(300, 3))
    assert _likeliest_ridge(noise, noise.T @ noise) > 100 * _likeliest_ridge(
        truth / scales, (truth / scales).T @ (truth / scales)
    )
