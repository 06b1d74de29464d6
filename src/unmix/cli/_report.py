"""`unmix report`: from a file with results to one page."""

import sys
from pathlib import Path

from unmix.cli._files import check_outputs
from unmix.cli._modalities import read_one


def report(
    file: Path,
    *,
    out: Path,
    modality: str | None = None,
    key: list[str] | None = None,
    obs: list[str] | None = None,
    basis: str | None = None,
    library_key: str | None = None,
    title: str | None = None,
    force: bool = False,
) -> None:
    """One page that shows what was found: a map to point at, the table, markers, curves and parameters.

    The page needs nothing but a browser: no network, no other file.

    Parameters
    ----------
    file
        .h5ad, .zarr or .h5mu that one or more tools have written to.
    out
        Page to write: .html.
    modality
        Which modality of an .h5mu.
    key
        Result to show; may be given several times. All by default.
    obs
        Column of obs to show and colour by too; may be given several times.
    basis
        Coordinates in obsm; by default "spatial", or an embedding where there is no tissue.
    library_key
        Column of obs with the section of every spot; sections then lie side by side.
    title
        Heading of the page; by default the name of the file that was read.
    force
        Replace a page that exists.
    """
    check_outputs([out], force=force)
    adata = read_one(file, modality)
    from unmix._report import report as write_report

    heading = title if title is not None else file.stem
    write_report(adata, out, keys=key, obs=obs or [], basis=basis, library_key=library_key, title=heading)
    sys.stdout.write(f"wrote {out}\n")
