"""From counts to rows in a reduced space, the number of archetypes and their fit."""

from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy import sparse

from unmix._adata.stored import VAR_NAMES
from unmix.core.archetype_selection import Selection, select_n_archetypes
from unmix.core.archetype_weights import squared_residuals, weigh_archetypes
from unmix.core.archetypes import Archetypes, fit_archetypes
from unmix.core.count_rank import count_rank
from unmix.core.pca import NULL_TOL, Components, component_scores, parallel_analysis, principal_components
from unmix.core.scaled import GeneMoments, ScaledRows, gene_moments
from unmix.core.shallow import counting_noise, noise_bar

MAX_PCS = 30
N_TOP_GENES = 2000
ROBUST_ROUNDS = 3
MAX_ARCHETYPES = 20
RANK_ROWS, RANK_GENES = 1500, 4000
PARALLEL_ROWS = 5000
SHALLOW_ROUNDS = 10


@dataclass(frozen=True)
class Reduced:
    """Rows in a reduced space, which of them archetypes are fitted to, and how they got there."""

    X: Any
    """Scores (n_obs x D), or sparse genes."""
    fitted: np.ndarray
    """Rows that are not too shallow to be fitted to."""
    rank: int
    """Number of dimensions in which expression mixes: mixtures of K parts span K - 1."""
    how: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class _Components:
    """Components of the variable genes of some rows, how many to keep, and what has been seen on the way."""

    rows: np.ndarray
    genes: np.ndarray
    moments: GeneMoments
    found: Components
    kept: int
    threshold: float
    target: float
    """Total to which the rows were scaled: the median of theirs."""


def reduce(
    Y: ScaledRows,
    var: pd.DataFrame,
    totals: np.ndarray,
    target: float,
    *,
    n_pcs: int | Literal["auto"],
    use_genes: bool,
    least: int,
    rng: np.random.Generator,
    n_jobs: int,
) -> Reduced:
    """Return principal components of log-normalised, highly variable genes, or with `use_genes` these genes, sparse.

    Rows that are too shallow (:mod:`unmix.core.shallow`) are left out, and all is done again without them, scaled to the
    median of the totals that remain, as long as `least` others do; their scores are projections.
    """
    seen = _deep_components(Y, var, totals, target, n_pcs, least, rng, n_jobs)
    fitted = np.zeros(len(totals), dtype=bool)
    fitted[seen.rows] = True
    Y, target = Y.to(seen.target, totals), seen.target
    rank = mixing_rank(Y.take(seen.rows).of(seen.genes), rng)
    how: dict[str, Any] = {"genes": var.index[seen.genes].to_numpy(dtype=str), "target": target}
    how |= {VAR_NAMES: var.index.to_numpy(dtype=str), "shares": seen.moments.mean / target}
    chosen = Y.of(seen.genes).logged()
    if use_genes:
        how["use_rep"] = "X"
        return Reduced(chosen.gathered_if(seen.moments.expressed[seen.genes].sum()), fitted, rank, how)
    kept = seen.found.first(seen.kept)
    how |= {
        "mean": kept.mean,
        "loadings": kept.loadings,
        "singular_values": seen.found.values,
        "null_singular_value": seen.threshold,
    }
    scores = kept.scores if fitted.all() else component_scores(chosen, kept, n_jobs=n_jobs)
    return Reduced(np.ascontiguousarray(scores), fitted, rank, how)


def _deep_components(
    Y: ScaledRows,
    var: pd.DataFrame,
    totals: np.ndarray,
    target: float,
    n_pcs: int | Literal["auto"],
    least: int,
    rng: np.random.Generator,
    n_jobs: int,
) -> _Components:
    """Return the components of the rows that are deep enough to have a place among them."""
    rows = np.arange(len(totals))
    for last in [False] * SHALLOW_ROUNDS + [True]:
        seen = _components(Y.take(rows), var, rows, n_pcs, least, target, rng, n_jobs)
        p = seen.moments.mean[seen.genes] / target
        found = seen.found.first(seen.kept)
        noise = counting_noise(totals[rows], p, found.loadings, found.mean, target, rng)
        deep = noise <= noise_bar(noise, (found.scores**2).sum(axis=1), totals[rows])
        if last or deep.all() or deep.sum() < max(least, 2):
            break
        rows = rows[deep]
        target = float(np.median(totals[rows]))
        Y = Y.to(target, totals)
    return seen


def _components(
    Y: ScaledRows,
    var: pd.DataFrame,
    rows: np.ndarray,
    n_pcs: int | Literal["auto"],
    least: int,
    target: float,
    rng: np.random.Generator,
    n_jobs: int,
) -> _Components:
    """Return the components of log-normalised, highly variable genes; how many to keep, by parallel analysis.

    `least` archetypes span one dimension less, and so many are kept in any case.
    """
    moments = gene_moments(Y, n_jobs=n_jobs)
    genes = np.flatnonzero(_variable_genes(moments, var))
    chosen = Y.of(genes).logged().gathered_if(moments.expressed[genes].sum())
    k = max(min(max(MAX_PCS, least - 1) if n_pcs == "auto" else n_pcs, min(chosen.shape) - 1), 1)
    found = principal_components(chosen, k, rng, n_jobs=n_jobs)
    values, sample = found.values, chosen[some_rows(Y.shape[0], PARALLEL_ROWS, rng)]
    if sample.shape[0] < Y.shape[0]:
        values = principal_components(sample, k, rng, tol=NULL_TOL).values
    above, threshold = parallel_analysis(sample, values, rng)
    kept = min(max(above, 2, least - 1), k) if n_pcs == "auto" else k
    return _Components(rows, genes, moments, found, kept, threshold, target)


