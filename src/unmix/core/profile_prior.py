"""Shrinkage of signatures towards types that are alike: what two types share, each tells of the other.

Symbols: S_gk is the profile of type k in gene g, V_gk its sampling variance, m_g the gene's mean over types, E_k the exposure
of the type (:mod:`unmix.core.shrinkage`), n_gk = S_gk E_gk effective counts.

Subtypes differ in few genes and by little, and with some hundred cells each most of what their signatures differ by is
sampling. A fit then explains one by the other: as in any regression on variables with errors, differences are believed
too readily and the weights of either are drawn towards each other. Shrinking every entry towards the gene's mean does not
help, because a gene that no subtype changes may well change between lineages. So the prior has covariances,

    n_gk ~ Poisson(E_gk m_g exp(b_k + d_gk)),   d_g ~ sum_c pi_c N(0, C_c + l 1 1'),

    C_c one of   s U             s on a grid: types go together as U (K, K), of mean diagonal 1, says;
                 s U + J e_k e_k'   and type k goes alone: a marker.

U, pi and the b_k (with which a type's expected counts add up to those seen) maximise a bound on the marginal likelihood over
the genes, by variational EM for the Poisson log-normal model (Chiquet et al. 2018) with the mixture of multivariate adaptive
shrinkage (Urbut et al. 2019). Types that go together in most genes are then told apart only where the counts insist. l is
wide: m_g is only where the search for a gene's level begins.

A covariance that few counts decide hardly leaves the place where EM begins, so a type of few cells begins among the others:
its counts are taken for those of the mixture of other types that explains them best, where there are fewer than `UNSEEN`.

Cells scatter more than counts do, in some genes far more, and by as much as a gene is expressed: E_gk = E_k / (1 + psi_gk S_gk),
psi_gk from the gene's sampling variances over the types, each by how close its expression is to that of type k: single
cells that hold another type's marker (doublets, ambient RNA) scatter widely, and tell nothing of the type it marks.

References: Chiquet, J. et al. (2018) Variational inference for probabilistic Poisson PCA. Ann. Appl. Stat. 12, 2674. Urbut, S. M.
et al. (2019) Flexible statistical methods for estimating and testing effects in genomic studies with multiple conditions. Nat.
Genet. 51, 187.
"""

from dataclasses import dataclass, replace

import numpy as np

from unmix.core._profile_kernels import LARGEST, fit_profiles, pool_profiles
from unmix.core.shrinkage import ShrunkProfiles

SCALES = np.array([0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 9.0])
"""Candidate variances s of the log deviation from the gene's mean."""
BESIDE = (0.03, 0.3)
"""Those of all types where one goes alone,"""
ALONE = 2.0
"""and the variance J of that one."""
LEVEL = 1.0
"""Variance l of a gene's level, shared by all types."""
N_EM = 12
FIRST_ALONE = 0.1
"""Share of the genes in which a type goes alone, where EM begins: cells that scatter look like it, and it is slow to unlearn."""
FULL_ROUNDS = (0, 4, 8)
"""Rounds of EM that try every covariance on every gene; the others try those that are likely."""
NEAR = 0.1
"""A type that goes alone is taken to leave all others normal where it moves them by less, in squared standard deviations of
their counts; else they are fitted anew."""
N_STEPS, TOLERANCE = 15, 1e-3
N_WARM = 4
MAX_GENES = 1500
"""U, pi and b are estimated from so many genes, evenly spread over their expected counts."""
BLOCK = 1000
LIKELY, RARE = 1e-3, 1e-5
"""Least responsibility of a covariance that is improved for a gene, and its least weight over all genes."""
FAR = 12.0
"""A covariance whose bound is this much lower after `N_WARM` steps is not refined."""
UNSEEN = 2.0
"""Counts' worth of what others say of a type, where EM begins."""
N_MIXED = 100
"""Steps of EM for the mixture of others."""
PSEUDO_COUNTS = 10.0
"""Counts at the gene's mean that psi is drawn towards 0 by."""
FEWEST = 0.5
"""A gene's variance is at least so much of what the type's exposure says."""


@dataclass(frozen=True)
class ProfilePrior:
    """What is common to all genes."""

    U: np.ndarray
    """Covariance of types, of mean diagonal 1, shape (K, K)."""
    pi: np.ndarray
    """Weights of the covariances: the scales of U first, then every type alone, shape (C,)."""
    offset: np.ndarray
    """b, shape (K,)."""


