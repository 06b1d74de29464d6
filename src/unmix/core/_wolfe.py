"""Two exact active-set kernels for points and convex hulls: weights on a simplex, and Wolfe's minimum-norm point.

Both keep a support, minimise on its affine hull, step back to the boundary where a weight turns negative, and add the
one element that the gradient asks for most, until none does (Wolfe, Mathematical Programming 11, 1976).
"""

# mypy: disallow-untyped-defs=False
import numba as nb
import numpy as np

RIDGE = 1e-13
SUPPORT_FLOOR = 1e-14
OPERATOR_ENTRIES = 2**18


@nb.njit(cache=True, nogil=True)
def factor(M, n):
    """Overwrite the lower triangle of M[:n, :n] with its Cholesky factor, whose diagonal is stored inverted."""
    for i in range(n):
        for j in range(i + 1):
            s = M[i, j]
            for c in range(j):
                s -= M[i, c] * M[j, c]
            M[i, j] = 1.0 / np.sqrt(max(s, 1e-300)) if i == j else s * M[j, j]


@nb.njit(cache=True, nogil=True)
def solve(M, n, b):
    """Overwrite b[:n] with the solution for a matrix that `factor` has treated."""
    for i in range(n):
        for c in range(i):
            b[i] -= M[i, c] * b[c]
        b[i] *= M[i, i]
    for i in range(n - 1, -1, -1):
        for c in range(i + 1, n):
            b[i] -= M[c, i] * b[c]
        b[i] *= M[i, i]


@nb.njit(cache=True, nogil=True)
def step_to(lam, u, n):
    """Move lam[:n] towards u[:n] until a weight reaches zero; return the position of that weight, or -1."""
    step, drop = 1.0, -1
    for a in range(n):
        if u[a] <= SUPPORT_FLOOR:
            d = lam[a] - u[a]
            t = lam[a] / d if d > 0.0 else 0.0
            if t < step or drop < 0:
                step, drop = min(t, step), a
    for a in range(n):
        lam[a] = max(lam[a] + step * (u[a] - lam[a]), 0.0)
    return drop


@nb.njit(cache=True, nogil=True)
def remove(index, lam, n, drop):
    """Take position `drop` out of the support and return its new size."""
    for a in range(drop, n - 1):
        index[a] = index[a + 1]
        lam[a] = lam[a + 1]
    return n - 1


@nb.njit(cache=True, nogil=True)
def _minimise_on_support(M, u, lam, index, n):
    """Take the Wolfe step for the Gram matrix M[:n, :n], to the affine minimiser or the boundary."""
    for a in range(n):
        u[a] = 1.0
    factor(M, n)
    solve(M, n, u)
    total = 0.0
    for a in range(n):
        total += u[a]
    for a in range(n):
        u[a] /= total
    drop = step_to(lam, u, n)
    if drop < 0:
        return n, True
    return remove(index, lam, n, drop), False


@nb.njit(cache=True, nogil=True)
def _fill_gram(X, t, index, n, M):
    """Fill M with <x_a - t, x_b - t> on the support plus a constant, which does not move the minimiser."""
    for a in range(n):
        for b in range(a + 1):
            v = 0.0
            for d in range(t.size):
                v += (X[index[a], d] - t[d]) * (X[index[b], d] - t[d])
            M[a, b] = v
    shift = 0.0
    for a in range(n):
        shift = max(shift, M[a, a])
    shift = max(shift, 1e-300)
    for a in range(n):
        for b in range(a + 1):
            M[a, b] += shift
        M[a, a] += RIDGE * shift


@nb.njit(cache=True, nogil=True)
def _combine(X, index, lam, n, z):
    """Write sum_a lam_a x_a over the support to z."""
    z[:] = 0.0
    for a in range(n):
        for d in range(z.size):
            z[d] += lam[a] * X[index[a], d]


