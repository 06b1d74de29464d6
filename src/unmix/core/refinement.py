"""Gene sets against archetypes: sets gain and lose genes, and their activities give first estimates of types' shares.

Symbols: sets (genes x T, non-negative weights), effects and other statistics genes x K.
"""

from dataclasses import dataclass

import numpy as np
from scipy import sparse

from unmix.core.markers import Markers
from unmix.core.simplex import nnls

EVENNESS = 10.0 ** np.arange(-4.0, 1.01, 0.25)
"""Candidates of the pull to equal scales, per row."""
LOWEST_SHARE = 0.1
N_HALVINGS = 5


@dataclass(frozen=True)
class Thresholds:
    """What a gene must show to join the set of a matched type."""

    max_q: float = 0.01
    min_log_fold_change: float = 1.0
    min_specificity: float = 0.5
    min_share: float = 0.2
    max_added: int = 10


def refine_sets(sets: np.ndarray, markers: Markers, partner: np.ndarray, limits: Thresholds) -> np.ndarray:
    """Return the sets after one round: matched types lose genes that do not rise, and gain markers nobody else has.

    A set keeps at least two genes of its own.
    """
    refined = sets.copy()
    taken = sets.sum(axis=1) > 0
    for t in np.flatnonzero(partner >= 0):
        k = partner[t]
        genes = np.flatnonzero(sets[:, t])
        falling = genes[markers.log_fold_change[genes, k] <= 0]
        if len(genes) - len(falling) >= 2:
            refined[falling, t] = 0.0
        weight = sets[genes, t].mean() if len(genes) else 1.0
        refined[_new_markers(markers, k, taken, limits), t] = weight
    shared = (refined > 0).sum(axis=1) > 1
    refined[shared & ~taken] = 0.0
    return refined


def _new_markers(markers: Markers, k: int, taken: np.ndarray, limits: Thresholds) -> np.ndarray:
    """Return the best genes of archetype k that pass all thresholds and are in no set."""
    passing = (
        (markers.qval[:, k] <= limits.max_q)
        & (markers.log_fold_change[:, k] >= limits.min_log_fold_change)
        & (markers.specificity[:, k] >= limits.min_specificity)
        & (markers.share[:, k] >= limits.min_share)
        & ~taken
    )
    genes = np.flatnonzero(passing)
    return genes[np.argsort(-markers.score[genes, k], kind="stable")[: limits.max_added]]


def set_activities(Y: sparse.csr_array, sets: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return the activity of every set in every row of linear expression: 0 at its background.

    What lies above the background is 1 on average. Genes are divided by the root of their mean, which makes Poisson
    noise equal, and those of several sets count less by the square of their number. The background of a set is what half
    of its genes show in the tenth of the rows where the other half is lowest, so that no row is chosen by its own noise.
    Activities below it stay negative: cut at zero, the noise of absent types would add up to a share.
    """
    mean = np.asarray(Y.mean(axis=0)).ravel()
    shared = np.maximum((sets > 0).sum(axis=1), 1)
    weight = sets * np.divide(1.0, np.sqrt(mean) * shared**2, out=np.zeros_like(mean), where=mean > 0)[:, None]
    raised = np.asarray(Y @ weight) - _background(Y, weight, rng)
    average = np.maximum(raised, 0.0).mean(axis=0)
    return np.divide(raised, average, out=np.zeros_like(raised), where=average > 0)


def _background(Y: sparse.csr_array, weight: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return the level of every set where it is lowest, chosen by one half of its genes and measured by the other."""
    lowest = max(int(LOWEST_SHARE * Y.shape[0]), 1)
    levels = np.zeros(weight.shape[1])
    for _ in range(N_HALVINGS):
        half = np.zeros(weight.shape, dtype=bool)
        for t in range(weight.shape[1]):
            genes = rng.permutation(np.flatnonzero(weight[:, t]))
            half[genes[: (len(genes) + 1) // 2], t] = True
        halves = [np.asarray(Y @ np.where(part, weight, 0.0)) for part in (half, ~half)]
        for chooser, measured in (halves, halves[::-1]):
            rows = np.argsort(chooser, axis=0, kind="stable")[:lowest]
            levels += np.take_along_axis(measured, rows, axis=0).mean(axis=0)
    return levels / N_HALVINGS


def scale_activities(activities: np.ndarray) -> np.ndarray:
    """Return activities times scales that make rows add up to one; they estimate shares and may be negative.

    Scales x >= 0 minimise |A x - 1|^2 (digital sorting, Zhong et al., BMC Bioinformatics 14, 2013) with a pull to equal
    ones, whose strength is likeliest if rows miss one by normal errors and scales vary normally about the equal one.

    Examples
    --------
    >>> A = np.array([[2.0, 0.0], [0.0, 4.0], [1.0, 2.0]])
    >>> scale_activities(A).round(1)
    array([[1. , 0. ],
           [0. , 1. ],
           [0.5, 0.5]])
    """
    T = activities.shape[1]
    gram = activities.T @ activities
    ridge = _likeliest_ridge(activities, gram)
    return activities * nnls(gram + ridge * np.eye(T), (activities.sum(axis=0) + ridge / T)[None])[0]


def _likeliest_ridge(A: np.ndarray, gram: np.ndarray) -> float:
    """Return the ridge r of the largest marginal likelihood of 1 - A x0 ~ N(0, s (I + A A' / r)), x0 the equal scales."""
    n, T = A.shape
    missing = 1.0 - A.sum(axis=1) / T
    values, vectors = np.linalg.eigh(gram)
    values, explained = np.maximum(values, 0.0), (vectors.T @ (A.T @ missing)) ** 2
    ridges = n * EVENNESS
    residual = missing @ missing - (explained / (values + ridges[:, None])).sum(axis=1)
    s = np.maximum(residual / n, np.finfo(float).tiny)
    return float(ridges[np.argmin(n * np.log(s) + np.log1p(values / ridges[:, None]).sum(axis=1))])
