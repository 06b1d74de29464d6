"""`unmix autoencoder`, `zinb-ae`: from a file of counts to an AnnData with coordinates, a model and a picture."""

from pathlib import Path
from typing import Any, Literal

from unmix.cli._files import check_endings, check_outputs, h5ad, picture, read_data, table, write_outputs


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
    checkpoint: Path | None = None,
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
    checkpoint
        Folder for finished epochs, from which an interrupted command goes on.
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
    options: dict[str, Any] = {
        "layer": layer,
        "rng": rng,
        "n_jobs": n_jobs,
        "max_epochs": max_epochs,
        "checkpoint": checkpoint,
    }
    options |= {"batch_key": batch_key, "covariates": list(covariates), "denoise": denoise, "dropout": dropout}
    options |= {"kind": kind, "likelihood": likelihood, "dispersion": dispersion}
    _run("autoencoder", data, n_latent, key_added or kind, (out, latent, model, plot), force=force, **options)


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
    checkpoint: Path | None = None,
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
    checkpoint
        Folder for finished epochs, from which an interrupted command goes on.
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
    options: dict[str, Any] = {
        "layer": layer,
        "rng": rng,
        "n_jobs": n_jobs,
        "max_epochs": max_epochs,
        "checkpoint": checkpoint,
    }
    options |= {"batch_key": batch_key, "covariates": list(covariates), "denoise": denoise, "dropout": dropout}
    options |= {"dispersion": dispersion, "ridge": ridge}
    _run("zinb_ae", data, n_latent, key_added, (out, latent, model, plot), force=force, **options)


def _run(
    tool: str,
    data: Path,
    n_latent: int,
    key: str,
    outputs: tuple[Path, Path | None, Path | None, Path | None],
    *,
    force: bool,
    **options: Any,
) -> None:
    """Read, fit, and write the AnnData, the table of coordinates, the model and the picture of the training."""
    import pandas as pd

    out, latent, model, plot = outputs
    check_outputs(outputs, force=force)
    check_endings(objects=[out], tables=[latent], pictures=[plot])
    adata = read_data(data)
    from unmix import pl, save, tl

    getattr(tl, tool)(adata, n_latent, key_added=key, **options)
    coordinates = pd.DataFrame(adata.obsm[f"X_{key}"], index=adata.obs_names).add_prefix(f"{key}_")
    write_outputs(
        [
            (out, h5ad(adata)),
            (latent, table(coordinates)),
            (model, lambda path: save(adata, path, key=key)),
            (plot, picture(pl.training, adata, key=key)),
        ]
    )
