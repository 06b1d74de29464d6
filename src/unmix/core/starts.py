"""Where a non-negative factorisation starts: random factors, the non-negative double SVD, or a sample of the rows."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from unmix.core.blocks import take_rows
from unmix.core.svd import SVD, rough_svd

STARTS = ("auto", "sample", "nndsvd", "nndsvda", "random")
LARGEST_SAMPLE = 4096
ROUNDING = 1e-12
"""Entries of a singular vector below this share of its largest are zero but for rounding."""


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


def named_start(start: str, shape: tuple[int, int], k: int, *, positive: bool = False) -> str:
    """Return which start `"auto"` means, and `"nndsvda"` where zeros cannot be left.

    `"auto"` is `"sample"` where a quarter of the rows are 2,000, and 20 for every component; else `"nndsvd"` where it
    exists.

    Examples
    --------
    >>> named_start("auto", (100_000, 2000), 10), named_start("auto", (500, 2000), 10), named_start("auto", (5, 9), 7)
    ('sample', 'nndsvd', 'random')
    """
    if start not in STARTS:
        msg = f"`start` must be one of {list(STARTS)} or factors, got {start!r}."
        raise ValueError(msg)
    if start == "auto":
        small = "nndsvd" if k <= min(shape) else "random"
        start = "sample" if shape[0] >= 4 * max(2000, 20 * k) else small
    return "nndsvda" if positive and start == "nndsvd" else start


def sample_start(
    X: Any, k: int, mean: float, solve: Callable[[Any, Start], Any], rng: Any, *, zeros: bool = True
) -> Start:
    """Return the loadings of a sample of the rows, for every row with the mean usages of the sample.

    A pass over the sample costs a fraction of a pass over X, and what many starts disagree about is settled there. Its
    own start is the non-negative double SVD, as for few rows: of random ones, some lead to a loss a tenth higher. Where
    zeros would have to be filled, neither is the better one.

    Parameters
    ----------
    X
        Non-negative matrix, (n_obs, n_vars).
    k
        Number of components.
    mean
        Mean of X.
    solve
        Factorises the sample from a start.
    rng
        Seed of the sample and of its start.
    zeros
        Whether updates can leave zero; if not, the sample's own start is random.
    """
    generator = np.random.default_rng(rng)
    n_obs, n_vars = X.shape
    n_sampled = min(max(n_obs // 4, 1), LARGEST_SAMPLE)
    rows = np.sort(generator.choice(n_obs, n_sampled, replace=False))
    sample, drawn = take_rows(X, rows), random_start(n_sampled, n_vars, k, mean, generator)
    double = zeros and k <= min(n_sampled, n_vars)
    fit = solve(sample, nndsvd_start(sample, k, mean, fill=False, rng=generator) if double else drawn)
    H = np.where(fit.H.any(axis=1, keepdims=True), fit.H, drawn.H)  # the sample may be of lower rank than X
    return Start(np.broadcast_to(fit.W.mean(axis=0), (n_obs, k)), H)


def nndsvd_start(
    X: Any, k: int, mean: float, *, fill: bool, rng: Any = 0, n_jobs: int = 1, dtype: Any = np.float64
) -> Start:
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
    dtype
        Precision of the SVD.

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
    start = nndsvd(rough_svd(X, k, rng=rng, n_jobs=n_jobs, dtype=dtype))
    if not fill:
        return start
    return Start(np.where(start.W > 0, start.W, mean), np.where(start.H > 0, start.H, mean))


def nndsvd(triplets: SVD) -> Start:
    """Return, for every singular triplet, the larger of its positive and its negative part."""
    (both_u, nu), (both_v, nv) = _halves(triplets.U), _halves(triplets.V)
    larger = (nu[0] * nv[0] < nu[1] * nv[1]).astype(int)
    columns = np.arange(len(larger))
    nu, nv = nu[larger, columns], nv[larger, columns]
    size = np.sqrt(triplets.S * nu * nv)
    u, v = (np.where(larger, negative, positive) for positive, negative in (both_u, both_v))
    return Start(u * (size / np.where(nu > 0, nu, 1)), (v * (size / np.where(nv > 0, nv, 1))).T)


def _halves(A: np.ndarray) -> tuple[tuple[np.ndarray, np.ndarray], np.ndarray]:
    """Return the positive and the negative part and the norms of their columns, (2, k).

    What is zero but for rounding is in neither: its sign would decide what is filled.
    """
    size = np.abs(A)
    A = np.where(size > ROUNDING * size.max(axis=0, initial=0), A, 0)
    positive = np.maximum(A, 0)
    negative = positive - A
    return (positive, negative), np.sqrt([np.einsum("ij,ij->j", part, part) for part in (positive, negative)])
