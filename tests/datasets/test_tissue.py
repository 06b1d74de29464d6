import numpy as np

from unmix.datasets._tissue import cells_in_spots, compositions, grid, smooth_fields


def test_grid_is_row_by_row():
    np.testing.assert_array_equal(grid(2, 3, 4), [[0, 0], [0, 1], [0, 2], [1, 0]])


def test_fields_have_the_covariance_of_their_length():
    rng = np.random.default_rng(0)
    places = np.array([[0, 0], [0, 2], [3, 0], [30, 0]])
    draws = np.hstack([smooth_fields(places, 100, 3.0, rng) for _ in range(100)])
    distance = np.linalg.norm(places[:, None] - places, axis=2)
    np.testing.assert_allclose(draws @ draws.T / draws.shape[1], np.exp(-(distance**2) / 18), atol=0.05)


def test_compositions_are_the_softmax_of_the_largest():
    fields = np.array([[0.0, 1.0, -1.0], [2.0, 0.0, 1.0]])
    abundance = np.array([1.0, 2.0, 1.0])
    full = abundance * np.exp(2 * fields)
    np.testing.assert_allclose(compositions(fields, abundance, 3), full / full.sum(axis=1, keepdims=True))
    kept = full * [[1, 1, 0], [1, 0, 1]]
    np.testing.assert_allclose(compositions(fields, abundance, 2), kept / kept.sum(axis=1, keepdims=True))


def test_cells_follow_the_proportions():
    proportions = np.repeat([[0.2, 0.8, 0.0]], 4000, axis=0)
    cells = cells_in_spots(proportions, 5.0, np.random.default_rng(0))
    assert cells.sum(axis=1).min() >= 1
    np.testing.assert_allclose(cells.mean(axis=0), [1, 4, 0], atol=0.15)
