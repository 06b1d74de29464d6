"""Newton steps for rows of Poisson counts, and moments of sparse rows: the compiled part of regression."""

import numba as nb
import numpy as np

from unmix.core._active_set import FAST, solve_row

RIDGE = 1e-10
"""Relative rise of the diagonal of the curvature, centred at the current point: equal columns stay solvable."""

SMALL_RATE = 1e-3
"""Part of a count below which a gene counts as missed by the start."""


@nb.njit(cache=True, nogil=True)
def sparse_moments(indptr, indices, data, gene_of, design):  # type: ignore[no-untyped-def]
    """As `regression._moments`, for the entries of a sparse block."""
    N, M = len(indptr) - 1, design.shape[1]
    total, squares, lowest, cross = np.zeros(N), np.zeros(N), np.zeros(N), np.zeros((N, M))
    for i in range(N):
        for p in range(indptr[i], indptr[i + 1]):
            g = gene_of[indices[p]]
            if g >= 0:
                y = data[p]
                total[i] += y
                squares[i] += y * y
                lowest[i] = min(lowest[i], y)
                for m in range(M):
                    cross[i, m] += y * design[g, m]
    return total, squares, lowest, cross


@nb.njit(cache=True, nogil=True)
def poisson_rows(indptr, indices, data, gene_of, rates, fitted, W, max_iter, tol):  # type: ignore[no-untyped-def]
    """Fit every row from the start in W (in counts); return certificates, steps and `y'S w`."""
    N, K = W.shape
    kkt, n_iter, dot = np.full(N, np.nan), np.zeros(N, np.int32), np.full(N, np.nan)
    for i in np.flatnonzero(fitted):
        entries = slice(indptr[i], indptr[i + 1])
        genes, y = gene_of[indices[entries]], data[entries]
        seen = (genes >= 0) & (y > 0.0)
        genes, y = genes[seen], y[seen]
        A = np.empty((K, len(y)))
        for k in range(K):
            for n in range(len(y)):
                A[k, n] = rates[k, genes[n]]
        kkt[i], n_iter[i], dot[i] = _poisson_row(y, A, W[i], max_iter, tol)
    return kkt, n_iter, dot


@nb.njit(cache=True, nogil=True)
def _poisson_row(y, A, w, max_iter, tol):  # type: ignore[no-untyped-def]
    """Maximise the likelihood of the counts y at their genes (the columns of A) over w, which holds a start."""
    K, n = A.shape
    mu, slope, gradient = np.empty(n), np.empty(n), np.empty(K)
    _interior_start(y, A, w, mu)
    for iteration in range(max_iter + 1):
        _mix(A, w, mu)
        kkt = _gradient(y, A, w, mu, gradient)
        if kkt <= tol or iteration == max_iter:
            break
        active = np.flatnonzero((w > 0.0) | (gradient < 0.0))
        target = _newton_target(y, A, w, mu, gradient, active)
        _mix(A, target - w, slope)
        step = _step_length(y, mu, slope, (target - w).sum())
        if step == 1.0:
            w[:] = target
        else:
            w += step * (target - w)
    dot = 0.0
    for i in range(n):
        dot += y[i] * mu[i]
    return kkt, iteration, dot


@nb.njit(cache=True, nogil=True)
def _interior_start(y, A, w, mu):  # type: ignore[no-untyped-def]
    """Bring the start to the total count, as every optimum; where it misses a gene, give every column a part."""
    total, size = y.sum(), w.sum()
    if size > 0.0:
        w *= total / size
        _mix(A, w, mu)
        if (mu > SMALL_RATE * y).all():
            return
    for k in range(len(w)):
        w[k] = 0.95 * w[k] + (0.05 * total / len(w) if A[k].max() > 0.0 else 0.0)


@nb.njit(cache=True, nogil=True, fastmath=FAST)
def _mix(A, w, mu):  # type: ignore[no-untyped-def]
    """Write `A' w` into mu."""
    mu[:] = 0.0
    for k in range(A.shape[0]):
        if w[k] != 0.0:
            for i in range(A.shape[1]):
                mu[i] += w[k] * A[k, i]


