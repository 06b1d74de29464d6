"""Compiled pieces of the nu-SVR's interior point: one formula each, over rows that share nothing.

A row here is one side (upper or lower quantile) of one response: dual `a` in (0, 1), slacks `z` of a >= 0 and `x` of
a <= 1, residual `p` = sign r - h (x - z at a solution), and `D` = 1 / (z / a + x / (1 - a)), the weight of a gene in
the normal equations. A step aims at complementarity `m`; `c`, `e` are Mehrotra's second-order terms da dz, da dx.
"""

import numba as nb
import numpy as np

CAP = 1e-8
"""Added to 1 / D, so that tied residuals cannot send a weight to infinity."""

_fast = nb.njit(cache=True, nogil=True, fastmath=True, error_model="numpy")


@_fast
def weigh(
    a: np.ndarray,
    z: np.ndarray,
    x: np.ndarray,
    r: np.ndarray,
    h: np.ndarray,
    sign: float,
    D: np.ndarray,
    S: np.ndarray,
    T: np.ndarray,
    sums: np.ndarray,
) -> None:
    """Fill D, add it to S and sign D p to T; sums of every row: D, D p, a z + (1 - a) x, hinge x, dual a."""
    for b in range(a.shape[0]):
        total = pull = gap = hinge = mass = 0.0
        for i in range(a.shape[1]):
            q = 1.0 - a[b, i]
            d = a[b, i] * q / (z[b, i] * q + x[b, i] * a[b, i] + CAP * a[b, i] * q)
            dp = d * (sign * r[b, i] - h[b])
            D[b, i] = d
            S[b, i] += d
            T[b, i] += sign * dp
            total += d
            pull += dp
            gap += a[b, i] * z[b, i] + q * x[b, i]
            hinge += x[b, i]
            mass += a[b, i]
        sums[0, b] = total
        sums[1, b] = pull
        sums[2, b] = gap
        sums[3, b] = hinge
        sums[4, b] = mass


@_fast
def predict(
    a: np.ndarray,
    z: np.ndarray,
    x: np.ndarray,
    r: np.ndarray,
    h: np.ndarray,
    sign: float,
    D: np.ndarray,
    c: np.ndarray,
    e: np.ndarray,
    reach: np.ndarray,
    second: np.ndarray,
) -> None:
    """Affine step (m = 0) to residuals r, h: terms c, e; inverse of the longest step and sum of c - e of every row."""
    for b in range(a.shape[0]):
        longest = 1.0
        total = 0.0
        for i in range(a.shape[1]):
            q = 1.0 - a[b, i]
            da = D[b, i] * (sign * r[b, i] - h[b])
            part = da / (a[b, i] * q)
            up = part * q
            down = part * a[b, i]
            longest = max(longest, max(max(-up, down), max(1.0 + up, 1.0 - down)))
            c[b, i] = -da * z[b, i] * (1.0 + up)
            e[b, i] = -da * x[b, i] * (1.0 - down)
            total += c[b, i] - e[b, i]
        reach[b] = longest
        second[b] = total


@_fast
def aim(
    a: np.ndarray,
    r: np.ndarray,
    h: np.ndarray,
    sign: float,
    D: np.ndarray,
    c: np.ndarray,
    e: np.ndarray,
    m: np.ndarray,
    T: np.ndarray,
    sums: np.ndarray,
) -> None:
    """Corrector's right-hand side D (p + (m - c) / a - (m + e) / (1 - a)): add sign times it to T; its sum."""
    for b in range(a.shape[0]):
        total = 0.0
        for i in range(a.shape[1]):
            q = 1.0 - a[b, i]
            push = ((m[b] - c[b, i]) * q - (m[b] + e[b, i]) * a[b, i]) / (a[b, i] * q)
            t = D[b, i] * (sign * r[b, i] - h[b] + push)
            T[b, i] += sign * t
            total += t
        sums[b] = total


