"""How common every type is in the tissue, and what that says of a spot whose counts leave it open.

Symbols: x_ik is the amount of type k in spot i in cells, as a share of the spot's total amount d_i at its likeliest weights,
`w_ik = d_i u_k x_ik` with u_k the RNA of a cell. Every type is absent from some spots, and of some amount in the others:

    x_ik ~ (1 - pi_k) delta_0 + pi_k TN(mu_k, s_k),   TN a normal cut to x >= 0 (an exponential where mu_k is far below 0).

pi, mu and s are the tissue's own: they maximise the marginal likelihood of its spots (EM), each type's drawn towards those of
all types by a few spots' worth. A spot's amounts are posterior means, which have the least expected square error, and come with
the probability that a type is present. Where the counts decide, the prior does nothing; where two types are alike it
does not choose one of them, as the likeliest weights do, but weighs both.

The log-likelihood of a spot is taken to second order, first about its likeliest weights and then about the posterior mean;
the moments are found by expectation propagation (Minka 2001; spike and slab: Hernandez-Lobato et al. 2015).

References: Minka, T. (2001) Expectation propagation for approximate Bayesian inference. UAI 17, 362. Hernandez-Lobato, J. M. et
al. (2015) Expectation propagation in linear regression models with spike-and-slab priors. Mach. Learn. 99, 437.
"""

from dataclasses import dataclass

import numpy as np
from scipy.stats import norm

from unmix.core._abundance_kernels import propagate_rows
from unmix.core._countmodel_kernels import information_at

MIN_SPOTS = 20
"""A prior is not learned from fewer spots."""
N_EM = 10
RELINEARISE = 4
"""Round of EM after which the likelihood is taken about the posterior means."""
N_SWEEPS = 100
POOL_PRESENT, POOL_AMOUNT = 2.0, 3.0
"""Spots' worth of all types' frequencies and amounts in those of each."""
PRESENT = 0.02
"""A type counts as present in a likeliest fit with such a share, for the start."""
ABSENT = 0.05
"""A type is reported as 0 where it is present with a smaller probability."""
_RATIO = np.linspace(-12.0, 12.0, 481)
_LAMBDA = np.exp(norm.logpdf(_RATIO) - norm.logcdf(_RATIO))
_QUOTIENT = (1 + _RATIO * (_RATIO + _LAMBDA)) / (_RATIO + _LAMBDA) ** 2


@dataclass(frozen=True)
class Abundance:
    """The tissue's prior of every type, all of shape (K,)."""

    present: np.ndarray
    """pi."""
    location: np.ndarray
    """mu."""
    spread: np.ndarray
    """s."""
    units: np.ndarray
    """u."""


@dataclass(frozen=True)
class Posterior:
    """What counts and prior say of every spot."""

    weights: np.ndarray
    """Posterior means of the weights, shape (N, K); 0 where a type is present with a probability below `ABSENT`."""
    covariance: np.ndarray
    """Shape (N, K, K)."""
    present: np.ndarray
    """Probability that the type is present, shape (N, K)."""


Counts = tuple[np.ndarray, np.ndarray, np.ndarray]


