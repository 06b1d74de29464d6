"""What is left of counts about their means: squares by gene, and how much of them counting makes."""

import numpy as np
from scipy import sparse
from scipy.stats import chi2


def squared_residuals(Y: sparse.csr_array, A: np.ndarray, W: np.ndarray) -> np.ndarray:
    """Return the sum over spots of squared differences of counts and means, shape (G,), without a dense matrix of Y.

    Examples
    --------
    >>> squared_residuals(sparse.csr_array(np.array([[3.0, 0.0]])), np.array([[1.0], [2.0]]), np.array([[1.0]]))
    array([4., 4.])
    """
    rows = np.repeat(np.arange(Y.shape[0]), np.diff(Y.indptr))
    fitted = np.einsum("ek,ek->e", W[rows], A[Y.indices])
    counted = np.bincount(Y.indices, Y.data * (Y.data - 2 * fitted), minlength=Y.shape[1])
    return counted + np.einsum("gk,kl,gl->g", A, W.T @ W, A, optimize=True)


def dispersion_of_counting(Y: sparse.csr_array, S: np.ndarray, W: np.ndarray) -> float:
    """Return the Pearson dispersion of values about the means `S w` times each gene's own factor.

    It is 1 for counts and c for c times counts. It is the median of the half of the genes with lower values: in those of higher
    values cells and spots differ by more than counting, `phi m` in proportion.

    Parameters
    ----------
    Y
        Values, shape (N, G), of two rows or more.
    S, W
        Profiles, shape (G, K), and weights, shape (N, K).

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> S, W = rng.gamma(1.0, 1.0, (2000, 2)), np.ones((50, 2))
    >>> counts = rng.poisson(W @ (S * rng.lognormal(0, 1, (2000, 1))).T)
    >>> round(dispersion_of_counting(sparse.csr_array(37.3 * counts), S, W) / 37.3, 1)
    1.0
    """
    total, expected = np.asarray(Y.sum(axis=0)).ravel(), S @ W.sum(axis=0)
    there = (total > 0) & (expected > 0)
    factor = np.divide(total, expected, out=np.zeros_like(total), where=there)
    low = there & (total <= np.median(total[there])) if there.any() else there
    if not low.any():
        return 1.0
    own = squared_residuals(Y, S * factor[:, None], W)[low] / total[low]
    return float(np.median(own) * Y.shape[0] / chi2.median(Y.shape[0] - 1))


def log_likelihoods(Y: sparse.csr_array, mean: np.ndarray, phi: float) -> np.ndarray:
    """Log-likelihood of every row without terms free of the mean, shape (N,)."""
    m = np.maximum(mean, 1e-12)
    if phi == 0:
        return np.asarray(Y.multiply(np.log(m)).sum(axis=1)).ravel() - m.sum(axis=1)
    counted = np.asarray(Y.multiply(np.log(m) - np.log1p(phi * m)).sum(axis=1)).ravel()
    return counted - np.log1p(phi * m).sum(axis=1) / phi
