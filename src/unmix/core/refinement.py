"""Gene sets against archetypes: sets gain and lose genes, and shares of types follow from the sets' expression.

Symbols: sets (genes x T, non-negative weights), effects and other statistics genes x K.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from unmix.core.blocks import map_rows
from unmix.core.markers import Markers
from unmix.core.regression import fit_poisson
from unmix.core.scaled import cross_product
from unmix.core.simplex import nnls

EVENNESS = 0.005
RIDGE = 1e-9


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


def set_activities(Y: Any, sets: np.ndarray, member: np.ndarray, *, n_jobs: int = 1) -> np.ndarray:
    """Return the activity of every set in every row of linear expression: 0 at its background.

    What lies above the background is 1 on average. Genes are divided by the root of their mean, which makes Poisson
    noise equal, and those of several sets count less by the square of their number. The background of a set is its
    lowest mean among communities (`member`, n_obs x K): where another archetype rules, the type is least there.
    Activities below it stay negative: cut at zero, the noise of absent types would add up to a share.
    """
    mean = cross_product(Y, np.full((Y.shape[0], 1), 1.0 / Y.shape[0]), n_jobs=n_jobs).ravel()
    shared = np.maximum((sets > 0).sum(axis=1), 1)
    weight = np.divide(1.0, np.sqrt(mean) * shared**2, out=np.zeros_like(mean), where=mean > 0)
    raw = map_rows(lambda y: np.asarray(y @ (sets * weight[:, None])), Y, n_jobs=n_jobs)
    filled = member[:, member.any(axis=0)]
    levels = (filled.T @ raw) / np.maximum(filled.sum(axis=0), 1)[:, None]
    raised = raw - (levels.min(axis=0) if len(levels) > 1 else raw.min(axis=0))
    average = np.maximum(raised, 0.0).mean(axis=0)
    return np.divide(raised, average, out=np.zeros_like(raised), where=average > 0)


def scale_activities(activities: np.ndarray) -> np.ndarray:
    """Return activities times scales that make rows add up to one; they estimate shares and may be negative.

    Scales x >= 0 minimise |A x - 1|^2 with a small pull to equal ones (digital sorting, Zhong et al., BMC
    Bioinformatics 14, 2013).

    Examples
    --------
    >>> A = np.array([[2.0, 0.0], [0.0, 4.0], [1.0, 2.0]])
    >>> scale_activities(A).round(1)
    array([[1. , 0. ],
           [0. , 1. ],
           [0.5, 0.5]])
    """
    n, T = activities.shape
    ridge = EVENNESS * n
    gram = activities.T @ activities + ridge * np.eye(T)
    return activities * nnls(gram, (activities.sum(axis=0) + ridge / T)[None])[0]


def set_proportions(Y: Any, estimates: np.ndarray, *, n_jobs: int = 1) -> np.ndarray:
    """Return shares of types by likelihood, given estimates of them: profiles S >= 0 first, then shares from S.

    Y holds the sets' genes in linear expression. Their profiles are the least squares regression on the estimates, genes
    divided by the root of their mean; shares maximise the Poisson likelihood of these genes in every row. Rows that hold
    none of them get equal shares.
    """
    gram = estimates.T @ estimates
    gram += RIDGE * max(np.trace(gram), np.finfo(float).tiny) * np.eye(len(gram))
    S = nnls(gram, cross_product(Y, estimates, n_jobs=n_jobs))
    weights = np.nan_to_num(fit_poisson(Y, S, n_jobs=n_jobs).weights)
    totals = weights.sum(axis=1, keepdims=True)
    return np.where(totals > 0, weights / np.where(totals > 0, totals, 1.0), 1.0 / estimates.shape[1])
