"""Quantile alignment: the usages of every batch are mapped onto the distribution that they have in a reference batch."""

import numpy as np
from scipy.spatial import cKDTree

N_QUANTILES = 50
MIN_CELLS = 20
N_NEIGHBOURS = 20
NOTHING = 1e-9
"""Usages below this share of the largest are zeros: multiplicative steps, as of counts, come near zero but do not reach it."""


def quantile_align(W: np.ndarray, codes: np.ndarray, reference: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Return usages with the distributions of the reference batch, and the cluster of every row.

    A row belongs to the component that is largest in it relative to the component's norm in the batch, by a vote of its
    neighbours there, so that the answer does not depend on the scale of a component in any batch. Within a cluster and a
    component, the quantiles of a batch are mapped onto those of the reference by linear interpolation; where either has
    fewer than `MIN_CELLS` rows, usages stay as they are.

    Parameters
    ----------
    W
        Usages, (n_obs, k).
    codes
        Batch of every row.
    reference
        The batch that stays as it is; the largest by default.

    References
    ----------
    Welch et al. (2019), Single-cell multi-omic integration compares and contrasts features of brain cell identity.

    Examples
    --------
    >>> W = np.random.default_rng(0).gamma(2, 1, (2000, 1))
    >>> W[1000:] *= 3
    >>> aligned, _ = quantile_align(W, np.repeat([0, 1], 1000))
    >>> round(float(W[1000:].mean() / W[:1000].mean()), 1), round(float(aligned[1000:].mean() / W[:1000].mean()), 1)
    (3.0, 1.0)
    """
    W = np.asarray(W, float)
    reference = int(np.bincount(codes).argmax()) if reference is None else reference
    clusters = factor_clusters(W, codes)
    out = W.copy()
    for b in np.unique(codes):
        if b != reference:
            for cluster in np.unique(clusters):
                rows = np.flatnonzero((codes == b) & (clusters == cluster))
                goal = np.flatnonzero((codes == reference) & (clusters == cluster))
                if min(len(rows), len(goal)) >= MIN_CELLS:
                    out[rows] = _mapped(W[rows], W[goal])
    return out, clusters


def factor_clusters(W: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Return the leading component of every row, by a vote of its nearest neighbours in its batch."""
    scaled = np.array(W, dtype=float)
    for b in np.unique(codes):
        norm = np.linalg.norm(scaled[codes == b], axis=0)
        scaled[codes == b] /= np.where(norm > 0, norm, 1.0)
    leading = scaled.argmax(axis=1)
    length = np.linalg.norm(scaled, axis=1, keepdims=True)
    directions = scaled / np.where(length > 0, length, 1.0)
    out = leading.copy()
    for b in np.unique(codes):
        rows = np.flatnonzero(codes == b)
        n_near = min(N_NEIGHBOURS, len(rows))
        near = cKDTree(directions[rows]).query(directions[rows], k=n_near)[1].reshape(len(rows), n_near)
        votes = np.zeros((len(rows), W.shape[1]))
        np.add.at(votes, (np.arange(len(rows))[:, None], leading[rows][near]), 1)
        out[rows] = votes.argmax(axis=1)
    return out


def _mapped(W: np.ndarray, goal: np.ndarray) -> np.ndarray:
    """Map the quantiles of every column onto those of the goal."""
    least = NOTHING * W.max(axis=0)
    W = np.where(least < W, W, 0.0)
    q = np.linspace(0, 1, N_QUANTILES + 1)
    source, target = np.quantile(W, q, axis=0), np.quantile(goal, q, axis=0)
    columns = [_interpolated(w, s, t) for w, s, t in zip(W.T, source.T, target.T, strict=True)]
    return np.column_stack(columns)


def _interpolated(w: np.ndarray, source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Interpolate from source to target quantiles; where source quantiles are equal, to the mean of their targets."""
    distinct, which, times = np.unique(source, return_inverse=True, return_counts=True)
    return np.interp(w, distinct, np.bincount(which, target) / times)
