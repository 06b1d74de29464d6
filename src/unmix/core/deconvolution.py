"""Deconvolution: one runner for every method, on arrays.

Rows y_i of X are explained by `S w_i`, S the signatures (genes x types) and w_i >= 0 the amounts of every type. What differs
between the methods is the loss; what they share is here: reading blocks, rows that cannot be fitted, and the permutation null.
"""

from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np
from scipy import sparse, stats

from unmix.core.blocks import Block, map_rows, reduce_rows, take_rows
from unmix.core.cibersort import Absolute, cibersort, cibersort_simplex, quantile_normalize
from unmix.core.countmodel import CountModelResult, fit_count_model
from unmix.core.permutation import null_mixtures, tail_p_values
from unmix.core.regression import RegressionResult, fit_least_squares, fit_poisson, least_squares_block
from unmix.core.scaled import totals_at
from unmix.core.share_errors import ShareErrors

Method = Literal["auto", "nnls", "simplex", "poisson", "nusvr", "nusvr_simplex"]
METHODS: tuple[str, ...] = get_args(Method)
SVR_METHODS = ("nusvr", "nusvr_simplex")

STATUS = ("ok", "no counts", "no fit", "degenerate", "degenerate, fitted by poisson", "not converged")
OK, EMPTY, NO_FIT, DEGENERATE, REFITTED, NOT_CONVERGED = range(len(STATUS))

POOL_ENTRIES = 2_000_000
"""Entries of X that a stratum's null is drawn from, at most."""
STRATUM_ROWS = 100
MAX_STRATA = 10
DENSE_ENTRIES = 200_000_000
"""Largest number of entries of X for which quantiles over all of X are taken."""


@dataclass(frozen=True)
class Deconvolution:
    """Amounts of every type in every row, and how good the fits are."""

    weights: np.ndarray
    """Amounts (N, K) in units of the signatures, or scores; NaN in rows that could not be fitted."""
    correlation: np.ndarray
    """Pearson correlation of fit and data over the genes (N,)."""
    rmse: np.ndarray
    """Root mean square error (N,), in the units of the data, or of z-scores for the nu-SVR."""
    status: np.ndarray
    """Position in `STATUS` (N,)."""
    counted: CountModelResult | None = None
    """The count model with its errors and choices, for `"auto"`."""


@dataclass(frozen=True)
class Options:
    """What the methods can be told."""

    gene_weights: np.ndarray | None = None
    """Weights of the genes in least squares (G,)."""
    absolute: Absolute = False
    quantile_normalize: bool = False
    variances: np.ndarray | None = None
    """Sampling variances of the signatures (G, K), for `"auto"`."""
    refit_degenerate: bool = False
    """Whether rows with a degenerate nu-SVR are fitted by Poisson likelihood."""
    between: np.ndarray | None = None
    """Relative variance between donors (G,), for `"auto"`."""
    unknown: bool = False
    """Whether `"auto"` looks for a type that the signatures lack."""
    sizes: np.ndarray | None = None
    """RNA of a cell of every type (K,), for the prior of `"auto"`."""
    graph: sparse.csr_array | None = None
    """Neighbour weights (N, N), for the smoothing of `"auto"`."""
    smoothing: float | None = None
    """Its strength; `None` to choose it by genes held out."""
    errors: ShareErrors | None = None
    """What the standard errors of `"auto"` depend on."""
    rng: int | np.random.Generator | None = 0


def fit(X: Any, S: np.ndarray, columns: np.ndarray, method: str, options: Options, *, n_jobs: int = 1) -> Deconvolution:
    """Deconvolve every row of X.

    Parameters
    ----------
    X
        Expression, rows x genes, non-negative, of any kind that :mod:`unmix.core.blocks` walks over.
    S
        Signatures, genes x types, on the genes at `columns` of X.
    columns
        Positions of the signatures' genes among the columns of X.
    method
        One of `METHODS`.
    options
        What applies to some methods only.
    n_jobs
        Threads.

    Examples
    --------
    >>> S = np.array([[4.0, 0.0], [1.0, 1.0], [0.0, 2.0]])
    >>> fit(np.array([[8, 4, 4], [0, 0, 0]]), S, np.arange(3), "nnls", Options()).weights.round(6)
    array([[ 2.,  2.],
           [nan, nan]])
    """
    if method == "auto":
        return _from_count_model(_fit_counts(X, S, columns, options, n_jobs))
    if method not in SVR_METHODS:
        return _from_regression(_regress(X, S, columns, method, options, n_jobs))
    if options.quantile_normalize:
        X = quantile_normalize(_dense(X, "quantile normalisation"))
    median = _median(X) if options.absolute == "sig.score" else None
    constants = (S, columns, method == "nusvr_simplex", options.absolute, median)
    found = Deconvolution(*map_rows(_svr_block, X, constants=constants, n_jobs=n_jobs, desc=method))
    return _refit(found, X, S, columns, n_jobs) if options.refit_degenerate else found


