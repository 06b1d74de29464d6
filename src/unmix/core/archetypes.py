"""Archetypal analysis: X ~ W B X, every archetype a mixture of rows of X and every row of X a mixture of archetypes.

Symbols: X (n_obs x D) rows in a reduced space, B (K x n_obs) the anchors' weights, Z = B X (K x D) the archetypes,
W (n_obs x K) the mixtures; rows of B and of W lie on the simplex. The loss is sum_i omega_i |x_i - w_i Z|^2.

Both blocks are minimised exactly in turn (:mod:`unmix.core._wolfe`). X enters the update of B through the products W'X
and W'W and through a small set of candidate rows, to which rows that lie further out than all of them are added.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy import sparse

from unmix.core import _wolfe
from unmix.core.blocks import default_block_rows, map_rows, reduce_rows, row_slices

CORESET_SHARE = 0.1
CORESET_BOUNDS = (1_000, 20_000)
RACE_TOL = 1e-2
POLISHED = 2
SWEEPS = 2
ENTERING = 4
WOLFE_TOL = 1e-10
NOISE_FLOOR = 1e-26
CANCELLATION = 1e-8
ANCHOR_FLOOR = 1e-8
_NOTHING: Any = None


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
    X: np.ndarray,
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
        Rows in a reduced space, n_obs x D.
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
    X = np.ascontiguousarray(X, dtype=np.float64)
    _check(X, n_archetypes, weights, delta)
    mean = X.mean(axis=0)
    problem = _Problem.of(X - mean, weights, delta, n_jobs)
    rng = np.random.default_rng(rng)
    rows = _coreset_rows(problem, coreset, rng)
    sample = problem if rows is None else problem.take(rows)
    seeds = rng.spawn(n_restarts)
    starts = [_start(sample, n_archetypes, seed, i) for i, seed in enumerate(seeds)]
    best, restarts = _race(sample, starts, tol, max_iter)
    if rows is not None:
        best = _descend(problem, best.onto(problem, rows[0]), tol, max_iter)
    return _result(problem, best, mean, restarts)


def weigh_archetypes(X: Any, Z: np.ndarray, *, start: np.ndarray | None = None, n_jobs: int = 1) -> np.ndarray:
    """Return the mixtures W = argmin |X - W Z|^2 with rows on the simplex.

    Parameters
    ----------
    X
        Rows, n_obs x D.
    Z
        Archetypes, K x D.
    start
        Mixtures whose support the search starts from.
    n_jobs
        Threads.

    Examples
    --------
    >>> weigh_archetypes(np.array([[0.5, 0.5], [3.0, 0.0]]), np.eye(2))
    array([[0.5, 0.5],
           [1. , 0. ]])
    """
    G = Z @ Z.T
    tol = 1e-11 * max(np.trace(G) / len(Z), np.finfo(float).tiny)
    if start is None:
        return _rows(lambda x: _wolfe.simplex_weights(G, x @ Z.T, _nearest(x, Z, G), tol), X, n_jobs=n_jobs)
    return _rows(lambda x, w: _wolfe.simplex_weights(G, x @ Z.T, w, tol), X, start, n_jobs=n_jobs)


def weights_gap(X: np.ndarray, Z: np.ndarray, W: np.ndarray) -> np.ndarray:
    """Return the duality gap of every row of W for fixed Z: zero where w minimises |x - w Z|^2 on the simplex.

    The gap is <g, w> - min_k g_k with the gradient g = (w Z - x) Z'; it bounds by how much |x - w Z|^2 / 2 can fall.
    """
    gradient = (W @ Z - X) @ Z.T
    return (gradient * W).sum(axis=1) - gradient.min(axis=1)


def hull_gap(X: np.ndarray, Z: np.ndarray, W: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """Return the duality gap of every archetype in the hull of X for fixed W and fixed other archetypes.

    The gap is <g_k, z_k> - min_i <g_k, x_i> with the gradient g = W' Omega (W Z - X); it bounds by how much half the
    loss can fall when archetype k alone moves within the hull.
    """
    WtO = W.T if weights is None else W.T * weights
    gradient = WtO @ (W @ Z - X)
    return (gradient * Z).sum(axis=1) - (gradient @ X.T).min(axis=1)


def furthest_sum(X: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    """Return n distinct rows, each in turn the one with the largest sum of distances to the others chosen.

    The first is drawn at random; ten rounds more replace the one chosen longest ago (Morup and Hansen, 2012).
    """
    chosen = [int(rng.integers(len(X)))]
    total = _distances(X, chosen[0])
    for k in range(1, n + 10):
        if k >= n:
            total -= _distances(X, chosen.pop(0))
        open_rows = total.copy()
        open_rows[chosen] = -np.inf
        chosen.append(int(open_rows.argmax()))
        total += _distances(X, chosen[-1])
    return np.array(chosen)


def archetypal_plus_plus(
    X: np.ndarray, n: int, rng: np.random.Generator, weights: np.ndarray | None = None
) -> np.ndarray:
    """Return n distinct rows, each drawn in proportion to its squared distance from the hull of those before.

    (Mair and Sjolund, Archetypal Analysis++, 2023.)
    """
    w = np.ones(len(X)) if weights is None else weights
    chosen: list[int] = []
    distance = np.ones(len(X))
    for _ in range(n):
        p = distance * w
        p[chosen] = 0.0
        if p.sum() <= 0:
            p = np.ones(len(X))
            p[chosen] = 0.0
        chosen.append(int(rng.choice(len(X), p=p / p.sum())))
        Z = X[chosen]
        distance = ((X - weigh_archetypes(X, Z) @ Z) ** 2).sum(axis=1)
    return np.array(chosen)


@dataclass(frozen=True)
class _Problem:
    """Centred rows, their weights and the constants of the loss."""

    X: np.ndarray
    weights: np.ndarray | None
    scale: float
    total: float
    n_jobs: int

    @classmethod
    def of(cls, X: np.ndarray, weights: np.ndarray | None, delta: float, n_jobs: int) -> "_Problem":
        squares = np.einsum("ij,ij->i", X, X)
        total = float(squares.sum() if weights is None else squares @ weights)
        return cls(X, weights, 1.0 + delta, total, n_jobs)

    def take(self, sample: tuple[np.ndarray, np.ndarray]) -> "_Problem":
        rows, weights = sample
        if self.weights is not None:
            weights = weights * self.weights[rows]
        return _Problem.of(self.X[rows], weights, self.scale - 1.0, self.n_jobs)

    def moments(self, W: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return W' Omega W and W' Omega X."""
        if self.weights is None:
            return _sums(lambda x, w: (w.T @ w, w.T @ x), self.X, W, n_jobs=self.n_jobs)
        return _sums(lambda x, w, o: ((w.T * o) @ w, (w.T * o) @ x), self.X, W, self.weights, n_jobs=self.n_jobs)

    def explained(self, loss: float) -> float:
        """Return the share of the total sum of squares that is explained."""
        return 1.0 - loss / self.total if self.total > 0 else np.nan

    def loss(self, Z: np.ndarray, W: np.ndarray, WtW: np.ndarray, WtX: np.ndarray) -> float:
        """Return the loss from products, total - 2 <W'X, Z> + <W'W, Z Z'>, or from residuals where little is left."""
        loss = self.total - 2.0 * float((WtX * Z).sum()) + float((WtW * (Z @ Z.T)).sum())
        if loss > CANCELLATION * self.total:
            return loss
        weights = np.ones(len(W)) if self.weights is None else self.weights
        return float(_sums(lambda x, w, o: o @ ((x - w @ Z) ** 2).sum(axis=1), self.X, W, weights, n_jobs=self.n_jobs))


