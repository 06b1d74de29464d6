"""`unmix factorize`, `metagenes`: from a file to an AnnData with factors and a table of loadings."""

from pathlib import Path
from typing import Any, Literal

from unmix.cli._files import check_endings, check_outputs, h5ad, read_data, read_table, table, write_outputs


def factorize(
    data: Path,
    *,
    n_components: int | Literal["auto"],
    out: Path,
    loadings: Path | None = None,
    method: Literal["nmf", "als", "svd"] = "nmf",
    loss: Literal["frobenius", "kl"] = "frobenius",
    layer: str | None = None,
    key_added: str | None = None,
    rng: int = 0,
    n_jobs: int | None = None,
    force: bool = False,
) -> None:
    """Factorise a matrix into usages and loadings.

    Parameters
    ----------
    data
        Cells, spots or samples: .h5ad, .zarr, a 10x .h5 or a 10x mtx folder.
    n_components
        Number of components, or "auto": the rank that best predicts held-out entries.
    out
        AnnData with the results to write (.h5ad).
    loadings
        Table of genes x components to write: .csv, .tsv or .parquet.
    method
        Non-negative, least squares, or singular values.
    loss
        Squared error, or the likelihood of counts.
    layer
        Layer with the matrix.
    key_added
        Name of the results.
    rng
        Seed.
    n_jobs
        Threads.
    force
        Replace files that exist.
    """
    options: dict[str, Any] = {"method": method, "loss": loss, "layer": layer, "rng": rng, "n_jobs": n_jobs}
    _run("factorize", data, out, loadings, n_components, key_added=key_added or method, force=force, **options)


def metagenes(
    data: Path,
    *,
    n_components: tuple[int | Literal["auto"], ...],
    out: Path,
    loadings: Path | None = None,
    n_runs: int = 100,
    n_top_genes: int = 2000,
    batch_key: str | None = None,
    net: Path | None = None,
    checkpoint: Path | None = None,
    layer: str | None = None,
    key_added: str = "metagenes",
    rng: int = 0,
    n_jobs: int | None = None,
    force: bool = False,
) -> None:
    """Gene programs that recur over many factorisations.

    Parameters
    ----------
    data
        Cells or spots with counts: .h5ad, .zarr, a 10x .h5 or a 10x mtx folder.
    n_components
        Number of programs; given several times, the most stable is taken; "auto": the one that best predicts held-out counts.
    out
        AnnData with the results to write (.h5ad).
    loadings
        Table of genes x programs (transcripts per million) to write: .csv, .tsv or .parquet.
    n_runs
        Random starts per number of programs.
    n_top_genes
        Genes to factorise.
    batch_key
        Column of the observations with the batch, to be kept out of the programs.
    net
        Gene sets to test the programs for: a table with the columns source, target and weight (.csv, .tsv, .parquet).
    checkpoint
        Folder for finished runs, from which an interrupted command goes on.
    layer
        Layer with the counts.
    key_added
        Name of the results.
    rng
        Seed.
    n_jobs
        Threads.
    force
        Replace files that exist.
    """
    options: dict[str, Any] = {"n_runs": n_runs, "n_top_genes": n_top_genes, "batch_key": batch_key}
    options |= {"checkpoint": checkpoint, "layer": layer, "rng": rng, "n_jobs": n_jobs}
    options["net"] = None if net is None else read_table(net)
    n = "auto" if n_components == ("auto",) else list(n_components)
    _run("metagenes", data, out, loadings, n, key_added=key_added, force=force, **options)


def _run(
    tool: str, data: Path, out: Path, loadings: Path | None, n: Any, *, key_added: str, force: bool, **options: Any
) -> None:
    """Read, run the tool, write the AnnData and the table, and say so."""
    check_outputs([out, loadings], force=force)
    check_endings(objects=[out], tables=[loadings])
    adata = read_data(data)
    from unmix import get, tl

    getattr(tl, tool)(adata, n, key_added=key_added, **options)
    write_outputs([(out, h5ad(adata)), (loadings, table(get.loadings(adata, key=key_added)))])
