"""`tl.joint_nmf` for modalities: cells matched by name, a loss for each, written to all or to none."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData

from unmix import __version__
from unmix._adata import keys
from unmix._adata.convergence import warn_unsettled
from unmix._adata.outweighing import row_squares, warn_outweighed
from unmix._adata.read import Matrix, check_expression, check_some, read_matrix, summarise_rows
from unmix._adata.write import Slots, storable, write_all
from unmix._settings import logger, settings
from unmix.core.factorization import Walk
from unmix.core.view_prediction import predictive_loadings
from unmix.core.views import LOSSES, Views, depths, joint_views

ADVICE = 'bring all cells to one depth (normalise, take the logarithm) or use `loss="kl"`'
"""Where a handful of cells outweighs the others under squared error."""


def fit_views(
    data: Any,
    n_components: int,
    *,
    loss: Mapping[str, str] | str,
    weights: Mapping[str, float] | str,
    tol: float,
    max_iter: int,
    layer: Mapping[str, str | None] | str | None,
    key_added: str,
    rng: Any,
    n_jobs: int | None,
    copy: bool,
) -> Any:
    """Factorise modalities; parameters as in :func:`unmix.tl.joint_nmf`."""
    if isinstance(data, AnnData):
        msg = "`batch_key` must name the batches of one AnnData; for modalities, give a MuData or a dict."
        raise ValueError(msg)
    parts, threads = modalities_of(data), settings.threads(n_jobs)
    losses = losses_of(loss, parts)
    omega = None if weights == "balanced" else weights_of(weights, parts)
    layers = layers_of(layer, parts)
    matrices = {name: named(read_matrix(part, layers[name]), name) for name, part in parts.items()}
    for matrix, kind in zip(matrices.values(), losses, strict=True):
        summary = summarise_rows(matrix, n_jobs=threads)
        check_expression(matrix, summary, expect_counts=kind == "kl")
        check_some(matrix, summary)
        if kind == "frobenius":
            warn_outweighed(row_squares(matrix.X, n_jobs=threads), matrix.obs_names, ADVICE, stacklevel=5)
    cells, rows = match_cells(matrices)
    walk = Walk(n_jobs=threads, tol=tol, max_iter=max_iter)
    X = [matrix.X for matrix in matrices.values()]
    fit = joint_views(X, rows, len(cells), n_components, losses=losses, weights=omega, walk=walk, rng=rng)
    warn_unsettled(fit.converged, len(fit.loss), "joint_nmf")
    params = {"n_components": n_components, "loss": loss, "weights": weights, "layer": layer, "rng": rng, "tol": tol}
    params |= {"tool": "joint_nmf", "unmix_version": __version__, "max_iter": max_iter, "key_added": key_added}
    depth = [float(depths(x, n_jobs=threads).mean()) for x in X]
    predictive = predictive_loadings(X, rows, len(cells), fit.H, losses, walk=walk)
    facts = {"losses": losses, "depth": depth, "predictive": predictive, "params": storable(params)}
    if copy:  # last, as anndata closes files that it reads into memory
        data = {n: in_memory(part) for n, part in data.items()} if isinstance(data, Mapping) else data.copy()
    write_views(data, fit, cells, rows, key_added, facts)
    return data if copy else None


def named(matrix: Matrix, name: str) -> Matrix:
    """Return a matrix that is spoken of with the name of its modality."""
    return replace(matrix, where=f"{matrix.where} of {name!r}")


def in_memory(part: AnnData) -> AnnData:
    """Return a copy in memory, also of what is on disk."""
    return part.to_memory() if part.isbacked else part.copy()


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
    cells, *others = (matrix.obs_names for matrix in matrices.values())
    if all(cells.equals(names) for names in others):
        return cells, [np.arange(len(cells)) for _ in matrices]
    for names in others:
        cells = cells.union(names, sort=False)
    if len(matrices) > 1 and len(cells) == sum(len(m.obs_names) for m in matrices.values()):
        msg = f"no cell of {list(matrices)} has the same name in two of them; names tell which rows belong together."
        raise ValueError(msg)
    return cells, [cells.get_indexer(m.obs_names) for m in matrices.values()]


def losses_of(loss: Mapping[str, str] | str, parts: Mapping[str, Any]) -> list[str]:
    """Return the losses in the order of the modalities."""
    by_name = dict.fromkeys(parts, loss) if isinstance(loss, str) else dict(loss)
    if set(by_name) != set(parts) or not set(by_name.values()) <= set(LOSSES):
        msg = f"`loss` must be one of {list(LOSSES)}, or name one for each of {list(parts)}, got {loss!r}."
        raise ValueError(msg)
    return [by_name[name] for name in parts]


def layers_of(layer: Mapping[str, str | None] | str | None, parts: Mapping[str, Any]) -> dict[str, str | None]:
    """Return the layer of every modality; X for those that a mapping does not name."""
    if not isinstance(layer, Mapping):
        return dict.fromkeys(parts, layer)
    if unknown := [name for name in layer if name not in parts]:
        msg = f"`layer` names {unknown}, which are no modalities; these are {list(parts)}."
        raise KeyError(msg)
    return {name: layer.get(name) for name in parts}


def weights_of(weights: Any, parts: Mapping[str, Any]) -> list[float]:
    """Return the weights in the order of the modalities."""
    by_name = isinstance(weights, Mapping) and set(weights) == set(parts)
    if not (by_name and all(0 <= w < np.inf for w in weights.values()) and any(weights.values())):
        msg = f'`weights` must be "balanced" or name a weight >= 0 for each of {list(parts)}, not all of them 0, got {weights!r}.'
        raise ValueError(msg)
    return [float(weights[name]) for name in parts]


def write_views(
    data: Any, fit: Views, cells: pd.Index, rows: Sequence[np.ndarray], key: str, facts: dict[str, Any]
) -> None:
    """Write every modality's rows of W and its loadings, or nothing anywhere."""
    parts = modalities_of(data)
    names = keys.column_names(list(parts))
    entry = {"loss": fit.loss, "n_iter": len(fit.loss), "converged": fit.converged, "params": facts["params"]}
    entry |= {"weights": dict(zip(names, fit.weights, strict=True))}
    entry |= {fact: dict(zip(names, facts[fact], strict=True)) for fact in ("losses", "depth")}
    pairs: list[tuple[Any, Slots]] = []
    W = fit.W.astype(np.float32)
    for m, (name, part) in enumerate(zip(names, parts.values(), strict=True)):
        tables = zip(names, facts["predictive"][m], parts.values(), strict=True)
        others = {other: _table(H, there) for other, H, there in tables if other != name}
        slots = Slots(
            obsm={keys.EMBEDDING + key: W[rows[m]]},
            varm={key: np.ascontiguousarray(fit.H[m].T)},
            uns={key: {**entry, "modality": name, "sums": fit.H[m].sum(axis=1), "loadings": others}},
        )
        pairs.append((part, slots))
    if not isinstance(data, Mapping):
        at = cells.get_indexer(data.obs_names)  # -1 for cells that were taken out of all modalities without `update()`
        pairs.append((data, Slots(obsm={keys.EMBEDDING + key: np.where(at[:, None] >= 0, W[at], np.float32(np.nan))})))
    write_all(pairs)
    logger.info("joint_nmf: wrote %s of %s", ", ".join(pairs[0][1].names()), ", ".join(names))


def _table(H: np.ndarray, part: AnnData) -> pd.DataFrame:
    """Return loadings of a modality, features x components counted from 1."""
    return pd.DataFrame(H.T, index=part.var_names.astype(str), columns=[str(c + 1) for c in range(len(H))])
