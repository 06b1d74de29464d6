"""Reading back what a tool has stored, under the names that the user gave; what was spoiled since is named."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from unmix._adata import keys
from unmix._adata.read import check_unique

if TYPE_CHECKING:
    from anndata import AnnData

VAR_NAMES = "var_names"
"""Part of an entry of `uns`: the genes, in the order of the numbers that it holds for each."""


class Entry(dict[str, Any]):
    """What a tool has stored in `uns`; a part that is missing is named together with the tool."""

    def __init__(self, stored: dict[str, Any], where: str) -> None:
        super().__init__(stored)
        self.where = where

    def __missing__(self, part: str) -> Any:
        msg = f"{self.where} lacks {part!r}, which the tool stores there; it was changed since, so run the tool again."
        raise KeyError(msg)


def stored_entry(adata: "AnnData", key: str, *tools: str) -> Entry:
    """Return `uns[key]` as the tool left it.

    Raises
    ------
    KeyError
        If no such entry exists, or another tool wrote it; the message lists what there is.
    """
    entry = adata.uns.get(key)
    if tool_of(entry) in tools:
        return Entry(entry, f"uns[{key!r}]")
    have = sorted(str(k) for k, v in adata.uns.items() if tool_of(v) in tools)
    msg = f"no result of {' or '.join(f'`tl.{t}`' for t in tools)} under the key {key!r}; keys with one: {have}."
    raise KeyError(msg + (f" {LOST}" if key in lost_results(adata) else ""))


LOST = (
    "Tables of this name are in obsm, but not what the tool says of them in uns: `anndata.concat` drops it. Join parts of one "
    'object, or parts deconvolved by one reference, with `uns_merge="same", merge="same"`; else run the tool on all of them.'
)
"""What to do about results whose account was lost."""


def lost_results(adata: "AnnData") -> list[str]:
    """Return the keys of tables that a tool seems to have left and that `uns` knows nothing of."""
    names = [str(name).removeprefix(keys.EMBEDDING) for name in adata.obsm]
    told = [key for key in names if key not in adata.uns]
    return [
        key for key in told if key in keys.DEFAULTS or f"{key}{keys.SE}" in names or f"{key}{keys.RMSE}" in adata.obs
    ]


def tool_of(entry: Any) -> str | None:
    """Return which tool wrote an entry of `uns`, if one did."""
    params = entry.get("params") if isinstance(entry, dict) else None
    tool = params.get("tool") if isinstance(params, dict) else None
    return tool if isinstance(tool, str) else None


def belongs(adata: "AnnData", key: str, attribute: str, name: str) -> bool:
    """Tell whether a slot is there and is part of the result under a key.

    One that an earlier run has left, whose account in `uns` was lost since as in `anndata.concat`, is not.
    """
    noted = adata.uns[key].get("slots") if key in adata.uns else None
    mine = not isinstance(noted, Mapping) or name in map(str, np.ravel(noted.get(attribute, [])))
    return mine and name in getattr(adata, attribute)


def stored_array(
    adata: "AnnData", attribute: str, key: str, n_columns: int | None = None, kind: Any = np.float64
) -> np.ndarray:
    """Return a copy of the numbers that a tool has stored in `obsm` or `varm`, rows x columns.

    Raises
    ------
    KeyError
        If there are none.
    ValueError
        If they are not numbers, or not as many columns as the tool has stored.
    """
    slot = getattr(adata, attribute)
    if key not in slot:
        msg = f"{attribute}[{key!r}] is missing, though uns says that a tool wrote it; run the tool again."
        raise KeyError(msg)
    try:
        values = np.array(slot[key], dtype=kind)
    except (TypeError, ValueError):
        values = np.zeros(0)
    if values.ndim != 2 or (n_columns is not None and values.shape[1] != n_columns):
        wanted = "a table of numbers" if n_columns is None else f"a table of numbers with {n_columns} columns"
        msg = f"{attribute}[{key!r}] must be {wanted}, has the shape {np.shape(slot[key])}; run the tool again."
        raise ValueError(msg)
    return values


def positions(adata: "AnnData", genes: Sequence[str]) -> np.ndarray:
    """Return where genes are among those of an object.

    Raises
    ------
    KeyError
        If one is not there.
    ValueError
        If names of genes occur more than once.
    """
    check_unique(adata.var_names)
    found = adata.var_names.get_indexer(list(genes))
    if (found < 0).any():
        msg = f"the object lacks the genes {[g for g, at in zip(genes, found, strict=True) if at < 0][:3]}."
        raise KeyError(msg)
    return found


def rows_of_names(adata: "AnnData", names: Any) -> np.ndarray:
    """Return where observations are among those of an object, -1 for those that are not there.

    Raises
    ------
    ValueError
        If names of observations occur more than once, or did when they were stored.
    """
    wanted = pd.Index([str(name) for name in names])
    if not (adata.obs_names.is_unique and wanted.is_unique):
        msg = (
            "names of observations must be unique to find those that are stored; call `obs_names_make_unique()` and run the "
            "tool again."
        )
        raise ValueError(msg)
    return adata.obs_names.get_indexer(wanted)


def numbers_by_gene(adata: "AnnData", entry: Any, part: str) -> np.ndarray:
    """Return numbers that a tool has stored in `uns` for every gene of the object that it wrote to.

    `uns` does not follow genes that are put in another order or taken out: they are found by the names that the tool
    stored beside the numbers. Where genes were renamed since, their order decides.

    Raises
    ------
    ValueError
        If genes are neither found nor as many as the numbers.
    """
    values = entry[part]
    sound = isinstance(values, np.ndarray) and values.dtype.kind in "biuf" and values.ndim > 0
    if sound and VAR_NAMES in entry:
        names = pd.Index(stored_names(entry, VAR_NAMES))
        at = names.get_indexer(adata.var_names) if names.is_unique else np.zeros(0, np.int64)
        if len(at) and at.min() >= 0 and at.max() < values.shape[-1]:
            return values[..., at]
    if not sound or values.shape[-1] != adata.n_vars:
        msg = (
            f"the fit holds {part!r} of the shape {np.shape(values)} for {adata.n_vars} genes; if genes were added or "
            "renamed since, give the object as the tool left it."
        )
        raise ValueError(msg)
    return values


def stored_parts(entry: Mapping[str, Any], part: str) -> dict[str, Any]:
    """Return named parts that a tool has stored in `uns`, as an :class:`Entry`.

    Raises
    ------
    ValueError
        If there are none.
    """
    parts = entry[part]
    if not isinstance(parts, dict):
        msg = f"{part!r} of the result must be a dict, is {type(parts).__name__}; run the tool again."
        raise ValueError(msg)
    return Entry(parts, repr(part))


def stored_number(entry: Mapping[str, Any], part: str) -> float:
    """Return a number that a tool has stored in `uns`.

    Raises
    ------
    ValueError
        If it is none.
    """
    value = entry[part]
    if np.ndim(value) or not isinstance(value, int | float | np.number):
        msg = f"{part!r} of the result must be a number, is {type(value).__name__}."
        raise ValueError(msg)
    return float(value)


def stored_frame(entry: Mapping[str, Any], part: str, *columns: str) -> pd.DataFrame:
    """Return a table that a tool has stored in `uns`.

    Raises
    ------
    ValueError
        If it is no table, or lacks a column.
    """
    table = entry[part]
    if not isinstance(table, pd.DataFrame) or not set(columns) <= set(table.columns):
        msg = f"{part!r} of the result must be a table with the columns {list(columns)}, is {type(table).__name__}."
        raise ValueError(msg)
    return table


def stored_names(entry: Mapping[str, Any], part: str) -> list[str]:
    """Return names that a tool has stored in `uns`.

    Raises
    ------
    ValueError
        If they are none.
    """
    names = entry[part]
    if not isinstance(names, list | np.ndarray) or np.ndim(names) != 1 or not all(isinstance(n, str) for n in names):
        msg = f"{part!r} of the result must be a list of names, is {type(names).__name__}; run the tool again."
        raise ValueError(msg)
    return [str(name) for name in names]


def stored_table(adata: "AnnData", key: str, names: Any) -> pd.DataFrame:
    """Return the table `obsm[key]` with the original names of its columns, in their order, whatever order they were put in."""
    names = stored_names({"names": names}, "names")
    values = stored_array(adata, "obsm", key, len(names))
    have, own = list(getattr(adata.obsm[key], "columns", [])), keys.column_names(names)
    if have != own and sorted(map(str, have)) == sorted(own):
        values = values[:, pd.Index(have).get_indexer(own)]
    return pd.DataFrame(values, index=adata.obs_names, columns=pd.Index(names))


def mapped_table(adata: "AnnData", key: str) -> pd.DataFrame:
    """Return what `tl.transform` stored: weights of archetypes under their names, or coordinates `key_1`, `key_2`, ..."""
    entry = stored_entry(adata, key, "transform")
    if "names" in entry:
        return stored_table(adata, key, entry["names"])
    values = stored_array(adata, "obsm", keys.EMBEDDING + key)
    return pd.DataFrame(values, index=adata.obs_names, columns=[f"{key}_{k + 1}" for k in range(values.shape[1])])
