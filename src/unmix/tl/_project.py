"""What `tl.transform` does for factorisations: rows of W for loadings that are kept."""

from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData

from unmix._adata.read import Matrix, check_unique, read_matrix
from unmix._adata.signatures import shared_with_fit
from unmix._adata.stored import Entry, numbers_by_gene, stored_array, stored_entry
from unmix.core.als import masked_usages
from unmix.core.blocks import map_rows
from unmix.core.factorization import Walk, usages
from unmix.core.kl import kl_usages
from unmix.core.masks import observed_counts
from unmix.tl._factorize import check_matrix, read_mask


def aligned_loadings(loadings: np.ndarray, genes: pd.Index, matrix: Matrix) -> tuple[np.ndarray, int]:
    """Return loadings (k, n_vars) on the genes of new data, zero where the fit knows nothing, and the number shared.

    Raises
    ------
    ValueError
        If no gene with a loading is shared.
    """
    check_unique(genes, "the fit")
    table = pd.DataFrame(np.nan_to_num(loadings), index=genes).reindex(matrix.var_names)
    known = genes[np.nan_to_num(loadings).any(axis=1)]
    return table.fillna(0.0).to_numpy().T, shared_with_fit(known, matrix.var_names)


def project_factors(
    adata: AnnData, fitted: AnnData, key: str, layer: str | None, threads: int
) -> tuple[np.ndarray, dict[str, Any]]:
    """Return the usages of new rows under a factorisation."""
    entry, matrix = stored_entry(fitted, key, "factorize"), read_matrix(adata, layer)
    params = Entry(entry["params"], f"uns[{key!r}]['params']")
    H, shared = aligned_loadings(stored_array(fitted, "varm", key), pd.Index(fitted.var_names), matrix)
    observed = _observed(adata, params.get("mask"))
    check_matrix(matrix, observed, params["method"], threads)
    facts = {"n_shared_genes": shared}
    walk = Walk(n_jobs=threads)
    if params["method"] == "svd":
        mean = (
            pd.Series(numbers_by_gene(fitted, entry, "mean"), index=fitted.var_names)
            .reindex(matrix.var_names)
            .fillna(0.0)
        )
        W = map_rows(_coordinates, matrix.X, constants=(H, mean.to_numpy()), n_jobs=threads)
    elif params["method"] == "als":
        W = masked_usages(matrix.X, H, mask=observed, ridge=params["ridge"], walk=walk)
    elif params["loss"] == "kl":
        W = kl_usages(matrix.X, H, mask=observed, walk=walk)
    elif observed is not None:
        W = masked_usages(matrix.X, H, mask=observed, nonnegative=True, walk=walk)
    else:
        W = usages(matrix.X, H, walk=walk)
    if observed is not None:
        seen = observed_counts(matrix.X, observed, of=(H != 0).any(axis=0), n_jobs=threads)[0]
        W = np.where(seen[:, None] > 0, W, np.nan)
    return W.astype(np.float32), facts


def _observed(adata: AnnData, mask: str | None) -> Any:
    """Return what of new data was observed: as the fit has it for zeros, as a layer of the same name says, or all."""
    return read_mask(adata, mask) if mask == "zeros" or (mask is not None and mask in adata.layers) else None


def _coordinates(block: Any, H: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Return least-squares coordinates of rows."""
    return np.linalg.lstsq(H @ H.T, (block.astype(np.float64) @ H.T - mean @ H.T).T, rcond=None)[0].T
