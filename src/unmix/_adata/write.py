"""Writing results: storable values only, all of a tool's slots or none."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy import sparse

from unmix._adata.keys import column_names

if TYPE_CHECKING:
    from anndata import AnnData

ATTRIBUTES = ("layers", "obsm", "varm", "obs", "var", "uns")


@dataclass
class Slots:
    """What a tool wants to write, by attribute of the AnnData and key."""

    obs: dict[str, Any] = field(default_factory=dict)
    var: dict[str, Any] = field(default_factory=dict)
    obsm: dict[str, Any] = field(default_factory=dict)
    varm: dict[str, Any] = field(default_factory=dict)
    uns: dict[str, Any] = field(default_factory=dict)
    layers: dict[str, Any] = field(default_factory=dict)
    outdated: tuple[str, ...] = ()
    """Keys of `uns` of results that were made from what is replaced, and go with it."""

    def names(self) -> list[str]:
        """Return the slots as a reader would write them, such as `obsm['deconvolve']`."""
        return [f"{attribute}[{key!r}]" for attribute in ATTRIBUTES for key in getattr(self, attribute)]


def storable(value: Any) -> Any:
    """Return `value` as something that h5ad and zarr store and give back.

    Tuples and sets become lists, paths and functions strings, dataclasses and keys of any type dicts with string keys,
    `/` in keys and columns `_`, an AnnData a line that describes it.

    Examples
    --------
    >>> storable({"a/b": (1, 2), 3: None})
    {'a_b': [1, 2], '3': None}
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, pd.DataFrame):
        return _storable_table(value)
    if is_dataclass(value) and not isinstance(value, type):
        return storable(asdict(value))
    if isinstance(value, Mapping):
        keys = column_names([str(key) for key in value])
        return {key: storable(item) for key, item in zip(keys, value.values(), strict=True)}
    if isinstance(value, np.ndarray):
        return value if value.dtype.kind in "biufUS" else np.array(["" if v is None else str(v) for v in value.ravel()])
    if isinstance(value, pd.Series | pd.Index | pd.Categorical):
        return storable(np.asarray(value))
    if isinstance(value, list | tuple | set | frozenset):
        return _storable_list(sorted(value, key=str) if isinstance(value, set | frozenset) else list(value))
    if sparse.issparse(value):
        return value
    return _described(value)


def _storable_table(table: pd.DataFrame) -> pd.DataFrame:
    table = table.copy()
    table.columns = column_names([str(name) for name in table.columns])
    table.index = table.index.astype(str)
    for name, kind in table.dtypes.items():
        if isinstance(kind, pd.StringDtype) or (isinstance(kind, np.dtype) and kind.kind == "O"):
            table[name] = pd.Categorical(table[name].astype(str).astype(object))
    return table


def _storable_list(items: list[Any]) -> Any:
    items = [storable(item) for item in items]
    if all(isinstance(item, str) for item in items):
        return np.array(items, dtype=str) if items else np.array([], dtype="U1")
    if all(isinstance(item, bool | int | float) for item in items):
        return items
    return {str(i): item for i, item in enumerate(items)}


def _described(value: Any) -> str:
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, np.random.Generator):
        return f"numpy.random.Generator({type(value.bit_generator).__name__})"
    if hasattr(value, "n_obs") and hasattr(value, "n_vars"):
        return f"{type(value).__name__} with n_obs x n_vars = {value.n_obs} x {value.n_vars}"
    return getattr(value, "__qualname__", None) or str(value)


def write(adata: "AnnData", slots: Slots) -> None:
    """Write all slots into `adata`, or, on any error or interrupt, none.

    Parameters
    ----------
    adata
        Object to write to; a view becomes an object of its own first.
    slots
        What to write; `obs` and `var` values are columns, `obsm` and `varm` values arrays or DataFrames.
    """
    write_all([(adata, slots)])


