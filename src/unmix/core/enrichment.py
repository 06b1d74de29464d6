"""Which gene sets mark a program: the slope of its gene scores on the sets' weights, one set at a time."""

from dataclasses import dataclass

import numpy as np
from scipy import sparse, stats


@dataclass(frozen=True)
class Enrichment:
    """Test of every set in every program."""

    t: np.ndarray
    """t statistic of the slope, (n_programs, n_sets)."""
    p: np.ndarray
    """Two-sided p-value."""
    q: np.ndarray
    """Benjamini-Hochberg adjusted over the tests of sets and programs that vary over the genes, 1 for others."""


def univariate(scores: np.ndarray, weights: sparse.csc_array) -> Enrichment:
    r"""Regress every program's scores on every set's weights, with an intercept.

    For the correlation r over n genes, :math:`t = r \sqrt{(n-2)/(1-r^2)}`. Weights are zero outside a set.

    Parameters
    ----------
    scores
        What marks a gene in a program, (n_programs, n_genes), finite.
    weights
        (n_genes, n_sets).

    References
    ----------
    Badia-i-Mompel et al. (2022), decoupleR: ensemble of computational methods to infer biological activities from omics
    data. Benjamini, Hochberg (1995).

    Examples
    --------
    >>> scores = np.array([[3.0, 2.0, 0.0, 0.1, -0.1]])
    >>> found = univariate(scores, sparse.csc_array([[1.0], [1.0], [0.0], [0.0], [0.0]]))
    >>> found.t.round(2), found.p.round(3)
    (array([[6.58]]), array([[0.007]]))
    """
    n = scores.shape[1]
    weights = sparse.csc_array(weights, dtype=float)
    mean = np.asarray(weights.mean(axis=0)).ravel()
    spread = np.sqrt(np.maximum(np.asarray((weights * weights).mean(axis=0)).ravel() - mean**2, 0))
    centred = scores - scores.mean(axis=1, keepdims=True)
    scale = scores.std(axis=1)[:, None] * spread * n
    r = np.clip((weights.T @ centred.T).T / np.where(scale > 0, scale, np.inf), -1, 1)
    t = r * np.sqrt((n - 2) / np.maximum(1 - r**2, 1e-300))
    p = 2 * stats.t.sf(np.abs(t), n - 2)
    q, tested = np.ones_like(p), scale > 0
    q[tested] = stats.false_discovery_control(p[tested])
    return Enrichment(t, p, q)
