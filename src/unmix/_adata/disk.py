"""Rows of a sparse matrix in an h5ad file or zarr store, read where they lie.

anndata's own matrix on disk makes an empty matrix with all rows of the file, and looks up the version of scipy, for every
slice that is read: some milliseconds a block, and a time for all blocks that grows with the square of the rows. Here a
block costs what is read of it.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy import sparse

from unmix.core.blocks import as_block

NEAR = 16
"""Rows at most so far apart are read in one piece, with those between them."""


@dataclass(frozen=True)
class RowsOnDisk:
    """A CSR matrix on disk, as :mod:`unmix.core.blocks` reads it.

    Attributes
    ----------
    indptr
        Where rows begin; in memory.
    indices, data
        Columns and values of the entries; on disk.
    n_vars
        Number of columns on disk.
    columns
        Positions of the columns that are read; `None` for all.
    """

    indptr: np.ndarray
    indices: Any
    data: Any
    n_vars: int
    columns: np.ndarray | None = None

    format = "csr"

    @property
    def shape(self) -> tuple[int, int]:
        """Return the numbers of rows and columns."""
        return len(self.indptr) - 1, self.n_vars if self.columns is None else len(self.columns)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Return the type of the entries."""
        return np.dtype(self.data.dtype)

    def of(self, columns: np.ndarray) -> "RowsOnDisk":
        """Return some of the columns."""
        return replace(self, columns=columns if self.columns is None else self.columns[columns])

    def __getitem__(self, which: slice | np.ndarray) -> sparse.csr_array:
        if isinstance(which, slice) and which.step in (None, 1):
            start, stop, _ = which.indices(self.shape[0])
            return self._cut(self._read(start, max(start, stop)))
        rows = np.arange(self.shape[0])[which]
        order = np.argsort(rows, kind="stable")
        runs = np.split(rows[order], np.flatnonzero(np.diff(rows[order]) > NEAR) + 1) if len(rows) else []
        parts = [self._read(int(run[0]), int(run[-1]) + 1)[run - run[0]] for run in runs] or [self._read(0, 0)]
        block = sparse.csr_array(sparse.vstack(parts, format="csr"))
        return self._cut(block if (np.diff(order) == 1).all() else block[np.argsort(order)])

    def _read(self, start: int, stop: int) -> sparse.csr_array:
        """Return rows with all columns; indices are not checked."""
        first, last = int(self.indptr[start]), int(self.indptr[stop])
        indices = self.indices[first:last]
        if indices.dtype not in (np.int32, np.int64) or last - first > np.iinfo(indices.dtype).max:
            indices = indices.astype(np.int64)
        block = sparse.csr_array((stop - start, self.n_vars), dtype=self.dtype)
        block.data, block.indices = self.data[first:last], indices
        block.indptr = (self.indptr[start : stop + 1] - first).astype(indices.dtype)
        return block

    def _cut(self, block: sparse.csr_array) -> sparse.csr_array:
        if self.columns is None:
            return block
        return sparse.csr_array(as_block(block)[:, self.columns])


def rows_on_disk(X: Any, where: str) -> RowsOnDisk:
    """Return a CSR matrix on disk of anndata as one that is read block by block.

    Raises
    ------
    ValueError
        If its rows do not begin and end inside of it, as in a damaged file.
    """
    indptr, indices, data = X.group["indptr"][...], X.group["indices"], X.group["data"]
    entries = min(indices.shape[0], data.shape[0])
    sound = indptr.dtype.kind in "iu" and indices.dtype.kind in "iu" and len(indptr) == X.shape[0] + 1
    if not sound or indptr[0] != 0 or indptr[-1] > entries or (indptr[1:] < indptr[:-1]).any():
        msg = f"{where} is damaged: its indices do not fit a sparse matrix of {X.shape[0]} x {X.shape[1]}."
        raise ValueError(msg)
    return RowsOnDisk(indptr, indices, data, X.shape[1])
