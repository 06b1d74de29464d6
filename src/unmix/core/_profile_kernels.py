"""Kernels of the prior of profiles: the Poisson log-normal posterior of one gene under one covariance of types.

For a gene with counts n_k, expected counts e_k at its mean, and log deviations d ~ N(0, C), P = C^-1, the posterior of d is
taken to be normal with mean d and covariance V. The bound on the marginal likelihood that this gives,

    sum_k n_k d_k - e_k exp(d_k + V_kk / 2)  -  (d'Pd + tr(PV) - log|PV| - K) / 2,

is largest where `V = (P + diag(l))^-1` and `P d = n - l`, `l_k = e_k exp(d_k + V_kk / 2)`.
"""

import numba as nb
import numpy as np

LARGEST = 30.0
"""Exponents are held below this."""
LONGEST = 1.5
"""A step changes no log deviation by more."""
HOPELESS = 30.0
"""A prior whose bound is so much lower than that of another needs no fit of its own."""
FAR = 100.0
"""An answer that moves the others by more, in squared standard deviations of counting, is no start either."""
N_SINGLE = 10
"""Most Newton steps for a single type."""


@nb.njit(cache=True, nogil=True)
def _means(expected, d, v, out):  # type: ignore[no-untyped-def]
    for k in range(d.size):
        out[k] = expected[k] * np.exp(min(d[k] + 0.5 * v[k], LARGEST))


@nb.njit(cache=True, nogil=True)
def _factor(P, means, L, inverse):  # type: ignore[no-untyped-def]
    """Cholesky factor of `P + diag(means)`, its inverse (lower), and the log determinant."""
    K = means.size
    log_det = 0.0
    for a in range(K):
        for b in range(a + 1):
            s = P[a, b]
            for q in range(b):
                s -= L[a, q] * L[b, q]
            if a > b:
                L[a, b] = s / L[b, b]
        L[a, a] = np.sqrt(max(s + means[a], 1e-300))
        log_det += 2.0 * np.log(L[a, a])
    for a in range(K):  # along rows, which lie side by side
        for c in range(a + 1):
            inverse[a, c] = 0.0
        for b in range(a):
            f = L[a, b]
            for c in range(b + 1):
                inverse[a, c] -= f * inverse[b, c]
        for c in range(a):
            inverse[a, c] /= L[a, a]
        inverse[a, a] = 1.0 / L[a, a]
    return log_det


@nb.njit(cache=True, nogil=True)
def _step(n, P, means, inverse, d, v):  # type: ignore[no-untyped-def]
    """One Newton step on d and one on the diagonal of V; return the largest change."""
    K = n.size
    moves, spreads = np.zeros(K), np.zeros(K)
    slope, largest = np.empty(K), 0.0
    for a in range(K):
        slope[a] = n[a] - means[a]
        for b in range(K):
            slope[a] -= P[a, b] * d[b]
    for a in range(K):
        along = 0.0
        for b in range(a + 1):
            along += inverse[a, b] * slope[b]
        for b in range(a + 1):
            moves[b] += inverse[a, b] * along
            spreads[b] += inverse[a, b] ** 2
    for k in range(K):
        move, spread = min(max(moves[k], -LONGEST), LONGEST), spreads[k]
        if spread > 1.0:  # the full step on a wide posterior overshoots
            spread = 0.5 * (spread + v[k])
        largest = max(largest, abs(move), abs(spread - v[k]))
        d[k] += move
        v[k] = spread
    return largest


@nb.njit(cache=True, nogil=True)
def _bound(n, P, log_det_prior, means, log_det, d, v):  # type: ignore[no-untyped-def]
    total = log_det_prior - log_det
    for k in range(n.size):
        total += means[k] * v[k] + 2.0 * (n[k] * d[k] - means[k])
        for b in range(n.size):
            total -= d[k] * P[k, b] * d[b]
    return 0.5 * total


@nb.njit(cache=True, nogil=True)
def _covariance(inverse, V):  # type: ignore[no-untyped-def]
    K = len(V)
    V[:] = 0.0
    for q in range(K):
        for a in range(q + 1):
            f = inverse[q, a]
            for b in range(a + 1):
                V[a, b] += f * inverse[q, b]
    for a in range(K):
        for b in range(a):
            V[b, a] = V[a, b]


@nb.njit(cache=True, nogil=True)
def _single(n, expected, mean, variance):  # type: ignore[no-untyped-def]
    """Posterior mean and variance of one log deviation under N(mean, variance), its expected counts, and the bound."""
    x = (mean + variance * (n + 0.5) * np.log((n + 0.5) / (expected + 0.5))) / (1.0 + variance * (n + 0.5))
    v = variance / (1.0 + variance * (n + 0.5))
    for _ in range(N_SINGLE):
        counts = expected * np.exp(min(x + 0.5 * v, LARGEST))
        v = 1.0 / (1.0 / variance + counts)
        move = v * (n - counts - (x - mean) / variance)
        x += min(max(move, -LONGEST), LONGEST)
        if abs(move) < 1e-6:
            break
    counts = expected * np.exp(min(x + 0.5 * v, LARGEST))
    return x, v, n * x - counts - 0.5 * ((x - mean) ** 2 + v) / variance + 0.5 * np.log(v / variance)


