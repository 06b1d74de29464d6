"""The active set of :mod:`unmix.core.simplex`, compiled.

For one row it minimises `w'Gw / 2 - c'w` over `w >= 0` and, where `total > 0`, `a'w = total`. L is the Cholesky factor
of the k free columns, which `order` lists; the rows of `vectors` hold `L^-1 c`, `L^-1 a`, the answer z on the free
columns, the multipliers, and which columns are barred.
"""

import numba as nb
import numpy as np

PIVOT_TOL = float(np.finfo(float).eps)
"""A column is dependent when less than this, times K, of its squared length is left beside the free columns."""

GRADIENT_TOL = 8 * float(np.finfo(float).eps)
"""Multipliers count as zero below this, times the number of columns and the size of the terms that were added up."""

FAST = {"reassoc", "contract"}


@nb.njit(cache=True, nogil=True)
def solve_rows(gram, cross, ones, total, W):  # type: ignore[no-untyped-def]
    """Solve every row; W holds the guesses and receives the answers; `total` 0 means that the sum is free."""
    N, K = cross.shape
    L, vectors, order = np.empty((K, K)), np.empty((5, K)), np.empty(K, np.int64)
    for i in range(N):
        own = i if len(gram) > 1 else 0
        solve_row(gram[own], cross[i], ones[min(i, len(ones) - 1)], total, W[i], L, vectors, order)


@nb.njit(cache=True, nogil=True, fastmath=FAST)
def solve_row(G, c, a, total, w, L, vectors, order):  # type: ignore[no-untyped-def]
    """Minimise `w'Gw / 2 - c'w` over `w >= 0` and, if `total > 0`, `a'w = total`; w holds a guess, then the answer.

    L (K, K), `vectors` (5, K) and `order` (K,) are working space. Return whether the last support was proven optimal.
    """
    K = len(c)
    z, g = vectors[2], vectors[3]
    k, multiplier = _feasible_start(G, c, a, total, w, L, vectors, order)
    size = 0.0
    for j in range(K):
        size = max(size, abs(c[j]))
    tol = GRADIENT_TOL * K * size
    barred = vectors[4]
    barred[:] = 0.0
    for _ in range(10 * K + 10):
        best, j = tol, -1
        for m in range(K):
            g[m] = c[m] + multiplier * a[m]
            for b in range(K):
                g[m] -= G[m, b] * w[b]
            if w[m] == 0.0 and barred[m] == 0.0 and g[m] > best:
                best, j = g[m], m
        if j < 0:
            return True
        entered = _append(G, c, a, L, vectors, order, k, j)
        k = k + 1 if entered else _exchange(G, c, a, total, w, L, vectors, order, k, j)
        multiplier = _support_answer(L, vectors, k, total)
        if entered and z[k - 1] <= 0.0:  # only rounding does this: the column has nothing to give
            k -= 1
            barred[j] = 1.0
            multiplier = _support_answer(L, vectors, k, total)
            continue
        while _lowest(z, k) <= 0.0:
            k = _step_to_bound(w, z, order, k)
            k = _refactor(G, c, a, L, vectors, order, 0, k)
            multiplier = _support_answer(L, vectors, k, total)
        w[:] = 0.0
        for b in range(k):
            w[order[b]] = z[b]
        if w[j] > 0.0:
            barred[:] = 0.0
        else:
            barred[j] = 1.0
    return False


@nb.njit(cache=True, nogil=True, fastmath=FAST)
def _feasible_start(G, c, a, total, w, L, vectors, order):  # type: ignore[no-untyped-def]
    """Shrink the guessed support until the answer on it is positive; return its size and the sum's multiplier."""
    K = len(c)
    z = vectors[2]
    k = 0
    for j in range(K):
        if w[j] > 0.0:  # sorted by size: those that will be dropped come last, where the factor is cheap to rebuild
            b = k
            while b > 0 and w[order[b - 1]] < w[j]:
                order[b] = order[b - 1]
                b -= 1
            order[b] = j
            k += 1
    w[:] = 0.0
    if k == 0 and total > 0.0:
        order[0] = _best_single(G, c, a, total)
        k = 1
    k = _refactor(G, c, a, L, vectors, order, 0, k)
    multiplier = _support_answer(L, vectors, k, total)
    while _lowest(z, k) <= 0.0:
        kept = 0
        first = k
        for b in range(k):
            if z[b] > 0.0:
                order[kept] = order[b]
                kept += 1
            else:
                first = min(first, b)
        k = _refactor(G, c, a, L, vectors, order, first, kept)
        multiplier = _support_answer(L, vectors, k, total)
    for b in range(k):
        w[order[b]] = z[b]
    return k, multiplier


