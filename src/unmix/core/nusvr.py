"""Exact linear nu-SVR for many responses that share one design matrix: the solver under CIBERSORT.

For one response y (a spot over G genes), a design X (G x K) and r = y - X w, the primal of LIBSVM's nu-SVR,

    min  1/2 |w|^2 + C (nu G eps + sum_i (|r_i - b| - eps)_+),

becomes with u = b + eps, v = b - eps, k = nu G / 2 a sum of two quantile losses that share w,

    min  1/2 |w|^2 + C [k u + sum_i (r_i - u)_+] + C [-k v + sum_i (v - r_i)_+],

ridge composite quantile regression at the levels nu/2 and 1 - nu/2, with K + 2 unknowns. A primal-dual interior point
(Mehrotra) walks a block of responses at once: their normal equations X'(D + D')X are one matrix product with the row
outer products of X. As soon as the active genes can be told, the vertex is solved exactly, and accepted only with its
certificate.
"""

from dataclasses import dataclass

import numpy as np

from unmix.core import _nusvr_kernels as kernels
from unmix.core import _nusvr_vertex as ends

BLOCK = 48
MAX_ITER = 80
TRY_VERTEX = 1e-5
"""Relative complementarity below which the vertex is tried."""
VERTEX_TOL = 1e-13
TRY_DUAL = 1e-8
"""Relative complementarity below which the interior point itself is certified."""
STOP = 1e-14
SIGN = (1.0, -1.0)
"""Of the residual on the upper and on the lower side."""
DAMP, HOLD = 1e-4, 1e64
"""Diagonals that keep rounding out of directions which no free dual spans, and that hold an unknown at 0."""
DEGENERATE_TOL = 1e-10
"""A fit is degenerate where the weights of no data at all are optimal to this relative accuracy."""


@dataclass(frozen=True)
class NuSVRResult:
    """Optimal weights of N responses, each with its certificate.

    Parameters
    ----------
    w
        Weights (N, K).
    b
        Intercepts (N,).
    epsilon
        Half widths of the tube (N,).
    objective
        Primal objective at `w`, `b`, `epsilon` (N,).
    gap
        Duality gap by a feasible dual, relative to `objective` (N,): the objective is at most this fraction above the
        optimum.
    degenerate
        Where the data do not decide the weights (N,): w = 0 (under the constraint 1 / K) is optimal. Such rows hold
        exactly those weights.
    n_iter
        Interior-point iterations (N,).
    """

    w: np.ndarray
    b: np.ndarray
    epsilon: np.ndarray
    objective: np.ndarray
    gap: np.ndarray
    degenerate: np.ndarray
    n_iter: np.ndarray


@dataclass(frozen=True)
class _Design:
    """What all responses share: centred and scaled X, its packed row outer products, the sum k of each dual."""

    X: np.ndarray
    outer: np.ndarray
    mean: np.ndarray
    scale: float
    k: float
    simplex: bool


@dataclass
class _Block:
    """Scaled responses of a block: ridge and sum of the weights differ from row to row."""

    Y: np.ndarray
    ridge: np.ndarray
    total: np.ndarray


@dataclass
class _Point:
    """Interior point of the rows that are still moving; axis 0 of a, z, x and h is the side, r is y - X w."""

    rows: np.ndarray
    a: np.ndarray
    z: np.ndarray
    x: np.ndarray
    r: np.ndarray
    h: np.ndarray
    w: np.ndarray
    s: np.ndarray

    def held(self) -> np.ndarray:
        """Tell which weights go to 0: those below their dual s, which without constraints is 0 throughout."""
        return (self.s > 0) & (self.w < self.s)

    def keep(self, moving: np.ndarray) -> "_Point":
        """Return the point of fewer rows."""
        a, z, x, h = (np.ascontiguousarray(v[:, moving]) for v in (self.a, self.z, self.x, self.h))
        return _Point(self.rows[moving], a, z, x, self.r[moving], h, self.w[moving], self.s[moving])


@dataclass
class _Weights:
    """Weights D of the genes on each side, their sum S, and the affine right-hand side T = D p - D' p'.

    `sums` holds for each side the sums over genes of D, of D p, of complementarity, of the hinge and of the dual.
    """

    D: np.ndarray
    S: np.ndarray
    T: np.ndarray
    sums: np.ndarray


@dataclass
class _Ends:
    """Where the rows of a block ended, in scaled units; `value` holds objective and gap."""

    w: np.ndarray
    h: np.ndarray
    value: np.ndarray
    n_iter: np.ndarray


