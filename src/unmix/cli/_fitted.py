"""`unmix transform`, `denoise`: what a fitted model says about data."""

import tempfile
from pathlib import Path
from typing import Any

from unmix._adata.files import real_path
from unmix.cli._files import FileProblem, check_endings, check_outputs, h5ad, read_data, table, write_outputs
from unmix.cli._modalities import read_one


def transform(
    data: Path,
    *,
    fitted: Path,
    key: str,
    out: Path,
    modality: str | None = None,
    coordinates: Path | None = None,
    predict: list[str] | None = None,
    batch: str | None = None,
    layer: str | None = None,
    key_added: str | None = None,
    n_jobs: int | None = None,
    force: bool = False,
) -> None:
    """Map new cells or spots onto a fitted model.

    Parameters
    ----------
    data
        New cells, spots or samples: .h5ad, .zarr, a 10x .h5 or a 10x mtx folder.
    fitted
        What a tool has written: .h5ad, .zarr or .h5mu, or the model of an autoencoder (.safetensors).
    key
        Name of the results in it.
    out
        AnnData with the results to write (.h5ad).
    modality
        Which modality of a fit in an .h5mu the new data are.
    coordinates
        Table of observations x components to write: .csv, .tsv or .parquet.
    predict
        Modality to predict, of a joint factorisation; may be given several times.
    batch
        Batch of the fit to take the new data for, of an autoencoder.
    layer
        Layer with the matrix.
    key_added
        Name of the new results; that of the fit by default.
    n_jobs
        Threads.
    force
        Replace files that exist.
    """
    check_outputs([out, coordinates], force=force)
    check_endings(objects=[out], tables=[coordinates])
    to, source, onto = map(real_path, (out, data, fitted))
    if to == onto and (source != to or key_added in (None, key)):
        msg = f"this would overwrite the fit {key!r} of {fitted}: give --out another name, or for its own data --key-added."
        raise FileProblem(msg)
    adata, model = read_data(data), read_fitted(fitted, modality)
    from unmix import tl
    from unmix._adata.stored import mapped_table

    options: dict[str, Any] = {"predict": predict, "batch": batch, "layer": layer, "n_jobs": n_jobs}
    name = key_added or key
    tl.transform(adata, model, key=key, key_added=name, **options)
    write_outputs([(out, h5ad(adata)), (coordinates, table(mapped_table(adata, name)))])


def denoise(
    data: Path,
    *,
    out: Path,
    fitted: Path | None = None,
    key: str = "ae",
    genes: list[str] | None = None,
    dropout: bool = False,
    library: bool = True,
    batch: str | None = None,
    layer: str | None = None,
    n_jobs: int | None = None,
    force: bool = False,
) -> None:
    """Replace counts by the means that a fitted autoencoder decodes.

    Parameters
    ----------
    data
        Cells with counts: .h5ad, .zarr, a 10x .h5 or a 10x mtx folder.
    out
        AnnData with the means as X to write (.h5ad).
    fitted
        What `unmix autoencoder` or `unmix zinb-ae` has written: .h5ad, or the model (.safetensors); the data themselves by
        default.
    key
        Name of the autoencoder's results.
    genes
        Gene to decode; may be given several times; all by default.
    dropout
        What would be counted, dropouts included.
    library
        Means at the cell's own total, or else at the median total of the cells fitted.
    batch
        Decode as if all cells were of this batch of the fit.
    layer
        Layer with the counts.
    n_jobs
        Threads.
    force
        Replace files that exist.
    """
    check_outputs([out], force=force)
    check_endings(objects=[out])
    adata = read_data(data)
    model = None if fitted is None else read_fitted(fitted)
    from unmix import tl

    options: dict[str, Any] = {"genes": genes, "dropout": dropout, "library": library, "batch": batch}
    with tempfile.TemporaryDirectory(prefix=f".{out.stem}.", dir=out.parent) as folder:
        means = Path(folder) / "means.h5ad"
        tl.denoise(adata, model, key=key, layer=layer, out=means, n_jobs=n_jobs, **options)
        write_outputs([(out, means.replace)])


def read_fitted(path: Path, modality: str | None = None) -> Any:
    """Read what a tool has written, or the model of an autoencoder.

    Raises
    ------
    FileProblem
        If it cannot be read.
    """
    if path.suffix != ".safetensors" or not path.is_file():
        return read_one(path, modality)
    from unmix import load

    return load(path)
