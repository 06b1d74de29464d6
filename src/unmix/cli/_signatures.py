"""`unmix signatures`: from labelled cells to what every type looks like."""

from pathlib import Path
from typing import Literal

from unmix.cli._files import check_endings, check_outputs, h5ad, read_data, table, write_outputs

SLOTS = ("signatures", "signatures_logfc", "signatures_qvals")


def signatures(
    cells: Path,
    *,
    groupby: str,
    out: Path,
    markers: Path | None = None,
    out_h5ad: Path | None = None,
    batch_key: str | None = None,
    test: Literal["welch", "wilcoxon"] = "welch",
    max_q: float = 0.01,
    min_cells: int = 10,
    layer: str | None = None,
    n_jobs: int | None = None,
    force: bool = False,
) -> None:
    """Say what every cell type of a labelled reference looks like.

    Parameters
    ----------
    cells
        Labelled cells with counts: .h5ad, .zarr, a 10x .h5 or a 10x mtx folder.
    groupby
        Column of the observations with the cell type.
    out
        Table of genes x types to write, counts per 10,000: .csv, .tsv or .parquet. `unmix deconvolve` takes it as --reference.
    markers
        Table to write of the genes that mark a type, with the type, log2 fold change and q-value.
    out_h5ad
        AnnData with all results to write.
    batch_key
        Column of the observations with the donor or batch.
    test
        Test of a type against all other cells.
    max_q
        Largest q-value of a marker, except where a type has fewer than 50 that pass and is filled up to this number.
    min_cells
        Cells from which a type's profile is left as it is.
    layer
        Layer with the counts.
    n_jobs
        Threads.
    force
        Replace files that exist.
    """
    check_outputs([out, markers, out_h5ad], force=force)
    check_endings(objects=[out_h5ad], tables=[out, markers])
    adata = read_data(cells)
    from unmix import pp

    options = {"layer": layer, "batch_key": batch_key, "max_q": max_q, "min_cells": min_cells, "n_jobs": n_jobs}
    pp.signatures(adata, groupby, test=test, **options)  # type: ignore[arg-type]
    named = {slot: adata.varm[slot].set_axis(list(adata.uns["signatures"]["names"]), axis=1) for slot in SLOTS}
    profiles, changes, q_values = named.values()
    marked = adata.var["signatures_marker"].dropna().astype(str)
    stored = dict(zip(adata.varm["signatures"].columns, profiles.columns, strict=True))
    found = marked.map(lambda name: stored.get(name, name)).rename("cell_type").to_frame()
    for column, values in {"log_fold_change": changes, "qval": q_values}.items():
        found[column] = [values.at[gene, kind] for gene, kind in found["cell_type"].items()]
    found = found.sort_values(["cell_type", "log_fold_change"], ascending=[True, False])
    write_outputs([(out, table(profiles)), (markers, table(found)), (out_h5ad, h5ad(adata))])
