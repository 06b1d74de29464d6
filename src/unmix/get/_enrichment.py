"""Which gene sets mark a program, as a table."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from anndata import AnnData

from unmix._adata import keys
from unmix._adata.arguments import checked
from unmix._adata.networks import network_weights
from unmix._adata.read import check_unique
from unmix._adata.stored import stored_array, stored_entry, stored_frame
from unmix.tl._programs import enriched


@checked
def enrichment(
    adata: AnnData,
    net: "pd.DataFrame | Mapping[str, Sequence[str]] | None" = None,
    *,
    key: str = "metagenes",
    min_targets: int = 5,
) -> pd.DataFrame:
    """Return which gene sets mark every program, the strongest first.

    A program's gene scores are regressed on a set's weights, one set at a time (decoupler's univariate linear model).

    Parameters
    ----------
    adata
        Object that :func:`unmix.tl.metagenes` has written to.
    net
        Gene sets: a table with the columns `source`, `target` and, if wanted, `weight`, or sets of genes by name; `None`
        for what the tool has stored.
    key
        The tool's `key_added`.
    min_targets
        Fewest genes of a set that the data must have.

    Returns
    -------
    Columns `program`, `source`, `t`, `pval` and `qval` (Benjamini-Hochberg over all tests; sets without an
    expressed gene are none).

    Raises
    ------
    KeyError
        If there is no such result, or no `net` is given and none is stored.
    ValueError
        If no set has enough genes.

    References
    ----------
    Badia-i-Mompel, P. et al. (2022) decoupleR: ensemble of computational methods to infer biological activities from omics
    data. Bioinform. Adv. 2, vbac016.

    Examples
    --------
    >>> import unmix as um
    >>> spots, reference = um.datasets.pbmc_spots()
    >>> um.tl.metagenes(reference, 5, n_runs=5, n_top_genes=200, max_distance=2.0)
    >>> sets = {"B cells": ["CD79A", "CD79B", "MS4A1", "CD74"], "NK": ["NKG7", "GNLY", "GZMB", "PRF1"]}
    >>> um.get.enrichment(reference, sets, min_targets=2).columns.tolist()
    ['program', 'source', 't', 'pval', 'qval']
    """
    entry = stored_entry(adata, key, "metagenes")
    if net is not None:
        check_unique(adata.var_names)
        names, weights = network_weights(net, adata.var_names, min_targets=min_targets)
        scores = np.nan_to_num(stored_array(adata, "varm", key + keys.SCORE))  # NaN: genes that were added since
        return enriched(scores.T, names, weights)
    if "enrichment" not in entry:
        msg = f"{key!r} stores no enrichment; give `net` here or to `tl.metagenes`."
        raise KeyError(msg)
    return stored_frame(entry, "enrichment", "program", "source", "t").astype({"program": object, "source": object})
