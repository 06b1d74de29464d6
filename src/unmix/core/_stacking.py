"""Put together, in the order of the rows, what blocks of rows return: stacked, added up, or both."""

from collections.abc import Iterable
from typing import Any

import numpy as np


def stacked(parts: Iterable[Any]) -> Any:
    """Stack arrays, or tuples of arrays."""
    parts = list(parts)
    if isinstance(parts[0], tuple):
        return tuple(np.concatenate(column) for column in zip(*parts, strict=True))
    return np.concatenate(parts)


def filled(parts: Iterable[Any], n: int) -> Any:
    """Stack arrays, or tuples of arrays, of n rows in all into memory that is taken once; None where there are none.

    Raises
    ------
    ValueError
        If they have fewer rows: the rest of the memory would hold anything.
    """
    out: Any = None
    start = 0
    for part in parts:
        columns = part if isinstance(part, tuple) else (part,)
        if out is None:
            out, single = [np.empty((n, *column.shape[1:]), column.dtype) for column in columns], part is not columns
        stop = start + len(columns[0])
        for i, column in enumerate(columns):
            if column.dtype != out[i].dtype:
                out[i] = out[i].astype(np.result_type(out[i], column))
            out[i][start:stop] = column
        start = stop
    if out is not None and start < n:
        msg = f"blocks of {n} rows gave {start}; what gives fewer rows is for `stream_rows`."
        raise ValueError(msg)
    return out if out is None else out[0] if single else tuple(out)


def added(parts: Iterable[Any]) -> Any:
    """Add up numbers or arrays, or tuples of them, one after the other."""
    total: Any = None
    for part in parts:
        if total is None:
            total = part
        elif isinstance(part, tuple):
            total = tuple(a + b for a, b in zip(total, part, strict=True))
        else:
            total = total + part
    return total


def stacked_and_added(parts: Iterable[tuple[Any, tuple[Any, ...]]]) -> tuple[Any, Any]:
    """Stack the first, add up the second of pairs."""
    rows: list[np.ndarray] = []
    total: Any = None
    for part, sums in parts:
        rows.append(part)
        total = sums if total is None else added([total, sums])
    return np.concatenate(rows), total
