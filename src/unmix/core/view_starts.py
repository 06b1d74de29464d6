"""Where a factorisation of modalities starts: the non-negative double SVD of cells that have them all, side by side.

Under squared error the modalities side by side, each in its unit, are one matrix. Of counts the loss is near its minimum
half a squared error over the mean, so that a variable divided by the root of its mean stands for them.
"""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from scipy import sparse

from unmix.core._nmf_kernels import padded
from unmix.core.blocks import take_rows
from unmix.core.starts import LARGEST_SAMPLE, nndsvd_start

ENOUGH = 10
"""Cells with all modalities for every component, from which the start is made; else it is drawn."""


class View(Protocol):
    """What must be known of a modality; see :mod:`unmix.core.views`."""

    X: Any
    rows: np.ndarray
    sizes: np.ndarray
    poisson: bool
    null: float
    means: np.ndarray
    weight: float


def first_factors(views: Sequence[View], n_obs: int, k: int, rng: np.random.Generator) -> tuple[Any, list[np.ndarray]]:
    """Return usages (n_obs, k) and loadings (n_vars, k) of every modality to begin with, padded."""
    W = np.abs(rng.standard_normal((n_obs, k))) / k**0.5
    Ht = [_drawn(view, k, rng) for view in views]
    telling = [m for m, view in enumerate(views) if view.weight * view.null > 0]
    cells = _with_all([views[m] for m in telling], n_obs, rng)
    if telling and min(len(cells) // ENOUGH, sum(len(Ht[m]) for m in telling)) >= k:
        parts, units = zip(*(_side(views[m], cells, n_obs) for m in telling), strict=True)
        S = sparse.csr_array(sparse.hstack(parts))
        fill = any(view.poisson for view in views)
        start = nndsvd_start(S, k, float(S.mean()), fill=fill, rng=int(rng.integers(2**31)))
        ends = np.cumsum([len(unit) for unit in units])[:-1]
        for m, H, unit in zip(telling, np.split(start.H, ends, axis=1), units, strict=True):
            Ht[m] = (H * unit).T
        W = np.tile(start.W.mean(axis=0), (n_obs, 1))
        W[cells] = start.W
    return padded(W, np.float64), [padded(h, np.float64) for h in Ht]


def _drawn(view: View, k: int, rng: np.random.Generator) -> np.ndarray:
    """Return half-normal loadings on the scale of every variable."""
    return 2 / k**0.5 * np.abs(rng.standard_normal((view.X.shape[1], k))) * view.means[:, None]


def _with_all(views: Sequence[View], n_obs: int, rng: np.random.Generator) -> np.ndarray:
    """Return the observations of which every modality tells something, or a sample of them."""
    has = np.zeros(n_obs, np.int64)
    for view in views:
        has[view.rows[view.sizes > 0]] += 1
    cells = np.flatnonzero(has == len(views))
    return np.sort(rng.choice(cells, LARGEST_SAMPLE, replace=False)) if len(cells) > LARGEST_SAMPLE else cells


def _side(view: View, cells: np.ndarray, n_obs: int) -> tuple[sparse.csr_array, np.ndarray]:
    """Return the rows of a modality in the unit in which its loss counts, and what loadings in it are multiplied by."""
    at = np.zeros(n_obs, np.int64)
    at[view.rows] = np.arange(len(view.rows))
    order = np.argsort(at[cells], kind="stable")
    held = sparse.csr_array(take_rows(view.X, at[cells][order]), dtype=np.float64)[np.argsort(order, kind="stable")]
    unit = np.ones(view.X.shape[1])
    if view.poisson:
        unit = np.sqrt(view.means)
        held = (
            sparse.diags_array(1 / view.sizes[at[cells]]) @ held @ sparse.diags_array(1 / np.where(unit > 0, unit, 1.0))
        )
    held = sparse.csr_array(held)
    size = float(np.sqrt(2 * view.weight * view.null) / max(float(np.linalg.norm(held.data)), 1e-300))
    return held * size, unit / size
