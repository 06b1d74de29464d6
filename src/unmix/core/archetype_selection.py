"""How many archetypes: agreement of fits to random subsets of the rows, and variance explained in the other rows."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import linear_sum_assignment

from unmix.core.archetype_weights import squared_distances, squared_residuals, weigh_archetypes
from unmix.core.archetypes import fit_archetypes

MIN_STABILITY = 0.85
MIN_GAIN = 0.02
SUBSET = 0.8


@dataclass(frozen=True)
class Selection:
    """What was measured for every number of archetypes tried, and the number chosen."""

    n_archetypes: np.ndarray
    stability: np.ndarray
    """Mean cosine between archetypes (about the mean of the rows) of two subsets, aligned by assignment."""
    held_out: np.ndarray
    """Share of the variance of rows that the fit did not see."""
    explained: np.ndarray
    """Share of the variance of rows that it did see."""
    chosen: int


def select_n_archetypes(
    X: Any,
    candidates: Sequence[int],
    *,
    n_splits: int = 6,
    n_restarts: int = 4,
    max_rows: int = 1000,
    rng: int | np.random.Generator | None = 0,
    n_jobs: int = 1,
) -> Selection:
    """Fit every number of archetypes to pairs of random subsets of the rows and choose one.

    A subset holds four fifths of the rows, as in consensus clustering (Monti et al., Machine Learning 52, 2003). The
    choice is the largest number up to which every step adds at least two points of variance in the rows left out,
    among those whose archetypes agree between subsets (mean cosine 0.85 or more); the most stable one where none does.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> corners = 5 * np.eye(3)
    >>> select_n_archetypes(rng.dirichlet(np.full(3, 0.4), 300) @ corners, [2, 3, 4, 5]).chosen
    3
    """
    rng = np.random.default_rng(rng)
    ks = np.array([k for k in candidates if 1 <= k <= X.shape[0] // 4] or [1])
    table = np.zeros((len(ks), 3))
    for seed in rng.spawn(n_splits):
        rows = X[np.sort(seed.permutation(X.shape[0])[:max_rows])]
        subsets = [seed.permutation(rows.shape[0]) for _ in range(2)]
        for i, k in enumerate(ks):
            table[i] += _compare_subsets(rows, subsets, int(k), n_restarts, seed, n_jobs)
    table /= n_splits
    return Selection(ks, table[:, 0], table[:, 1], table[:, 2], _choose(ks, table[:, 0], table[:, 1]))


def _compare_subsets(
    X: Any, orders: list[np.ndarray], k: int, n_restarts: int, rng: np.random.Generator, n_jobs: int
) -> np.ndarray:
    """Return stability, held-out and explained variance of fits of k archetypes to the first rows of two orders."""
    n = int(np.ceil(SUBSET * X.shape[0]))
    fits = [fit_archetypes(X[o[:n]], k, n_restarts=n_restarts, tol=1e-4, rng=rng, n_jobs=n_jobs) for o in orders]
    held = np.mean([held_out_variance(X[o[n:]], fit.Z) for o, fit in zip(orders, fits, strict=True)])
    explained = np.mean([fit.explained_variance for fit in fits])
    centre = X.mean(axis=0)
    return np.array([agreement(fits[0].Z - centre, fits[1].Z - centre), held, explained])


def agreement(A: np.ndarray, B: np.ndarray) -> float:
    """Return the mean cosine between the rows of A and those of B that an optimal assignment gives them."""
    if len(A) == 1:
        return 1.0
    norms = np.linalg.norm(A, axis=1)[:, None] * np.linalg.norm(B, axis=1)[None]
    cosine = np.divide(A @ B.T, norms, out=np.zeros_like(norms), where=norms > 0)
    rows, columns = linear_sum_assignment(cosine, maximize=True)
    return float(cosine[rows, columns].mean())


def held_out_variance(X: Any, Z: np.ndarray) -> float:
    """Return the share of the variance of X about its mean that mixtures of Z explain."""
    total = squared_distances(X, X.mean(axis=0)[None]).sum()
    residual = squared_residuals(X, weigh_archetypes(X, Z), Z).sum()
    return float(1.0 - residual / total) if total > 0 else np.nan


def _choose(ks: np.ndarray, stability: np.ndarray, held_out: np.ndarray) -> int:
    """Walk up while held-out variance grows, and keep the largest stable number on the way."""
    gains = np.diff(held_out, prepend=0.0) >= MIN_GAIN
    last = len(ks) if gains.all() else int(np.argmin(gains))
    last = max(last, 1)
    stable = np.flatnonzero(stability[:last] >= MIN_STABILITY)
    return int(ks[stable[-1]] if len(stable) else ks[np.argmax(stability[:last])])
