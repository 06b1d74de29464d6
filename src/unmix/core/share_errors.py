"""Standard errors of shares from the covariances of weights, block by block, so that covariances need not be kept.

Symbols: w_i the weights of row i (K,), C_i their covariance (K, K), s_k what type k's weight is divided by.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class ShareErrors:
    """What the errors of shares depend on besides the fit."""

    sizes: np.ndarray | None = None
    """What every type's weight is divided by before shares are taken, shape (K,)."""
    scatter: Callable[[Any], tuple[np.ndarray, np.ndarray]] | None = None
    """Returns, for the count model, what :func:`unmix.core.scatter.cell_scatter` does."""
    cells_per_spot: float | np.ndarray = 1.0

    def cells(self, n_obs: int) -> np.ndarray:
        """Return how many cells every row holds, shape (N,)."""
        return np.broadcast_to(np.asarray(self.cells_per_spot, dtype=np.float64), (n_obs,))

    def constants(self, model: Any) -> tuple[np.ndarray | None, np.ndarray | None, np.ndarray | None]:
        """Return the sizes, and b and Omega of the scatter; a type that the reference lacks has the mean size."""
        sizes = self.sizes
        if sizes is not None and len(sizes) < model.S.shape[1]:
            sizes = np.append(sizes, sizes.mean())
        b, Omega = (None, None) if self.scatter is None else self.scatter(model)
        return sizes, b, Omega


def share_errors(weights: np.ndarray, covariance: np.ndarray, sizes: np.ndarray | None = None) -> np.ndarray:
    """Return the standard errors of the shares of the types, by the delta method, shape (N, K).

    Parameters
    ----------
    weights
        W, shape (N, K).
    covariance
        Their covariances, shape (N, K, K).
    sizes
        What every type's weight is divided by before the shares are taken, shape (K,).

    Examples
    --------
    >>> share_errors(np.array([[8.0, 8.0]]), np.array([np.diag([8.0, 8.0])]))
    array([[0.125, 0.125]])
    """
    size = np.ones(weights.shape[1]) if sizes is None else sizes
    amounts = weights / size
    total = np.where(amounts.sum(axis=1) > 0, amounts.sum(axis=1), np.nan)[:, None]
    J = (np.eye(len(size)) - (amounts / total)[:, :, None]) / total[:, :, None] / size
    return np.sqrt(np.maximum(np.einsum("ikl,ilm,ikm->ik", J, covariance, J, optimize=True), 0.0))


def with_scatter(
    W: np.ndarray, covariance: np.ndarray, b: np.ndarray, Omega: np.ndarray, cells_per_spot: float | np.ndarray
) -> np.ndarray:
    """Return the covariances of the weights with the scatter of `cells_per_spot` cells added, shape (N, K, K).

    Parameters
    ----------
    W, covariance
        Weights, shape (N, K), and their covariances.
    b, Omega
        From :func:`unmix.core.scatter.cell_scatter`.
    cells_per_spot
        How many cells a spot holds: on average, or every one of them, shape (N,).
    """
    W = np.nan_to_num(W)
    cells = W / b
    capture = cells.sum(axis=1) / np.maximum(cells_per_spot, 1.0)
    added = np.einsum("ik,kab->iab", capture[:, None] * cells, Omega)
    free = W > 0
    return covariance + np.where(free[:, :, None] & free[:, None, :], added, 0.0)


def errors_of_block(
    W: np.ndarray,
    covariance: np.ndarray,
    cells: np.ndarray,
    sizes: np.ndarray | None,
    b: np.ndarray | None,
    Omega: np.ndarray | None,
) -> np.ndarray:
    """Return the errors of the shares of some rows, with scatter where it is known."""
    if b is not None and Omega is not None:
        covariance = with_scatter(W, covariance, b, Omega, cells)
    return share_errors(W, covariance, sizes)
