"""Rows whose counts are so few that their place among the principal components is made by chance.

A row of n counts whose composition is that of the tissue's mean p has counts c_g ~ Poisson(n p_g), and its scores are
those of log(1 + T c / n). Their expected squared distance from the mean of all rows, noise(n), is what so few counts do by
themselves, through their variance and through the zeros that they leave. A row with noise(n) above the mean squared
distance of all rows from their mean is told apart better by that mean than by its own scores.
"""

import numpy as np

N_DEPTHS = 30
N_DRAWS = 50


def counting_noise(
    totals: np.ndarray,
    p: np.ndarray,
    loadings: np.ndarray,
    mean: np.ndarray,
    target: float,
    rng: np.random.Generator,
) -> np.ndarray:
    """Return the expected squared distance from the mean that counting alone gives every row, by simulation.

    Parameters
    ----------
    totals
        Counts of every row, over all genes.
    p
        Shares of the counts that the genes have in the tissue, (G,).
    loadings, mean
        Components of log(1 + y), G x k, and what is subtracted first.
    target
        Total T to which rows were scaled.
    rng
        Seed; 50 rows are drawn at each of 30 depths, between which the result is interpolated.
    """
    log_depth = np.linspace(np.log(totals.min()), np.log(totals.max()), N_DEPTHS)
    noise = np.zeros(N_DEPTHS)
    for i, n in enumerate(np.exp(log_depth)):
        scores = np.log1p(target / n * rng.poisson(n * p, (N_DRAWS, len(p)))) @ loadings - mean @ loadings
        noise[i] = (scores**2).sum(axis=1).mean()
    return np.interp(np.log(totals), log_depth, noise)


def noise_bar(noise: np.ndarray, squares: np.ndarray, totals: np.ndarray) -> float:
    """Return the noise up to which rows are deep: their mean squared distance from the mean.

    Where the median row has more noise than that mean has if rows count by their totals, most rows hold hardly any counts
    (spots off the tissue), and the bar is the latter: their own noise would set it otherwise.

    Examples
    --------
    >>> noise_bar(np.array([1.0, 1.0, 9.0]), np.array([5.0, 5.0, 8.0]), np.array([9.0, 9.0, 1.0]))
    6.0
    >>> noise_bar(np.array([1.0, 9.0, 9.0]), np.array([5.0, 8.0, 8.0]), np.array([6.0, 1.0, 1.0]))
    5.75
    """
    by_totals = float(np.average(squares, weights=totals))
    return by_totals if np.median(noise) > by_totals else float(squares.mean())
