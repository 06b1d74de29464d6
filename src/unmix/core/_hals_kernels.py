"""Compiled coordinate descent (HALS) on many small problems side by side, alone or between two products with CSR rows.

Rows are improved `TILE` at a time, the tile held component by component, so that one step on one coordinate is a few
vector instructions over the rows. All kernels run on one thread.
"""

from typing import Any

import numba as nb
import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from unmix.core._nmf_kernels import (
    _INT,
    CHAINS,
    WIDE,
    _fma,
    _gather_row,
    _load,
    _open,
    _scatter_row,
    _splat,
    _store,
    _vector_at,
    aligned,
    padded,
)

TILE = 128


@intrinsic
def _residual(typing, B, W, G, c, r, g):  # type: ignore[no-untyped-def]
    """g[r : r + n] = B[c, r : r + n] - sum_i G[c, i] * W[i, r : r + n] for n = CHAINS * WIDE rows, kept in registers."""
    signature = types.void(B, W, G, c, r, g)

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        b, w, gram, c, r, out = _open(context, builder, sig, args)
        vector = ir.VectorType(context.get_value_type(sig.args[0].dtype), WIDE)
        align = sig.args[0].dtype.bitwidth // 8
        k, rows = builder.extract_value(w.shape, 0), builder.extract_value(w.shape, 1)

        def at(array: Any, i: Any, chain: int) -> Any:
            place = builder.add(builder.add(builder.mul(i, rows), r), ir.Constant(_INT, chain * WIDE))
            return _vector_at(builder, array, place, vector)

        totals = [cgutils.alloca_once(builder, vector) for _ in range(CHAINS)]
        for chain, total in enumerate(totals):
            builder.store(_load(builder, at(b, c, chain), align), total)
        with cgutils.for_range_slice(builder, ir.Constant(_INT, 0), k, ir.Constant(_INT, 1), _INT) as (i, _):
            weight = builder.load(builder.gep(gram.data, [builder.add(builder.mul(c, k), i)]))
            minus = _splat(builder, builder.fneg(weight), vector)
            for chain, total in enumerate(totals):
                builder.store(_fma(builder, minus, _load(builder, at(w, i, chain), align), builder.load(total)), total)
        for chain, total in enumerate(totals):
            _store(builder, builder.load(total), at(out, ir.Constant(_INT, 0), chain), align)
        return context.get_dummy_value()

    return signature, emit


@nb.njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
def _sweep_tile(B, W, G, own, scale, sweeps, g):  # type: ignore[no-untyped-def]
    """Coordinate descent on `TILE` rows at once; B, W of shape (K, TILE), K a multiple of 8."""
    for _ in range(sweeps):
        for c in range(G.shape[0]):
            if G[c, c] + scale[c] <= 0:
                continue
            for r in range(0, TILE, CHAINS * WIDE):
                _residual(B, W, G, np.int64(c), np.int64(r), g)  # type: ignore[call-arg]
            _step(W[c], g, G[c, c], own, scale[c])


@nb.njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
def _step(w, g, diagonal, own, scale):  # type: ignore[no-untyped-def]
    """Move one coordinate of every row to its minimum, not below zero."""
    if scale == 0:
        inverse = 1 / diagonal
        for r in range(TILE):
            w[r] = max(w[r] * 0, w[r] + g[r] * inverse)
        return
    for r in range(TILE):
        ridge = own[r] * scale
        curvature = diagonal + ridge
        w[r] = max(w[r] * 0, w[r] + (g[r] - ridge * w[r]) / curvature if curvature > 0 else w[r])


@nb.njit(cache=True, nogil=True)
def _to_columns(A, start, rows, out):  # type: ignore[no-untyped-def]
    """Hold rows of A column by column; what the tile has beyond them is zero."""
    if rows < TILE:
        out[:] = 0
    for r in range(rows):
        for c in range(A.shape[1]):
            out[c, r] = A[start + r, c]


@nb.njit(cache=True, nogil=True)
def _sweep(B, W, G, own, scale, sweeps):  # type: ignore[no-untyped-def]
    """Improve W in place, tile by tile; a row's result does not depend on the rows beside it."""
    K = W.shape[1]
    Bt, Wt = np.zeros((K, TILE), B.dtype), np.zeros((K, TILE), B.dtype)
    stiff, g = np.zeros(TILE, B.dtype), np.zeros(TILE, B.dtype)
    for start in range(0, W.shape[0], TILE):
        rows = min(TILE, W.shape[0] - start)
        stiff[:rows] = own[start : start + rows]
        _to_columns(B, start, rows, Bt)
        _to_columns(W, start, rows, Wt)
        _sweep_tile(Bt, Wt, G, stiff, scale, sweeps, g)
        for r in range(rows):
            for c in range(K):
                W[start + r, c] = Wt[c, r]


def hals(
    B: np.ndarray,
    W: np.ndarray,
    G: np.ndarray,
    sweeps: int,
    *,
    own: np.ndarray | None = None,
    scale: np.ndarray | None = None,
) -> np.ndarray:
    """Return W after sweeps of coordinate descent on `1/2 w'Gw - b'w + 1/2 own_i sum_c scale_c w_c^2` over `w >= 0`.

    Parameters
    ----------
    B
        Linear terms, one row per problem, (rows, K).
    W
        Where the descent starts, (rows, K).
    G
        The Gram matrix that all rows share, (k, k), k <= K.
    sweeps
        Passes over the k coordinates.
    own
        Each row's own weight of the ridge, (rows,); none by default.
    scale
        Each component's weight of the ridge, (k,).
    """
    out, dtype = padded(W, W.dtype), W.dtype
    weight = np.zeros(out.shape[1], dtype)
    if scale is not None:
        weight[: len(G)] = scale
    own = np.zeros(W.shape[0], dtype) if own is None else own.astype(dtype, copy=False)
    _sweep(np.ascontiguousarray(B, dtype), out, _square(G, out.shape[1], dtype), own, weight, sweeps)
    return out


