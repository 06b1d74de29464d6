"""What the few cells of a spot add to the errors: cells differ from their type's mean.

Symbols: x_c are the counts of a reference cell of type k(c) on the genes of the model, L (K, G) the pooled linear
estimator of the weights, u_c = L x_c what the cell would add to them, Omega_k the covariance of u_c over the cells of
type k, b_k the mean weight of a cell of type k. A spot with capture r (counts of the spot per count of a cell) holds
w_k / (r b_k) cells of type k, so that the covariance of its weights grows by
`r sum_k w_k / b_k Omega_k` (:func:`unmix.core.share_errors.with_scatter`).
"""

from typing import Any

import numpy as np
from scipy import sparse

from unmix.core.blocks import Block, reduce_rows
from unmix.core.countmodel_shared import CountModel


def pooled_estimator(model: CountModel) -> np.ndarray:
    """Return L, shape (K, G): weighted least squares with variances in proportion to the pooled means."""
    pooled = np.maximum(model.expected / np.exp(model.log_p), 1e-12)
    weight = np.exp(model.log_p) / (1 + model.dispersion * model.expected / max(model.expected.sum(), 1e-300)) / pooled
    cross = model.S.T * weight
    return np.linalg.solve(cross @ model.S + 1e-12 * np.eye(model.S.shape[1]), cross)


def cell_scatter(
    X: Any, labels: np.ndarray, columns: np.ndarray, model: CountModel, *, n_jobs: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean and the covariance of what a cell of every type adds to the weights, counting noise taken off.

    Parameters
    ----------
    X
        Counts of the reference's cells.
    labels
        Type of every cell, -1 for cells to leave out.
    columns
        Columns of X that hold the model's genes, shape (G,).
    model
        The count model.
    n_jobs
        Threads.

    Returns
    -------
    b of shape (K,), and Omega of shape (K, K, K), positive semi-definite. A type without cells (the unknown one) gets the mean
    of b, and no scatter.
    """
    L = pooled_estimator(model)
    count, first, second, noise = reduce_rows(
        _sums_of_block, X, labels, constants=(columns, L), n_jobs=n_jobs, desc="scatter of cells"
    )
    n = np.maximum(count, 1.0)
    mean = first / n[:, None]
    outer = mean[:, :, None] * mean[:, None, :]
    covariance = (second / n[:, None, None] - outer) * (n / np.maximum(n - 1, 1))[:, None, None]
    values, vectors = np.linalg.eigh(covariance - noise / n[:, None, None])
    scatter = np.einsum("kab,kb,kcb->kac", vectors, np.maximum(values, 0.0), vectors)
    own = np.maximum(np.einsum("kk->k", mean), 1e-300)
    return np.where(count > 0, own, own[count > 0].mean()), scatter


def _sums_of_block(block: Block, labels: np.ndarray, columns: np.ndarray, L: np.ndarray) -> tuple[np.ndarray, ...]:
    K = L.shape[0]
    cells = sparse.csr_array(block, dtype=np.float64)[:, columns]
    count, first = np.zeros(K), np.zeros((K, K))
    second, noise = np.zeros((K, K, K)), np.zeros((K, K, K))
    for k in range(K):
        own = cells[labels == k]
        u = own @ L.T
        count[k], first[k], second[k] = own.shape[0], u.sum(axis=0), u.T @ u
        noise[k] = (L * np.asarray(own.sum(axis=0)).ravel()) @ L.T
    return count, first, second, noise