def solve_nusvr(X: np.ndarray, Y: np.ndarray, nu: float, *, C: float = 1.0) -> NuSVRResult:
    """Fit a linear nu-SVR to every row of Y, exactly.

    Parameters
    ----------
    X
        Design (G, K): signatures, genes x types.
    Y
        Responses (N, G): spots x genes.
    nu
        Fraction of genes outside the tube, in (0, 1].
    C
        Cost of a residual outside the tube.

    Returns
    -------
    Weights with a certificate of optimality each.

    Raises
    ------
    ValueError
        If shapes do not match, a value is not finite, `nu` is outside (0, 1] or `C` is not positive.

    Notes
    -----
    Primal as in LIBSVM (Chang and Lin, Neural Computation 14:1959, 2002); steps as in Mehrotra (SIAM Journal on
    Optimization 2:575, 1992).

    Examples
    --------
    >>> X = np.array([[1.0, 0.0], [0.0, 1.0], [2.0, 1.0], [1.0, 3.0], [4.0, 0.0]])
    >>> solve_nusvr(X, (X @ [0.2, 0.7])[None], nu=0.5, C=100.0).w.round(3)
    array([[0.2, 0.7]])
    """
    return _solve(X, Y, nu, C, simplex=False)


def solve_nusvr_simplex(X: np.ndarray, Y: np.ndarray, nu: float, *, C: float = 1.0) -> NuSVRResult:
    """Fit a linear nu-SVR whose weights are >= 0 and sum to 1 to every row of Y, exactly.

    Parameters
    ----------
    X
        Design (G, K): signatures, genes x types.
    Y
        Responses (N, G), spots x genes, in the units of X.
    nu
        Fraction of genes outside the tube, in (0, 1].
    C
        Cost of a residual outside the tube.

    Returns
    -------
    Weights with a certificate of optimality each: for a dual (alpha, gamma) the weights are the projection of
    X'(alpha - gamma) onto the simplex.

    Raises
    ------
    ValueError
        If shapes do not match, a value is not finite, `nu` is outside (0, 1] or `C` is not positive.

    Examples
    --------
    >>> X = np.array([[1.0, 0.0], [0.0, 1.0], [2.0, 1.0], [1.0, 3.0], [4.0, 0.0]])
    >>> solve_nusvr_simplex(X, (X @ [0.3, 0.7])[None], nu=0.5, C=100.0).w.round(3)
    array([[0.3, 0.7]])
    """
    return _solve(X, Y, nu, C, simplex=True)


