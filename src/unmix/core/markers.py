"""One pass over the genes ranks them for many groups at once: Wilcoxon rank sums with ties, from sparse columns."""

# mypy: disallow-untyped-defs=False
from dataclasses import dataclass
from typing import Any

import numba as nb
import numpy as np
from scipy import sparse
from scipy.stats import norm

from unmix.core.matching import adjust
from unmix.core.scaled import GATHER_ENTRIES


@dataclass(frozen=True)
class Markers:
    """Statistics of every gene in every group against all other rows; arrays are genes x groups."""

    score: np.ndarray
    pval: np.ndarray
    qval: np.ndarray
    log_fold_change: np.ndarray
    """log2 of the ratio of mean expression (of expm1 of mean logs, as scanpy has it) to that of the other rows."""
    share: np.ndarray
    """Share of the group's rows that express the gene."""
    share_rest: np.ndarray
    specificity: np.ndarray
    """log2 of the ratio of mean expression to that of the best other group."""


def rank_markers(X: sparse.csc_array, member: np.ndarray, *, tie_correct: bool = True) -> Markers:
    """Rank all genes for all groups.

    Parameters
    ----------
    X
        Non-negative, log-transformed expression, n_obs x genes, by columns.
    member
        Which rows belong to which group, n_obs x groups, boolean; groups may overlap.
    tie_correct
        Whether the variance of rank sums accounts for ties.

    Returns
    -------
    Markers. Without tie correction scores, p-values, q-values and fold changes are those of
    `scanpy.tl.rank_genes_groups(method="wilcoxon")`. Groups that are empty or hold all rows get score 0 and p 1.
    """
    member = np.ascontiguousarray(member, dtype=bool)
    return _tested([_statistics(X, member)], member, tie_correct)


def rank_streamed(Y: Any, member: np.ndarray, expressed: np.ndarray, *, tie_correct: bool = True) -> Markers:
    """Rank all genes of rows that are read from somewhere: as many genes at a time as fit in memory.

    Parameters
    ----------
    Y
        Non-negative, log-transformed rows, with `of(genes)` and `gathered()` (:class:`unmix.core.scaled.ScaledRows`).
    member, tie_correct
        As in :func:`rank_markers`.
    expressed
        Number of rows that express each gene.
    """
    member = np.ascontiguousarray(member, dtype=bool)
    part = np.cumsum(expressed) // GATHER_ENTRIES
    chunks = [np.flatnonzero(part == p) for p in np.unique(part)]
    found = [_statistics(sparse.csc_array(Y.of(genes).gathered()), member) for genes in chunks]
    return _tested(found, member, tie_correct)


def _statistics(X: sparse.csc_array, member: np.ndarray) -> tuple[np.ndarray, ...]:
    """Return rank sums, sums and counts (genes x groups), tie factors, totals and numbers of nonzeros of the genes."""
    total = np.asarray(X.sum(axis=0)).ravel()
    return (*_rank_sums(X.data, X.indices, X.indptr, member), total, np.diff(X.indptr))


def _tested(parts: list[tuple[np.ndarray, ...]], member: np.ndarray, tie_correct: bool) -> Markers:
    """Turn the statistics of parts of the genes into those of :class:`Markers`."""
    ranks, sums, counts, ties, total, expressed = (np.concatenate(column) for column in zip(*parts, strict=True))
    n, n_in = len(member), member.sum(axis=0).astype(float)
    n_out = n - n_in
    spread = np.sqrt((ties if tie_correct else np.ones_like(ties))[:, None] * (n_in * n_out * (n + 1) / 12.0))
    score = np.divide(ranks - n_in * (n + 1) / 2.0, spread, out=np.zeros_like(ranks), where=spread > 0)
    pval = 2.0 * norm.sf(np.abs(score))
    level = np.expm1(sums / np.maximum(n_in, 1)) + 1e-9
    rest = np.expm1((total[:, None] - sums) / np.maximum(n_out, 1)) + 1e-9
    return Markers(
        score=score,
        pval=pval,
        qval=np.apply_along_axis(adjust, 0, pval),
        log_fold_change=np.log2(level / rest),
        share=counts / np.maximum(n_in, 1),
        share_rest=(expressed[:, None] - counts) / np.maximum(n_out, 1),
        specificity=np.log2(level / _best_other(level)),
    )


def _best_other(level: np.ndarray) -> np.ndarray:
    """Return, for every entry, the largest of its row's other entries; the floor where there is none."""
    if level.shape[1] < 2:
        return np.full_like(level, 1e-9)
    top = np.sort(level, axis=1)
    return np.where(level == top[:, [-1]], top[:, [-2]], top[:, [-1]])


@nb.njit(cache=True, nogil=True)
def _rank_sums(data, indices, indptr, member):
    """Return rank sums, sums and counts of nonzeros (genes x groups) and the tie factor of every gene."""
    n, n_groups = member.shape
    n_genes = indptr.size - 1
    ranks, sums = np.zeros((n_genes, n_groups)), np.zeros((n_genes, n_groups))
    counts, ties = np.zeros((n_genes, n_groups)), np.ones(n_genes)
    sizes = np.zeros(n_groups)
    for i in range(n):
        for k in range(n_groups):
            sizes[k] += member[i, k]
    for g in range(n_genes):
        values, rows = data[indptr[g] : indptr[g + 1]], indices[indptr[g] : indptr[g + 1]]
        order = np.argsort(values, kind="mergesort")
        zeros = n - values.size
        tied = float(zeros) ** 3 - zeros
        a = 0
        while a < order.size:
            b = a
            while b + 1 < order.size and values[order[b + 1]] == values[order[a]]:
                b += 1
            rank = zeros + 0.5 * (a + b) + 1.0
            tied += float(b - a + 1) ** 3 - (b - a + 1)
            for c in range(a, b + 1):
                row, value = rows[order[c]], values[order[c]]
                for k in range(n_groups):
                    if member[row, k]:
                        ranks[g, k] += rank
                        sums[g, k] += value
                        counts[g, k] += 1.0
            a = b + 1
        for k in range(n_groups):
            ranks[g, k] += (sizes[k] - counts[g, k]) * 0.5 * (zeros + 1)
        ties[g] = 1.0 - tied / (float(n) ** 3 - n) if n > 1 else 1.0
    return ranks, sums, counts, ties