def _fit_counts(X: Any, S: np.ndarray, columns: np.ndarray, options: Options, n_jobs: int) -> CountModelResult:
    return fit_count_model(
        X,
        S,
        options.variances,
        columns=columns,
        between=options.between,
        unknown=options.unknown,
        units=options.sizes,
        graph=options.graph,
        smoothing=options.smoothing,
        errors=options.errors,
        rng=options.rng,
        n_jobs=n_jobs,
    )


def _regress(
    X: Any, S: np.ndarray, columns: np.ndarray, method: str, options: Options, n_jobs: int
) -> RegressionResult:
    if method == "poisson":
        return fit_poisson(X, S, columns=columns, n_jobs=n_jobs, desc=method)
    if method == "nnls":
        weights = options.gene_weights
        return fit_least_squares(X, S, columns=columns, gene_weights=weights, n_jobs=n_jobs, desc=method)
    size = S.sum(axis=0)
    size = np.where(size > 0, size, 1.0)
    constants = (S / size, options.gene_weights, columns)
    result = RegressionResult(*map_rows(_simplex_block, X, constants=constants, n_jobs=n_jobs, desc=method))
    return replace(result, weights=result.weights / size)


def _simplex_block(block: Block, profile: np.ndarray, gene_weights: Any, columns: np.ndarray) -> tuple:
    """Least squares on the simplex between shares of counts: rows and signatures are divided by their totals."""
    chosen = block[:, columns]
    totals = np.asarray(chosen.sum(axis=1, dtype=np.float64)).ravel()
    scale = 1.0 / np.where(totals > 0, totals, 1.0)
    shares = (
        sparse.csr_array(sparse.diags_array(scale) @ chosen) if sparse.issparse(chosen) else chosen * scale[:, None]
    )
    return least_squares_block(shares, profile, profile.T @ profile, gene_weights, "simplex", None)


def _svr_block(
    block: Block, S: np.ndarray, columns: np.ndarray, simplex: bool, absolute: Absolute, median: float | None
) -> tuple[np.ndarray, ...]:
    Y = _as_dense(block[:, columns])
    empty = ~(Y > 0).any(axis=1)
    Y[empty, 0] = 1.0  # fitted, and then overwritten
    found = cibersort_simplex(S, Y) if simplex else cibersort(S, Y, absolute=absolute, y_median=median)
    status = np.where(empty, EMPTY, np.where(found.degenerate, DEGENERATE, OK))
    bad = status != OK
    return (
        np.where(bad[:, None], np.nan, found.weights),
        np.where(bad, np.nan, found.correlation),
        np.where(bad, np.nan, found.rmse),
        status,
    )


def _from_count_model(found: CountModelResult) -> Deconvolution:
    total = found.weights.sum(axis=1)
    status = np.select([np.isnan(total), total <= 0], [EMPTY, NO_FIT], OK)
    weights = np.where(status[:, None] == OK, found.weights, np.nan)
    return Deconvolution(weights, found.correlation, found.rmse, status, found)


def _from_regression(result: RegressionResult) -> Deconvolution:
    status = np.select([result.status == 1, result.status == 2, result.status == 3], [EMPTY, NOT_CONVERGED, NO_FIT], OK)
    nothing = (status == OK) & ~(result.weights.sum(axis=1) > 0)
    weights = np.where(nothing[:, None], np.nan, result.weights)
    return Deconvolution(weights, result.correlation, result.rmse, np.where(nothing, NO_FIT, status))


def _refit(found: Deconvolution, X: Any, S: np.ndarray, columns: np.ndarray, n_jobs: int) -> Deconvolution:
    """Fit the degenerate rows by Poisson likelihood."""
    rows = np.flatnonzero(found.status == DEGENERATE)
    if rows.size == 0:
        return found
    again = _from_regression(fit_poisson(take_rows(X, rows), S, columns=columns, n_jobs=n_jobs))
    parts = [np.array(part) for part in (found.weights, found.correlation, found.rmse, found.status)]
    new = (again.weights, again.correlation, again.rmse, np.where(again.status == OK, REFITTED, again.status))
    for part, values in zip(parts, new, strict=True):
        part[rows] = values
    weights, correlation, rmse, status = parts
    return Deconvolution(weights, correlation, rmse, status)


