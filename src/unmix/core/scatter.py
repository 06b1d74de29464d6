"""What the few cells of a spot add to the errors: cells differ from their type's mean.

Symbols: x_c are the counts of a reference cell of type k(c) on the genes of the model, L (K, G) the pooled linear
estimator of the weights, u_c = L x_c what the cell would add to them, Omega_k the covariance of u_c over the cells of
type k, b_k the mean weight of a cell of type k. A spot with capture r (counts of the spot per count of a cell) holds
w_k / (r b_k) cells of type k, so that the covariance of its weights grows by `r sum_k w_k / b_k Omega_k`
(:func:`unmix.core.share_errors.with_scatter`).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import sparse

from unmix.core.blocks import Block, reduce_rows
from unmix.core.countmodel_shared import CountModel

MIN_MEAN = 0.05
"""Genes of smaller mean counts in a spot say nothing of its cells."""


def pooled_estimator(model: CountModel) -> np.ndarray:
    """Return L, shape (K, G): weighted least squares with variances in proportion to the pooled means."""
    pooled = np.maximum(model.expected / np.exp(model.log_p), 1e-12)
    weight = np.exp(model.log_p) / (1 + model.dispersion * model.expected / max(model.expected.sum(), 1e-300)) / pooled
    cross = model.S.T * weight
    gram = cross @ model.S
    return np.linalg.solve(gram + 1e-12 * max(1.0, np.trace(gram)) * np.eye(len(gram)), cross)


@dataclass(frozen=True)
class CellScatter:
    """How the cells of every type differ."""

    unit: np.ndarray
    """b, what a cell adds to the weight of its type on average, shape (K,)."""
    covariance: np.ndarray
    """Omega, covariance of what a cell adds to all weights, shape (K, K, K), positive semi-definite."""
    capture: float
    """r, as the residuals of the spots show it, in the units of X."""


def cell_scatter(X: Any, labels: np.ndarray, columns: np.ndarray, model: CountModel, *, n_jobs: int = 1) -> CellScatter:
    """Return how the cells of every type differ, counting noise taken off.

    Parameters
    ----------
    X
        Counts of the reference's cells.
    labels
        Type of every cell, -1 for cells to leave out; cells without counts are left out too, as from the signatures.
    columns
        Columns of X that hold the model's genes, shape (G,).
    model
        The count model.
    n_jobs
        Threads.

    Returns
    -------
    The scatter. A type without cells (the unknown one) gets the mean of b, and no scatter.
    """
    L = pooled_estimator(model)
    count, first, second, total, squares = reduce_rows(
        _sums_of_block, X, labels, constants=(columns, L), n_jobs=n_jobs, desc="scatter of cells"
    )
    n = np.maximum(count, 1.0)
    unbiased = n / np.maximum(n - 1, 1)
    mean = first / n[:, None]
    outer = mean[:, :, None] * mean[:, None, :]
    covariance = (second / n[:, None, None] - outer) * unbiased[:, None, None]
    noise = np.einsum("ag,kg,bg->kab", L, total / n[:, None], L, optimize=True)
    values, vectors = np.linalg.eigh(covariance - noise)
    scatter = np.einsum("kab,kb,kcb->kac", vectors, np.maximum(values, 0.0), vectors)
    gene_mean = total / n[:, None]
    excess = (squares / n[:, None] - gene_mean**2) * unbiased[:, None] - gene_mean
    own = np.maximum(np.einsum("kk->k", mean), 1e-300)
    unit = np.where(count > 0, own, own[count > 0].mean())
    return CellScatter(unit, scatter, estimate_capture(model, unit, excess.T) / model.scale)


def _sums_of_block(block: Block, labels: np.ndarray, columns: np.ndarray, L: np.ndarray) -> tuple[np.ndarray, ...]:
    K, G = L.shape
    everything = sparse.csr_array(block, dtype=np.float64)
    counted, cells = np.asarray(everything.sum(axis=1)).ravel() > 0, everything[:, columns]
    count, first, second = np.zeros(K), np.zeros((K, K)), np.zeros((K, K, K))
    total, squares = np.zeros((K, G)), np.zeros((K, G))
    for k in range(K):
        own = cells[(labels == k) & counted]
        u = own @ L.T
        count[k], first[k], second[k] = own.shape[0], u.sum(axis=0), u.T @ u
        total[k], squares[k] = own.sum(axis=0), own.multiply(own).sum(axis=0)
    return count, first, second, total, squares


def estimate_capture(model: CountModel, unit: np.ndarray, excess: np.ndarray) -> float:
    """Return r, by the variance of the spots' counts about their fits over that of the cells' counts about their types.

    The fewer cells a spot holds, the more of what differs between cells is left in it: the counts of a gene have the
    variance `m + r p^2 sum_k w_k / b_k v_k`, v_k that of a cell beyond counting noise. r is found by weighted least
    squares over the genes; 0 where spots are mixtures of the types' means.

    Parameters
    ----------
    model
        The count model.
    unit
        b, shape (K,).
    excess
        v, shape (G, K).

    Examples
    --------
    >>> from unmix.core.countmodel import fit_count_model
    >>> rng = np.random.default_rng(0)
    >>> S = rng.gamma(0.5, 1.0, (200, 2))
    >>> fit = fit_count_model(rng.poisson(50 * rng.dirichlet(np.ones(2), 30) @ S.T), S, np.zeros_like(S))
    >>> estimate_capture(fit.model, np.full(2, 30.0), 450 * S[fit.model.genes] ** 2) < 0.05
    True
    """
    expected = np.exp(2 * model.log_p) * (excess @ (model.total / unit))
    mean = model.expected / max(model.n_spots, 1)
    used = (mean > MIN_MEAN) & (expected > 0)
    weight = 1 / (2 * mean[used] ** 2 + mean[used])
    norm = float((weight * expected[used] ** 2).sum())
    return max(float((weight * expected[used] * model.excess[used]).sum()) / norm, 0.0) if norm > 0 else 0.0
