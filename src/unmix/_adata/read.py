"""Reading: which matrix, whether it holds counts, and what every row adds up to."""

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy import sparse

from unmix._adata.disk import rows_on_disk
from unmix._settings import settings
from unmix.core.blocks import Block, map_rows, sound_indices

if TYPE_CHECKING:
    from anndata import AnnData


LARGEST = 1e15
"""Values beyond this are no measurement; their squares and sums would leave the range of floating point."""


class CountsWarning(UserWarning):
    """A matrix that should hold counts holds something else."""


@dataclass(frozen=True)
class Matrix:
    """A matrix of an AnnData, ready for :mod:`unmix.core.blocks`, and where it was found."""

    X: Any
    var_names: pd.Index
    obs_names: pd.Index
    where: str


@dataclass(frozen=True)
class RowSummary:
    """What one pass over the rows tells: totals, and whether all entries are counts."""

    totals: np.ndarray
    finite: bool
    smallest: float
    integer: bool
    largest: float = 0.0
    """The largest of the absolute values."""


def read_matrix(adata: "AnnData", layer: str | None = None, whose: str = "the data") -> Matrix:
    """Return `X` or a layer of `adata`, without loading what is on disk; errors say `whose` it is.

    Raises
    ------
    KeyError
        If there is no such layer.
    ValueError
        If the matrix is missing, has no rows or no genes, or names are duplicated.
    """
    if layer is not None and layer not in adata.layers:
        msg = f"layer {layer!r} is not among the layers of {whose}: {sorted(k for k in adata.layers if k)}."
        msg += " `raw` is no layer; `adata.raw.to_adata()` makes an AnnData of it." if layer == "raw" else ""
        raise KeyError(msg)
    from anndata.abc import CSRDataset

    X = adata.X if layer is None else adata.layers[layer]
    where = "X" if layer is None else f"layers[{layer!r}]"
    if X is None:
        msg = f"{whose} has no X; name one of its layers: {sorted(k for k in adata.layers if k)}."
        raise ValueError(msg)
    if len(X.shape) != 2:
        msg = f"{where} must be a matrix of observations x genes, has the shape {X.shape}."
        raise ValueError(msg)
    if 0 in X.shape:
        msg = f"{where} is empty: {X.shape[0]} observations x {X.shape[1]} genes."
        raise ValueError(msg)
    check_unique(adata.var_names, whose)
    if np.dtype(X.dtype).kind not in "biuf":
        msg = f"{where} must hold numbers, its dtype is {X.dtype}."
        raise ValueError(msg)
    if sparse.issparse(X):
        check_indices(X, where)
    if isinstance(X, CSRDataset):
        X = rows_on_disk(X, where)
    if np.dtype(X.dtype).kind == "f" and X.dtype.itemsize not in (4, 8):  # sparse matrices know no others
        if not hasattr(X, "dask") and not isinstance(X, np.ndarray):
            msg = f"{where} must be stored as float32, float64 or integers, not as {X.dtype}."
            raise ValueError(msg)
        X = X.astype(np.float32 if X.dtype.itemsize < 4 else np.float64)
    return Matrix(X, pd.Index(adata.var_names), pd.Index(adata.obs_names), where)


def check_unique(genes: pd.Index, whose: str = "the data") -> None:
    """Refuse names of genes that occur more than once.

    Raises
    ------
    ValueError
        If there are any.
    """
    if not genes.is_unique:
        twice = genes[genes.duplicated()].unique()[:3].tolist()
        msg = (
            f"gene names must be unique; in {whose} {twice} occur more than once. Call `var_names_make_unique()` of the "
            "AnnData first."
        )
        raise ValueError(msg)


def check_indices(X: Any, where: str) -> None:
    """Refuse a sparse matrix whose indices point outside of it, as a damaged file gives.

    Raises
    ------
    ValueError
        If one does.
    """
    if X.format in ("csr", "csc") and not sound_indices(X):
        msg = f"{where} is damaged: its indices do not fit a sparse matrix of {X.shape[0]} x {X.shape[1]}."
        raise ValueError(msg)


def check_some(matrix: Matrix, summary: RowSummary) -> None:
    """Refuse a matrix of zeros alone.

    Raises
    ------
    ValueError
        If it is one.
    """
    if summary.largest == 0:
        msg = f"{matrix.where} holds nothing but zeros."
        raise ValueError(msg)


def read_labels(adata: "AnnData", groupby: str, *, name: str = "groupby", whose: str = "the data") -> pd.Categorical:
    """Return a column of `obs` as a categorical of strings without unused categories; missing labels stay missing.

    Errors say `whose` it is.

    Raises
    ------
    KeyError
        If there is no such column.
    ValueError
        If every label is missing.
    """
    if groupby not in adata.obs:
        msg = f"`{name}` {groupby!r} is not among the columns of `obs` of {whose}: {list(map(str, adata.obs.columns))}."
        raise KeyError(msg)
    column = pd.Series(np.asarray(adata.obs[groupby], dtype=object))
    labels = pd.Categorical(column.where(column.isna(), column.astype(str)))
    if len(labels.categories) == 0:
        msg = f"obs[{groupby!r}] holds no label, only missing values."
        raise ValueError(msg)
    return labels


