"""Passes over the rows of a Dask array on the workers of a `dask.distributed` cluster.

One task takes a run of consecutive chunks, works through them block by block and sends back one result, so that a pass
has at most `MAX_TASKS` tasks of ours, however many chunks there are. Where there are more chunks than that, and their
recipes are small, a task also reads its chunks itself. Constants are sent once, to one worker, from which every other
fetches them once. If the only worker that held them is lost, they are sent again and the pass goes on behind the last
result that arrived.
"""

import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError
from typing import Any

import numpy as np

from unmix._settings import logger, progress

MAX_TASKS = 250
ATTEMPTS = 5
LARGEST_RECIPES = 2**24
"""Bytes of all tasks of a pass; where chunks are cut from an array in memory, each recipe would hold all of it."""


def active_client() -> Any:
    """Return the client of the running `dask.distributed` cluster, or `None`."""
    distributed = sys.modules.get("distributed")
    if distributed is None:
        return None
    try:
        return distributed.get_client()
    except ValueError:  # imported, but no client has been made
        return None


def computed(part: Any) -> Any:
    """Return a part of a Dask array in memory, read by the cluster where one is active."""
    return part.compute(scheduler=active_client() or "synchronous")


def run_on_cluster(
    client: Any,
    task: Callable[..., Any],
    X: Any,
    aligned: Sequence[Any],
    constants: Sequence[Any],
    desc: str,
) -> Iterator[Any]:
    """Yield `task(chunks, aligned_rows, *constants)` of every run of chunks, in the order of the rows.

    Chunks are values, or Delayed objects for the task to compute.
    """
    pieces = _pieces(client, X)
    runs = np.array_split(np.arange(len(pieces)), min(MAX_TASKS, len(pieces)))
    bounds = np.concatenate([[0], np.cumsum(X.chunks[0])])
    work = deque((pieces[r[0] : r[-1] + 1], slice(int(bounds[r[0]]), int(bounds[r[-1] + 1]))) for r in runs)
    results = _with_patience(client, task, work, aligned, constants)
    yield from progress(results, total=len(work), desc=desc)


def _with_patience(
    client: Any, task: Callable[..., Any], work: deque[Any], aligned: Sequence[Any], constants: Sequence[Any]
) -> Iterator[Any]:
    """Yield results as :func:`run_on_cluster` does; `work` loses its first entry with every result."""
    for attempt in range(ATTEMPTS):
        try:
            shared = _send(client, constants)
            futures = deque(
                client.submit(task, pieces, [a[rows] for a in aligned], *shared, pure=False) for pieces, rows in work
            )
            while futures:
                result = futures[0].result()
                futures.popleft()
                work.popleft()
                yield result
            return
        except CancelledError:  # a worker was lost, and with it the only copy of the constants
            if attempt == ATTEMPTS - 1:
                raise
            logger.warning(
                "the cluster lost data of a pass; sending it again for the %d tasks that are left", len(work)
            )


def _send(client: Any, constants: Sequence[Any]) -> list[Any]:
    """Send constants to the cluster; once more where a worker is lost meanwhile.

    They are not hashed: one that equals that of the pass before would share its key, and be released with it. They are
    not broadcast: the scheduler never ends to copy them to a worker that dies meanwhile (distributed 2026.8).
    """
    for attempt in range(ATTEMPTS if constants else 0):
        try:
            return client.scatter(list(constants), hash=False)
        except (OSError, KeyError):  # a broken connection; a worker that was given up meanwhile
            if attempt == ATTEMPTS - 1:
                raise
            logger.warning("the cluster lost a worker while data was sent to it; sending it again")
    return []


def _pieces(client: Any, X: Any) -> list[Any]:
    """Return what a task needs for each chunk: where it lies on the cluster already, its recipe, or a future value."""
    held = {future.key: future for future in sys.modules["distributed"].futures_of(X)}
    keys = [row[0] for row in X.__dask_keys__()]
    if all(key in held for key in keys):
        return [held[key] for key in keys]
    if X.numblocks[0] > MAX_TASKS and not held:
        recipes = _recipes(X)
        if recipes:
            return recipes
    return client.compute(X.to_delayed().ravel().tolist())


def _recipes(X: Any) -> list[Any]:
    """Return the chunks as Delayed objects that hold what makes them and nothing else; none if that is much."""
    dumps = sys.modules["distributed"].protocol.pickle.dumps
    recipes: list[Any] = []
    for run in np.array_split(np.arange(X.numblocks[0]), MAX_TASKS):
        recipes += X.blocks[int(run[0]) : int(run[-1]) + 1].to_delayed().ravel().tolist()
        if len(recipes) == len(run) and len(dumps(recipes)) * MAX_TASKS > LARGEST_RECIPES:
            return []
    return recipes


def chunk_values(pieces: Sequence[Any]) -> Iterator[Any]:
    """Yield the chunks of a task one by one, on a worker."""
    for piece in pieces:
        yield piece.compute(scheduler="synchronous") if hasattr(piece, "dask") else piece