@nb.njit(cache=True, nogil=True)
def _freed(k, n, expected, V, means, prior, d, freedom, d_out, v_out):  # type: ignore[no-untyped-def]
    """Posterior d and diag(V) once type k has a variance of its own, from those without it; what the bound gains.

    What all other counts say of type k (the cavity) is normal, and type k's own counts are met anew on a wider prior. Returns
    also by how much that moves the others, in squared standard deviations of counting: 0 where the answer is exact.
    """
    cavity = 1.0 / max(1.0 / V[k, k] - means[k], 1.0 / prior[k])  # no wider than before any count was seen
    mean = d[k] - cavity * (n[k] - means[k])
    before = _single(n[k], expected[k], mean, cavity)[2]
    x, spread, after = _single(n[k], expected[k], mean, cavity + freedom)
    gain = cavity / (cavity + freedom)
    shift = mean + gain * (x - mean) - d[k]
    own = cavity * (1.0 - gain) + gain**2 * spread
    moved = 0.0
    for a in range(n.size):
        along = V[a, k] / V[k, k]
        d_out[a] = d[a] + along * shift
        v_out[a] = max(V[a, a] + along**2 * (own - V[k, k]), 1e-12)
        moved += means[a] * (along * shift) ** 2 if a != k else 0.0
    d_out[k], v_out[k] = x, spread
    return after - before, moved


@nb.njit(cache=True, nogil=True)
def fit_profiles(  # type: ignore[no-untyped-def]
    n, expected, P, variance, log_det_prior, wanted, d, v, bounds, max_steps, tolerance, base, freedom, near
):
    """Improve d and diag(V), shape (G, J, K), of genes under the priors that are wanted, and the bounds, shape (G, J).

    `variance`, of shape (J, K), is the diagonal of the priors' covariances. Prior j is prior `base[j]`, in which type
    (j - first) % K has the variance `freedom` besides, or one of its own where that is -1. Where the first was fitted too and
    the others hardly move (`near`), the second follows from it; so it does where it is hopeless.
    """
    G, K = n.shape
    first = np.sum(base < 0)
    L, inverse, means, V = np.zeros((K, K)), np.zeros((K, K)), np.empty(K), np.empty((K, K))
    d_near, v_near = np.empty(K), np.empty(K)
    for g in range(G):
        prepared, best = -1, -np.inf
        for j in range(P.shape[0]):
            if not wanted[g, j]:
                continue
            b = base[j]
            if b >= 0 and wanted[g, b]:
                if prepared != b:
                    _means(expected[g], d[g, b], v[g, b], means)
                    _factor(P[b], means, L, inverse)
                    _covariance(inverse, V)
                    prepared = b
                gain, moved = _freed(
                    (j - first) % K, n[g], expected[g], V, means, variance[b], d[g, b], freedom, d_near, v_near
                )
                enough = moved <= near or bounds[g, b] + gain < best - HOPELESS
                if enough or (bounds[g, j] == -np.inf and moved < FAR):  # else what was there is the better start
                    d[g, j], v[g, j], bounds[g, j] = d_near, v_near, bounds[g, b] + gain
                if enough:
                    continue
                prepared = -1
            for _ in range(max_steps):
                _means(expected[g], d[g, j], v[g, j], means)
                _factor(P[j], means, L, inverse)
                if _step(n[g], P[j], means, inverse, d[g, j], v[g, j]) < tolerance:
                    break
            _means(expected[g], d[g, j], v[g, j], means)
            log_det = _factor(P[j], means, L, inverse)
            bounds[g, j] = _bound(n[g], P[j], log_det_prior[j], means, log_det, d[g, j], v[g, j])
            best = max(best, bounds[g, j])


@nb.njit(cache=True, nogil=True)
def pool_profiles(expected, P, R, least, d, v, n_pooled):  # type: ignore[no-untyped-def]
    """Sum dd' + V over genes under each of the first priors, and expected counts over all, by responsibilities R."""
    G, J, K = d.shape
    second, counts = np.zeros((n_pooled, K, K)), np.zeros(K)
    L, inverse, means, V = np.zeros((K, K)), np.zeros((K, K)), np.empty(K), np.empty((K, K))
    for g in range(G):
        for j in range(J):
            r = R[g, j]
            if r < least:
                continue
            _means(expected[g], d[g, j], v[g, j], means)
            counts += r * means
            if j >= n_pooled:
                continue
            _factor(P[j], means, L, inverse)
            _covariance(inverse, V)
            for a in range(K):
                for b in range(K):
                    second[j, a, b] += r * (d[g, j, a] * d[g, j, b] + V[a, b])
    return second, counts