def in_order(labels: pd.Categorical, column: pd.Series) -> pd.Categorical:
    """Return labels with their categories in the order that the column has them in, where it is categorical."""
    if not isinstance(column.dtype, pd.CategoricalDtype):
        return labels
    named = dict.fromkeys(map(str, column.cat.categories))
    return labels.reorder_categories([name for name in named if name in labels.categories])


def read_neighbours(adata: "AnnData", graph: Any, name: str = "graph") -> sparse.csr_array:
    """Return weights of neighbours, an entry of `obsp` by its key or a matrix, as float64.

    Raises
    ------
    KeyError
        If `obsp` has no such entry.
    ValueError
        If it is not a square of finite weights >= 0 over the observations.
    """
    if isinstance(graph, str):
        if graph not in adata.obsp:
            msg = (
                f"`{name}` {graph!r} is not in obsp, which has {sorted(adata.obsp)}; see squidpy.gr.spatial_neighbors."
            )
            raise KeyError(msg)
        graph = adata.obsp[graph]
    kind = getattr(getattr(graph, "dtype", None), "kind", None)
    if getattr(graph, "shape", None) != (adata.n_obs, adata.n_obs) or kind not in ("b", "i", "u", "f"):
        size = f"{adata.n_obs} x {adata.n_obs}"
        msg = f"`{name}` must be {size} numbers, got {type(graph).__name__} of shape {getattr(graph, 'shape', None)}."
        raise ValueError(msg)
    weights = sparse.csr_array(graph, dtype=np.float64)
    if weights.nnz and not (
        np.isfinite(weights.data).all() and weights.data.min() >= 0 and weights.data.max() <= LARGEST
    ):
        msg = f"the weights of `{name}` must be finite and >= 0, got {weights.data.min():g} to {weights.data.max():g}."
        raise ValueError(msg)
    return weights


def summarise_rows(matrix: Matrix, *, n_jobs: int = 1) -> RowSummary:
    """Walk once over the rows: totals (float64), smallest entry, whether all are finite and whole numbers."""
    totals, smallest, largest, whole = map_rows(_summarise_block, matrix.X, n_jobs=n_jobs, desc="checking the counts")
    return RowSummary(
        totals, bool(np.isfinite(totals).all()), float(np.min(smallest)), bool(whole.all()), float(np.max(largest))
    )


def _summarise_block(block: Block) -> tuple[np.ndarray, ...]:
    values: np.ndarray = block.data if sparse.issparse(block) else block  # type: ignore[assignment]
    n = block.shape[0]
    with np.errstate(
        invalid="ignore", over="ignore"
    ):  # what is not finite, or too large, is refused with its own message
        ones = np.ones(block.shape[1])  # a sparse matrix's own sum adds up in the type of the entries
        totals = np.asarray(block @ ones if sparse.issparse(block) else block.sum(axis=1, dtype=np.float64))
    smallest = float(values.min()) if values.size else 0.0
    largest = max(abs(float(values.max())), abs(smallest)) if values.size else 0.0
    whole = values.dtype.kind in "biu" or bool(np.all(values == np.floor(values)))
    return totals, np.full(n, smallest), np.full(n, largest), np.full(n, whole)


def check_expression(matrix: Matrix, summary: RowSummary, *, expect_counts: bool) -> None:
    """Refuse what is no expression matrix, and warn once where counts were expected and are not there.

    Raises
    ------
    ValueError
        If an entry is NaN, infinite or negative.

    Warns
    -----
    CountsWarning
        If `expect_counts` and `settings.check_counts` are set and an entry is not a whole number.
    """
    check_range(matrix, summary)
    if summary.smallest < 0:
        msg = (
            f"{matrix.where} holds negative values (smallest {summary.smallest:g}); counts or other non-negative, "
            "not log-transformed or scaled, expression is needed. Name the layer that holds it with `layer=`."
        )
        raise ValueError(msg)
    if expect_counts and settings.check_counts and not summary.integer:
        msg = (
            f"{matrix.where} holds values that are not whole numbers; this method models counts. If they are normalised "
            "or log-transformed, give the counts with `layer=`, or get them back with `unmix.pp.recover_counts`; if they are "
            "counts all the same (some aligners split reads), set `unmix.settings.check_counts = False`."
        )
        warnings.warn(msg, CountsWarning, stacklevel=3)


def check_range(matrix: Matrix, summary: RowSummary) -> None:
    """Refuse NaN, infinite values, and values that no measurement gives.

    Raises
    ------
    ValueError
        If there are any.
    """
    if LARGEST < summary.largest < np.inf:
        msg = f"{matrix.where} holds values of up to {summary.largest:g}, more than {LARGEST:g}; no measurement is so large."
        raise ValueError(msg)
    if not summary.finite:
        rows = np.flatnonzero(~np.isfinite(summary.totals))
        msg = f"{matrix.where} holds NaN or infinite values, first in {matrix.obs_names[rows[0]]!r} ({len(rows)} rows)."
        raise ValueError(msg)