def shrink_alike(S: np.ndarray, V: np.ndarray, shrunk: ShrunkProfiles) -> ShrunkProfiles:
    """Shrink profiles towards each other as far as their types go together.

    Parameters
    ----------
    S, V
        Profiles as measured, and their sampling variances, shape (G, K).
    shrunk
        Every entry on its own (:func:`unmix.core.shrinkage.shrink_profiles`): exposures, and the genes' means.

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
    >>> V = (S + 0.01) / 20
    >>> alone = shrink_profiles(S, V)
    >>> alike = shrink_alike(S, V, alone)
    >>> bool(np.std(alike.mean[:, 0] - alike.mean[:, 1]) < 0.5 * np.std(alone.mean[:, 0] - alone.mean[:, 1]))
    True
    """
    used = np.flatnonzero((S.sum(axis=1) > 0) & (shrunk.mean.min(axis=1) > 0))
    if not np.isfinite(shrunk.exposure).all() or used.size < S.shape[1]:
        return shrunk
    m = shrunk.mean[used].mean(axis=1, keepdims=True)
    E = exposure_of_entries(S[used], V[used], shrunk.mean[used], shrunk.exposure)
    n, expected = S[used] * E, m * E
    order = np.argsort(-expected.mean(axis=1), kind="stable")
    some = order[np.linspace(0, order.size - 1, min(MAX_GENES, order.size)).round().astype(int)]
    prior = estimate_prior(n[some], expected[some])
    mean, variance = shrunk.mean.copy(), shrunk.variance.copy()
    for begin in range(0, used.size, BLOCK):
        part = slice(begin, begin + BLOCK)
        first, second = posterior_moments(n[part], expected[part], prior)
        mean[used[part]], variance[used[part]] = m[part] * first, m[part] ** 2 * np.maximum(second - first**2, 0.0)
    return replace(shrunk, mean=mean, variance=variance)


def exposure_of_entries(S: np.ndarray, V: np.ndarray, mean: np.ndarray, exposure: np.ndarray) -> np.ndarray:
    """Return E_gk: by how much a gene's cells scatter beyond counting where it is expressed as in k, and by its expression there.

    Examples
    --------
    >>> S = np.full((2, 2), 4.0)
    >>> exposure_of_entries(S, np.array([[0.4, 0.4], [4.0, 4.0]]), S, np.full(2, 10.0)).round(1)
    array([[10. , 10. ],
           [ 1.1,  1.1]])
    """
    n = S * exposure
    beyond, scale, drawn = V * exposure**2 - n, n * S, PSEUDO_COUNTS * mean.mean(axis=1)
    psi = np.empty_like(mean)
    for k, own in enumerate(mean.T):
        alike = np.minimum(mean, own[:, None]) / np.maximum(np.maximum(mean, own[:, None]), 1e-300)
        psi[:, k] = (alike * beyond).sum(axis=1) / ((alike * scale).sum(axis=1) + drawn)
    return np.asarray(exposure / np.maximum(1 + psi * mean, FEWEST))


def estimate_prior(n: np.ndarray, expected: np.ndarray) -> ProfilePrior:
    """Maximise the bound on the marginal likelihood of counts over U, pi and the offsets.

    Parameters
    ----------
    n, expected
        Effective counts, and those expected of the gene's mean, shape (G, K).
    """
    K = n.shape[1]
    start = np.log((n + UNSEEN * mixed_ratios(n, expected)) / (expected + UNSEEN))
    U = _mean_one(np.cov((start - start.mean(axis=1, keepdims=True)).T).reshape(K, K) + 0.05 * np.eye(K))
    together, alone = len(SCALES), len(BESIDE) * K
    pi = np.repeat([(1 - FIRST_ALONE) / together, FIRST_ALONE / alone], [together, alone])
    offset, state = np.zeros(K), _State.begin(n, expected, together + alone)
    R = np.ones(state.bounds.shape)
    for turn in range(N_EM):
        scaled, C = covariances(U)
        at = expected * np.exp(offset)
        P = state.improve(n, at, C, (pi > RARE) & ((R > LIKELY) | (turn in FULL_ROUNDS)), N_WARM)
        R = responsibilities(state.bounds, pi)
        second, counts = pool_profiles(at, P, R, LIKELY / 10, state.d, state.v, together)
        U = _next_U(scaled, P, second, R[:, :together].sum(axis=0))
        pi = np.maximum(R.mean(axis=0), RARE / 10)
        pi /= pi.sum()
        offset = offset + np.log(n.sum(axis=0) / counts)
    return ProfilePrior(U, pi, offset)