@_fast
def direct(
    a: np.ndarray,
    z: np.ndarray,
    x: np.ndarray,
    r: np.ndarray,
    h: np.ndarray,
    sign: float,
    D: np.ndarray,
    m: np.ndarray,
    c: np.ndarray,
    e: np.ndarray,
    reach: np.ndarray,
) -> None:
    """Corrector's step to residuals r, h: da over D, dz over c, dx over e; inverse of the longest step of every row."""
    for b in range(a.shape[0]):
        longest = 0.0
        for i in range(a.shape[1]):
            q = 1.0 - a[b, i]
            inverse = 1.0 / (a[b, i] * q)
            push = ((m[b] - c[b, i]) * q - (m[b] + e[b, i]) * a[b, i]) * inverse
            da = D[b, i] * (sign * r[b, i] - h[b] + push)
            up = da * inverse * q
            down = da * inverse * a[b, i]
            dz = (m[b] - c[b, i]) * inverse * q - z[b, i] * (1.0 + up)
            dx = (m[b] + e[b, i]) * inverse * a[b, i] - x[b, i] * (1.0 - down)
            slack = 1.0 / (z[b, i] * x[b, i])
            longest = max(longest, max(max(-up, down), max(-dz * slack * x[b, i], -dx * slack * z[b, i])))
            D[b, i] = da
            c[b, i] = dz
            e[b, i] = dx
        reach[b] = longest


@_fast
def advance(
    a: np.ndarray,
    z: np.ndarray,
    x: np.ndarray,
    da: np.ndarray,
    dz: np.ndarray,
    dx: np.ndarray,
    step: np.ndarray,
) -> None:
    """Move every row by its own step; duals and slacks stay strictly inside."""
    for b in range(a.shape[0]):
        s = step[b]
        for i in range(a.shape[1]):
            a[b, i] = min(max(a[b, i] + s * da[b, i], 1e-15), 1.0 - 1e-15)
            z[b, i] = max(z[b, i] + s * dz[b, i], 1e-30)
            x[b, i] = max(x[b, i] + s * dx[b, i], 1e-30)


@_fast
def factor(M: np.ndarray, diagonal: np.ndarray, border: np.ndarray, corner: np.ndarray, L: np.ndarray) -> None:
    """Cholesky factors of [[diag + M, border], [border', corner]]; M holds packed upper triangles."""
    K = diagonal.shape[1]
    for b in range(M.shape[0]):
        A = L[b]
        at = 0
        for i in range(K):
            for j in range(i, K):
                A[j, i] = M[b, at]
                at += 1
            A[i, i] += diagonal[b, i]
            A[K, i] = border[0, b, i]
            A[K + 1, i] = border[1, b, i]
        A[K, K] = corner[0, b]
        A[K + 1, K] = 0.0
        A[K + 1, K + 1] = corner[1, b]
        cholesky(A)


@_fast
def cholesky(A: np.ndarray) -> None:
    """Overwrite the lower triangle of A by its Cholesky factor; a pivot lost to rounding freezes its unknown."""
    n = A.shape[0]
    for j in range(n):
        diagonal = A[j, j]
        s = diagonal
        for k in range(j):
            s -= A[j, k] * A[j, k]
        pivot = np.sqrt(s) if s > 1e-15 * diagonal else 1e64
        A[j, j] = pivot
        for i in range(j + 1, n):
            s = A[i, j]
            for k in range(j):
                s -= A[i, k] * A[j, k]
            A[i, j] = s / pivot


@_fast
def substitute(L: np.ndarray, rhs: np.ndarray) -> None:
    """Overwrite the rows of rhs by the solutions of (L L') solution = rhs."""
    n = L.shape[1]
    for b in range(L.shape[0]):
        for i in range(n):
            s = rhs[b, i]
            for k in range(i):
                s -= L[b, i, k] * rhs[b, k]
            rhs[b, i] = s / L[b, i, i]
        for i in range(n - 1, -1, -1):
            s = rhs[b, i] / L[b, i, i]
            rhs[b, i] = s
            for k in range(i):
                rhs[b, k] -= L[b, i, k] * s
