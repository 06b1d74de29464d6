"""Tables of joint factorisations: loadings of every modality, or of what batches share and have of their own."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData

from unmix._adata import keys
from unmix._adata.arguments import checked
from unmix._adata.stored import numbers_by_gene, stored_array, stored_entry, stored_names
from unmix.get._loadings import by_component


@checked
def joint_loadings(data: Any, *, key: str = "joint_nmf", n_top: int | None = None) -> pd.DataFrame:
    """Return the loadings of a joint factorisation, largest first within a part and a component.

    Parameters
    ----------
    data
        What :func:`unmix.tl.joint_nmf` has written to: an AnnData with batches, a MuData, or a dict of AnnData.
    key
        Its `key_added`.
    n_top
        Number of genes or features per part and component; `None` for all.

    Returns
    -------
    Columns `part`, `component`, `gene`, `loading`. Parts are the modalities; or `"shared"` and the batches. Components
    are named from "1". For the parts of batches, component "all" is what all components of the part add to the mean cell
    of the batch, in the units of the data.

    Raises
    ------
    KeyError
        If there is no such result.

    Examples
    --------
    >>> import unmix as um
    >>> _, cells = um.datasets.pbmc_spots()
    >>> cells.obs["half"] = ["a", "b"] * (cells.n_obs // 2) + ["a"] * (cells.n_obs % 2)
    >>> um.tl.joint_nmf(cells, 3, batch_key="half", tol=1e-3)
    >>> um.get.joint_loadings(cells, n_top=2).shape
    (22, 4)
    """
    if isinstance(data, AnnData):
        entry = stored_entry(data, key, "joint_nmf")
        parts = _batch_parts(data, key, entry) if "batches" in entry else {str(entry["modality"]): _table(data, key)}
    else:
        modalities = data if isinstance(data, Mapping) else getattr(data, "mod", None)
        if not isinstance(modalities, Mapping) or not all(isinstance(part, AnnData) for part in modalities.values()):
            msg = f"`data` must be an AnnData, a MuData or a dict of AnnData, got {type(data).__name__}."
            raise TypeError(msg)
        for part in modalities.values():
            stored_entry(part, key, "joint_nmf")
        parts = {name: _table(part, key) for name, part in modalities.items()}
    return pd.concat([_leading(name, table, n_top) for name, table in parts.items()], ignore_index=True)


def _table(adata: AnnData, key: str) -> pd.DataFrame:
    """Return stored loadings, genes x components."""
    return by_component(stored_array(adata, "varm", key), adata.var_names)


def _batch_parts(adata: AnnData, key: str, entry: Mapping[str, Any]) -> dict[str, pd.DataFrame]:
    """Return the shared loadings and those of every batch's own, with what they add to its mean cell."""
    batches = stored_names(entry, "batches")
    k = stored_array(adata, "varm", key).shape[1]
    both = stored_array(adata, "varm", key + keys.SPECIFIC, k * len(batches))
    scales, usage = numbers_by_gene(adata, entry, "scales"), np.asarray(entry["mean_usage"])
    if np.shape(scales)[:1] != (len(batches),) or usage.shape != (len(batches), k):
        msg = f"{key!r} holds scales of {np.shape(scales)} and usages of {usage.shape} for {len(batches)} batches; run it again."
        raise ValueError(msg)
    own = np.split(both, len(batches), axis=1)
    parts = {"shared": _table(adata, key)}
    for name, V, mean, d in zip(batches, own, usage, scales, strict=True):
        parts[name] = by_component(V, adata.var_names).assign(all=V @ mean / np.where(d > 0, d, 1.0))
    return parts


def _leading(part: str, table: pd.DataFrame, n_top: int | None) -> pd.DataFrame:
    """Return a table of one part in long form."""
    columns = []
    for name in table:
        values = table[name].sort_values(ascending=False, kind="stable")[:n_top]
        rows = {"part": part, "component": str(name), "gene": values.index, "loading": values.to_numpy()}
        columns.append(pd.DataFrame(rows))
    return pd.concat(columns, ignore_index=True)
