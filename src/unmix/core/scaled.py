"""Rows of counts brought to one total, and their logarithms: read, cut to genes and scaled only when asked for."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from scipy import sparse

from unmix.core.blocks import as_rows, reduce_rows, stream_rows, take_rows

GATHER_ENTRIES = 2**24
"""Matrices of at most so many nonzero entries are kept in memory instead of being read again in every pass."""


@dataclass(frozen=True)
class ScaledRows:
    """A matrix that is read by rows, as :mod:`unmix.core.blocks` does; every block is a float64 CSR array.

    Attributes
    ----------
    X
        Counts of all rows and genes, of any kind that :mod:`unmix.core.blocks` reads.
    rows
        Positions of the rows that are left, increasing.
    factors
        What every row that is left is multiplied by.
    genes
        Positions of the genes that are left, or `None` for all.
    log
        Whether log(1 + y) is taken.
    """

    X: Any
    rows: np.ndarray
    factors: np.ndarray
    genes: np.ndarray | None = None
    log: bool = False

    @property
    def shape(self) -> tuple[int, int]:
        """Return the numbers of rows and genes that are left."""
        return len(self.rows), self.X.shape[1] if self.genes is None else len(self.genes)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Return the type of the blocks."""
        return np.dtype(np.float64)

    def __getitem__(self, which: slice | np.ndarray) -> sparse.csr_array:
        rows, factors = self.rows[which], self.factors[which]
        block = sparse.csr_array(_read(self.X, rows))
        block = block if self.genes is None else sparse.csr_array(block[:, self.genes])
        if not block.data.all():
            block = block.copy()
            block.eliminate_zeros()
        data = block.data.astype(np.float64) * np.repeat(factors, np.diff(block.indptr))
        return sparse.csr_array((np.log1p(data) if self.log else data, block.indices, block.indptr), shape=block.shape)

    def on_source(self, f: Callable[..., Any], aligned: Sequence[Any]) -> tuple[Any, Callable[..., Any], list[Any]]:
        """Return the matrix that the rows are made of, and `f` and what is cut like the rows for a pass over it.

        For increasing rows; so that the workers of a cluster do the work where the counts are.
        """
        kept = np.zeros(self.X.shape[0], bool)
        kept[self.rows] = True
        spread = [np.zeros((len(kept), *np.shape(a)[1:]), a.dtype) for a in (self.factors, *aligned)]
        for whole, part in zip(spread, (self.factors, *aligned), strict=True):
            whole[kept] = part
        return self.X, partial(_scaled_then, f, len(aligned), self.genes, self.log), [kept, *spread]

    def take(self, which: np.ndarray) -> "ScaledRows":
        """Return some of the rows."""
        return replace(self, rows=self.rows[which], factors=self.factors[which])

    def to(self, target: float, totals: np.ndarray) -> "ScaledRows":
        """Return the rows, whose totals are given, scaled to another total."""
        return replace(self, factors=target / totals)

    def of(self, genes: np.ndarray) -> "ScaledRows":
        """Return some of the genes."""
        return replace(self, genes=genes if self.genes is None else self.genes[genes])

    def logged(self) -> "ScaledRows":
        """Return log(1 + y)."""
        return replace(self, log=True)

    def counts(self) -> "ScaledRows":
        """Return the rows as they were before they were scaled."""
        return replace(self, factors=np.ones(len(self.rows)), log=False)

    def gathered(self) -> sparse.csr_array:
        """Read everything into one sparse matrix."""
        return sparse.csr_array(sparse.vstack(list(stream_rows(_itself, self)), format="csr"))

    def gathered_if(self, n_entries: float) -> "sparse.csr_array | ScaledRows":
        """Read everything where `n_entries`, the number of nonzero entries, is small; otherwise stay as it is."""
        return self.gathered() if n_entries <= GATHER_ENTRIES else self


def totals_at(block: Any, columns: np.ndarray) -> np.ndarray:
    """Return the totals of rows over some of the genes, in double precision.

    Examples
    --------
    >>> totals_at(np.array([[1, 2, 4], [0, 1, 8]]), np.array([0, 2]))
    array([5., 8.])
    """
    return np.asarray(block[:, columns].astype(np.float64).sum(axis=1)).ravel()


def scale_rows(X: Any, totals: np.ndarray, rows: np.ndarray) -> tuple[ScaledRows, float]:
    """Return the rows marked in `rows` scaled to the median of their totals; and that median."""
    target = float(np.median(totals[rows]))
    return ScaledRows(as_rows(X), np.flatnonzero(rows), target / totals[rows]), target


@dataclass(frozen=True)
class GeneMoments:
    """Means and mean squares of genes over the rows, and how many rows express them."""

    mean: np.ndarray
    square: np.ndarray
    expressed: np.ndarray

    @property
    def deviation(self) -> np.ndarray:
        """Return the standard deviations."""
        return np.sqrt(np.maximum(self.square - self.mean**2, 0.0))

    @property
    def excess(self) -> np.ndarray:
        """Return the variance over that of a negative binomial law of dispersion 0.01; -1 in fewer than two rows.

        The dispersion is the spread of techniques (Lause et al., Genome Biol. 22, 2021).
        """
        expected = np.maximum(self.mean + 0.01 * self.mean**2, np.finfo(float).tiny)
        return np.where(self.expressed > 1, (self.square - self.mean**2) / expected, -1.0)


def gene_moments(Y: Any, *, n_jobs: int = 1) -> GeneMoments:
    """Return the moments of every gene in one pass over sparse rows."""
    sums, squares, expressed = reduce_rows(_sums, Y, n_jobs=n_jobs, desc="moments of genes")
    return GeneMoments(sums / Y.shape[0], squares / Y.shape[0], expressed)


def cross_product(Y: Any, W: np.ndarray, *, n_jobs: int = 1) -> np.ndarray:
    """Return Y'W, genes x K, in one pass over the rows."""
    product: np.ndarray = reduce_rows(_transpose_times, Y, W, n_jobs=n_jobs, desc="profiles")
    return product


def _scaled_then(
    f: Callable[..., Any],
    n_aligned: int,
    genes: np.ndarray | None,
    log: bool,
    block: Any,
    kept: np.ndarray,
    factors: np.ndarray,
    *rest: Any,
) -> Any:
    """Apply `f` to the scaled rows of a block of counts, what is aligned cut to those that are kept."""
    rows = ScaledRows(block, np.flatnonzero(kept), factors[kept], genes, log)[:]
    return f(rows, *(a[kept] for a in rest[:n_aligned]), *rest[n_aligned:])


def _read(X: Any, rows: np.ndarray) -> Any:
    """Read rows at distinct positions; those near each other as one slice, of which some are left out."""
    if len(rows) > 1 and (np.diff(rows) < 0).any():
        order = np.argsort(rows)
        return sparse.csr_array(_read(X, rows[order]))[np.argsort(order)]
    if len(rows) and rows[-1] - rows[0] < 2 * len(rows):
        return take_rows(X, np.arange(rows[0], rows[-1] + 1))[rows - rows[0]]
    return take_rows(X, rows)


def _itself(block: sparse.csr_array) -> sparse.csr_array:
    return block


def _sums(block: sparse.csr_array) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    columns, n = block.indices, block.shape[1]
    return (
        np.bincount(columns, weights=block.data, minlength=n),
        np.bincount(columns, weights=block.data**2, minlength=n),
        np.bincount(columns, minlength=n),
    )


def _transpose_times(block: sparse.csr_array, W: np.ndarray) -> np.ndarray:
    return np.asarray(block.T @ W)
