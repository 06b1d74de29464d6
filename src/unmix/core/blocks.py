"""The one way over the rows: blocks of any matrix, one result per row, or one small sum over rows.

An algorithm touches a large matrix X only through these functions:

- :func:`map_rows` applies `f` to every block of rows and stacks the results, one row of result per row of X;
- :func:`reduce_rows` applies `f` to every block of rows and adds the results up (Gram matrices, gene sums, losses);
- :func:`map_reduce_rows` does both in one reading, for algorithms that update rows and need sums over the new ones;
- :func:`stream_rows` gives one result after the other to who writes them where the whole has no room.

A block is a C-contiguous `numpy.ndarray` or a `scipy.sparse.csr_array` with sorted indices; X itself may be an array, any
scipy sparse matrix, a matrix on disk that reads row slices (h5py, anndata's backed matrices) or a Dask array with chunks
of either. Who runs `f` is decided here and nowhere else: threads of this process, or the workers of the active
`dask.distributed` client where X is a Dask array. Results are stacked and added in the order of the rows, and linear
algebra inside `f` runs on one thread, so that no result depends on the number of threads.
"""

import functools
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeAlias

import numpy as np
from scipy import sparse
from threadpoolctl import ThreadpoolController

from unmix._settings import progress
from unmix.core._stacking import added, filled, stacked, stacked_and_added
from unmix.core.cluster import active_client, chunk_values, computed, run_on_cluster

Block: TypeAlias = "np.ndarray | sparse.csr_array"
"""Rows of X as a solver sees them."""

BLOCK_ENTRIES = 2**23


