"""What can be used, and is often not what it is taken for: each is told in words, with what to do."""

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy import sparse

from unmix._settings import settings
from unmix.core.blocks import take_rows

KINDS_OF_NAMES = (
    "Are the names symbols in one and identifiers in the other, or do they end in a version (`.1`) in one only?"
)
ENDS_OF_NAMES = {
    r"\.\d+$": "the version at their end",
    r"^[^_]+_+": "what stands before the first `_`",
    r"^\s+|\s+$": "blanks around them",
}
"""What names of genes may have in one object only, as regular expressions."""
LARGEST_LOG, SPREAD_OF_LOGS = 20.0, 10.0
"""Logarithms of expression are smaller than the first, and but for one in a thousand below so many times their median."""
N_ROWS, MIN_VALUES = 100, 200
"""Rows from which logarithms are told, and how many values that takes."""
MISSING_NAMES = ("nan", "NaN", "NA", "<NA>", "None", "")
"""What missing labels become when a column is turned into text."""
AGGREGATED = ("n_obs_aggregated", "psbulk_n_cells", "psbulk_cells")
"""Columns of `obs` in which scanpy and decoupler note how many cells a row is the sum or the mean of."""


def advice_on_names(genes: pd.Index, names: Sequence[str], data: AnnData, reference: Any) -> str:
    """Say why the genes of a reference are not among those of the data, and what to do, as far as the two show it.

    Parameters
    ----------
    genes, names
        Genes and types of the reference.
    data, reference
        What was given.
    """
    if _alike(data.obs_names, genes):
        return "The observations of the data are named as the genes of the reference: turn the data round (`adata.T`)."
    if _alike(names, data.var_names):
        return "The columns of the reference are named as the genes of the data: turn the table round (`reference.T`)."
    for whose, found, wanted in (("the data", data, genes), ("the reference", reference, data.var_names)):
        for column in found.var if isinstance(found, AnnData) else ():
            if _alike(found.var[column], wanted):
                return (
                    f"var[{str(column)!r}] of {whose} holds names of the other kind: put it in the place of `var_names` "
                    f"(`x.var_names = x.var[{str(column)!r}].astype(str); x.var_names_make_unique()`)."
                )
    for pattern, what in ENDS_OF_NAMES.items():
        one, two = (
            pd.Index(index).astype(str).str.replace(pattern, "", regex=True) for index in (genes, data.var_names)
        )
        if _alike(one, two):
            return (
                f"They are the same without {what}: take it off on both sides "
                f"(`x.var_names = x.var_names.str.replace(r{pattern!r}, '', regex=True)`).".replace("\\\\", "\\")
            )
    return KINDS_OF_NAMES


def _alike(names: Any, wanted: Any) -> bool:
    """Tell whether most of the smaller set of names are in the other."""
    one, other = set(map(str, names)), set(map(str, wanted))
    return len(one & other) > min(len(one), len(other)) / 2


def looks_like_logs(values: np.ndarray) -> bool:
    """Tell whether positive values spread as little as logarithms of expression do.

    Examples
    --------
    >>> counts = np.random.default_rng(0).lognormal(0, 2, 1000)
    >>> looks_like_logs(counts), looks_like_logs(np.log1p(counts))
    (False, True)
    """
    values = np.asarray(values, dtype=np.float64).ravel()
    values = values[values > 0]
    if values.size < MIN_VALUES or not 1.5 < values.max() <= LARGEST_LOG or np.all(values == np.rint(values)):
        return False
    return float(np.quantile(values, 0.999)) <= SPREAD_OF_LOGS * float(np.median(values))


def warn_of_logs(X: Any, what: str, category: type[Warning]) -> None:
    """Warn where some rows of a matrix, or a table, look like logarithms; `settings.check_counts` silences it."""
    if not settings.check_counts:
        return
    rows = np.unique(np.linspace(0, X.shape[0] - 1, min(N_ROWS, X.shape[0])).round().astype(int))
    some = X if isinstance(X, np.ndarray) else take_rows(X, rows)
    values = np.asarray(some.data if sparse.issparse(some) else some)
    if looks_like_logs(values):
        msg = (
            f"the values of {what} look like logarithms (the largest is {values.max():.3g}); a mixture is a sum of its types "
            "on a linear scale alone. Give counts, CPM or TPM, as `numpy.expm1` makes of log1p and `numpy.exp2` of log2; if they "
            "are on a linear scale, set `unmix.settings.check_counts = False`."
        )
        warnings.warn(msg, category, stacklevel=4)


def warn_of_missing_names(names: Sequence[str], groupby: str, category: type[Warning]) -> None:
    """Warn of types that are named as missing labels are once they were turned into text."""
    found = [name for name in names if name in MISSING_NAMES]
    if found:
        msg = (
            f"obs[{groupby!r}] of the reference has cells of a type {found[0]!r}, as missing labels are called once they were "
            f"turned into text; to leave these cells out: `reference[reference.obs[{groupby!r}] != {found[0]!r}]`."
        )
        warnings.warn(msg, category, stacklevel=4)


def warn_of_aggregates(reference: AnnData, n_cells: np.ndarray, category: type[Warning]) -> None:
    """Warn where the rows of a reference are not single cells: how much RNA a cell has is then not known."""
    noted = next((name for name in AGGREGATED if name in reference.obs), None)
    if noted is None and not (len(n_cells) and (n_cells == 1).all()):
        return
    why = f"obs[{noted!r}] says so" if noted else "there is one for every type"
    msg = (
        f"the rows of the reference seem to be sums or means over cells ({why}); each is taken for one cell, so that shares are "
        "of such rows instead of cells, and errors are too small. Give the cells themselves, or the types' means as a genes x "
        "types DataFrame, with which shares are of RNA."
    )
    warnings.warn(msg, category, stacklevel=4)
