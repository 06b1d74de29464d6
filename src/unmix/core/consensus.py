"""Metagenes: the consensus of many factorisations of one matrix, and how stable each rank is."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.cluster.hierarchy import cophenet, linkage
from scipy.spatial.distance import cdist, squareform

from unmix._settings import progress
from unmix.core.blocks import Block, reduce_rows
from unmix.core.factorization import Walk, nmf
from unmix.core.kl import nmf_kl
from unmix.core.simplex import nnls


@dataclass(frozen=True)
class Replicates:
    """Spectra of many runs, and the component that dominates each sampled row in every run."""

    spectra: np.ndarray
    """(n_runs * k, n_vars), unit length."""
    labels: np.ndarray
    """(n_runs, n_sampled)."""
    error: float
    """Lowest loss among the runs."""


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


def replicate(
    X: Any,
    k: int,
    *,
    n_runs: int = 100,
    loss: str = "frobenius",
    sampled: np.ndarray | None = None,
    walk: Walk | None = None,
    rng: "int | np.random.Generator | None" = 0,
) -> Replicates:
    """Factorise X from `n_runs` random starts; threads are shared out among the runs, one each.

    Parameters
    ----------
    X
        Non-negative matrix in memory, (n_obs, n_vars).
    k
        Number of components.
    n_runs
        Number of starts.
    loss
        `"frobenius"` or `"kl"`.
    sampled
        Rows whose dominant component is kept; all by default.
    walk
        Threads, tolerance and limit of every run.
    rng
        Seed, spawned per run.

    Examples
    --------
    >>> X = np.kron(np.eye(2), np.ones((5, 4)))
    >>> replicate(X, 2, n_runs=3).spectra.shape
    (6, 8)
    """
    walk = walk or Walk(tol=1e-4, max_iter=1000)
    one = replace(walk, n_jobs=1)
    solve = nmf_kl if loss == "kl" else nmf
    rows = np.arange(X.shape[0]) if sampled is None else sampled

    def run(seed: np.random.Generator) -> tuple[np.ndarray, np.ndarray, float]:
        fit = solve(X, k, start="random", walk=one, rng=seed)
        size = np.linalg.norm(fit.H, axis=1)
        dominant = (fit.W[rows] * size).argmax(axis=1)
        return fit.H / np.where(size > 0, size, 1)[:, None], dominant, float(fit.loss[-1])

    seeds = np.random.default_rng(rng).spawn(n_runs)
    with ThreadPoolExecutor(walk.n_jobs) as pool:
        runs = list(progress(pool.map(run, seeds), total=n_runs, desc=f"metagenes, {k} components"))
    spectra, labels, errors = zip(*runs, strict=True)
    return Replicates(np.vstack(spectra).astype(np.float64), np.array(labels), min(errors))


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
    >>> runs = replicate(np.kron(np.eye(2), np.ones((5, 4))), 2, n_runs=5)
    >>> found = combine(runs, 2)
    >>> np.round(found.spectra.max(axis=1), 2)
    array([0.25, 0.25])
    """
    spectra = replicates.spectra
    distances = cdist(spectra, spectra)
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
            distances = cdist(points, centres, "sqeuclidean")
            found = distances.argmin(axis=1)
            new = np.array([points[found == c].mean(axis=0) if (found == c).any() else centres[c] for c in range(k)])
            if np.array_equal(new, centres):
                break
            centres = new
        inertia = float(distances.min(axis=1).sum())
        if inertia < best * (1 - 1e-12) and len(np.unique(found)) == k:
            best, labels = inertia, found
    return labels


def _spread(points: np.ndarray, k: int, rng: np.random.Generator) -> np.ndarray:
    """Draw k centres, each with probability proportional to its squared distance from those before (k-means++)."""
    chosen = [int(rng.integers(len(points)))]
    for _ in range(k - 1):
        nearest = cdist(points, points[chosen], "sqeuclidean").min(axis=1)
        total = nearest.sum()
        chosen.append(int(rng.choice(len(points), p=nearest / total if total > 0 else None)))
    return points[chosen]


