"""`unmix recover-counts`: from normalised values to the counts that they were made of."""

from pathlib import Path

from unmix.cli._files import check_endings, check_outputs, h5ad, read_data, write_outputs


def recover_counts(
    data: Path,
    *,
    out: Path,
    layer: str | None = None,
    key_added: str = "counts",
    n_jobs: int | None = None,
    force: bool = False,
) -> None:
    """Get back the counts that depth normalisation, with or without a logarithm, was made of.

    Parameters
    ----------
    data
        Normalised values: .h5ad, .zarr, a 10x .h5 or a 10x mtx folder.
    out
        AnnData to write (.h5ad), the counts in its layer.
    layer
        Layer with the values.
    key_added
        Name of the layer to write; give it to other commands as --layer.
    n_jobs
        Threads.
    force
        Replace files that exist.
    """
    check_outputs([out], force=force)
    check_endings(objects=[out])
    adata = read_data(data)
    from unmix import pp

    pp.recover_counts(adata, layer=layer, key_added=key_added, n_jobs=n_jobs)
    write_outputs([(out, h5ad(adata))])
