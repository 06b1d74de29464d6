"""Factors that batches of cells share, beside a part of each batch's own (integrative NMF), for any order of the rows.

Every row of X is read once per iteration; see :mod:`unmix.core.joint_loadings` for what is kept of it, and
:mod:`unmix.core.online` for improving the loadings after every block.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import sparse

from unmix.core._hals_kernels import hals
from unmix.core._nmf_kernels import padded, times
from unmix.core.blocks import Block, as_rows, is_dask, reduce_rows
from unmix.core.factorization import SWEEPS, Walk, precision, settled, sparse_if_it_is, usages
from unmix.core.joint_loadings import Known, Loadings, Sums, by_batch, sums_of
from unmix.core.online import Online


@dataclass(frozen=True)
class Batches:
    """X_b D_b ~ W_b (H + V_b) for every batch b."""

    W: np.ndarray
    """Usages, (n_obs, k), of mean 1 over the observations; largest component first."""
    H: np.ndarray
    """Shared loadings, (k, n_vars); zero for variables that one batch alone measured."""
    V: np.ndarray
    """Loadings of each batch's own, (n_batches, k, n_vars)."""
    loss: np.ndarray
    converged: bool


def joint_batches(
    X: Any,
    codes: np.ndarray,
    n_components: int,
    *,
    specificity: float = 5.0,
    scales: np.ndarray | None = None,
    known: Known | None = None,
    online: int = 0,
    walk: Walk | None = None,
    rng: "int | np.random.Generator | None" = 0,
) -> Batches:
    r"""Return the integrative factorisation of batches.

    .. math:: \min_{W,H,V\ge0} \sum_b \|X_b D_b - W_b (H + V_b)\|^2 + \lambda \sum_b \|W_b V_b\|^2

    A variable that one batch alone measured has no part in H, only in that batch's V (UINMF).

    Parameters
    ----------
    X
        Non-negative matrix, (n_obs, n_vars).
    codes
        Batch of every row, 0 to n_batches - 1.
    n_components
        Number k of components.
    specificity
        Lambda: the larger, the less is explained by parts of a batch's own.
    scales
        Diagonals of D_b, (n_batches, n_vars), zero where a batch did not measure a variable; ones by default.
    known
        Loadings to start from, or to keep while new batches are added.
    online
        In how many passes, the first, the loadings are improved after every block of rows.
    walk
        Threads, block size, tolerance and limit.
    rng
        Seed of the start.

    References
    ----------
    Welch et al. (2019), Single-cell multi-omic integration compares and contrasts features of brain cell identity.
    Kriebel, Welch (2022), UINMF performs mosaic integration of single-cell multi-omic datasets using nonnegative matrix
    factorization.

    Examples
    --------
    >>> X = np.kron(np.eye(2), np.ones((5, 4)))
    >>> fit = joint_batches(np.vstack([X, 2 * X]), np.repeat([0, 1], 10), 2)
    >>> fit.W.shape, fit.H.shape, fit.V.shape
    ((20, 2), (2, 8), (2, 2, 8))
    """
    walk = walk or Walk()
    X, codes, back = sorted_rows(as_rows(X), np.asarray(codes))
    X = X if precision(X) == np.float64 else sparse_if_it_is(X)
    generator = np.random.default_rng(rng)
    W, loadings = begin(X, codes, back, n_components, specificity, scales, known, walk, generator)
    blockwise = Online(X, codes, W, loadings, walk, generator)
    trace: list[float] = []
    while len(trace) < walk.max_iter and not settled(trace, walk.tol):
        if len(trace) < online:
            trace.append(blockwise.improve())
            kept = loadings.copy()
            continue
        W, (sums,) = walk.over(_pass, X, W, codes, constants=(loadings.constants(W.dtype),))
        trace.append(loadings.loss(sums))
        kept = loadings.copy()
        loadings.improve(sums)
    return packed(W[back], kept, trace, walk, tidy=known is None)


def batch_usages(
    X: Any, H: np.ndarray, V: np.ndarray, *, specificity: float, scale: np.ndarray, n_jobs: int = 1
) -> np.ndarray:
    """Return the exact usages of rows under shared loadings H and the batch's own V (zeros for a new batch)."""
    F = np.where(scale > 0, H, 0) + V
    return usages(X, F * scale, gram=F @ F.T + specificity * V @ V.T, walk=Walk(n_jobs=n_jobs))


def batch_rms(X: Any, codes: np.ndarray, n_batches: int, *, n_jobs: int = 1) -> np.ndarray:
    """Return the root mean square of every column in every batch, (n_batches, n_vars); 0 for columns without entries.

    Rows of zeros only do not count.

    Examples
    --------
    >>> batch_rms(np.array([[3.0, 0], [4.0, 0], [0, 0]]), np.array([0, 0, 0]), 1)
    array([[5., 0.]])
    """
    squares, size = reduce_rows(_batch_squares_and_sizes, X, codes, constants=(n_batches,), n_jobs=n_jobs)
    return np.sqrt(squares / np.maximum(size - 1, 1)[:, None])


def _batch_squares_and_sizes(block: Block, codes: np.ndarray, n_batches: int) -> tuple[np.ndarray, np.ndarray]:
    some = np.asarray((block != 0).sum(axis=1)).ravel() > 0
    return _batch_squares(block, codes, n_batches), np.bincount(codes[some], minlength=n_batches)


