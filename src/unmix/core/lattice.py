"""Counts behind values that are counts times one factor a row, or the logarithms of one plus those.

Depth normalisation multiplies the counts of a row by one number and leaves them on a lattice: every value is a whole multiple
of the row's unit, what a single count has become. The smallest value is nearly always one count; where it is two, three or
more, a fraction of it is the unit. Each value leaves the unit an interval, by how far it may have been rounded, and the unit lies
in all of them. One that fits is no guess: values of another kind are whole multiples of one number to within their rounding only
by chance, and a row of a few dozen values leaves that none. Rounding is that of single precision, and of the decimals of a
table.

A common divisor of all counts of a row cannot be seen; the counts then are too small by it. A row that holds a count of one,
as all but the shortest do, has none.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import sparse

from unmix.core._zinb_kernels import compiled
from unmix.core.blocks import Block, as_rows, map_rows, stream_rows, take_rows

SMALLEST = 12
"""Largest count that the smallest value of a row is tried for."""
ROUNDING = 4 * float(np.finfo(np.float32).eps)
"""Relative error of values that went through single precision, as most have, whatever they are stored in."""
FURTHEST = 0.4
"""Counts so high that rounding moves them so far cannot be told from their neighbours."""
N_TRIED = 50
"""Rows by which logarithms are told from values as they are."""
MOST_DECIMALS = 6


@dataclass(frozen=True)
class Scale:
    """How the values of a matrix follow from counts: times the unit of the row, then perhaps the log of one more."""

    log: float | None
    """Natural logarithm of the logarithm's base; `None` where none was taken."""
    step: float = 0.0
    """Distance of the numbers next to each other in a table that was rounded; 0 where it was not."""

    def linear(self, values: np.ndarray) -> np.ndarray:
        """Undo the logarithm."""
        x = np.asarray(values, dtype=np.float64)
        with np.errstate(over="ignore"):  # values that are no logarithms
            return x if self.log is None else np.expm1(x * self.log)

    def errors(self, values: np.ndarray) -> np.ndarray:
        """Return how far rounding may have moved values whose logarithm was undone."""
        v, x = self.linear(values), np.asarray(values, dtype=np.float64)
        if self.log is None:
            return ROUNDING * v + 0.5 * self.step
        return ROUNDING * v + (1 + v) * self.log * (ROUNDING * x + 0.5 * self.step)


def scale_of(X: Any, base: float | None = None) -> Scale | None:
    """Tell from the first rows with values whether they are counts times a factor, logarithms of such, or neither (`None`).

    Parameters
    ----------
    X
        Non-negative values, rows x genes, of any kind that :mod:`unmix.core.blocks` walks over.
    base
        Base of the logarithm if there was one; `None` to try e, 2 and 10.

    Examples
    --------
    >>> counts = np.random.default_rng(0).poisson(1.0, (4, 30))
    >>> values = counts * np.array([[0.1], [2.0], [0.7], [1.3]])
    >>> scale_of(values).log is None, scale_of(np.log1p(values)).log, scale_of(np.sqrt(values))
    (True, 1.0, None)
    """
    filled = np.flatnonzero(map_rows(_n_values, X, desc="rows with values"))
    some = as_rows(take_rows(X, filled[:N_TRIED]))
    step = _step(np.asarray(some.data if sparse.issparse(some) else some, dtype=np.float64).ravel())
    logs = (None, 1.0, math.log(2), math.log(10)) if base is None else (None, math.log(base))
    for scale in (Scale(log, width) for width in (0.0, step) for log in logs):
        if np.isfinite(units(some, scale)).all():
            return scale
    return None


def _step(values: np.ndarray) -> float:
    """Return a power of ten that all values are multiples of, 0 if there is none that their precision can show."""
    for decimals in range(MOST_DECIMALS + 1):
        multiples = values * 10.0**decimals
        slack = 0.5 * ROUNDING * multiples.max(initial=0.0)
        if slack > 0.25:
            break
        if np.all(np.abs(multiples - np.rint(multiples)) <= slack):
            return 10.0**-decimals
    return 0.0


def units(X: Any, scale: Scale, *, n_jobs: int = 1) -> np.ndarray:
    """Return what one count has become in every row: 1 in rows without values, NaN where no unit fits.

    Examples
    --------
    >>> units(np.array([[0.5, 0.0, 1.5], [0.6, 0.9, 1.5], [0.0, 0.0, 0.0], [1.0, 1.1, 1.23]]), Scale(None))
    array([0.5, 0.3, 1. , nan])
    """
    found: np.ndarray = map_rows(_units, X, constants=(scale,), n_jobs=n_jobs, desc="units of the rows")
    return found


def counts_of(X: Any, scale: Scale, unit: np.ndarray, *, n_jobs: int = 1) -> sparse.csr_matrix:
    """Return the counts, in single precision.

    Parameters
    ----------
    X, scale
        As given to :func:`units`.
    unit
        What it has returned.

    Examples
    --------
    >>> counts_of(np.array([[0.5, 0.0, 1.5]]), Scale(None), np.array([0.5])).toarray()
    array([[1., 0., 3.]], dtype=float32)
    """
    parts = stream_rows(_counts, X, unit, constants=(scale,), n_jobs=n_jobs, desc="counts")
    return sparse.csr_matrix(sparse.vstack(list(parts), format="csr"))


def _n_values(block: Block) -> np.ndarray:
    return np.asarray((block != 0).sum(axis=1)).ravel()


def _units(block: Block, scale: Scale) -> np.ndarray:
    rows = sparse.csr_array(block)
    rows.eliminate_zeros()
    return _fit_units(rows.indptr, scale.linear(rows.data), scale.errors(rows.data))


def _counts(block: Block, unit: np.ndarray, scale: Scale) -> sparse.csr_matrix:
    rows = sparse.csr_matrix(block)
    values = np.rint(scale.linear(rows.data) / np.repeat(unit, np.diff(rows.indptr))).astype(np.float32)
    return sparse.csr_matrix((values, rows.indices, rows.indptr), shape=rows.shape)


@compiled()
def _fit_units(indptr: np.ndarray, values: np.ndarray, errors: np.ndarray) -> np.ndarray:
    out = np.ones(len(indptr) - 1)
    for i in range(len(out)):
        start, stop = indptr[i], indptr[i + 1]
        if stop > start:
            order = np.argsort(values[start:stop])
            out[i] = _fit_unit(values[start:stop][order], errors[start:stop][order])
    return out


@compiled()
def _fit_unit(v: np.ndarray, errors: np.ndarray) -> float:
    """Return the largest unit of which all values, in ascending order, are whole multiples, NaN if there is none.

    Every value and its error leave the unit an interval; those of small multiples tell which multiple the next one is.
    """
    for count in range(1, SMALLEST + 1):
        low, high = 0.0, 2.0 * v[0] / count
        for at in range(len(v)):
            unit = 0.5 * (low + high)
            k = np.rint(v[at] / unit)
            low, high = max(low, (v[at] - errors[at]) / k), min(high, (v[at] + errors[at]) / k)
            if not (errors[at] <= FURTHEST * unit and low <= high):  # nor where one is infinite
                low = np.nan
                break
        if low <= high:
            return 0.5 * (low + high)
    return np.nan
