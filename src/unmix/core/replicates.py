"""Many factorisations of one matrix from random starts, side by side; they can be resumed."""

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from unmix._settings import progress
from unmix.core.factorization import Walk, nmf
from unmix.core.kl import nmf_kl


@dataclass(frozen=True)
class Run:
    """What is kept of one factorisation."""

    spectra: np.ndarray
    """(k, n_vars), unit length, single precision."""
    labels: np.ndarray
    """Component that dominates each sampled row, (n_sampled,)."""
    error: float
    """Loss."""


@dataclass(frozen=True)
class Replicates:
    """Spectra of many runs, and the component that dominates each sampled row in every run."""

    spectra: np.ndarray
    """(n_runs * k, n_vars), unit length."""
    labels: np.ndarray
    """(n_runs, n_sampled)."""
    error: float
    """Lowest loss among the runs."""


def replicate(
    X: Any,
    k: int,
    *,
    n_runs: int = 100,
    loss: str = "frobenius",
    sampled: np.ndarray | None = None,
    finished: Mapping[int, Run] | None = None,
    keep: Callable[[int, Run], None] | None = None,
    walk: Walk | None = None,
    rng: "int | np.random.Generator | None" = 0,
) -> Replicates:
    """Factorise X from `n_runs` random starts; threads are shared out among the runs, one each.

    Parameters
    ----------
    X
        Non-negative matrix in memory, (n_obs, n_vars).
    k
        Number of components.
    n_runs
        Number of starts.
    loss
        `"frobenius"` or `"kl"`.
    sampled
        Rows whose dominant component is kept; all by default.
    finished
        Runs that were done before, by number.
    keep
        Called with the number and the result of every new run.
    walk
        Threads, tolerance and limit of every run.
    rng
        Seed, spawned per run.

    Examples
    --------
    >>> X = np.kron(np.eye(2), np.ones((5, 4)))
    >>> replicate(X, 2, n_runs=3).spectra.shape
    (6, 8)
    """
    walk = walk or Walk(tol=1e-5, max_iter=1000)
    one = replace(walk, n_jobs=1)
    seeds = np.random.default_rng(rng).spawn(n_runs)
    rows = np.arange(X.shape[0]) if sampled is None else sampled
    done = dict(finished or {})

    def run(number: int) -> Run:
        if number in done:
            return done[number]
        found = _run(X, k, loss, rows, one, seeds[number])
        if keep is not None:
            keep(number, found)
        return found

    pool = ThreadPoolExecutor(walk.n_jobs)
    try:
        runs = list(progress(pool.map(run, range(n_runs)), total=n_runs, desc=f"metagenes, {k} components"))
    finally:
        pool.shutdown(cancel_futures=True)
    spectra = np.vstack([r.spectra for r in runs]).astype(np.float64)
    return Replicates(spectra, np.array([r.labels for r in runs]), min(r.error for r in runs))


def _run(X: Any, k: int, loss: str, rows: np.ndarray, walk: Walk, rng: Any) -> Run:
    """Factorise once and keep the directions of the spectra."""
    fit = (nmf_kl if loss == "kl" else nmf)(X, k, start="random", walk=walk, rng=rng)
    size = np.linalg.norm(fit.H, axis=1)
    spectra = (fit.H / np.where(size > 0, size, 1)[:, None]).astype(np.float32)
    return Run(spectra, (fit.W[rows] * size).argmax(axis=1), float(fit.loss[-1]))
