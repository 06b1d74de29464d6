"""The consensus of hard assignments: how often two observations belong to the same component."""

from dataclasses import dataclass

import numpy as np
from scipy.cluster.hierarchy import cophenet, leaves_list, linkage
from scipy.spatial.distance import squareform


@dataclass(frozen=True)
class Agreement:
    """Consensus matrix of the sampled observations, in the order of its tree."""

    matrix: np.ndarray
    """Share of the runs that put two observations together, (n_sampled, n_sampled)."""
    order: np.ndarray
    """Which observation each row is, (n_sampled,)."""
    cophenetic: float
    """Correlation of 1 - matrix with the distances of its average-linkage tree; 1 where all runs agree."""
    dispersion: float
    """Mean of `4 (matrix - 1/2)^2`; 1 where all runs agree."""


def brunet(labels: np.ndarray) -> Agreement:
    """Return the consensus matrix of hard labels and how clear-cut it is.

    Parameters
    ----------
    labels
        Component of every sampled row in every run, (n_runs, n_sampled).

    References
    ----------
    Brunet et al. (2004), Metagenes and molecular pattern discovery using matrix factorization. Kim, Park (2007).

    Examples
    --------
    >>> found = brunet(np.array([[0, 1, 0, 1], [1, 0, 1, 0]]))
    >>> found.cophenetic, found.dispersion, sorted(found.order[:2].tolist())
    (1.0, 1.0, [0, 2])
    """
    C = _together(labels)
    spread = float((4 * (C - 0.5) ** 2).mean())
    apart = squareform(1 - C, checks=False)
    if apart.size == 0:
        return Agreement(C, np.arange(len(C)), 1.0, spread)
    tree = linkage(apart, "average")
    order = leaves_list(tree)
    correlation = 1.0 if np.ptp(apart) == 0 else float(cophenet(tree, apart)[0])
    return Agreement(C[np.ix_(order, order)], order, correlation, spread)


def _together(labels: np.ndarray) -> np.ndarray:
    n_sampled = labels.shape[1]
    together = np.zeros((n_sampled, n_sampled))
    for run in labels:
        together += run[:, None] == run
    return together / len(labels)
