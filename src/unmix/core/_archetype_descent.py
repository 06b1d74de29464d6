"""One descent: both blocks of archetypal analysis minimised exactly in turn, with guarded extrapolation.

Symbols as in :mod:`unmix.core.archetypes`. X enters the update of B through the products W'X and W'W and through a small
set of candidate rows, to which rows that lie further out than all of them are added.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from unmix.core import _wolfe
from unmix.core.archetype_starts import archetypal_plus_plus, furthest_sum
from unmix.core.archetype_weights import (
    nearest_archetype,
    over_rows,
    row_squares,
    some_rows,
    sum_rows,
    weigh_archetypes,
)
from unmix.core.blocks import row_slices

RACE_TOL = 1e-2
POLISHED = 2
SWEEPS = 2
ENTERING = 4
WOLFE_TOL = 1e-10
NOISE_FLOOR = 1e-26
CANCELLATION = 1e-8
_NOTHING: Any = None


@dataclass(frozen=True)
class Problem:
    """Rows, their weights and the constants of the loss."""

    X: Any
    """Centred where dense; simplex weights make the loss the same for sparse rows, which are not."""
    weights: np.ndarray | None
    scale: float
    total: float
    """Sum of squares of the rows as they are."""
    spread: float
    """Sum of squares about the mean."""
    n_jobs: int

    @classmethod
    def of(cls, X: Any, weights: np.ndarray | None, delta: float, n_jobs: int) -> "Problem":
        squares = over_rows(row_squares, X, n_jobs=n_jobs)
        total = float(squares.sum() if weights is None else squares @ weights)
        spread = total
        if not isinstance(X, np.ndarray):
            share = np.full((X.shape[0], 1), 1.0) if weights is None else weights[:, None]
            sums = sum_rows(lambda x, w: w.T @ x, X, share, n_jobs=n_jobs).ravel()
            spread = total - float(sums @ sums) / float(share.sum())
        return cls(X, weights, 1.0 + delta, total, spread, n_jobs)

    def take(self, sample: tuple[np.ndarray, np.ndarray]) -> "Problem":
        rows, weights = sample
        if self.weights is not None:
            weights = weights * self.weights[rows]
        return Problem.of(self.X[rows], weights, self.scale - 1.0, self.n_jobs)

    def moments(self, W: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return W' Omega W and W' Omega X."""
        if self.weights is None:
            return sum_rows(lambda x, w: (w.T @ w, w.T @ x), self.X, W, n_jobs=self.n_jobs)
        return sum_rows(lambda x, w, o: ((w.T * o) @ w, (w.T * o) @ x), self.X, W, self.weights, n_jobs=self.n_jobs)

    def explained(self, loss: float) -> float:
        """Return the share of the total sum of squares that is explained."""
        return 1.0 - loss / self.spread if self.spread > 0 else np.nan

    def loss(self, Z: np.ndarray, W: np.ndarray, WtW: np.ndarray, WtX: np.ndarray) -> float:
        """Return the loss from products, total - 2 <W'X, Z> + <W'W, Z Z'>, or from residuals where little is left."""
        loss = self.total - 2.0 * float((WtX * Z).sum()) + float((WtW * (Z @ Z.T)).sum())
        if loss > CANCELLATION * self.total:
            return loss
        weights = np.ones(len(W)) if self.weights is None else self.weights
        return float(
            sum_rows(lambda x, w, o: o @ ((x - w @ Z) ** 2).sum(axis=1), self.X, W, weights, n_jobs=self.n_jobs)
        )


@dataclass(frozen=True)
class State:
    """One point of a descent: archetypes Z = scale * lam X[candidates[index]], mixtures W, the losses so far."""

    Z: np.ndarray
    W: np.ndarray
    candidates: np.ndarray
    index: np.ndarray
    lam: np.ndarray
    size: np.ndarray
    WtW: np.ndarray = _NOTHING
    WtX: np.ndarray = _NOTHING
    losses: tuple[float, ...] = ()
    converged: bool = False

    @property
    def loss(self) -> float:
        return self.losses[-1] if self.losses else np.inf

    def resumed(self) -> "State":
        """Return the state as it was before its last loss was taken, so that a descent goes on from here."""
        return replace(self, losses=self.losses[:-1], converged=False)

    def onto(self, problem: Problem, rows: np.ndarray) -> "State":
        """Return the state as a start for the problem of which `rows` were the sample."""
        W = weigh_archetypes(problem.X, self.Z, n_jobs=problem.n_jobs)
        more = ((0, 0), (0, _room(problem) - self.index.shape[1]))
        index, lam = np.pad(self.index, more), np.pad(self.lam, more)
        return replace(self, W=W, candidates=rows[self.candidates], index=index, lam=lam, losses=(), converged=False)