def _solve(X: np.ndarray, Y: np.ndarray, nu: float, C: float, *, simplex: bool) -> NuSVRResult:
    X, Y = _validated(X, Y, nu, C)
    design = _prepare(X, nu, simplex=simplex)
    parts = [_solve_block(design, Y[start : start + BLOCK], C) for start in range(0, len(Y), BLOCK)]
    parts = parts or [_solve_block(design, Y, C)]
    return NuSVRResult(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def _validated(X: np.ndarray, Y: np.ndarray, nu: float, C: float) -> tuple[np.ndarray, np.ndarray]:
    X, Y = np.ascontiguousarray(X, float), np.ascontiguousarray(Y, float)
    if X.ndim != 2 or Y.ndim != 2 or X.shape[0] != Y.shape[1] or 0 in X.shape:
        msg = f"X must be genes x types and Y spots x the same genes, got shapes {X.shape} and {Y.shape}."
        raise ValueError(msg)
    if not (np.isfinite(X).all() and np.isfinite(Y).all()):
        msg = "X and Y must be finite; remove or fill NaN and infinite values first."
        raise ValueError(msg)
    if not (0 < nu <= 1 and 0 < C < np.inf):
        msg = f"`nu` must be in (0, 1] and `C` positive, got nu={nu} and C={C}."
        raise ValueError(msg)
    return X, Y


def _prepare(X: np.ndarray, nu: float, *, simplex: bool) -> _Design:
    """Centre X (the thresholds take it up) and scale it to root mean square 1."""
    mean = X.mean(axis=0)
    centred = X - mean
    scale = float(np.sqrt(np.mean(centred**2))) or 1.0
    centred /= scale
    i, j = np.triu_indices(X.shape[1])
    return _Design(centred, centred[:, i] * centred[:, j], mean, scale, nu * len(X) / 2, simplex)


def _solve_block(design: _Design, Y: np.ndarray, C: float) -> tuple[np.ndarray, ...]:
    """Solve in units where X and every y have scale 1, and go back to the caller's units."""
    centre = Y.mean(axis=1)
    spread = Y.std(axis=1)
    size = np.where(spread > 1e-12 * np.abs(centre), spread, 0.0)
    size[size == 0] = 1.0
    ridge = size / (C * design.scale**2)
    total = design.scale / size if design.simplex else np.zeros(len(Y))
    block = _Block((Y - centre[:, None]) / size[:, None], ridge, total)
    end = _interior_point(design, block)
    degenerate = _drop_undecided(design, block, end)
    w = end.w * (size / design.scale)[:, None]
    shift = centre - w @ design.mean
    u, v = size * end.h[:, 0] + shift, shift - size * end.h[:, 1]
    objective, gap = C * size * end.value.T
    relative = np.divide(gap, objective, out=np.zeros_like(gap), where=gap > 0)
    return w, (u + v) / 2, (u - v) / 2, objective, relative, degenerate, end.n_iter


def _drop_undecided(design: _Design, block: _Block, end: _Ends) -> np.ndarray:
    """Find the rows where the weights of a zero dual are optimal, and put exactly those weights there."""
    w = np.repeat(block.total[:, None] / design.X.shape[1], design.X.shape[1], axis=1)
    r = block.Y - w @ design.X.T
    h = np.stack([_top(r, design.k), _top(-r, design.k)], axis=1)
    hinge = np.maximum(r - h[:, :1], 0).sum(axis=1) + np.maximum(-r - h[:, 1:], 0).sum(axis=1)
    objective = design.k * h.sum(axis=1) + hinge + 0.5 * block.ridge * (w**2).sum(axis=1)
    gap = np.maximum(objective - (end.value[:, 0] - end.value[:, 1]), 0.0)
    degenerate = gap <= DEGENERATE_TOL * objective
    end.w[degenerate], end.h[degenerate] = w[degenerate], h[degenerate]
    end.value[degenerate] = np.stack([objective, gap], axis=1)[degenerate]
    return degenerate


def _top(r: np.ndarray, k: float) -> np.ndarray:
    """Return a threshold of every row that minimises k h + sum (r - h)_+: the k-th largest value."""
    place = r.shape[1] - 1 - min(int(k), r.shape[1] - 1)
    return np.partition(r, place, axis=1)[:, place]


def _interior_point(design: _Design, block: _Block) -> _Ends:
    n, K = len(block.Y), design.X.shape[1]
    end = _Ends(np.zeros((n, K)), np.zeros((n, 2)), np.full((n, 2), np.inf), np.zeros(n, np.int64))
    point = _start(design, block)
    for iteration in range(MAX_ITER):
        if len(point.rows) == 0:
            return end
        end.n_iter[point.rows] = iteration
        weights = _weigh(point)
        left = _leave(design, block, point, _level(design, block, point, weights.sums), end)
        if left.any():
            point = point.keep(~left)
            weights = _weigh(point)
        if len(point.rows):
            _newton(design, block, point, weights)
    _certify(design, block, point, np.ones(len(point.rows), bool), end)
    return end


def _start(design: _Design, block: _Block) -> _Point:
    """Least squares for all rows by one product (under the constraint: uniform), slacks away from 0, duals k / G."""
    X, Y = design.X, block.Y
    G, K = X.shape
    if design.simplex:
        w = np.repeat(block.total[:, None] / K, K, axis=1)
    else:
        w = np.linalg.solve(X.T @ X + 1e-6 * G * np.eye(K), X.T @ Y.T).T.copy()
    r = Y - w @ X.T
    h = np.stack([_top(r, design.k), _top(-r, design.k)])
    p = np.stack([r, -r]) - h[:, :, None]
    room = 0.2 * r.std(axis=1)[:, None] + 0.01
    a = np.full(p.shape, design.k / G)
    z, x = np.maximum(-p, 0) + room, np.maximum(p, 0) + room
    s = np.mean(a * z + (1 - a) * x, axis=(0, 2))[:, None] / w if design.simplex else np.zeros_like(w)
    return _Point(np.arange(len(Y)), a, z, x, r, h, w, s)


def _weigh(point: _Point) -> _Weights:
    D, S, T = np.empty_like(point.a), np.zeros_like(point.r), np.zeros_like(point.r)
    sums = np.empty((2, 5, len(S)))
    for i in range(2):
        kernels.weigh(point.a[i], point.z[i], point.x[i], point.r, point.h[i], SIGN[i], D[i], S, T, sums[i])
    return _Weights(D, S, T, sums)


def _level(design: _Design, block: _Block, point: _Point, sums: np.ndarray) -> np.ndarray:
    """Return complementarity relative to the objective."""
    gap = sums[:, 2].sum(axis=0) + (point.w * point.s).sum(axis=1)
    loss = design.k * point.h.sum(axis=0) + sums[:, 3].sum(axis=0)
    loss += 0.5 * block.ridge[point.rows] * (point.w**2).sum(axis=1)
    return gap / np.maximum(loss, 1e-12 * design.k)


def _leave(design: _Design, block: _Block, point: _Point, level: np.ndarray, end: _Ends) -> np.ndarray:
    """Tell which rows are done, at a vertex or as near to the optimum as the iteration gets; store where they ended."""
    near = np.flatnonzero(level < TRY_VERTEX)
    if not len(near):
        return np.zeros(len(level), bool)
    found = _jump(design, block, point, near, end)
    _certify(design, block, point, (level < TRY_DUAL) & ~found, end)
    return found | (level < STOP)


def _jump(design: _Design, block: _Block, point: _Point, near: np.ndarray, end: _Ends) -> np.ndarray:
    """Try the vertex of the rows `near`; store those found and return which they are."""
    rows = point.rows
    w, h, value = np.empty_like(point.w), point.h.T.copy(), np.full((len(rows), 2), np.inf)
    shared = design.X, block.Y[rows], near, point.a, point.z, point.x, point.held()
    ends.to_vertices(*shared, block.ridge[rows], block.total[rows], design.k, VERTEX_TOL, w, h, value)
    found = np.isfinite(value[:, 0])
    end.w[rows[found]], end.h[rows[found]], end.value[rows[found]] = w[found], h[found], value[found]
    return found


def _certify(design: _Design, block: _Block, point: _Point, which: np.ndarray, end: _Ends) -> None:
    """Store the rows `which` as they are, with their duals as they are or mended, where no better ones are stored."""
    if not which.any():
        return
    point = point.keep(which)
    for mended in range(3):
        if mended:
            _mend(design, block, point)
        rows, a, h = point.rows, point.a.copy(), point.h.T.copy()
        w, value = point.w.copy(), np.empty((len(rows), 2))
        ends.to_certificates(design.X, block.Y[rows], a, block.ridge[rows], block.total[rows], design.k, w, h, value)
        better = value[:, 1] < end.value[rows, 1]
        rows = rows[better]
        end.w[rows], end.h[rows], end.value[rows] = w[better], h[better], value[better]


def _mend(design: _Design, block: _Block, point: _Point) -> None:
    """Change the duals as little as possible, weighted by 1 / (a (1 - a)), for them to belong to the weights again.

    The weights converge to rounding; the duals of many tied genes lose digits as complementarity vanishes. Weights held
    at 0 ask for an inequality only, which the interior point has left room for.
    """
    a, w, X = point.a, point.w, design.X
    D = a * (1 - a)
    held = point.held()
    L = _factor(design, D, D[0] + D[1], np.where(held, HOLD, DAMP), D.sum(axis=2) + DAMP)
    lack = block.ridge[point.rows][:, None] * w - point.s - (a[0] - a[1]) @ X
    rhs = np.concatenate([np.where(held, 0.0, lack), (design.k - a.sum(axis=2)).T], axis=1)
    kernels.substitute(L, rhs)
    if design.simplex:  # the multiplier of the sum of the weights is free
        ones = np.concatenate([~held, np.zeros((len(w), 2))], axis=1)
        kernels.substitute(L, ones)
        rhs -= rhs[:, :-2].sum(axis=1, keepdims=True, where=~held) * ones / _total(ones[:, :-2], ~held)
    Q = rhs[:, :-2] @ X.T
    point.a = a + D * (np.stack([Q, -Q]) + rhs[:, -2:].T[:, :, None])


def _total(x: np.ndarray, where: np.ndarray) -> np.ndarray:
    """Return the sums of rows of x, 1 where they are 0."""
    total = x.sum(axis=1, keepdims=True, where=where)
    return np.where(total == 0, 1.0, total)


def _newton(design: _Design, block: _Block, point: _Point, weights: _Weights) -> None:
    """Move the point by one predictor-corrector step."""
    a, z, x, w, s, D = point.a, point.z, point.x, point.w, point.s, weights.D
    ratio = s / w if design.simplex else np.zeros_like(w)
    system = _System(design, block, point, weights, ratio)
    dw, dh, Q = system.solve(weights.T, weights.sums[:, 1], np.zeros_like(w))
    r, h = point.r - Q, point.h + dh
    c, e, reach, second = np.empty_like(a), np.empty_like(a), np.empty((2, len(w))), np.empty((2, len(w)))
    for i in range(2):
        kernels.predict(a[i], z[i], x[i], r, h[i], SIGN[i], D[i], c[i], e[i], reach[i], second[i])
    ds = -s - ratio * dw
    longest = np.maximum(reach.max(axis=0), _bound_reach(design, w, s, dw, ds))
    m = _aim(design, point, weights.sums, longest, second, dw * ds)
    T, mass = np.zeros_like(r), np.empty((2, len(w)))
    for i in range(2):
        kernels.aim(a[i], point.r, point.h[i], SIGN[i], D[i], c[i], e[i], m, T, mass[i])
    push = (m[:, None] - dw * ds) / w if design.simplex else np.zeros_like(w)
    dw, dh, Q = system.solve(T, mass, push)
    ds = push - s - ratio * dw
    np.subtract(point.r, Q, out=r)
    h = point.h + dh
    for i in range(2):
        kernels.direct(a[i], z[i], x[i], r, h[i], SIGN[i], D[i], m, c[i], e[i], reach[i])
    longest = np.maximum(reach.max(axis=0), _bound_reach(design, w, s, dw, ds))
    step = 0.9995 / np.maximum(longest, 0.9995)
    for i in range(2):
        kernels.advance(a[i], z[i], x[i], D[i], c[i], e[i], step)
    w += step[:, None] * dw
    s += step[:, None] * ds
    point.r -= step[:, None] * Q
    point.h += step * dh


def _aim(
    design: _Design, point: _Point, sums: np.ndarray, reach: np.ndarray, second: np.ndarray, bound: np.ndarray
) -> np.ndarray:
    """Return the complementarity to aim at: the cube of what the affine step would leave."""
    gap = sums[:, 2].sum(axis=0) + (point.w * point.s).sum(axis=1)
    step = 1 / np.maximum(reach, 1.0)
    left = (1 - step) * gap + step**2 * (second.sum(axis=0) + bound.sum(axis=1))
    pairs = 4 * len(design.X) + point.w.shape[1] * design.simplex
    return np.clip(left / gap, 0.0, 1.0) ** 3 * gap / pairs


def _bound_reach(design: _Design, w: np.ndarray, s: np.ndarray, dw: np.ndarray, ds: np.ndarray) -> np.ndarray:
    """Return the inverse of the longest step that keeps w and its dual s positive."""
    if not design.simplex:
        return np.zeros(len(w))
    return np.maximum(-dw / w, -ds / s).max(axis=1)


def _factor(design: _Design, D: np.ndarray, S: np.ndarray, diagonal: np.ndarray, corner: np.ndarray) -> np.ndarray:
    """Return Cholesky factors of the bordered X'(D + D')X of every row."""
    border = D @ design.X
    border[1] *= -1
    L = np.empty((len(diagonal), diagonal.shape[1] + 2, diagonal.shape[1] + 2))
    kernels.factor(S @ design.outer, diagonal, border, corner, L)
    return L


class _System:
    """The factored normal equations of a block: K weights, 2 thresholds, and the sum of the weights if it is fixed."""

    def __init__(self, design: _Design, block: _Block, point: _Point, weights: _Weights, ratio: np.ndarray) -> None:
        X, K = design.X, design.X.shape[1]
        ridge = block.ridge[point.rows]
        self.design = design
        self.pull = (point.a[0] - point.a[1]) @ X - ridge[:, None] * point.w
        self.missing = design.k - weights.sums[:, 4]
        self.L = _factor(design, weights.D, weights.S, ridge[:, None] + ratio, weights.sums[:, 0])
        if design.simplex:
            self.short = block.total[point.rows] - point.w.sum(axis=1)
            self.ones = np.repeat([[1.0] * K + [0.0, 0.0]], len(ridge), axis=0)
            kernels.substitute(self.L, self.ones)

    def solve(self, T: np.ndarray, mass: np.ndarray, push: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the steps of w and of the thresholds h, and X dw."""
        K = self.design.X.shape[1]
        rhs = np.concatenate([self.pull + push + T @ self.design.X, (mass - self.missing).T], axis=1)
        kernels.substitute(self.L, rhs)
        if self.design.simplex:
            theta = (rhs[:, :K].sum(axis=1) - self.short) / self.ones[:, :K].sum(axis=1)
            rhs -= theta[:, None] * self.ones
        dw, dh = np.ascontiguousarray(rhs[:, :K]), np.ascontiguousarray(rhs[:, K:].T)
        return dw, dh, dw @ self.design.X.T
