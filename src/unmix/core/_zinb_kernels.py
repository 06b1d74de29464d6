"""One pass over the rows of a batch on the processor: negative binomial loss, its gradient written over the logits.

The same formulas as :mod:`unmix.core.likelihoods`, in single precision, 1,024 genes at a time so that every buffer
stays in the fastest cache. Exponentials and logarithms are polynomials (Cephes' single-precision coefficients) over whole
buffers, which compilers vectorise.
"""

import functools
import math

import numba as nb
import numpy as np

from unmix.core._nmf_kernels import LANES as VECTOR
from unmix.core._nmf_kernels import _csr_times, _csr_transpose_times

CHUNK = 1024
LANES = 64
LGAMMA_TABLE = np.array([math.lgamma(k + 1.0) for k in range(1024)])
"""log k! for small k."""

_f = np.float32
_LOGMU, _MU, _THETA, _R, _GRAD_A, _CURVE, _LOSS, _GRAD_Q, _GRAD_T, _LOG1P, _ODDS, _SHARE = (
    k * CHUNK for k in range(12)
)
"""Where each quantity of a chunk of genes starts in the one flat buffer; constant distances let compilers vectorise."""
_SAFE = {"contract", "nnan", "ninf", "nsz"}
compiled = functools.partial(nb.njit, cache=True, nogil=True, error_model="numpy")
"""Divisions as in numpy: a test for a zero divisor would keep loops from being vectorised."""


@compiled(fastmath=_SAFE)
def _exp(x: np.ndarray, out: np.ndarray, bits: np.ndarray, n: int) -> None:
    """Write exp(x) to `out`; x is held between -87 and 88."""
    scale = bits.view(np.float32)
    for j in range(n):
        v = min(max(x[j], _f(-87.0)), _f(88.0))
        k = np.floor(v * _f(1.44269504) + _f(0.5))
        f = v - k * _f(0.693359375) + k * _f(2.12194440e-4)
        p = _f(1.9875691500e-4) * f + _f(1.3981999507e-3)
        p = p * f + _f(8.3334519073e-3)
        p = p * f + _f(4.1665795894e-2)
        p = p * f + _f(1.6666665459e-1)
        p = p * f + _f(5.0000001201e-1)
        out[j] = p * f * f + f + _f(1.0)
        bits[j] = (np.int32(k) + np.int32(127)) << np.int32(23)
    for j in range(n):
        out[j] *= scale[j]


@compiled(fastmath=_SAFE)
def _log(x: np.ndarray, out: np.ndarray, bits: np.ndarray, n: int) -> None:
    """Write log(x) to `out`, for positive, normal x."""
    mantissa = bits.view(np.float32)
    for j in range(n):
        mantissa[j] = x[j]
    for j in range(n):
        b = bits[j] - np.int32(0x3F3504F3)
        out[j] = _f(b >> np.int32(23))
        bits[j] = (b & np.int32(0x7FFFFF)) + np.int32(0x3F3504F3)
    for j in range(n):
        f = mantissa[j] - _f(1.0)
        z = f * f
        y = _f(7.0376836292e-2) * f - _f(1.1514610310e-1)
        y = y * f + _f(1.1676998740e-1)
        y = y * f - _f(1.2420140846e-1)
        y = y * f + _f(1.4249322787e-1)
        y = y * f - _f(1.6668057665e-1)
        y = y * f + _f(2.0000714765e-1)
        y = y * f - _f(2.4999993993e-1)
        y = y * f + _f(3.3333331174e-1)
        y = y * f * z - _f(2.12194440e-4) * out[j] - _f(0.5) * z
        out[j] = f + y + _f(0.693359375) * out[j]


