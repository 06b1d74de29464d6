"""The warning that a handful of rows outweighs all others under squared error."""

import warnings
from typing import Any

import numpy as np
from scipy import sparse

from unmix.core.blocks import Block, map_rows

HANDFUL, MOST = 100, 0.5
"""A handful is one row in so many, and outweighs the others with more than this share of the sum of squares.

Squares of log-normal depths are so uneven only where 95% of the depths range over a factor of almost a hundred.
"""


class OutweighedWarning(UserWarning):
    """A handful of rows holds most of what squared error fits."""


def row_squares(
    X: Any, scales: np.ndarray | None = None, codes: np.ndarray | None = None, *, n_jobs: int = 1
) -> np.ndarray:
    """Return the sum of squares of every row, its entries multiplied by the scales of its batch where there are any.

    Parameters
    ----------
    X
        Matrix, (n_obs, n_vars).
    scales
        Of every batch and column, (n_batches, n_vars).
    codes
        Batch of every row.
    n_jobs
        Threads.

    Examples
    --------
    >>> X = np.array([[3.0, 4.0], [0.0, 1.0]])
    >>> row_squares(X)
    array([25.,  1.])
    >>> row_squares(X, np.array([[1.0, 0.0], [1.0, 2.0]]), np.array([0, 1]))
    array([9., 4.])
    """
    weights = np.ones((X.shape[1], 1)) if scales is None else np.square(scales).T
    codes = np.zeros(X.shape[0], np.int64) if codes is None else codes
    squares: np.ndarray = map_rows(_squares_of_block, X, codes, constants=(weights,), n_jobs=n_jobs)
    return squares


def _squares_of_block(block: Block, codes: np.ndarray, weights: np.ndarray) -> np.ndarray:
    if sparse.issparse(block):
        csr = sparse.csr_array(block)
        squares: Any = sparse.csr_array((csr.data.astype(np.float64) ** 2, csr.indices, csr.indptr), shape=csr.shape)
    else:
        squares = block.astype(np.float64) ** 2
    return np.asarray(squares @ weights)[np.arange(len(codes)), codes]


def warn_outweighed(squares: np.ndarray, names: Any, advice: str, stacklevel: int = 4) -> None:
    """Say so where one row in a hundred, or fewer, holds most of the sum of squares.

    Parameters
    ----------
    squares
        Of every row.
    names
        Of the rows.
    advice
        What else to do than to leave the rows out.
    stacklevel
        Of the warning.

    Warns
    -----
    OutweighedWarning
        If so.
    """
    few = len(squares) // HANDFUL
    order = np.argsort(-squares, kind="stable")
    shares = np.cumsum(squares[order])[:few] / max(float(squares.sum()), 1e-300)
    if few and shares[-1] > MOST:
        n = int(np.argmax(shares > MOST)) + 1
        which = ", ".join(repr(str(names[i])) for i in order[: min(n, 3)]) + (", ..." if n > 3 else "")
        msg = (
            f"{n} of {len(squares):,} rows ({which}) hold {shares[n - 1]:.0%} of the sum of squares, so that under squared "
            f"error components describe these rows before all others; leave them out, or {advice}."
        )
        warnings.warn(msg, OutweighedWarning, stacklevel=stacklevel)