def fit_slab(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return mu and s of the cut normals that have these moments; at most as skewed as an exponential.

    Examples
    --------
    >>> mu, s = fit_slab(np.array([0.5]), np.array([0.26]))
    >>> mu.round(2), np.sqrt(s).round(2)
    (array([0.5]), array([0.1]))
    """
    quotient = np.clip(second / np.maximum(first, 1e-12) ** 2, _QUOTIENT[-1], _QUOTIENT[0])
    ratio = np.interp(-quotient, -_QUOTIENT, _RATIO)
    sd = np.maximum(first, 1e-6) / (ratio + np.exp(norm.logpdf(ratio) - norm.logcdf(ratio)))
    return ratio * sd, sd**2


def estimate_abundance(rows: Counts, A: np.ndarray, phi: float, W: np.ndarray, units: np.ndarray) -> Abundance | None:
    """Estimate the prior from spots and their likeliest weights.

    Parameters
    ----------
    rows
        indptr, indices and data of the counts.
    A
        Profiles times platform factors, shape (G, K).
    phi
        Dispersion.
    W
        Likeliest weights, shape (N, K).
    units
        RNA of a cell of every type, shape (K,), in the units of W.

    Returns
    -------
    The prior; `None` for fewer than `MIN_SPOTS` spots.
    """
    if len(W) < MIN_SPOTS:
        return None
    total = (W / units).sum(axis=1)
    x = W / units / total[:, None]
    N, K = x.shape
    pi = np.clip((x > PRESENT).mean(axis=0), 0.1, 0.9)
    amount = np.maximum(x.sum(axis=0) / np.maximum((x > 0).sum(axis=0), 1), PRESENT)
    mu, s = fit_slab(amount, 1.7 * amount**2)
    tau = np.tile(1 / s, (N, 1))
    nu = tau * amount
    about, b, H = W, *_quadratic(rows, A, phi, W, total[:, None] * units)
    for turn in range(N_EM):
        if turn == RELINEARISE:
            b, H = _quadratic(rows, A, phi, about, total[:, None] * units)
        present, first, second, mean, _ = propagate_rows(H, b, pi, mu, s, tau, nu, N_SWEEPS)
        about = np.maximum(mean, 0.0) * total[:, None] * units
        n = present.sum(axis=0)
        pi = np.clip((n + POOL_PRESENT * n.mean() / N) / (N + POOL_PRESENT), 1e-3, 1 - 1e-3)
        moments = [(present * np.minimum(moment, 1.0)).sum(axis=0) for moment in (first, second)]  # shares
        pooled = [(m + POOL_AMOUNT * m.sum() / n.sum()) / (n + POOL_AMOUNT) for m in moments]
        mu, s = fit_slab(*pooled)
    return Abundance(pi, mu, s, units)


def posterior(
    rows: Counts,
    A: np.ndarray,
    phi: float,
    W: np.ndarray,
    prior: Abundance,
    errors: np.ndarray | None = None,
    target: np.ndarray | None = None,
    precision: np.ndarray | None = None,
) -> Posterior:
    """Find the posterior of every spot; rows without weights get zeros.

    Parameters
    ----------
    rows, A, phi, W
        As for :func:`estimate_abundance`.
    prior
        The tissue's.
    errors
        Covariance M of the score by errors of profiles and platform factors, shape (N, K, K). They are the same in all spots
        and no noise that a mean over spots could take away, so that they change the covariance alone: the information H
        becomes `H (H + M)^-1 H`.
    target, precision
        Where the weights are expected besides, and how surely (:mod:`unmix.core.smoothing`), shape (N, K).

    Examples
    --------
    >>> rows = np.array([0, 1, 1]), np.array([0]), np.array([6.0])
    >>> prior = Abundance(np.full(2, 0.5), np.full(2, 0.3), np.full(2, 0.1), np.ones(2))
    >>> A = np.array([[0.9, 0.1], [0.1, 0.9]])
    >>> found = posterior(rows, A, 0.0, np.array([[6.0, 0.0], [0.0, 0.0]]), prior)
    >>> found.present.round(1)
    array([[1. , 0.2],
           [0. , 0. ]])
    """
    total = (W / prior.units).sum(axis=1)
    full = total > 0
    scale = np.where(full, total, 1.0)[:, None] * prior.units
    about, start = W, 1 / prior.spread
    for _ in range(2):
        b, H = _quadratic(rows, A, phi, about, scale, target, precision)
        tau = np.tile(start, (len(W), 1))
        nu = tau * np.maximum(prior.location, 0.0)
        present, _, _, mean, covariance = propagate_rows(
            H, b, prior.present, prior.location, prior.spread, tau, nu, N_SWEEPS
        )
        about = np.maximum(mean, 0.0) * scale
    kept = (present >= ABSENT) & full[:, None]
    if errors is not None:
        M = errors * scale[:, :, None] * scale[:, None, :]
        covariance = np.linalg.inv(
            H @ np.linalg.solve(H + (M + M.swapaxes(1, 2)) / 2, H) + tau[:, :, None] * np.eye(len(A.T))
        )
    covariance = covariance * scale[:, :, None] * scale[:, None, :]
    there = kept[:, :, None] & kept[:, None, :]
    return Posterior(np.where(kept, about, 0.0), np.where(there, covariance, 0.0), present * full[:, None])


def _quadratic(
    rows: Counts,
    A: np.ndarray,
    phi: float,
    about: np.ndarray,
    scale: np.ndarray,
    target: np.ndarray | None = None,
    precision: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Return b (N, K) and H (N, K, K) of the log-likelihood `b'x - x'Hx/2` to second order, for weights `scale * x`."""
    score, H = information_at(*rows, A, phi, about, target, precision)
    H = H * scale[:, :, None] * scale[:, None, :]
    diagonal = np.einsum("ikk->ik", H)
    diagonal += 1e-9 * diagonal.mean(axis=1, keepdims=True) + 1e-12
    return scale * score + np.einsum("ikl,il->ik", H, about / scale), H