@compiled()
def rising_terms(x: float, theta: float) -> tuple[float, float, float]:
    """Return p, l and S: L(x, theta) = sum over k < x of log(1 + k / theta) = log p + l, and S = sum of k / (theta + k).

    With one division for the sum, as numerator over denominator.
    """
    steps = min(int(x), 32)
    inverse, product, numerator = 1.0 / theta, 1.0, 0.0
    for k in range(1, steps):
        y = k * inverse
        numerator = numerator * (1.0 + y) + y * product
        product *= 1.0 + y
    S, rest = numerator / product, 0.0
    if x > steps:
        rest, more = _rising_rest(theta + steps, x - steps, theta)
        rest += (x - steps) * math.log1p(steps * inverse)
        S += more
    return product, rest, S


@compiled()
def _rising_rest(z0: float, n: float, theta: float) -> tuple[float, float]:
    """Return the sums over n further steps from z0, by Stirling's series: log(1 + k / z0), and k / (theta + k)."""
    z1 = z0 + n
    w0, w1 = 1.0 / (z0 * z0), 1.0 / (z1 * z1)
    log_ratio = math.log1p(n / z0)
    logs = (z1 - 0.5) * log_ratio - n + 1.0 / (12 * z1) - 1.0 / (12 * z0) - w1 / (360 * z1) + w0 / (360 * z0)
    digamma = log_ratio - 0.5 / z1 + 0.5 / z0 - w1 / 12 + w0 / 12 + w1 * w1 / 120 - w0 * w0 / 120
    return logs, n - theta * digamma


@compiled()
def _lgamma1p(x: float, table: np.ndarray) -> float:
    return table[int(x)] if x < table.shape[0] else math.lgamma(x + 1.0)


@compiled(fastmath=_SAFE)
def _sum_of_logs(ratio: np.ndarray, lanes: np.ndarray) -> float:
    """Return the sum of log(ratio) over a buffer, for ratios below 1e18: one logarithm for 16 of them."""
    lanes[:] = 1.0
    for start in range(0, CHUNK, LANES):
        for j in range(LANES):
            lanes[j] *= ratio[start + j]
    total = 0.0
    for j in range(LANES):
        total += math.log(lanes[j])
    return total


@compiled(fastmath=_SAFE)
def _sum(values: np.ndarray, lanes: np.ndarray) -> float:
    lanes[:] = 0.0
    for start in range(0, CHUNK, LANES):
        for j in range(LANES):
            lanes[j] += values[start + j]
    return lanes.sum()


@compiled(fastmath=_SAFE)
def _nb_state(a: np.ndarray, tau: np.ndarray, size: float, bounds: np.ndarray, B: np.ndarray, bits: np.ndarray) -> None:
    """Fill the buffers from the logits of m genes."""
    m = a.shape[0]
    a_min, a_max, t_min, t_max = bounds[0], bounds[1], bounds[2], bounds[3]
    for j in range(m):
        B[_LOGMU + j] = min(max(a[j], a_min), a_max) + size
        B[_LOSS + j] = min(max(tau[j], t_min), t_max)
    _exp(B[_LOGMU : _LOGMU + CHUNK], B[_MU : _MU + CHUNK], bits, m)
    _exp(B[_LOSS : _LOSS + CHUNK], B[_THETA : _THETA + CHUNK], bits, m)
    for j in range(m):
        B[_R + j] = B[_MU + j] / B[_THETA + j]
        B[_LOSS + j] = _f(1.0) + B[_R + j]
    _log(B[_LOSS : _LOSS + CHUNK], B[_LOG1P : _LOG1P + CHUNK], bits, m)
    for j in range(m):  # log(1 + r) and log(1 + r) - r / (1 + r), without cancellation at small r
        r, u = B[_R + j], B[_LOSS + j]
        w = _f(1.0) / u
        log1p_r = B[_LOG1P + j] + (r - (u - _f(1.0))) * w
        series = r * r * (_f(0.5) - r * (_f(2 / 3) - r * (_f(0.75) - r * (_f(0.8) - r * _f(5 / 6)))))
        B[_LOG1P + j], B[_SHARE + j] = log1p_r, w
        B[_CURVE + j] = B[_THETA + j] * (series if r < _f(0.03) else log1p_r - r * w)


