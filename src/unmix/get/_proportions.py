"""The table of proportions."""

import numpy as np
import pandas as pd
from anndata import AnnData

from unmix._adata import keys
from unmix._adata.arguments import checked
from unmix._adata.stored import belongs, stored_entry, stored_table


@checked
def proportions(
    adata: AnnData, *, key: str = "deconvolve", tidy: bool = False, as_rna: bool | None = None
) -> pd.DataFrame:
    """Proportions of cell types, with the types' original names.

    Parameters
    ----------
    adata
        Object that :func:`unmix.tl.deconvolve` has written to.
    key
        The tool's `key_added`.
    tidy
        Whether to return one row per observation and type instead of one column per type.
    as_rna
        `True` for shares of RNA, `False` for shares of cells, `None` for what is stored. The two differ by the mean counts
        per cell of the types, which a reference of cells gives. Scores (`absolute`) are amounts of RNA; shares of them add up
        to 1.

    Returns
    -------
    n_obs x types; or, if `tidy`, the columns `obs_name`, `cell_type`, `proportion`, and `se` where standard errors are
    stored and `as_rna` does not ask for other fractions. Rows of observations that could not be fitted are NaN.

    Raises
    ------
    KeyError
        If there is no such result.
    ValueError
        If `as_rna` asks for a conversion and the reference did not give the types' sizes.

    Examples
    --------
    >>> import unmix as um
    >>> spots, reference = um.datasets.pbmc_spots()
    >>> um.tl.deconvolve(spots, reference, groupby="cell_type")
    >>> bool(um.get.proportions(spots).sum(axis=1).round(6).eq(1).all())
    True
    """
    entry = stored_entry(adata, key, "deconvolve")
    table = stored_table(adata, key, entry["names"])
    wanted = entry["fraction_of"] if as_rna is None else "RNA" if as_rna else "cells"
    converted = wanted != entry["fraction_of"]
    if converted:
        table = _convert(table, entry, wanted)
    return _tidy(adata, key, table, with_se=not converted) if tidy else table


def _convert(table: pd.DataFrame, entry: dict, wanted: str) -> pd.DataFrame:
    """Return shares of RNA or of cells, from the other or from scores, which are amounts of RNA."""
    if entry.get("sizes") is None and "cells" in (wanted, entry["fraction_of"]):
        msg = "shares of cells and of RNA can be converted only where the reference is made of cells, not of a table."
        raise ValueError(msg)
    amounts = table * np.asarray(entry["sizes"], dtype=float) if entry["fraction_of"] == "cells" else table
    if wanted == "cells":
        amounts = amounts / np.asarray(entry["sizes"], dtype=float)
    return amounts.div(amounts.sum(axis=1), axis=0)


def _tidy(adata: AnnData, key: str, table: pd.DataFrame, *, with_se: bool) -> pd.DataFrame:
    names = list(table.columns)
    long = pd.DataFrame(
        {
            "obs_name": np.repeat(table.index.to_numpy(), len(names)),
            "cell_type": pd.Categorical.from_codes(np.tile(np.arange(len(names)), len(table)), names),
            "proportion": table.to_numpy().ravel(),
        }
    )
    if with_se and belongs(adata, key, "obsm", key + keys.SE):
        long["se"] = stored_table(adata, key + keys.SE, names).to_numpy().ravel()
    return long
