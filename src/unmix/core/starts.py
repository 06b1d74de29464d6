"""Where a non-negative factorisation starts: scaled random factors, or the non-negative double SVD."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from unmix.core.svd import SVD, svd


@dataclass(frozen=True)
class Start:
    """Non-negative factors to begin with."""

    W: np.ndarray
    """(n_obs, k)."""
    H: np.ndarray
    """(k, n_vars)."""


def random_start(n_obs: int, n_vars: int, k: int, mean: float, rng: np.random.Generator) -> Start:
    """Return half-normal factors whose product has about the given mean.

    Examples
    --------
    >>> start = random_start(2000, 500, 4, 3.0, np.random.default_rng(0))
    >>> round(float((start.W @ start.H).mean()), 1)
    1.9
    """
    size = np.sqrt(mean / k) if mean > 0 else 1.0
    H = size * np.abs(rng.standard_normal((k, n_vars)))
    return Start(size * np.abs(rng.standard_normal((n_obs, k))), H)


def nndsvd_start(X: Any, k: int, mean: float, *, fill: bool, rng: Any = 0, n_jobs: int = 1) -> Start:
    """Return the non-negative double SVD of X, zeros filled with the mean of X where updates cannot leave zero.

    Parameters
    ----------
    X
        Non-negative matrix, (n_obs, n_vars).
    k
        Number of components, at most min(n_obs, n_vars).
    mean
        Mean of X.
    fill
        Whether zeros become the mean (NNDSVDa), for multiplicative updates.
    rng
        Seed of the SVD.
    n_jobs
        Threads.

    References
    ----------
    Boutsidis, Gallopoulos (2008), SVD based initialization: a head start for nonnegative matrix factorization.

    Examples
    --------
    >>> start = nndsvd_start(np.outer([1.0, 2.0], [3.0, 0.0]), 1, 2.25, fill=False)
    >>> start.W @ start.H
    array([[3., 0.],
           [6., 0.]])
    """
    triplets = svd(X, k, n_passes=2, rng=rng, n_jobs=n_jobs)
    start = nndsvd(triplets)
    if not fill:
        return start
    return Start(np.where(start.W > 0, start.W, mean), np.where(start.H > 0, start.H, mean))


def nndsvd(triplets: SVD) -> Start:
    """Return, for every singular triplet, the larger of its positive and its negative part."""
    U, V = triplets.U, triplets.V
    parts = []
    for sign in (1.0, -1.0):
        u, v = np.maximum(sign * U, 0), np.maximum(sign * V, 0)
        parts.append((u, v, np.linalg.norm(u, axis=0), np.linalg.norm(v, axis=0)))
    positive = parts[0][2] * parts[0][3] >= parts[1][2] * parts[1][3]
    u, v, nu, nv = (np.where(positive, p, m) for p, m in zip(*parts, strict=True))
    size = np.sqrt(triplets.S * nu * nv)
    return Start(u * size / np.where(nu > 0, nu, 1), (v * size / np.where(nv > 0, nv, 1)).T)
