"""Shrinkage of signatures towards types that are alike: what two types share, each tells of the other.

Symbols: d_g (K) is how far gene g's profile lies from its mean m_g over the types, `d_gk = S_gk / m_g - 1`; its sampling
variance is n_gk = S_gk / (E_k m_g^2), E_k the exposure of the type (:mod:`unmix.core.shrinkage`).

Subtypes differ in few genes and by little, and with some hundred cells each most of what their signatures differ by is
sampling. A fit then explains one by the other: as in any regression on variables with errors, differences are believed
too readily and the weights of either are drawn towards each other. Shrinking every entry towards the gene's mean does not
help, because a gene that no subtype changes may well change between lineages. So the prior has a covariance,

    d_g ~ sum_s pi_s N(0, s U),   U (K, K) of mean diagonal 1,   s on a grid,

whose U and pi maximise the marginal likelihood over the genes (EM), as in multivariate adaptive shrinkage (Urbut et al.
2019). Types that go together in most genes are then told apart only where the counts insist. Few counts are not
normal, and their entries stay as the Gamma prior has them.

References: Urbut, S. M. et al. (2019) Flexible statistical methods for estimating and testing effects in genomic studies
with multiple conditions. Nat. Genet. 51, 187.
"""

from dataclasses import replace

import numpy as np

from unmix.core.shrinkage import ShrunkProfiles

SCALES = np.array([0.001, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0])
"""Candidate variances s of the relative deviation from the gene's mean."""
N_EM = 15
MAX_GENES = 1500
"""U and pi are estimated from so many genes, evenly spread over their precision."""
BLOCK = 1000
ENOUGH = 10.0
"""Counts at a gene's mean from which those of a type are taken to be normal: an entry of fewer keeps its Gamma posterior."""
LEAST = 1e-3
"""An entry is at least so much of its gene's mean."""


def shrink_alike(S: np.ndarray, shrunk: ShrunkProfiles) -> ShrunkProfiles:
    """Shrink profiles towards each other as far as their types go together.

    Parameters
    ----------
    S
        Profiles as measured, shape (G, K).
    shrunk
        Every entry on its own (:func:`unmix.core.shrinkage.shrink_profiles`): exposures, and means that the sampling
        variances are taken at.

    Returns
    -------
    Posterior means and variances; as given where the sampling of the reference is not known.

    Examples
    --------
    >>> from unmix.core.shrinkage import shrink_profiles
    >>> rng = np.random.default_rng(0)
    >>> lineage = rng.lognormal(0.0, 1.0, (400, 2))
    >>> truth = np.column_stack([lineage[:, 0], lineage[:, 0], lineage[:, 1]])
    >>> S = rng.poisson(truth * 20) / 20
    >>> alone = shrink_profiles(S, (S + 0.01) / 20)
    >>> alike = shrink_alike(S, alone)
    >>> bool(np.std(alike.mean[:, 0] - alike.mean[:, 1]) < 0.5 * np.std(alone.mean[:, 0] - alone.mean[:, 1]))
    True
    """
    used = np.flatnonzero((S.sum(axis=1) > 0) & (shrunk.mean.min(axis=1) > 0))
    if not np.isfinite(shrunk.exposure).all() or used.size < S.shape[1]:
        return shrunk
    m = shrunk.mean[used].mean(axis=1)
    d = S[used] / m[:, None] - 1
    noise = shrunk.mean[used] / shrunk.exposure / m[:, None] ** 2
    U, pi = _estimate(d, noise)
    mean, variance = shrunk.mean.copy(), shrunk.variance.copy()
    for begin in range(0, used.size, BLOCK):
        part = slice(begin, begin + BLOCK)
        first, second = _posterior_moments(d[part], noise[part], U, pi)
        rows, scale = used[part], m[part, None]
        counts = scale * shrunk.exposure
        trust = counts**2 / (counts**2 + ENOUGH**2)
        mean[rows] += trust * (scale * np.maximum(1 + first, LEAST) - mean[rows])
        variance[rows] += trust * (scale**2 * np.maximum(second - first**2, 0.0) - variance[rows])
    return replace(shrunk, mean=mean, variance=variance)


def _estimate(d: np.ndarray, noise: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return U and pi that maximise the marginal likelihood, by EM."""
    order = np.argsort(noise.mean(axis=1), kind="stable")
    some = order[np.linspace(0, order.size - 1, min(MAX_GENES, order.size)).round().astype(int)]
    d, noise, K = d[some], noise[some], d.shape[1]
    U, pi = _mean_one(np.cov(d.T).reshape(K, K) + 1e-3 * np.eye(K)), np.full(len(SCALES), 1 / len(SCALES))
    for _ in range(N_EM):
        rotated = _rotate(d, noise, U)
        R = _responsibilities(*rotated[:2], pi)
        pi = np.maximum(R.mean(axis=0), 1e-8)
        pi /= pi.sum()
        U = _mean_one(_second_moment(rotated, R, noise) + 1e-6 * np.eye(K))
    return U, pi


def _mean_one(U: np.ndarray) -> np.ndarray:
    return U * len(U) / np.trace(U)


Rotated = tuple[np.ndarray, np.ndarray, np.ndarray]


def _rotate(d: np.ndarray, noise: np.ndarray, U: np.ndarray) -> Rotated:
    """Return every gene's deviations along the axes of U in units of noise, the variances there, and the axes.

    `diag(n)^-1/2 U diag(n)^-1/2 = Q diag(v) Q'`: along Q the covariance of `diag(n)^-1/2 d` is `s v + 1` for every s.
    """
    unit = 1 / np.sqrt(noise)
    values, Q = np.linalg.eigh(U * unit[:, :, None] * unit[:, None, :])
    return np.einsum("gkl,gk->gl", Q, d * unit), np.maximum(values, 0.0), Q


def _responsibilities(z: np.ndarray, v: np.ndarray, pi: np.ndarray) -> np.ndarray:
    """Posterior probability of every scale, shape (G, A)."""
    total = SCALES[:, None, None] * v + 1
    log_p = -0.5 * (z**2 / total + np.log(total)).sum(axis=2).T + np.log(pi)
    R = np.exp(log_p - log_p.max(axis=1, keepdims=True))
    return R / R.sum(axis=1, keepdims=True)


def _second_moment(rotated: Rotated, R: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """Return the expectation of d d' / s over genes and scales, the next U."""
    z, v, Q = rotated
    axes = Q * np.sqrt(noise)[:, :, None]
    gain = SCALES[:, None, None] * v / (SCALES[:, None, None] * v + 1)
    weight = (R / SCALES).T[:, :, None]
    spread = (weight * gain).sum(axis=0)
    out = np.einsum("gkl,gl,gml->km", axes, spread, axes, optimize=True)
    for w, g in zip(weight, gain, strict=True):
        means = np.einsum("gkl,gl->gk", axes, g * z) * np.sqrt(w)
        out += means.T @ means
    return out / len(z)


def _posterior_moments(
    d: np.ndarray, noise: np.ndarray, U: np.ndarray, pi: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Posterior mean and second moment of d, shape (G, K)."""
    z, v, Q = _rotate(d, noise, U)
    R = _responsibilities(z, v, pi)
    axes = Q * np.sqrt(noise)[:, :, None]
    first, second = np.zeros_like(d), np.zeros_like(d)
    for s, r in zip(SCALES, R.T, strict=True):
        gain = s * v / (s * v + 1)
        mean = np.einsum("gkl,gl->gk", axes, gain * z)
        first += r[:, None] * mean
        second += r[:, None] * (mean**2 + np.einsum("gkl,gl->gk", axes**2, gain))
    return first, second
