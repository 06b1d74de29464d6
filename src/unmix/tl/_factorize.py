"""Factorisations X ~ U V of an AnnData: least squares, singular value decomposition, non-negative."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from anndata import AnnData
from scipy import sparse

from unmix._adata import keys
from unmix._adata.convergence import warn_unsettled
from unmix._adata.outweighing import row_squares, warn_outweighed
from unmix._adata.read import (
    LARGEST,
    Matrix,
    check_expression,
    check_range,
    read_matrix,
    read_neighbours,
    summarise_rows,
)
from unmix._adata.stored import VAR_NAMES
from unmix._adata.tool import tool
from unmix._adata.write import Slots
from unmix._settings import settings
from unmix.core.als import als, masked_usages, principal
from unmix.core.blocks import map_rows
from unmix.core.factorization import Factorization, Penalty, Walk, nmf, ordered
from unmix.core.kl import nmf_kl
from unmix.core.masks import mask_rows, observe, observed_counts
from unmix.core.rank import RankCurve, choose_rank
from unmix.core.svd import svd

METHODS = ("nmf", "als", "svd")


@tool
def factorize(
    adata: AnnData,
    n_components: int | Literal["auto"],
    *,
    method: Literal["nmf", "als", "svd"] = "nmf",
    loss: Literal["frobenius", "kl"] = "frobenius",
    mask: Any = None,
    complete: bool | Sequence[str] = False,
    center: bool = False,
    ridge: float = 1e-8,
    l1: float = 0.0,
    l2: float = 0.0,
    graph: Any = None,
    smoothing: float = 1.0,
    start: Literal["auto", "sample", "nndsvd", "nndsvda", "random"] = "auto",
    ranks: Sequence[int] | None = None,
    tol: float = 1e-5,
    max_iter: int = 500,
    layer: str | None = None,
    key_added: str | None = None,
    rng: int | np.random.Generator | None = 0,
    n_jobs: int | None = None,
    copy: bool = False,
) -> Slots:
    r"""Factorise the matrix, X ~ U V, by singular values, by (masked) least squares, or with non-negative factors.

    Parameters
    ----------
    adata
        Cells, spots or samples; non-negative for `method="nmf"`.
    n_components
        Number of components, or `"auto"`: the rank that best predicts entries held out at random (not for `"svd"`).
    method
        `"nmf"`: W, H >= 0; `"als"`: least squares with `ridge`; `"svd"`: orthogonal.
    loss
        For `"nmf"`: `"frobenius"` (squared error) or `"kl"` (the likelihood of Poisson counts).
    mask
        Where an entry was observed: name of a layer, or an array of the shape of X, true where observed; `"zeros"`:
        zeros are missing. Not for `"svd"`.
    complete
        Whether to write the completed matrix, or the genes to complete.
    center
        For `"svd"`: subtract the genes' means (principal components).
    ridge
        For `"als"`: weight of the squared factors.
    l1
        For `"nmf"`: weight of the sum of both factors, for sparse ones.
    l2
        For `"nmf"` with squared error: weight of half the squared norm of both factors.
    graph
        For `"nmf"` with squared error: name of neighbour weights in `obsp` (squidpy's `"spatial_connectivities"`), or a
        matrix, over which the usages shall be smooth.
    smoothing
        Weight of the graph: 1 draws a row to its neighbours as much as to its data.
    start
        For `"nmf"` without a mask: `"random"`; `"nndsvd"` (`"nndsvda"` without zeros); `"sample"`: the loadings of a
        sample of the rows; `"auto"`: the last for many rows, `"nndsvd"` for few.
    ranks
        With `n_components="auto"`: the ranks to try.
    tol
        Stop where the loss falls by less than this fraction of itself per iteration.
    max_iter
        Largest number of iterations.
    layer
        Layer with the matrix; `None` for `X`.
    key_added
        Name of the slots; `None` for the method's name.
    rng
        Seed.
    n_jobs
        Threads; `None` for the setting. The result does not depend on it.
    copy
        Whether to return a copy instead of writing to `adata`.

    Returns
    -------
    `None`, or with `copy=True` the copy. Sets the following fields, where `key` is `key_added` or the method's name:

    `obsm["X_" + key]` : float32, n_obs x k
        U: usages, coordinates, or left singular vectors times singular values. NaN where a row has no observed entry.
    `varm[key]` : n_vars x k
        V, as columns. For `"nmf"` of unit length, with `loss="kl"` of unit sum; the usages carry the scale. For `"als"`
        orthogonal and as long as the usages. Zero for a gene without an observed entry.
    `layers[key + "_completed"]`
        With `complete`: U V where the mask leaves entries out, X elsewhere; U V everywhere without a mask. Genes that
        `complete` does not list are as in X.
    `uns[key]` : dict
        `loss` of every iteration, `n_iter`, `converged`; for `"svd"` `singular_values`, `variance_ratio`, `mean` (of the
        genes `var_names`); with `"auto"` `ranks` and `held_out` (ranks x masks, the mean loss of a held-out entry);
        `params`.

    Raises
    ------
    KeyError
        If a layer, a gene or a graph does not exist.
    ValueError
        If options do not go together, or the matrix is negative or not finite.

    Warns
    -----
    ConvergenceWarning
        If the limit of iterations is reached first.
    OutweighedWarning
        If under squared error one row in a hundred, or fewer, holds most of the sum of squares.

    References
    ----------
    Cichocki, Phan (2009); Lee, Seung (2001); Musco, Musco (2015); Owen, Perry (2009).

    Examples
    --------
    >>> import unmix as um
    >>> spots, _ = um.datasets.pbmc_spots()
    >>> um.tl.factorize(spots, 5)
    >>> spots.obsm["X_nmf"].shape
    (300, 5)
    """
    check_options(method, loss, mask, graph, l1, l2, n_components)
    threads = settings.threads(n_jobs)
    matrix = read_matrix(adata, layer)
    observed = read_mask(adata, mask)
    check_matrix(matrix, observed, method, threads)
    if loss == "frobenius" and not is_array(observed):
        other = ' or use `loss="kl"`' if method == "nmf" else ""
        advice = f"bring all rows to one depth (normalise, take the logarithm){other}"
        warn_outweighed(row_squares(matrix.X, n_jobs=threads), matrix.obs_names, advice)
    walk = Walk(n_jobs=threads, tol=tol, max_iter=max_iter)
    curve = None
    if n_components == "auto":
        curve = choose_rank(
            matrix.X, ranks=list(ranks) if ranks else None, loss=loss, nonnegative=method == "nmf", rng=rng,
            walk=Walk(n_jobs=threads, tol=1e-4, max_iter=100),
        )  # fmt: skip
        n_components = curve.chosen
    penalty = Penalty(l1, l2, smoothing if graph is not None else 0.0, read_graph(adata, graph))
    model = Model(method, loss, observed, penalty, ridge, center, start)
    fit, more = fit_model(matrix.X, int(n_components), model, walk, rng)
    if observed is not None:
        fit = blanked(fit, *observed_counts(matrix.X, observed, n_jobs=threads))
    if "mean" in more:
        more[VAR_NAMES] = matrix.var_names.astype(str).to_numpy()
    slots = result_slots(fit, key_added or method, more, curve, mask, graph)
    if complete is not False:
        filled = completed(matrix, fit, more.get("mean"), observed, complete)
        slots.layers[(key_added or method) + keys.COMPLETED] = filled
    return slots


@dataclass(frozen=True)
class Model:
    """What is to be fitted."""

    method: str
    loss: str
    mask: Any
    penalty: Penalty
    ridge: float
    center: bool
    start: Any


def check_options(method: str, loss: str, mask: Any, graph: Any, l1: float, l2: float, n_components: Any) -> None:
    """Refuse options that are unknown or do not go together, before any work starts."""
    for name, value, choices in (("method", method, METHODS), ("loss", loss, ("frobenius", "kl"))):
        if value not in choices:
            msg = f"`{name}` must be one of {list(choices)}, got {value!r}."
            raise ValueError(msg)
    refused = {
        '`loss="kl"` needs method="nmf"': loss == "kl" and method != "nmf",
        '`mask` needs method="als" or "nmf"': mask is not None and method == "svd",
        '`l1`, `l2` and `graph` need method="nmf"': method != "nmf" and bool(l1 or l2 or graph is not None),
        '`l2` and `graph` need loss="frobenius"': loss == "kl" and bool(l2 or graph is not None),
        '`n_components="auto"` holds out entries; it does not go with method="svd", a mask or a graph': n_components
        == "auto" and (method == "svd" or mask is not None or graph is not None),
        "`l1`, `l2` must not be negative": l1 < 0 or l2 < 0,
    }  # fmt: skip
    for reason, applies in refused.items():
        if applies:
            msg = f"{reason}, got method={method!r}, loss={loss!r}."
            raise ValueError(msg)


def read_mask(adata: AnnData, mask: Any) -> Any:
    """Return what says where entries were observed.

    Raises
    ------
    KeyError
        If there is no such layer.
    ValueError
        If it is neither the name of a layer nor a matrix of the shape of X.
    """
    if mask is None or (isinstance(mask, str) and mask == "zeros"):
        return mask
    if isinstance(mask, str):
        if mask not in adata.layers:
            msg = f"`mask` {mask!r} is not among the layers {sorted(k for k in adata.layers if k)}."
            raise KeyError(msg)
        mask = adata.layers[mask]
    if getattr(mask, "shape", None) != adata.shape or getattr(mask, "dtype", np.dtype(object)).kind not in "biuf":
        shape = getattr(mask, "shape", None)
        msg = f"`mask` must be a layer or an array in the shape of the matrix, got {type(mask).__name__} of {shape}."
        raise ValueError(msg)
    return mask


def is_array(mask: Any) -> bool:
    """Tell whether a mask names single entries."""
    return mask is not None and not isinstance(mask, str)


def check_matrix(matrix: Matrix, observed: Any, method: str, threads: int) -> None:
    """Refuse NaN and infinite values among observed entries, and negative ones where the factors are non-negative."""
    if not is_array(observed):
        summary = summarise_rows(matrix, n_jobs=threads)
        check_range(matrix, summary)
        if method == "nmf":
            check_expression(matrix, summary, expect_counts=False)
        return
    rows, kind = mask_rows(matrix.X, observed)
    smallest, finite, count = map_rows(_observed_extremes, matrix.X, rows, constants=(kind,), n_jobs=threads)
    if count.sum() == 0 or not finite.all() or (method == "nmf" and smallest.min() < 0):
        kind = "finite and not negative" if method == "nmf" else "finite"
        msg = (
            f"the entries of {matrix.where} that `mask` marks as observed must exist and be {kind}; "
            f"{int(count.sum())} are marked, {int((~finite).sum())} rows hold NaN or infinite values, "
            f"the smallest is {smallest.min():g}."
        )
        raise ValueError(msg)


def _observed_extremes(block: Any, rows: Any, kind: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return of every row the smallest entry of the block, whether all is finite, and how many entries are observed."""
    seen = observe(block, rows, kind)
    finite = np.isfinite(seen.block.sum(axis=1))
    if np.abs(seen.block.data).max(initial=0.0) > LARGEST:
        finite[:] = False
    smallest = float(np.nanmin(seen.block.data, initial=0.0))
    count = np.zeros(len(finite))
    count[:1] = seen.count()
    return np.full(len(finite), smallest), finite, count


def read_graph(adata: AnnData, graph: Any) -> Any:
    """Return the neighbour weights that `graph` names or is.

    Raises
    ------
    KeyError
        If `obsp` has no such entry.
    """
    return None if graph is None else read_neighbours(adata, graph)


def fit_model(X: Any, k: int, model: Model, walk: Walk, rng: Any) -> tuple[Factorization, dict[str, Any]]:
    """Fit, and return what only this method tells besides."""
    if model.method == "svd":
        found = svd(X, k, center=model.center, rng=rng, n_jobs=walk.n_jobs)
        loss = max(found.total - float((found.S**2).sum()), 0.0) / 2
        ratio = found.S**2 / found.total if found.total > 0 else found.S * 0
        more = {"singular_values": found.S, "variance_ratio": ratio, "mean": found.mean}
        return Factorization(found.U * found.S, found.V.T, np.array([loss]), True), more
    if model.loss == "kl":
        fit = nmf_kl(X, k, mask=model.mask, start=model.start, l1=model.penalty.l1, walk=walk, rng=rng)
    elif model.method == "nmf" and model.mask is None:
        fit = nmf(X, k, start=model.start, penalty=model.penalty, walk=walk, rng=rng)
    else:
        nonnegative = model.method == "nmf"
        options: dict[str, Any] = {"ridge": model.ridge, "penalty": model.penalty, "walk": walk, "rng": rng}
        fit = als(X, k, mask=model.mask, nonnegative=nonnegative, **options)
    warn_unsettled(fit.converged, fit.n_iter, f"factorize(method={model.method!r})")
    if model.method != "nmf":
        fit = principal(fit)
        if model.mask is None:
            return fit, {}
        # rows with fewer observed entries than components: what the ridge prefers depends on the axes
        return replace(fit, W=masked_usages(X, fit.H, mask=model.mask, ridge=model.ridge, walk=walk)), {}
    return scaled(ordered(fit), norm=1 if model.loss == "kl" else 2), {}


def scaled(fit: Factorization, norm: int) -> Factorization:
    """Give every row of H the norm 1 and W the scale."""
    size = np.linalg.norm(fit.H, ord=norm, axis=1)
    size = np.where(size > 0, size, 1)
    return Factorization(fit.W * size, fit.H / size[:, None], fit.loss, fit.converged)


def blanked(fit: Factorization, by_row: np.ndarray, by_gene: np.ndarray) -> Factorization:
    """Give rows without an observed entry NaN, and genes without one zeros, whatever the fit began with."""
    W = np.where(by_row[:, None] > 0, fit.W, np.nan)
    return replace(fit, W=W, H=np.where(by_gene > 0, fit.H, 0.0))


def result_slots(
    fit: Factorization, key: str, more: dict[str, Any], curve: RankCurve | None, mask: Any, graph: Any
) -> Slots:
    """Name what was found."""
    entry: dict[str, Any] = {"loss": fit.loss, "n_iter": fit.n_iter, "converged": bool(fit.converged), **more}
    if curve is not None:
        entry |= {"ranks": curve.ranks, "held_out": curve.losses}
    described = {"mask": mask, "graph": graph}
    entry["params"] = {k: v if v is None or isinstance(v, str) else "array" for k, v in described.items()}
    return Slots(
        obsm={keys.EMBEDDING + key: fit.W.astype(np.float32)},
        varm={key: np.ascontiguousarray(fit.H.T, dtype=np.float64)},
        uns={key: entry},
    )


def completed(matrix: Matrix, fit: Factorization, mean: Any, mask: Any, complete: bool | Sequence[str]) -> Any:
    """Return X with the genes asked for replaced by U V where nothing was observed (everywhere without a mask).

    Raises
    ------
    KeyError
        If a gene does not exist.
    """
    columns = np.arange(len(matrix.var_names))
    if complete is not True:
        columns = matrix.var_names.get_indexer(list(complete))  # type: ignore[arg-type]
        if (columns < 0).any():
            unknown = np.asarray(complete)[columns < 0][:5].tolist()
            msg = f"`complete` lists genes that do not exist: {unknown}."
            raise KeyError(msg)
    rows, kind = mask_rows(matrix.X, mask)
    mean = np.zeros(len(matrix.var_names)) if mean is None else mean
    constants = (fit.H[:, columns], mean[columns], columns, kind)
    dense = map_rows(_complete_block, matrix.X, fit.W, rows, constants=constants)
    return dense if complete is True else sparse.csr_matrix(dense)


def _complete_block(
    block: Any, W: np.ndarray, rows: Any, H: np.ndarray, mean: np.ndarray, columns: np.ndarray, kind: Any
) -> np.ndarray:
    """Return rows whose unobserved entries are the fitted ones."""
    out = (block.toarray() if sparse.issparse(block) else np.array(block)).astype(np.float32)
    fitted = W @ H + mean
    if kind is None:
        out[:, columns] = fitted
        return out
    seen = out != 0 if isinstance(kind, str) and kind == "zeros" else rows
    seen = np.asarray(seen.toarray() if sparse.issparse(seen) else seen).astype(bool)[:, columns]
    out[:, columns] = np.where(seen, out[:, columns], fitted)
    return out
