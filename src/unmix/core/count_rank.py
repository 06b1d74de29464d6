"""In how many dimensions the means of counts vary: their rank, told from noise by rows and columns brought to equal noise.

Counts y_ig with means of low rank and variance mu + phi mu^2 (phi = 0: Poisson) are scaled to sqrt(u_i v_g) y_ig so that the
noise has variance 1 on average in every row and every column (biwhitening, by Sinkhorn's scaling of unbiased estimates of
the variances). Noise alone then has the spectrum of Marchenko and Pastur, whatever the totals of rows and means of genes;
singular values above its edge belong to the means. phi is the value at which the spectrum is closest to that law.
"""

import numpy as np

DISPERSIONS = np.concatenate([[0.0], 10.0 ** np.arange(-2.0, 0.7, 0.1)])
"""Candidates of phi; every fourth is tried, and then those about the best of them."""
COARSE = 4
DISPERSION_ROWS = 500
"""Rows by which phi is chosen."""
MIN_EXPRESSED = 3
"""Genes that fewer rows express are left out: there is no noise to estimate."""
EDGE_QUANTILE = 0.9793
"""95% quantile of Tracy and Widom's law of the largest eigenvalue of noise."""
SCALING_STEPS, SCALING_TOL = 200, 1e-3


def count_rank(Y: np.ndarray) -> int:
    """Return the rank of the means of counts Y (rows x genes) beyond that of rows which differ by their totals alone.

    Mixtures of K profiles have rank K - 1. Counts may be in any unit that does not depend on the gene.

    References
    ----------
    Landa, B., Zhang, T. and Kluger, Y. (2022) Biwhitening reveals the rank of a count matrix. SIAM J. Math. Data Sci. 4, 1420.
    Johnstone, I. M. (2001) On the distribution of the largest eigenvalue in principal components analysis. Ann. Stat. 29, 295.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> profiles = rng.gamma(0.5, 1.0, (3, 300))
    >>> count_rank(rng.poisson(rng.dirichlet(np.ones(3), 200) @ profiles))
    2
    """
    Y = _with_noise(np.asarray(Y, dtype=np.float64))
    if min(Y.shape) < 2:
        return 0
    some = _with_noise(Y[:: -(-len(Y) // DISPERSION_ROWS)])
    values, _ = _spectrum(Y, _dispersion(some))
    return max(int((values > _edge(*Y.shape)).sum()) - 1, 0)


def _dispersion(Y: np.ndarray) -> float:
    """Return the phi whose spectrum is closest to that of noise."""
    fits: dict[int, float] = {}
    centre = 0
    for tried in (range(0, len(DISPERSIONS), COARSE), range(-COARSE + 1, COARSE)):
        for i in {centre + step for step in tried} - set(fits):
            if 0 <= i < len(DISPERSIONS):
                fits[i] = _distance_from_noise(*_spectrum(Y, DISPERSIONS[i]))
        centre = min(sorted(fits), key=fits.__getitem__)
    return float(DISPERSIONS[centre])


def _with_noise(Y: np.ndarray) -> np.ndarray:
    """Return the rows that have counts, of genes that more than a few rows express."""
    Y = Y[:, (Y > 0).sum(axis=0) >= MIN_EXPRESSED]
    return Y[Y.any(axis=1)]


def _spectrum(Y: np.ndarray, phi: float) -> tuple[np.ndarray, float]:
    """Return the eigenvalues of the scaled counts' Gram matrix over the larger side, and the ratio of the sides."""
    u, v = equalise((Y + phi * Y**2) / (1.0 + phi))
    scaled = np.sqrt(u)[:, None] * Y * np.sqrt(v)
    scaled = scaled if Y.shape[0] <= Y.shape[1] else scaled.T
    small, large = scaled.shape
    return np.linalg.eigvalsh(scaled @ scaled.T) / large, small / large


def equalise(V: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return factors of rows and columns after which the mean of every row and every column of V is one.

    Examples
    --------
    >>> u, v = equalise(np.array([[1.0, 2.0], [3.0, 1.0]]))
    >>> (u[:, None] * [[1.0, 2.0], [3.0, 1.0]] * v).mean(axis=1).round(2)
    array([1., 1.])
    """
    n, genes = V.shape
    v = np.ones(genes)
    for _ in range(SCALING_STEPS):
        u = genes / (V @ v)
        sums = u @ V
        if np.abs(v * sums / n - 1.0).max() < SCALING_TOL:
            break
        v = n / sums
    return u, v


def _distance_from_noise(values: np.ndarray, ratio: float) -> float:
    """Return the largest distance of the distribution of eigenvalues from that of noise (Kolmogorov and Smirnov)."""
    low, high = (1.0 - np.sqrt(ratio)) ** 2, (1.0 + np.sqrt(ratio)) ** 2
    angle = (np.arange(4000) + 0.5) * np.pi / 8000
    x = low + (high - low) * np.sin(angle) ** 2
    share = np.cumsum((np.sin(angle) * np.cos(angle)) ** 2 / x)
    expected = np.interp(values, x, share / share[-1], left=0.0, right=1.0)
    return float(np.abs(expected - (np.arange(len(values)) + 0.5) / len(values)).max())


def _edge(n: int, genes: int) -> float:
    """Return the eigenvalue that noise exceeds in one of twenty matrices (over the larger side)."""
    one, other = np.sqrt(min(n, genes)), np.sqrt(max(n, genes) - 1)
    spread = (one + other) * (1.0 / one + 1.0 / other) ** (1.0 / 3.0)
    return float((one + other) ** 2 + EDGE_QUANTILE * spread) / max(n, genes)
