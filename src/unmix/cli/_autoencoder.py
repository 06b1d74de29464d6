"""`unmix autoencoder`, `zinb-ae`: from a file of counts to an AnnData with coordinates, a model and a picture."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from unmix.cli._files import check_outputs, read_data, replacing, write_table

if TYPE_CHECKING:
    from anndata import AnnData


def autoencoder(
    data: Path,
    *,
    out: Path,
    latent: Path | None = None,
    model: Path | None = None,
    plot: Path | None = None,
    n_latent: int = 32,
    kind: Literal["ae", "vae"] = "ae",
    likelihood: Literal["auto", "zinb", "nb", "poisson", "gaussian"] = "auto",
    dispersion: Literal["gene", "gene-cell", "gene-batch", "shared"] = "gene",
    dropout: Literal["gene-cell", "elementwise", "constant"] = "gene-cell",
    batch_key: str | None = None,
    covariates: tuple[str, ...] = (),
    max_epochs: int | Literal["auto"] = "auto",
    denoise: bool = False,
    layer: str | None = None,
    key_added: str | None = None,
    rng: int = 0,
    n_jobs: int | None = None,
    force: bool = False,
) -> None:
    """Compress counts to a few coordinates with a neural network.

    Parameters
    ----------
    data
        Cells: .h5ad, .zarr, a 10x .h5 or a 10x mtx folder.
    out
        AnnData with the results to write (.h5ad).
    latent
        Table of cells x coordinates to write: .csv, .tsv or .parquet.
    model
        Model to write (.safetensors), for new cells.
    plot
        Picture of the training to write.
    n_latent
        Number of coordinates.
    kind
        A plain or a variational autoencoder.
    likelihood
        Of the counts; "auto" takes NB or ZINB, whichever predicts held-out cells better.
    dispersion
        What the dispersion depends on.
    dropout
        What the dropout of ZINB depends on.
    batch_key
        Column of the observations with the batch.
    covariates
        Columns of the observations to condition on.
    max_epochs
        Most epochs.
    denoise
        Write the decoder's means as a layer.
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
    check_outputs([out, latent, model, plot], force=force)
    adata = read_data(data)
    from unmix import tl

    options: dict[str, Any] = {"layer": layer, "rng": rng, "n_jobs": n_jobs, "max_epochs": max_epochs}
    options |= {"batch_key": batch_key, "covariates": list(covariates), "denoise": denoise, "dropout": dropout}
    key = key_added or kind
    tl.autoencoder(adata, n_latent, kind=kind, likelihood=likelihood, dispersion=dispersion, key_added=key, **options)
    _write(adata, key, out, latent, model, plot)


def zinb_ae(
    data: Path,
    *,
    out: Path,
    latent: Path | None = None,
    model: Path | None = None,
    plot: Path | None = None,
    n_latent: int = 32,
    dispersion: Literal["gene", "gene-cell"] = "gene-cell",
    dropout: Literal["gene-cell", "elementwise", "constant"] = "gene-cell",
    ridge: float = 0.0,
    batch_key: str | None = None,
    covariates: tuple[str, ...] = (),
    max_epochs: int | Literal["auto"] = "auto",
    denoise: bool = False,
    layer: str | None = None,
    key_added: str = "zinb_ae",
    rng: int = 0,
    n_jobs: int | None = None,
    force: bool = False,
) -> None:
    """Compress and denoise counts with a zero-inflated negative binomial autoencoder.

    Parameters
    ----------
    data
        Cells: .h5ad, .zarr, a 10x .h5 or a 10x mtx folder.
    out
        AnnData with the results to write (.h5ad).
    latent
        Table of cells x coordinates to write: .csv, .tsv or .parquet.
    model
        Model to write (.safetensors), for new cells.
    plot
        Picture of the training to write.
    n_latent
        Number of coordinates.
    dispersion
        One per gene, or an output of the network.
    dropout
        An output of the network, a line in the log mean, or one number per gene.
    ridge
        Weight of the squared dropout probabilities in the loss.
    batch_key
        Column of the observations with the batch.
    covariates
        Columns of the observations to condition on.
    max_epochs
        Most epochs.
    denoise
        Write the decoder's means as a layer.
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
    check_outputs([out, latent, model, plot], force=force)
    adata = read_data(data)
    from unmix import tl

    options: dict[str, Any] = {"layer": layer, "rng": rng, "n_jobs": n_jobs, "max_epochs": max_epochs}
    options |= {"batch_key": batch_key, "covariates": list(covariates), "denoise": denoise, "dropout": dropout}
    tl.zinb_ae(adata, n_latent, dispersion=dispersion, ridge=ridge, key_added=key_added, **options)
    _write(adata, key_added, out, latent, model, plot)


def _write(adata: "AnnData", key: str, out: Path, latent: Path | None, model: Path | None, plot: Path | None) -> None:
    """Write the AnnData, and what else was asked for, and say so."""
    import pandas as pd

    with replacing(out) as temporary:
        adata.write_h5ad(temporary)
    if latent is not None:
        write_table(pd.DataFrame(adata.obsm[f"X_{key}"], index=adata.obs_names).add_prefix(f"{key}_"), latent)
    if model is not None:
        from unmix import save

        save(adata, model, key=key)
    if plot is not None:
        import matplotlib as mpl

        from unmix import pl

        mpl.use("agg")
        with replacing(plot) as temporary:
            pl.training(adata, key=key, show=False, save=temporary)
    sys.stdout.write(f"wrote {', '.join(str(path) for path in (out, latent, model, plot) if path is not None)}\n")
