"""Factors shared by several matrices: over batches of cells, with a part of each batch's own, and over modalities."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from unmix.core._nmf_kernels import hals, padded, times, transpose_times
from unmix.core.blocks import Block, as_rows, map_rows, reduce_rows
from unmix.core.factorization import SWEEPS, Walk, moments_of, precision, settled, usages


@dataclass(frozen=True)
class Batches:
    """X_b D_b ~ W_b (H + V_b) for every batch b."""

    W: list[np.ndarray]
    """Usages, (n_b, k) each."""
    H: np.ndarray
    """Shared loadings, (k, n_vars)."""
    V: list[np.ndarray]
    """Loadings of each batch's own, (k, n_vars) each."""
    loss: np.ndarray
    converged: bool


@dataclass(frozen=True)
class Views:
    """X_m ~ W[rows_m] H_m for every modality m."""

    W: np.ndarray
    """Shared usages, (n_obs, k)."""
    H: list[np.ndarray]
    """Loadings, (k, n_vars_m) each."""
    loss: np.ndarray
    """Weighted sum over modalities."""
    converged: bool


def joint_batches(
    X: Sequence[Any],
    n_components: int,
    *,
    specificity: float = 5.0,
    scales: Sequence[np.ndarray] | None = None,
    walk: Walk | None = None,
    rng: "int | np.random.Generator | None" = 0,
) -> Batches:
    r"""Return the integrative factorisation of batches with the same variables.

    .. math:: \min_{W,H,V\ge0} \sum_b \|X_b D_b - W_b (H + V_b)\|^2 + \lambda \sum_b \|W_b V_b\|^2

    Every row of X is touched once per iteration; H and V_b follow from the k x k Gram matrices and X_b'W_b.

    Parameters
    ----------
    X
        Matrices (n_b, n_vars) with the same columns.
    n_components
        Number k of components.
    specificity
        Lambda: the larger, the less is explained by parts of a batch's own.
    scales
        Diagonals of D_b, (n_vars,) each; ones by default.
    walk
        Threads, block size, tolerance and limit.
    rng
        Seed of the start.

    References
    ----------
    Welch et al. (2019), Single-cell multi-omic integration compares and contrasts features of brain cell identity.
    Cell 177, 1873.

    Examples
    --------
    >>> X = np.kron(np.eye(2), np.ones((5, 4)))
    >>> fit = joint_batches([X, 2 * X], 2)
    >>> [w.shape for w in fit.W], fit.H.shape
    ([(10, 2), (10, 2)], (2, 8))
    """
    walk, k = walk or Walk(), n_components
    X = [as_rows(x) for x in X]
    n_vars = X[0].shape[1]
    if any(x.shape[1] != n_vars for x in X):
        msg = f"batches must have the same variables, got {[x.shape[1] for x in X]}."
        raise ValueError(msg)
    D = [np.ones(n_vars) if scales is None else np.asarray(scales[b], float) for b in range(len(X))]
    squares = [float(reduce_rows(_scaled_squares, x, constants=(d,))) for x, d in zip(X, D, strict=True)]
    dtype = precision(np.broadcast_to(0, (sum(x.shape[0] for x in X), n_vars)))
    W, Ht, Vt = _start(X, D, squares, k, np.random.default_rng(rng), dtype)
    losses: list[float] = []
    while len(losses) < walk.max_iter and not settled(losses, walk.tol):
        loss, grams, cross = 0.0, [], []
        kept = Ht, list(Vt)
        for b, x in enumerate(X):
            F = Ht + Vt[b]
            G = _gram(F) + specificity * _gram(Vt[b])
            constants = ((D[b][:, None] * F).astype(dtype), G[:k, :k])
            W[b], (XtW, WtW, inner) = walk.over(_pass, x, W[b], constants=constants)
            loss += squares[b] - 2 * inner + float((WtW * G).sum())
            grams.append(WtW)
            cross.append(D[b][:, None] * XtW)
        losses.append(loss)
        for b in range(len(X)):
            heavier = (1 + specificity) * grams[b][:k, :k]
            Vt[b] = hals(cross[b] - Ht @ grams[b], Vt[b], heavier, SWEEPS)
        rest = sum(c - v @ g for c, v, g in zip(cross, Vt, grams, strict=True))
        Ht = hals(rest, Ht, sum(grams)[:k, :k], SWEEPS)
    H, V = kept
    own = [v[:, :k].T for v in V]
    return Batches([w[:, :k] for w in W], H[:, :k].T, own, np.array(losses), settled(losses, walk.tol))


