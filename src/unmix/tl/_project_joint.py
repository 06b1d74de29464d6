"""What `tl.transform` does for joint factorisations: usages of new cells, and the modalities that they lack."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData

from unmix._adata.read import Matrix, check_expression, read_matrix, summarise_rows
from unmix._adata.stored import Entry, numbers_by_gene, stored_array, stored_entry
from unmix._settings import logger
from unmix.core.factorization import Walk
from unmix.core.joint import batch_rms, batch_usages
from unmix.core.joint_counts import count_usages
from unmix.core.view_prediction import view_usages
from unmix.tl._joint_batches import on_genes, own_parts
from unmix.tl._project import aligned_loadings


def project_joint(
    adata: AnnData, fitted: AnnData, key: str, layer: str | None, threads: int
) -> tuple[np.ndarray, dict[str, Any]]:
    """Return the usages of new cells."""
    matrix = read_matrix(adata, layer)
    check_expression(matrix, summarise_rows(matrix, n_jobs=threads), expect_counts=False)
    H, shared = aligned_loadings(stored_array(fitted, "varm", key), pd.Index(fitted.var_names), matrix)
    if "batches" in fitted.uns[key]:
        W = _batch_rows(adata, fitted, key, matrix, H, threads)
    else:
        W = _view_rows(fitted, key, matrix, H, threads)
    return W.astype(np.float32), {"n_shared_genes": shared}


def check_predictable(fitted: AnnData, key: str, names: Sequence[str]) -> None:
    """Refuse modalities that the fit does not have.

    Raises
    ------
    KeyError
        If the fit has no such modality, or is none of modalities.
    """
    known = sorted(fitted.uns[key].get("loadings", {}))
    if wrong := [name for name in names if name not in known]:
        msg = f"`predict` names {wrong}; the fit under {key!r} can predict {known}."
        raise KeyError(msg)


def predicted(W: np.ndarray, fitted: AnnData, key: str, names: Sequence[str]) -> dict[str, pd.DataFrame]:
    """Return what usages say of other modalities, n_obs x features each; for counts, at mean depth."""
    tables = {name: fitted.uns[key]["loadings"][name] for name in names}
    return {name: pd.DataFrame(W @ table.to_numpy().T, columns=list(table.index)) for name, table in tables.items()}


def _view_rows(fitted: AnnData, key: str, matrix: Matrix, H: np.ndarray, threads: int) -> np.ndarray:
    """Return the usages of cells of one modality under its loss; for counts, at the mean depth of the fitted data."""
    entry, walk = stored_entry(fitted, key, "joint_nmf"), Walk(n_jobs=threads)
    own = stored_array(fitted, "varm", key).sum(axis=0)  # fewer where genes were taken out of the fit since
    sums = np.asarray(entry.get("sums", own))
    if sums.shape != (len(H),) or sums.dtype.kind != "f":
        msg = f"{entry.where} holds sums of the shape {sums.shape} for {len(H)} components; run the tool again."
        raise ValueError(msg)
    total = sums / float(entry["depth"][entry["modality"]] or 1.0)
    return view_usages(matrix.X, H, poisson=entry["losses"][entry["modality"]] == "kl", total=total, walk=walk)


def _batch_rows(adata: AnnData, fitted: AnnData, key: str, matrix: Matrix, H: np.ndarray, threads: int) -> np.ndarray:
    """Return the usages of cells: those of a known batch under its own part and scales, those of others with neither."""
    entry = stored_entry(fitted, key, "joint_nmf")
    params, own, W = (
        Entry(entry["params"], f"uns[{key!r}]['params']"),
        own_parts(fitted, key),
        np.zeros((adata.n_obs, len(H))),
    )
    column = params["batch_key"]
    names = adata.obs[column].astype(str).to_numpy() if column in adata.obs else np.full(adata.n_obs, "")
    if strange := sorted(set(names) - set(own) - {""}):
        logger.info("transform: %s are batches that the fit does not know: they have no part of their own", strange[:5])
    for name in np.unique(names):
        rows = np.flatnonzero(names == name)
        X = matrix.X if len(rows) == adata.n_obs else matrix.X[rows]
        V = on_genes(fitted, own[name], matrix) if name in own else np.zeros_like(H)
        if name in own:
            D = on_genes(fitted, numbers_by_gene(fitted, entry, "scales")[list(own).index(name)], matrix).ravel()
        else:
            scaled = params["scale"] and params.get("loss") != "kl"
            D = _scales(X, threads) if scaled else np.ones(H.shape[1])
        if params.get("loss") == "kl":
            walk = Walk(n_jobs=threads)
            W[rows] = count_usages(X, H, V, specificity=params["specificity"], measured=D > 0, walk=walk)
        else:
            W[rows] = batch_usages(X, H, V, specificity=params["specificity"], scale=D, n_jobs=threads)
    return W


def _scales(X: Any, threads: int) -> np.ndarray:
    """Return what brings every column to a root mean square of 1."""
    rms = batch_rms(X, np.zeros(X.shape[0], np.int64), 1, n_jobs=threads)[0]
    return 1 / np.where(rms > 0, rms, 1.0)
