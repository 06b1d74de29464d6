"""Results as an AnnData of their own, for everything that looks into `X` or `obs`."""

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from unmix._adata import keys
from unmix._adata.arguments import checked
from unmix._adata.colours import palette
from unmix._adata.models import TOOLS as NETWORKS
from unmix._adata.stored import mapped_table, stored_array, stored_entry
from unmix.get._archetypes import TOOL as ARCHETYPES
from unmix.get._archetypes import archetypes
from unmix.get._loadings import TOOLS as FACTORS
from unmix.get._proportions import proportions

if TYPE_CHECKING:
    from anndata import AnnData

DOMINANT = "_dominant"
KEPT = ("spatial", "spatial_neighbors", "neighbors", "spatialdata_attrs")


@checked
def as_anndata(adata: "AnnData", *, key: str = "deconvolve", dropna: bool = False) -> "AnnData":
    """Proportions, weights, usages or coordinates as an AnnData whose variables are the types, archetypes or components.

    Scanpy and squidpy then work on them as they do on genes: `sq.gr.spatial_autocorr(um.get.as_anndata(spots))` is Moran's I
    of every type.

    Parameters
    ----------
    adata
        Object that a tool has written to.
    key
        The tool's `key_added`.
    dropna
        Whether to leave out rows that could not be fitted; statistics over neighbours need that where there are such.

    Returns
    -------
    n_obs x types (or archetypes, components), with the types' own names. `obs`, `obsm`, `obsp`, and images and colours of
    `uns` are those of `adata`. Where no value is negative, `obs[f"{key}_dominant"]` names the largest of every row, and
    `uns[f"{key}_dominant_colors"]` holds the colours that the pictures of `unmix.pl` give them. Nothing is shared with
    `adata`: what is done to one does not change the other.

    Raises
    ------
    KeyError
        If there is no such result.

    Examples
    --------
    >>> import unmix as um
    >>> spots, reference = um.datasets.pbmc_spots()
    >>> um.tl.deconvolve(spots, reference, groupby="cell_type")
    >>> shares = um.get.as_anndata(spots)
    >>> shares.shape, shares.obs["deconvolve_dominant"].iloc[0]
    ((300, 10), 'CD19+ B')
    """
    from anndata import AnnData

    table = _table(adata, key)
    taken = {name: value for name, value in adata.uns.items() if name in KEPT or name.endswith("_colors")}
    result = AnnData(
        table.to_numpy(dtype=np.float64),
        obs=adata.obs.copy(),
        var=pd.DataFrame(index=table.columns),
        obsm=dict(adata.obsm),
        obsp=dict(adata.obsp),
        uns=taken,
    )
    if (table.min(axis=None) or 0) >= 0:
        _add_dominant(
            result, table, key, dict(zip(table.columns, palette(adata, key, list(table.columns)), strict=True))
        )
    return (result[table.notna().all(axis=1).to_numpy()] if dropna else result).copy()


def _table(adata: "AnnData", key: str) -> pd.DataFrame:
    """Return what the tool found for every row, under names that are unique."""
    entry = stored_entry(adata, key, "deconvolve", ARCHETYPES, *FACTORS, *NETWORKS, "transform")
    tool = entry["params"]["tool"]
    if tool == "deconvolve":
        return proportions(adata, key=key)
    if tool == ARCHETYPES:
        return archetypes(adata, key=key)
    if tool == "transform":
        return mapped_table(adata, key)
    values = stored_array(adata, "obsm", keys.EMBEDDING + key)
    return pd.DataFrame(values, index=adata.obs_names, columns=[f"{key}_{k + 1}" for k in range(values.shape[1])])


def _add_dominant(result: "AnnData", table: pd.DataFrame, key: str, colours: dict[str, str]) -> None:
    """Name the largest of every row, and give the names their colours."""
    fitted = table.notna().all(axis=1).to_numpy()
    codes = np.full(len(table), -1)
    codes[fitted] = table.to_numpy()[fitted].argmax(axis=1)
    dominant = pd.Categorical.from_codes(codes, list(table.columns)).remove_unused_categories()
    result.obs[key + DOMINANT] = dominant
    result.uns[f"{key}{DOMINANT}_colors"] = [colours[name] for name in dominant.categories]