def some_rows(n: int, size: int, rng: np.random.Generator) -> np.ndarray:
    """Return `size` of n rows at random, or all of them."""
    return np.sort(rng.permutation(n)[:size]) if n > size else np.arange(n)


def mixing_rank(Y: ScaledRows, rng: np.random.Generator) -> int:
    """Return in how many dimensions counts mix, by some rows and genes: logarithms would bend the simplex and add some."""
    rows, genes = (some_rows(size, most, rng) for size, most in zip(Y.shape, (RANK_ROWS, RANK_GENES), strict=True))
    return count_rank(Y.counts().of(genes)[rows].toarray())


def _variable_genes(moments: GeneMoments, var: pd.DataFrame) -> np.ndarray:
    """Return the genes marked in `var["highly_variable"]`, or the 2,000 most overdispersed ones that are expressed."""
    expressed = moments.expressed > 1
    if "highly_variable" in var:
        flags = var["highly_variable"]
        known = flags.notna().to_numpy()  # joining objects leaves NaN where one lacks a gene, and NaN is true
        values = flags[known].to_numpy()
        if not np.isin(values, (False, True)).all():
            msg = f"`var['highly_variable']` must hold True and False, and holds {pd.unique(values)[:3].tolist()}."
            raise ValueError(msg)
        marked = np.zeros_like(expressed)
        marked[known] = values.astype(bool)
        marked &= expressed
        return marked if marked.any() else expressed
    if expressed.sum() <= N_TOP_GENES:
        return expressed if expressed.any() else np.ones_like(expressed)
    chosen = np.zeros_like(expressed)
    chosen[np.argsort(-moments.excess, kind="stable")[:N_TOP_GENES]] = True
    return chosen


def given_space(adata: AnnData, key: str, n_pcs: int | Literal["auto"], rows: np.ndarray) -> Reduced:
    """Return the rows in a space that the user has made."""
    X = read_space(adata, key)
    X = check_space(X[rows] if n_pcs == "auto" else X[rows, :n_pcs], key, adata.obs_names[rows])
    return Reduced(X, np.ones(len(X), dtype=bool), X.shape[1], {"use_rep": key, "n": X.shape[1]})


def read_space(adata: AnnData, key: str) -> np.ndarray:
    """Return a table of `obsm`, dense.

    Raises
    ------
    ValueError
        If it is no table of numbers with columns.
    """
    table = adata.obsm[key]
    X = np.asarray(table.toarray() if sparse.issparse(table) else table, dtype=np.float64)
    if X.ndim != 2 or not X.shape[1]:
        msg = f"obsm[{key!r}] must be a table of observations by dimensions, and has the shape {X.shape}."
        raise ValueError(msg)
    return X


def check_space(X: np.ndarray, key: str, names: pd.Index) -> np.ndarray:
    """Return the rows of a table of `obsm`, contiguous.

    Raises
    ------
    ValueError
        If some are not finite.
    """
    lost = ~np.isfinite(X).all(axis=1)
    if lost.any():
        msg = f"obsm[{key!r}] is not finite in {lost.sum()} observations ({str(names[lost][0])!r} is one); leave them out."
        raise ValueError(msg)
    return np.ascontiguousarray(X)


def choose_n(
    X: Any, rank: int, n_archetypes: int | Literal["auto"], rng: np.random.Generator, n_jobs: int
) -> tuple[int, Selection | None]:
    """Return the number of archetypes: at least 2, at most the corners of a simplex of the dimension of mixing."""
    n = X.shape[0]
    if n_archetypes != "auto":
        return n_archetypes, None
    if n < 8:
        return min(2, n), None
    found = select_n_archetypes(X, range(2, max(min(rank + 1, MAX_ARCHETYPES), 2) + 1), rng=rng, n_jobs=n_jobs)
    return found.chosen, found


def fit(X: Any, K: int, *, robust: bool, n_jobs: int, **options: Any) -> Archetypes:
    """Fit archetypes; if `robust`, again with bisquare weights of the rows' residuals."""
    found = fit_archetypes(X, K, n_jobs=n_jobs, **options)
    for _ in range(ROBUST_ROUNDS if robust else 0):
        residual = np.sqrt(squared_residuals(X, found.W, found.Z, n_jobs=n_jobs))
        cut = 6.0 * np.median(residual)
        weights = np.clip(1.0 - (residual / cut) ** 2, 0.0, None) ** 2 if cut > 0 else None
        found = fit_archetypes(X, K, weights=weights, n_jobs=n_jobs, **options)
    return found


def fit_deep(reduced: Reduced, K: int, **options: Any) -> Archetypes:
    """Fit archetypes to the rows that are deep enough, and give the others their place; B spans all rows."""
    if reduced.fitted.all():
        return fit(reduced.X, K, **options)
    rows = np.flatnonzero(reduced.fitted)
    found = fit(fitted_rows(reduced), K, **options)
    W = weigh_archetypes(reduced.X, found.Z, n_jobs=options["n_jobs"])
    W[rows] = found.W
    B = sparse.csr_array((found.B.data, rows[found.B.indices], found.B.indptr), shape=(K, len(W)))
    return replace(found, W=W, B=B)


def fitted_rows(reduced: Reduced) -> Any:
    """Return the rows that are fitted to."""
    if reduced.fitted.all():
        return reduced.X
    rows = np.flatnonzero(reduced.fitted)
    return reduced.X.take(rows) if isinstance(reduced.X, ScaledRows) else reduced.X[rows]
