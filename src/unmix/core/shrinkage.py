"""Empirical-Bayes shrinkage of signatures: an entry is believed as far as the cells behind it can be.

Symbols: S_gk is the profile of type k in gene g, V_gk its sampling variance, E_k the exposure that turns an entry into
an effective count n_gk = S_gk E_k (the inverse Fano factor of the type's mean), m_g the gene's mean over types.

The model is `n_gk ~ Poisson(E_k m_g r_gk)` with `r_gk ~ Gamma(a_g, a_g)`. The strength a_g is a gene's own: large
for genes that no type changes, small for markers. It has a discrete prior on `STRENGTHS` whose weights maximise the
marginal likelihood over all genes (as in adaptive shrinkage, Stephens 2017), so that nothing has to be cut or tuned.
"""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq
from scipy.special import gammaln, logsumexp, xlogy

STRENGTHS = np.array([0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 1000.0])
"""Candidate strengths a, in effective counts at the gene's mean."""
N_EM = 50
N_MEANS = 3
"""Rounds of updating the gene means after the shrinkage."""


@dataclass(frozen=True)
class ShrunkProfiles:
    """Posterior of the profiles."""

    mean: np.ndarray
    """Posterior mean of S, shape (G, K)."""
    variance: np.ndarray
    """Posterior variance of S, shape (G, K)."""
    exposure: np.ndarray
    """Effective exposure E, shape (K,)."""
    strengths: np.ndarray
    """Estimated weights of `STRENGTHS`, shape (A,)."""


def effective_exposure(S: np.ndarray, V: np.ndarray) -> np.ndarray:
    """Return the exposure of every type: the median of S / V over the better half of its expressed genes.

    Parameters
    ----------
    S, V
        Profiles and their sampling variances, shape (G, K).

    Examples
    --------
    >>> effective_exposure(np.array([[2.0], [4.0]]), np.array([[0.1], [0.2]]))
    array([20.])
    """
    exposure = np.empty(S.shape[1])
    for k in range(S.shape[1]):
        known = (S[:, k] > 0) & (V[:, k] > 0)
        high = known & (S[:, k] >= np.median(S[known, k])) if known.any() else known
        exposure[k] = np.median(S[high, k] / V[high, k]) if high.any() else np.inf
    return exposure


def shrink_profiles(S: np.ndarray, V: np.ndarray) -> ShrunkProfiles:
    """Shrink every gene's entries towards the gene's mean over types, by marginal likelihood.

    Parameters
    ----------
    S
        Profiles, shape (G, K), any linear unit.
    V
        Sampling variance of every entry, shape (G, K), in squared units of S; zeros mean that S is known.

    Returns
    -------
    The posterior means and variances. The gene's mean is taken as known, so that with few types of few cells each the
    variances are too small.

    References
    ----------
    Stephens, M. (2017) False discovery rates: a new deal. Biostatistics 18, 275.

    Examples
    --------
    >>> S = np.array([[5.0, 5.2], [9.0, 0.0]])
    >>> shrunk = shrink_profiles(S, S / 10 + 0.01)
    >>> bool(shrunk.mean[1, 1] > 0), bool(np.ptp(shrunk.mean[0]) < np.ptp(S[0]))
    (True, True)
    """
    E = effective_exposure(S, V)
    if not np.isfinite(E).all():
        return ShrunkProfiles(S.copy(), np.zeros_like(S), E, np.zeros_like(STRENGTHS))
    n, expressed = S * E, S.sum(axis=1) > 0
    mean, variance, weights = np.zeros_like(S), np.zeros_like(S), np.zeros_like(STRENGTHS)
    m = S[expressed].mean(axis=1)
    for _ in range(N_MEANS):
        log_lik = _log_marginal(n[expressed], E, m)
        weights = _mixture_weights(log_lik)
        mean[expressed], variance[expressed] = _posterior(n[expressed], E, m, log_lik, weights)
        m = mean[expressed].mean(axis=1)
    return ShrunkProfiles(mean, variance, E, weights)


