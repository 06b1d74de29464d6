"""Smooth fields over a graph: the minimum of the objective, its limits, and a strength chosen by rows left out."""

import numpy as np
import pytest
from scipy import sparse

from unmix.core.field import STRENGTHS, choose_field, smooth_field


def grid(side: int) -> sparse.csr_array:
    at = np.array([(i, j) for i in range(side) for j in range(side)])
    return sparse.csr_array((np.abs(at[:, None] - at[None]).sum(axis=2) == 1).astype(float))


def waves(side: int) -> np.ndarray:
    at = np.array([(i, j) for i in range(side) for j in range(side)]) / side
    return np.column_stack([np.sin(4 * at[:, 0]), np.cos(4 * at[:, 1]), at[:, 0] * at[:, 1]])


@pytest.mark.parametrize("strength", [0.5, 8.0])
def test_the_field_solves_the_normal_equations(strength):
    rng, A = np.random.default_rng(0), grid(6)
    X, own = rng.normal(size=(36, 3)), rng.uniform(0.2, 1.0, 36)
    dense = A.toarray()
    L = (np.diag(dense.sum(axis=1)) - dense) / dense.sum(axis=1).mean()
    expected = np.linalg.solve(np.diag(own) + strength * L, own[:, None] * X)
    np.testing.assert_allclose(smooth_field(X, A, strength, own), expected, atol=1e-6)


def test_limits_of_the_strength():
    X, A = np.random.default_rng(0).normal(size=(25, 2)), grid(5)
    np.testing.assert_array_equal(smooth_field(X, A, 0.0), X)
    np.testing.assert_allclose(smooth_field(X, A, 1e8), np.tile(X.mean(axis=0), (25, 1)), atol=1e-5)
    rough = [((A @ (s := smooth_field(X, A, t)) / A.sum(axis=1)[:, None] - s) ** 2).sum() for t in STRENGTHS]
    assert (np.diff(rough) < 0).all()


def test_rows_without_neighbours_do_not_change_the_others():
    X, A = np.random.default_rng(0).normal(size=(36, 2)), grid(6)
    alone = np.vstack([X, X + 3])
    beside = sparse.csr_array(sparse.block_diag([A, np.zeros((36, 36))]))
    found = smooth_field(alone, beside, 2.0)
    np.testing.assert_allclose(found[:36], smooth_field(X, A, 2.0), atol=1e-6)
    np.testing.assert_allclose(found[36:], alone[36:], atol=1e-6)


def test_rotation_shift_scale_and_direction_of_edges_are_immaterial():
    rng, A = np.random.default_rng(0), grid(6)
    X, Q = rng.normal(size=(36, 3)), np.linalg.qr(rng.normal(size=(3, 3)))[0]
    plain = smooth_field(X, A, 2.0)
    np.testing.assert_allclose(smooth_field(X @ Q + 5.0, A, 2.0), plain @ Q + 5.0, atol=1e-6)
    np.testing.assert_allclose(smooth_field(X, 7.0 * A, 2.0), plain, atol=1e-6)
    np.testing.assert_allclose(smooth_field(X, sparse.csr_array(sparse.triu(A)), 2.0), plain, atol=1e-6)


def test_rows_without_a_weight_follow_their_neighbours_and_lonely_rows_stay():
    A = sparse.csr_array(sparse.block_diag([grid(3), np.zeros((1, 1))]))
    X, own = np.r_[np.arange(9.0), 40.0][:, None], np.ones(10)
    X[4], own[[4, 9]] = 1000.0, 0.0
    field = smooth_field(X, A, 0.1, own)
    assert field[4, 0] == pytest.approx(4.0, abs=0.5)
    assert field[9, 0] == pytest.approx(40.0)


@pytest.mark.parametrize("seed", range(3))
def test_noise_is_smoothed_where_the_field_is_smooth(seed):
    rng, A, S = np.random.default_rng(seed), grid(16), waves(16)
    noisy = S + 0.7 * rng.normal(size=S.shape)
    found = choose_field(noisy, A, np.ones(256), rng)
    assert found.strength >= 1
    assert ((smooth_field(noisy, A, found.strength) - S) ** 2).mean() < 0.3 * ((noisy - S) ** 2).mean()


@pytest.mark.parametrize("seed", range(5))
def test_nothing_is_smoothed_where_neighbours_say_nothing(seed):
    rng = np.random.default_rng(seed)
    assert choose_field(waves(16)[rng.permutation(256)], grid(16), np.ones(256), rng).strength == 0


def test_a_field_without_noise_and_one_of_few_rows_stay_as_they_are():
    rng = np.random.default_rng(0)
    assert choose_field(waves(16), grid(16), np.ones(256), rng).strength == 0
    assert choose_field(waves(2), grid(2), np.ones(4), rng).strength == 0
    assert choose_field(waves(16), sparse.csr_array((256, 256)), np.ones(256), rng).strength == 0
    assert choose_field(np.ones((256, 2)), grid(16), np.ones(256), rng).strength == 0
