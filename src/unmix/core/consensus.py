"""Metagenes: the consensus of many factorisations of one matrix, and how stable each rank is."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from unmix.core.blocks import Block, reduce_rows
from unmix.core.replicates import Replicates
from unmix.core.simplex import nnls


@dataclass(frozen=True)
class Consensus:
    """Clusters of spectra and their medians."""

    spectra: np.ndarray
    """Median of every cluster, (k, n_vars), unit sum."""
    density: np.ndarray
    """Mean distance of every replicate spectrum to its nearest others, (n_runs * k,)."""
    kept: np.ndarray
    """Whether the spectrum is dense enough to count, (n_runs * k,)."""
    silhouette: float
    """Mean silhouette of the clusters before the filter: the stability of this rank."""


def combine(
    replicates: Replicates, k: int, *, max_distance: float = 0.5, neighbourhood: float = 0.3, rng: Any = 0
) -> Consensus:
    """Cluster the replicates' spectra, leave isolated ones out, and take the median of each cluster.

    A spectrum counts where its mean distance to the nearest `neighbourhood * n_runs` spectra (itself included) is below
    `max_distance`.

    Raises
    ------
    ValueError
        If fewer than k spectra are dense enough.

    References
    ----------
    Kotliar et al. (2019), Identifying gene expression programs of cell-type identity and cellular activity with
    single-cell RNA-Seq. eLife 8, e43803.

    Examples
    --------
    >>> from unmix.core.replicates import replicate
    >>> runs = replicate(np.kron(np.eye(2), np.ones((5, 4))), 2, n_runs=5)
    >>> found = combine(runs, 2)
    >>> np.round(found.spectra.max(axis=1), 2)
    array([0.25, 0.25])
    """
    spectra = replicates.spectra
    distances = np.sqrt(_squared(spectra, spectra))
    near = max(int(neighbourhood * len(spectra) / k), 1)
    density = np.sort(distances, axis=1)[:, : near + 1].sum(axis=1) / near
    kept = density < max_distance
    if kept.sum() < k:
        msg = (
            f"{int(kept.sum())} of {len(spectra)} spectra have neighbours within {max_distance:g}, fewer than the {k} "
            "components: no program recurs. Try fewer components, more runs or a larger `max_distance`."
        )
        raise ValueError(msg)
    everywhere = _kmeans(spectra, k, np.random.default_rng(rng))
    clusters = _kmeans(spectra[kept], k, np.random.default_rng(rng))
    medians = np.array([np.median(spectra[kept][clusters == c], axis=0) for c in range(k)])
    total = medians.sum(axis=1, keepdims=True)
    medians = medians / np.where(total > 0, total, 1)
    return Consensus(medians, density, kept, silhouette(distances, everywhere))


def _kmeans(points: np.ndarray, k: int, rng: np.random.Generator, n_starts: int = 10) -> np.ndarray:
    """Return the labels of the best of several runs of Lloyd's algorithm from k-means++ starts."""
    best, labels = np.inf, np.zeros(len(points), int)
    for _ in range(n_starts):
        centres = _spread(points, k, rng)
        for _ in range(300):
            distances = _squared(points, centres)
            found = distances.argmin(axis=1)
            new = np.array([points[found == c].mean(axis=0) if (found == c).any() else centres[c] for c in range(k)])
            if np.array_equal(new, centres):
                break
            centres = new
        inertia = float(distances.min(axis=1).sum())
        if inertia < best * (1 - 1e-12) and len(np.unique(found)) == k:
            best, labels = inertia, found
    return labels


