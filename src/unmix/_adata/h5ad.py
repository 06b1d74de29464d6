"""Writing h5ad files: whole objects with a clear error on a full disk, and matrices block by block."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from unmix._adata.files import replacing

if TYPE_CHECKING:
    from anndata import AnnData


class _PatientFile(io.FileIO):
    """A file that never fails to be written to but keeps the first error: HDF5 can crash when it closes one that does."""

    error: OSError | None = None

    def write(self, data: Any) -> int:
        left = memoryview(data).cast("B")
        size = len(left)
        try:
            while left and self.error is None:
                left = left[super().write(left) :]
        except OSError as error:
            self.error = error
        return size

    def truncate(self, size: int | None = None) -> int:
        try:
            return super().truncate(size)
        except OSError as error:
            self.error = self.error or error
            return self.tell() if size is None else size


def write_h5ad(adata: "AnnData", path: Path) -> None:
    """Write an object in memory to h5ad.

    Raises
    ------
    OSError
        If the disk is full or `path` cannot be written to.
    """
    import h5py
    from anndata.io import write_elem

    adata.strings_to_categoricals()
    if adata.raw is not None:
        adata.strings_to_categoricals(adata.raw.var)
    with _PatientFile(path, "w+") as disk:
        try:
            with h5py.File(disk, "w") as file:
                write_elem(file, "/", adata)
        finally:
            if disk.error is not None:
                raise OSError(disk.error.errno, disk.error.strerror, str(path))


@contextmanager
def new_dense_h5ad(path: Path, obs_names: Any, var_names: Any) -> Iterator[Any]:
    """Give an empty float32 matrix in a new file to write rows to; the file appears when all is written.

    Raises
    ------
    ValueError
        If the file exists or its name does not end in `.h5ad`.
    OSError
        If its folder does not exist, or the disk is full.
    """
    import anndata
    import h5py

    if path.suffix != ".h5ad" or path.exists():
        msg = f"{path} exists." if path.exists() else f"the file must be named .h5ad, got {path.name!r}."
        raise ValueError(msg)
    obs, var = (pd.DataFrame(index=pd.Index(names, dtype=object)) for names in (obs_names, var_names))
    with replacing(path) as temporary:
        anndata.AnnData(obs=obs, var=var).write_h5ad(temporary)
        with h5py.File(temporary, "r+") as file:
            file.pop("X", None)
            X = file.create_dataset("X", (len(obs), len(var)), np.float32)
            X.attrs.update({"encoding-type": "array", "encoding-version": "0.2.0"})
            yield X