@dataclass(frozen=True)
class Null:
    """Correlations of fits to what has no structure."""

    correlation: np.ndarray
    """One row for every stratum of depth, shape (D, P)."""
    stratum: np.ndarray
    """Stratum of every row of the data, shape (N,)."""


def fit_null(
    X: Any,
    S: np.ndarray,
    columns: np.ndarray,
    method: str,
    options: Options,
    n_perms: int,
    rng: int | np.random.Generator | None,
) -> Null:
    """Fit `n_perms` rows without structure for every stratum of depth, drawn from the stratum's own entries.

    A stratum's pool is all of its entries at `columns`, or those of as many rows, drawn at random, as have `POOL_ENTRIES`.
    """
    if options.quantile_normalize:
        X = quantile_normalize(_dense(X, "quantile normalisation"))
    totals = map_rows(totals_at, X, constants=(columns,))
    stratum = depth_strata(totals)
    plain = replace(
        options,
        absolute=False,
        quantile_normalize=False,
        refit_degenerate=False,
        unknown=False,
        graph=None,
        errors=None,
    )
    found = []
    for number, generator in enumerate(np.random.default_rng(rng).spawn(int(stratum.max()) + 1)):
        mixtures = _null_of(X, np.flatnonzero(stratum == number), columns, n_perms, generator)
        found.append(fit(mixtures, S, np.arange(len(columns)), method, plain).correlation)
    return Null(np.stack(found), stratum)


def depth_strata(totals: np.ndarray) -> np.ndarray:
    """Return the stratum of every row: groups of similar totals, `STRATUM_ROWS` rows or more, at most `MAX_STRATA`.

    Examples
    --------
    >>> depth_strata(np.arange(200.0)).max(), depth_strata(np.arange(30.0)).max()
    (np.int64(1), np.int64(0))
    """
    n = int(np.clip(len(totals) // STRATUM_ROWS, 1, MAX_STRATA))
    edges = np.quantile(totals, np.arange(1, n) / n)
    return np.unique(np.searchsorted(edges, totals, side="left"), return_inverse=True)[1]


def _null_of(X: Any, rows: np.ndarray, columns: np.ndarray, n_perms: int, generator: np.random.Generator) -> np.ndarray:
    n_rows = int(min(len(rows), max(1, POOL_ENTRIES // len(columns))))
    chosen = np.sort(generator.choice(rows, n_rows, replace=False))
    pool = _as_dense(take_rows(X, chosen)[:, columns]).ravel()
    values = pool[pool != 0]
    return null_mixtures(values, len(columns), n_perms, n_zeros=pool.size - values.size, rng=generator)


def significance(correlation: np.ndarray, null: Null) -> tuple[np.ndarray, np.ndarray]:
    """Return p-values of correlations against their stratum's null, and their Benjamini-Hochberg q-values; NaN stays NaN.

    Examples
    --------
    >>> null = Null(np.array([[0.1, 0.2, -0.1]]), np.zeros(3, dtype=int))
    >>> p, q = significance(np.array([0.9, 0.0, np.nan]), null)
    >>> p, q
    (array([0.25, 0.75,  nan]), array([0.5 , 0.75,  nan]))
    """
    p = np.full(len(correlation), np.nan)
    for number, values in enumerate(null.correlation):
        rows = null.stratum == number
        p[rows] = tail_p_values(correlation[rows], values)
    q = np.full_like(p, np.nan)
    known = ~np.isnan(p)
    if known.any():
        q[known] = stats.false_discovery_control(p[known])
    return p, q


def _as_dense(block: Any) -> np.ndarray:
    return np.array(block.toarray() if sparse.issparse(block) else block, dtype=np.float64, order="C")


def _dense(X: Any, purpose: str) -> np.ndarray:
    """Return X as one dense array, if it is of the size of a bulk data set."""
    if X.shape[0] * X.shape[1] > DENSE_ENTRIES:
        msg = f"{purpose} is for bulk data, it needs all of X at once; X has {X.shape[0]} x {X.shape[1]} entries."
        raise ValueError(msg)
    return map_rows(_as_dense, X)


def _median(X: Any) -> float:
    """Return the median of all entries of X; 0 without reading them all at once where most are 0."""
    zeros = reduce_rows(_count_zeros, X)
    return 0.0 if zeros > X.shape[0] * X.shape[1] / 2 else float(np.median(_dense(X, "the median of a sample")))


def _count_zeros(block: Block) -> int:
    nonzero = np.count_nonzero(block.data) if sparse.issparse(block) else np.count_nonzero(block)
    return block.shape[0] * block.shape[1] - int(nonzero)
