"""What `deconvolve` can be asked for, checked before any work starts."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy import sparse

from unmix._adata.read import read_neighbours
from unmix._adata.signatures import Alignment, Signature
from unmix._settings import logger
from unmix.core.deconvolution import METHODS
from unmix.tl._deconvolve_slots import UNKNOWN


def check_options(
    method: str,
    genes: Any,
    gene_weights: Any,
    absolute: Any,
    quantile_normalize: bool,
    degenerate: str,
    n_perms: int,
    unknown: bool,
    smoothing: Any,
) -> None:
    """Refuse options that are unknown or do not go together, before any work starts."""
    allowed: list[tuple[str, Any, Sequence[Any]]] = [
        ("method", method, METHODS),
        ("absolute", absolute, (False, "sig.score", "no.sumto1")),
        ("degenerate", degenerate, ("nan", "poisson")),
    ]
    if isinstance(genes, str):
        allowed.append(("genes", genes, ("markers", "all")))
    if isinstance(gene_weights, str):
        allowed.append(("gene_weights", gene_weights, ("mean",)))
    for name, value, choices in allowed:
        if value not in choices:
            msg = f"`{name}` must be one of {list(choices)}, got {value!r}."
            raise ValueError(msg)
    if method != "nusvr" and (absolute or quantile_normalize):
        msg = f"`absolute` and `quantile_normalize` are options of method='nusvr', not of {method!r}."
        raise ValueError(msg)
    if method not in ("nnls", "simplex") and gene_weights is not None:
        msg = f"`gene_weights` is an option of method='nnls' and 'simplex', not of {method!r}."
        raise ValueError(msg)
    if method != "auto" and (unknown or smoothing is not None):
        msg = f"`unknown` and `smoothing` are options of method='auto', not of {method!r}."
        raise ValueError(msg)
    if smoothing not in (None, "auto") and not (
        isinstance(smoothing, int | float) and np.isfinite(smoothing) and smoothing >= 0
    ):
        msg = f"`smoothing` must be None, 'auto' or a number >= 0, got {smoothing!r}."
        raise ValueError(msg)
    if isinstance(n_perms, bool) or not isinstance(n_perms, int | np.integer) or n_perms < 0:
        msg = f"`n_perms` must be an integer >= 0, got {n_perms!r}."
        raise ValueError(msg)


def choose_genes(aligned: Alignment, genes: str | Sequence[str] | None, method: str) -> Alignment:
    """Restrict an alignment to the genes that are to be fitted.

    Raises
    ------
    ValueError
        If none of the genes named is shared by reference and data.
    """
    signature = aligned.signature
    if genes is None:
        genes = "all" if method in ("auto", "poisson") or signature.sizes is None else "markers"
    if isinstance(genes, str):
        used = signature.is_marker.any(axis=1) if genes == "markers" else np.ones(len(signature.genes), dtype=bool)
    else:
        used = np.asarray(signature.genes.isin(list(genes)))
    used = used & signature.profiles.any(axis=1)
    if not used.any():
        msg = f"none of the genes to fit ({genes!r}) is expressed in the reference and present in the data."
        raise ValueError(msg)
    logger.info("%d genes are fitted", int(used.sum()))
    return Alignment(signature.take(np.asarray(used)), aligned.columns[used], aligned.overlap, aligned.ignored_case)


def weights_of_genes(signature: Signature, gene_weights: Any) -> np.ndarray | None:
    """Return the weights of the signature's genes in least squares.

    Raises
    ------
    ValueError
        If a Series lacks a gene or holds what is no weight.
    """
    if gene_weights is None:
        return None
    if isinstance(gene_weights, str):
        return 1.0 / signature.profiles.mean(axis=1)
    weights = pd.Series(gene_weights).reindex(signature.genes)
    values = weights.to_numpy(dtype=np.float64)
    if not (np.isfinite(values) & (values >= 0)).all() or not values.any():
        bad = signature.genes[~(np.isfinite(values) & (values >= 0))][:3].tolist()
        msg = f"`gene_weights` must give a finite number >= 0, not all 0, for every gene that is fitted; not so for {bad}."
        raise ValueError(msg)
    return values


def check_unknown(signature: Signature, unknown: bool) -> None:
    """Refuse to look for an unknown type where it cannot be told from errors, or where a type has its name."""
    if unknown and signature.variances is None:
        msg = "`unknown` needs a reference of cells: a table does not tell how far its entries can be trusted."
        raise ValueError(msg)
    if unknown and UNKNOWN in signature.names:
        msg = f"`unknown` would add a type named {UNKNOWN!r}, which the reference has; rename it."
        raise ValueError(msg)


def neighbour_graph(adata: AnnData, smoothing: Any) -> sparse.csr_array | None:
    """Return the weights of every observation's spatial neighbours, if they are asked for.

    Raises
    ------
    ValueError
        If there is no graph.
    """
    if smoothing is None:
        return None
    if "spatial_connectivities" not in adata.obsp:
        msg = "`smoothing` needs obsp['spatial_connectivities']; call `squidpy.gr.spatial_neighbors(adata)` first."
        raise ValueError(msg)
    graph = read_neighbours(adata, "spatial_connectivities", "obsp['spatial_connectivities']")
    graph.setdiag(0.0)
    graph.eliminate_zeros()
    return graph


def cells_of_spots(adata: AnnData, cells_per_spot: float | str | None) -> np.ndarray | float | None:
    """Return the number of cells of every observation: one for all, the column of `obs` that is named, `None` if not known.

    Raises
    ------
    KeyError
        If there is no such column.
    ValueError
        If a number of cells is not positive.
    """
    if cells_per_spot is None:
        return None
    if isinstance(cells_per_spot, str):
        if cells_per_spot not in adata.obs:
            msg = f"`cells_per_spot` {cells_per_spot!r} is not among the columns of `obs`: {list(map(str, adata.obs.columns))}."
            raise KeyError(msg)
        counts = pd.to_numeric(adata.obs[cells_per_spot].astype(object), errors="coerce").to_numpy(dtype=np.float64)
        if not (np.isfinite(counts) & (counts >= 0)).all() or not counts.any():
            msg = f"obs[{cells_per_spot!r}] must give a number of cells >= 0, not all 0, for every observation."
            raise ValueError(msg)
        return counts
    if not cells_per_spot > 0:
        msg = f"`cells_per_spot` must be positive (inf for bulk), got {cells_per_spot!r}."
        raise ValueError(msg)
    return float(cells_per_spot)
