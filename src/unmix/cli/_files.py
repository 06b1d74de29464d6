"""Files that the shell reads and writes: nothing is overwritten unasked, and a file appears only when it is complete."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from unmix._adata.files import open_file, real_path, replacing
from unmix._adata.h5ad import write_h5ad

if TYPE_CHECKING:
    from anndata import AnnData

TABLES = {".csv": ",", ".tsv": "\t", ".txt": "\t"}
NAMES = {",": "commas", "\t": "tabs"}
SAFELY: dict[str, Any] = {"float_precision": "round_trip"}
"""How pandas reads numbers: its own parsers crash the process on exponents of many digits, and are not exact."""
OBJECTS = (".h5ad",)
PICTURES = (".png", ".pdf", ".svg", ".jpg", ".jpeg", ".tif", ".tiff", ".webp")


class FileProblem(Exception):
    """A file cannot be read or must not be written; the message is for the user."""


def read_data(path: Path) -> "AnnData":
    """Read h5ad, zarr, 10x h5 or a 10x mtx folder.

    Raises
    ------
    FileProblem
        If there is no such file, it is of another kind, or it is damaged.
    """
    return opened(path, open_file)


def opened(path: Path, read: Callable[[Path], Any]) -> Any:
    """Read a file that must exist.

    Raises
    ------
    FileProblem
        If it does not, or `read` refuses it.
    """
    if not path.exists():
        msg = f"{path}: no such file or folder."
        raise FileProblem(msg)
    try:
        return read(path)
    except ValueError as error:
        raise FileProblem(str(error)) from error


def read_reference(path: Path) -> "AnnData | pd.DataFrame":
    """Read labelled cells, or a genes x types table from CSV or TSV (also gzipped).

    Raises
    ------
    FileProblem
        If it cannot be read, or its columns are not separated as its ending says.
    """
    suffixes = [s for s in map(str.lower, path.suffixes) if s != ".gz"]
    separator = TABLES.get(suffixes[-1] if suffixes else "")
    if separator is None or path.is_dir():
        return read_data(path)
    try:
        found = pd.read_csv(
            path, sep=separator, index_col=0, keep_default_na=False, na_values=[""], **SAFELY
        )  # NA is a gene
    except Exception as error:  # damaged files raise what their libraries like
        msg = f"{path} could not be read as a table: {error}"
        raise FileProblem(msg) from error
    if found.shape[1] == 0:
        msg = f"{path} has one column only; columns must be separated by {NAMES[separator]}, as its ending says."
        raise FileProblem(msg)
    return found


def read_samples(path: Path) -> "AnnData":
    """Read spots or samples, from the formats of cells or from a table genes x samples.

    Raises
    ------
    FileProblem
        If the file cannot be read, a column of the table holds no numbers, or a gene has several rows.
    """
    found = read_reference(path)
    if not isinstance(found, pd.DataFrame):
        return found
    if words := [str(name) for name, kind in found.dtypes.items() if not pd.api.types.is_numeric_dtype(kind)]:
        msg = f"{path}: a table of samples has genes in its first column and numbers in all others; {words[0]!r} has none."
        raise FileProblem(msg)
    if twice := found.index[found.index.duplicated()].astype(str).unique()[:3].tolist():
        msg = f"{path}: genes must be unique; {twice} have several rows. Add their rows up, or name them differently."
        raise FileProblem(msg)
    from anndata import AnnData

    return AnnData(found.set_axis(found.index.astype(str), axis=0).set_axis(found.columns.astype(str), axis=1).T)


def read_table(path: Path) -> pd.DataFrame:
    """Read a table with a header from CSV, TSV or Parquet, by the ending of its name.

    Raises
    ------
    FileProblem
        If it cannot be read.
    """
    try:
        if path.suffix.lower() == ".parquet":
            return pd.read_parquet(path)
        return pd.read_csv(path, sep=TABLES.get(path.suffix.lower(), ","), **SAFELY)
    except Exception as error:  # damaged files raise what their libraries like
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
    if len({real_path(path) for path in given}) < len(given):
        msg = f"two outputs have the same name: {', '.join(map(str, given))}."
        raise FileProblem(msg)
    for path in given:
        if not path.parent.is_dir():
            msg = f"{path}: the folder {path.parent} does not exist."
            raise FileProblem(msg)
        if path.is_dir() or (path.exists() and not force):
            msg = f"{path} exists; give --force to replace it." if path.is_file() else f"{path} is a folder."
            raise FileProblem(msg)


def check_endings(
    *, objects: Sequence[Path | None] = (), tables: Sequence[Path | None] = (), pictures: Sequence[Path | None] = ()
) -> None:
    """Refuse, before any work starts, names whose endings do not say how to write them.

    Raises
    ------
    FileProblem
        If there is one.
    """
    for paths, endings in ((objects, OBJECTS), (tables, (*TABLES, ".parquet")), (pictures, PICTURES)):
        for path in paths:
            if path is not None and path.suffix.lower() not in endings:
                msg = f"{path}: the name must end in {' or '.join(endings)}."
                raise FileProblem(msg)


def checked_sections(adata: "AnnData", library_key: str | None) -> dict[str, str]:
    """Return what maps are told of sections; refuse, before any work starts, a column that does not tell them apart.

    Raises
    ------
    FileProblem
        If there are no coordinates to draw maps with.
    """
    if library_key is None:
        return {}
    if "spatial" not in adata.obsm:
        msg = "--library-key is for maps of the tissue, and there are no coordinates in obsm/spatial."
        raise FileProblem(msg)
    from unmix.pl._sections import spots_by_section

    spots_by_section(adata, library_key)
    return {"library_key": library_key}


def write_outputs(outputs: Sequence[tuple[Path | None, Callable[[Path], Any]]]) -> None:
    """Write what was asked for, each file whole or not at all, and say so.

    Raises
    ------
    FileProblem
        If a file cannot be written.
    """
    wanted = [(path, write) for path, write in outputs if path is not None]
    for path, write in wanted:
        with replacing(path) as temporary:
            try:
                write(temporary)
            except (OSError, RuntimeError, ValueError, TypeError) as error:
                msg = f"{path} could not be written: {getattr(error, 'strerror', None) or error}"
                raise FileProblem(msg) from error
    sys.stdout.write(f"wrote {', '.join(str(path) for path, _ in wanted)}\n")


def picture(draw: Callable[..., Any], adata: "AnnData", **options: Any) -> Callable[[Path], Any]:
    """Return what draws a picture to a file."""

    def write(path: Path) -> None:
        import matplotlib as mpl

        mpl.use("agg")
        draw(adata, show=False, save=path, **options)

    return write


def h5ad(adata: "AnnData") -> Callable[[Path], Any]:
    """Return what writes an object as h5ad."""
    return lambda path: write_h5ad(adata, path)


def table(values: pd.DataFrame) -> Callable[[Path], Any]:
    """Return what writes a table as CSV, TSV or Parquet, by the ending of the file's name."""

    def write(path: Path) -> None:
        if path.suffix.lower() == ".parquet":
            values.to_parquet(path)
        else:
            values.to_csv(path, sep=TABLES.get(path.suffix.lower(), ","))

    return write
