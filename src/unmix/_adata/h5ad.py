"""An h5ad file whose matrix is written block by block."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd


@contextmanager
def new_dense_h5ad(path: Path, obs_names: Any, var_names: Any) -> Iterator[Any]:
    """Give an empty float32 matrix in a new file to write rows to; the file appears when all is written.

    Raises
    ------
    ValueError
        If the file exists or its name does not end in `.h5ad`.
    """
    import anndata
    import h5py

    if path.suffix != ".h5ad" or path.exists():
        msg = f"{path} exists." if path.exists() else f"the file must be named .h5ad, got {path.name!r}."
        raise ValueError(msg)
    temporary = path.with_name(f".{path.name}.part")
    obs, var = (pd.DataFrame(index=pd.Index(names, dtype=object)) for names in (obs_names, var_names))
    try:
        anndata.AnnData(obs=obs, var=var).write_h5ad(temporary)
        with h5py.File(temporary, "r+") as file:
            file.pop("X", None)
            X = file.create_dataset("X", (len(obs), len(var)), np.float32)
            X.attrs.update({"encoding-type": "array", "encoding-version": "0.2.0"})
            yield X
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
