"""Two states of an object compared to the last bit."""

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy import sparse

PARTS = ("obs", "var", "obsm", "varm", "obsp", "varp", "layers", "uns")


def fingerprint(value: Any) -> Any:
    """Return what tells two values apart to the last bit, nested as the value is."""
    if isinstance(value, AnnData):
        parts: dict[str, Any] = {"obs_names": fingerprint(value.obs_names), "var_names": fingerprint(value.var_names)}
        parts["X"] = fingerprint(value.X) if value.filename is None else "on disk"
        return {**parts, **{part: fingerprint(getattr(value, part)) for part in PARTS}}
    if isinstance(value, pd.DataFrame):
        columns = {f"{i} {name}": fingerprint(value.iloc[:, i]) for i, name in enumerate(value.columns)}
        return {**columns, "index": fingerprint(value.index)}
    if isinstance(value, pd.Series):
        return fingerprint(value.array)
    if isinstance(value, pd.Categorical):
        return ("categorical", value.codes.tobytes(), tuple(map(str, value.categories)))
    if isinstance(value, Mapping):
        return {str(key): fingerprint(item) for key, item in value.items() if key is not None}
    if hasattr(value, "dask"):
        return ("dask", value.name)
    if sparse.issparse(value):
        names = [name for name in ("data", "indices", "indptr", "row", "col") if hasattr(value, name)]
        return (value.format, value.shape, *(fingerprint(getattr(value, name)) for name in names))
    if isinstance(value, np.ndarray | pd.Index | pd.api.extensions.ExtensionArray):
        array = np.asarray(value)
        raw = repr(array.tolist()).encode() if array.dtype.kind == "O" else array.tobytes()
        return (array.dtype.str, array.shape, hashlib.sha1(raw).hexdigest())
    if isinstance(getattr(value, "mod", None), Mapping):
        return {name: fingerprint(part) for name, part in value.mod.items()}
    if isinstance(value, list | tuple):
        return tuple(fingerprint(item) for item in value)
    return repr(value) if isinstance(value, str | int | float | bool | None) else type(value).__name__


def difference(before: Any, after: Any, *, added: bool, where: str = "") -> str:
    """Return where two fingerprints differ, or nothing; with `added`, new entries do not count."""
    if not (isinstance(before, dict) and isinstance(after, dict)):
        return "" if before == after else where or "the value"
    if set(before) - set(after) or (not added and set(after) - set(before)):
        return f"{where}{sorted(set(before) ^ set(after))}"
    for key in before:
        found = difference(before[key], after[key], added=added, where=f"{where}[{key}]")
        if found:
            return found
    return ""
