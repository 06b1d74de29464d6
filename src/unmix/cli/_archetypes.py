"""`unmix archetypes`: from files to tables of archetypes, an AnnData and a picture."""

import json
from pathlib import Path
from typing import Any, Literal

from unmix.cli._files import (
    FileProblem,
    check_endings,
    check_outputs,
    checked_sections,
    h5ad,
    picture,
    read_data,
    read_table,
    table,
    write_outputs,
)


def archetypes(
    spots: Path,
    *,
    out: Path,
    signatures: Path | None = None,
    n_archetypes: int | Literal["auto"] = "auto",
    resolution: float | None = None,
    smooth: bool = False,
    layer: str | None = None,
    markers: Path | None = None,
    rng: int = 0,
    n_jobs: int | None = None,
    out_h5ad: Path | None = None,
    plot: Path | None = None,
    library_key: str | None = None,
    force: bool = False,
) -> None:
    """Archetypes of a tissue, and what gene sets say they are.

    Parameters
    ----------
    spots
        Spots or cells with counts: .h5ad, .zarr, a 10x .h5 or a 10x mtx folder.
    out
        Table to write: shares of types where there are signatures, else weights of archetypes (.csv, .tsv, .parquet).
    signatures
        Gene sets: .json (a list per type), or .csv or .tsv with a column of genes per type.
    n_archetypes
        Number of archetypes; "auto" chooses it by stability and held-out variance.
    resolution
        Height in [0, 1] up to which archetypes are merged.
    smooth
        Let spatial neighbours help, as far as spots left out say that they do; needs a graph in the file
        (obsp/spatial_connectivities, as squidpy writes it).
    layer
        Layer with the counts.
    markers
        Table of markers to write.
    rng
        Seed.
    n_jobs
        Threads.
    out_h5ad
        AnnData with all results to write.
    plot
        Picture to write: weights on the tissue where there are coordinates, else the plane of the archetypes.
    library_key
        Column of obs with the section of every spot; the picture then has a row of maps per section.
    force
        Replace files that exist.
    """
    check_outputs([out, markers, out_h5ad, plot], force=force)
    check_endings(objects=[out_h5ad], tables=[out, markers], pictures=[plot])
    adata, sets = read_data(spots), None if signatures is None else _read_sets(signatures)
    sections = checked_sections(adata, library_key)
    from unmix import get, pl, tl

    tl.starfysh_archetypes(
        adata,
        n_archetypes,
        signatures=sets,
        resolution="auto" if resolution is None else resolution,
        layer=layer,
        smoothing="auto" if smooth else None,
        rng=rng,
        n_jobs=n_jobs,
    )
    shares = get.archetypes(adata, what="weights" if sets is None else "proportions")
    draw = pl.archetypes if "spatial" in adata.obsm else pl.archetype_simplex
    write_outputs(
        [
            (out, table(shares)),
            (markers, table(get.markers(adata))),
            (out_h5ad, h5ad(adata)),
            (plot, picture(draw, adata, **sections)),
        ]
    )


def _read_sets(path: Path) -> Any:
    """Read gene sets from a file."""
    if not path.is_file():
        msg = f"there is no file {path}."
        raise FileProblem(msg)
    if path.suffix == ".json":
        return _read_json(path)
    return read_table(path)


def _read_json(path: Path) -> dict[str, list[str]]:
    """Read lists of genes by the name of their type.

    Raises
    ------
    FileProblem
        If the file holds something else.
    """
    try:
        sets = json.loads(path.read_text())
    except (ValueError, OSError, RecursionError) as error:
        msg = f"{path} could not be read as JSON: {error}"
        raise FileProblem(msg) from error
    lists = isinstance(sets, dict) and all(isinstance(genes, list) for genes in sets.values())
    if not lists or not all(isinstance(gene, str) for genes in sets.values() for gene in genes):
        msg = f'{path} must hold a list of genes for every type, such as {{"B cells": ["CD79A", "MS4A1"]}}.'
        raise FileProblem(msg)
    return sets
