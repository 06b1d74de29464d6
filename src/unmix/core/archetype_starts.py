"""Where a fit of archetypes starts: rows far from each other, and a sample of the rows to run the starts on."""

from typing import Any

import numpy as np

from unmix.core.archetype_weights import (
    over_rows,
    row_squares,
    some_rows,
    squared_distances,
    squared_residuals,
    weigh_archetypes,
)

CORESET_SHARE = 0.1
CORESET_BOUNDS = (1_000, 20_000)


def furthest_sum(X: Any, n: int, rng: np.random.Generator) -> np.ndarray:
    """Return n distinct rows, each in turn the one with the largest sum of distances to the others chosen.

    The first is drawn at random; ten rounds more replace the one chosen longest ago (Morup and Hansen, 2012).
    """
    chosen = [int(rng.integers(X.shape[0]))]
    total = _distances(X, chosen[0])
    for k in range(1, n + 10):
        if k >= n:
            total -= _distances(X, chosen.pop(0))
        open_rows = total.copy()
        open_rows[chosen] = -np.inf
        chosen.append(int(open_rows.argmax()))
        total += _distances(X, chosen[-1])
    return np.array(chosen)


def archetypal_plus_plus(X: Any, n: int, rng: np.random.Generator, weights: np.ndarray | None = None) -> np.ndarray:
    """Return n distinct rows, each drawn in proportion to its squared distance from the hull of those before.

    (Mair and Sjolund, Archetypal Analysis++, 2023.)
    """
    w = np.ones(X.shape[0]) if weights is None else weights
    chosen: list[int] = []
    distance = np.ones(X.shape[0])
    for _ in range(n):
        p = distance * w
        p[chosen] = 0.0
        if p.sum() <= 0:
            p = np.ones(X.shape[0])
            p[chosen] = 0.0
        chosen.append(int(rng.choice(X.shape[0], p=p / p.sum())))
        Z = some_rows(X, np.array(chosen))
        distance = squared_residuals(X, weigh_archetypes(X, Z), Z)
    return np.array(chosen)


def coreset_rows(
    X: Any, coreset: int | None, least: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray] | None:
    """Return rows drawn half uniformly, half by squared distance from the mean, and weights that undo it; `least` or more."""
    n = X.shape[0]
    size = max(int(np.clip(CORESET_SHARE * n, *CORESET_BOUNDS)) if coreset is None else coreset, least)
    if size >= n:
        return None
    squares = over_rows(row_squares, X, n_jobs=1)
    p = 0.5 / n + 0.5 * squares / max(squares.sum(), np.finfo(float).tiny)
    p /= p.sum()
    rows = np.sort(rng.choice(n, size, replace=False, p=p))
    return rows, 1.0 / (size * p[rows])


def _distances(X: Any, row: int) -> np.ndarray:
    """Return the distances of all rows from one of them."""
    if isinstance(X, np.ndarray):
        return np.sqrt(((X - X[row]) ** 2).sum(axis=1))
    distances: np.ndarray = np.sqrt(squared_distances(X, some_rows(X, np.array([row]))).ravel())
    return distances
