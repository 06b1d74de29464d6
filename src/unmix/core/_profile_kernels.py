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
    for b in range(K):
        inverse[b, b] = 1.0 / L[b, b]
        for a in range(b + 1, K):
            s = 0.0
            for q in range(b, a):
                s -= L[a, q] * inverse[q, b]
            inverse[a, b] = s / L[a, a]
    return log_det


@nb.njit(cache=True, nogil=True)
def _step(n, P, means, inverse, d, v):  # type: ignore[no-untyped-def]
    """One Newton step on d and one on the diagonal of V; return the largest change."""
    K = n.size
    along = np.zeros(K)
    for a in range(K):
        slope = n[a] - means[a]
        for b in range(K):
            slope -= P[a, b] * d[b]
        for b in range(a, K):
            along[b] += inverse[b, a] * slope
    largest = 0.0
    for k in range(K):
        move, spread = 0.0, 0.0
        for a in range(k, K):
            move += inverse[a, k] * along[a]
            spread += inverse[a, k] ** 2
        move = min(max(move, -LONGEST), LONGEST)
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
def fit_profiles(n, expected, P, log_det_prior, wanted, d, v, bounds, max_steps, tolerance):  # type: ignore[no-untyped-def]
    """Improve d and diag(V), shape (G, J, K), of genes under the priors that are wanted, and the bounds, shape (G, J)."""
    G, K = n.shape
    L, inverse, means = np.zeros((K, K)), np.zeros((K, K)), np.empty(K)
    for g in range(G):
        for j in range(P.shape[0]):
            if not wanted[g, j]:
                continue
            for _ in range(max_steps):
                _means(expected[g], d[g, j], v[g, j], means)
                _factor(P[j], means, L, inverse)
                if _step(n[g], P[j], means, inverse, d[g, j], v[g, j]) < tolerance:
                    break
            _means(expected[g], d[g, j], v[g, j], means)
            log_det = _factor(P[j], means, L, inverse)
            bounds[g, j] = _bound(n[g], P[j], log_det_prior[j], means, log_det, d[g, j], v[g, j])


@nb.njit(cache=True, nogil=True)
def pool_profiles(expected, P, R, least, d, v, n_pooled):  # type: ignore[no-untyped-def]
    """Sum dd' + V over genes under each of the first priors, and expected counts over all, by responsibilities R."""
    G, J, K = d.shape
    second, counts = np.zeros((n_pooled, K, K)), np.zeros(K)
    L, inverse, means = np.zeros((K, K)), np.zeros((K, K)), np.empty(K)
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
            for a in range(K):
                for b in range(K):
                    s = d[g, j, a] * d[g, j, b]
                    for q in range(max(a, b), K):
                        s += inverse[q, a] * inverse[q, b]
                    second[j, a, b] += r * s
    return second, counts
