r"""Does a gene need zero inflation? A likelihood ratio per gene, from a table of its counts over the cells' means.

A fitted network gives every entry a log mean :math:`a`. Beside it two models of a gene are fitted by maximum likelihood,

.. math:: x \sim NB(e^{a + s}, \theta) \qquad x \sim \pi [x = 0] + (1 - \pi) NB(e^{a + s}, \theta),

with one scale, one dispersion and, in the second, one probability of dropout a gene. What both need to know of the data is
small: for intervals of :math:`a`, how many zeros and counts lie in it and what they add up to; and how many counts exceed
each :math:`k`, since :math:`\log \Gamma(x + \theta) - \log \Gamma(\theta) = \sum_{k < x} \log(k + \theta)`. The dispersion is
free in both models, so that zeros which only speak of variance do not count as inflation (Ridout, Hinde, Demetrio 2001,
Biometrics 57, 219).

Where a gene is rare, its zeros are expected with or without dropout, and no score can tell. How much the data can tell is
known beforehand: the table that the gene's means, dispersion and a dropout of `REFERENCE` make on average is given to the
same two fits, and their difference is the expected gain E. Twice the gain observed is then about a non-central chi-square
of noncentrality 2 E, so that the BIC asks for zero inflation with probability

.. math:: \Phi(\sqrt{2 E} - \sqrt{\log n}).
"""

import math
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr

from unmix.core._zinb_kernels import compiled

BINS, WIDTH = 64, 0.125
"""Intervals of the log mean around the gene's own, and their width."""
_FROM = np.unique(np.r_[np.arange(32), np.geomspace(32, 2**20, 60).astype(int)])
_WIDE = np.diff(np.r_[_FROM, 2**21]).astype(float)
_MIDDLE = _FROM + (_WIDE - 1) / 2
_START = np.array([-2.0, 0.0, 0.0])
_LOW, _HIGH = np.array([-15.0, -9.0, -10.0]), np.array([12.0, 18.0, 10.0])
"""Bounds of the logit of dropout, the log dispersion and the log scale."""
N_NEWTON = 30
REFERENCE = 0.3
"""The dropout whose discovery the power is about."""
_LARGEST_MEAN, _LARGEST_COUNT, _SMALLEST_LOG_ZERO = 1e3, 20_000, 600.0
"""Means are taken for these at most where the power is computed: so high, every zero is a dropout."""


@dataclass(frozen=True)
class Table:
    """Counts of every gene over intervals of the log mean; tables of different rows add up."""

    cells: np.ndarray
    """Zeros, counts above zero, and the sum of those: shape (genes, `BINS`, 3)."""
    above: np.ndarray
    """Number of counts above k, by gene and k, added up over wider and wider ranges of k."""


@dataclass(frozen=True)
class Inflation:
    """What the likelihood ratio says of every gene; NaN for genes without counts."""

    score: np.ndarray
    """Gain in log-likelihood by zero inflation, in nats, less log(n) / 2: above 0 the BIC asks for it."""
    dropout: np.ndarray
    """Probability of dropout that maximises the likelihood."""
    log_dispersion: np.ndarray
    power: np.ndarray
    """Probability that the score of a gene of these means and this dispersion is above 0 if it drops out in 3 of 10 cells."""


def empty_table(n_genes: int) -> Table:
    """Return the table of no rows."""
    return Table(np.zeros((n_genes, BINS, 3)), np.zeros((n_genes, len(_FROM))))


def tabulate(
    log_mean: np.ndarray, centre: np.ndarray, indptr: np.ndarray, indices: np.ndarray, counts: np.ndarray, table: Table
) -> None:
    """Add rows to a table.

    Parameters
    ----------
    log_mean
        Log means of every entry, shape (rows, genes).
    centre
        Log mean of the gene, the middle of its intervals.
    indptr, indices, counts
        The rows in CSR form.
    table
        Changed in place.
    """
    _tabulate(log_mean, centre, indptr, indices, counts, _FROM, _WIDE, table.cells, table.above)