def _squared(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return squared distances between rows, by one matrix product."""
    sums = np.einsum("ij,ij->i", a, a)[:, None] + np.einsum("ij,ij->i", b, b)
    return np.maximum(sums - 2 * (a @ b.T), 0)


def _spread(points: np.ndarray, k: int, rng: np.random.Generator) -> np.ndarray:
    """Draw k centres, each with probability proportional to its squared distance from those before (k-means++)."""
    chosen = [int(rng.integers(len(points)))]
    nearest = np.full(len(points), np.inf)
    for _ in range(k - 1):
        nearest = np.minimum(nearest, _squared(points, points[chosen[-1:]])[:, 0])
        total = nearest.sum()
        chosen.append(int(rng.choice(len(points), p=nearest / total if total > 0 else None)))
    return points[chosen]


def silhouette(distances: np.ndarray, labels: np.ndarray) -> float:
    """Return the mean silhouette from a matrix of distances, as scikit-learn defines it; 0 for a single cluster.

    Examples
    --------
    >>> points = np.array([[0.0], [1.0], [10.0], [11.0]])
    >>> round(silhouette(np.abs(points - points.T), np.array([0, 0, 1, 1])), 4)
    0.8997
    """
    names = np.unique(labels)
    if len(names) < 2:
        return 0.0
    member = labels[:, None] == names
    sizes = member.sum(axis=0)
    sums = distances @ member
    own = sums[member] / np.maximum((member * (sizes - 1)).sum(axis=1), 1)
    other = np.where(member, np.inf, sums / sizes).min(axis=1)
    widths = (other - own) / np.maximum(np.maximum(own, other), 1e-300)
    return float(np.where((member * sizes).sum(axis=1) > 1, widths, 0).mean())


def refit_spectra(
    X: Any, usages: np.ndarray, row_scale: np.ndarray, *, n_jobs: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    """Return non-negative spectra (k, n_vars) and z-score regression coefficients (k, n_vars) of all variables.

    With T the matrix with rows multiplied by `row_scale`: the spectra minimise `||T - U S||` over S >= 0 with U the
    usages normalised to unit row sums; the coefficients are those of ordinary least squares of z-scored T on the
    usages. Rows whose scale is 0 take no part.

    Examples
    --------
    >>> spectra, _ = refit_spectra(np.array([[2.0, 4.0], [2.0, 4.0]]), np.ones((2, 1)), np.ones(2))
    >>> spectra
    array([[2., 4.]])
    """
    shares = row_shares(usages)
    sums = reduce_rows(_spectra_sums, X, shares, usages, row_scale, n_jobs=n_jobs, desc="spectra")
    cross, raw, total, squares = sums
    n = max(int((row_scale > 0).sum()), 1)
    mean = total / n
    sd = np.sqrt(np.maximum(squares / n - mean**2, 0))
    spectra = nnls(shares.T @ shares, cross).T
    slopes = np.linalg.lstsq(usages.T @ usages, raw.T - np.outer(usages.sum(axis=0), mean), rcond=None)[0]
    return spectra, slopes / np.where(sd > 0, sd, np.inf)


def row_shares(usages: np.ndarray) -> np.ndarray:
    """Return rows divided by their sums; rows of zeros stay zero."""
    total = usages.sum(axis=1, keepdims=True)
    return usages / np.where(total > 0, total, 1)


def _spectra_sums(block: Block, shares: np.ndarray, usages: np.ndarray, row_scale: np.ndarray) -> tuple[Any, ...]:
    """Return T'U, T'W, and column sums and sums of squares of T."""
    block, scaled = block.astype(np.float64), row_scale[:, None]  # squares of small integers would overflow
    squared = block**2 if isinstance(block, np.ndarray) else block.multiply(block).tocsr()
    return block.T @ (shares * scaled), block.T @ (usages * scaled), block.T @ row_scale, squared.T @ row_scale**2


def gene_moments(
    X: Any, row_scale: np.ndarray, codes: np.ndarray | None = None, *, n_jobs: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and (population) variance of every variable of X with its rows multiplied by `row_scale`.

    With `codes`, the batch of every row, the variance is the one within batches. Rows whose scale is 0 do not count.
    """
    codes = np.zeros(len(row_scale), int) if codes is None else codes
    member = np.eye(int(codes.max(initial=0)) + 1)[codes] * (row_scale > 0)[:, None]
    total, squares = reduce_rows(_moment_sums, X, row_scale, member, n_jobs=n_jobs, desc="genes")
    between = (total**2 / np.maximum(member.sum(axis=0), 1)).sum(axis=1)
    n = max(float(member.sum()), 1)
    return total.sum(axis=1) / n, np.maximum((squares - between) / n, 0)


def _moment_sums(block: Block, row_scale: np.ndarray, member: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    block = block.astype(np.float64)
    squared = block**2 if isinstance(block, np.ndarray) else block.multiply(block).tocsr()
    return block.T @ (row_scale[:, None] * member), squared.T @ row_scale**2


def fano_genes(mean: np.ndarray, variance: np.ndarray, n_top: int) -> np.ndarray:
    """Return the positions of the genes whose Fano factor most exceeds the trend `A^2 mean + B^2`.

    A is the smallest coefficient of variation among the 20 genes of largest mean; B^2 the median Fano factor of the
    genes whose mean and Fano factor lie between their 10th and 90th percentiles.

    Examples
    --------
    >>> fano_genes(np.array([1.0, 1.0, 2.0]), np.array([1.0, 9.0, 2.0]), 1)
    array([1])
    """
    use = (mean > 0) & (variance > 0)
    fano = np.where(use, variance / np.where(use, mean, 1), 0)
    largest = np.argsort(-np.where(use, mean, -1))[:20]
    A = (np.sqrt(variance[largest]) / np.where(mean[largest] > 0, mean[largest], 1)).min()
    inside = use & _between(mean, use) & _between(fano, use)
    B2 = np.median(fano[inside]) if inside.any() else 0.0
    excess = np.where(use, fano / np.maximum(A**2 * mean + B2, 1e-300), -1)
    return np.sort(np.argsort(-excess, kind="stable")[: min(n_top, int(use.sum()))])


def _between(values: np.ndarray, use: np.ndarray) -> np.ndarray:
    low, high = np.quantile(values[use], [0.1, 0.9]) if use.any() else (0.0, 0.0)
    return (values >= low) & (values <= high)


def best_rank(silhouettes: Sequence[float], ranks: Sequence[int]) -> int:
    """Return the rank of highest stability; the largest among equals."""
    return max(zip(silhouettes, ranks, strict=True))[1]
