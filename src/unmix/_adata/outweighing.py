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


def row_squares(X: Any, *, n_jobs: int = 1) -> np.ndarray:
    """Return the sum of squares of every row.

    Examples
    --------
    >>> row_squares(np.array([[3.0, 4.0], [0.0, 1.0]]))
    array([25.,  1.])
    """
    squares: np.ndarray = map_rows(_squares_of_block, X, n_jobs=n_jobs)
    return squares


def _squares_of_block(block: Block) -> np.ndarray:
    if not sparse.issparse(block):
        return np.einsum("ij,ij->i", block, block, dtype=np.float64)
    csr = sparse.csr_array(block)
    return np.diff(np.concatenate([[0.0], np.cumsum(csr.data.astype(np.float64) ** 2)])[csr.indptr])


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
