"""Is a mixture explained by the signatures at all: a null of correlations by permutation, and honest p-values.

A null mixture is G values drawn without replacement from all entries of the data, fitted like a mixture. One null
serves every mixture, so that its cost does not depend on their number. Newman et al., Nature Methods 12:453 (2015).
"""

from collections.abc import Callable

import numpy as np
from scipy.stats import genpareto

from unmix.core.cibersort import cibersort

BATCH = 256
MIN_NULL = 100
MIN_ABOVE = 10
MAX_TAIL = 250
MAX_CORRELATION = 1 - 1e-15


def null_mixtures(
    values: np.ndarray,
    n_genes: int,
    n_perms: int,
    *,
    n_zeros: int = 0,
    n_values: int | None = None,
    rng: int | np.random.Generator | None = 0,
) -> np.ndarray:
    """Draw mixtures without any structure from the pooled entries of the data.

    Parameters
    ----------
    values
        Pooled entries, or the non-zero ones only, or a random sample of those.
    n_genes
        Genes of a mixture.
    n_perms
        Mixtures to draw.
    n_zeros
        Zeros that belong to the pool besides `values`.
    n_values
        How many entries `values` stands for, where it is a sample; `None` for its own size.
    rng
        Seed.

    Returns
    -------
    Mixtures (n_perms, n_genes); the entries of one are drawn without replacement.

    Raises
    ------
    ValueError
        If the pool is smaller than one mixture.

    Examples
    --------
    >>> null_mixtures(np.array([1.0, 2.0, 3.0]), 4, 1, n_zeros=3).shape
    (1, 4)
    """
    values = np.asarray(values, float).ravel()
    n_values = values.size if n_values is None else n_values
    if n_values + n_zeros < n_genes or values.size < min(n_genes, n_values):
        msg = f"A pool of {values.size} values and {n_zeros} zeros is too small for mixtures of {n_genes} genes."
        raise ValueError(msg)
    random = np.random.default_rng(rng)
    filled = random.hypergeometric(n_values, n_zeros, n_genes, size=n_perms) if n_zeros else np.full(n_perms, n_genes)
    mixtures = np.zeros((n_perms, n_genes))
    for row, n in zip(mixtures, filled, strict=True):
        row[:n] = random.choice(values, n, replace=False, shuffle=False)
        random.shuffle(row)
    return mixtures


def null_correlations(
    signature: np.ndarray,
    values: np.ndarray,
    n_perms: int,
    *,
    n_zeros: int = 0,
    n_values: int | None = None,
    fit: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None,
    rng: int | np.random.Generator | None = 0,
) -> np.ndarray:
    """Fit mixtures without any structure and return their correlations.

    Parameters
    ----------
    signature
        Signatures (G, K) on the shared genes.
    values, n_zeros, n_values, rng
        The pool and the seed, as in :func:`null_mixtures`.
    n_perms
        Mixtures to fit.
    fit
        Called as `fit(signature, mixtures)`, returns the correlation of every mixture; `None` for that of
        :func:`unmix.core.cibersort.cibersort`.

    Returns
    -------
    Correlations (n_perms,); NaN where a null mixture cannot be fitted.

    Examples
    --------
    >>> random = np.random.default_rng(0)
    >>> signature = random.gamma(1.0, 100.0, (60, 3))
    >>> bool(null_correlations(signature, random.gamma(1.0, 100.0, 600), 20).max() < 0.8)
    True
    """
    signature = np.asarray(signature, float)
    fit = fit or (lambda S, M: cibersort(S, M).correlation)
    mixtures = null_mixtures(values, len(signature), n_perms, n_zeros=n_zeros, n_values=n_values, rng=rng)
    parts = [fit(signature, mixtures[start : start + BATCH]) for start in range(0, n_perms, BATCH)]
    return np.concatenate(parts) if parts else np.empty(0)


