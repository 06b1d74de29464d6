"""New observations as mixtures of archetypes that were fitted before."""

from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData

from unmix._adata.read import Matrix, check_expression, read_matrix, summarise_rows
from unmix._adata.signatures import shared_with_fit, table_of
from unmix._adata.stored import VAR_NAMES, Entry, stored_entry, stored_names
from unmix.core.archetype_weights import even_gram, weigh_archetypes
from unmix.core.blocks import as_rows, map_rows
from unmix.core.scaled import ScaledRows, totals_at
from unmix.core.simplex import simplex_ls
from unmix.tl._archetype_input import check_space, read_space


def project_archetypes(
    adata: AnnData, fitted: AnnData, key: str, layer: str | None, threads: int
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Return the mixtures of new rows, n_obs x archetypes, on the genes that they share with the fit; NaN without counts.

    Raises
    ------
    KeyError
        If the fit was made on a representation that the new data lacks.
    ValueError
        If no gene is shared, or the matrix does not hold expression.
    """
    entry = stored_entry(fitted, key, "starfysh_archetypes")
    names = stored_names(entry, "names")
    Z, member = stored_corners(entry, len(names))
    how = Entry(entry["reduction"], f"uns[{key!r}]['reduction']")
    if how.get("use_rep", "X") != "X":
        W = _project_representation(adata, Z, how, threads) @ member
        return table_of(W, adata.obs_names, names), {"names": names}
    matrix = read_matrix(adata, layer)
    summary = summarise_rows(matrix, n_jobs=threads)
    check_expression(matrix, summary, expect_counts=True)
    genes = pd.Index(stored_names(how, "genes"))
    n_shared = shared_with_fit(genes, matrix.var_names)
    position = matrix.var_names.get_indexer(genes)
    shared = position >= 0
    depths = _depths(matrix, summary.totals, how, threads)
    rows = depths > 0
    W = np.full((len(rows), len(names)), np.nan)
    if rows.any():
        Y = ScaledRows(as_rows(matrix.X), np.flatnonzero(rows), how["target"] / depths[rows], position[shared])
        W[rows] = _weigh(Y.logged(), Z, how, shared, threads) @ member
    return table_of(W, adata.obs_names, names), {"n_shared_genes": n_shared, "names": names}


def _depths(matrix: Matrix, totals: np.ndarray, how: Entry, threads: int) -> np.ndarray:
    """Return the totals of rows over the genes of the fit, as those of them that the new data have foretell them.

    Raises
    ------
    ValueError
        If what the fit says of its genes was changed.
    """
    if "shares" not in how:  # written before shares were
        return totals
    genes, shares = pd.Index(stored_names(how, VAR_NAMES)), np.asarray(how["shares"])
    if shares.dtype.kind != "f" or shares.shape != genes.shape or not (shares >= 0).all():
        msg = f"{how.where} holds {shares.size} shares of {len(genes)} genes; it was changed since, so run the tool again."
        raise ValueError(msg)
    position = matrix.var_names.get_indexer(genes)
    there = position >= 0
    if there.all() and len(genes) == len(matrix.var_names):
        return totals
    own: np.ndarray = map_rows(totals_at, matrix.X, constants=(position[there],), n_jobs=threads)
    return own / max(float(shares[there].sum()), np.finfo(float).tiny)


def stored_corners(entry: Entry, n_names: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the archetypes before merging in the space of the fit, and which name each has: K x dimensions, K x names.

    Raises
    ------
    ValueError
        If they are no tables of numbers, or there is no account of the space.
    """
    merged = "corners" in entry
    Z = entry["corners" if merged else "archetypes"]
    if not isinstance(Z, np.ndarray) or Z.ndim != 2 or Z.dtype.kind != "f" or not isinstance(entry["reduction"], dict):
        msg = f"{entry.where} holds archetypes of the shape {np.shape(Z)} and a {type(entry['reduction']).__name__}; "
        msg += "it was changed since the tool wrote it, so run the tool again."
        raise ValueError(msg)
    group = np.asarray(entry["group"]) if merged else np.arange(len(Z))
    if group.shape != (len(Z),) or group.dtype.kind not in "iu" or set(group.tolist()) != set(range(n_names)):
        msg = (
            f"{entry.where} holds {len(Z)} archetypes and {n_names} names; it was changed since, so run the tool again."
        )
        raise ValueError(msg)
    return Z.astype(float), np.eye(n_names)[group]


def _weigh(Y: ScaledRows, Z: np.ndarray, how: dict[str, Any], shared: np.ndarray, threads: int) -> np.ndarray:
    """Return the mixtures of rows by the genes that they share with the fit."""
    if "use_rep" in how:
        return weigh_archetypes(Y, np.ascontiguousarray(Z[:, shared]), n_jobs=threads)
    corners = np.asarray(how["loadings"])[shared] @ Z.T
    mean = np.asarray(how["mean"])[shared]
    return map_rows(
        _weigh_block, Y, constants=(corners, mean @ corners, even_gram(corners.T @ corners)), n_jobs=threads
    )


def _weigh_block(block: Any, corners: np.ndarray, centre: np.ndarray, gram: np.ndarray) -> np.ndarray:
    return simplex_ls(gram, np.asarray(block @ corners) - centre)


def _project_representation(adata: AnnData, Z: np.ndarray, how: dict[str, Any], threads: int) -> np.ndarray:
    """Return mixtures in a space that the new data brings along."""
    if how["use_rep"] not in adata.obsm:
        msg = f"archetypes were fitted on obsm[{how['use_rep']!r}], but the new data has {sorted(adata.obsm)} only."
        raise KeyError(msg)
    key, D = how["use_rep"], Z.shape[1]
    X = read_space(adata, key)
    if X.shape[1] < D:
        msg = f"archetypes were fitted to {D} dimensions of obsm[{key!r}], but that of the new data has {X.shape[1]}."
        raise ValueError(msg)
    return weigh_archetypes(check_space(X[:, :D], key, adata.obs_names), Z, n_jobs=threads)