@nb.njit(cache=True, nogil=True)
def _best_single(G, c, a, total):  # type: ignore[no-untyped-def]
    """Return the best corner of the simplex."""
    best, j = np.inf, 0
    for m in range(len(c)):
        x = total / a[m]
        value = x * (0.5 * x * G[m, m] - c[m])
        if value < best:
            best, j = value, m
    return j


@nb.njit(cache=True, nogil=True)
def _lowest(z, k):  # type: ignore[no-untyped-def]
    lowest = np.inf
    for b in range(k):
        lowest = min(lowest, z[b])
    return lowest


@nb.njit(cache=True, nogil=True)
def _step_to_bound(w, z, order, k):  # type: ignore[no-untyped-def]
    """Go from w towards z until the first entry is zero; keep the entries that stay positive, and return how many."""
    alpha, blocking = np.inf, 0
    for b in range(k):
        if z[b] <= 0.0:
            ratio = w[order[b]] / (w[order[b]] - z[b])
            if ratio < alpha:
                alpha, blocking = ratio, b
    kept = 0
    for b in range(k):
        j = order[b]
        w[j] += alpha * (z[b] - w[j])
        if b == blocking or w[j] <= 0.0:
            w[j] = 0.0
        else:
            order[kept] = j
            kept += 1
    return kept


@nb.njit(cache=True, nogil=True, fastmath=FAST)
def _exchange(G, c, a, total, w, L, vectors, order, k, j):  # type: ignore[no-untyped-def]
    """Move along the direction without curvature that raises the dependent column j, until a free entry reaches zero.

    Return the size of the new support; nothing changes where no entry falls.
    """
    ya, z = vectors[1], vectors[2]
    slope = 0.0
    if total > 0.0:
        al, aa = -a[j], 0.0
        for b in range(k):
            al += ya[b] * L[k, b]
            aa += ya[b] * ya[b]
        slope = al / aa
    for b in range(k):
        z[b] = slope * ya[b] - L[k, b]
    _back_substitute(L, z, k)
    length = np.inf
    for b in range(k):
        if z[b] < 0.0:
            length = min(length, -w[order[b]] / z[b])
    if length == np.inf:
        return k
    for b in range(k):
        z[b] = w[order[b]] + 2.0 * length * z[b]
    kept = _step_to_bound(w, z, order, k)
    order[kept] = j
    return _refactor(G, c, a, L, vectors, order, 0, kept + 1)


@nb.njit(cache=True, nogil=True)
def _refactor(G, c, a, L, vectors, order, first, k):  # type: ignore[no-untyped-def]
    """Rebuild the factor from row `first` on, leaving out dependent columns; return the size of the support."""
    size = first
    for b in range(first, k):
        if _append(G, c, a, L, vectors, order, size, order[b]):
            size += 1
    return size


@nb.njit(cache=True, nogil=True, fastmath=FAST)
def _append(G, c, a, L, vectors, order, k, j):  # type: ignore[no-untyped-def]
    """Add column j to the factor L of k columns, and to `L yc = c`, `L ya = a`; return False if it is dependent.

    The diagonal of L holds its inverse.
    """
    yc, ya = vectors[0], vectors[1]
    pivot, sc, sa = G[j, j], c[j], a[j]
    for r in range(k):
        s = G[j, order[r]]
        for b in range(r):
            s -= L[k, b] * L[r, b]
        s *= L[r, r]
        L[k, r] = s
        pivot -= s * s
        sc -= s * yc[r]
        sa -= s * ya[r]
    if not pivot > PIVOT_TOL * len(c) * G[j, j]:
        return False
    inverse = 1.0 / np.sqrt(pivot)
    L[k, k], yc[k], ya[k] = inverse, sc * inverse, sa * inverse
    order[k] = j
    return True


@nb.njit(cache=True, nogil=True, fastmath=FAST)
def _support_answer(L, vectors, k, total):  # type: ignore[no-untyped-def]
    """Write the answer on the support, signs free, into z; return the multiplier of the sum."""
    yc, ya, z = vectors[0], vectors[1], vectors[2]
    multiplier = 0.0
    if total > 0.0:
        ac, aa = 0.0, 0.0
        for b in range(k):
            ac += ya[b] * yc[b]
            aa += ya[b] * ya[b]
        multiplier = (total - ac) / aa
    for b in range(k):
        z[b] = yc[b] + multiplier * ya[b]
    _back_substitute(L, z, k)
    return multiplier


@nb.njit(cache=True, nogil=True, fastmath=FAST)
def _back_substitute(L, z, k):  # type: ignore[no-untyped-def]
    """Solve `L' x = z` in place."""
    for r in range(k - 1, -1, -1):
        z[r] *= L[r, r]
        for b in range(r):
            z[b] -= L[r, b] * z[r]
