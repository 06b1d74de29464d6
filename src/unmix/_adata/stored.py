"""Reading back what a tool has stored, under the names that the user gave."""

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from anndata import AnnData


def stored_entry(adata: "AnnData", key: str, *tools: str) -> dict[str, Any]:
    """Return `uns[key]` as the tool left it.

    Raises
    ------
    KeyError
        If no such entry exists, or another tool wrote it; the message lists what there is.
    """
    entry = adata.uns.get(key)
    if isinstance(entry, dict) and entry.get("params", {}).get("tool") in tools:
        return entry
    have = sorted(k for k, v in adata.uns.items() if isinstance(v, dict) and v.get("params", {}).get("tool") in tools)
    msg = f"no result of {' or '.join(f'`tl.{t}`' for t in tools)} under the key {key!r}; keys with one: {have}."
    raise KeyError(msg)


def stored_table(adata: "AnnData", key: str, names: Any) -> pd.DataFrame:
    """Return the table `obsm[key]` with the original names of its columns."""
    table = pd.DataFrame(np.asarray(adata.obsm[key]), index=adata.obs_names)
    table.columns = pd.Index([str(name) for name in names])
    return table
