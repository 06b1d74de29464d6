"""Compiled ends of the nu-SVR: the certificate of a dual, and the step from an interior point to the exact vertex.

One response y, in the signs of :mod:`unmix.core._nusvr_kernels`: side 0 is r - h[0], side 1 is -r - h[1], with
r = y - X w, and the duals a[0], a[1] lie in [0, 1] with sum k. The weights that belong to a dual are
w = P(X'(a[0] - a[1]) / ridge), where P is the identity, or (total > 0) the projection onto {w >= 0, sum w = total}.
Everything here runs row by row in a fixed order.
"""

import numba as nb
import numpy as np

TIES = 64
"""Free duals beyond 2 K that a vertex may have; with more, tied genes leave the work to the interior point."""
ROUNDS = 3
"""Repairs of a wrong guess of the active genes before the interior point goes on."""

SINGULAR = 1e-14
"""Smallest pivot of the KKT system of a vertex."""
PROXIMAL = 1e-12
"""Pull of a free dual to where it is, relative to the largest diagonal: chooses among the duals of tied genes."""

_exact = nb.njit(cache=True, nogil=True, fastmath={"reassoc", "contract", "nsz"}, error_model="numpy")


@_exact
def restore_sum(a: np.ndarray, k: float) -> None:
    """Clip a to [0, 1], then shrink it towards 0 or 1 until it sums to k."""
    total = 0.0
    for i in range(a.size):
        a[i] = min(max(a[i], 0.0), 1.0)
        total += a[i]
    if total > k:
        for i in range(a.size):
            a[i] *= k / total
    elif total < k:
        keep = (a.size - k) / (a.size - total)
        for i in range(a.size):
            a[i] = 1.0 - (1.0 - a[i]) * keep


@_exact
def project(w: np.ndarray, total: float) -> None:
    """Overwrite w by the nearest point of {w >= 0, sum w = total}."""
    ordered = np.sort(w)[::-1]
    running = 0.0
    shift = 0.0
    for j in range(w.size):
        running += ordered[j]
        level = (running - total) / (j + 1)
        if ordered[j] > level:
            shift = level
    for j in range(w.size):
        w[j] = max(w[j] - shift, 0.0)


@_exact
def weights(X: np.ndarray, a: np.ndarray, ridge: float, total: float, w: np.ndarray) -> None:
    """Fill the w that belongs to the dual a."""
    w[:] = 0.0
    for i in range(X.shape[0]):
        d = a[0, i] - a[1, i]
        if d != 0.0:
            for j in range(w.size):
                w[j] += d * X[i, j]
    for j in range(w.size):
        w[j] /= ridge
    if total > 0.0:
        project(w, total)


@_exact
def residuals(X: np.ndarray, y: np.ndarray, w: np.ndarray, r: np.ndarray) -> None:
    """Fill r = y - X w."""
    for i in range(y.size):
        s = y[i]
        for j in range(w.size):
            s -= X[i, j] * w[j]
        r[i] = s


@_exact
def certify(r: np.ndarray, a: np.ndarray, h: np.ndarray, w: np.ndarray, ridge: float, k: float) -> tuple[float, float]:
    """Return the primal objective and the duality gap of (w, h) and the feasible dual a: sums of terms >= 0."""
    objective = k * (h[0] + h[1])
    gap = 0.0
    for j in range(w.size):
        objective += 0.5 * ridge * w[j] * w[j]
    for i in range(r.size):
        for side in range(2):
            p = (r[i] if side == 0 else -r[i]) - h[side]
            if p > 0.0:
                objective += p
                gap += (1.0 - a[side, i]) * p
            else:
                gap -= a[side, i] * p
    return objective, gap


@_exact
def distance(X: np.ndarray, a: np.ndarray, w: np.ndarray, ridge: float, total: float, best: np.ndarray) -> float:
    """Return what w costs more in 1/2 ridge |w|^2 - w'X'(a[0] - a[1]) than `best`, the weights that belong to a."""
    weights(X, a, ridge, 0.0, best)
    free = best.copy()
    if total > 0.0:
        project(best, total)
    cost = 0.0
    for j in range(w.size):
        d = w[j] - best[j]
        cost += ridge * d * (0.5 * d + best[j] - free[j])
    return cost


