"""Tables of factors: loadings of genes, usages of observations."""

import numpy as np
import pandas as pd
from anndata import AnnData

from unmix._adata import keys
from unmix._adata.arguments import checked
from unmix._adata.stored import stored_array, stored_entry

TOOLS = ("factorize", "metagenes", "joint_nmf")


@checked
def loadings(adata: AnnData, *, key: str = "nmf", tidy: bool = False, n_top: int | None = None) -> pd.DataFrame:
    """Return the loadings of the genes on the components of a factorisation, of metagenes or of a joint factorisation.

    Parameters
    ----------
    adata
        Object that one of these tools has written to.
    key
        The tool's `key_added`.
    tidy
        Whether to return the columns `gene`, `component`, `loading`, largest first within a component.
    n_top
        Number of genes per component, by score where the tool stores one, by loading otherwise; `None` for all. Implies
        `tidy`.

    Returns
    -------
    n_vars x k, components named from "1"; or a tidy table.

    Raises
    ------
    KeyError
        If there is no such result.

    Examples
    --------
    >>> import unmix as um
    >>> spots, reference = um.datasets.pbmc_spots()
    >>> um.tl.factorize(reference, 3)
    >>> um.get.loadings(reference, n_top=2).shape
    (6, 3)
    """
    stored_entry(adata, key, *TOOLS)
    table = by_component(stored_array(adata, "varm", key), adata.var_names)
    if not tidy and n_top is None:
        return table
    rank = by_component(stored_array(adata, "varm", ranking(adata, key), table.shape[1]), adata.var_names)
    parts = []
    for name in table:
        order = rank[name].reset_index(drop=True).sort_values(ascending=False, kind="stable").index[:n_top]
        top = table[name].iloc[order]
        parts.append(pd.DataFrame({"gene": top.index, "component": name, "loading": top.to_numpy()}))
    return pd.concat(parts, ignore_index=True)


def ranking(adata: AnnData, key: str) -> str:
    """Return which entry of `varm` says what leads a component: scores, where the tool stores them, or loadings."""
    tool = adata.uns[key]["params"]["tool"]  # scores may be left from another tool under the same key
    return key + keys.SCORE if tool == "metagenes" and key + keys.SCORE in adata.varm else key


def by_component(values: object, index: pd.Index) -> pd.DataFrame:
    """Return an array as a table whose columns are components, counted from 1."""
    array = np.asarray(values)
    return pd.DataFrame(array, index=index, columns=[str(c + 1) for c in range(array.shape[1])])
