"""The report as one function."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from unmix._settings import logger

if TYPE_CHECKING:
    from anndata import AnnData


def report(
    adata: "AnnData",
    path: str | Path,
    *,
    keys: str | Sequence[str] | None = None,
    basis: str | None = None,
    library_key: str | None = None,
    obs: str | Sequence[str] = (),
    title: str | None = None,
) -> None:
    """Write one page that shows what the tools have found: a file that any browser opens, without a network.

    Pointing at a spot shows its proportions with their errors; choosing a type colours the tissue, over its image where
    there is one. Below are the table, which can be sorted, filtered and saved as CSV, markers, curves and parameters.

    Parameters
    ----------
    adata
        Object that one or more tools have written to.
    path
        File to write (.html); one that exists is replaced once the new one is complete.
    keys
        The `key_added` of the results to show, first to last; `None` for all.
    basis
        Key of the coordinates in `obsm`; `None` for `"spatial"`, or an embedding where there is no tissue. Objects
        without coordinates, such as bulk samples, get bars.
    library_key
        Column of `obs` with the section of every spot, in objects that hold several (squidpy's name for it). Sections then
        lie side by side under their names, at one scale, each over its own image `uns["spatial"][section]` where there is
        one.
    obs
        Columns of `obs` to show too, and to colour the tissue by.
    title
        Heading of the page; `None` for the name of the file.

    Raises
    ------
    TypeError
        If `adata` is no AnnData.
    KeyError
        If there is no such result, column or basis.
    ValueError
        If there are no observations, coordinates are not finite, a spot has no section, or a result is not as its tool has
        left it.
    FileNotFoundError
        If the folder of `path` does not exist.

    Warns
    -----
    SectionsWarning
        If `uns["spatial"]` holds several sections, whose spots lie on top of each other without `library_key`, or with
        it sections have no image and it has images of other names.

    Examples
    --------
    >>> import tempfile, unmix as um
    >>> from pathlib import Path
    >>> spots, reference = um.datasets.pbmc_spots()
    >>> um.tl.deconvolve(spots, reference, groupby="cell_type")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     um.report(spots, f"{folder}/report.html", title="Blood")
    ...     "<h1" in Path(folder, "report.html").read_text()
    True
    """
    from unmix._adata.files import replacing
    from unmix._adata.tool import check_anndata
    from unmix._report.page import render
    from unmix._report.readers import read_results
    from unmix._report.tissue import find_place

    path = Path(path)
    check_anndata(adata, "report")
    if not path.parent.is_dir():
        msg = f"{path}: the folder {path.parent} does not exist."
        raise FileNotFoundError(msg)
    if adata.n_obs == 0:
        msg = "there are no observations to report on."
        raise ValueError(msg)
    extra = read_columns(adata, [obs] if isinstance(obs, str) else list(obs))
    place = find_place(adata, basis, library_key)
    results = read_results(adata, [keys] if isinstance(keys, str) else keys)
    page = render(adata, title if title is not None else path.stem, place, results, extra)
    with replacing(path) as temporary:
        temporary.write_text(page, encoding="utf-8")
    logger.info("report: wrote %s, %.1f MB", path, path.stat().st_size / 1e6)


def read_columns(adata: "AnnData", names: Sequence[str]) -> pd.DataFrame:
    """Return columns of `obs`.

    Raises
    ------
    KeyError
        If one does not exist.
    """
    missing = [name for name in names if name not in adata.obs]
    if missing:
        msg = f"`obs` {missing} are not in obs; there are {[str(name) for name in adata.obs]}."
        raise KeyError(msg)
    return adata.obs[list(names)]