def silhouette(distances: np.ndarray, labels: np.ndarray) -> float:
    """Return the mean silhouette from a matrix of distances, as scikit-learn defines it; 0 for a single cluster.

    Examples
    --------
    >>> points = np.array([[0.0], [1.0], [10.0], [11.0]])
    >>> round(silhouette(cdist(points, points), np.array([0, 0, 1, 1])), 4)
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


def brunet(labels: np.ndarray) -> tuple[float, float]:
    """Return cophenetic correlation and dispersion of the consensus matrix of hard labels.

    The consensus is the share of runs that put two rows together. Its cophenetic correlation, under average linkage,
    and its dispersion, the mean of `4 (C - 1/2)^2`, are 1 where all runs agree.

    Parameters
    ----------
    labels
        Component of every sampled row in every run, (n_runs, n_sampled).

    References
    ----------
    Brunet et al. (2004), Metagenes and molecular pattern discovery using matrix factorization. Kim, Park (2007).

    Examples
    --------
    >>> brunet(np.array([[0, 0, 1, 1], [1, 1, 0, 0]]))
    (1.0, 1.0)
    """
    n_sampled = labels.shape[1]
    together = np.zeros((n_sampled, n_sampled))
    for run in labels:
        together += run[:, None] == run
    C = together / len(labels)
    apart = squareform(1 - C, checks=False)
    spread = float((4 * (C - 0.5) ** 2).mean())
    if apart.size < 2 or np.ptp(apart) == 0:
        return 1.0, spread
    return float(cophenet(linkage(apart, "average"), apart)[0]), spread


def refit_spectra(
    X: Any, usages: np.ndarray, row_scale: np.ndarray, *, n_jobs: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    """Return non-negative spectra (k, n_vars) and z-score regression coefficients (k, n_vars) of all variables.

    With T the matrix with rows multiplied by `row_scale`: the spectra minimise `||T - U S||` over S >= 0 with U the
    usages normalised to unit row sums; the coefficients are those of ordinary least squares of z-scored T on the
    usages.

    Examples
    --------
    >>> spectra, _ = refit_spectra(np.array([[2.0, 4.0], [2.0, 4.0]]), np.ones((2, 1)), np.ones(2))
    >>> spectra
    array([[2., 4.]])
    """
    shares = row_shares(usages)
    sums = reduce_rows(_spectra_sums, X, shares, usages, row_scale, n_jobs=n_jobs, desc="spectra")
    cross, raw, total, squares = sums
    mean = total / len(usages)
    sd = np.sqrt(np.maximum(squares / len(usages) - mean**2, 0))
    spectra = nnls(shares.T @ shares, cross).T
    slopes = np.linalg.lstsq(usages.T @ usages, raw.T - np.outer(usages.sum(axis=0), mean), rcond=None)[0]
    return spectra, slopes / np.where(sd > 0, sd, np.inf)


def row_shares(usages: np.ndarray) -> np.ndarray:
    """Return rows divided by their sums; rows of zeros stay zero."""
    total = usages.sum(axis=1, keepdims=True)
    return usages / np.where(total > 0, total, 1)


def _spectra_sums(block: Block, shares: np.ndarray, usages: np.ndarray, row_scale: np.ndarray) -> tuple[Any, ...]:
    """Return T'U, T'W, and column sums and sums of squares of T."""
    scaled, squared = row_scale[:, None], block.multiply(block) if not isinstance(block, np.ndarray) else block**2
    squares = squared.astype(np.float64).T @ row_scale**2
    block = block.astype(np.float64)
    return block.T @ (shares * scaled), block.T @ (usages * scaled), block.T @ row_scale, squares


def gene_moments(X: Any, row_scale: np.ndarray, *, n_jobs: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and (population) variance of every variable of X with its rows multiplied by `row_scale`."""
    total, squares = reduce_rows(_moment_sums, X, row_scale, n_jobs=n_jobs, desc="genes")
    mean = total / X.shape[0]
    return mean, np.maximum(squares / X.shape[0] - mean**2, 0)


def _moment_sums(block: Block, row_scale: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    block = block.astype(np.float64)
    squared = block**2 if isinstance(block, np.ndarray) else block.multiply(block).tocsr()
    return block.T @ row_scale, squared.T @ row_scale**2


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
