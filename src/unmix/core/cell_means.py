"""Profiles of types as means over their cells, and the sampling variances of these.

Symbols: y_cg is the count of gene g in cell c of a type, n_c its depth, x_cg = y_cg / n_c; n cells, D = sum_c n_c.

    a_g = sum_c x_cg / n        every cell counts the same
    b_g = sum_c y_cg / D        every count counts the same

Both are estimates of the type's profile. Where a gene is held by few counts b is better, often by far: a cell of a hundred counts
in which there is one of the gene adds as much to a as ten such counts of a cell of a thousand. Where cells differ in how much
they have of a gene a is better, because one deep cell can decide b. So every gene gets the mean of both that has the least
variance over the types,

    S_g = (1 - lambda_g) b_g + lambda_g a_g,   lambda_g = (V_bb - V_ab) / (V_aa + V_bb - 2 V_ab)  cut to [0, 1],

with the variances and the covariance of the means from the cells, each type's weighed by its number of cells. Where all cells
have the same depth a and b are one.
"""

import numpy as np

from unmix.core.cell_moments import SCALE, Moments

PRIOR_DF = 10.0
"""Weight, in cells, of the variance expected from a gene's Fano factor against a type's own."""


def means_by_number(m: Moments, few: int) -> tuple[np.ndarray, np.ndarray]:
    """Return means of least variance for types of fewer than `few` cells and plain ones for the others, with variances.

    With many cells sampling is small either way, and the plain mean does not depend on how a cell's depth goes with its state.
    """
    is_few = (m.n_cells < few)[:, None]
    (a, of_a), (b, of_b) = plain_means(m), least_variance_means(m)
    return np.where(is_few, b, a), np.where(is_few, of_b, of_a)


def plain_means(m: Moments) -> tuple[np.ndarray, np.ndarray]:
    """Return a in counts per `SCALE`, and its sampling variance, shape (K, G).

    Examples
    --------
    >>> from unmix.core.cell_moments import moments
    >>> plain_means(moments(np.array([[1.0, 3.0], [200.0, 200.0]]), np.array([0, 0]), 1))[0]
    array([[3750., 6250.]])
    """
    n = np.maximum(m.n_cells, 1.0)[:, None]
    mean = SCALE * m.share / n
    within = np.maximum(SCALE**2 * m.share_squared - n * mean**2, 0.0)  # sums of squares about the type's mean
    return mean, _moderated_variances(mean, within, m) / n


def least_variance_means(m: Moments) -> tuple[np.ndarray, np.ndarray]:
    """Return S in counts per `SCALE`, and its sampling variance, shape (K, G).

    The variance is that of the cells, drawn with `PRIOR_DF` cells' weight towards Fano factor x mean, as for the plain mean; a
    Fano factor F of the counts gives S the variance `F S ((1 - lambda^2) / D + lambda^2 sum_c (1 / n_c) / n^2)`.

    Examples
    --------
    >>> from unmix.core.cell_moments import moments
    >>> cells = np.random.default_rng(0).poisson(np.array([[0.1, 9.9]]) * np.array([[1], [1], [100], [100]]))
    >>> m = moments(cells, np.zeros(4, dtype=int), 1)
    >>> bool(least_variance_means(m)[1][0, 0] < plain_means(m)[1][0, 0])
    True
    """
    n, D = np.maximum(m.n_cells, 1.0)[:, None], np.where(m.depth > 0, m.depth, 1.0)[:, None]
    a, b = m.share / n, m.count / D
    unbiased = n / np.maximum(n - 1, 1)
    lost = np.maximum(1 - m.depth_squared[:, None] / D**2, 1e-12)  # of the squares about b, by fitting b
    aa = np.maximum(m.share_squared - n * a**2, 0.0) * unbiased / n**2
    bb = np.maximum(m.count_squared - 2 * b * m.count_depth + b**2 * m.depth_squared[:, None], 0.0) / (lost * D**2)
    ab = (m.count_share - m.count * b) * unbiased / (n * D)
    cells = np.where(n > 1, n, 0.0)
    gain, total = (cells * (bb - ab)).sum(axis=0), (cells * (aa + bb - 2 * ab)).sum(axis=0)
    weight = np.clip(gain / np.where(total > 0, total, 1.0), 0.0, 1.0) * (total > 0)
    S = (1 - weight) * b + weight * a
    own = (1 - weight) ** 2 * bb + 2 * weight * (1 - weight) * ab + weight**2 * aa
    counting = (1 - weight**2) / D + weight**2 * m.inverse_depth[:, None] / n**2
    df = np.maximum(D**2 / np.maximum(m.depth_squared[:, None], 1e-300) - 1, 0.0) * (n > 1)
    seen, expected = (df * own / counting).sum(axis=0), (df * S).sum(axis=0)
    overall = seen.sum() / expected.sum() if expected.sum() > 0 else 1.0
    fano = np.where(expected > 0, seen / np.where(expected > 0, expected, 1.0), overall)
    floor = m.count.sum(axis=0) / m.depth.sum() / m.n_cells.sum()  # one count's worth, spread over all cells
    prior = fano * np.maximum(S, floor) * counting
    return SCALE * S, SCALE**2 * (df * own + PRIOR_DF * prior) / (df + PRIOR_DF)


def _moderated_variances(mean: np.ndarray, within: np.ndarray, m: Moments) -> np.ndarray:
    """Variance of a cell about its type's mean, drawn towards Fano factor x mean with `PRIOR_DF` cells' weight.

    A gene's Fano factor is pooled over the types, so that an entry seen in no cell of a small type has a variance too.
    Where no type has two cells, it is that of counting alone.
    """
    n_cells = np.maximum(m.n_cells, 1.0)
    total = within.sum(axis=0)
    expected = ((n_cells - 1.0)[:, None] * mean).sum(axis=0)
    several = expected.sum() > 0
    overall = total.sum() / expected.sum() if several else SCALE * m.n_cells.sum() / m.depth.sum()
    fano = np.where(expected > 0, total / np.where(expected > 0, expected, 1.0), overall)
    floor = (n_cells @ mean) / n_cells.sum() / n_cells.sum()  # one count's worth, spread over all cells
    prior = fano * np.maximum(mean, floor)
    df = n_cells[:, None] - 1.0
    return (within + PRIOR_DF * prior) / (df + PRIOR_DF)
