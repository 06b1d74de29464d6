"""Which entries of X are observed: everything, the non-zeros, what an array says, or all but a random speckle.

Kernels meet a mask as a list of columns per row, either of the missing or of the observed entries, whichever is
shorter, so that a sum over the observed entries is `base * (sum over all) + sign * (sum over the listed)`.
"""

from dataclasses import dataclass
from typing import Any

import numba as nb
import numpy as np
from scipy import sparse

from unmix.core.blocks import Block, map_reduce_rows


@dataclass(frozen=True)
class Speckled:
    """Every entry is missing with probability `share`, independently; decided by (seed, row), never stored."""

    share: float
    seed: int


@dataclass(frozen=True)
class Observed:
    """A block whose missing entries are zero, and which entries are observed."""

    block: sparse.csr_array
    indptr: np.ndarray
    indices: np.ndarray
    """Listed columns of every row: the observed ones where `sign` is 1, the missing ones where it is -1."""
    sign: int

    @property
    def base(self) -> int:
        """Weight of the sum over all entries: 1 where the list names missing entries."""
        return int(self.sign < 0)

    def count(self) -> int:
        """Return how many entries are observed."""
        n_obs, n_vars = self.block.shape
        return self.base * n_obs * n_vars + self.sign * len(self.indices)


def mask_rows(X: Any, mask: Any) -> tuple[Any, Any]:
    """Return what the passes need for a mask: an array aligned with the rows, and the kind of mask.

    Parameters
    ----------
    X
        Matrix of shape (n_obs, n_vars).
    mask
        None, `"zeros"`, a :class:`Speckled`, or an array (dense, sparse or on disk) of X's shape, true where observed.

    Raises
    ------
    ValueError
        If an array has another shape than X, or a text is not "zeros".
    """
    if mask is None or isinstance(mask, Speckled) or (isinstance(mask, str) and mask == "zeros"):
        return np.arange(X.shape[0]), mask
    if isinstance(mask, str):
        msg = f'`mask` must be an array, "zeros" or None, got {mask!r}.'
        raise ValueError(msg)
    if tuple(mask.shape) != tuple(X.shape):
        msg = f"`mask` must have the shape of the matrix, {tuple(X.shape)}, got {tuple(mask.shape)}."
        raise ValueError(msg)
    return mask.tocsr() if sparse.issparse(mask) else mask, "array"


def observe(block: Block, rows: Any, kind: Any) -> Observed:
    """Return a block with its missing entries set to zero, and the list of its observed or missing entries."""
    csr = sparse.csr_array(block)
    if kind is None:
        return Observed(csr, np.zeros(csr.shape[0] + 1, np.int64), np.zeros(0, np.int32), -1)
    if isinstance(kind, Speckled):
        listed = speckles(rows, csr.shape[1], kind)
        return Observed(_without(csr, *listed, keep=False), *listed, -1)
    if isinstance(kind, str) and kind == "zeros":
        if csr.nnz and not csr.data.all():
            csr = csr.copy()
            csr.eliminate_zeros()
        return Observed(csr, csr.indptr, csr.indices, 1)
    seen = np.asarray(rows.toarray() if sparse.issparse(rows) else rows).astype(bool)
    sign = 1 if seen.mean() < 0.5 else -1  # list what is rarer
    listed = _lists(seen if sign == 1 else ~seen)
    return Observed(_without(csr, *listed, keep=sign == 1), *listed, sign)


