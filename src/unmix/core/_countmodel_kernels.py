"""Kernels of the count model: one spot's negative binomial fit with non-negative weights, by projected Newton steps.

For a spot with counts y_g the mean is m_g = p_g (S w)_g =: (A w)_g, the variance m_g + phi m_g^2, and w >= 0. Only
genes with counts enter the Hessian; genes without counts enter through their score, and where phi is 0 through the
column sums.
"""

import numba as nb
import numpy as np
from scipy import sparse

TINY = 1e-12


def csr_parts(Y: sparse.csr_array) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return indptr, indices and data as the kernels take them."""
    return Y.indptr.astype(np.int64), Y.indices.astype(np.int64), Y.data.astype(np.float64)


@nb.njit(cache=True, nogil=True)
def _nonnegative_step(H, b, x):  # type: ignore[no-untyped-def]
    """Minimise x'Hx/2 - b'x over x >= 0, starting from x, by coordinate descent."""
    K = b.size
    for _ in range(500):
        largest = 0.0
        for k in range(K):
            slope = b[k]
            for j in range(K):
                slope -= H[k, j] * x[j]
            new = max(x[k] + slope / H[k, k], 0.0)
            largest = max(largest, abs(new - x[k]) * np.sqrt(H[k, k]))
            x[k] = new
        if largest < 1e-7:
            break


@nb.njit(cache=True, nogil=True)
def _mean(A, w, m):  # type: ignore[no-untyped-def]
    for g in range(A.shape[0]):
        total = TINY
        for k in range(w.size):
            total += A[g, k] * w[k]
        m[g] = total


@nb.njit(cache=True, nogil=True)
def _log_lik(genes, y, A, w, phi, sums, target, precision, m):  # type: ignore[no-untyped-def]
    """Log-likelihood without terms free of w, and the prior; leaves the means in m (where phi is 0 only of `genes`)."""
    value = 0.0
    for k in range(w.size):
        value -= 0.5 * precision[k] * (w[k] - target[k]) ** 2
    if phi == 0.0:
        for k in range(w.size):
            value -= sums[k] * w[k]
        for j in range(genes.size):
            total = TINY
            for k in range(w.size):
                total += A[genes[j], k] * w[k]
            m[genes[j]] = total
            value += y[j] * np.log(total)
        return value
    _mean(A, w, m)
    for g in range(m.size):
        value -= np.log1p(phi * m[g]) / phi
    for j in range(genes.size):
        mj = m[genes[j]]
        value += y[j] * (np.log(mj) - np.log1p(phi * mj))
    return value


@nb.njit(cache=True, nogil=True)
def _score(genes, y, A, w, phi, sums, target, precision, m, score):  # type: ignore[no-untyped-def]
    """Write the score of the counts and of the prior; means are in m."""
    K = w.size
    score[:] = 0.0
    if phi == 0.0:
        score -= sums
    else:
        for g in range(m.size):
            omega = 1.0 / (1.0 + phi * m[g])
            for k in range(K):
                score[k] -= omega * A[g, k]
    for j in range(genes.size):
        mj = m[genes[j]]
        r = y[j] / (mj * (1.0 + phi * mj))
        for k in range(K):
            score[k] += r * A[genes[j], k]
    for k in range(K):
        score[k] -= precision[k] * (w[k] - target[k])


@nb.njit(cache=True, nogil=True)
def _information(genes, y, A, phi, precision, m, types, H):  # type: ignore[no-untyped-def]
    """Write the information of the counts that are there and of the prior about some types; means are in m."""
    K = types.size
    H[:] = 0.0
    a = np.empty(K)
    for j in range(genes.size):
        mj = m[genes[j]]
        h = y[j] / (mj * mj * (1.0 + phi * mj))
        for k in range(K):
            a[k] = A[genes[j], types[k]]
        for k in range(K):
            f = h * a[k]
            for n in range(k + 1):
                H[k, n] += f * a[n]
    for k in range(K):
        for n in range(k):
            H[n, k] = H[k, n]
        H[k, k] = H[k, k] * (1.0 + 1e-10) + 1e-14 + precision[types[k]]


@nb.njit(cache=True, nogil=True)
def fit_spot(genes, y, A, phi, sums, target, precision, w, m, score, H, max_iter):  # type: ignore[no-untyped-def]
    """Fit one spot in place of w; leaves means, score and H at the solution and returns the log-likelihood.

    Steps are over the types that are there or would rise.
    """
    K = w.size
    value = _log_lik(genes, y, A, w, phi, sums, target, precision, m)
    for _ in range(max_iter):
        _score(genes, y, A, w, phi, sums, target, precision, m, score)
        types = np.flatnonzero((w > 0) | (score > 0))
        part = np.empty((types.size, types.size))
        _information(genes, y, A, phi, precision, m, types, part)
        x = w[types]
        _nonnegative_step(part, score[types] + part @ x, x)
        direction = np.zeros(K)
        direction[types] = x - w[types]
        gain = score @ direction
        if gain < 1e-6:
            break
        step, new = 1.0, value
        while step > 1e-6:
            new = _log_lik(genes, y, A, w + step * direction, phi, sums, target, precision, m)
            if new >= value + 1e-4 * step * gain:
                break
            step *= 0.5
        if step <= 1e-6:
            break
        w += step * direction
        value = new
    value = _log_lik(genes, y, A, w, phi, sums, target, precision, m)
    _score(genes, y, A, w, phi, sums, target, precision, m, score)
    _information(genes, y, A, phi, precision, m, np.arange(K), H)
    return value


@nb.njit(cache=True, nogil=True)
def _fit_rows(indptr, genes, y, A, phi, W, max_iter, target, precision):  # type: ignore[no-untyped-def]
    """Fit every row of a CSR block from the start W, under a normal prior of w about `target`, both of shape (N, K).

    Returns W, log-likelihoods, information matrices (N, K, K), Pearson statistics and, summed over rows and weighted by
    1 / (1 + phi m), the counts and means of every gene, and the means without a weight.
    """
    n, (G, K) = W.shape[0], A.shape
    sums = A.sum(axis=0)
    H, score, m = np.empty((n, K, K)), np.empty(K), np.empty(G)
    value, pearson = np.empty(n), np.empty(n)
    observed, expected, means = np.zeros(G), np.zeros(G), np.zeros(G)
    for i in range(n):
        own, counts = genes[indptr[i] : indptr[i + 1]], y[indptr[i] : indptr[i + 1]]
        value[i] = fit_spot(own, counts, A, phi, sums, target[i], precision[i], W[i], m, score, H[i], max_iter)
        _mean(A, W[i], m)
        pearson[i] = 0.0
        for g in range(G):
            omega = 1.0 / (1.0 + phi * m[g])
            expected[g] += omega * m[g]
            means[g] += m[g]
            pearson[i] += omega * m[g]
        for j in range(own.size):
            mj = m[own[j]]
            omega = 1.0 / (1.0 + phi * mj)
            observed[own[j]] += omega * counts[j]
            pearson[i] += omega * (counts[j] - 2.0 * mj) * counts[j] / mj
    return W, value, H, pearson, observed, expected, means


def fit_rows(indptr, genes, y, A, phi, W, max_iter, target=None, precision=None):  # type: ignore[no-untyped-def]
    """Fit every row of a CSR block; without a prior where `target` and `precision` are not given."""
    if target is None:
        target = precision = np.zeros_like(W)
    return _fit_rows(indptr, genes, y, A, phi, W, max_iter, target, precision)


@nb.njit(cache=True, nogil=True)
def _information_at(indptr, genes, y, A, phi, W, target, precision):  # type: ignore[no-untyped-def]
    n, (G, K) = W.shape[0], A.shape
    sums, m = A.sum(axis=0), np.empty(G)
    score, H = np.empty((n, K)), np.empty((n, K, K))
    for i in range(n):
        own, counts = genes[indptr[i] : indptr[i + 1]], y[indptr[i] : indptr[i + 1]]
        _log_lik(own, counts, A, W[i], phi, sums, target[i], precision[i], m)
        _score(own, counts, A, W[i], phi, sums, target[i], precision[i], m, score[i])
        _information(own, counts, A, phi, precision[i], m, np.arange(K), H[i])
    return score, H


def information_at(indptr, genes, y, A, phi, W, target=None, precision=None):  # type: ignore[no-untyped-def]
    """Return the score (N, K) and the observed information (N, K, K) of every row's weights; see `_fit_rows`."""
    if target is None:
        target = precision = np.zeros_like(W)
    return _information_at(indptr, genes, y, A, phi, W, target, precision)


@nb.njit(cache=True, nogil=True)
def column_counts(indptr, genes, y, A, phi, W):  # type: ignore[no-untyped-def]
    """Return what falls to the last column of A: its share of every gene's counts, and the sum of its weights.

    Both are weighted by 1 / (1 + phi m) and of shape (G,).
    """
    G, K = A.shape
    counts, exposure, m = np.zeros(G), np.zeros(G), np.empty(G)
    for i in range(W.shape[0]):
        z = W[i, K - 1]
        if z <= 0.0:
            continue
        _mean(A, W[i], m)
        for g in range(G):
            exposure[g] += z / (1.0 + phi * m[g])
        for j in range(indptr[i], indptr[i + 1]):
            g = genes[j]
            counts[g] += y[j] * A[g, K - 1] * z / (m[g] * (1.0 + phi * m[g]))
    return counts, exposure
