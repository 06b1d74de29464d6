r"""Does a gene need zero inflation? A Bayes factor per gene, from a table of its counts over the cells' means.

A fitted network gives every entry a log mean :math:`a`. Beside it two models of a gene are compared,

.. math:: x \sim NB(e^{a + s}, \theta) \qquad x \sim \pi [x = 0] + (1 - \pi) NB(e^{a + s}, \theta),

with one scale, one dispersion and, in the second, one probability of dropout a gene. What both need to know of the data is
small: for intervals of :math:`a`, how many zeros and counts lie in it and what they add up to; and how many counts exceed
each :math:`k`, since :math:`\log \Gamma(x + \theta) - \log \Gamma(\theta) = \sum_{k < x} \log(k + \theta)`.

The dispersion is free in both models, so that zeros which only speak of variance do not count as inflation (Ridout, Hinde,
Demetrio 2001, Biometrics 57, 219). But the few counts of a rare gene tell a small :math:`\theta` from a large :math:`\pi`
only where something is known of :math:`\theta`, and the other genes say it: :math:`\log \theta` is normal over the genes,
with a mean and a variance that all of them give (:func:`dispersion_prior`), :math:`\pi` is uniform and :math:`s` flat. The
score is the log of the ratio of both marginal likelihoods, by Laplace's approximation in
:math:`(\mathrm{logit}\,\pi, \log\theta, s)`, less log `EVIDENCE`.

The zeros of a rare gene are expected with or without dropout, and its score says little. How much the data can tell is
known beforehand: the table that the gene's means, dispersion and a dropout of `REFERENCE` make on average is given to the
same two models. The second gains E in log density there, and its score is E - c; twice the gain observed is about a
non-central chi-square of noncentrality 2 E, so that the score is above 0 with probability

.. math:: \Phi(\sqrt{2 E} - \sqrt{2 c}).
"""

import math
from dataclasses import dataclass

import numpy as np
from scipy.special import expit, ndtr

from unmix.core._zinb_kernels import compiled

DIGITS = 10
"""Decimals that are kept: with some NumPy the sixteenth digit depends on where an array lies in memory."""
BINS, WIDTH = 64, 0.125
"""Intervals of the log mean around the gene's own, and their width."""
_FROM = np.unique(np.r_[np.arange(32), np.geomspace(32, 2**20, 60).astype(int)])
_WIDE = np.diff(np.r_[_FROM, 2**21]).astype(float)
_MIDDLE = _FROM + (_WIDE - 1) / 2
_LOW, _HIGH = np.array([-15.0, -9.0, -10.0]), np.array([12.0, 18.0, 10.0])
"""Bounds of the logit of dropout, the log dispersion and the log scale."""
N_NEWTON = 30
EVIDENCE = 20.0
"""How many times more probable the counts are with dropout than without where the score is 0."""
_SOME_GENES, _N_STEPS = 500, 30
"""Genes from which the prior of dispersions is estimated, and steps."""
_PRIOR_WEIGHT = 4.0
"""Genes whose log dispersions differ by 1, which the variance begins with."""
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
    """What the comparison says of every gene; NaN for genes without counts."""

    score: np.ndarray
    """Log of the Bayes factor of zero inflation, in nats, less log `EVIDENCE`."""
    dropout: np.ndarray
    """Probability of dropout where the second model's posterior is densest."""
    log_dispersion: np.ndarray
    """There too."""
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


