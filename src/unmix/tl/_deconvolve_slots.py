"""What `deconvolve` writes: proportions, their errors, diagnostics and choices."""

import warnings
from dataclasses import replace

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy.stats import norm

from unmix._adata import keys
from unmix._adata.read import CountsWarning
from unmix._adata.signatures import Alignment, Signature, table_of
from unmix._adata.write import Slots
from unmix._settings import logger
from unmix.core.countmodel import CountModelResult, worst_genes
from unmix.core.countmodel_shared import CountModel
from unmix.core.deconvolution import STATUS, Deconvolution, Null, significance

UNKNOWN = "unknown"


def result_slots(
    adata: AnnData,
    aligned: Alignment,
    found: Deconvolution,
    null: Null | None,
    key: str,
    *,
    as_rna: bool,
    scores: bool,
) -> Slots:
    """Turn amounts into proportions and everything that is stored beside them."""
    signature = aligned.signature
    if found.counted is not None and found.counted.model.unknown:
        signature = with_unknown(signature, found.counted.model)
    in_cells = signature.sizes is not None and not as_rna and not scores
    amounts = found.weights / signature.sizes if in_cells else found.weights
    proportions = amounts if scores else amounts / amounts.sum(axis=1, keepdims=True)
    profiles = np.full((adata.n_vars, len(signature.names)), np.nan)
    profiles[aligned.columns] = signature.profiles
    status = pd.Categorical.from_codes(found.status, list(STATUS)).remove_unused_categories()
    fitted = int((~np.isnan(proportions).any(axis=1)).sum())
    logger.info("%d of %d observations fitted", fitted, len(status))
    if fitted == 0:
        why = ", ".join(status.categories)
        msg = f"none of the {len(status)} observations could be fitted ({why}), so that all proportions are NaN."
        warnings.warn(msg, CountsWarning, stacklevel=4)
    slots = Slots(
        obsm={key: table_of(proportions, adata.obs_names, signature.names)},
        varm={key + keys.SIGNATURE: table_of(profiles, adata.var_names, signature.names)},
        obs={key + keys.CORRELATION: found.correlation, key + keys.RMSE: found.rmse, key + keys.STATUS: status},
    )
    entry = {
        "names": signature.names,
        "fraction_of": "score" if scores else "cells" if in_cells else "RNA",
        "sizes": signature.sizes,
        "sums": signature.profiles[np.isfinite(signature.profiles).all(axis=1)].sum(axis=0),
        "genes": list(signature.genes),
        "overlap": aligned.overlap,
        "ignored_case": aligned.ignored_case,
        "status": {
            name: int(n) for name, n in zip(*np.unique(np.asarray(status, str), return_counts=True), strict=True)
        },
    }
    if null is not None:
        slots.obs[key + keys.PVAL], slots.obs[key + keys.QVAL] = significance(found.correlation, null)
        entry["null"] = null.correlation
    slots.uns[key] = entry
    if found.counted is not None:
        add_count_model(slots, adata, signature, proportions, found.counted, key)
    return slots


def add_count_model(
    slots: Slots,
    adata: AnnData,
    signature: Signature,
    proportions: np.ndarray,
    found: CountModelResult,
    key: str,
) -> None:
    """Add errors, detection, diagnostics and choices of the count model to the slots."""
    se = found.se if found.se is not None else np.full_like(found.weights, np.nan)
    detection = found.present
    if found.model.abundance is None:
        detection = np.where(se > 0, norm.cdf(proportions / np.where(se > 0, se, 1.0)), (proportions > 0).astype(float))
        detection[proportions == 0] = 0.0
    detection = np.where(np.isnan(proportions), np.nan, detection)
    errors = "from counts, profiles, platform factors and cells"
    if not found.model.sampled:
        se, detection = np.full_like(se, np.nan), np.full_like(se, np.nan)
        errors = "withheld: a table does not tell how far its entries can be trusted, and counting alone gives too small ones"
    slots.obsm[key + keys.SE] = table_of(se, adata.obs_names, signature.names)
    slots.obsm[key + keys.DETECTION] = table_of(detection, adata.obs_names, signature.names)
    slots.obs[key + keys.UNEXPLAINED] = found.unexplained
    slots.obs[key + keys.MISFIT] = norm.sf(found.misfit)
    genes, observed, expected = worst_genes(found.model)
    table = pd.DataFrame({"counts": observed, "fitted": expected}, index=signature.genes[genes])
    model = found.model
    slots.uns[key] |= {
        "chosen": model.chosen | {"errors": errors},
        "tau": model.tau,
        "dispersion": model.dispersion,
        "worst_genes": table,
    }
    if found.smoothing is not None:
        columns = ["strength", "neighbours", "others"]
        slots.uns[key]["smoothing_curve"] = pd.DataFrame(found.smoothing.curve, columns=columns)


def with_unknown(signature: Signature, model: CountModel) -> Signature:
    """Add the unknown type; a cell of it is taken to have as much RNA as those of the other types on average."""
    sizes = None if signature.sizes is None else np.append(signature.sizes, signature.sizes.mean())
    profile = np.full(len(signature.genes), np.nan)
    profile[model.genes] = model.S[:, -1]
    names = [*signature.names, UNKNOWN]
    return replace(signature, names=names, sizes=sizes, profiles=np.column_stack([signature.profiles, profile]))


def add_unknown(slots: Slots, key: str) -> None:
    """Add the share of the unknown type, 0 where there is none."""
    table = slots.obsm[key]
    none = table.sum(axis=1, skipna=False) * 0.0
    slots.obs[key + keys.UNKNOWN] = np.asarray(table.get(UNKNOWN, none))


def add_cells(slots: Slots, n_cells: np.ndarray, key: str) -> None:
    """Add numbers of cells where the proportions are of cells."""
    if slots.uns[key]["fraction_of"] == "cells":
        slots.obsm[key + keys.CELLS] = slots.obsm[key].mul(n_cells, axis=0)