@nb.njit(cache=True, nogil=True)
def _entering(X, z, t, index, n, tol):
    """Return the row of X furthest down the gradient at z, or -1 where none is further down than z itself."""
    g = z - t
    zg, gg = 0.0, 0.0
    for d in range(z.size):
        zg += z[d] * g[d]
        gg += g[d] * g[d]
    p = np.dot(X, g)
    j = np.argmin(p)
    if p[j] >= zg - tol * gg - 1e-300:
        return -1
    for a in range(n):
        if index[a] == j:
            return -1
    return j


@nb.njit(cache=True, nogil=True)
def project_on_hull(X, t, index, lam, n, z, tol):
    """Write to z the point of conv(X) nearest to t, as sum lam_a x_index_a over a support of at most D + 1 rows.

    `index` and `lam` hold the support to start from (its first `n` entries) and have room for D + 2; the support's new
    size is returned. The point is optimal once no row x has <x, z - t> < <z, z - t> - tol |z - t|^2.
    """
    D = min(t.size, X.shape[0])  # a support holds no more rows than there are
    M = np.empty((D + 2, D + 2))
    u = np.empty(D + 2)
    for _ in range(4 * D + 20):
        for _ in range(D + 2):
            if n == 1:
                lam[0] = 1.0
                break
            _fill_gram(X, t, index, n, M)
            n, finished = _minimise_on_support(M, u, lam, index, n)
            if finished:
                break
        _combine(X, index, lam, n, z)
        j = _entering(X, z, t, index, n, tol) if n < D + 1 else -1
        if j < 0:
            break
        index[n], lam[n] = j, 0.0
        n += 1
    return n


@nb.njit(cache=True, nogil=True)
def sweep_hull(X, Z, WtW, WtX, index, lam, size, scale, tol):
    """Minimise the loss over every archetype in turn, rows of X being the candidates of the hull (scaled by `scale`).

    With the others fixed, archetype k wants t_k = z_k + (W'X - W'W Z)_k / (W'W)_kk; the best point of the hull is the
    projection of t_k. Z, index, lam and size are updated in place.
    """
    K, D = Z.shape
    t, z = np.empty(D), np.empty(D)
    for k in range(K):
        if WtW[k, k] <= 1e-12:
            continue
        for d in range(D):
            v = WtX[k, d]
            for j in range(K):
                v -= WtW[k, j] * Z[j, d]
            t[d] = (Z[k, d] + v / WtW[k, k]) / scale
        size[k] = project_on_hull(X, t, index[k], lam[k], size[k], z, tol)
        for d in range(D):
            Z[k, d] = scale * z[d]


@nb.njit(cache=True, nogil=True)
def project_rows(X, T, Z, index, lam, size, scale, tol):
    """Project every row of T onto the hull of X scaled by `scale`; Z receives the points."""
    z = np.empty(T.shape[1])
    for k in range(T.shape[0]):
        size[k] = project_on_hull(X, T[k] / scale, index[k], lam[k], size[k], z, tol)
        Z[k] = scale * z


@nb.njit(cache=True, nogil=True)
def _affine_solve(G, c, index, n, shift, M, u):
    """Write to u the minimiser of w'Gw / 2 - c'w over sum(w) = 1 on the support, of either sign."""
    v = np.ones(n)
    for a in range(n):
        for b in range(a + 1):
            M[a, b] = G[index[a], index[b]] + shift
        M[a, a] += RIDGE * shift
        u[a] = c[index[a]]
    factor(M, n)
    solve(M, n, u)
    solve(M, n, v)
    excess = (1.0 - np.sum(u[:n])) / np.sum(v)
    for a in range(n):
        u[a] += excess * v[a]


@nb.njit(cache=True, nogil=True)
def _affine_operator(G, index, n, shift, M, A):
    """Write to A[:n, :n + 1] the map from c to the minimiser of w'Gw / 2 - c'w over sum(w) = 1 on the support.

    With M = G + shift 11' on the support, w = (M^-1 - v v' / 1'v) c + v / 1'v and v = M^-1 1; the last column is the
    constant.
    """
    for a in range(n):
        for b in range(n):
            A[a, b] = 1.0 if a == b else 0.0
            M[a, b] = G[index[a], index[b]] + shift
        A[a, n] = 1.0
        M[a, a] += RIDGE * shift
    factor(M, n)
    for j in range(n + 1):
        solve(M, n, A[:, j])
    total = 0.0
    for a in range(n):
        total += A[a, n]
    for a in range(n):
        for b in range(n):
            A[a, b] -= A[a, n] * A[b, n] / total
    for a in range(n):
        A[a, n] /= total


