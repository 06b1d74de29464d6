"""Files that the shell reads and writes: nothing is overwritten unasked, and a file appears only when it is complete."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from unmix._adata.files import replacing

if TYPE_CHECKING:
    from anndata import AnnData

TABLES = {".csv": ",", ".tsv": "\t", ".txt": "\t"}


class FileProblem(Exception):
    """A file cannot be read or must not be written; the message is for the user."""


def read_data(path: Path) -> "AnnData":
    """Read h5ad, zarr, 10x h5 or a 10x mtx folder.

    Raises
    ------
    FileProblem
        If there is no such file, it is of another kind, or it is damaged.
    """
    if not path.exists():
        msg = f"{path}: no such file or folder."
        raise FileProblem(msg)
    import anndata
    import scanpy as sc

    try:
        if path.suffix == ".h5ad":
            return anndata.read_h5ad(path)
        if path.suffix == ".h5":
            return sc.read_10x_h5(path)
        if path.is_dir() and (any(path.glob("matrix.mtx*")) or any(path.glob("*_matrix.mtx*"))):
            return sc.read_10x_mtx(path)
        if path.is_dir():
            return anndata.read_zarr(path)
    except (OSError, KeyError, ValueError, TypeError, EOFError, IndexError, RuntimeError) as error:
        msg = f"{path} could not be read: {error}"
        raise FileProblem(msg) from error
    msg = f"{path}: expected .h5ad, .zarr, a 10x .h5 or a folder with matrix.mtx, barcodes and features."
    raise FileProblem(msg)


def read_reference(path: Path) -> "AnnData | pd.DataFrame":
    """Read labelled cells, or a genes x types table from CSV or TSV (also gzipped).

    Raises
    ------
    FileProblem
        If it cannot be read.
    """
    suffixes = [s for s in path.suffixes if s != ".gz"]
    separator = TABLES.get(suffixes[-1] if suffixes else "")
    if separator is None or path.is_dir():
        return read_data(path)
    try:
        return pd.read_csv(path, sep=separator, index_col=0)
    except (OSError, ValueError, EOFError) as error:
        msg = f"{path} could not be read as a table: {error}"
        raise FileProblem(msg) from error


def read_table(path: Path) -> pd.DataFrame:
    """Read a table with a header from CSV, TSV or Parquet, by the ending of its name.

    Raises
    ------
    FileProblem
        If it cannot be read.
    """
    try:
        if path.suffix == ".parquet":
            return pd.read_parquet(path)
        return pd.read_csv(path, sep=TABLES.get(path.suffix, ","))
    except (OSError, ValueError, EOFError) as error:
        msg = f"{path} could not be read as a table: {error}"
        raise FileProblem(msg) from error


def check_outputs(paths: Sequence[Path | None], *, force: bool) -> None:
    """Refuse, before any work starts, to write where that is not possible or something is already.

    Raises
    ------
    FileProblem
        If a file exists and `force` is not given, two outputs are the same, or the folder does not exist.
    """
    given = [path for path in paths if path is not None]
    if len({path.resolve() for path in given}) < len(given):
        msg = f"two outputs have the same name: {', '.join(map(str, given))}."
        raise FileProblem(msg)
    for path in given:
        if not path.parent.is_dir():
            msg = f"{path}: the folder {path.parent} does not exist."
            raise FileProblem(msg)
        if path.is_dir() or (path.exists() and not force):
            msg = f"{path} exists; give --force to replace it." if path.is_file() else f"{path} is a folder."
            raise FileProblem(msg)


def write_table(table: pd.DataFrame, path: Path) -> None:
    """Write a table as CSV, TSV or Parquet, by the ending of its name."""
    with replacing(path) as temporary:
        if path.suffix == ".parquet":
            table.to_parquet(temporary)
        else:
            table.to_csv(temporary, sep=TABLES.get(path.suffix, ","))
