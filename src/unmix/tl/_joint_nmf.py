"""Non-negative factors that several modalities, or several batches, share."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData

from unmix import __version__
from unmix._adata import keys
from unmix._adata.convergence import warn_unsettled
from unmix._adata.read import Matrix, check_expression, read_labels, read_matrix, summarise_rows
from unmix._adata.tool import tool
from unmix._adata.write import Slots, write
from unmix._settings import settings
from unmix.core.blocks import as_rows
from unmix.core.factorization import Walk, usages
from unmix.core.joint import Views, batch_usages, column_rms, joint_batches, joint_views
from unmix.tl._project import aligned_loadings


def joint_nmf(
    data: Any,
    n_components: int,
    *,
    batch_key: str | None = None,
    specificity: float = 5.0,
    scale: bool = True,
    weights: Mapping[str, float] | str = "balanced",
    tol: float = 1e-5,
    max_iter: int = 500,
    layer: str | None = None,
    key_added: str = "joint_nmf",
    rng: int | np.random.Generator | None = 0,
    n_jobs: int | None = None,
    copy: bool = False,
) -> Any:
    r"""Factors shared by modalities (MuData, or a dict of AnnData), or by the batches of an AnnData.

    Modalities: X_m ~ W H_m with one W; a cell that lacks a modality is fitted to the others. Batches:
    X_b ~ W_b (H + V_b), where `specificity` is the price of the batch's own part V_b (integrative NMF). Give
    non-negative data of comparable depth, such as log-normalised counts.

    Parameters
    ----------
    data
        MuData, a dict of AnnData whose cells are matched by name, or an AnnData with `batch_key`.
    n_components
        Number of factors.
    batch_key
        Column of `obs` with the batch.
    specificity
        For batches: weight of `||W_b V_b||^2`.
    scale
        For batches: divide each gene by its root mean square in the batch.
    weights
        For modalities: weight of each one's squared error by name, or `"balanced"`: one over its squared norm.
    tol
        Stop where the loss falls by less than this fraction of itself per iteration.
    max_iter
        Largest number of iterations.
    layer
        Layer with the matrix, in every modality; `None` for `X`.
    key_added
        Name of the slots.
    rng
        Seed.
    n_jobs
        Threads; `None` for the setting. The result does not depend on it.
    copy
        Whether to return a copy instead of writing to `data`.

    Returns
    -------
    `None`, or with `copy=True` the copy. Sets the following fields, for modalities in every AnnData (and `obsm` of the
    MuData):

    `obsm["X_" + key_added]` : float32, n_obs x k
        Usages.
    `varm[key_added]` : n_vars x k
        Loadings: those shared, or those of the modality.
    `varm[key_added + "_specific"]` : n_vars x (k * number of batches)
        For batches: the loadings of each batch's own, side by side in the order of `uns[key]["batches"]`.
    `uns[key_added]` : dict
        `loss`, `n_iter`, `converged`; `weights` or `batches` and `scales`; `params`.

    Raises
    ------
    TypeError
        If `data` is of another kind.
    KeyError
        If `layer` or `batch_key` does not exist.
    ValueError
        If values are negative or not finite, labels are missing, or no cell is shared.

    Warns
    -----
    ConvergenceWarning
        If the limit of iterations is reached first.

    References
    ----------
    Zhang et al. (2012), Nucleic Acids Res. 40, 9379. Welch et al. (2019), Cell 177, 1873.

    Examples
    --------
    >>> import unmix as um
    >>> spots, reference = um.datasets.pbmc_spots()
    >>> reference.obs["half"] = ["a", "b"] * (reference.n_obs // 2) + ["a"] * (reference.n_obs % 2)
    >>> um.tl.joint_nmf(reference, 5, batch_key="half", tol=1e-3)
    >>> reference.varm["joint_nmf_specific"].shape[1]
    10
    """
    if isinstance(data, AnnData):
        if batch_key is None:
            msg = "`batch_key` must name the batches of one AnnData; for modalities, give a MuData or a dict."
            raise ValueError(msg)
        options: dict[str, Any] = {"specificity": specificity, "scale": scale, "tol": tol, "max_iter": max_iter}
        return _joint_batches(
            data,
            n_components,
            batch_key=batch_key,
            key_added=key_added,
            rng=rng,
            n_jobs=n_jobs,
            copy=copy,
            layer=layer,
            **options,
        )
    parts = modalities_of(data)
    if batch_key is not None:
        msg = "`batch_key` needs one AnnData; modalities and batches at once are not supported."
        raise ValueError(msg)
    threads = settings.threads(n_jobs)
    matrices = {name: read_matrix(part, layer) for name, part in parts.items()}
    for matrix in matrices.values():
        check_expression(matrix, summarise_rows(matrix, n_jobs=threads), expect_counts=False)
    cells, rows = match_cells(matrices)
    omega = None if isinstance(weights, str) else weights_of(weights, matrices)
    walk = Walk(n_jobs=threads, tol=tol, max_iter=max_iter)
    X = [matrix.X for matrix in matrices.values()]
    fit = joint_views(X, rows, len(cells), n_components, weights=omega, walk=walk, rng=rng)
    warn_unsettled(fit.converged, len(fit.loss), "joint_nmf")
    params = {"n_components": n_components, "weights": weights, "layer": layer, "rng": rng, "tol": tol}
    return write_views(data, fit, cells, rows, key_added, params, copy=copy)


def modalities_of(data: Any) -> dict[str, AnnData]:
    """Return the AnnData of a MuData or dict by name.

    Raises
    ------
    TypeError
        If it is neither.
    """
    parts = data if isinstance(data, Mapping) else getattr(data, "mod", None)
    if not isinstance(parts, Mapping) or not parts or not all(isinstance(p, AnnData) for p in parts.values()):
        msg = f"`data` must be a MuData, a dict of AnnData, or an AnnData with `batch_key`, got {type(data).__name__}."
        raise TypeError(msg)
    return dict(parts)


def match_cells(matrices: Mapping[str, Matrix]) -> tuple[pd.Index, list[np.ndarray]]:
    """Return the union of the cells, and the position of every modality's cells in it.

    Raises
    ------
    ValueError
        If a modality has cells of the same name, or no cell has two modalities.
    """
    for name, matrix in matrices.items():
        if not matrix.obs_names.is_unique:
            msg = f"cell names must be unique to be matched; those of {name!r} are not."
            raise ValueError(msg)
    cells = pd.Index([])
    for matrix in matrices.values():
        cells = cells.union(matrix.obs_names, sort=False)
    if len(matrices) > 1 and len(cells) == sum(len(m.obs_names) for m in matrices.values()):
        msg = f"no cell of {list(matrices)} has the same name in two of them; names tell which rows belong together."
        raise ValueError(msg)
    return cells, [cells.get_indexer(m.obs_names) for m in matrices.values()]


def weights_of(weights: Mapping[str, float], matrices: Mapping[str, Matrix]) -> list[float]:
    """Return the weights in the order of the modalities."""
    if set(weights) != set(matrices) or any(w < 0 for w in weights.values()):
        msg = f'`weights` must be "balanced" or name a weight >= 0 for each of {list(matrices)}, got {dict(weights)}.'
        raise ValueError(msg)
    return [float(weights[name]) for name in matrices]


def write_views(
    data: Any, fit: Views, cells: pd.Index, rows: Sequence[np.ndarray], key: str, params: dict[str, Any], *, copy: bool
) -> Any:
    """Write every modality's rows of W and its loadings."""
    if copy:
        data = {name: part.copy() for name, part in data.items()} if isinstance(data, Mapping) else data.copy()
    provenance = {"tool": "joint_nmf", "unmix_version": __version__, **params}
    for part, found, H in zip(modalities_of(data).values(), rows, fit.H, strict=True):
        entry = {"loss": fit.loss, "n_iter": len(fit.loss), "converged": fit.converged, "params": dict(provenance)}
        W = fit.W[found].astype(np.float32)
        write(part, Slots(obsm={keys.EMBEDDING + key: W}, varm={key: np.ascontiguousarray(H.T)}, uns={key: entry}))
    if not isinstance(data, Mapping):
        data.obsm[keys.EMBEDDING + key] = fit.W[cells.get_indexer(data.obs_names)].astype(np.float32)
    return data if copy else None


@tool
def _joint_batches(
    adata: AnnData,
    n_components: int,
    *,
    batch_key: str,
    specificity: float,
    scale: bool,
    tol: float,
    max_iter: int,
    layer: str | None,
    key_added: str,
    rng: Any,
    n_jobs: int | None,
    copy: bool,
) -> Slots:
    """Factorise the batches of an AnnData."""
    threads = settings.threads(n_jobs)
    matrix, labels = read_matrix(adata, layer), read_labels(adata, batch_key)
    if (labels.codes < 0).any() or len(labels.categories) < 2:
        given = f"found {list(labels.categories)}, and {int((labels.codes < 0).sum())} cells without a label"
        msg = f"obs[{batch_key!r}] must give every cell one of at least two batches; {given}."
        raise ValueError(msg)
    check_expression(matrix, summarise_rows(matrix, n_jobs=threads), expect_counts=False)
    rows = [np.flatnonzero(labels.codes == b) for b in range(len(labels.categories))]
    X = as_rows(matrix.X)
    parts = [as_rows(X[found]) for found in rows]
    scales = [1 / column_rms(x, n_jobs=threads) if scale else np.ones(x.shape[1]) for x in parts]
    walk = Walk(n_jobs=threads, tol=tol, max_iter=max_iter)
    fit = joint_batches(parts, n_components, specificity=specificity, scales=scales, walk=walk, rng=rng)
    warn_unsettled(fit.converged, len(fit.loss), "joint_nmf")
    W = np.zeros((X.shape[0], n_components), np.float32)
    for found, w in zip(rows, fit.W, strict=True):
        W[found] = w
    entry = {
        "loss": fit.loss,
        "n_iter": len(fit.loss),
        "converged": fit.converged,
        "batches": [str(name) for name in labels.categories],
        "scales": np.array(scales),
        "params": {"tool": "joint_nmf"},
    }
    varm = {key_added: fit.H.T.astype(float), key_added + keys.SPECIFIC: np.hstack([v.T for v in fit.V]).astype(float)}
    return Slots(obsm={keys.EMBEDDING + key_added: W}, varm=varm, uns={key_added: entry})


def project_joint(
    adata: AnnData, fitted: AnnData, key: str, layer: str | None, threads: int
) -> tuple[np.ndarray, dict[str, Any]]:
    """Return the usages of new cells; a new batch has no part of its own, and its own root mean squares."""
    params, matrix = fitted.uns[key]["params"], read_matrix(adata, layer)
    check_expression(matrix, summarise_rows(matrix, n_jobs=threads), expect_counts=False)
    H, shared = aligned_loadings(np.asarray(fitted.varm[key]), pd.Index(fitted.var_names), matrix)
    if params.get("batch_key") is None:
        W = usages(matrix.X, H, walk=Walk(n_jobs=threads))
    else:
        D = 1 / column_rms(matrix.X, n_jobs=threads) if params["scale"] else np.ones(H.shape[1])
        W = batch_usages(matrix.X, H, np.zeros_like(H), specificity=0.0, scale=D, n_jobs=threads)
    return W.astype(np.float32), {"n_shared_genes": shared}
