"""Compiled products of CSR rows with thin dense matrices.

A thin matrix is stored row by row (one row per observation or per variable) with its k columns padded by zeros to a
multiple of 8 (:func:`padded`), so that a row is a few vector registers. numba does not vectorise loops of such a short,
variable length; the intrinsics below emit the vector instructions of LLVM directly. All kernels run on one thread.
"""

import math
from typing import Any

import numba as nb
import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic
from scipy import sparse

LANES = 8
WIDE = 16
CHAINS = 4
"""Sums that run side by side, so that an addition need not wait for the one before."""
CACHE_LINE = 64
_INT = ir.IntType(64)


def padded(A: np.ndarray, dtype: Any) -> np.ndarray:
    """Return `A` (rows, k) as a contiguous array of `dtype` with k rounded up to a multiple of 8 by zero columns.

    Examples
    --------
    >>> padded(np.ones((2, 3)), np.float32).shape
    (2, 8)
    """
    out = aligned((A.shape[0], -(-A.shape[1] // LANES) * LANES), dtype)
    out[:, : A.shape[1]] = A
    return out


def aligned(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """Return zeros that begin on a cache line, so that a row of 16 single-precision numbers does not straddle two.

    Examples
    --------
    >>> aligned((2, 8), np.float32).ctypes.data % 64
    0
    """
    size = math.prod(shape) * np.dtype(dtype).itemsize
    memory = np.zeros(size + CACHE_LINE, np.uint8)
    skip = -memory.__array_interface__["data"][0] % CACHE_LINE
    return memory[skip : skip + size].view(dtype).reshape(shape)


def _open(context: Any, builder: Any, signature: Any, args: Any) -> list[Any]:
    """Open the array structs among the arguments of an intrinsic."""
    return [
        context.make_array(t)(context, builder, a) if isinstance(t, types.Array) else a
        for t, a in zip(signature.args, args, strict=True)
    ]


def _vector_at(builder: Any, array: Any, offset: Any, vector: Any) -> Any:
    """Return a pointer to `width` consecutive entries of an array."""
    return builder.bitcast(builder.gep(array.data, [offset]), vector.as_pointer())


def _load(builder: Any, pointer: Any, align: int) -> Any:
    value = builder.load(pointer)
    value.align = align
    return value


def _store(builder: Any, value: Any, pointer: Any, align: int) -> None:
    builder.store(value, pointer).align = align


def _splat(builder: Any, x: Any, vector: Any) -> Any:
    """Repeat a number in every lane."""
    nothing = ir.Constant(vector, ir.Undefined)
    first = builder.insert_element(nothing, x, ir.Constant(ir.IntType(32), 0))
    lanes = ir.Constant(ir.VectorType(ir.IntType(32), vector.count), [0] * vector.count)
    return builder.shuffle_vector(first, nothing, lanes)


def _column(builder: Any, indices: Any, p: Any) -> Any:
    j = builder.load(builder.gep(indices.data, [p]))
    return builder.sext(j, _INT) if j.type.width < 64 else j


def _fma(builder: Any, a: Any, b: Any, c: Any) -> Any:
    return builder.fadd(c, builder.fmul(a, b, flags=("fast",)), flags=("fast",))


def _wider(builder: Any, x: Any, kind: Any) -> Any:
    """Return a number or vector in double precision, if that is what `kind` is of."""
    return x if x.type == kind else builder.fpext(x, kind)


def _make_gather(width: int, *, exact: bool = False) -> Any:
    @intrinsic
    def gather(typing, data, indices, start, stop, H, column, out, at):  # type: ignore[no-untyped-def]
        """out.flat[at : at + width] = sum_p data[p] * H[indices[p], column : column + width].

        Sums are those of H's precision or, with `exact`, double and then rounded.
        """
        signature = types.void(data, indices, start, stop, H, column, out, at)

        def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            x, j, first, last, h, c, o, offset = _open(context, builder, sig, args)
            stored = ir.VectorType(context.get_value_type(sig.args[4].dtype), width)
            vector = ir.VectorType(ir.DoubleType(), width) if exact else stored
            align = sig.args[4].dtype.bitwidth // 8
            stride = builder.extract_value(h.shape, 1)
            totals = [cgutils.alloca_once(builder, vector) for _ in range(CHAINS)]
            for total in totals:
                builder.store(ir.Constant(vector, [0.0] * width), total)

            def add(p: Any, total: Any) -> None:
                row = builder.add(builder.mul(_column(builder, j, p), stride), c)
                hv = _wider(builder, _load(builder, _vector_at(builder, h, row, stored), align), vector)
                value = _wider(builder, builder.load(builder.gep(x.data, [p])), vector.element)
                xv = _splat(builder, value, vector)
                builder.store(_fma(builder, xv, hv, builder.load(total)), total)

            one, chains = ir.Constant(_INT, 1), ir.Constant(_INT, CHAINS)
            whole = builder.sub(last, builder.srem(builder.sub(last, first), chains))
            with cgutils.for_range_slice(builder, first, whole, chains, _INT) as (p, _):
                for i, total in enumerate(totals):
                    add(builder.add(p, ir.Constant(_INT, i)), total)
            with cgutils.for_range_slice(builder, whole, last, one, _INT) as (p, _):
                add(p, totals[0])
            sums = [builder.load(total) for total in totals]
            while len(sums) > 1:
                sums = [builder.fadd(a, b, flags=("fast",)) for a, b in zip(sums[::2], sums[1::2], strict=True)]
            result = sums[0] if vector == stored else builder.fptrunc(sums[0], stored)
            _store(builder, result, _vector_at(builder, o, offset, stored), align)
            return context.get_dummy_value()

        return signature, emit

    return gather


def _make_scatter(width: int) -> Any:
    @intrinsic
    def scatter(typing, data, indices, start, stop, W, at, A, column):  # type: ignore[no-untyped-def]
        """A[indices[p], column : column + width] += data[p] * W.flat[at : at + width] for every p, in A's precision."""
        signature = types.void(data, indices, start, stop, W, at, A, column)

        def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            x, j, first, last, w, offset, a, c = _open(context, builder, sig, args)
            vector = ir.VectorType(context.get_value_type(sig.args[6].dtype), width)
            given = ir.VectorType(context.get_value_type(sig.args[4].dtype), width)
            align, align_w = sig.args[6].dtype.bitwidth // 8, sig.args[4].dtype.bitwidth // 8
            stride = builder.extract_value(a.shape, 1)
            wv = _wider(builder, _load(builder, _vector_at(builder, w, offset, given), align_w), vector)
            with cgutils.for_range_slice(builder, first, last, ir.Constant(_INT, 1), _INT) as (p, _):
                row = builder.add(builder.mul(_column(builder, j, p), stride), c)
                target = _vector_at(builder, a, row, vector)
                value = _wider(builder, builder.load(builder.gep(x.data, [p])), vector.element)
                xv = _splat(builder, value, vector)
                _store(builder, _fma(builder, xv, wv, _load(builder, target, align)), target, align)
            return context.get_dummy_value()

        return signature, emit

    return scatter


@intrinsic
def _dot(typing, A, a, B, b, length):  # type: ignore[no-untyped-def]
    """Return <A.flat[a : a + length], B.flat[b : b + length]>, `length` being a multiple of 8."""
    signature = A.dtype(A, a, B, b, length)

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        x, x0, y, y0, n = _open(context, builder, sig, args)
        element = context.get_value_type(sig.args[0].dtype)
        vector = ir.VectorType(element, LANES)
        align = sig.args[0].dtype.bitwidth // 8
        total = cgutils.alloca_once(builder, vector)
        builder.store(ir.Constant(vector, [0.0] * LANES), total)
        zero = ir.Constant(_INT, 0)
        with cgutils.for_range_slice(builder, zero, n, ir.Constant(_INT, LANES), _INT) as (c, _):
            xv = _load(builder, _vector_at(builder, x, builder.add(x0, c), vector), align)
            yv = _load(builder, _vector_at(builder, y, builder.add(y0, c), vector), align)
            builder.store(_fma(builder, xv, yv, builder.load(total)), total)
        name = f"llvm.vector.reduce.fadd.v{LANES}f{sig.args[0].dtype.bitwidth}"
        add = cgutils.get_or_insert_function(builder.module, ir.FunctionType(element, [element, vector]), name)
        return builder.call(add, [ir.Constant(element, 0.0), builder.load(total)], fastmath=("fast",))

    return signature, emit


_gather_wide, _gather = _make_gather(WIDE), _make_gather(LANES)
_exact_gather_wide, _exact_gather = _make_gather(WIDE, exact=True), _make_gather(LANES, exact=True)
_scatter_wide, _scatter = _make_scatter(WIDE), _make_scatter(LANES)


@nb.njit(cache=True, nogil=True)
def _gather_row(data, indices, start, stop, H, out, at):  # type: ignore[no-untyped-def]
    """out.flat[at : at + K] = sum_p data[p] * H[indices[p]]."""
    c, K = np.int64(0), H.shape[1]
    while c + WIDE <= K:
        _gather_wide(data, indices, start, stop, H, c, out, at + c)
        c += WIDE
    if c < K:
        _gather(data, indices, start, stop, H, c, out, at + c)


@nb.njit(cache=True, nogil=True)
def _scatter_row(data, indices, start, stop, W, at, A):  # type: ignore[no-untyped-def]
    """A[indices[p]] += data[p] * W.flat[at : at + K]."""
    c, K = np.int64(0), A.shape[1]
    while c + WIDE <= K:
        _scatter_wide(data, indices, start, stop, W, at + c, A, c)
        c += WIDE
    if c < K:
        _scatter(data, indices, start, stop, W, at + c, A, c)


@nb.njit(cache=True, nogil=True)
def _csr_times(indptr, indices, data, H, out):  # type: ignore[no-untyped-def]
    for i in range(out.shape[0]):
        _gather_row(data, indices, np.int64(indptr[i]), np.int64(indptr[i + 1]), H, out, np.int64(i * H.shape[1]))


@nb.njit(cache=True, nogil=True)
def _exact_csr_times(indptr, indices, data, H, out):  # type: ignore[no-untyped-def]
    for i in range(out.shape[0]):
        first, last, at = np.int64(indptr[i]), np.int64(indptr[i + 1]), np.int64(i * H.shape[1])
        c, K = np.int64(0), H.shape[1]
        while c + WIDE <= K:
            _exact_gather_wide(data, indices, first, last, H, c, out, at + c)
            c += WIDE
        if c < K:
            _exact_gather(data, indices, first, last, H, c, out, at + c)


@nb.njit(cache=True, nogil=True)
def _csr_transpose_times(indptr, indices, data, W, out):  # type: ignore[no-untyped-def]
    for i in range(W.shape[0]):
        _scatter_row(data, indices, np.int64(indptr[i]), np.int64(indptr[i + 1]), W, np.int64(i * W.shape[1]), out)


def times(block: Any, H: np.ndarray) -> np.ndarray:
    """Return `block @ H` for a padded H of shape (n_vars, K), in H's dtype.

    Sums over a sparse row are taken in double precision, so that nothing but the row decides about their last digit.
    """
    if not sparse.issparse(block):
        return np.asarray(block).astype(H.dtype, copy=False) @ H
    out = aligned((block.shape[0], H.shape[1]), H.dtype)
    _exact_csr_times(block.indptr, block.indices, block.data.astype(H.dtype, copy=False), H, out)
    return out


def transpose_times(block: Any, W: np.ndarray) -> np.ndarray:
    """Return `block.T @ W` for a padded W of shape (rows, K), in double precision.

    Sums over sparse rows are taken in double precision: how the rows are cut into blocks then moves the sixteenth digit
    and not the seventh, which some hundred iterations would make the third.
    """
    if not sparse.issparse(block):
        return (np.asarray(block).astype(W.dtype, copy=False).T @ W).astype(np.float64, copy=False)
    out = aligned((block.shape[1], W.shape[1]), np.float64)
    _csr_transpose_times(block.indptr, block.indices, block.data.astype(W.dtype, copy=False), W, out)
    return out
