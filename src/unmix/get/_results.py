"""What `unmix` has left in an AnnData."""

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from unmix._adata.arguments import checked

if TYPE_CHECKING:
    from anndata import AnnData

PLACES = ("obs", "var", "obsm", "varm", "layers")


@checked
def results(adata: "AnnData") -> pd.DataFrame:
    """List the results that the tools have left in an object.

    Parameters
    ----------
    adata
        Any object.

    Returns
    -------
    One row per result, by its key: `tool`, `version` of unmix that wrote it, and `slots`, the places that belong to it.

    Examples
    --------
    >>> import unmix as um
    >>> spots, reference = um.datasets.pbmc_spots()
    >>> um.tl.deconvolve(spots, reference, groupby="cell_type")
    >>> um.get.results(spots)["tool"].to_dict()
    {'deconvolve': 'deconvolve'}
    """
    entries = {key: value["params"] for key, value in adata.uns.items() if _is_result(value)}
    rows = [
        {"tool": params["tool"], "version": params["unmix_version"], "slots": _slots(adata, str(key), list(entries))}
        for key, params in entries.items()
    ]
    return pd.DataFrame(
        rows, index=pd.Index([str(key) for key in entries], name="key"), columns=["tool", "version", "slots"]
    )


def _is_result(value: object) -> bool:
    params = value.get("params") if isinstance(value, dict) else None
    return isinstance(params, dict) and {"tool", "unmix_version"} <= set(params)


def _slots(adata: "AnnData", key: str, keys: list[str]) -> list[str]:
    """Name the slots that a result has noted as its own and that are still there; without a note, go by their names."""
    noted = adata.uns[key].get("slots")
    if isinstance(noted, dict):
        names = {place: map(str, np.ravel(noted.get(place, []))) for place in PLACES}
        return [f"{place}[{name!r}]" for place in PLACES for name in names[place] if name in getattr(adata, place)]
    longer = [other for other in keys if other != key and other.startswith(key)]
    found = []
    for place in PLACES:
        for name in getattr(adata, place):
            plain = str(name).removeprefix("X_")
            mine = plain == key or plain.startswith(f"{key}_")
            if mine and not any(plain == other or plain.startswith(f"{other}_") for other in longer):
                found.append(f"{place}[{str(name)!r}]")
    return found