@nb.njit(cache=True, nogil=True)
def _affine_weights(A, c, index, n, u):
    """Write to u the minimiser on the support, of either sign."""
    for a in range(n):
        v = A[a, n]
        for b in range(n):
            v += A[a, b] * c[index[b]]
        u[a] = v


@nb.njit(cache=True, nogil=True)
def _best_addition(G, c, index, lam, n, inside, tol):
    """Return the part whose gradient lies furthest below the multiplier, or -1 where the weights are optimal."""
    nu = 0.0
    for a in range(n):
        g = -c[index[a]]
        for b in range(n):
            g += G[index[a], index[b]] * lam[b]
        nu += lam[a] * g
    best, lowest = -1, nu - tol
    for k in range(c.size):
        if inside[k]:
            continue
        g = -c[k]
        for a in range(n):
            g += G[k, index[a]] * lam[a]
        if g < lowest:
            best, lowest = k, g
    return best


@nb.njit(cache=True, nogil=True)
def _read_support(w, index, lam, inside):
    """Collect the positive entries of w in their order; return how many there are."""
    n = 0
    for k in range(w.size):
        inside[k] = w[k] > 0.0
        if inside[k]:
            index[n], lam[n] = k, w[k]
            n += 1
    return n


@nb.njit(cache=True, nogil=True)
def _insert(index, lam, n, k):
    """Put part k with weight zero into the sorted support; return its new size."""
    a = n
    while a > 0 and index[a - 1] > k:
        index[a], lam[a] = index[a - 1], lam[a - 1]
        a -= 1
    index[a], lam[a] = k, 0.0
    return n + 1


@nb.njit(cache=True, nogil=True)
def _support_key(index, n):
    """Return the support as bits."""
    key = 0
    for a in range(n):
        key |= 1 << index[a]
    return key


@nb.njit(cache=True, nogil=True)
def simplex_weights(G, C, W, tol):
    """Return, for every row, argmin over w >= 0 with sum(w) = 1 of w'Gw / 2 - c'w, starting from the support in W.

    G is the Gram matrix Z Z' (K x K), C = X Z' (n x K); a row is optimal once no gradient lies `tol` below the
    multiplier.
    """
    S, K = C.shape
    out = np.zeros((S, K))
    M, u = np.empty((K, K)), np.empty(K)
    index, lam, inside = np.empty(K, np.int64), np.empty(K), np.zeros(K, np.bool_)
    shift = max(np.trace(G) / K, 1e-300)
    slots = 1
    while 2 * slots * K * (K + 1) <= OPERATOR_ENTRIES and K < 63:
        slots *= 2
    operators, keys = np.empty((slots, K, K + 1)), np.zeros(slots, np.int64)
    for s in range(S):
        n = _read_support(W[s], index, lam, inside)
        for _ in range(8 * K + 10):
            drop = -1
            if n == 1:
                lam[0] = 1.0
            else:
                key = _support_key(index, n)
                slot = (key * 0x9E3779B1 >> 12) & (slots - 1)
                if abs(keys[slot]) != key or K >= 63:
                    _affine_solve(G, C[s], index, n, shift, M, u)
                    keys[slot] = -key
                else:
                    if keys[slot] < 0:
                        _affine_operator(G, index, n, shift, M, operators[slot])
                        keys[slot] = key
                    _affine_weights(operators[slot], C[s], index, n, u)
                drop = step_to(lam, u, n)
            if drop >= 0:
                inside[index[drop]] = False
                n = remove(index, lam, n, drop)
                continue
            k = _best_addition(G, C[s], index, lam, n, inside, tol)
            if k < 0:
                break
            n = _insert(index, lam, n, k)
            inside[k] = True
        for a in range(n):
            out[s, index[a]] = lam[a]
    return out