@compiled()
def _tabulate(
    A: np.ndarray,
    centre: np.ndarray,
    indptr: np.ndarray,
    indices: np.ndarray,
    counts: np.ndarray,
    steps: np.ndarray,
    wide: np.ndarray,
    cells: np.ndarray,
    above: np.ndarray,
) -> None:
    for i in range(A.shape[0]):
        for j in range(A.shape[1]):
            cells[j, _bin(A[i, j] - centre[j]), 0] += 1.0
        for at in range(indptr[i], indptr[i + 1]):
            j, x = indices[at], counts[at]
            if x <= 0:
                continue
            b, k = _bin(A[i, j] - centre[j]), 0
            cells[j, b, 0] -= 1.0
            cells[j, b, 1] += 1.0
            cells[j, b, 2] += x
            while k < len(steps) and steps[k] < x:
                above[j, k] += min(x - steps[k], wide[k])
                k += 1


@compiled()
def _bin(a: float) -> int:
    return int(min(max(math.floor(a / WIDTH) + BINS // 2, 0), BINS - 1))


def zero_inflation(table: Table, centre: np.ndarray, log_dispersion: np.ndarray) -> Inflation:
    """Fit both models to every gene.

    Parameters
    ----------
    table
        From :func:`tabulate`.
    centre
        As given to it.
    log_dispersion
        Where to start.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> x = rng.poisson(rng.gamma(2.0, 1.5, (4000, 2))) * (rng.random((4000, 2)) < [1.0, 0.7])
    >>> table, centre = empty_table(2), np.log(3.0) * np.ones(2)
    >>> indptr, (rows, genes) = np.r_[0, np.cumsum((x > 0).sum(1))], x.nonzero()
    >>> tabulate(np.full(x.shape, np.log(3.0)), centre, indptr, genes, x[rows, genes], table)
    >>> found = zero_inflation(table, centre, np.zeros(2))
    >>> found.score > 0, found.dropout.round(1), found.power.round(2)
    (array([False,  True]), array([0. , 0.3]), array([1., 1.]))
    """
    silent = table.cells[:, :, 1].sum(1) == 0
    n = max(float(table.cells[0, :, :2].sum()), 1.0)
    offsets = (np.arange(BINS) - BINS // 2 + 0.5) * WIDTH + centre[:, None]
    gain, best = _fit_genes(table.cells, table.above, offsets, log_dispersion.astype(float))
    dropout = 1 / (1 + np.exp(-best[:, 0]))
    rows, log_means = table.cells[:, :, :2].sum(axis=2), offsets + (best[:, 2] + np.log1p(-dropout))[:, None]
    expected = _expected_gains(rows, log_means, best[:, 1], _FROM, _WIDE)
    power = ndtr(np.sqrt(2 * expected) - math.sqrt(math.log(n)))
    parts = (gain - 0.5 * math.log(n), dropout, best[:, 1], power)
    return Inflation(*(np.where(silent, np.nan, v) for v in parts))


@compiled()
def _fit_genes(
    cells: np.ndarray, above: np.ndarray, offsets: np.ndarray, log_dispersion: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the gain of inflation and its parameters for every gene."""
    G = len(cells)
    gain, best = np.zeros(G), np.zeros((G, 3))
    for j in range(G):
        if cells[j, :, 1].sum() == 0:
            continue
        p = _START.copy()
        p[1] = log_dispersion[j]
        without = _newton(p, 1, cells[j], above[j], offsets[j])
        p[0] = -2.0
        gain[j] = max(_newton(p, 0, cells[j], above[j], offsets[j]) - without, 0.0)
        best[j] = p
    return gain, best


@compiled()
def _expected_gains(
    rows: np.ndarray, log_means: np.ndarray, log_dispersion: np.ndarray, steps: np.ndarray, wide: np.ndarray
) -> np.ndarray:
    """Return what inflation gains on average, were the genes to drop out.

    Numbers of cells and log means, dropout included, are by gene and interval; the means stay what they are.
    """
    gains, gradient, p = np.zeros(len(rows)), np.zeros(3), np.zeros(3)
    for j in range(len(rows)):
        theta = math.exp(log_dispersion[j])
        cells, above, at = np.zeros((BINS, 3)), np.zeros(len(steps)), np.zeros(BINS)
        most = min(_LARGEST_MEAN, theta * math.expm1(min(_SMALLEST_LOG_ZERO / theta, 50.0)))
        for b in range(BINS):
            mean = min(math.exp(log_means[j, b]) / (1.0 - REFERENCE), most)
            at[b] = math.log(mean)
            _expect(mean, theta, rows[j, b], steps, wide, cells[b], above)
        p[0], p[1], p[2] = math.log(REFERENCE / (1.0 - REFERENCE)), log_dispersion[j], 0.0
        inflated = _log_likelihood(p, 0, cells, above, at, gradient)
        p[2] = math.log(1.0 - REFERENCE)
        gains[j] = max(inflated - _newton(p, 1, cells, above, at), 0.0)
    return gains


@compiled()
def _expect(
    mean: float, theta: float, n: float, steps: np.ndarray, wide: np.ndarray, cells: np.ndarray, above: np.ndarray
) -> None:
    """Add to a table what n cells of this mean are expected to show where dropout has the probability `REFERENCE`."""
    if n == 0:
        return
    kept = n * (1.0 - REFERENCE)
    share = mean / (mean + theta)
    p = math.exp(-theta * math.log1p(mean / theta))
    cells[0], cells[1], cells[2] = n - kept * (1.0 - p), kept * (1.0 - p), kept * mean
    tail, step = 1.0 - p, 0
    for k in range(_LARGEST_COUNT):
        while step + 1 < len(steps) and steps[step + 1] <= k:
            step += 1
        above[step] += kept * tail
        p *= share * (theta + k) / (k + 1.0)
        tail -= p
        if tail < 1e-12:
            break


@compiled()
def _newton(p: np.ndarray, first: int, cells: np.ndarray, above: np.ndarray, offsets: np.ndarray) -> float:
    """Climb from p, in place, in the parameters from `first` on; return the log-likelihood."""
    gradient, H, ahead = np.zeros(3), np.eye(3), np.zeros(3)
    value, damping = _log_likelihood(p, first, cells, above, offsets, gradient), 1e-3
    for _ in range(N_NEWTON):
        for k in range(first, 3):
            q = p.copy()
            q[k] += 1e-4
            _log_likelihood(q, first, cells, above, offsets, ahead)
            H[k, first:] = -(ahead[first:] - gradient[first:]) / 1e-4
        gained = 0.0
        for _ in range(8):
            M = 0.5 * (H + H.T)
            for k in range(first, 3):
                M[k, k] = max(M[k, k], 1e-3) * (1.0 + damping) + 1e-6
            step = np.linalg.solve(M, gradient)
            q = np.minimum(np.maximum(p + np.minimum(np.maximum(step, -2.0), 2.0), _LOW), _HIGH)
            new = _log_likelihood(q, first, cells, above, offsets, ahead)
            if new > value:
                gained, value, damping = new - value, new, damping * 0.1
                p[:], gradient[:] = q, ahead
                break
            damping = max(damping, 1e-3) * 10.0
        if gained < 1e-6:
            break
    return value


@compiled()
def _log_likelihood(
    p: np.ndarray, first: int, cells: np.ndarray, above: np.ndarray, offsets: np.ndarray, gradient: np.ndarray
) -> float:
    """Return the log-likelihood of a gene, but for what does not depend on p, and write its gradient."""
    t, s, theta = p[1], p[2], math.exp(p[1])
    pi = 1.0 / (1.0 + math.exp(-p[0])) if first == 0 else 0.0
    log_kept = math.log1p(-pi)
    gradient[:] = 0.0
    value = 0.0
    for b in range(BINS):
        zeros, counts, total = cells[b]
        if zeros + counts == 0:
            continue
        a = offsets[b] + s
        r = math.exp(a - t)
        log1p_r, share = math.log1p(r), r / (1.0 + r)
        l0, curve = -theta * log1p_r, theta * (log1p_r - share)
        nb_zero = (1.0 - pi) * math.exp(l0)
        weight = nb_zero / (pi + nb_zero) if pi > 0 else 1.0
        value += zeros * (math.log(pi + nb_zero) if pi > 0 else l0) + counts * (l0 + log_kept) + total * (a - log1p_r)
        gradient[0] += zeros * (1.0 - weight - pi) - counts * pi
        gradient[1] += total * share - (zeros * weight + counts) * curve
        gradient[2] += total / (1.0 + r) - (zeros * weight + counts) * theta * share
    for k in range(len(above)):
        if above[k] == 0:
            break
        value += above[k] * math.log1p(_MIDDLE[k] / theta)
        gradient[1] -= above[k] * _MIDDLE[k] / (theta + _MIDDLE[k])
    if first == 1:
        gradient[0] = 0.0
    return value