@compiled(fastmath=_SAFE)
def _all_zeros(q: np.ndarray, inflated: bool, ridge: float, B: np.ndarray, bits: np.ndarray, m: int) -> None:
    """Evaluate all genes as zeros: gradients, and the loss, as its exponential if inflated."""
    one = _f(1.0)
    for j in range(m):
        B[_LOSS + j] = B[_THETA + j] * B[_LOG1P + j]
        B[_GRAD_A + j] = B[_MU + j] * B[_SHARE + j]
        B[_GRAD_T + j] = B[_CURVE + j]
    if not inflated:
        return
    for j in range(m):
        B[_LOSS + j] = -B[_LOSS + j]
        B[_GRAD_Q + j] = min(max(q[j], _f(-30.0)), _f(30.0))
    _exp(B[_LOSS : _LOSS + CHUNK], B[_GRAD_T : _GRAD_T + CHUNK], bits, m)
    _exp(B[_GRAD_Q : _GRAD_Q + CHUNK], B[_ODDS : _ODDS + CHUNK], bits, m)
    for j in range(m):
        odds, nb_zero = B[_ODDS + j], B[_GRAD_T + j]
        with_odds, both = one + odds, odds + nb_zero
        inverse = one / (with_odds * both)
        real, kept = nb_zero * with_odds * inverse, both * inverse
        pi = odds * kept
        B[_LOSS + j] = with_odds * with_odds * inverse
        B[_GRAD_A + j] *= real
        B[_GRAD_T + j] = real * B[_CURVE + j]
        B[_GRAD_Q + j] = real - kept + _f(2.0) * ridge * pi * pi * kept


@compiled(fastmath=_SAFE)
def _one_count(x: float, inflated: bool, ridge: float, B: np.ndarray, j: int, table: np.ndarray) -> tuple[float, float]:
    """Overwrite the gradients of one gene by those of a count above zero.

    Returns
    -------
    The rest of its loss, but for the logarithm of the second number, which is taken off.
    """
    theta, log1p_r, share = np.float64(B[_THETA + j]), np.float64(B[_LOG1P + j]), np.float64(B[_SHARE + j])
    loss = _lgamma1p(x, table) - x * (np.float64(B[_LOGMU + j]) - log1p_r)
    curve, product = np.float64(B[_CURVE + j]) - x * np.float64(B[_R + j]) * share, 1.0
    if x > 1.0:
        product, rest, S = rising_terms(x, theta)
        loss -= rest
        curve += S
    B[_GRAD_A + j] = (np.float64(B[_MU + j]) - x) * share
    B[_GRAD_T + j] = curve
    if inflated:
        odds = np.float64(B[_ODDS + j])
        pi = odds / (1.0 + odds)
        B[_LOSS + j] = 1.0 + odds
        B[_GRAD_Q + j] = pi + 2.0 * ridge * pi * pi * (1.0 - pi)
        loss += theta * log1p_r
    return loss, product


@compiled(fastmath=_SAFE)
def _write(source: np.ndarray, target: np.ndarray, add: bool) -> None:
    if add:
        for j in range(target.shape[0]):
            target[j] += source[j]
    else:
        for j in range(target.shape[0]):
            target[j] = source[j]