@dataclass(frozen=True)
class _State:
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

    def resumed(self) -> "_State":
        """Return the state as it was before its last loss was taken, so that a descent goes on from here."""
        return replace(self, losses=self.losses[:-1], converged=False)

    def onto(self, problem: _Problem, rows: np.ndarray) -> "_State":
        """Return the state as a start for the problem of which `rows` were the sample."""
        W = weigh_archetypes(problem.X, self.Z, n_jobs=problem.n_jobs)
        return replace(self, W=W, candidates=rows[self.candidates], losses=(), converged=False)


def _start(problem: _Problem, K: int, rng: np.random.Generator, turn: int) -> _State:
    """Return a start whose archetypes are K rows, chosen by furthest sum and archetypal ++ in turn."""
    X = problem.X
    rows = furthest_sum(X, K, rng) if turn % 2 == 0 else archetypal_plus_plus(X, K, rng, problem.weights)
    room = X.shape[1] + 2
    index, lam = np.zeros((K, room), dtype=np.int64), np.zeros((K, room))
    index[:, 0], lam[:, 0] = np.arange(K), 1.0
    Z = problem.scale * X[rows]
    return _State(Z, _nearest(X, Z, Z @ Z.T), rows, index, lam, np.ones(K, dtype=np.int64))


def _race(problem: _Problem, starts: list[_State], tol: float, max_iter: int) -> tuple[_State, tuple[float, ...]]:
    """Run all starts to a loose tolerance and the best of them to the end."""
    loose = [_descend(problem, start, max(tol, RACE_TOL), max_iter) for start in starts]
    order = np.argsort([state.loss for state in loose], kind="stable")[:POLISHED]
    final = {int(i): _descend(problem, loose[i].resumed(), tol, max_iter) for i in order}
    stopped = [final.get(i, state).loss for i, state in enumerate(loose)]
    best = final[min(final, key=lambda i: final[i].loss)]
    return best, tuple(problem.explained(loss) for loss in stopped)