def column_rms(X: Any, *, n_jobs: int = 1) -> np.ndarray:
    """Return the root mean square of every column, by which batches are made comparable; 1 for empty columns."""
    squares = reduce_rows(_column_squares, X, n_jobs=n_jobs)
    return np.sqrt(np.where(squares > 0, squares / max(X.shape[0] - 1, 1), 1))


def _column_squares(block: Block) -> np.ndarray:
    block = block.astype(np.float64)
    return np.asarray((block * block).sum(axis=0)).ravel()


def _scaled_squares(block: Block, d: np.ndarray) -> float:
    return float(_column_squares(block) @ d**2)


def _gram(W: np.ndarray) -> np.ndarray:
    W = W.astype(np.float64, copy=False)
    return W.T @ W


def _start(
    X: list[Any], D: list[np.ndarray], squares: list[float], k: int, rng: np.random.Generator, dtype: Any
) -> tuple[list[np.ndarray], np.ndarray, list[np.ndarray]]:
    """Return half-normal factors on the scale of the data; H and V_b share the loadings evenly."""
    n_vars = X[0].shape[1]
    mean_squares = [s / np.prod(x.shape, dtype=float) for x, s in zip(X, squares, strict=True)]
    size = [s**0.25 / k**0.5 if s > 0 else 1.0 for s in mean_squares]
    half = 0.5 * float(np.mean(size))
    Ht = padded(half * np.abs(rng.standard_normal((n_vars, k))), dtype)
    Vt = [padded(half * np.abs(rng.standard_normal((n_vars, k))), dtype) for _ in X]
    W = [padded(s * np.abs(rng.standard_normal((x.shape[0], k))), dtype) for x, s in zip(X, size, strict=True)]
    return W, Ht, Vt


def _pass(block: Block, W: np.ndarray, Ft: np.ndarray, G: np.ndarray) -> tuple[np.ndarray, tuple[Any, ...]]:
    """Improve the rows of W; return X'W, W'W and <X F', W>."""
    B = times(block, Ft)
    new = hals(B, W, G, SWEEPS)
    inner = float(np.einsum("ij,ij->i", B, new).sum(dtype=np.float64))
    return new, (transpose_times(block, new).astype(np.float64), _gram(new), inner)


def batch_usages(
    X: Any, H: np.ndarray, V: np.ndarray, *, specificity: float, scale: np.ndarray, n_jobs: int = 1
) -> np.ndarray:
    """Return the exact usages of rows under shared loadings H and the batch's own V (zeros for a new batch)."""
    F = H + V
    return usages(X, F * scale, gram=F @ F.T + specificity * V @ V.T, walk=Walk(n_jobs=n_jobs))


