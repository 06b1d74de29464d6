"""Standard errors of shares from the covariances of weights, block by block, so that covariances need not be kept.

Symbols: w_i the weights of row i (K,), C_i their covariance (K, K), s_k what type k's weight is divided by.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from unmix.core.countmodel_shared import CountModel
from unmix.core.scatter import CellScatter


@dataclass(frozen=True)
class ShareErrors:
    """What the errors of shares depend on besides the fit."""

    sizes: np.ndarray | None = None
    """What every type's weight is divided by before shares are taken, shape (K,)."""
    scatter: Callable[[CountModel], CellScatter] | None = None
    """Returns, for the count model, what :func:`unmix.core.scatter.cell_scatter` does."""
    cells_per_spot: float | np.ndarray | None = None
    """How many cells a row holds, all rows or every one of them, shape (N,); `None` where the scatter's estimate is used."""
    size_variances: np.ndarray | None = None
    """Variances of the logs of the sizes, shape (K,); none where the sizes are known."""

    def cells(self, n_obs: int) -> np.ndarray:
        """Return how many cells every row holds, shape (N,), NaN where it is not known."""
        known = np.nan if self.cells_per_spot is None else self.cells_per_spot
        return np.broadcast_to(np.asarray(known, dtype=np.float64), (n_obs,))

    def constants(self, model: CountModel) -> tuple[np.ndarray | None, np.ndarray, CellScatter | None]:
        """Return the sizes, the variances of their logs, and the scatter.

        A type that the reference lacks has the mean size, and differs from it as the other types do.
        """
        sizes, missing = self.sizes, model.S.shape[1] - (0 if self.sizes is None else len(self.sizes))
        variances = np.zeros(model.S.shape[1])
        if sizes is not None:
            known = np.zeros(len(sizes)) if self.size_variances is None else self.size_variances
            variances = np.append(known, np.full(missing, np.var(np.log(sizes))))
            sizes = np.append(sizes, np.full(missing, sizes.mean()))
        return sizes, variances, None if self.scatter is None else self.scatter(model)

    def described(self, model: CountModel, scatter: CellScatter) -> str:
        """Return how many cells a row holds on average, and how that is known."""
        if self.cells_per_spot is not None:
            return f"{np.mean(self.cells_per_spot):.3g}, as given"
        if not (scatter.capture > 0 and model.n_spots > 0):
            return "unlimited, estimated from the residuals"
        n = (model.total / scatter.unit).sum() / model.n_spots / (scatter.capture * model.scale)
        return f"{n:.3g}, estimated from the residuals"


def share_errors(
    weights: np.ndarray,
    covariance: np.ndarray,
    sizes: np.ndarray | None = None,
    size_variances: np.ndarray | None = None,
) -> np.ndarray:
    """Return the standard errors of the shares of the types, by the delta method, shape (N, K).

    Parameters
    ----------
    weights
        W, shape (N, K).
    covariance
        Their covariances, shape (N, K, K).
    sizes
        What every type's weight is divided by before the shares are taken, shape (K,).
    size_variances
        Variances of the logs of the sizes, shape (K,).

    Examples
    --------
    >>> share_errors(np.array([[8.0, 8.0]]), np.array([np.diag([8.0, 8.0])]))
    array([[0.125, 0.125]])
    """
    if size_variances is not None:
        covariance = covariance + (weights**2 * size_variances)[:, :, None] * np.eye(weights.shape[1])
    size = np.ones(weights.shape[1]) if sizes is None else sizes
    amounts = weights / size
    total = np.where(amounts.sum(axis=1) > 0, amounts.sum(axis=1), np.nan)[:, None]
    J = (np.eye(len(size)) - (amounts / total)[:, :, None]) / total[:, :, None] / size
    return np.sqrt(np.maximum(np.einsum("ikl,ilm,ikm->ik", J, covariance, J, optimize=True), 0.0))


def with_scatter(
    W: np.ndarray,
    covariance: np.ndarray,
    scatter: CellScatter,
    cells_per_spot: float | np.ndarray,
    present: np.ndarray | None = None,
) -> np.ndarray:
    """Return the covariances of the weights with the scatter of the cells added, shape (N, K, K).

    Parameters
    ----------
    W, covariance
        Weights, shape (N, K), and their covariances.
    scatter
        From :func:`unmix.core.scatter.cell_scatter`.
    cells_per_spot
        How many cells a spot holds: on average, or every one of them, shape (N,); NaN for the scatter's estimate of the
        capture (and one cell at least).
    present
        Probability that a type is present, shape (N, K), as far as its weight answers to the counts; NaN for 1.
    """
    W = np.nan_to_num(W)
    cells = W / scatter.unit
    total = cells.sum(axis=1)
    given = np.broadcast_to(cells_per_spot, total.shape)
    capture = np.where(np.isnan(given), np.minimum(scatter.capture, total), total / np.fmax(given, 1.0))
    added = np.einsum("ik,kab->iab", capture[:, None] * cells, scatter.covariance)
    there = (W > 0) * (1.0 if present is None else np.where(np.isnan(present), 1.0, present))
    return covariance + added * there[:, :, None] * there[:, None, :]