def _descend(problem: _Problem, state: _State, tol: float, max_iter: int) -> _State:
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
            if change <= tol * state.loss or state.loss <= NOISE_FLOOR * problem.total:
                return replace(state, converged=True)
            momentum = min(1.1 * momentum + 0.05, 2.0)
        step = _move_archetypes(problem, state)
        trial = step if Z_before is None else _extrapolate(problem, step, step.Z + momentum * (step.Z - Z_before))
        Z_before = step.Z
    return state


def _weigh(problem: _Problem, state: _State) -> _State:
    """Minimise over W, and evaluate the loss from products."""
    W = weigh_archetypes(problem.X, state.Z, start=state.W, n_jobs=problem.n_jobs)
    WtW, WtX = problem.moments(W)
    return replace(state, W=W, WtW=WtW, WtX=WtX, losses=(problem.loss(state.Z, W, WtW, WtX),))


def _move_archetypes(problem: _Problem, state: _State) -> _State:
    """Minimise over every archetype in turn, twice, after rows that lie further out have joined the candidates."""
    candidates, index, lam, size, Z = (
        a.copy() for a in (state.candidates, state.index, state.lam, state.size, state.Z)
    )
    for _ in range(SWEEPS):
        candidates = _with_entering(problem, candidates, Z, state.WtW, state.WtX)
        rows = problem.X[candidates]
        _wolfe.sweep_hull(rows, Z, state.WtW, state.WtX, index, lam, size, problem.scale, WOLFE_TOL)
    return replace(state, Z=Z, candidates=candidates, index=index, lam=lam, size=size)


def _with_entering(
    problem: _Problem, candidates: np.ndarray, Z: np.ndarray, WtW: np.ndarray, WtX: np.ndarray
) -> np.ndarray:
    """Return the candidates and, for every archetype, the row furthest down the gradient, where it lies below it."""
    gradient = WtW @ Z - WtX
    norms = np.linalg.norm(gradient, axis=1, keepdims=True)
    gradient = gradient / np.where(norms > 0, norms, 1.0)
    heights = _rows(lambda x: problem.scale * (x @ gradient.T), problem.X, n_jobs=problem.n_jobs)
    bound = (gradient * Z).sum(axis=1)
    lowest = np.vstack([part.argmin(axis=0) + rows.start for rows, part in _parts(heights)])
    below = np.take_along_axis(heights, lowest, axis=0) < bound
    entering = np.setdiff1d(lowest[below], candidates)
    return np.concatenate([candidates, entering])