def _square(G: np.ndarray, K: int, dtype: Any) -> np.ndarray:
    """Return G with rows and columns of zeros up to (K, K)."""
    out = np.zeros((K, K), dtype)
    out[: len(G), : len(G)] = G
    return out


def improved_rows(
    block: Any, W: np.ndarray, last: np.ndarray, H: np.ndarray, G: np.ndarray, l1: float, beta: float, sweeps: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """Improve rows of `block ~ W H'` by coordinate descent, in one reading of a CSR block.

    Parameters
    ----------
    block
        Rows of X, (rows, n_vars).
    W
        Where the descent starts, (rows, K).
    last
        What the new rows are extrapolated from, (rows, K).
    H
        Loadings, (n_vars, K).
    G
        The Gram matrix of the loadings, with what is added to it, (k, k).
    l1
        Price of every usage.
    beta
        How far to continue the step from `last`.
    sweeps
        Passes over the k coordinates.

    Returns
    -------
    The new rows; the extrapolated ones, Y; `X'Y`, in double precision; and the sum of `w'Gw - 2 w'Hx` over the new rows.
    """
    new = aligned(W.shape, W.dtype)
    Y = aligned(W.shape, W.dtype) if beta else new
    XtY, gram, number = aligned(H.shape, np.float64), _square(G, H.shape[1], H.dtype), H.dtype.type
    values = block.data.astype(H.dtype, copy=False)
    W, last = np.ascontiguousarray(W), np.ascontiguousarray(last)
    options = (number(l1), number(beta), sweeps)
    square = _improved_rows(block.indptr, block.indices, values, W, last, H, gram, *options, new, Y, XtY)
    return new, Y, XtY, float(square)


@nb.njit(cache=True, nogil=True)
def _improved_rows(indptr, indices, data, W, last, H, G, l1, beta, sweeps, new, Y, XtY):  # type: ignore[no-untyped-def]
    """Read each row twice, a tile apart: for its product with H, and for its part of X'Y."""
    K = np.int64(H.shape[1])
    B, Bt, Wt = np.zeros((TILE, K), H.dtype), np.zeros((K, TILE), H.dtype), np.zeros((K, TILE), H.dtype)
    g, none, no_scale = np.zeros(TILE, H.dtype), np.zeros(TILE, H.dtype), np.zeros(K, H.dtype)
    total = 0.0
    for start in range(0, W.shape[0], TILE):
        rows = min(TILE, W.shape[0] - start)
        for r in range(rows):
            i = start + r
            _gather_row(data, indices, np.int64(indptr[i]), np.int64(indptr[i + 1]), H, B, r * K)
        _to_columns(B, 0, rows, Bt)
        Bt -= l1
        _to_columns(W, start, rows, Wt)
        _sweep_tile(Bt, Wt, G, none, no_scale, sweeps, g)
        total += _objective_tile(Bt, Wt, G, l1, g)
        _from_columns(Wt, last, beta, start, rows, new, Y)
        for r in range(rows):
            i = start + r
            _scatter_row(data, indices, np.int64(indptr[i]), np.int64(indptr[i + 1]), Y, i * K, XtY)
    return total


@nb.njit(cache=True, nogil=True, fastmath=True)
def _objective_tile(B, W, G, l1, g):  # type: ignore[no-untyped-def]
    """Return the sum of `w'Gw - 2 w'(b + l1)` over a tile."""
    total = 0.0
    for c in range(G.shape[0]):
        for r in range(0, TILE, CHAINS * WIDE):
            _residual(B, W, G, np.int64(c), np.int64(r), g)  # type: ignore[call-arg]
        part = l1 * 0
        for r in range(TILE):
            part += W[c, r] * (g[r] + B[c, r] + 2 * l1)
        total -= part
    return total


@nb.njit(cache=True, nogil=True, fastmath=True)
def _from_columns(Wt, last, beta, start, rows, new, Y):  # type: ignore[no-untyped-def]
    """Write a tile back to its rows, and each continued beyond `last`."""
    for r in range(rows):
        for c in range(new.shape[1]):
            w = Wt[c, r]
            new[start + r, c] = w
            Y[start + r, c] = max(w * 0, w + beta * (w - last[start + r, c]))


def ahead(new: np.ndarray, last: np.ndarray, beta: float) -> np.ndarray:
    """Continue the step from `last` to `new` by the fraction beta, without leaving the non-negative orthant."""
    if not beta:
        return new
    out = aligned(new.shape, new.dtype)
    _ahead(new.ravel(), np.ascontiguousarray(last).ravel(), new.dtype.type(beta), out.ravel())
    return out


@nb.njit(cache=True, nogil=True)
def _ahead(new, last, beta, out):  # type: ignore[no-untyped-def]
    for i in range(new.shape[0]):
        out[i] = max(new[i] * 0, new[i] + beta * (new[i] - last[i]))
