"""One way to the data: a public data set by its name, or a file by its path."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from unmix._adata.files import open_file
from unmix.datasets._download import REGISTRY, fetch

if TYPE_CHECKING:
    from anndata import AnnData


def read(source: str | Path, *, cache: str | Path = "data") -> "AnnData":
    """Read a public data set, downloaded once, or a file, with counts in `X` where the file has some.

    Parameters
    ----------
    source
        A name in :data:`unmix.datasets.REGISTRY`, or the path of an .h5ad or .zarr file, a 10x .h5 file or a 10x mtx folder.
    cache
        Folder to keep downloads in; they are checked against their SHA-256 every time.

    Returns
    -------
    The object. Where its `X` holds other numbers than counts, as after normalisation, and `layers["counts"]` or `raw` holds
    counts, those are put in their place.

    Raises
    ------
    FileNotFoundError
        If `source` is neither a name nor a path that exists.
    ValueError
        If a file is of another kind, or a download is not the one that was expected.

    Examples
    --------
    >>> import tempfile, unmix as um
    >>> spots, _ = um.datasets.pbmc_spots()
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     spots.write_h5ad(f"{folder}/spots.h5ad")
    ...     um.datasets.read(f"{folder}/spots.h5ad").shape
    (300, 765)
    """
    path = fetch(str(source), cache=cache) if str(source) in REGISTRY else Path(source)
    if not path.exists():
        msg = f"{source} is neither a file nor one of the public data sets {list(REGISTRY)}."
        raise FileNotFoundError(msg)
    adata = _with_counts(open_file(path))
    adata.var_names_make_unique()
    return adata


def _with_counts(adata: "AnnData") -> "AnnData":
    """Put counts in the place of other numbers, where there are some."""
    if _whole(adata.X):
        return adata
    if "counts" in adata.layers and _whole(adata.layers["counts"]):
        adata.X = adata.layers["counts"].copy()
    elif adata.raw is not None and _whole(adata.raw.X):
        return adata.raw.to_adata()
    return adata


def _whole(matrix: Any) -> bool:
    """Say whether all of a matrix's numbers are counts."""
    values = np.asarray(matrix.data if hasattr(matrix, "nnz") else matrix) if matrix is not None else np.array([0.5])
    return bool(np.all((values >= 0) & (values == np.rint(values))))