def zero_inflation(table: Table, centre: np.ndarray, prior: tuple[float, float] | None = None) -> Inflation:
    """Compare both models for every gene.

    Parameters
    ----------
    table
        From :func:`tabulate`.
    centre
        As given to it.
    prior
        Mean and variance of the log dispersions; `None` estimates them.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> x = rng.poisson(rng.gamma(2.0, 1.5, (4000, 2))) * (rng.random((4000, 2)) < [1.0, 0.7])
    >>> table, centre = empty_table(2), np.log(3.0) * np.ones(2)
    >>> indptr, (rows, genes) = np.r_[0, np.cumsum((x > 0).sum(1))], x.nonzero()
    >>> tabulate(np.full(x.shape, np.log(3.0)), centre, indptr, genes, x[rows, genes], table)
    >>> found = zero_inflation(table, centre)
    >>> found.score > 0, found.dropout.round(1), found.power.round(2)
    (array([False,  True]), array([0. , 0.3]), array([1., 1.]))
    """
    silent = table.cells[:, :, 1].sum(1) == 0
    offsets = (np.arange(BINS) - BINS // 2 + 0.5) * WIDTH + centre[:, None]
    prior = prior or dispersion_prior(table, offsets)
    evidence, modes, _ = _posteriors(table.cells, table.above, offsets, *prior)
    logit, log_theta, scale = modes[:, 1].T
    dropout, rows = expit(logit), table.cells[:, :, :2].sum(axis=2)
    log_means = offsets + (scale + np.log1p(-dropout))[:, None]
    gain, expected = _expected(rows, log_means, log_theta, _FROM, *prior)
    price = np.maximum(gain - expected + math.log(EVIDENCE), 0)
    power = ndtr(np.sqrt(2 * gain) - np.sqrt(2 * price))
    score = evidence[:, 1] - evidence[:, 0] - math.log(EVIDENCE)
    found = (np.where(silent, np.nan, v) for v in (score, dropout, log_theta, power))
    return Inflation(*(np.round(v, DIGITS) for v in found))


def dispersion_prior(table: Table, offsets: np.ndarray) -> tuple[float, float]:
    """Return mean and variance of the log dispersions over the genes, by expectation and maximisation.

    Every gene is inflated or not, with a probability that is estimated too, so that neither the dispersions nor the
    dropouts of the others are put down to the spread of dispersions.

    Parameters
    ----------
    table
        From :func:`tabulate`.
    offsets
        Log means in the middle of its intervals, by gene.
    """
    seen = np.flatnonzero(table.cells[:, :, 1].sum(1))
    some = seen[:: -(-len(seen) // _SOME_GENES) or 1]
    parts = table.cells[some], table.above[some], offsets[some]
    mean, variance, share = 0.0, 1.0, 0.5
    for _ in range(_N_STEPS if len(some) else 0):
        evidence, modes, spread = _posteriors(*parts, mean, variance)
        inflated = expit(evidence[:, 1] - evidence[:, 0] + math.log(share / (1 - share)))
        weights, t, before = np.column_stack([1 - inflated, inflated]), modes[:, :, 1], (mean, variance)
        mean = float((weights * t).sum() / len(some))
        squares = float((weights * ((t - mean) ** 2 + spread)).sum())
        variance = (squares + _PRIOR_WEIGHT) / (len(some) + _PRIOR_WEIGHT)
        share = float((inflated.sum() + 1) / (len(some) + 2))
        if np.allclose((mean, variance), before, atol=1e-3):
            break
    return mean, variance


@compiled()
def _posteriors(
    cells: np.ndarray, above: np.ndarray, offsets: np.ndarray, mean: float, variance: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return log marginal likelihood, mode and variance of log theta, by gene, without and with dropout."""
    G = len(cells)
    evidence, modes, spread = np.zeros((G, 2)), np.zeros((G, 2, 3)), np.zeros((G, 2))
    for j in range(G):
        if cells[j, :, 1].sum() == 0:
            continue
        p = modes[j, 0]
        p[1] = mean
        _, evidence[j, 0], spread[j, 0] = _climb(p, 1, cells[j], above[j], offsets[j], mean, variance)
        p, evidence[j, 1] = p.copy(), -np.inf
        for logit in (-2.0, 1.0):
            q = np.array([logit, p[1], p[2] + math.log1p(math.exp(logit))])
            _, found, width = _climb(q, 0, cells[j], above[j], offsets[j], mean, variance)
            if found > evidence[j, 1]:
                evidence[j, 1], spread[j, 1] = found, width
                modes[j, 1] = q
    return evidence, modes, spread


@compiled()
def _expected(
    rows: np.ndarray,
    log_means: np.ndarray,
    log_dispersion: np.ndarray,
    steps: np.ndarray,
    mean: float,
    variance: float,
) -> tuple[np.ndarray, np.ndarray]:
    """Return by how much density and marginal likelihood grow on average by dropout, were the genes to drop out.

    Numbers of cells and log means, dropout included, are by gene and interval; the means stay what they are.
    """
    gains, ratios, p = np.zeros(len(rows)), np.zeros(len(rows)), np.zeros(3)
    for j in range(len(rows)):
        theta = math.exp(log_dispersion[j])
        cells, above, at = np.zeros((BINS, 3)), np.zeros(len(steps)), np.zeros(BINS)
        most = min(_LARGEST_MEAN, theta * math.expm1(min(_SMALLEST_LOG_ZERO / theta, 50.0)))
        for b in range(BINS):
            mu = min(math.exp(log_means[j, b]) / (1.0 - REFERENCE), most)
            at[b] = math.log(mu)
            _expect(mu, theta, rows[j, b], steps, cells[b], above)
        p[:] = 0.0, log_dispersion[j], math.log(1.0 - REFERENCE)
        without, ratio, _ = _climb(p, 1, cells, above, at, mean, variance)
        p[:] = math.log(REFERENCE / (1.0 - REFERENCE)), log_dispersion[j], 0.0
        inflated, evidence, _ = _climb(p, 0, cells, above, at, mean, variance)
        gains[j], ratios[j] = max(inflated - without, 0.0), evidence - ratio
    return gains, ratios


@compiled()
def _expect(mean: float, theta: float, n: float, steps: np.ndarray, cells: np.ndarray, above: np.ndarray) -> None:
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
def _climb(
    p: np.ndarray, first: int, cells: np.ndarray, above: np.ndarray, offsets: np.ndarray, mean: float, variance: float
) -> tuple[float, float, float]:
    """Climb from p, in place, to the posterior's mode, in the parameters from `first` on.

    Returns
    -------
    Log density at the mode, log marginal likelihood by Laplace's approximation, and variance of log theta.
    """
    gradient, H, ahead = np.zeros(3), np.eye(3), np.zeros(3)
    value, damping = _log_density(p, first, cells, above, offsets, mean, variance, gradient), 1e-3
    for step in range(N_NEWTON + 1):
        for k in range(first, 3):
            q = p.copy()
            q[k] += 1e-4
            _log_density(q, first, cells, above, offsets, mean, variance, ahead)
            H[k, first:] = -(ahead[first:] - gradient[first:]) / 1e-4
        H = 0.5 * (H + H.T)
        if step == N_NEWTON:
            break
        gained = 0.0
        for _ in range(8):
            M = H.copy()
            for k in range(first, 3):
                M[k, k] = max(M[k, k], 1e-3) * (1.0 + damping) + 1e-6
            move = np.linalg.solve(M, gradient)
            q = np.minimum(np.maximum(p + np.minimum(np.maximum(move, -2.0), 2.0), _LOW), _HIGH)
            new = _log_density(q, first, cells, above, offsets, mean, variance, ahead)
            if new > value:
                gained, value, damping = new - value, new, damping * 0.1
                p[:], gradient[:] = q, ahead
                break
            damping = max(damping, 1e-3) * 10.0
        if gained < 1e-6:
            break
    curvatures, axes = np.linalg.eigh(H[first:, first:])
    curvatures = np.maximum(curvatures, 1e-3)
    spread = (axes[1 - first] ** 2 / curvatures).sum()
    return value, value + 0.5 * (math.log(2 * math.pi) - np.log(curvatures)).sum(), spread


@compiled()
def _log_density(
    p: np.ndarray,
    first: int,
    cells: np.ndarray,
    above: np.ndarray,
    offsets: np.ndarray,
    mean: float,
    variance: float,
    gradient: np.ndarray,
) -> float:
    """Return the log of likelihood and prior of a gene, but for what does not depend on p, and write its gradient."""
    t, s, theta = p[1], p[2], math.exp(p[1])
    pi = 1.0 / (1.0 + math.exp(-p[0])) if first == 0 else 0.0
    log_kept = math.log1p(-pi)
    value = -0.5 * ((t - mean) ** 2 / variance + math.log(2 * math.pi * variance))
    gradient[0], gradient[1], gradient[2] = 0.0, (mean - t) / variance, 0.0
    if first == 0:  # pi is uniform
        value += math.log(pi) + log_kept
        gradient[0] = 1.0 - 2.0 * pi
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