def write_all(pairs: "Sequence[tuple[AnnData, Slots]]") -> None:
    """Write the slots of several objects, or, on any error or interrupt, none of any.

    Every result notes in `uns[key]["slots"]` what belongs to it, and what an earlier one under its key has left is removed.
    """
    ready = [(adata, attribute, key, _ABSENT) for adata, slots in pairs for attribute, key in _outdated(adata, slots)]
    ready += [
        (adata, attribute, key, _prepared(adata, attribute, _noted(slots, value) if attribute == "uns" else value))
        for adata, slots in pairs
        for attribute in ATTRIBUTES
        for key, value in getattr(slots, attribute).items()
    ]
    for adata, _ in pairs:
        if getattr(adata, "is_view", False):
            _make_actual(adata)
    tables = [(adata, name, getattr(adata, name).copy(deep=False)) for adata, _ in pairs for name in ("obs", "var")]
    undo: list[tuple[Any, str, str, Any]] = []
    try:
        for adata, attribute, key, value in ready:
            undo.append((adata, attribute, key, _current(adata, attribute, key)))
            _put(adata, attribute, key, value)
    except BaseException:
        for adata, name, table in tables:  # whole: a column may be half in
            if any(a is adata and attribute == name for a, attribute, _, _ in undo):
                setattr(adata, name, table)
        for adata, attribute, key, value in reversed(undo):
            if attribute not in ("obs", "var"):
                _put(adata, attribute, key, value)
        raise


def _noted(slots: Slots, value: Any) -> Any:
    """Return an entry of `uns` with the names of the slots that are written beside it."""
    if not isinstance(value, Mapping) or "params" not in value:
        return value
    names = {attribute: list(getattr(slots, attribute)) for attribute in ATTRIBUTES if attribute != "uns"}
    return {**value, "slots": {attribute: found for attribute, found in names.items() if found}}


def _outdated(adata: "AnnData", slots: Slots) -> list[tuple[str, str]]:
    """Name what earlier results under the same keys have left and no other claims, and results of which nothing is left."""
    new = {(attribute, key) for attribute in ATTRIBUTES for key in getattr(slots, attribute)}
    claimed = {key: _claims(str(key), entry) for key, entry in adata.uns.items()}
    made_of_it = {key for key in slots.outdated if claimed.get(key)}
    others = {key: claims for key, claims in claimed.items() if key not in slots.uns and key not in made_of_it}
    gone = (claims for key, claims in claimed.items() if key not in others)
    left = set().union(*gone) - set().union(*others.values()) - new
    spent = [("uns", key) for key, claims in others.items() if claims and claims <= new]
    spent += [("uns", key) for key in sorted(made_of_it)]
    return [*sorted((at, key) for at, key in left if key in getattr(adata, at)), *spent]


def _claims(key: str, entry: Any) -> set[tuple[str, str]]:
    """Return the attributes and names of the slots that a result has noted as its own."""
    noted = entry.get("slots") if isinstance(entry, Mapping) else None
    if not isinstance(noted, Mapping):
        return set()
    pairs = ((at, str(name)) for at in ATTRIBUTES if at != "uns" for name in np.ravel(noted.get(at, [])))
    return {(at, name) for at, name in pairs if name.removeprefix("X_").startswith(key)}


def _make_actual(adata: "AnnData") -> None:
    """Turn a view into an object of its own, or, on any error or interrupt, leave it a view."""
    view = dict(vars(adata))
    try:
        adata._init_as_actual(adata.copy())
    except BaseException:
        vars(adata).clear()
        vars(adata).update(view)
        raise


_ABSENT = object()


def _prepared(adata: "AnnData", attribute: str, value: Any) -> Any:
    if attribute in ("obs", "var"):
        index = adata.obs_names if attribute == "obs" else adata.var_names
        return value if isinstance(value, pd.Categorical) else pd.Series(np.asarray(value), index=index)
    if attribute == "uns":
        return storable(value)
    if isinstance(value, pd.DataFrame):
        value = _storable_table(value)
        value.index = adata.obs_names if attribute == "obsm" else adata.var_names
    return value


def _current(adata: "AnnData", attribute: str, key: str) -> Any:
    slot = getattr(adata, attribute)
    return slot.get(key, _ABSENT)


def _put(adata: "AnnData", attribute: str, key: str, value: Any) -> None:
    """Set a slot, or remove it where the value is `_ABSENT`."""
    slot = getattr(adata, attribute)
    if value is not _ABSENT:
        slot[key] = value
    elif key in slot:
        del slot[key]