@compiled(fastmath=_SAFE)
def nb_rows(
    A: np.ndarray,
    Q: np.ndarray,
    q_at: int,
    T: np.ndarray,
    t_at: int,
    codes: np.ndarray,
    log_size: np.ndarray,
    indptr: np.ndarray,
    indices: np.ndarray,
    data: np.ndarray,
    grad_T: np.ndarray,
    add: bool,
    inflated: bool,
    ridge: float,
    bounds: np.ndarray,
    table: np.ndarray,
    losses: np.ndarray,
) -> None:
    """Write the loss of every row, in nats, to `losses`; the logits become their gradients.

    Parameters
    ----------
    A, Q
        Log means (without sizes) `A[:, 0]` and logits of dropout `Q[:, q_at]`, shape (rows, heads, genes), overwritten; Q
        only if `inflated`. The three may be one array, C-contiguous.
    q_at, t_at
        Which head.
    T, codes
        Log dispersions; row i uses `T[codes[i], t_at]`.
    log_size
        Added to the log means of the row.
    indptr, indices, data
        The counts, CSR with sorted columns; float32.
    grad_T
        Like T; gradients are added, or, unless `add`, written, in which case it may be T itself.
    add
        Whether rows share dispersions.
    inflated
        Whether there is dropout.
    ridge
        Weight of the squared dropout probabilities in the gradient; the loss written is the likelihood's alone.
    bounds
        Smallest and largest log mean (before sizes) and log dispersion.
    table
        `LGAMMA_TABLE`.
    """
    n, _, G = A.shape
    lam = _f(ridge)
    bits, lanes = np.empty(CHUNK, np.int32), np.empty(LANES, np.float64)
    B = np.zeros(12 * CHUNK, np.float32)
    for i in range(n):
        k, loss, product = indptr[i], 0.0, 1.0
        for start in range(0, G, CHUNK):
            end = min(start + CHUNK, G)
            m = end - start
            q = Q[i, q_at, start:end] if inflated else A[i, 0, start:end]
            _nb_state(A[i, 0, start:end], T[codes[i], t_at, start:end], _f(log_size[i]), bounds, B, bits)  # type: ignore[arg-type]
            _all_zeros(q, inflated, lam, B, bits, m)  # type: ignore[arg-type]
            if m < CHUNK:
                B[_LOSS + m : _LOSS + CHUNK] = _f(1.0) if inflated else _f(0.0)
            while k < indptr[i + 1] and indices[k] < end:
                j = indices[k] - start
                more, factor = _one_count(np.float64(data[k]), inflated, ridge, B, j, table)
                loss += more
                product *= factor
                if product > 1e100:  # one logarithm for many counts; factors stay below 1e180
                    loss -= math.log(product)
                    product = 1.0
                k += 1
            loss += _sum_of_logs(B[_LOSS : _LOSS + CHUNK], lanes) if inflated else _sum(B[_LOSS : _LOSS + CHUNK], lanes)
            _write(B[_GRAD_A : _GRAD_A + m], A[i, 0, start:end], False)
            if inflated:
                _write(B[_GRAD_Q : _GRAD_Q + m], Q[i, q_at, start:end], False)
            _write(B[_GRAD_T : _GRAD_T + m], grad_T[codes[i], t_at, start:end], add)
        losses[i] = loss - math.log(product)


def csr_times(indptr: np.ndarray, indices: np.ndarray, data: np.ndarray, W: np.ndarray, out: np.ndarray) -> None:
    """Write X W to `out`, for CSR rows X; fastest where W has a multiple of 8 columns."""
    (_csr_times if W.shape[1] % VECTOR == 0 else _any_csr_times)(indptr, indices, data, W, out)


def csr_transposed_times(
    indptr: np.ndarray, indices: np.ndarray, data: np.ndarray, D: np.ndarray, out: np.ndarray
) -> None:
    """Add X' D to `out`, for CSR rows X; fastest where D has a multiple of 8 columns."""
    (_csr_transpose_times if D.shape[1] % VECTOR == 0 else _any_csr_transposed_times)(indptr, indices, data, D, out)


@compiled(fastmath=_SAFE | {"reassoc"})
def _any_csr_times(indptr: np.ndarray, indices: np.ndarray, data: np.ndarray, W: np.ndarray, out: np.ndarray) -> None:
    out[:] = 0
    for i in range(out.shape[0]):
        o = out[i]
        for k in range(indptr[i], indptr[i + 1]):
            v, w = data[k], W[indices[k]]
            for h in range(W.shape[1]):
                o[h] += v * w[h]


@compiled(fastmath=_SAFE | {"reassoc"})
def _any_csr_transposed_times(
    indptr: np.ndarray, indices: np.ndarray, data: np.ndarray, D: np.ndarray, out: np.ndarray
) -> None:
    for i in range(D.shape[0]):
        d = D[i]
        for k in range(indptr[i], indptr[i + 1]):
            v, w = data[k], out[indices[k]]
            for h in range(D.shape[1]):
                w[h] += v * d[h]
