"""`unmix deconvolve`: from files to a table, an AnnData and a picture."""

from pathlib import Path
from typing import Literal

from unmix.cli._files import (
    check_endings,
    check_outputs,
    checked_sections,
    h5ad,
    picture,
    read_reference,
    read_samples,
    table,
    write_outputs,
)


def deconvolve(
    spots: Path,
    *,
    reference: Path,
    out: Path,
    groupby: str | None = None,
    method: Literal["auto", "nnls", "simplex", "poisson", "nusvr", "nusvr_simplex"] = "auto",
    batch_key: str | None = None,
    unknown: bool = False,
    smooth: bool = False,
    layer: str | None = None,
    reference_layer: str | None = None,
    genes: Literal["markers", "all"] | None = None,
    as_rna: bool = False,
    tidy: bool = False,
    n_perms: int = 0,
    rng: int = 0,
    n_jobs: int | None = None,
    out_h5ad: Path | None = None,
    plot: Path | None = None,
    library_key: str | None = None,
    force: bool = False,
) -> None:
    """Cell-type proportions of spots or bulk samples.

    Parameters
    ----------
    spots
        Spots or samples: .h5ad, .zarr, a 10x .h5 or a 10x mtx folder; bulk samples also a genes x samples table (.csv, .tsv).
    reference
        Labelled cells (.h5ad, .zarr, 10x), or a genes x types signature (.csv, .tsv).
    out
        Table of proportions to write: .csv, .tsv or .parquet.
    groupby
        Column of the reference with the cell type; left out for a signature.
    method
        How to fit: a count model that estimates the platform effect (auto), likelihood of counts, least squares, or
        nu-SVR (CIBERSORT).
    batch_key
        Column of the reference with the donor or batch of every cell.
    unknown
        Look for one type that the reference lacks.
    smooth
        Let spatial neighbours help, as far as genes held out say that they do; needs a graph in the file
        (obsp/spatial_connectivities, as squidpy writes it).
    layer
        Layer of the spots with the counts.
    reference_layer
        Layer of the reference with the counts.
    genes
        Genes to fit; by default what suits the method.
    as_rna
        Shares of RNA instead of shares of cells.
    tidy
        One row per spot and type instead of one column per type.
    n_perms
        Permutations for a p-value per spot.
    rng
        Seed.
    n_jobs
        Threads.
    out_h5ad
        AnnData with all results to write.
    plot
        Picture to write: maps where there are coordinates, bars where there are none.
    library_key
        Column of obs with the section of every spot; the picture then has a row of maps per section.
    force
        Replace files that exist.
    """
    check_outputs([out, out_h5ad, plot], force=force)
    check_endings(objects=[out_h5ad], tables=[out], pictures=[plot])
    adata, cells = read_samples(spots), read_reference(reference)
    sections = checked_sections(adata, library_key)
    from unmix import get, pl, tl

    tl.deconvolve(
        adata,
        cells,
        groupby=groupby,
        method=method,
        batch_key=batch_key,
        unknown=unknown,
        smoothing="auto" if smooth else None,
        layer=layer,
        reference_layer=reference_layer,
        genes=genes,
        as_rna=as_rna,
        n_perms=n_perms,
        rng=rng,
        n_jobs=n_jobs,
    )
    write_outputs(
        [
            (out, table(get.proportions(adata, tidy=tidy))),
            (out_h5ad, h5ad(adata)),
            (plot, picture(pl.proportions, adata, **sections)),
        ]
    )
