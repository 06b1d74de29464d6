"""Signatures of cell types from labelled cells: mean profiles, their sampling variances, tests, and markers.

Symbols: y_cg is the count of gene g in cell c, n_c = sum_g y_cg its depth, x_cg = y_cg / n_c the share of the gene. The
profile of type k is S_gk, the mean of `SCALE` x_cg over its n_k cells, with sampling variance V_gk; or, for types of few
cells, a mean of that and of the shares of the cells' summed counts (:mod:`unmix.core.cell_means`).
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy import sparse, stats

from unmix.core.blocks import Block, iter_blocks
from unmix.core.cell_means import PRIOR_DF, means_by_number, plain_means
from unmix.core.cell_moments import SCALE, Moments
from unmix.core.donors import combine_donors
from unmix.core.markers import rank_markers

FEW = 10
"""Types (or donors' types) of fewer cells get means of least variance where these are asked for."""
PSEUDO = 0.5
"""Added to both means of a fold change, in counts per `SCALE`."""


@dataclass(frozen=True)
class Signatures:
    """Profiles of cell types and what a test says of every gene; arrays are genes x types unless said."""

    profiles: np.ndarray
    """Mean of depth-normalised counts, counts per 10,000."""
    variances: np.ndarray
    """Sampling variance of every entry of `profiles`."""
    log_fold_change: np.ndarray
    """log2 of the type's mean over the mean of all other cells."""
    p_values: np.ndarray
    """Two-sided, type against rest."""
    q_values: np.ndarray
    """Benjamini-Hochberg over the genes of a type."""
    n_cells: np.ndarray
    """Shape (K,)."""
    sizes: np.ndarray
    """Mean depth of a type's cells in counts, shape (K,)."""
    size_variances: np.ndarray
    """Variance of a cell's depth relative to the squared mean, shape (K,); drawn towards that of all types."""
    shrinkage: np.ndarray
    """Weight of the pooled mean in a type's profile, 0 for types with enough cells; shape (K,)."""
    between: np.ndarray | None = None
    """Variance between donors relative to the squared profile, shape (G,); `None` where donors were not told apart."""


@dataclass(frozen=True)
class MarkerChoice:
    """Markers of every type, and the curve they were chosen by."""

    markers: list[np.ndarray]
    """Positions of the markers of every type, best first."""
    n_markers: int
    """Markers per type that gave the smallest condition number."""
    curve: np.ndarray
    """Columns: markers per type, condition number of the signature."""


def signatures_from_moments(m: Moments, *, min_cells: int = 10, least_variance: bool = False) -> Signatures:
    """Turn sums over cells into profiles, variances and Welch tests.

    Types of fewer than `min_cells` cells are shrunk towards the pooled mean of all types. The weight of the pooled mean
    is lambda_k = sum_g V_gk / sum_g (S_gk - m_g)^2, at most 1: the share of the distance between profile and pooled mean
    that sampling alone would make (James-Stein; Schaefer and Strimmer 2005).

    Parameters
    ----------
    m
        Sums over the cells of K types; every type needs at least one cell.
    min_cells
        Number of cells from which a type is left as it is.
    least_variance
        Whether profiles of types of fewer than `FEW` cells are means of least variance
        (:func:`unmix.core.cell_means.least_variance_means`) instead of plain means over the cells.

    References
    ----------
    Schaefer, J. and Strimmer, K. (2005) A shrinkage approach to large-scale covariance matrix estimation.
    Stat. Appl. Genet. Mol. Biol. 4, 32.
    """
    mean, variances = means_by_number(m, FEW) if least_variance else plain_means(m)
    few = m.n_cells < min_cells
    pooled = mean.mean(axis=0)
    distance = ((mean - pooled) ** 2).sum(axis=1)
    weight = np.where(few, np.minimum(variances.sum(axis=1) / np.maximum(distance, 1e-300), 1.0), 0.0)
    profiles = (1 - weight[:, None]) * mean + weight[:, None] * pooled
    p_values = _welch(m)
    q_values = adjusted(p_values, (m.share > 0).any(axis=0))
    return Signatures(
        profiles.T.copy(),
        ((1 - weight[:, None]) ** 2 * variances).T.copy(),
        _log_fold_change(m).T.copy(),
        p_values.T.copy(),
        q_values.T.copy(),
        m.n_cells.astype(np.int64),
        m.depth / m.n_cells,
        _size_variances(m),
        weight,
    )


def _size_variances(m: Moments) -> np.ndarray:
    mean, df = m.depth / m.n_cells, np.maximum(m.n_cells - 1, 0.0)
    squares = np.maximum(m.depth_squared / mean**2 - m.n_cells, 0.0)
    overall = squares.sum() / max(df.sum(), 1.0)
    return (squares + PRIOR_DF * overall) / (df + PRIOR_DF)


def with_donors(signatures: Signatures, m: Moments, *, least_variance: bool = False) -> Signatures:
    """Replace profiles and variances by those over donors, which count the donors' differences.

    Parameters
    ----------
    signatures
        What :func:`signatures_from_moments` made of all cells.
    m
        Sums over the cells of every type and donor, numbered type by type.
    least_variance
        As for :func:`signatures_from_moments`.
    """
    K = len(signatures.n_cells)
    mean, variance = means_by_number(m, FEW) if least_variance else plain_means(m)
    shape = (K, -1, mean.shape[1])
    found = combine_donors(mean.reshape(shape), variance.reshape(shape), m.n_cells.reshape(K, -1) > 0)
    weight = signatures.shrinkage[:, None]  # of the pooled mean, for types with few cells
    profiles = (1 - weight) * found.profiles + weight * found.profiles.mean(axis=0)
    variances = (1 - weight) ** 2 * found.variances
    return replace(signatures, profiles=profiles.T.copy(), variances=variances.T.copy(), between=found.between)


def with_wilcoxon(signatures: Signatures, X: Any, labels: np.ndarray) -> Signatures:
    """Replace the p- and q-values by those of Wilcoxon's rank-sum test, with ties, on log1p of depth-normalised counts.

    Parameters
    ----------
    signatures
        What :func:`signatures_from_moments` made of the same cells.
    X
        Counts, cells x genes; the labelled cells are gathered into one sparse matrix.
    labels
        Type of every cell, -1 for cells to leave out.
    """
    parts = [_log_shares(block)[labels[rows] >= 0] for rows, block in iter_blocks(X)]
    labelled = labels[labels >= 0]
    member = labelled[:, None] == np.arange(len(signatures.n_cells))
    ranked = rank_markers(sparse.csc_array(sparse.vstack(parts)), member)
    q_values = adjusted(ranked.pval.T, (signatures.profiles > 0).any(axis=1)).T
    return replace(signatures, p_values=ranked.pval, q_values=q_values)


def adjusted(p_values: np.ndarray, tested: Any) -> np.ndarray:
    """Return Benjamini-Hochberg q-values of every row over the columns that are tested, and 1 for the others.

    A gene without counts can never be found, and whether a file lists it must not matter to the others.

    Examples
    --------
    >>> adjusted(np.array([[0.01, 1.0, 0.04]]), np.array([True, False, True]))
    array([[0.02, 1.  , 0.04]])
    """
    q_values = np.ones_like(p_values)
    if tested.any():
        q_values[:, tested] = stats.false_discovery_control(p_values[:, tested], axis=1)
    return q_values


def _log_shares(block: Block) -> sparse.csr_array:
    cells = sparse.csr_array(block).astype(np.float64)
    totals = np.asarray(cells.sum(axis=1)).ravel()
    shares = sparse.csr_array(sparse.diags_array(SCALE / np.where(totals > 0, totals, 1.0)) @ cells)
    shares.data = np.log1p(shares.data)
    return shares


def _welch(m: Moments) -> np.ndarray:
    """Two-sided p-values of Welch's t-test on log1p values, type against all other cells; 1 where it is undefined."""
    n = m.n_cells[:, None]
    rest = n.sum() - n
    mean, mean_rest = m.log / n, (m.log.sum(axis=0) - m.log) / np.maximum(rest, 1)
    var = _sample_variance(m.log, m.log_squared, n)
    var_rest = _sample_variance(m.log.sum(axis=0) - m.log, m.log_squared.sum(axis=0) - m.log_squared, rest)
    a, b = var / n, var_rest / np.maximum(rest, 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        t = (mean - mean_rest) / np.sqrt(a + b)
        df = (a + b) ** 2 / (a**2 / (n - 1) + b**2 / (rest - 1))
        p = 2 * stats.t.sf(np.abs(t), df)
    return np.where(np.isfinite(p), p, 1.0)


def _sample_variance(total: np.ndarray, squares: np.ndarray, n: np.ndarray) -> np.ndarray:
    return np.where(n > 1, np.maximum(squares - total**2 / np.maximum(n, 1), 0.0) / np.maximum(n - 1, 1), np.nan)


def _log_fold_change(m: Moments) -> np.ndarray:
    n = m.n_cells[:, None]
    rest = (m.share.sum(axis=0) - m.share) / np.maximum(n.sum() - n, 1)
    return np.log2((SCALE * m.share / n + PSEUDO) / (SCALE * rest + PSEUDO))


def choose_markers(
    profiles: np.ndarray,
    log_fold_change: np.ndarray,
    q_values: np.ndarray,
    *,
    bounds: tuple[int, int] = (50, 150),
    max_q: float = 0.01,
) -> MarkerChoice:
    """Choose markers as CIBERSORT does: the number per type whose signature has the smallest condition number.

    The genes of a type are those that rise in it at a q-value of at most `max_q`, by decreasing fold change; where they
    are fewer than the lower bound, rising genes above `max_q` follow, up to this bound and no further. For every G between
    the bounds the union of the first G of every type is a candidate (Newman et al. 2015).

    Parameters
    ----------
    profiles, log_fold_change, q_values
        Genes x types.
    bounds
        Smallest and largest G.
    max_q
        Largest q-value of a marker, except of those that fill a type up to the lower bound.

    References
    ----------
    Newman, A. M. et al. (2015) Robust enumeration of cell subsets from tissue expression profiles. Nat. Methods 12, 453.

    Examples
    --------
    >>> choice = choose_markers(np.eye(4) + 0.1, 4 * np.eye(4) - 1, np.zeros((4, 4)), bounds=(1, 2))
    >>> [m.tolist() for m in choice.markers], choice.n_markers
    ([[0], [1], [2], [3]], 1)
    """
    ranked = [_ranked_genes(log_fold_change[:, k], q_values[:, k], bounds[0], max_q) for k in range(profiles.shape[1])]
    sizes = range(bounds[0], max(bounds[0], min(bounds[1], max(map(len, ranked)))) + 1)
    curve = np.array([(size, _condition_number(profiles, ranked, size)) for size in sizes])
    best = int(curve[np.argmin(curve[:, 1]), 0])
    return MarkerChoice([genes[:best] for genes in ranked], best, curve)


def _ranked_genes(log_fold_change: np.ndarray, q_values: np.ndarray, at_least: int, max_q: float) -> np.ndarray:
    rising = np.flatnonzero(log_fold_change > 0)
    passing = q_values[rising] <= max_q
    order = rising[np.lexsort((rising, -log_fold_change[rising], ~passing))]
    return order[: max(int(passing.sum()), at_least)]


def _condition_number(profiles: np.ndarray, ranked: list[np.ndarray], size: int) -> float:
    genes = np.unique(np.concatenate([genes[:size] for genes in ranked]))
    singular = np.linalg.svd(profiles[genes], compute_uv=False) if len(genes) else np.zeros(1)
    full_rank = len(singular) == profiles.shape[1] and singular[-1] > 0
    return float(singular[0] / singular[-1]) if full_rank else np.inf


def collinear_types(profiles: np.ndarray, threshold: float = 0.999) -> list[tuple[int, int, float]]:
    """Return the pairs of types whose profiles have a cosine of at least `threshold`, with the cosine.

    Examples
    --------
    >>> [(i, j) for i, j, _ in collinear_types(np.array([[1.0, 2.0, 0.0], [1.0, 2.0, 1.0]]))]
    [(0, 1)]
    """
    norm = np.linalg.norm(profiles, axis=0)
    unit = profiles / np.where(norm > 0, norm, 1.0)
    cosine = np.minimum(unit.T @ unit, 1.0)
    first, second = np.nonzero(np.triu(cosine >= threshold, 1))
    return [(int(i), int(j), float(cosine[i, j])) for i, j in zip(first, second, strict=True)]