@_exact
def classify(a: np.ndarray, z: np.ndarray, x: np.ndarray, state: np.ndarray) -> None:
    """Guess where the duals end: 0, 1, or 2 for in between."""
    for side in range(2):
        for i in range(a.shape[1]):
            if z[side, i] > a[side, i]:
                state[side, i] = 0
            elif x[side, i] > 1.0 - a[side, i]:
                state[side, i] = 1
            else:
                state[side, i] = 2


@_exact
def gather(state: np.ndarray, a: np.ndarray, index: np.ndarray) -> int:
    """Put the fixed duals at 0 or 1, list the free ones (gene + side * G); return how many are free."""
    free = 0
    for side in range(2):
        for i in range(a.shape[1]):
            if state[side, i] < 2:
                a[side, i] = state[side, i]
            elif free < index.size:
                index[free] = i + side * a.shape[1]
                free += 1
            else:
                return free + 1
    return free


@_exact
def restrict(w: np.ndarray, held: np.ndarray, total: float) -> None:
    """Put the held weights at 0 and shift the others until they sum to `total`."""
    support = 0
    excess = -total
    for j in range(w.size):
        if held[j]:
            w[j] = 0.0
        else:
            excess += w[j]
            support += 1
    for j in range(w.size):
        if not held[j]:
            w[j] -= excess / support


@_exact
def assemble(B: np.ndarray, sides: np.ndarray, ridge: float, support: int, A: np.ndarray) -> None:
    """Fill the KKT matrix of m free duals, two thresholds, and the multiplier of the sum of the weights (support > 0).

    B are the signed rows of X of the free duals, 0 in the columns whose weight is held at 0.
    """
    m, K = B.shape
    A[:] = 0.0
    largest = 1e-3 / ridge
    for i in range(m):
        for j in range(i + 1):
            s = 0.0
            for q in range(K):
                s += B[i, q] * B[j, q]
            A[i, j] = A[j, i] = s / ridge
        largest = max(largest, A[i, i])
        A[i, m + sides[i]] = A[m + sides[i], i] = 1.0
        if support > 0:
            A[i, m + 2] = A[m + 2, i] = -np.sum(B[i]) / ridge
    for i in range(m):
        A[i, i] += PROXIMAL * largest
    for side in range(2):
        if not np.any(sides == side):
            A[m + side, m + side] = 1.0
    A[m + 2, m + 2] = support / ridge if support > 0 else 1.0


@_exact
def eliminate(A: np.ndarray) -> bool:
    """Solve [A | rhs] by Gauss with row pivots, the solution in the last column; False where singular."""
    n = A.shape[0]
    for j in range(n):
        best = j
        for i in range(j + 1, n):
            if abs(A[i, j]) > abs(A[best, j]):
                best = i
        if abs(A[best, j]) < SINGULAR:
            return False
        if best != j:
            for q in range(j, n + 1):
                A[j, q], A[best, q] = A[best, q], A[j, q]
        for i in range(j + 1, n):
            f = A[i, j] / A[j, j]
            if f != 0.0:
                for q in range(j + 1, n + 1):
                    A[i, q] -= f * A[j, q]
    for j in range(n - 1, -1, -1):
        A[j, n] /= A[j, j]
        for i in range(j):
            A[i, n] -= A[i, j] * A[j, n]
    return True


@_exact
def correct(
    X: np.ndarray,
    y: np.ndarray,
    state: np.ndarray,
    held: np.ndarray,
    ridge: float,
    total: float,
    k: float,
    a: np.ndarray,
    h: np.ndarray,
    w: np.ndarray,
) -> bool:
    """Move the free duals and the thresholds h until every free residual is at its threshold; False where that fails.

    A Newton step from where a, h are: where the guess of the active set is right one step arrives, and another refines.
    """
    G, K = X.shape
    index = np.empty(2 * K + TIES, np.int64)
    m = gather(state, a, index)
    if m > index.size:
        return False
    weights(X, a, ridge, 0.0, w)
    if total > 0.0:
        restrict(w, held, total)
    B = np.empty((m, K))
    A = np.empty((m + 3, m + 4))
    sides = index[:m] // G
    support = 0
    for j in range(K):
        support += total > 0.0 and not held[j]
    for i in range(m):
        for j in range(K):
            B[i, j] = 0.0 if held[j] else (1.0 - 2.0 * sides[i]) * X[index[i] % G, j]
    assemble(B, sides, ridge, support, A)
    A[m:, m + 3] = 0.0
    for i in range(m):
        A[i, m + 3] = (1.0 - 2.0 * sides[i]) * y[index[i] % G] - np.sum(B[i] * w) - h[sides[i]]
        A[m + sides[i], m + 3] = k - np.sum(a[sides[i]])
    if not eliminate(A):
        return False
    for i in range(m):
        a[sides[i], index[i] % G] += A[i, m + 3]
    h += A[m : m + 2, m + 3]
    return True


