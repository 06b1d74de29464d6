"""Files: every kind is read alike, and one is replaced only when its successor is complete."""

import contextlib
import os
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from scipy import sparse

from unmix._adata.file_checks import check_folder, check_hdf5, check_tenx
from unmix._adata.read import check_indices
from unmix._adata.tenx import matrices_in, read_mtx_folder

if TYPE_CHECKING:
    from anndata import AnnData
    from mudata import MuData

STORE = (".zgroup", ".zattrs", ".zmetadata", "zarr.json")
"""Files of which a zarr store has one."""


def open_file(path: Path) -> "AnnData":
    """Read h5ad, zarr, 10x h5 or a 10x mtx folder.

    Raises
    ------
    ValueError
        If it is of another kind, damaged, or leads elsewhere.
    """
    import scanpy  # noqa: F401  before warnings are errors

    with _told(path):
        adata = _open(path)
        _check_matrices(adata)
    return adata


def open_modalities(path: Path) -> "MuData":
    """Read an h5mu file; observations and variables get no columns of their modalities.

    Raises
    ------
    ValueError
        If it is damaged, or leads elsewhere.
    ImportError
        If `mudata` is not installed.
    """
    import mudata

    with _told(path):
        check_hdf5(path)
        with mudata.set_options(pull_on_update=False):
            found = mudata.read_h5mu(path)
        for part in found.mod.values():
            _check_matrices(part)
    return found


def real_path(path: Path) -> Path:
    """Return where links lead.

    Raises
    ------
    OSError
        If one leads back to itself.
    """
    real = Path(os.path.realpath(path))
    if real.is_symlink():
        msg = f"{path} is a link that leads back to itself."
        raise OSError(msg)
    return real


@contextlib.contextmanager
def _told(path: Path) -> Iterator[None]:
    """Turn whatever a damaged file raises in the libraries that read it into one kind of error."""
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("error", "invalid value encountered in cast", RuntimeWarning)
            yield
    except Exception as error:
        msg = f"{path} could not be read: {' '.join(str(error).split()) or type(error).__name__}"
        raise ValueError(msg) from error


def _check_matrices(adata: "AnnData") -> None:
    """Refuse sparse matrices whose indices are none; scipy finds that out when it uses them, or crashes."""
    matrices = {"X": adata.X, **{f"layers[{key!r}]": layer for key, layer in adata.layers.items() if key is not None}}
    for name, matrix in (matrices if adata.raw is None else {**matrices, "raw": adata.raw.X}).items():
        if sparse.issparse(matrix):
            check_indices(matrix, name)


def _open(path: Path) -> "AnnData":
    """Read a file, by the ending of its name."""
    import anndata
    import scanpy as sc

    suffix = path.suffix.lower()
    if path.is_dir():
        check_folder(path)
    elif suffix in (".h5ad", ".h5"):
        check_hdf5(path)
    if suffix == ".h5ad":
        return anndata.read_h5ad(path)
    if suffix == ".h5":
        check_tenx(path)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Variable names are not unique", UserWarning)
            adata = sc.read_10x_h5(path)
        adata.var_names_make_unique()  # 10x's annotations have a few symbols twice
        return adata
    if path.is_dir() and matrices_in(path):
        return read_mtx_folder(path)
    if path.is_dir():
        _check_store(path)
        return anndata.read_zarr(path)
    msg = "expected .h5ad, .zarr, a 10x .h5 or a folder with matrix.mtx, barcodes and features."
    raise ValueError(msg)


def _check_store(path: Path) -> None:
    """Refuse a folder that is no zarr store, and name the files in it that can be read."""
    if any((path / name).exists() for name in STORE):
        return
    msg = "the folder is neither a .zarr nor one with matrix.mtx, barcodes and features"
    inside = [
        p for p in sorted(path.iterdir()) if p.suffix in (".h5ad", ".h5", ".zarr") or (p.is_dir() and matrices_in(p))
    ]
    msg += f"; in it are {[p.name for p in inside[:5]]}, name one of these." if inside else "."
    raise ValueError(msg)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary name beside `path` to write to, and move it to `path` once it is complete and on the disk.

    A process that is killed leaves the old file and at most a temporary one, named `.NAME.` and eight characters.

    Raises
    ------
    FileNotFoundError
        If the folder does not exist.
    OSError
        If the disk is full or the folder may not be written to; the old file is left.
    """
    path = real_path(path) if path.is_symlink() else path
    if not path.parent.is_dir():
        msg = f"{path}: the folder {path.parent} does not exist."
        raise FileNotFoundError(msg)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=path.suffix, dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
