"""Archetypal analysis: X ~ W B X, every archetype a mixture of rows of X and every row of X a mixture of archetypes.

Symbols: X (n_obs x D) rows in a reduced space, B (K x n_obs) the anchors' weights, Z = B X (K x D) the archetypes,
W (n_obs x K) the mixtures; rows of B and of W lie on the simplex. The loss is sum_i omega_i |x_i - w_i Z|^2.

Both blocks are minimised exactly in turn (:mod:`unmix.core._archetype_descent`, :mod:`unmix.core._wolfe`).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import sparse

from unmix.core._archetype_descent import Problem, State, descend, race, start
from unmix.core.archetype_starts import CORESET_BOUNDS, coreset_rows
from unmix.core.archetype_weights import dependent, in_memory, weigh_archetypes

ANCHOR_FLOOR = 1e-8


@dataclass(frozen=True)
class Archetypes:
    """A fit of X ~ W Z with Z in the hull of X.

    Attributes
    ----------
    W
        Mixtures, n_obs x K; rows on the simplex.
    B
        Anchors' weights, sparse K x n_obs; rows on the simplex.
    Z
        Archetypes, K x D, in the coordinates of X.
    explained_variance
        1 - loss / total sum of squares about the mean.
    losses
        Loss after every iteration of the fit that was kept; never rises.
    restarts
        Explained variance of every restart when it was stopped.
    converged
        Whether the relative change fell below the tolerance within the allowed iterations.
    """

    W: np.ndarray
    B: sparse.csr_array
    Z: np.ndarray
    explained_variance: float
    losses: tuple[float, ...]
    restarts: tuple[float, ...]
    converged: bool


def fit_archetypes(
    X: Any,
    n_archetypes: int,
    *,
    weights: np.ndarray | None = None,
    delta: float = 0.0,
    n_restarts: int = 10,
    coreset: int | None = None,
    tol: float = 1e-6,
    max_iter: int = 500,
    rng: int | np.random.Generator | None = 0,
    n_jobs: int = 1,
) -> Archetypes:
    """Fit archetypes by alternating exact block minimisation.

    Parameters
    ----------
    X
        Rows in a reduced space, n_obs x D; or sparse rows (CSR, or anything whose row slices are), which stay sparse.
    n_archetypes
        Number of archetypes K, at most n_obs.
    weights
        Weight omega of every row in the loss; 1 by default.
    delta
        Archetypes may lie on the hull scaled by 1 + delta about the mean of X.
    n_restarts
        Number of starts (furthest sum and archetypal ++ in turn). All run to a loose tolerance, the best to the end.
    coreset
        Number of rows drawn for the restarts, which a fit to all rows follows; by default a tenth, but 1,000 to 20,000.
    tol
        Relative change of the loss at which a fit has converged.
    max_iter
        Largest number of iterations of a fit.
    rng
        Seed.
    n_jobs
        Threads.

    Returns
    -------
    Archetypes, those of the largest total weight first.

    Raises
    ------
    ValueError
        If X is not finite or K does not lie between 1 and n_obs.

    References
    ----------
    Cutler and Breiman, Technometrics 36 (1994); Morup and Hansen, Neurocomputing 80 (2012).

    Examples
    --------
    >>> import numpy as np
    >>> corners = np.array([[0.0, 0.0], [4.0, 0.0], [0.0, 4.0]])
    >>> mixtures = np.random.default_rng(0).dirichlet(np.ones(3), 50)
    >>> fit = fit_archetypes(np.vstack([corners, mixtures @ corners]), 3)
    >>> np.allclose(fit.W[3:] @ fit.Z, mixtures @ corners, atol=1e-6)
    True
    """
    if isinstance(X, np.ndarray):
        X = np.ascontiguousarray(X, dtype=np.float64)
    if not in_memory(X) and X.shape[0] <= CORESET_BOUNDS[0]:
        X = X[0 : X.shape[0]]  # no more than a coreset, and read over and over
    _check(X, n_archetypes, weights, delta)
    mean = X.mean(axis=0) if isinstance(X, np.ndarray) else np.zeros(X.shape[1])
    problem = Problem.of(X - mean if isinstance(X, np.ndarray) else X, weights, delta, n_jobs)
    rng = np.random.default_rng(rng)
    rows = coreset_rows(problem.X, coreset, n_archetypes, rng)
    sample = problem if rows is None else problem.take(rows)
    seeds = rng.spawn(n_restarts)
    starts = [start(sample, n_archetypes, seed, i) for i, seed in enumerate(seeds)]
    best, restarts = race(sample, starts, tol, max_iter)
    if rows is not None:
        best = descend(problem, best.onto(problem, rows[0]), tol, max_iter)
    return _result(problem, best, mean, restarts)


def _result(problem: Problem, state: State, mean: np.ndarray, restarts: tuple[float, ...]) -> Archetypes:
    """Put the archetypes in the order of their total weight and collect B."""
    W = state.W
    if dependent(state.Z @ state.Z.T):  # W depends on the way here, among others that are as good
        W = weigh_archetypes(problem.X, state.Z, n_jobs=problem.n_jobs)
    order = np.argsort(-W.sum(axis=0), kind="stable")
    rows, lam = zip(*(_anchors(state, k) for k in order), strict=True)
    indptr = np.concatenate([[0], np.cumsum([len(r) for r in rows])])
    B = sparse.csr_array((np.concatenate(lam), np.concatenate(rows), indptr), shape=(len(order), problem.X.shape[0]))
    B.sum_duplicates()
    return Archetypes(
        W=np.ascontiguousarray(W[:, order]),
        B=B,
        Z=state.Z[order] + mean,
        explained_variance=problem.explained(state.loss),
        losses=state.losses,
        restarts=restarts,
        converged=state.converged,
    )


def _anchors(state: State, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows that make up archetype k and their weights, without those that rounding has left."""
    lam = state.lam[k, : state.size[k]]
    kept = lam > ANCHOR_FLOOR
    return state.candidates[state.index[k, : state.size[k]]][kept], lam[kept] / lam[kept].sum()


def _check(X: Any, K: int, weights: np.ndarray | None, delta: float) -> None:
    """Refuse what cannot be fitted."""
    if isinstance(X, np.ndarray) and (X.ndim != 2 or not np.isfinite(X).all()):
        msg = "archetypes need a two-dimensional array of finite numbers; remove rows or columns with NaN or inf."
        raise ValueError(msg)
    n = X.shape[0]
    if not 1 <= K <= n:
        msg = f"n_archetypes={K}, but it must lie between 1 and the number of rows, {n}."
        raise ValueError(msg)
    if delta < 0:
        msg = f"delta={delta}, but archetypes can only be allowed outside the hull (delta >= 0)."
        raise ValueError(msg)
    if delta > 0 and not isinstance(X, np.ndarray):
        msg = f"delta={delta}, but archetypes of sparse rows cannot lie outside the hull; use delta=0 or components."
        raise ValueError(msg)
    if weights is not None and (len(weights) != n or not np.isfinite(weights).all() or np.min(weights) < 0):
        msg = f"weights must be {n} finite, non-negative numbers, one a row."
        raise ValueError(msg)