def shrink_one(
    n: np.ndarray, E: np.ndarray, m: np.ndarray, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Shrink one more profile towards the genes' means, by strengths whose weights are known.

    Parameters
    ----------
    n, E
        Counts and exposure of every gene, shape (G,).
    m
        Means of the genes over the other types, shape (G,).
    weights
        Weights of `STRENGTHS`.

    Returns
    -------
    Posterior mean and variance, and the share of the posterior mean's weight that is the data's, all of shape (G,).

    Examples
    --------
    >>> mean, _, share = shrink_one(np.array([0.0, 90.0]), np.array([0.0, 10.0]), np.array([2.0, 2.0]), np.full(8, 1 / 8))
    >>> mean.round(1), share.round(1)
    (array([2. , 8.8]), array([0., 1.]))
    """
    columns, exposure, shares = n[:, None], E[:, None], np.empty((len(n), len(STRENGTHS)))
    log_lik = _log_marginal(columns, exposure, m)
    mean, variance = _posterior(columns, exposure, m, log_lik, weights)
    for j, a in enumerate(STRENGTHS):
        shares[:, j] = E / (E + a / m)
    return mean[:, 0], variance[:, 0], (_responsibilities(log_lik, weights) * shares).sum(axis=1)


def shrink_sizes(sizes: np.ndarray, variances: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Shrink the sizes of the types' cells towards their geometric mean, as far as few cells say little of them.

    `log size_k ~ N(log true_k, v_k)`, `log true_k ~ N(mu, t)`: mu and t by the estimator of Paule and Mandel, which makes the
    weighted sum of squares equal its expectation.

    Parameters
    ----------
    sizes
        Mean counts of a cell, shape (K,).
    variances
        Sampling variances of their logs, v, shape (K,).

    Returns
    -------
    The sizes, and the posterior variances of their logs, that of mu among them; as given for fewer than three types.

    References
    ----------
    Paule, R. C. and Mandel, J. (1982) Consensus values and weighting factors. J. Res. Natl. Bur. Stand. 87, 377.

    Examples
    --------
    >>> found, left = shrink_sizes(np.array([1000.0, 1100.0, 4000.0]), np.array([1e-6, 1e-6, 0.5]))
    >>> found.round(), left.round(3)
    (array([1000., 1100., 1907.]), array([0.   , 0.   , 0.223]))
    """
    log, t = np.log(sizes), 0.0

    def excess(t: float) -> float:
        weight = 1 / (variances + t)
        return float((weight * (log - np.average(log, weights=weight)) ** 2).sum()) - (len(log) - 1)

    if not (variances > 0).all() or len(log) < 3:
        return sizes, variances
    if excess(0.0) > 0:
        t = float(brentq(excess, 0.0, 100.0 * (1 + np.ptp(log) ** 2)))
    weight = 1 / (variances + t)
    center, towards = np.average(log, weights=weight), variances * weight
    left = t * towards + towards**2 / weight.sum()
    return np.exp(center + (log - center) * t * weight), left


def _log_marginal(n: np.ndarray, E: np.ndarray, m: np.ndarray) -> np.ndarray:
    """Log marginal (negative binomial) likelihood of every gene at every strength, shape (G, A)."""
    expected = E * m[:, None]
    columns = []
    for a in STRENGTHS:
        log_p = gammaln(n + a) - gammaln(a) - a * np.log1p(expected / a) + xlogy(n, expected / (a + expected))
        columns.append(log_p.sum(axis=1))
    return np.stack(columns, axis=1)


def _responsibilities(log_lik: np.ndarray, weights: np.ndarray) -> np.ndarray:
    joint = log_lik + np.log(weights)
    return np.exp(joint - logsumexp(joint, axis=1, keepdims=True))


def _mixture_weights(log_lik: np.ndarray) -> np.ndarray:
    """Weights of the strengths that maximise the marginal likelihood, by EM."""
    weights = np.full(len(STRENGTHS), 1 / len(STRENGTHS))
    for _ in range(N_EM):
        weights = np.maximum(_responsibilities(log_lik, weights).mean(axis=0), 1e-12)
    return weights / weights.sum()


def _posterior(
    n: np.ndarray, E: np.ndarray, m: np.ndarray, log_lik: np.ndarray, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance of the mixture of Gamma posteriors."""
    R = _responsibilities(log_lik, weights)
    first, second = np.zeros_like(n), np.zeros_like(n)
    for j, a in enumerate(STRENGTHS):
        rate = E + a / m[:, None]
        part = (n + a) / rate
        first += R[:, [j]] * part
        second += R[:, [j]] * (part**2 + part / rate)
    return first, second - first**2
