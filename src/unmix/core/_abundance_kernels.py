"""Kernels of the abundance prior: expectation propagation for one spot, with a spike at zero and a truncated normal slab.

For a spot with quadratic log-likelihood `b'x - x'Hx/2` and the prior `(1 - pi_k) delta_0 + pi_k TN(mu_k, s2_k)` of every
x_k >= 0, each prior factor is approximated by a normal one of precision tau_k and precision times mean nu_k, so that the
moments of x_k are right where one factor is exact and the others are approximated (Minka 2001).
"""

import math

import numba as nb
import numpy as np

DAMPING = 0.7
STEADY, SLOWER = 10, 0.95
"""After so many sweeps steps shrink by this factor a sweep: types that are alike would pass an amount to and fro for ever."""
TOLERANCE = 1e-4
FAR = 30.0
LEAST, MOST = 1e-3, 1e9
"""Bounds of the precision of a factor."""
HALF_LOG_2PI = 0.9189385332046727


@nb.njit(cache=True, nogil=True)
def log_upper_tail(a):  # type: ignore[no-untyped-def]
    """Log of the probability that a standard normal exceeds a."""
    if a < 10.0:
        return math.log(0.5 * math.erfc(a / math.sqrt(2.0)))
    return -0.5 * a * a - math.log(a) - HALF_LOG_2PI + math.log1p(-1.0 / a**2 + 3.0 / a**4)


@nb.njit(cache=True, nogil=True)
def truncated_moments(m, v):  # type: ignore[no-untyped-def]
    """First and second moment of N(m, v) cut to x >= 0, and the log of the mass that is left."""
    s = math.sqrt(v)
    a = -m / s
    tail = log_upper_tail(a)
    if a > FAR:  # an exponential of rate a / s to second order
        first = s / a * (1.0 - 2.0 / a**2)
        return first, 2.0 * first * first, tail
    first = m + s * math.exp(-0.5 * a * a - HALF_LOG_2PI - tail)
    return max(first, 1e-300), max(m * first + v, 1e-300), tail


@nb.njit(cache=True, nogil=True)
def _tilted(m, v, pi, mu, s2):  # type: ignore[no-untyped-def]
    """Probability of the slab, and the slab's moments, under N(m, v) times the prior."""
    both = 1.0 / (1.0 / v + 1.0 / s2)
    first, second, tail = truncated_moments(both * (m / v + mu / s2), both)
    slab = tail - log_upper_tail(-mu / math.sqrt(s2)) - 0.5 * math.log(v + s2) - 0.5 * (m - mu) ** 2 / (v + s2)
    spike = -0.5 * math.log(v) - 0.5 * m * m / v
    odds = math.log(pi) - math.log1p(-pi) + slab - spike
    present = 1.0 / (1.0 + math.exp(-odds)) if odds > -700.0 else 0.0
    return present, first, second


@nb.njit(cache=True, nogil=True)
def _propagate(H, b, pi, mu, s2, tau, nu, n_sweeps, present, first, second):  # type: ignore[no-untyped-def]
    """Run the sweeps for one spot, in place of the factors and moments; return the normal approximation's mean and covariance."""
    K = b.size
    C = np.linalg.inv(H + np.diag(tau))
    mean = C @ (b + nu)
    damping = DAMPING
    for sweep in range(n_sweeps):
        change = 0.0
        if sweep >= STEADY:
            damping *= SLOWER
        for k in range(K):
            v, old = C[k, k], mean[k]
            rest = 1.0 / v - tau[k]
            if rest <= 1e-8 / v:
                continue
            m = (old / v - nu[k]) / rest
            present[k], first[k], second[k] = _tilted(m, 1.0 / rest, pi[k], mu[k], s2[k])
            average = present[k] * first[k]
            variance = max(present[k] * second[k] - average * average, 1e-10)
            new = min(max(1.0 / variance - rest, LEAST), MOST)
            rise = damping * (new - tau[k])
            nu[k] += damping * (average * (new + rest) - m * rest - nu[k])
            tau[k] += rise
            column = C[:, k].copy()
            C -= rise / (1.0 + rise * v) * np.outer(column, column)
            mean = C @ (b + nu)
            change = max(change, abs(mean[k] - old))
        if sweep % 5 == 4:
            C = np.linalg.inv(H + np.diag(tau))
            mean = C @ (b + nu)
        if change < TOLERANCE * damping:
            return mean, C
    for k in range(K):  # not at rest: what the mean says is nearer to the truth than the last step
        present[k] = min(max(mean[k], 0.0) / first[k], 1.0) if first[k] > 0 else 0.0
    return mean, C


@nb.njit(cache=True, nogil=True)
def propagate_rows(H, b, pi, mu, s2, tau, nu, n_sweeps):  # type: ignore[no-untyped-def]
    """Run expectation propagation for every row; tau and nu (N, K) hold the starts and are changed in place.

    Returns the probabilities of presence, first and second moments given presence, means, all (N, K), and covariances
    (N, K, K). Where the sweeps end before all is still, the means are nearer to the truth than the moments: they keep what
    the counts say of types together.
    """
    N, K = b.shape
    present, first, second, mean = np.zeros((N, K)), np.zeros((N, K)), np.zeros((N, K)), np.zeros((N, K))
    covariance = np.zeros((N, K, K))
    for i in range(N):
        mean[i], covariance[i] = _propagate(
            H[i], b[i], pi, mu, s2, tau[i], nu[i], n_sweeps, present[i], first[i], second[i]
        )
    return present, first, second, mean, covariance
