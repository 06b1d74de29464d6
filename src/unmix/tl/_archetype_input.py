"""From counts to rows in a reduced space, the number of archetypes and their fit."""

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pandas as pd
from scipy import sparse

from unmix._adata.read import Matrix
from unmix.core.archetype_selection import Selection, select_n_archetypes
from unmix.core.archetypes import Archetypes, fit_archetypes
from unmix.core.blocks import iter_blocks
from unmix.core.pca import parallel_analysis, principal_components

MAX_PCS = 30
N_TOP_GENES = 2000
ROBUST_ROUNDS = 3
MAX_ARCHETYPES = 20
RANK_ROWS = 1500


@dataclass(frozen=True)
class Reduced:
    """Rows in a reduced space, and how they got there."""

    X: np.ndarray
    rank: int
    """Number of dimensions in which expression mixes: mixtures of K parts span K - 1."""
    how: dict[str, Any] = field(default_factory=dict)


def normalised(matrix: Matrix, rows: np.ndarray, totals: np.ndarray) -> tuple[sparse.csr_array, float]:
    """Return the rows with counts, sparse, scaled to the median total; and that total."""
    target = float(np.median(totals[rows]))
    blocks = [sparse.csr_array(block) for _, block in iter_blocks(matrix.X)]
    Y = sparse.csr_array(sparse.vstack(blocks, format="csr"))[np.flatnonzero(rows)].astype(np.float64)
    Y.data *= np.repeat(target / totals[rows], np.diff(Y.indptr))
    return Y, target


def logged(Y: sparse.csr_array) -> sparse.csr_array:
    """Return log(1 + Y)."""
    Y = Y.copy()
    Y.data = np.log1p(Y.data)
    return Y


def reduce(
    Y: sparse.csr_array, var: pd.DataFrame, n_pcs: int | Literal["auto"], target: float, rng: np.random.Generator
) -> Reduced:
    """Return principal components of log-normalised, highly variable genes; their number by parallel analysis."""
    genes = np.flatnonzero(_variable_genes(Y, var))
    chosen = logged(Y[:, genes])
    k = min(MAX_PCS if n_pcs == "auto" else n_pcs, min(chosen.shape) - 1)
    found = principal_components(chosen, max(k, 1), rng)
    above, threshold = parallel_analysis(chosen, found.values, rng)
    kept = max(above, 2) if n_pcs == "auto" else k
    how = {
        "genes": var.index[genes].to_numpy(dtype=str),
        "mean": found.mean,
        "loadings": found.loadings[:, :kept],
        "target": target,
        "singular_values": found.values,
        "null_singular_value": threshold,
    }
    return Reduced(np.ascontiguousarray(found.scores[:, :kept]), mixing_rank(Y[:, genes], rng), how)


def mixing_rank(Y: sparse.csr_array, rng: np.random.Generator) -> int:
    """Return the rank of linear expression by parallel analysis.

    Mixing is linear in counts, so that logarithms would bend the simplex and add dimensions. Genes are divided by the
    root of their mean, which makes Poisson noise equal. A few genes in bursts can hide all others then, and roots of
    counts, which tame them, count as well: the larger rank holds. 1,500 rows are enough.
    """
    Y = Y[np.sort(rng.permutation(Y.shape[0])[:RANK_ROWS])] if Y.shape[0] > RANK_ROWS else Y
    mean = np.asarray(Y.mean(axis=0)).ravel()
    scale = np.divide(1.0, np.sqrt(mean), out=np.zeros_like(mean), where=mean > 0)
    k = max(min(MAX_ARCHETYPES - 1, min(Y.shape) - 1), 1)
    ranks = []
    for stable in (sparse.csr_array(Y.multiply(scale[None, :])), Y.sqrt()):
        found = principal_components(stable, k, rng)
        ranks.append(parallel_analysis(stable, found.values, rng)[0])
    return max(ranks)


def _variable_genes(Y: sparse.csr_array, var: pd.DataFrame) -> np.ndarray:
    """Return the genes marked in `var["highly_variable"]`, or the 2,000 most overdispersed ones that are expressed.

    The variance is compared with that of a negative binomial law of dispersion 0.01, the spread of techniques (Lause et
    al., Genome Biol. 22, 2021).
    """
    expressed = np.asarray((Y > 0).sum(axis=0)).ravel() > 1
    if "highly_variable" in var:
        marked = var["highly_variable"].to_numpy(dtype=bool) & expressed
        return marked if marked.any() else expressed
    if expressed.sum() <= N_TOP_GENES:
        return expressed if expressed.any() else np.ones_like(expressed)
    mean = np.asarray(Y.mean(axis=0)).ravel()
    variance = np.asarray(Y.power(2).mean(axis=0)).ravel() - mean**2
    excess = np.where(expressed, variance / np.maximum(mean + 0.01 * mean**2, np.finfo(float).tiny), -1.0)
    chosen = np.zeros_like(expressed)
    chosen[np.argsort(-excess, kind="stable")[:N_TOP_GENES]] = True
    return chosen


def choose_n(
    reduced: Reduced, n_archetypes: int | Literal["auto"], rng: np.random.Generator, n_jobs: int
) -> tuple[int, Selection | None]:
    """Return the number of archetypes: at least 2, at most the corners of a simplex of the dimension of mixing."""
    X = reduced.X
    if n_archetypes != "auto":
        return n_archetypes, None
    if len(X) < 8:
        return min(2, len(X)), None
    found = select_n_archetypes(X, range(2, max(min(reduced.rank + 1, MAX_ARCHETYPES), 2) + 1), rng=rng, n_jobs=n_jobs)
    return found.chosen, found


def fit(X: np.ndarray, K: int, *, robust: bool, **options: Any) -> Archetypes:
    """Fit archetypes; if `robust`, again with bisquare weights of the rows' residuals."""
    found = fit_archetypes(X, K, **options)
    for _ in range(ROBUST_ROUNDS if robust else 0):
        residual = np.sqrt(((X - found.W @ found.Z) ** 2).sum(axis=1))
        cut = 6.0 * np.median(residual)
        weights = np.clip(1.0 - (residual / cut) ** 2, 0.0, None) ** 2 if cut > 0 else None
        found = fit_archetypes(X, K, weights=weights, **options)
    return found
