"""Compiled ends of the nu-SVR: the certificate of a dual, and the step from an interior point to the exact vertex.

One response y, in the signs of :mod:`unmix.core._nusvr_kernels`: side 0 is r - h[0], side 1 is -r - h[1], with
r = y - X w, and the duals a[0], a[1] lie in [0, 1] with sum k. The weights that belong to a dual are
w = P(X'(a[0] - a[1]) / ridge), where P is the identity, or (total > 0) the projection onto {w >= 0, sum w = total}.
Everything here runs row by row in a fixed order.
"""

import numba as nb
import numpy as np

ROUNDS = 6
"""Repairs of a wrong guess of the active genes before the interior point goes on."""

SINGULAR = 1e-11
"""Smallest pivot of the KKT system of a vertex."""

_exact = nb.njit(cache=True, nogil=True, error_model="numpy")


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
def gather(X: np.ndarray, state: np.ndarray, index: np.ndarray, c: np.ndarray, count: np.ndarray) -> int:
    """List the free duals (gene + side * G), sum up those at 1 (c = X'a, count); return how many are free."""
    G, K = X.shape
    free = 0
    c[:] = 0.0
    for side in range(2):
        count[side] = 0
        sign = 1.0 - 2.0 * side
        for i in range(G):
            if state[side, i] == 2:
                if free == index.size:
                    return free + 1
                index[free] = i + side * G
                free += 1
            elif state[side, i] == 1:
                count[side] += 1
                for j in range(K):
                    c[j] += sign * X[i, j]
    return free


@_exact
def assemble(
    B: np.ndarray, sides: np.ndarray, t: np.ndarray, c: np.ndarray, n: np.ndarray, ridge: float, A: np.ndarray
) -> None:
    """Fill the KKT system [A | rhs] of m free duals, h[0], h[1] and theta, the multiplier of the sum of w.

    B are the signed rows of X of the free duals, 0 in the columns whose weight is 0 (whose c is 0 as well), t their
    signed responses, n the sums that the free duals of each side must reach.
    """
    m, K = B.shape
    A[:] = 0.0
    for i in range(m):
        for j in range(i + 1):
            s = 0.0
            for q in range(K):
                s += B[i, q] * B[j, q]
            A[i, j] = s / ridge
            A[j, i] = s / ridge
        s = 0.0
        for q in range(K):
            s += B[i, q] * c[q]
        A[i, m + 3] = t[i] - s / ridge
        A[i, m + sides[i]] = 1.0
        A[m + sides[i], i] = 1.0
    for side in range(2):
        A[m + side, m + 3] = n[side]
        if not np.any(sides == side):
            A[m + side, m + side] = 1.0
    A[m + 2, m + 2] = 1.0


@_exact
def add_sum(B: np.ndarray, c: np.ndarray, support: int, ridge: float, total: float, A: np.ndarray) -> None:
    """Add the equation sum w = total, over `support` columns, to the KKT system."""
    m = B.shape[0]
    for i in range(m):
        s = np.sum(B[i])
        A[i, m + 2] = -s / ridge
        A[m + 2, i] = -s / ridge
    A[m + 2, m + 2] = support / ridge
    A[m + 2, m + 3] = np.sum(c) / ridge - total


@_exact
def lean(A: np.ndarray, prior: np.ndarray) -> None:
    """Among all duals that solve a singular system, ask for the one nearest to the prior."""
    m = prior.size
    delta = 1e-16
    for i in range(m):
        delta = max(delta, 1e-9 * A[i, i])
    for i in range(m):
        A[i, i] += delta
        A[i, m + 3] += delta * prior[i]


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
def solve_free(
    X: np.ndarray,
    y: np.ndarray,
    state: np.ndarray,
    held: np.ndarray,
    ridge: float,
    total: float,
    k: float,
    a: np.ndarray,
    h: np.ndarray,
) -> bool:
    """Replace the dual a, and fill the thresholds h, by those that hold every free residual at its threshold."""
    G, K = X.shape
    index = np.empty(2 * K + 4, np.int64)
    c = np.empty(K)
    count = np.empty(2, np.int64)
    m = gather(X, state, index, c, count)
    if m > index.size:
        return False
    B = np.empty((m, K))
    t = np.empty(m)
    prior = np.empty(m)
    sides = index[:m] // G
    for i in range(m):
        sign = 1.0 - 2.0 * sides[i]
        t[i] = sign * y[index[i] % G]
        prior[i] = a[sides[i], index[i] % G]
        for j in range(K):
            B[i, j] = 0.0 if held[j] else sign * X[index[i] % G, j]
    c[held] = 0.0
    A = np.empty((m + 3, m + 4))
    for attempt in range(2):
        assemble(B, sides, t, c, k - count, ridge, A)
        if total > 0.0:
            add_sum(B, c, K - np.sum(held), ridge, total, A)
        if attempt == 1:
            lean(A, prior)
        if eliminate(A):
            break
        if attempt == 1:
            return False
    for side in range(2):
        h[side] = A[m + side, m + 3]
        for i in range(G):
            a[side, i] = 1.0 if state[side, i] == 1 else 0.0
    for i in range(m):
        a[sides[i], index[i] % G] = A[i, m + 3]
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
        if not solve_free(X, y, state, held, ridge, total, k, a, h):
            break
        raw = a.copy()
        restore_sum(a[0], k)
        restore_sum(a[1], k)
        weights(X, a, ridge, total, w)
        residuals(X, y, w, r)
        settle(r, state, h)
        objective, gap = certify(r, a, h, w, ridge, k)
        if gap <= tol * objective < np.inf:
            return objective, gap
        repair(state, raw, r, h)
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
    """Try the vertex of every row of the list; fill w, h and ends = (objective, gap)."""
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
