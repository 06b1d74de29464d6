"""A reference whose types hold something of all its cells: ambient RNA, doublets, wrong labels.

Symbols: S_gk is the profile of type k in gene g, a_g the mean of all cells of the reference, q the share of a in every
profile. Ambient RNA, doublets and labels given by chance do one and the same to profiles in counts per 10,000:

    S_gk = (1 - q) S*_gk + q a_g.

Fitted by S, a spot without type k asks for less than nothing of it, `-q` times the share of k in a; its weight stops at 0,
and those of the types that are there lie too far apart. With S* in the place of S the spots are explained by amounts above 0.
The more room weights have the better spots are fitted, so that q is chosen by genes held out. The pooled mean of the spots is
the same for any q: platform factors and dispersion can be held while q is sought.
"""

import numpy as np
from scipy import sparse

from unmix.core._countmodel_kernels import csr_parts, fit_rows
from unmix.core.residuals import log_likelihoods

SHARES = np.arange(1, 11) / 20
FOLDS = 5
MIN_Z = 2.0
"""By how many standard deviations of a fair coin more spots gain by a larger q than lose."""
FLOOR = 0.02
"""An entry keeps so much of itself at least: that it is all contamination is not known that well."""
MAX_ITER = 50


def purified(S: np.ndarray, pooled: np.ndarray, q: float) -> np.ndarray:
    """Return S*, the profiles without their share q of the pooled mean.

    Parameters
    ----------
    S
        Profiles, shape (G, K).
    pooled
        Mean of all cells of the reference, a, in the units of S, shape (G,).
    q
        Share of it in every profile.

    Examples
    --------
    >>> purified(np.array([[8.5, 1.5], [1.5, 8.5]]), np.array([5.0, 5.0]), 0.2).round(6)
    array([[9.375, 0.625],
           [0.625, 9.375]])
    """
    return np.asarray(np.maximum(S - q * pooled[:, None], FLOOR * S) / (1 - q)) if q > 0 else S


def choose_contamination(
    Y: sparse.csr_array, S: np.ndarray, pooled: np.ndarray, log_p: np.ndarray, phi: float, W: np.ndarray
) -> float:
    """Choose q from `SHARES`, walking up as long as most spots' held-out genes are likelier by the next one.

    Spots are counted, and not their likelihoods added up: single genes that only some cells have (immunoglobulins, insulin)
    would outweigh all others.

    Parameters
    ----------
    Y
        Counts of the spots, shape (N, G).
    S, pooled
        As for :func:`purified`.
    log_p, phi
        Log platform factors, shape (G,), and dispersion.
    W
        Likeliest weights under S, shape (N, K).

    Returns
    -------
    q; 0 where no share is better, or there are too few genes to hold any out.
    """
    if Y.shape[1] < 2 * FOLDS:
        return 0.0
    fold = np.empty(Y.shape[1], dtype=int)
    fold[np.argsort(-(S @ W.sum(axis=0)), kind="stable")] = np.arange(Y.shape[1]) % FOLDS
    parts = [
        (csr_parts(sparse.csr_array(Y[:, fold != f])), sparse.csr_array(Y[:, fold == f]), fold != f)
        for f in range(FOLDS)
    ]
    starts = [W] * FOLDS
    chosen, before = 0.0, None
    for q in (0.0, *SHARES):
        A, now = purified(S, pooled, q) * np.exp(log_p)[:, None], np.zeros(Y.shape[0])
        for f, (rows, held_out, fitted) in enumerate(parts):
            starts[f] = fit_rows(*rows, A[fitted], phi, starts[f].copy(), MAX_ITER)[0]
            now += log_likelihoods(held_out, starts[f] @ A[~fitted].T, phi)
        if before is not None and _z(now - before) <= MIN_Z:
            break
        chosen, before = float(q), now
    return chosen


def _z(gains: np.ndarray) -> float:
    """Return by how many standard deviations of a fair coin more gains than losses there are."""
    return float((np.count_nonzero(gains > 0) - np.count_nonzero(gains < 0)) / np.sqrt(max(gains.size, 1)))
