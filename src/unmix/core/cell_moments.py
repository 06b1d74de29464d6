"""Sums over the cells of every type, in one pass over the reference.

Symbols: y_cg is the count of gene g in cell c, n_c = sum_g y_cg its depth, x_cg = y_cg / n_c the share of the gene.
"""

from dataclasses import astuple, dataclass

import numba as nb
import numpy as np
from scipy import sparse

from unmix.core.blocks import Block, reduce_rows

SCALE = 1e4
"""Profiles are counts per `SCALE` counts."""


@dataclass(frozen=True)
class Moments:
    """Sums over the cells of every type; arrays are types x genes unless said."""

    n_cells: np.ndarray
    """Cells of every type, shape (K,)."""
    depth: np.ndarray
    """Sum of the depths n_c, shape (K,)."""
    depth_squared: np.ndarray
    """Sum of their squares, shape (K,)."""
    inverse_depth: np.ndarray
    """Sum of 1 / n_c, shape (K,)."""
    share: np.ndarray
    share_squared: np.ndarray
    count: np.ndarray
    count_squared: np.ndarray
    count_share: np.ndarray
    """Sum of y_cg x_cg,"""
    count_depth: np.ndarray
    """and of y_cg n_c."""
    log: np.ndarray
    """Sum of log1p(`SCALE` x_cg)."""
    log_squared: np.ndarray


@nb.njit(cache=True, nogil=True)
def _add_cells(
    indptr: np.ndarray, indices: np.ndarray, data: np.ndarray, labels: np.ndarray, scale: float, sums: np.ndarray
) -> None:
    """Add x, x^2, y, y^2, y x, y n, log1p(scale x) and its square of every labelled cell to `sums` (8, K, G)."""
    for c in range(labels.size):
        k = labels[c]
        total = 0.0
        for p in range(indptr[c], indptr[c + 1]):
            total += data[p]
        if k < 0 or total <= 0:
            continue
        for p in range(indptr[c], indptr[c + 1]):
            y = data[p]
            x = y / total
            log = np.log1p(scale * x)
            g = indices[p]
            sums[0, k, g] += x
            sums[1, k, g] += x * x
            sums[2, k, g] += y
            sums[3, k, g] += y * y
            sums[4, k, g] += y * x
            sums[5, k, g] += y * total
            sums[6, k, g] += log
            sums[7, k, g] += log * log


def _moments_of_block(block: Block, labels: np.ndarray, n_types: int) -> tuple[np.ndarray, np.ndarray]:
    cells = sparse.csr_array(block)
    sums = np.zeros((8, n_types, cells.shape[1]))
    data = cells.data.astype(np.float64)
    _add_cells(cells.indptr.astype(np.int64), cells.indices.astype(np.int64), data, labels, SCALE, sums)
    totals = np.asarray(cells.sum(axis=1, dtype=np.float64)).ravel()
    used = (labels >= 0) & (totals > 0)
    powers = totals[used] ** np.array([0.0, 1.0, 2.0, -1.0])[:, None]
    of_type = np.stack([np.bincount(labels[used], weights=power, minlength=n_types) for power in powers])
    return of_type, sums


def moments(X: object, labels: np.ndarray, n_types: int, *, n_jobs: int = 1) -> Moments:
    """Sum the cells of every type in one pass over the rows.

    Parameters
    ----------
    X
        Counts, cells x genes.
    labels
        Type of every cell, 0 to `n_types` - 1, or -1 for cells to leave out; cells without counts are left out too.
    n_types
        Number of types K.
    n_jobs
        Threads.

    Examples
    --------
    >>> m = moments(np.array([[1.0, 3.0], [2.0, 2.0]]), np.array([0, 0]), 1)
    >>> m.share
    array([[0.75, 1.25]])
    """
    labels = np.asarray(labels, dtype=np.int64)
    of_type, sums = reduce_rows(
        _moments_of_block, X, labels, constants=(n_types,), n_jobs=n_jobs, desc="signatures of the reference"
    )
    return Moments(*of_type, *sums)


def pool_moments(m: Moments, n_types: int) -> Moments:
    """Add up the sums of groups that are numbered type by type, the same number of groups for every type."""
    return Moments(*(value.reshape(n_types, -1, *value.shape[1:]).sum(axis=1) for value in astuple(m)))