def default_block_rows(n_vars: int) -> int:
    """Return how many rows a block has by default: about `BLOCK_ENTRIES` entries, 64 to 4,096 rows."""
    return min(max(BLOCK_ENTRIES // max(n_vars, 1), 64), 4096)


def as_block(rows: Any) -> Block:
    """Return rows of any in-memory matrix as a contiguous ndarray or a CSR array with sorted, unique indices."""
    if sparse.issparse(rows):
        if rows.format in ("csr", "csc") and not sound_indices(rows):
            msg = "the matrix is damaged: its indices do not fit its shape."
            raise ValueError(msg)
        block = sparse.csr_array(rows)
        if not block.has_canonical_format:
            block = block.copy()
            block.sum_duplicates()
        return block
    return np.ascontiguousarray(rows)


def sound_indices(X: Any) -> bool:
    """Tell whether the indices of a CSR or CSC matrix lie inside of it; those of a damaged file may not."""
    major, minor = X.shape if X.format == "csr" else X.shape[::-1]
    if len(X.indptr) != major + 1 or X.indices.dtype.kind not in "iu" or X.indptr.dtype.kind not in "iu":
        return False
    if X.indptr[0] != 0 or X.indptr[-1] > min(len(X.indices), len(X.data)) or (np.diff(X.indptr) < 0).any():
        return False
    return not len(X.indices) or (int(X.indices.min()) >= 0 and int(X.indices.max()) < minor)


def is_dask(X: Any) -> bool:
    """Tell whether X is a Dask array, without importing Dask."""
    return hasattr(X, "dask") and hasattr(X, "to_delayed")


def as_rows(X: Any) -> Any:
    """Return X ready to be cut into rows: in-memory sparse matrices become CSR, Dask arrays get whole rows per chunk."""
    if is_dask(X):
        return X if len(X.chunks[1]) == 1 else X.rechunk({1: -1})
    if sparse.issparse(X):
        return _clean(X.tocsr())
    if getattr(X, "format", "csr") != "csr":  # a CSC matrix on disk cannot be read by rows
        return X[:].tocsr()
    return X


def _clean(X: Any) -> Any:
    """Return a CSR matrix with sorted, unique indices: X itself, or a copy where X is not, so that no pass sorts again."""
    if not X.has_canonical_format:
        X = X.copy()
        X.sum_duplicates()
    return X


def row_slices(n_obs: int, block_rows: int) -> list[slice]:
    """Cut `n_obs` rows into consecutive slices of `block_rows` rows, the last one shorter."""
    return [slice(start, min(start + block_rows, n_obs)) for start in range(0, n_obs, block_rows)]


def iter_blocks(X: Any, block_rows: int | None = None) -> Iterator[tuple[slice, Block]]:
    """Walk over the rows of X, reading one block at a time.

    Parameters
    ----------
    X
        Matrix of shape (n_obs, n_vars), of any kind named in the module's docstring.
    block_rows
        Largest number of rows of a block.

    Yields
    ------
    The rows' slice and the block.

    Examples
    --------
    >>> import numpy as np
    >>> [(rows.start, block.shape) for rows, block in iter_blocks(np.ones((5, 3)), 2)]
    [(0, (2, 3)), (2, (2, 3)), (4, (1, 3))]
    """
    X = as_rows(X)
    block_rows = block_rows or default_block_rows(X.shape[1])
    if not is_dask(X):
        for rows in row_slices(X.shape[0], block_rows):
            yield rows, _csr_view(X, rows) if _is_clean_csr(X) else as_block(X[rows])
        return
    start = 0
    for i in range(X.numblocks[0]):
        chunk = as_block(computed(X.blocks[i]))
        for rows in row_slices(chunk.shape[0], block_rows):
            yield slice(start + rows.start, start + rows.stop), chunk[rows]
        start += chunk.shape[0]


def take_rows(X: Any, rows: np.ndarray) -> Block:
    """Read the rows at the increasing positions `rows` into one block; those side by side as a slice."""
    X = as_rows(X)
    if len(rows) and rows[-1] - rows[0] == len(rows) - 1:
        rows = slice(int(rows[0]), int(rows[-1]) + 1)  # type: ignore[assignment]
    if is_dask(X):
        return as_block(computed(X[rows]))
    return as_block(X[rows])


def _is_clean_csr(X: Any) -> bool:
    """Tell whether X is CSR in memory whose rows can be handed out without a copy."""
    return sparse.issparse(X) and X.format == "csr" and X.has_canonical_format


def _csr_view(X: Any, rows: slice) -> sparse.csr_array:
    """Return rows of a CSR matrix that share its memory; read-only for whoever gets them."""
    start, stop = int(X.indptr[rows.start]), int(X.indptr[rows.stop])
    view = sparse.csr_array((rows.stop - rows.start, X.shape[1]), dtype=X.dtype)
    view.data, view.indices = X.data[start:stop], X.indices[start:stop]  # the constructor copies what is below a half
    view.indptr = X.indptr[rows.start : rows.stop + 1] - X.indptr[rows.start]
    view.has_canonical_format = True
    return view


def map_rows(
    f: Callable[..., Any],
    X: Any,
    *aligned: Any,
    constants: Sequence[Any] = (),
    n_jobs: int = 1,
    block_rows: int | None = None,
    desc: str = "",
) -> Any:
    """Apply `f` to every block of rows and stack what it returns.

    Parameters
    ----------
    f
        Called as `f(block, *aligned_rows, *constants)`; returns an array, or a tuple of arrays, whose first axis is the
        rows of the block.
    X
        Matrix of shape (n_obs, n_vars).
    aligned
        Arrays with n_obs rows that are cut like X.
    constants
        Whatever else `f` needs; sent once to every worker of a cluster.
    n_jobs
        Threads, where this process does the work.
    block_rows
        Rows of a block.
    desc
        Name on the progress bar.

    Returns
    -------
    The stacked array, or the tuple of stacked arrays.

    Examples
    --------
    >>> import numpy as np
    >>> map_rows(lambda block, k: block.sum(axis=1) * k, np.ones((5, 3)), constants=(2.0,), block_rows=2)
    array([6., 6., 6., 6., 6.])
    """
    out = filled(_run(f, X, aligned, constants, n_jobs, block_rows, desc, stacked), X.shape[0])
    return _call(f, as_block(as_rows(X)[0:0]), [a[0:0] for a in aligned], constants) if out is None else out


def stream_rows(
    f: Callable[..., Any],
    X: Any,
    *aligned: Any,
    constants: Sequence[Any] = (),
    n_jobs: int = 1,
    block_rows: int | None = None,
    desc: str = "",
) -> Iterator[Any]:
    """Apply `f` to every block of rows and yield what it returns, in the order of the rows, one block at a time.

    Parameters are those of :func:`map_rows`.

    Examples
    --------
    >>> import numpy as np
    >>> [float(part.sum()) for part in stream_rows(lambda block: 2 * block, np.ones((3, 1)), block_rows=2)]
    [4.0, 2.0]
    """
    for part in _run(f, X, aligned, constants, n_jobs, block_rows, desc, list):
        yield from part if isinstance(part, list) else [part]


def reduce_rows(
    f: Callable[..., Any],
    X: Any,
    *aligned: Any,
    constants: Sequence[Any] = (),
    n_jobs: int = 1,
    block_rows: int | None = None,
    desc: str = "",
) -> Any:
    """Apply `f` to every block of rows and add up what it returns, in the order of the rows.

    Parameters are those of :func:`map_rows`, except that `f` returns a number or an array, or a tuple of them, of a shape
    that does not depend on the block.

    Examples
    --------
    >>> import numpy as np
    >>> reduce_rows(lambda block: block.T @ block, np.arange(6.0).reshape(3, 2), block_rows=2)
    array([[20., 26.],
           [26., 35.]])
    """
    return added(_run(f, X, aligned, constants, n_jobs, block_rows, desc, added))


def map_reduce_rows(
    f: Callable[..., Any],
    X: Any,
    *aligned: Any,
    constants: Sequence[Any] = (),
    n_jobs: int = 1,
    block_rows: int | None = None,
    desc: str = "",
) -> tuple[Any, Any]:
    """Apply `f` to every block of rows; stack the first thing it returns, add up the second.

    Parameters are those of :func:`map_rows`, except that `f` returns a pair: an array of one row per row of the block, and
    a tuple of arrays or numbers of a shape that does not depend on the block.

    Examples
    --------
    >>> import numpy as np
    >>> rows, (total,) = map_reduce_rows(lambda block: (2 * block, (block.sum(),)), np.ones((3, 1)), block_rows=2)
    >>> rows.ravel(), total
    (array([2., 2., 2.]), np.float64(3.0))
    """
    total: Any = None

    def rows() -> Iterator[Any]:
        nonlocal total
        for part, sums in _run(f, X, aligned, constants, n_jobs, block_rows, desc, stacked_and_added):
            total = sums if total is None else added([total, sums])
            yield part

    return filled(rows(), X.shape[0]), total


def _call(f: Callable[..., Any], block: Block, aligned: Sequence[Any], constants: Sequence[Any]) -> Any:
    return f(block, *aligned, *constants)


def _run(
    f: Callable[..., Any],
    X: Any,
    aligned: Sequence[Any],
    constants: Sequence[Any],
    n_jobs: int,
    block_rows: int | None,
    desc: str,
    combine: Callable[[Iterable[Any]], Any],
) -> Iterator[Any]:
    """Yield `f` of every block in the order of the rows; from a cluster, what `combine` makes of a run of blocks."""
    for a in aligned:
        if a.shape[0] != X.shape[0]:
            msg = f"an aligned array has {a.shape[0]} rows, X has {X.shape[0]}."
            raise ValueError(msg)
    X = as_rows(X)
    block_rows = block_rows or default_block_rows(X.shape[1])
    if hasattr(X, "on_source") and is_dask(X.X) and active_client() is not None:
        X, f, aligned = X.on_source(f, aligned)
    client = active_client() if is_dask(X) else None
    if client is not None:
        task = functools.partial(_chunks_task, f, combine, block_rows)
        yield from run_on_cluster(client, task, X, aligned, constants, desc)
        return
    blocks = ((block, [a[rows] for a in aligned]) for rows, block in iter_blocks(X, block_rows))
    total = len(row_slices(X.shape[0], block_rows))
    with _linear_algebra().limit(limits=1, user_api="blas"):
        yield from progress(_on_threads(f, blocks, constants, n_jobs), total=total, desc=desc)


def _chunks_task(
    f: Callable[..., Any],
    combine: Callable[[Iterable[Any]], Any],
    block_rows: int,
    chunks: Sequence[Any],
    aligned: Sequence[Any],
    *constants: Any,
) -> Any:
    """Apply `f` to the blocks of some chunks on a worker."""

    def results() -> Iterator[Any]:
        start = 0
        for chunk in chunk_values(chunks):
            for rows, block in iter_blocks(chunk, block_rows):
                at = slice(start + rows.start, start + rows.stop)
                yield _call(f, block, [a[at] for a in aligned], constants)
            start += chunk.shape[0]

    with _linear_algebra().limit(limits=1, user_api="blas"):
        return combine(results())


def _on_threads(
    f: Callable[..., Any], blocks: Iterable[tuple[Block, list[Any]]], constants: Sequence[Any], n_jobs: int
) -> Iterator[Any]:
    """Read blocks on this thread, at most two ahead of each of `n_jobs` workers."""
    if n_jobs == 1:
        for block, rows in blocks:
            yield _call(f, block, rows, constants)
        return
    with ThreadPoolExecutor(n_jobs) as pool:
        waiting: deque[Future[Any]] = deque()
        try:
            for block, rows in blocks:
                waiting.append(pool.submit(_call, f, block, rows, constants))
                if len(waiting) > 2 * n_jobs:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


@functools.cache
def _linear_algebra() -> ThreadpoolController:
    """Return the handle on the loaded libraries; finding them takes longer than a pass over a small matrix."""
    return ThreadpoolController()