def observed_counts(
    X: Any, mask: Any, *, of: np.ndarray | None = None, n_jobs: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    """Return how many entries of every row (`of` some columns, true or false each), and of every column, are observed.

    Examples
    --------
    >>> observed_counts(np.eye(2), np.array([[True, True], [False, True]]))
    (array([2, 1]), array([1, 2]))
    >>> observed_counts(np.eye(2), "zeros", of=np.array([True, False]))[0]
    array([1, 0])
    """
    rows, kind = mask_rows(X, mask)
    of = np.ones(X.shape[1], bool) if of is None else of
    counts, (columns,) = map_reduce_rows(_counts_of, X, rows, constants=(kind, of), n_jobs=n_jobs)
    return counts, columns


def _counts_of(block: Block, rows: Any, kind: Any, of: np.ndarray) -> tuple[np.ndarray, tuple[np.ndarray]]:
    seen, (n_obs, n_vars) = observe(block, rows, kind), block.shape
    columns = seen.base * n_obs + seen.sign * np.bincount(seen.indices, minlength=n_vars)
    listed = np.concatenate([[0], np.cumsum(of[seen.indices])])[seen.indptr]
    return seen.base * int(of.sum()) + seen.sign * np.diff(listed), (columns,)


def _lists(listed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    indptr = np.concatenate([[0], np.cumsum(listed.sum(axis=1))]).astype(np.int64)
    return indptr, np.nonzero(listed)[1].astype(np.int32)


def _without(csr: sparse.csr_array, indptr: np.ndarray, indices: np.ndarray, *, keep: bool) -> sparse.csr_array:
    """Set the listed entries (or, with `keep`, all others) to zero, in a copy of the values."""
    listed = _is_listed(csr.indptr, csr.indices, indptr, indices)
    data = np.where(listed == keep, csr.data, 0)
    out = sparse.csr_array((data, csr.indices, csr.indptr), shape=csr.shape)
    out.has_canonical_format = True
    return out


@nb.njit(cache=True, nogil=True)
def _is_listed(indptr, indices, listed_ptr, listed):  # type: ignore[no-untyped-def]
    out = np.zeros(indices.shape[0], np.bool_)
    for i in range(indptr.shape[0] - 1):
        q, end = listed_ptr[i], listed_ptr[i + 1]
        for p in range(indptr[i], indptr[i + 1]):
            while q < end and listed[q] < indices[p]:
                q += 1
            out[p] = q < end and listed[q] == indices[p]
    return out


@nb.njit(cache=True, nogil=True)
def values_at(indptr, indices, data, listed_ptr, listed):  # type: ignore[no-untyped-def]
    """Return the values of a CSR matrix at the listed entries, zero where nothing is stored."""
    out = np.zeros(listed.shape[0], np.float64)
    for i in range(indptr.shape[0] - 1):
        p, end = indptr[i], indptr[i + 1]
        for q in range(listed_ptr[i], listed_ptr[i + 1]):
            while p < end and indices[p] < listed[q]:
                p += 1
            if p < end and indices[p] == listed[q]:
                out[q] = data[p]
    return out


def speckles(rows: np.ndarray, n_vars: int, speckled: Speckled) -> tuple[np.ndarray, np.ndarray]:
    """Return the missing columns of the given rows as (indptr, indices), the same for a row in any block.

    Examples
    --------
    >>> indptr, indices = speckles(np.arange(1000), 50, Speckled(0.1, 0))
    >>> round(len(indices) / 50_000, 2)
    0.1
    """
    if not 0 < speckled.share < 1:
        msg = f"the share of entries to hold out must lie between 0 and 1, got {speckled.share}."
        raise ValueError(msg)
    return _speckles(rows.astype(np.uint64), n_vars, np.log1p(-speckled.share), np.uint64(speckled.seed))


@nb.njit(cache=True, nogil=True)
def _mixed(state):  # type: ignore[no-untyped-def]
    """Return the output function of splitmix64."""
    z = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


@nb.njit(cache=True, nogil=True)
def _speckles(rows, n_vars, log_kept, seed):  # type: ignore[no-untyped-def]
    """Walk along each row by geometric steps drawn from a counter-based generator."""
    indptr = np.zeros(rows.shape[0] + 1, np.int64)
    indices = [np.int32(0) for _ in range(0)]
    golden = np.uint64(0x9E3779B97F4A7C15)
    for i in range(rows.shape[0]):
        state = _mixed(_mixed(seed + golden) + (rows[i] + np.uint64(1)) * golden)
        j = -1.0
        while True:
            state += golden
            u = (np.float64(_mixed(state) >> np.uint64(11)) + 0.5) / 9007199254740992.0
            j += 1.0 + np.floor(np.log(u) / log_kept)
            if j >= n_vars:
                break
            indices.append(np.int32(j))
        indptr[i + 1] = len(indices)
    return indptr, np.array(indices, dtype=np.int32)
