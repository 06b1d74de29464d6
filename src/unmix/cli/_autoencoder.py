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
    ridge: float = 0.0,
    batch_key: str | None = None,
    covariates: tuple[str, ...] = (),
    hidden: tuple[int, ...] = (64,),
    max_epochs: int | Literal["auto"] = "auto",
    batch_size: int = 128,
    learning_rate: float = 4e-3,
    mask: float = 0.5,
    denoise: bool = False,
    genes: tuple[str, ...] = (),
    n_samples: int = 0,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    on_interrupt: Literal["raise", "keep"] = "raise",
    resume: bool = False,
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
    ridge
        Weight of the squared dropout probabilities in the loss.
    batch_key
        Column of the observations with the batch.
    covariates
        Columns of the observations to condition on.
    hidden
        Width of a hidden layer of the encoder; may be given several times.
    max_epochs
        Most epochs.
    batch_size
        Cells per step.
    learning_rate
        Of Adam.
    mask
        Share of the counts that the encoder does not see at a step.
    denoise
        Write the decoder's means as a layer.
    genes
        Write means of this gene alone; may be given several times.
    n_samples
        Draws from the posterior of every cell to write, of a variational autoencoder.
    device
        Where to train.
    on_interrupt
        "keep" writes the best epoch so far when interrupted.
    resume
        Go on with the interrupted training that the data hold.
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
    options: dict[str, Any] = {"layer": layer, "rng": rng, "n_jobs": n_jobs, "checkpoint": checkpoint, "device": device}
    options |= {
        "batch_key": batch_key,
        "covariates": list(covariates),
        "denoise": list(genes) or denoise,
        "hidden": hidden,
    }
    options |= {"max_epochs": max_epochs, "batch_size": batch_size, "learning_rate": learning_rate, "mask": mask}
    options |= {"dropout": dropout, "ridge": ridge, "on_interrupt": on_interrupt, "resume": resume}
    options |= {"kind": kind, "likelihood": likelihood, "dispersion": dispersion, "n_samples": n_samples}
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
    hidden: tuple[int, ...] = (64,),
    max_epochs: int | Literal["auto"] = "auto",
    batch_size: int = 128,
    learning_rate: float = 4e-3,
    mask: float = 0.5,
    denoise: bool = False,
    genes: tuple[str, ...] = (),
    device: Literal["auto", "cpu", "cuda"] = "auto",
    on_interrupt: Literal["raise", "keep"] = "raise",
    resume: bool = False,
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
    hidden
        Width of a hidden layer of the encoder; may be given several times.
    max_epochs
        Most epochs.
    batch_size
        Cells per step.
    learning_rate
        Of Adam.
    mask
        Share of the counts that the encoder does not see at a step.
    denoise
        Write the decoder's means as a layer.
    genes
        Write means of this gene alone; may be given several times.
    device
        Where to train.
    on_interrupt
        "keep" writes the best epoch so far when interrupted.
    resume
        Go on with the interrupted training that the data hold.
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
    options: dict[str, Any] = {"layer": layer, "rng": rng, "n_jobs": n_jobs, "checkpoint": checkpoint, "device": device}
    options |= {
        "batch_key": batch_key,
        "covariates": list(covariates),
        "denoise": list(genes) or denoise,
        "hidden": hidden,
    }
    options |= {"max_epochs": max_epochs, "batch_size": batch_size, "learning_rate": learning_rate, "mask": mask}
    options |= {"dropout": dropout, "ridge": ridge, "on_interrupt": on_interrupt, "resume": resume}
    outputs = (out, latent, model, plot)
    _run("zinb_ae", data, n_latent, key_added, outputs, force=force, dispersion=dispersion, **options)


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