def _batch_squares(block: Block, codes: np.ndarray, n_batches: int) -> np.ndarray:
    out = np.zeros((n_batches, block.shape[1]))
    for b, _, part in by_batch(block, codes):
        part = part.astype(np.float64)
        out[b] = np.asarray((part * part).sum(axis=0)).ravel()
    return out


def batch_detections(X: Any, codes: np.ndarray, n_batches: int, *, n_jobs: int = 1) -> np.ndarray:
    """Return in how many rows of every batch every column is not zero, (n_batches, n_vars).

    Examples
    --------
    >>> batch_detections(np.array([[1, 0], [2, 0], [0, 3]]), np.array([0, 0, 1]), 2)
    array([[2, 0],
           [0, 1]])
    """
    found: np.ndarray = reduce_rows(_batch_detected, X, codes, constants=(n_batches,), n_jobs=n_jobs)
    return found


def _batch_detected(block: Block, codes: np.ndarray, n_batches: int) -> np.ndarray:
    out = np.zeros((n_batches, block.shape[1]), np.int64)
    for b, _, part in by_batch(block, codes):
        out[b] = np.asarray((part != 0).sum(axis=0)).ravel()
    return out


def sorted_rows(X: Any, codes: np.ndarray) -> tuple[Any, np.ndarray, Any]:
    """Return a matrix in memory with its rows batch by batch, their codes, and where the original rows are now.

    A matrix on disk or in Dask stays in its order.
    """
    in_memory = isinstance(X, np.ndarray) or sparse.issparse(X)
    if is_dask(X) or not in_memory or np.all(np.diff(codes) >= 0):
        return X, codes, slice(None)
    order = np.argsort(codes, kind="stable")
    return as_rows(X[order]), codes[order], np.argsort(order, kind="stable")


def begin(
    X: Any,
    codes: np.ndarray,
    back: Any,
    k: int,
    specificity: float,
    scales: np.ndarray | None,
    known: Known | None,
    walk: Walk,
    rng: Any,
) -> tuple[np.ndarray, Loadings]:
    """Return half-normal factors on the scale of the data (H and V_b share the loadings evenly), or the known ones.

    `back` says where the original rows are now, so that each gets the same draw wherever X is kept.
    """
    n_batches = int(codes.max()) + 1
    D = np.ones((n_batches, X.shape[1])) if scales is None else np.asarray(scales, float)
    options: dict[str, Any] = {"n_jobs": walk.n_jobs, "block_rows": walk.block_rows}
    squares = (reduce_rows(_batch_squares, X, codes, constants=(n_batches,), **options) * D**2).sum(axis=1)
    rows = np.bincount(codes, minlength=n_batches)
    n_entries = np.maximum(rows * (D > 0).sum(axis=1), 1)
    size = np.where(squares > 0, (squares / n_entries) ** 0.25 / k**0.5, 1.0)
    generator, dtype = np.random.default_rng(rng), precision(X)
    half = 0.5 * float(size.mean())
    H, *V = (half * np.abs(generator.standard_normal((X.shape[1], k))) for _ in range(n_batches + 1))
    drawn = np.empty((X.shape[0], k))
    drawn[back] = np.abs(generator.standard_normal((X.shape[0], k)))
    W = padded(size[codes][:, None] * drawn, dtype)
    own = (D > 0).sum(axis=0) == 1 if n_batches > 1 else np.zeros(X.shape[1], bool)
    H[own] = 0
    fixed: set[int] = set()
    if known is not None:
        seen = (known.H > 0).sum(axis=0) > 0
        new = ~seen & (not known.keep)  # multiplicative steps do not leave zero
        H = np.where(new[:, None], H, known.H.T)
        for b, v in known.V.items():
            V[b] = np.where((new & ~v.any(axis=0))[:, None], V[b], v.T)
        fixed = set(known.V) if known.keep else set()
    Vt = [padded(v * (d > 0)[:, None], dtype) for v, d in zip(V, D, strict=True)]
    keep = known is not None and known.keep
    return W, Loadings(padded(H, dtype), Vt, D, squares, specificity, k, fixed, keep)


def _pass(
    block: Block, W: np.ndarray, codes: np.ndarray, constants: Sequence[tuple[np.ndarray, np.ndarray]]
) -> tuple[np.ndarray, tuple[Sums]]:
    """Improve the rows of W; return the sums that they make."""
    new, sums = np.empty_like(W), Sums()
    for b, rows, part in by_batch(block, codes):
        Ft, G = constants[b]
        new[rows] = hals(times(part, Ft), W[rows], G, SWEEPS)
        sums[b] = sums_of(part, new[rows])
    return new, (sums,)


def packed(W: np.ndarray, loadings: Loadings, trace: list[float], walk: Walk, *, tidy: bool) -> Batches:
    """Cut the padding off; with `tidy`, scale usages to mean 1 and order the components by what they explain."""
    k = loadings.k
    W, H = W[:, :k], loadings.Ht[:, :k].T.astype(np.float64)
    V = np.stack([v[:, :k].T for v in loadings.Vt]).astype(np.float64)
    if tidy:
        mean = W.mean(axis=0, dtype=np.float64)
        scale = np.where(mean > 0, mean, 1.0)
        H, V = H * scale[:, None], V * scale[:, None]
        squares = np.einsum("ic,ic->c", W, W, dtype=np.float64) / scale**2
        order = np.argsort(-squares * ((H + V.mean(axis=0)) ** 2).sum(axis=1), kind="stable")
        W, H, V = W[:, order] / scale[order].astype(W.dtype), H[order], V[:, order]
    return Batches(W, H, V, np.array(trace), settled(trace, walk.tol))