def start(problem: Problem, K: int, rng: np.random.Generator, turn: int) -> State:
    """Return a start whose archetypes are K rows, chosen by furthest sum and archetypal ++ in turn."""
    X = problem.X
    rows = furthest_sum(X, K, rng) if turn % 2 == 0 else archetypal_plus_plus(X, K, rng, problem.weights)
    room = _room(problem)
    index, lam = np.zeros((K, room), dtype=np.int64), np.zeros((K, room))
    index[:, 0], lam[:, 0] = np.arange(K), 1.0
    Z = problem.scale * some_rows(X, rows)
    G = Z @ Z.T
    W = over_rows(lambda x: nearest_archetype(x, Z, G), X, n_jobs=problem.n_jobs)
    return State(Z, W, rows, index, lam, np.ones(K, dtype=np.int64))


def _room(problem: Problem) -> int:
    """Return how many rows the hull point of an archetype may rest on while it moves."""
    return int(min(problem.X.shape)) + 2


def race(problem: Problem, starts: list[State], tol: float, max_iter: int) -> tuple[State, tuple[float, ...]]:
    """Run all starts to a loose tolerance and the best of them to the end."""
    loose = [descend(problem, start, max(tol, RACE_TOL), max_iter) for start in starts]
    order = np.argsort([state.loss for state in loose], kind="stable")[:POLISHED]
    final = {int(i): descend(problem, loose[i].resumed(), tol, max_iter) for i in order}
    stopped = [final.get(i, state).loss for i, state in enumerate(loose)]
    best = final[min(final, key=lambda i: final[i].loss)]
    return best, tuple(problem.explained(loss) for loss in stopped)


def descend(problem: Problem, state: State, tol: float, max_iter: int) -> State:
    """Alternate W and Z until the relative change of the loss falls below `tol`, with guarded extrapolation of Z."""
    trial, Z_before, momentum = state, None, 0.5
    for _ in range(max_iter):
        trial = _weigh(problem, trial)
        if trial.loss > state.loss:
            if Z_before is None:  # a plain step rises by rounding alone
                return replace(state, converged=True)
            Z_before, momentum = None, 0.0
        else:
            change = state.loss - trial.loss
            state = replace(trial, losses=(*state.losses, trial.loss))
            if change <= tol * state.loss or state.loss <= NOISE_FLOOR * problem.spread:
                return replace(state, converged=True)
            momentum = min(1.1 * momentum + 0.05, 2.0)
        step = _move_archetypes(problem, state)
        trial = step if Z_before is None else _extrapolate(problem, step, step.Z + momentum * (step.Z - Z_before))
        Z_before = step.Z
    return state


def _weigh(problem: Problem, state: State) -> State:
    """Minimise over W, and evaluate the loss from products."""
    W = weigh_archetypes(problem.X, state.Z, start=state.W, n_jobs=problem.n_jobs)
    WtW, WtX = problem.moments(W)
    return replace(state, W=W, WtW=WtW, WtX=WtX, losses=(problem.loss(state.Z, W, WtW, WtX),))


def _move_archetypes(problem: Problem, state: State) -> State:
    """Minimise over every archetype in turn, twice, after rows that lie further out have joined the candidates."""
    candidates, index, lam, size, Z = (
        a.copy() for a in (state.candidates, state.index, state.lam, state.size, state.Z)
    )
    for _ in range(SWEEPS):
        candidates = _with_entering(problem, candidates, Z, state.WtW, state.WtX)
        rows = some_rows(problem.X, candidates)
        _wolfe.sweep_hull(rows, Z, state.WtW, state.WtX, index, lam, size, problem.scale, WOLFE_TOL)
    return replace(state, Z=Z, candidates=candidates, index=index, lam=lam, size=size)


def _with_entering(
    problem: Problem, candidates: np.ndarray, Z: np.ndarray, WtW: np.ndarray, WtX: np.ndarray
) -> np.ndarray:
    """Return the candidates and, for every archetype, the row furthest down the gradient, where it lies below it."""
    gradient = WtW @ Z - WtX
    norms = np.linalg.norm(gradient, axis=1, keepdims=True)
    gradient = gradient / np.where(norms > 0, norms, 1.0)
    heights = over_rows(lambda x: problem.scale * (x @ gradient.T), problem.X, n_jobs=problem.n_jobs)
    bound = (gradient * Z).sum(axis=1)
    lowest = np.vstack([part.argmin(axis=0) + rows.start for rows, part in _parts(heights)])
    below = np.take_along_axis(heights, lowest, axis=0) < bound
    entering = np.setdiff1d(lowest[below], candidates)
    return np.concatenate([candidates, entering])


def _parts(heights: np.ndarray) -> list[tuple[slice, np.ndarray]]:
    """Cut the rows into `ENTERING` parts, of which each may send one."""
    slices = row_slices(len(heights), -(-len(heights) // ENTERING))
    return [(rows, heights[rows]) for rows in slices]


def _extrapolate(problem: Problem, state: State, T: np.ndarray) -> State:
    """Return the state with its archetypes at the points of the candidates' hull nearest to T."""
    index, lam, size, Z = (a.copy() for a in (state.index, state.lam, state.size, state.Z))
    _wolfe.project_rows(some_rows(problem.X, state.candidates), T, Z, index, lam, size, problem.scale, WOLFE_TOL)
    return replace(state, Z=Z, index=index, lam=lam, size=size)