def _parts(heights: np.ndarray) -> list[tuple[slice, np.ndarray]]:
    """Cut the rows into `ENTERING` parts, of which each may send one."""
    slices = row_slices(len(heights), -(-len(heights) // ENTERING))
    return [(rows, heights[rows]) for rows in slices]


def _extrapolate(problem: _Problem, state: _State, T: np.ndarray) -> _State:
    """Return the state with its archetypes at the points of the candidates' hull nearest to T."""
    index, lam, size, Z = (a.copy() for a in (state.index, state.lam, state.size, state.Z))
    _wolfe.project_rows(problem.X[state.candidates], T, Z, index, lam, size, problem.scale, WOLFE_TOL)
    return replace(state, Z=Z, index=index, lam=lam, size=size)


def _result(problem: _Problem, state: _State, mean: np.ndarray, restarts: tuple[float, ...]) -> Archetypes:
    """Put the archetypes in the order of their total weight and collect B."""
    order = np.argsort(-state.W.sum(axis=0), kind="stable")
    rows, lam = zip(*(_anchors(state, k) for k in order), strict=True)
    indptr = np.concatenate([[0], np.cumsum([len(r) for r in rows])])
    B = sparse.csr_array((np.concatenate(lam), np.concatenate(rows), indptr), shape=(len(order), len(problem.X)))
    B.sum_duplicates()
    return Archetypes(
        W=np.ascontiguousarray(state.W[:, order]),
        B=B,
        Z=state.Z[order] + mean,
        explained_variance=problem.explained(state.loss),
        losses=state.losses,
        restarts=restarts,
        converged=state.converged,
    )


def _anchors(state: _State, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows that make up archetype k and their weights, without those that rounding has left."""
    lam = state.lam[k, : state.size[k]]
    kept = lam > ANCHOR_FLOOR
    return state.candidates[state.index[k, : state.size[k]]][kept], lam[kept] / lam[kept].sum()


def _coreset_rows(
    problem: _Problem, coreset: int | None, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray] | None:
    """Return rows drawn half uniformly, half by squared distance from the mean, and weights that undo it."""
    n = len(problem.X)
    size = int(np.clip(CORESET_SHARE * n, *CORESET_BOUNDS)) if coreset is None else coreset
    if size >= n:
        return None
    squares = np.einsum("ij,ij->i", problem.X, problem.X)
    p = 0.5 / n + 0.5 * squares / max(squares.sum(), np.finfo(float).tiny)
    p /= p.sum()
    rows = np.sort(rng.choice(n, size, replace=False, p=p))
    return rows, 1.0 / (size * p[rows])


def _distances(X: np.ndarray, row: int) -> np.ndarray:
    """Return the distances of all rows from one of them."""
    return np.sqrt(((X - X[row]) ** 2).sum(axis=1))


def _nearest(X: np.ndarray, Z: np.ndarray, G: np.ndarray) -> np.ndarray:
    """Return one-hot mixtures: the archetype nearest to every row."""
    W = np.zeros((X.shape[0], len(Z)))
    W[np.arange(X.shape[0]), (2.0 * (X @ Z.T) - np.diag(G)).argmax(axis=1)] = 1.0
    return W


def _rows(f: Callable[..., Any], X: np.ndarray, *aligned: np.ndarray, n_jobs: int) -> Any:
    """Map over rows; a matrix of one block is not worth the walk."""
    if len(X) <= default_block_rows(X.shape[1]):
        return f(X, *aligned)
    return map_rows(f, X, *aligned, n_jobs=n_jobs)


def _sums(f: Callable[..., Any], X: np.ndarray, *aligned: np.ndarray, n_jobs: int) -> Any:
    """Sum over rows, likewise."""
    if len(X) <= default_block_rows(X.shape[1]):
        return f(X, *aligned)
    return reduce_rows(f, X, *aligned, n_jobs=n_jobs)


def _check(X: np.ndarray, K: int, weights: np.ndarray | None, delta: float) -> None:
    """Refuse what cannot be fitted."""
    if X.ndim != 2 or not np.isfinite(X).all():
        msg = "archetypes need a two-dimensional array of finite numbers; remove rows or columns with NaN or inf."
        raise ValueError(msg)
    if not 1 <= K <= len(X):
        msg = f"n_archetypes={K}, but it must lie between 1 and the number of rows, {len(X)}."
        raise ValueError(msg)
    if delta < 0:
        msg = f"delta={delta}, but archetypes can only be allowed outside the hull (delta >= 0)."
        raise ValueError(msg)
    if weights is not None and (len(weights) != len(X) or not np.isfinite(weights).all() or np.min(weights) < 0):
        msg = f"weights must be {len(X)} finite, non-negative numbers, one a row."
        raise ValueError(msg)
