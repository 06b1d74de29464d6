"""Granularity and neighbourhoods of archetypes: anchors, a merge tree, communities of rows.

Symbols as in :mod:`unmix.core.archetypes`: W (n_obs x K) mixtures, B (K x n_obs) anchors' weights, Z (K x D)
archetypes.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import sparse
from scipy.cluster.hierarchy import average, fcluster
from scipy.spatial.distance import squareform

from unmix.core.archetype_weights import squared_distances


@dataclass(frozen=True)
class Anchors:
    """Rows that stand for archetypes, the archetype's heaviest first; one entry per pair of archetype and row."""

    archetype: np.ndarray
    row: np.ndarray
    weight: np.ndarray
    """Weight in B, 0 for rows that are anchors by their mixture only."""
    mixture: np.ndarray
    """Weight in W."""


def find_anchors(W: np.ndarray, B: sparse.csr_array, n_anchors: int = 10) -> Anchors:
    """Return, per archetype, the rows of its hull point and those of highest W, `n_anchors` in all at least.

    Ties in W are settled by the weight in B, then by the order of the rows. A row is listed once per archetype.

    Examples
    --------
    >>> import numpy as np
    >>> from scipy import sparse
    >>> find_anchors(np.array([[1.0, 0.0], [0.2, 0.8]]), sparse.csr_array(np.eye(2)), 1).row
    array([0, 1])
    """
    parts = []
    for k in range(W.shape[1]):
        b = B[[k]].toarray().ravel()
        order = np.lexsort((np.arange(len(W)), -b, -W[:, k]))[:n_anchors]
        rows = np.union1d(order[W[order, k] > 0], np.flatnonzero(b))
        rows = rows[np.lexsort((rows, -W[rows, k], -b[rows]))]
        parts.append((np.full(len(rows), k), rows, b[rows], W[rows, k]))
    return Anchors(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def archetype_distances(W: np.ndarray, Z: np.ndarray) -> np.ndarray:
    """Return distances between archetypes in [0, 1]: the mean of a distance of profiles and one of overlap in W.

    Profiles: |z_j - z_k| over the largest such distance. Overlap: 1 - sum_i min(w_ij, w_ik) over the smaller of the two
    sums of weights, so that archetypes which the same rows carry are near each other.
    """
    K = len(Z)
    profile = np.sqrt(((Z[:, None] - Z[None]) ** 2).sum(axis=2))
    profile = profile / profile.max() if profile.max() > 0 else profile
    shared = np.array([np.minimum(W, W[:, [k]]).sum(axis=0) for k in range(K)])
    totals = W.sum(axis=0)
    smaller = np.minimum(totals[:, None], totals[None])
    overlap = np.divide(shared, smaller, out=np.zeros_like(shared), where=smaller > 0)
    distance = 0.5 * profile + 0.5 * (1.0 - np.clip(overlap, 0.0, 1.0))
    np.fill_diagonal(distance, 0.0)
    return 0.5 * (distance + distance.T)


def merge_tree(W: np.ndarray, Z: np.ndarray) -> np.ndarray:
    """Return the average-linkage tree over archetypes (scipy's linkage matrix, (K - 1) x 4)."""
    if len(Z) < 2:
        return np.empty((0, 4))
    return average(squareform(archetype_distances(W, Z), checks=False))


def cut_tree(linkage: np.ndarray, *, resolution: float | None = None, n_groups: int | None = None) -> np.ndarray:
    """Return the group of every archetype, groups numbered in the order of their first archetype.

    Parameters
    ----------
    linkage
        What `merge_tree` returns.
    resolution
        Height in [0, 1] up to which archetypes are merged.
    n_groups
        Number of groups wanted, instead of `resolution`.

    Examples
    --------
    >>> cut_tree(np.array([[0.0, 2.0, 0.1, 2.0], [1.0, 3.0, 0.9, 3.0]]), resolution=0.5)
    array([0, 1, 0])
    """
    K = len(linkage) + 1
    if K == 1:
        return np.zeros(1, dtype=int)
    if n_groups is not None:
        raw = fcluster(linkage, n_groups, criterion="maxclust")
    elif resolution is not None:
        raw = fcluster(linkage, resolution, criterion="distance")
    else:
        raw = np.arange(K)
    _, first, group = np.unique(raw, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[group]


def merge(
    W: np.ndarray, B: sparse.csr_array, Z: np.ndarray, group: np.ndarray
) -> tuple[np.ndarray, sparse.csr_array, np.ndarray]:
    """Merge archetypes: W is summed within groups, B and Z are averaged with the archetypes' total weights."""
    groups = int(group.max()) + 1
    member = np.zeros((groups, len(Z)))
    member[group, np.arange(len(Z))] = 1.0
    share = member * np.maximum(W.sum(axis=0), np.finfo(float).tiny)
    share /= share.sum(axis=1, keepdims=True)
    return W @ member.T, sparse.csr_array(sparse.csr_array(share) @ B), share @ Z


def nearest_communities(X: Any, Z: np.ndarray, share: float = 0.1) -> np.ndarray:
    """Return the community of every archetype, n_obs x K: the given share of all rows that is nearest to it."""
    n = X.shape[0]
    size = min(max(int(np.ceil(share * n)), 2), n)
    member = np.zeros((n, len(Z)), dtype=bool)
    distance = squared_distances(X, Z)
    for k in range(len(Z)):
        order = np.argsort(distance[:, k], kind="stable")
        member[order[:size], k] = True
    return member


def heavy_communities(W: np.ndarray, threshold: float = 0.5) -> np.ndarray:
    """Return the community of every archetype, n_obs x K: the rows that weigh it at `threshold` or above."""
    return threshold <= W


def disjoint(member: np.ndarray, W: np.ndarray) -> np.ndarray:
    """Leave every row only to the one of its communities whose archetype weighs most in it."""
    best = np.where(member, W, -1.0).argmax(axis=1)
    alone = np.zeros_like(member)
    alone[np.arange(len(W)), best] = True
    return alone & member


def smooth(W: np.ndarray, neighbours: sparse.spmatrix, strength: float = 0.5) -> np.ndarray:
    """Mix every row of W with the mean of its spatial neighbours; rows stay on the simplex.

    Rows without neighbours are left as they are.
    """
    graph = sparse.csr_array(neighbours).astype(float)
    degree = np.asarray(graph.sum(axis=1)).ravel()
    mean = (graph @ W) / np.maximum(degree, np.finfo(float).tiny)[:, None]
    mixed = (1.0 - strength) * W + strength * mean
    return np.where(degree[:, None] > 0, mixed, W)
