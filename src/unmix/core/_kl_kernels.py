"""Compiled inner loops of the Kullback-Leibler factorisation: quotients `x / <w, h>` at the non-zeros of a row."""

from typing import Any

import numba as nb
import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from unmix.core._nmf_kernels import (
    _INT,
    _column,
    _dot,
    _fma,
    _gather_row,
    _load,
    _open,
    _scatter_row,
    _splat,
    _store,
    _vector_at,
)


def _four_sums(builder: Any, vectors: list[Any]) -> Any:
    """Return the sums of the lanes of four vectors as one vector of four, which takes fewer steps than one by one."""
    width = vectors[0].type.count

    def shuffled(a: Any, b: Any, lanes: list[int]) -> Any:
        return builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(ir.IntType(32), len(lanes)), lanes))

    def folded(a: Any, b: Any, step: int) -> Any:
        """Interleave a and b by groups of `step` lanes and add neighbouring groups up."""
        low = [i + width * (i // step % 2) - step * (i // step % 2) for i in range(width)]
        return builder.fadd(shuffled(a, b, low), shuffled(a, b, [i + step for i in low]), flags=("fast",))

    pairs = [folded(vectors[0], vectors[1], 1), folded(vectors[2], vectors[3], 1)]
    groups = folded(pairs[0], pairs[1], 2)
    parts = [shuffled(groups, groups, list(range(i, i + 4))) for i in range(0, width, 4)]
    while len(parts) > 1:
        parts = [builder.fadd(a, b, flags=("fast",)) for a, b in zip(parts[::2], parts[1::2], strict=True)]
    return parts[0]


def _make_quotients(width: int) -> Any:
    @intrinsic
    def quotients(typing, data, indices, start, stop, H, W, at, r, v):  # type: ignore[no-untyped-def]
        """r[p - start] = data[p] / <w, h_p>, v = sum_p r_p h_p along a row, for factors of exactly `width` columns."""
        signature = types.void(data, indices, start, stop, H, W, at, r, v)

        def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            x, j, first, last, h, w, offset, quotient, out = _open(context, builder, sig, args)
            element = context.get_value_type(sig.args[4].dtype)
            vector, align = ir.VectorType(element, width), sig.args[4].dtype.bitwidth // 8
            name = f"llvm.vector.reduce.fadd.v{width}f{sig.args[4].dtype.bitwidth}"
            add = cgutils.get_or_insert_function(builder.module, ir.FunctionType(element, [element, vector]), name)
            zero = ir.Constant(element, 0.0)
            totals = [cgutils.alloca_once(builder, vector) for _ in range(4)]
            for total in totals:
                builder.store(ir.Constant(vector, [0.0] * width), total)
            wv = _load(builder, _vector_at(builder, w, offset, vector), align)

            def loadings(p: Any) -> Any:
                row = builder.mul(_column(builder, j, p), ir.Constant(_INT, width))
                return _load(builder, _vector_at(builder, h, row, vector), align)

            def accumulate(ratio: Any, hv: Any, total: Any) -> None:
                builder.store(_fma(builder, _splat(builder, ratio, vector), hv, builder.load(total)), total)

            one, four = ir.Constant(_INT, 1), ir.Constant(_INT, 4)
            whole = builder.sub(last, builder.srem(builder.sub(last, first), four))
            quad = ir.VectorType(element, 4)
            with cgutils.for_range_slice(builder, first, whole, four, _INT) as (p, _):
                hs = [loadings(builder.add(p, ir.Constant(_INT, i))) for i in range(4)]
                fitted = _four_sums(builder, [builder.fmul(wv, hv, flags=("fast",)) for hv in hs])
                ratios = builder.fdiv(_load(builder, _vector_at(builder, x, p, quad), align), fitted)
                none = ir.Constant(quad, [0.0] * 4)
                ratios = builder.select(builder.fcmp_ordered(">", fitted, none), ratios, none)
                _store(builder, ratios, _vector_at(builder, quotient, builder.sub(p, first), quad), align)
                for i, (hv, total) in enumerate(zip(hs, totals, strict=True)):
                    accumulate(builder.extract_element(ratios, ir.Constant(ir.IntType(32), i)), hv, total)
            with cgutils.for_range_slice(builder, whole, last, one, _INT) as (p, _):
                hv = loadings(p)
                fitted = builder.call(add, [zero, builder.fmul(wv, hv, flags=("fast",))], fastmath=("fast",))
                ratio = builder.fdiv(builder.load(builder.gep(x.data, [p])), fitted)
                ratio = builder.select(builder.fcmp_ordered(">", fitted, zero), ratio, zero)
                builder.store(ratio, builder.gep(quotient.data, [builder.sub(p, first)]))
                accumulate(ratio, hv, totals[0])
            sums = [builder.load(total) for total in totals]
            halves = [builder.fadd(a, b, flags=("fast",)) for a, b in zip(sums[:2], sums[2:], strict=True)]
            gathered = builder.fadd(*halves, flags=("fast",))
            _store(builder, gathered, _vector_at(builder, out, ir.Constant(_INT, 0), vector), align)
            return context.get_dummy_value()

        return signature, emit

    return quotients


_quotients_8, _quotients_16, _quotients_32 = _make_quotients(8), _make_quotients(16), _make_quotients(32)


@nb.njit(cache=True, nogil=True, error_model="numpy")
def _quotients_row(data, indices, first, last, H, W, at, r, v):  # type: ignore[no-untyped-def]
    """r[p - first] = x_p / <w, h_p>, v = sum_p r_p h_p along a row."""
    K = np.int64(H.shape[1])
    if K == 8:
        _quotients_8(data, indices, first, last, H, W, at, r, v)
    elif K == 16:
        _quotients_16(data, indices, first, last, H, W, at, r, v)
    elif K == 32:
        _quotients_32(data, indices, first, last, H, W, at, r, v)
    else:
        for p in range(first, last):
            fitted = _dot(H, np.int64(indices[p]) * K, W, at, K)  # type: ignore[call-arg, var-annotated]
            r[p - first] = data[p] / fitted if fitted > 0 else data[p] * 0
        _gather_row(r, indices[first:last], np.int64(0), last - first, H, v, np.int64(0))


@nb.njit(cache=True, nogil=True, error_model="numpy")
def kl_rows(indptr, indices, data, lptr, lidx, sign, base, H, W, l1, steps, quotients, ratios, listed):  # type: ignore[no-untyped-def]
    """Take multiplicative steps on every row; return the sum of all fitted values and accumulate what H needs.

    `quotients` receives `x / <w, h>` at the end, `ratios` the sums of quotients times w per column of X, and `listed`
    the sums of w over the listed entries of a mask.
    """
    K = H.shape[1]
    v, d = np.zeros(K, H.dtype), np.zeros(K, H.dtype)
    fitted = 0.0
    for i in range(W.shape[0]):
        first, last, at = np.int64(indptr[i]), np.int64(indptr[i + 1]), np.int64(i * K)
        r = quotients[first:last]
        d[:] = base
        for q in range(lptr[i], lptr[i + 1]):
            for c in range(K):
                d[c] += sign * H[lidx[q], c]
        for _ in range(steps):
            _quotients_row(data, indices, first, last, H, W, at, r, v)
            for c in range(K):
                W[i, c] = W[i, c] * v[c] / (d[c] + l1) if d[c] + l1 > 0 else W[i, c]
        _quotients_row(data, indices, first, last, H, W, at, r, v)
        _scatter_row(r, indices[first:last], np.int64(0), last - first, W, at, ratios)
        for c in range(K):
            fitted += W[i, c] * d[c]
        for q in range(lptr[i], lptr[i + 1]):
            for c in range(K):
                listed[lidx[q], c] += sign * W[i, c]
    return fitted