def p_values(r: np.ndarray, null: np.ndarray) -> np.ndarray:
    """Return the share of the null, the observation included, that correlates at least as well.

    Parameters
    ----------
    r
        Correlations (N,); NaN stays NaN.
    null
        Correlations of the null (P,); its NaN are left out, as those of the observations are.

    Returns
    -------
    p-values (N,) in [1 / (P + 1), 1]: never 0; NaN without a null.

    Notes
    -----
    Phipson and Smyth, Statistical Applications in Genetics and Molecular Biology 9:39 (2010).

    Examples
    --------
    >>> p_values(np.array([0.9, 0.2, np.nan]), np.array([0.1, 0.2, 0.3]))
    array([0.25, 0.75,  nan])
    """
    r = np.asarray(r, float)
    null = np.sort(null[~np.isnan(null)])
    if null.size == 0:
        return np.full(r.shape, np.nan)
    above = null.size - np.searchsorted(null, r, side="left")
    return np.where(np.isnan(r), np.nan, (1 + above) / (null.size + 1))


def tail_p_values(r: np.ndarray, null: np.ndarray) -> np.ndarray:
    """Return p-values that go on beyond 1 / (P + 1): the null's upper tail is that of a generalised Pareto distribution.

    Where fewer than `MIN_ABOVE` of the null are above an observation, its p-value is the tail's share of the null times the
    chance that the tail's distribution gives, fitted to the largest quarter of the null (at most `MAX_TAIL`) by L-moments on
    Fisher's scale. The tail is taken to have no end, so that p stays above 0 and, for nulls of lighter tails, on the safe side.

    Parameters
    ----------
    r
        Correlations (N,); NaN stays NaN.
    null
        Correlations of the null (P,). With fewer than `MIN_NULL` there is no tail to fit, and :func:`p_values` is returned.

    References
    ----------
    Knijnenburg, T. A. et al. (2009) Fewer permutations, more accurate P-values. Bioinformatics 25, i161.
    Hosking, J. R. M. and Wallis, J. R. (1987) Parameter and quantile estimation for the generalized Pareto distribution.
    Technometrics 29, 339.

    Examples
    --------
    >>> null = np.tanh(np.random.default_rng(0).exponential(0.1, 1000))
    >>> bool(1e-7 < tail_p_values(np.tanh([1.2]), null)[0] < 1e-4)
    True
    """
    r = np.asarray(r, float)
    p = p_values(r, null)
    null = np.sort(null[~np.isnan(null)])
    if null.size < MIN_NULL:
        return p
    n_tail = min(null.size // 4, MAX_TAIL)
    scale = np.arctanh(np.clip(null, -1, MAX_CORRELATION))
    threshold = (scale[-n_tail] + scale[-n_tail - 1]) / 2
    shape, width = pareto_by_l_moments(scale[-n_tail:] - threshold)
    far = np.searchsorted(-null[::-1], -r, side="right") < MIN_ABOVE
    if width <= 0 or not far.any():
        return p
    beyond = np.arctanh(np.clip(r[far], -1, MAX_CORRELATION)) - threshold
    p[far] = np.minimum(n_tail / null.size * genpareto.sf(beyond, shape, scale=width), MIN_ABOVE / null.size)
    return p


def pareto_by_l_moments(excess: np.ndarray) -> tuple[float, float]:
    """Return the shape, at least 0, and the scale of a generalised Pareto distribution, by L-moments.

    Examples
    --------
    >>> shape, scale = pareto_by_l_moments(np.random.default_rng(0).exponential(2.0, 20_000))
    >>> round(shape, 1), round(scale, 1)
    (0.0, 2.0)
    """
    y = np.sort(excess)
    mean = float(y.mean())
    second = float((y * (y.size - np.arange(1, y.size + 1))).sum() / (y.size * (y.size - 1)))
    if mean - 2 * second <= 0:
        return 0.0, mean
    shape = 2 - mean / (mean - 2 * second)
    return (shape, 2 * mean * second / (mean - 2 * second)) if shape > 0 else (0.0, mean)
