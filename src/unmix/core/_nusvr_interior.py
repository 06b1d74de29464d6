"""The interior point under :mod:`unmix.core.nusvr`: a block of responses walks to its optima at once.

Everything is in scaled units. A point that is near enough leaves for its vertex (:mod:`unmix.core._nusvr_vertex`) or is
certified as it is.
"""

from dataclasses import dataclass

import numpy as np

from unmix.core import _nusvr_kernels as kernels
from unmix.core import _nusvr_vertex as ends

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


@dataclass(frozen=True)
class Design:
    """What all responses share: centred and scaled X, its packed row outer products, the sum k of each dual."""

    X: np.ndarray
    outer: np.ndarray
    mean: np.ndarray
    scale: float
    k: float
    simplex: bool


@dataclass
class Block:
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
class Ends:
    """Where the rows of a block ended, in scaled units; `value` holds objective and gap."""

    w: np.ndarray
    h: np.ndarray
    value: np.ndarray
    n_iter: np.ndarray


def interior_point(design: Design, block: Block) -> Ends:
    n, K = len(block.Y), design.X.shape[1]
    end = Ends(np.zeros((n, K)), np.zeros((n, 2)), np.full((n, 2), np.inf), np.zeros(n, np.int64))
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


def top(r: np.ndarray, k: float) -> np.ndarray:
    """Return a threshold of every row that minimises k h + sum (r - h)_+: the k-th largest value."""
    place = r.shape[1] - 1 - min(int(k), r.shape[1] - 1)
    return np.partition(r, place, axis=1)[:, place]


def _start(design: Design, block: Block) -> _Point:
    """Least squares for all rows by one product (under the constraint: uniform), slacks away from 0, duals k / G."""
    X, Y = design.X, block.Y
    G, K = X.shape
    if design.simplex:
        w = np.repeat(block.total[:, None] / K, K, axis=1)
    else:
        w = np.linalg.solve(X.T @ X + 1e-6 * G * np.eye(K), X.T @ Y.T).T.copy()
    r = Y - w @ X.T
    h = np.stack([top(r, design.k), top(-r, design.k)])
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


def _level(design: Design, block: Block, point: _Point, sums: np.ndarray) -> np.ndarray:
    """Return complementarity relative to the objective."""
    gap = sums[:, 2].sum(axis=0) + (point.w * point.s).sum(axis=1)
    loss = design.k * point.h.sum(axis=0) + sums[:, 3].sum(axis=0)
    loss += 0.5 * block.ridge[point.rows] * (point.w**2).sum(axis=1)
    return gap / np.maximum(loss, 1e-12 * design.k)


def _leave(design: Design, block: Block, point: _Point, level: np.ndarray, end: Ends) -> np.ndarray:
    """Tell which rows are done, at a vertex or as near to the optimum as the iteration gets; store where they ended."""
    near = np.flatnonzero(level < TRY_VERTEX)
    if not len(near):
        return np.zeros(len(level), bool)
    found = _jump(design, block, point, near, end)
    _certify(design, block, point, (level < TRY_DUAL) & ~found, end)
    return found | (level < STOP)


def _jump(design: Design, block: Block, point: _Point, near: np.ndarray, end: Ends) -> np.ndarray:
    """Try the vertex of the rows `near`; store those found and return which they are."""
    rows = point.rows
    w, h, value = np.empty_like(point.w), point.h.T.copy(), np.full((len(rows), 2), np.inf)
    shared = design.X, block.Y[rows], near, point.a, point.z, point.x, point.held()
    ends.to_vertices(*shared, block.ridge[rows], block.total[rows], design.k, VERTEX_TOL, w, h, value)
    found = np.isfinite(value[:, 0])
    end.w[rows[found]], end.h[rows[found]], end.value[rows[found]] = w[found], h[found], value[found]
    return found


def _certify(design: Design, block: Block, point: _Point, which: np.ndarray, end: Ends) -> None:
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


def _mend(design: Design, block: Block, point: _Point) -> None:
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


def _newton(design: Design, block: Block, point: _Point, weights: _Weights) -> None:
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
    design: Design, point: _Point, sums: np.ndarray, reach: np.ndarray, second: np.ndarray, bound: np.ndarray
) -> np.ndarray:
    """Return the complementarity to aim at: the cube of what the affine step would leave."""
    gap = sums[:, 2].sum(axis=0) + (point.w * point.s).sum(axis=1)
    step = 1 / np.maximum(reach, 1.0)
    left = (1 - step) * gap + step**2 * (second.sum(axis=0) + bound.sum(axis=1))
    pairs = 4 * len(design.X) + point.w.shape[1] * design.simplex
    return np.clip(left / gap, 0.0, 1.0) ** 3 * gap / pairs


def _bound_reach(design: Design, w: np.ndarray, s: np.ndarray, dw: np.ndarray, ds: np.ndarray) -> np.ndarray:
    """Return the inverse of the longest step that keeps w and its dual s positive."""
    if not design.simplex:
        return np.zeros(len(w))
    return np.maximum(-dw / w, -ds / s).max(axis=1)


def _factor(design: Design, D: np.ndarray, S: np.ndarray, diagonal: np.ndarray, corner: np.ndarray) -> np.ndarray:
    """Return Cholesky factors of the bordered X'(D + D')X of every row."""
    border = D @ design.X
    border[1] *= -1
    L = np.empty((len(diagonal), diagonal.shape[1] + 2, diagonal.shape[1] + 2))
    kernels.factor(S @ design.outer, diagonal, border, corner, L)
    return L


class _System:
    """The factored normal equations of a block: K weights, 2 thresholds, and the sum of the weights if it is fixed."""

    def __init__(self, design: Design, block: Block, point: _Point, weights: _Weights, ratio: np.ndarray) -> None:
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