def mixed_ratios(n: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """Return, for every type, the mixture of the other types that explains its counts best, over the gene's mean, shape (G, K).

    Parameters
    ----------
    n, expected
        Effective counts, and those expected of the gene's mean, shape (G, K).

    Examples
    --------
    >>> expected = np.full((2, 3), 100.0)
    >>> mixed_ratios(expected * np.array([[1.8, 1.8, 0.2], [0.2, 0.2, 1.8]]), expected)[:, 0].round(1)
    array([1.8, 0.2])
    """
    ratio = (n + 0.5) / (expected + 0.5)
    mixed = np.ones_like(ratio)
    for k in range(n.shape[1]) if n.shape[1] > 1 else ():
        others = np.delete(ratio, k, axis=1)
        counts, share = others * expected[:, [k]], np.full(others.shape[1], 1 / others.shape[1])
        total = np.maximum(counts.sum(axis=0), 1e-300)
        for _ in range(N_MIXED):
            share = share * (counts.T @ (n[:, k] / np.maximum(counts @ share, 1e-300))) / total
        mixed[:, k] = others @ share
    return mixed


def posterior_moments(n: np.ndarray, expected: np.ndarray, prior: ProfilePrior) -> tuple[np.ndarray, np.ndarray]:
    """Return posterior mean and second moment of `exp(b + d)`, shape (G, K)."""
    scale = np.exp(prior.offset)
    C, at = covariances(prior.U)[1], expected * scale
    state = _State.begin(n, at, len(C))
    state.improve(n, at, C, np.broadcast_to(prior.pi > RARE, state.bounds.shape), N_WARM)
    near = state.bounds + np.log(prior.pi)
    state.improve(n, at, C, near > near.max(axis=1, keepdims=True) - FAR, N_STEPS)
    R = responsibilities(state.bounds, prior.pi)
    moments = [
        np.einsum("gj,gjk->gk", R, np.exp(np.minimum(power * (state.d + power * state.v / 2), power * LARGEST)))
        for power in (1, 2)
    ]
    return moments[0] * scale, moments[1] * scale**2


def covariances(U: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return s U for every scale, and all covariances of d with the gene's level in them."""
    K = len(U)
    scaled = SCALES[:, None, None] * U
    alone = [s * U + np.diag(ALONE * (np.arange(K) == k)) for s in BESIDE for k in range(K)]
    return scaled, np.concatenate([scaled, alone]) + LEVEL + 1e-7 * np.eye(K)


def responsibilities(bounds: np.ndarray, pi: np.ndarray) -> np.ndarray:
    """Return the posterior probability of every covariance, shape (G, C)."""
    log_p = bounds + np.log(pi)
    R = np.exp(log_p - log_p.max(axis=1, keepdims=True))
    return np.asarray(R / R.sum(axis=1, keepdims=True))


@dataclass(frozen=True)
class _State:
    """Normal posteriors of the log deviations of every gene under every covariance, improved in place."""

    d: np.ndarray
    v: np.ndarray
    """Diagonal of the covariance; both of shape (G, C, K)."""
    bounds: np.ndarray
    """Shape (G, C)."""

    @staticmethod
    def begin(n: np.ndarray, expected: np.ndarray, n_covariances: int) -> "_State":
        shape = (len(n), n_covariances, n.shape[1])
        d = np.broadcast_to(np.log((n + 0.5) / (expected + 0.5))[:, None], shape).copy()
        return _State(d, np.broadcast_to((1 / (n + 1))[:, None], shape).copy(), np.full(shape[:2], -np.inf))

    def improve(self, n: np.ndarray, expected: np.ndarray, C: np.ndarray, wanted: np.ndarray, steps: int) -> np.ndarray:
        """Take steps under the covariances wanted; return their inverses."""
        P = np.linalg.inv(C)
        base, K = np.full(len(C), -1), n.shape[1]
        wanted = wanted.copy()
        for i, s in enumerate(BESIDE):
            b, own = int(np.flatnonzero(s == SCALES)[0]), slice(len(SCALES) + i * K, len(SCALES) + (i + 1) * K)
            base[own] = b
            wanted[:, b] |= wanted[:, own].any(axis=1)
        fit_profiles(
            n,
            expected,
            P,
            np.diagonal(C, axis1=1, axis2=2).copy(),
            np.linalg.slogdet(P)[1],
            wanted,
            self.d,
            self.v,
            self.bounds,
            steps,
            TOLERANCE,
            base,
            ALONE,
            NEAR,
        )
        return P


def _next_U(scaled: np.ndarray, P: np.ndarray, second: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Return the expectation of e e' / s over genes and scales, e being d without the gene's level.

    Where no gene is of those scales, U stays what it was.
    """
    if not weight.sum() > 0:
        return _mean_one(scaled[0])
    total = np.zeros_like(scaled[0])
    for s, sU, precision, moment, n_genes in zip(SCALES, scaled, P, second, weight, strict=False):
        share = sU @ precision  # E[e | d] = share d
        total += (share @ moment @ share.T + n_genes * (sU - share @ sU)) / s
    U = total / weight.sum()
    return _mean_one((U + U.T) / 2 + 1e-6 * np.eye(len(U)))


def _mean_one(U: np.ndarray) -> np.ndarray:
    return U * len(U) / np.trace(U)
