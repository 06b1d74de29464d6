"""The dispersion that all spots share in the count model, by likelihood.

The symbols are those of :mod:`unmix.core.countmodel`.
"""

import numpy as np
from scipy import sparse
from scipy.special import gammaln

from unmix.core._countmodel_kernels import csr_parts, fit_rows

DISPERSIONS = np.array([0.0, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2])


def choose_dispersion(Y: sparse.csr_array, A: np.ndarray, W: np.ndarray) -> float:
    """Choose phi from `DISPERSIONS` by the likelihood of the refitted spots, walking up until it falls.

    Parameters
    ----------
    Y
        Counts, shape (N, G).
    A
        Profiles times platform factors, shape (G, K).
    W
        Start of the weights, shape (N, K).
    """
    best, best_value = 0.0, -np.inf
    for phi in DISPERSIONS:
        W, value, *_ = fit_rows(*csr_parts(Y), A, phi, W.copy(), 8)
        total = float(value.sum()) + _constant(Y.data, float(phi))
        if total <= best_value:
            break
        best, best_value = float(phi), total
    return best


def _constant(y: np.ndarray, phi: float) -> float:
    """Log-likelihood terms that depend on phi and the counts alone."""
    if phi == 0:
        return 0.0
    return float((gammaln(y + 1 / phi) - gammaln(1 / phi) + y * np.log(phi)).sum())
