"""Cells as they were if fewer of their molecules had been counted: what the encoder is shown of them in training.

The mean of log(1 + count / size) depends on the depth: most of what a shallow cell holds is counted nowhere, and what is
counted of it stands out. An encoder that saw each cell at its own depth alone maps the same cell, counted less deeply,
to another place. So at every step a random half of the cells is thinned, each to a random share of its molecules, while the
decoder is asked for all of its counts.
"""

import math
from dataclasses import replace

import numpy as np
from scipy.special import ndtri

from unmix.core._zinb_kernels import compiled
from unmix.core.networks import Batch
from unmix.core.team import ALONE, Team

LEAST_SHARE = 0.05
"""Smallest share of its molecules that a cell is thinned to."""
LARGE = 64
"""Counts above this are thinned as a normal distribution has it."""


def random_shares(n: int, rng: np.random.Generator) -> np.ndarray:
    """Draw shares of molecules: for half of the cells 1, else from `LEAST_SHARE` to 1, evenly in the logarithm."""
    return np.where(rng.random(n) < 0.5, LEAST_SHARE ** rng.random(n), 1.0)


def thinned(
    batch: Batch, shares: np.ndarray, input_scale: np.ndarray, rng: np.random.Generator, team: Team = ALONE
) -> Batch:
    """Return a batch whose inputs are those of its cells with so many of their molecules.

    A count that is no whole number is thinned as the nearest one above 0, in its own unit.

    Parameters
    ----------
    batch
        Rows of counts.
    shares
        Of the molecules, by row.
    input_scale
        What inputs are divided by, by gene.
    rng, team
        Where numbers come from; every process of a team draws those of the whole batch.
    """
    start, n = team.before(len(batch.counts))
    draws = rng.random(n)[start : start + len(batch.counts)]
    large = np.flatnonzero(batch.counts > LARGE)
    draws[large] = ndtri(draws[large])
    inputs = batch.inputs.copy()
    _thin(batch.indptr, batch.indices, batch.counts, np.exp(batch.log_size), shares, draws, input_scale, inputs)
    return replace(batch, inputs=inputs)


@compiled()
def _thin(
    indptr: np.ndarray,
    indices: np.ndarray,
    counts: np.ndarray,
    sizes: np.ndarray,
    shares: np.ndarray,
    draws: np.ndarray,
    scale: np.ndarray,
    inputs: np.ndarray,
) -> None:
    """Overwrite the inputs of rows that are thinned; draws are uniform, of large counts normal."""
    for i in range(len(sizes)):
        if shares[i] == 1.0:
            continue
        left, total = 0.0, 0.0
        for at in range(indptr[i], indptr[i + 1]):
            x = counts[at]
            n = max(np.rint(x), 1.0)
            k = binomial(n, shares[i], draws[at]) * (x / n)
            inputs[at] = k
            left += k
            total += x
        size = sizes[i] * left / total if left > 0.0 else sizes[i]
        for at in range(indptr[i], indptr[i + 1]):
            if inputs[at] > 0.0:
                inputs[at] = math.log1p(inputs[at] / size) / scale[indices[at]]


@compiled()
def binomial(n: float, share: float, draw: float) -> float:
    """Return how many of n molecules are kept, by inversion of a uniform number, or from a normal one if n is large."""
    if n > LARGE:
        k = np.rint(n * share + math.sqrt(n * share * (1.0 - share)) * draw)
        return min(max(k, 0.0), n)
    if n == 1.0:
        return 1.0 if draw < share else 0.0
    rare = min(share, 1.0 - share)
    p, odds, k = (1.0 - rare) ** n, rare / (1.0 - rare), 0.0
    left = draw - p
    while left >= 0.0 and k < n:
        p *= odds * (n - k) / (k + 1.0)
        k += 1.0
        left -= p
    return k if share <= 0.5 else n - k
