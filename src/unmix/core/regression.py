"""Regression of many rows on one set of signatures: least squares and Poisson counts, with weights >= 0.

A row y (genes) is explained by `S w`, S the signatures (genes x types). Least squares needs the row only through its
cross products with S, so that a block costs one sparse product and small solves. The Poisson log-likelihood
`sum_g y_g log (S w)_g - sum_g (S w)_g` needs only the genes that were seen: the others enter through the column sums.
Correlation and RMSE compare S w with y over all genes of S, in the units of y (as given, before any gene weights).
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from scipy import sparse

from unmix.core._poisson import poisson_rows, sparse_moments
from unmix.core.blocks import Block, map_rows
from unmix.core.simplex import nnls, nnls_kkt, simplex_kkt, simplex_ls

OK, EMPTY, NOT_CONVERGED, INVALID = 0, 1, 2, 3
"""Status of a row: fitted; nothing but zeros; certificate above the tolerance; NaN, inf, or a negative count."""

Constraint = Literal["nonneg", "simplex"]
LEAST_SQUARES_TOL = 1e-8


@dataclass(frozen=True)
class RegressionResult:
    """Weights of every row, and how good they are; rows without a fit (status 1 or 3) are NaN.

    Attributes
    ----------
    weights
        W, shape (N, K), exactly zero where the bound holds.
    correlation
        Pearson correlation of `S w` and y over the genes, shape (N,); NaN where one of them is constant.
    rmse
        Root mean square of `S w - y` over the genes, in units of y, shape (N,).
    kkt
        Relative violation of the conditions of optimality, shape (N,).
    n_iter
        Newton steps, shape (N,); 0 for least squares.
    status
        `OK`, `EMPTY`, `NOT_CONVERGED` or `INVALID`, shape (N,).
    """

    weights: np.ndarray
    correlation: np.ndarray
    rmse: np.ndarray
    kkt: np.ndarray
    n_iter: np.ndarray
    status: np.ndarray

    @property
    def converged(self) -> np.ndarray:
        """Rows whose weights are proven optimal, shape (N,)."""
        return self.status == OK


def fit_least_squares(
    X: Any,
    S: np.ndarray,
    *,
    constraint: Constraint = "nonneg",
    gene_weights: np.ndarray | None = None,
    columns: np.ndarray | None = None,
    n_jobs: int = 1,
    block_rows: int | None = None,
    desc: str = "",
) -> RegressionResult:
    r"""Fit every row by least squares with weights that are non-negative, or on the simplex.

    .. math:: \underset{w \ge 0}{\text{argmin}} \; \sum_g \omega_g (y_g - (S w)_g)^2 \quad
              \left(\text{s.t.} \; \sum_k w_k = 1\right)

    Parameters
    ----------
    X
        Rows to explain, shape (N, n_vars), of any kind :func:`unmix.core.blocks.map_rows` walks over.
    S
        Signatures, shape (G, K), finite.
    constraint
        "nonneg": w >= 0; "simplex": also sum w = 1 inside the fit, for which y and S must be in the same units.
    gene_weights
        omega, shape (G,), non-negative; 1 by default.
    columns
        Columns of X that are the rows of S, shape (G,); all of them by default.
    n_jobs, block_rows, desc
        As in :func:`unmix.core.blocks.map_rows`.

    Returns
    -------
    The fits, exact to rounding.

    Raises
    ------
    ValueError
        If S, `gene_weights` and `columns` do not fit X and each other, or the constraint is unknown.

    Examples
    --------
    >>> import numpy as np
    >>> S = np.array([[4.0, 0.0], [1.0, 1.0], [0.0, 2.0]])
    >>> fit_least_squares(np.array([[4, 2, 2], [8, 2, 0]]), S).weights.round(9)
    array([[1., 1.],
           [2., 0.]])
    """
    S = _checked(X, S, columns)
    if constraint not in ("nonneg", "simplex"):
        msg = f"constraint is {constraint!r}; it must be 'nonneg' or 'simplex'."
        raise ValueError(msg)
    if gene_weights is not None:
        gene_weights = np.asarray(gene_weights, dtype=float)
        if gene_weights.shape != (len(S),) or not (np.isfinite(gene_weights) & (gene_weights >= 0)).all():
            msg = f"gene_weights must be {len(S)} finite numbers >= 0, one for every row of S."
            raise ValueError(msg)
    constants = (S, S.T @ S, gene_weights, constraint, columns)
    parts = map_rows(least_squares_block, X, constants=constants, n_jobs=n_jobs, block_rows=block_rows, desc=desc)
    return RegressionResult(*parts)


def fit_poisson(
    X: Any,
    S: np.ndarray,
    *,
    columns: np.ndarray | None = None,
    max_iter: int = 100,
    tol: float = 1e-10,
    n_jobs: int = 1,
    block_rows: int | None = None,
    desc: str = "",
) -> RegressionResult:
    r"""Fit every row of counts by maximum likelihood.

    .. math:: \underset{w \ge 0}{\text{argmax}} \; \sum_g y_g \log (S w)_g - (S w)_g

    Parameters
    ----------
    X
        Counts, shape (N, n_vars), of any kind :func:`unmix.core.blocks.map_rows` walks over.
    S
        Signatures in counts per unit of weight, shape (G, K), finite and non-negative. Genes that are zero in all of
        them say nothing about w (whatever their counts) and are left out of the fit.
    columns
        Columns of X that are the rows of S, shape (G,); all of them by default.
    max_iter
        Newton steps, after which a row is `NOT_CONVERGED`.
    tol
        Largest violation of the conditions of optimality, relative to the column sums of S.
    n_jobs, block_rows, desc
        As in :func:`unmix.core.blocks.map_rows`.

    Returns
    -------
    The fits. `sum_k w_k sum_g S_gk` is the total count of the row, a property of the optimum.

    Raises
    ------
    ValueError
        If S and `columns` do not fit X and each other, or S has a negative entry.

    Examples
    --------
    >>> import numpy as np
    >>> S = np.array([[4.0, 0.0], [1.0, 1.0], [0.0, 2.0]])
    >>> fit_poisson(np.array([[4, 2, 2], [8, 2, 0]]), S).weights.round(9)
    array([[1., 1.],
           [2., 0.]])
    """
    S = _checked(X, S, columns)
    if (S < 0).any():
        msg = "S has negative entries; the Poisson model needs signatures >= 0 (counts or rates, not logarithms)."
        raise ValueError(msg)
    constants = (S, columns, max_iter, tol)
    parts = map_rows(poisson_block, X, constants=constants, n_jobs=n_jobs, block_rows=block_rows, desc=desc)
    return RegressionResult(*parts)


def least_squares_block(
    block: Block,
    S: np.ndarray,
    gram: np.ndarray,
    weights: np.ndarray | None = None,
    constraint: Constraint = "nonneg",
    columns: np.ndarray | None = None,
) -> tuple[np.ndarray, ...]:
    """Fit the rows of a block by least squares; parameters are those of :func:`fit_least_squares`, with `gram = S'S`.

    Returns
    -------
    The fields of :class:`RegressionResult`, in their order.

    Examples
    --------
    >>> import numpy as np
    >>> S = np.eye(2)
    >>> least_squares_block(np.array([[1.0, 3.0]]), S, S.T @ S, constraint="simplex")[0]
    array([[0., 1.]])
    """
    K = S.shape[1]
    design = S if weights is None else np.hstack([S, S * weights[:, None]])
    total, squares, _, cross = _moments(block, design, columns)
    status = np.where(np.isfinite(squares), np.where(squares > 0, OK, EMPTY), INVALID)
    fitted = status == OK
    fit, certify = (nnls, nnls_kkt) if constraint == "nonneg" else (simplex_ls, simplex_kkt)
    normal = gram if weights is None else S.T @ (S * weights[:, None])
    W, kkt = np.full((len(total), K), np.nan), np.full(len(total), np.nan)
    W[fitted] = fit(normal, cross[fitted, -K:])
    kkt[fitted] = certify(normal, cross[fitted, -K:], W[fitted])
    status[fitted & ~(kkt < LEAST_SQUARES_TOL)] = NOT_CONVERGED
    correlation, rmse = _quality(W, (W * cross[:, :K]).sum(axis=1), total, squares, S)
    return W, correlation, rmse, kkt, np.zeros(len(W), np.int32), status.astype(np.int8)


def poisson_block(
    block: Block,
    S: np.ndarray,
    columns: np.ndarray | None = None,
    max_iter: int = 100,
    tol: float = 1e-10,
) -> tuple[np.ndarray, ...]:
    """Fit the rows of a block of counts; parameters are those of :func:`fit_poisson`.

    Every Newton step solves the quadratic model exactly over w >= 0 (:func:`unmix.core._active_set.solve_row`) on the
    columns that are positive or want to be, and goes along it only as far as the likelihood rises.

    Returns
    -------
    The fields of :class:`RegressionResult`, in their order.

    Examples
    --------
    >>> import numpy as np
    >>> S = np.array([[4.0, 0.0], [0.0, 2.0]])
    >>> poisson_block(np.array([[8.0, 0.0]]), S)[0]
    array([[2., 0.]])
    """
    sums = S.sum(axis=0)
    rates = S / np.where(sums > 0, sums, 1.0)  # columns sum to one: weights are counts, gradients are relative
    known = rates.sum(axis=1)
    design = rates / np.where(known > 0, known, 1.0)[:, None]  # least squares with the variance of counts is the start
    total, squares, lowest, cross = _moments(block, np.column_stack([design, known > 0]), columns)
    status = np.where(np.isfinite(squares) & (lowest >= 0), np.where(cross[:, -1] > 0, OK, EMPTY), INVALID)
    fitted = status == OK
    W = np.full((len(total), S.shape[1]), np.nan)
    W[fitted] = nnls(rates.T @ design, cross[fitted, :-1])
    entries = _entries(block, columns, np.where(known > 0, np.arange(len(S)), -1))
    kkt, n_iter, dot = poisson_rows(*entries, np.ascontiguousarray(rates.T), fitted, W, max_iter, tol)
    status[fitted & ~(kkt <= tol)] = NOT_CONVERGED
    W /= np.where(sums > 0, sums, 1.0)
    correlation, rmse = _quality(W, dot, total, squares, S)
    return W, correlation, rmse, kkt, n_iter, status.astype(np.int8)


def _checked(X: Any, S: np.ndarray, columns: np.ndarray | None) -> np.ndarray:
    """Return S as float64 if it is finite and has one row for every column that is used."""
    S = np.ascontiguousarray(S, dtype=float)
    if S.ndim != 2 or not S.size or not np.isfinite(S).all():
        msg = f"S has shape {S.shape}; it must be genes x types, not empty, and finite."
        raise ValueError(msg)
    if len(S) != (X.shape[1] if columns is None else len(columns)):
        used = f"X has {X.shape[1]} columns" if columns is None else f"{len(columns)} columns are given"
        msg = f"S has {len(S)} rows and {used}; give the column of X of every row of S as `columns`."
        raise ValueError(msg)
    if columns is not None and len(np.unique(columns)) < len(columns):
        msg = "columns names a column of X more than once; add up the rows of S that share one, or keep one of them."
        raise ValueError(msg)
    return S


def _entries(block: Block, columns: np.ndarray | None, genes: np.ndarray) -> tuple[Any, Any, Any, Any]:
    """Return a block as CSR arrays of one type each, and the gene of every column (negative: none)."""
    rows = block if not isinstance(block, np.ndarray) else sparse.csr_array(block)
    gene_of = np.full(rows.shape[1], -1, np.int64)
    gene_of[slice(None) if columns is None else columns] = genes
    return (
        rows.indptr.astype(np.int64, copy=False),
        rows.indices.astype(np.int32, copy=False),
        rows.data.astype(np.float64, copy=False),
        gene_of,
    )


def _moments(
    block: Block, design: np.ndarray, columns: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return sum, sum of squares and lowest entry of every row over the genes, and its products with the design."""
    if not isinstance(block, np.ndarray):
        return sparse_moments(*_entries(block, columns, np.arange(len(design))), np.ascontiguousarray(design))
    Y = (block if columns is None else block[:, columns]).astype(float, copy=False)
    with np.errstate(invalid="ignore", over="ignore"):  # rows with NaN or inf become a status
        return Y.sum(axis=1), np.einsum("ng,ng->n", Y, Y), Y.min(axis=1), Y @ design


@np.errstate(invalid="ignore", over="ignore")  # rows with NaN or inf stay so
def _quality(
    W: np.ndarray, dot: np.ndarray, total: np.ndarray, squares: np.ndarray, S: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return correlation and RMSE of `S w` with y, from `dot = y'S w` and the moments of y."""
    G = len(S)
    mean_S = S.mean(axis=0)
    centred = S - mean_S
    mean_fit = W @ mean_S
    covariance = dot - total * mean_fit
    variance_fit = np.einsum("nk,nk->n", W @ (centred.T @ centred), W)
    variance = squares - total**2 / G
    scale = np.sqrt(np.maximum(variance, 0.0) * np.maximum(variance_fit, 0.0))
    correlation = np.divide(covariance, scale, out=np.full(len(W), np.nan), where=scale > 0)
    residual = np.maximum(variance - 2 * covariance + variance_fit, 0.0) / G + (total / G - mean_fit) ** 2
    return np.clip(correlation, -1.0, 1.0), np.sqrt(residual)