@nb.njit(cache=True, nogil=True, fastmath=FAST)
def _gradient(y, A, w, mu, gradient):  # type: ignore[no-untyped-def]
    """Write the gradient of the negative log-likelihood; return the violation of optimality."""
    K, n = A.shape
    ratio = y / mu
    worst = 0.0
    for k in range(K):
        s = 0.0
        for i in range(n):
            s += A[k, i] * ratio[i]
        gradient[k] = 1.0 - s
        worst = max(worst, abs(gradient[k]) if w[k] > 0.0 else -gradient[k])
    return worst


@nb.njit(cache=True, nogil=True, fastmath=FAST)
def _curvature(A, active, weights):  # type: ignore[no-untyped-def]
    """Return `A diag(weights) A'` of the active rows, its diagonal raised by `RIDGE`; four products share a pass."""
    m = len(active)
    H, row = np.empty((m, m)), np.empty(len(weights))
    for p in range(m):
        first = A[active[p]]
        for i in range(len(weights)):
            row[i] = first[i] * weights[i]
        for q in range(0, p + 1, 4):
            q1, q2, q3 = min(q + 1, p), min(q + 2, p), min(q + 3, p)
            a0, a1, a2, a3 = A[active[q]], A[active[q1]], A[active[q2]], A[active[q3]]
            s0, s1, s2, s3 = 0.0, 0.0, 0.0, 0.0
            for i in range(len(weights)):
                s0 += row[i] * a0[i]
                s1 += row[i] * a1[i]
                s2 += row[i] * a2[i]
                s3 += row[i] * a3[i]
            H[p, q], H[p, q1], H[p, q2], H[p, q3] = s0, s1, s2, s3
        for q in range(p):
            H[q, p] = H[p, q]
        H[p, p] *= 1.0 + RIDGE
    return H


@nb.njit(cache=True, nogil=True, fastmath=FAST)
def _newton_target(y, A, w, mu, gradient, active):  # type: ignore[no-untyped-def]
    """Return the minimum over w >= 0 of the quadratic model on the active columns, zero elsewhere."""
    m = len(active)
    H, c, z = _curvature(A, active, y / (mu * mu)), np.empty(m), np.empty(m)
    for p in range(m):
        z[p] = w[active[p]]
        c[p] = -gradient[active[p]]
        for q in range(m):
            c[p] += H[p, q] * w[active[q]]
    solve_row(H, c, np.ones(m), 0.0, z, np.empty((m, m)), np.empty((5, m)), np.empty(m, np.int64))
    target = np.zeros(len(w))
    for p in range(m):
        target[active[p]] = z[p]
    return target


@nb.njit(cache=True, nogil=True, fastmath=FAST, error_model="numpy")
def _rise(y, mu, slope, linear, t):  # type: ignore[no-untyped-def]
    """Return first and second derivative of the negative log-likelihood at mu + t slope."""
    first, second = linear, 0.0
    for i in range(len(y)):
        ratio = slope[i] / (mu[i] + t * slope[i])
        first -= y[i] * ratio
        second += y[i] * ratio * ratio
    return first, second


@nb.njit(cache=True, nogil=True, fastmath={"reassoc", "contract", "nnan", "nsz"}, error_model="numpy")
def _both_ends(y, mu, slope, linear):  # type: ignore[no-untyped-def]
    """Return the derivatives at mu and at mu + slope, and the largest relative fall and rise of a gene."""
    before, after, fall, rise = linear, linear, 0.0, 0.0
    for i in range(len(y)):
        ratio = slope[i] / mu[i]
        before -= y[i] * ratio
        after -= y[i] * ratio / (1.0 + ratio)
        fall = min(fall, ratio)
        rise = max(rise, ratio)
    return before, after, fall, rise


@nb.njit(cache=True, nogil=True, error_model="numpy")
def _step_length(y, mu, slope, linear):  # type: ignore[no-untyped-def]
    """Return a step in (0, 1] that cannot lower the likelihood, which is concave along the line.

    It is 1 where the likelihood still rises there, or where no gene changes by more than a quarter and little is left
    of the slope; otherwise just before the maximum.
    """
    before, after, fall, rise = _both_ends(y, mu, slope, linear)
    if fall > -1.0 and (after <= 0.0 or (max(-fall, rise) <= 0.25 and after <= -0.1 * before)):
        return 1.0
    low, high, t = 0.0, 1.0, 0.5
    for _ in range(60):
        first, second = _rise(y, mu, slope, linear, t)
        if first > 0.0:
            high = t
        else:
            low = t
            if first >= 0.1 * before:
                break
        t = t - first / second
        if not low < t < high:
            t = 0.5 * (low + high)
    return low