@_exact
def settle(r: np.ndarray, state: np.ndarray, h: np.ndarray) -> None:
    """Put the threshold of a side without free duals half way between its duals at 1 and its duals at 0."""
    for side in range(2):
        if not np.any(state[side] == 2):
            low, high = -np.inf, np.inf
            for i in range(r.size):
                p = r[i] if side == 0 else -r[i]
                if state[side, i] == 1:
                    high = min(high, p)
                else:
                    low = max(low, p)
            h[side] = 0.5 * (low + high)


@_exact
def repair(state: np.ndarray, raw: np.ndarray, r: np.ndarray, h: np.ndarray) -> None:
    """Fix free duals that left [0, 1]; free the fixed duals whose residual is on the wrong side."""
    for side in range(2):
        for i in range(r.size):
            p = (r[i] if side == 0 else -r[i]) - h[side]
            if state[side, i] == 2:
                if raw[side, i] < 0.0:
                    state[side, i] = 0
                elif raw[side, i] > 1.0:
                    state[side, i] = 1
            elif (p > 0.0) != (state[side, i] == 1):
                state[side, i] = 2


@_exact
def vertex(
    X: np.ndarray,
    y: np.ndarray,
    state: np.ndarray,
    held: np.ndarray,
    ridge: float,
    total: float,
    k: float,
    tol: float,
    a: np.ndarray,
    h: np.ndarray,
    w: np.ndarray,
) -> tuple[float, float]:
    """Find the vertex from a guess of the active set and the dual; return objective and gap, infinite if not found."""
    r = np.empty(y.size)
    for _ in range(ROUNDS):
        if not correct(X, y, state, held, ridge, total, k, a, h, w):
            break
        feasible = a.copy()
        restore_sum(feasible[0], k)
        restore_sum(feasible[1], k)
        weights(X, feasible, ridge, total, w)
        residuals(X, y, w, r)
        settle(r, state, h)
        objective, gap = certify(r, feasible, h, w, ridge, k)
        if gap <= tol * objective < np.inf:
            return objective, gap
        repair(state, a, r, h)
        if total > 0.0:
            held[:] = w <= 0.0
    return np.inf, np.inf


@_exact
def to_vertices(
    X: np.ndarray,
    Y: np.ndarray,
    rows: np.ndarray,
    a: np.ndarray,
    z: np.ndarray,
    x: np.ndarray,
    held: np.ndarray,
    ridge: np.ndarray,
    total: np.ndarray,
    k: float,
    tol: float,
    w: np.ndarray,
    h: np.ndarray,
    ends: np.ndarray,
) -> None:
    """Try the vertex of every row of the list, from thresholds h; fill w, h and ends = (objective, gap)."""
    state = np.empty((2, Y.shape[1]), np.int8)
    dual = np.empty((2, Y.shape[1]))
    for b in rows:
        classify(a[:, b], z[:, b], x[:, b], state)
        dual[:] = a[:, b]
        ends[b] = vertex(X, Y[b], state, held[b], ridge[b], total[b], k, tol, dual, h[b], w[b])


@_exact
def to_certificates(
    X: np.ndarray,
    Y: np.ndarray,
    a: np.ndarray,
    ridge: np.ndarray,
    total: np.ndarray,
    k: float,
    w: np.ndarray,
    h: np.ndarray,
    ends: np.ndarray,
) -> None:
    """Make every w[b] and every dual a[:, b] feasible; fill ends = (objective, gap) of the two at thresholds h."""
    r = np.empty(Y.shape[1])
    bound = np.empty(X.shape[1])
    for b in range(Y.shape[0]):
        restore_sum(a[0, b], k)
        restore_sum(a[1, b], k)
        if total[b] > 0.0:
            project(w[b], total[b])
        residuals(X, Y[b], w[b], r)
        objective, gap = certify(r, a[:, b], h[b], w[b], ridge[b], k)
        ends[b] = objective, gap + distance(X, a[:, b], w[b], ridge[b], total[b], bound)