def joint_views(
    X: Sequence[Any],
    rows: Sequence[np.ndarray],
    n_obs: int,
    n_components: int,
    *,
    weights: Sequence[float] | None = None,
    walk: Walk | None = None,
    rng: "int | np.random.Generator | None" = 0,
) -> Views:
    r"""Return the factorisation of modalities with shared usages.

    .. math:: \min_{W,H\ge0} \tfrac12 \sum_m \omega_m \|X_m - W_{rows(m)} H_m\|^2

    A row that a modality lacks is fitted to the others alone.

    Parameters
    ----------
    X
        Matrices (n_m, n_vars_m).
    rows
        For every modality, which of the `n_obs` observations its rows are.
    n_obs
        Number of observations in all.
    n_components
        Number k of components.
    weights
        Weights of the modalities; one over the squared norm by default, so that none drowns the others.
    walk
        Threads, block size, tolerance and limit.
    rng
        Seed of the start.

    References
    ----------
    Zhang et al. (2012), Discovery of multi-dimensional modules by integrative analysis of cancer genomic data.

    Examples
    --------
    >>> X = np.kron(np.eye(2), np.ones((5, 4)))
    >>> joint_views([X, X[:8, :3]], [np.arange(10), np.arange(8)], 10, 2).W.shape
    (10, 2)
    """
    walk, k = walk or Walk(), n_components
    X = [as_rows(x) for x in X]
    moments = [moments_of(x, walk) for x in X]
    omega = [1 / m.squares if m.squares > 0 else 0.0 for m in moments] if weights is None else list(weights)
    generator = np.random.default_rng(rng)
    Ht = []
    for x, known in zip(X, moments, strict=True):
        mean = known.total / np.prod(x.shape, dtype=float)
        Ht.append(padded(mean * 2 / k**0.5 * np.abs(generator.standard_normal((x.shape[1], k))), np.float64))
    W = padded(np.abs(generator.standard_normal((n_obs, k))) / k**0.5, np.float64)
    patterns = presence(rows, n_obs)
    losses: list[float] = []
    while len(losses) < walk.max_iter and not settled(losses, walk.tol):
        W, kept = view_usages(X, rows, Ht, omega, patterns, W, walk), list(Ht)
        loss = 0.0
        for m, x in enumerate(X):
            XtW, WtW = reduce_rows(_view_sums, x, W[rows[m]], n_jobs=walk.n_jobs, block_rows=walk.block_rows)
            fit = -2 * float((XtW * Ht[m]).sum()) + float((WtW * _gram(Ht[m])).sum())
            loss += 0.5 * omega[m] * (moments[m].squares + fit)
            Ht[m] = hals(XtW, Ht[m], WtW[:k, :k], SWEEPS)
        losses.append(loss)
    return Views(W[:, :k], [h[:, :k].T for h in kept], np.array(losses), settled(losses, walk.tol))


def presence(rows: Sequence[np.ndarray], n_obs: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return the observations of every combination of modalities, and which modalities it has.

    Examples
    --------
    >>> [(found.tolist(), has.tolist()) for found, has in presence([np.array([0, 1]), np.array([1])], 2)]
    [([0], [True, False]), ([1], [True, True])]
    """
    has = np.zeros((n_obs, len(rows)), bool)
    for m, found in enumerate(rows):
        has[found, m] = True
    kinds, which = np.unique(has, axis=0, return_inverse=True)
    return [(np.flatnonzero(which.ravel() == i), kind) for i, kind in enumerate(kinds)]


def view_usages(
    X: Sequence[Any],
    rows: Sequence[np.ndarray],
    Ht: Sequence[np.ndarray],
    omega: Sequence[float],
    patterns: Sequence[tuple[np.ndarray, np.ndarray]],
    W: np.ndarray,
    walk: Walk,
    sweeps: int = SWEEPS,
) -> np.ndarray:
    """Improve the shared usages, each row on the modalities that it has."""
    B = np.zeros_like(W)
    for m, x in enumerate(X):
        B[rows[m]] += omega[m] * map_rows(times, x, constants=(Ht[m],), n_jobs=walk.n_jobs, block_rows=walk.block_rows)
    out = W.copy()
    for found, has in patterns:
        if has.any():
            G = np.sum([w * _gram(h) for w, h, there in zip(omega, Ht, has, strict=True) if there], axis=0)
            size = max(float(np.trace(G)), 1e-300)
            out[found] = hals(B[found] / size, W[found], G / size, sweeps)
    return out


def _view_sums(block: Block, W: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    W = np.ascontiguousarray(W)
    return transpose_times(block, W), _gram(W)
