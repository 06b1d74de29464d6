"""Platform factors: how much more, or less, of every gene the tissue's assay sees than the reference's.

Symbols: y_ig has mean p_g (S w_i)_g; log p_g ~ N(0, tau^2); v_g is the relative variance of a gene's pooled mean that
the sampling of the reference makes, which no number of spots averages out; H_i is the information of w_i on its active
face.

A pooled maximum-likelihood fit of p changes nothing in a Poisson fit (by its own optimality), so the weights and
the factors are fitted jointly, under the prior. The joint Newton step couples every spot with every gene, yet only
through K numbers: factors act on a spot's weights through the K column sums A'p alone, so that the step costs one K x K
system.
"""

from dataclasses import dataclass, replace

import numpy as np
from scipy.optimize import brentq

MAX_TAU = 3.0
MIN_COUNTS = 20.0
N_GENES = 200
"""The size of the platform effect is read from so many genes of the largest means, of at least `MIN_COUNTS`."""
MAX_RADIUS = 0.99
NORMAL_QUARTILE = 0.6744897501960817


@dataclass(frozen=True)
class PooledFit:
    """What one pass over the spots says about the factors, at the current factors and weights."""

    observed: np.ndarray
    """Weighted counts, sum_i y_ig / (1 + phi m_ig), shape (G,)."""
    expected: np.ndarray
    """The same of the means m_ig, shape (G,): also the information on log p_g."""
    means: np.ndarray
    """Sum of the means m_ig, shape (G,)."""
    response: np.ndarray
    """Sum over the spots of the inverse information, shape (K, K)."""
    trust: np.ndarray | float = 1.0
    """What a gene's evidence on its factor is multiplied by, shape (G,)."""

    def tempered(self, v: np.ndarray) -> "PooledFit":
        """Return the fit with every gene's information on its factor held below 1 / v_g."""
        return replace(self, trust=1 / (1 + self.expected * v))


def face_inverse(H: np.ndarray, W: np.ndarray) -> np.ndarray:
    """Invert the information on the active face of every row; zeros for the types at the bound.

    Parameters
    ----------
    H
        Information, shape (N, K, K).
    W
        Weights, shape (N, K).

    Examples
    --------
    >>> face_inverse(np.array([[[2.0, 1.0], [1.0, 4.0]]]), np.array([[1.0, 0.0]]))
    array([[[0.5, 0. ],
            [0. , 0. ]]])
    """
    free = W > 0
    both = free[:, :, None] & free[:, None, :]
    eye = np.eye(W.shape[1])
    scale = np.sqrt(np.maximum(np.einsum("ikk->ik", H), 1e-300))
    outer = scale[:, :, None] * scale[:, None, :]
    inverse = np.linalg.inv(np.where(both, H / outer, 0.0) + eye * np.where(free, 1e-9, 1.0)[:, None, :])
    return np.where(both, inverse / outer, 0.0)


def estimate_tau(pooled: PooledFit, log_p: np.ndarray, v: np.ndarray) -> float:
    """Estimate the sd of log factors from genes of high counts, so that half of them lie within a normal's quartiles.

    The unshrunk factor of gene g has variance `tau^2 + 2 v_g + 1 / expected_g`: the tissue is a sample of cells, as
    the reference is. A median is used because single genes that a state of the tissue changes are no platform effect.

    Parameters
    ----------
    pooled
        Sums over the spots.
    log_p
        Current factors, shape (G,).
    v
        Variance of the log factors that the reference's sampling explains, shape (G,).

    Returns
    -------
    tau; 0 where counting and sampling explain all the scatter, or too few genes have counts.
    """
    before = pooled.expected * np.exp(-log_p)  # a choice by means that hold p would be a choice of large factors
    enough = np.flatnonzero(before >= MIN_COUNTS)
    used = enough[np.argsort(-before[enough], kind="stable")[:N_GENES]]
    if len(used) < 20:
        return 0.0
    ratio = log_p[used] + np.log((pooled.observed[used] + 0.5) / (pooled.expected[used] + 0.5))
    distance = np.abs(ratio - np.median(ratio))
    known = 2 * v[used] + 1 / (pooled.expected[used] + 0.5)

    def excess(tau: float) -> float:
        return float(np.median(distance / np.sqrt(tau**2 + known))) - NORMAL_QUARTILE

    if excess(0.0) <= 0:
        return 0.0
    return MAX_TAU if excess(MAX_TAU) > 0 else float(brentq(excess, 0.0, MAX_TAU, xtol=1e-4))


def newton_step(
    pooled: PooledFit, S: np.ndarray, log_p: np.ndarray, prior: np.ndarray, bend: np.ndarray | float = 1.0
) -> np.ndarray:
    """Return the factors after one joint Newton step, in which the weights of all spots answer.

    Parameters
    ----------
    pooled
        Sums over the spots.
    S
        Profiles of the types, shape (G, K).
    log_p
        Current factors, shape (G,).
    prior
        Prior variance of every log factor, shape (G,).
    bend
        How much more than `trust * expected` a gene's evidence bends (:func:`bending`), shape (G,).

    Returns
    -------
    New log factors.
    """
    precision = 1 / np.maximum(prior, 1e-8)
    D = pooled.trust * pooled.expected * bend + precision
    delta = (pooled.trust * (pooled.observed - pooled.expected) - precision * log_p) / D
    A, Q, coupling = _coupling(pooled, S, log_p, D)
    answer = np.linalg.solve(np.eye(S.shape[1]) - Q @ coupling, A.T @ delta)
    delta = delta + pooled.trust * (A @ (coupling @ answer)) / D
    return log_p + np.clip(delta, -0.7, 0.7)


def bending(pooled: PooledFit) -> np.ndarray:
    """Return the curvature of every gene's tempered evidence over `trust * expected`, at least 1, shape (G,).

    Trust falls as the factor rises, so that `(observed - expected) / (1 + expected v)` bends more than it would by its own
    trust where the factor is still too small; steps by less curvature pass the optimum, to and fro.

    Examples
    --------
    >>> fit = PooledFit(np.array([18.0, 3.0]), np.array([3.0, 3.0]), np.ones(2), np.eye(1)).tempered(np.array([2.0, 2.0]))
    >>> bending(fit).round(1)
    array([5.3, 1. ])
    """
    ratio = pooled.observed / np.maximum(pooled.expected, 1e-300)
    return np.maximum(pooled.trust + (1 - pooled.trust) * ratio, 1.0)


def shared_covariance(pooled: PooledFit, S: np.ndarray, log_p: np.ndarray, prior: np.ndarray) -> np.ndarray:
    """Covariance of the K column sums that the factors' posterior leaves, shape (K, K).

    A spot with inverse information C then has the extra covariance `C shared C`.
    """
    D = pooled.trust * pooled.expected + 1 / np.maximum(prior, 1e-8)
    _, Q, coupling = _coupling(pooled, S, log_p, D)
    return np.linalg.solve(np.eye(S.shape[1]) - Q @ coupling, Q)


def _coupling(
    pooled: PooledFit, S: np.ndarray, log_p: np.ndarray, D: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return A, Q = A' (trust / D) A, and the spots' response, held below where the system is singular."""
    weight = pooled.expected / np.maximum(pooled.means, 1e-300)
    A = S * (np.exp(log_p) * weight)[:, None]
    Q = (A * (pooled.trust / D)[:, None]).T @ A
    radius = float(np.abs(np.linalg.eigvals(Q @ pooled.response)).max())
    return A, Q, pooled.response * min(1.0, MAX_RADIUS / max(radius, 1e-300))
