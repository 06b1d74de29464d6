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


HEADER = 512
"""Bytes before the HDF5 part of an h5mu file."""


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


@contextmanager
def _new_file(path: Path, header: bytes = b"", room: int = 0) -> Iterator[Any]:
    """Give a new HDF5 file to write to, behind so many bytes of room for a header.

    Raises
    ------
    OSError
        If the disk is full or `path` cannot be written to.
    """
    import h5py

    with _PatientFile(path, "w+") as disk:
        try:
            with h5py.File(disk, "w", userblock_size=room or None) as file:
                yield file
            if header:
                disk.seek(0)
                disk.write(header.ljust(room, b"\0"))
        finally:
            if disk.error is not None:
                raise OSError(disk.error.errno, disk.error.strerror, str(path))


def write_h5ad(adata: "AnnData", path: Path) -> None:
    """Write an object in memory to h5ad.

    Raises
    ------
    OSError
        If the disk is full or `path` cannot be written to.
    """
    from anndata.io import write_elem

    _without_strings(adata)
    with _new_file(path) as file:
        write_elem(file, "/", adata)


def write_h5mu(data: Any, path: Path) -> None:
    """Write a MuData in memory to h5mu, as the format is published.

    Raises
    ------
    OSError
        If the disk is full or `path` cannot be written to.
    """
    import mudata
    from anndata.io import write_elem

    about = {"encoder": "mudata", "encoder-version": mudata.__version__}
    version = mudata.__mudataversion__
    header = f"MuData (format-version={version};creator=muon;creator-version={mudata.__version__})".encode()
    with _new_file(path, header, HEADER) as file:
        for name in ("obs", "var"):
            write_elem(file, name, data.strings_to_categoricals(getattr(data, name).copy()))
        for name in ("obsm", "varm", "obsp", "varp", "uns", "obsmap", "varmap"):
            write_elem(file, name, dict(getattr(data, name)))
        for name, part in data.mod.items():
            _without_strings(part)
            write_elem(file, f"mod/{name}", part)
            file[f"mod/{name}"].attrs.update(about)
            if part.raw is None:
                file.pop(f"mod/{name}/raw", None)
        file["mod"].attrs["mod-order"] = list(data.mod)
        file.attrs.update({"axis": data.axis, "encoding-type": "MuData", "encoding-version": version, **about})


def _without_strings(adata: "AnnData") -> None:
    """Turn columns of strings that repeat into categories, as anndata does when it writes."""
    adata.strings_to_categoricals()
    if adata.raw is not None:
        adata.strings_to_categoricals(adata.raw.var)


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
