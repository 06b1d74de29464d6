"""Compiled inner loops of the joint factorisations: usages under squared and Poisson losses at once, Poisson terms."""

import numba as nb
import numpy as np
from scipy import sparse

from unmix.core._nmf_kernels import _dot, _gather_row, _scatter_row
from unmix.core.blocks import Block

SMALLEST = 1e-16
"""A fitted rate is not taken below this, so that a count where nothing is expected costs much but not infinitely."""


def mixed_sweeps(L: np.ndarray, A: np.ndarray, W: np.ndarray, G: np.ndarray, sweeps: int) -> np.ndarray:
    r"""Return W after coordinate descent on :math:`\tfrac12 w'Gw + l'w - \sum_c a_c \log w_c` over `w >= 0`, row by row.

    With `a = 0` a step is one of HALS, with `G = 0` it is the multiplicative one.

    Parameters
    ----------
    L
        Linear terms, one row per problem, (rows, K).
    A
        Weights of the logarithms, not negative, (rows, K).
    W
        Where the descent starts, (rows, K).
    G
        The Gram matrix that all rows share, (k, k), k <= K.
    sweeps
        Passes over the k coordinates.

    Examples
    --------
    >>> one = np.ones((1, 1))
    >>> mixed_sweeps(3 * one, 6 * one, one, 0 * one, 1)
    array([[2.]])
    """
    out = np.array(W, dtype=np.float64, order="C")
    _mixed_sweeps(L, A, out, np.ascontiguousarray(G), sweeps)
    return out


@nb.njit(cache=True, nogil=True, error_model="numpy")
def _mixed_sweeps(L, A, W, G, sweeps):  # type: ignore[no-untyped-def]
    k = G.shape[0]
    for i in range(W.shape[0]):
        for _ in range(sweeps):
            for c in range(k):
                p = L[i, c]
                for other in range(k):
                    if other != c:
                        p += G[c, other] * W[i, other]
                W[i, c] = _positive_root(G[c, c], p, A[i, c], W[i, c])


@nb.njit(cache=True, nogil=True, error_model="numpy")
def _positive_root(q, p, a, present):  # type: ignore[no-untyped-def]
    """Return the w >= 0 that minimises `q w^2 / 2 + p w - a log w`."""
    if q <= 0.0 and p <= 0.0:
        return present
    if q <= 0.0:
        return a / p
    root = np.sqrt(p * p + 4.0 * q * a)
    return 2.0 * a / (p + root) if p > 0.0 else (root - p) / (2.0 * q)


def poisson_row_terms(block: Block, W: np.ndarray, Ht: np.ndarray) -> np.ndarray:
    """Return `sum_j x_ij h_j / <w_i, h_j>` for every row, (rows, K)."""
    csr = sparse.csr_array(block)
    out = np.zeros(W.shape)
    W = np.ascontiguousarray(W)
    _poisson_row_terms(csr.indptr, csr.indices, csr.data.astype(np.float64, copy=False), Ht, W, out)
    return out


def poisson_column_terms(block: Block, W: np.ndarray, Ht: np.ndarray) -> tuple[np.ndarray, float]:
    """Return `sum_i x_ij w_i / <w_i, h_j>` for every column, (n_vars, K), and `sum x log(x / <w, h>) - x`."""
    csr = sparse.csr_array(block)
    out = np.zeros(Ht.shape)
    data = csr.data.astype(np.float64, copy=False)
    return out, float(_poisson_column_terms(csr.indptr, csr.indices, data, Ht, np.ascontiguousarray(W), out))


@nb.njit(cache=True, nogil=True)
def _longest_row(indptr):  # type: ignore[no-untyped-def]
    longest = np.int64(0)
    for i in range(indptr.shape[0] - 1):
        longest = max(longest, np.int64(indptr[i + 1] - indptr[i]))
    return longest


@nb.njit(cache=True, nogil=True, error_model="numpy")
def _ratios_of(indices, data, first, last, H, W, at, out):  # type: ignore[no-untyped-def]
    """out[p] = x_p / <w, h_p> along a row."""
    K = np.int64(H.shape[1])
    for p in range(first, last):
        out[p - first] = data[p] / max(_dot(H, np.int64(indices[p]) * K, W, at, K), SMALLEST)  # type: ignore[call-arg]


@nb.njit(cache=True, nogil=True, error_model="numpy")
def _poisson_row_terms(indptr, indices, data, Ht, W, out):  # type: ignore[no-untyped-def]
    K, r = Ht.shape[1], np.zeros(_longest_row(indptr))
    for i in range(W.shape[0]):
        first, last, at = np.int64(indptr[i]), np.int64(indptr[i + 1]), np.int64(i * K)
        _ratios_of(indices, data, first, last, Ht, W, at, r)
        _gather_row(r, indices[first:last], np.int64(0), last - first, Ht, out, at)


@nb.njit(cache=True, nogil=True, error_model="numpy")
def _poisson_column_terms(indptr, indices, data, Ht, W, out):  # type: ignore[no-untyped-def]
    K, r, loss = Ht.shape[1], np.zeros(_longest_row(indptr)), 0.0
    for i in range(W.shape[0]):
        first, last, at = np.int64(indptr[i]), np.int64(indptr[i + 1]), np.int64(i * K)
        _ratios_of(indices, data, first, last, Ht, W, at, r)
        _scatter_row(r, indices[first:last], np.int64(0), last - first, W, at, out)
        for p in range(first, last):
            if data[p] > 0:
                loss += data[p] * (np.log(r[p - first]) - 1.0)
    return loss
