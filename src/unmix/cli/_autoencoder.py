"""`unmix autoencoder`, `zinb-ae`: from a file of counts to an AnnData with coordinates, a model and a picture."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from cyclopts import Parameter

from unmix.cli._files import check_endings, check_outputs, h5ad, picture, read_data, table, write_outputs


@Parameter(name="*")
@dataclass(frozen=True)
class Options:
    """What both commands are told.

    Parameters
    ----------
    latent
        Table of cells x coordinates to write: .csv, .tsv or .parquet.
    model
        Model to write (.safetensors), for new cells.
    plot
        Picture of the training to write.
    n_latent
        Number of coordinates.
    ridge
        Weight of the squared dropout probabilities in the loss.
    batch_key
        Column of the observations with the batch.
    covariates
        Column of the observations to condition on; may be given several times.
    hidden
        Width of a hidden layer of the encoder; may be given several times.
    max_epochs
        Most passes over the cells.
    batch_size
        Cells per step.
    learning_rate
        Size of the first steps of the optimiser (Adam).
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
    rng
        Seed.
    n_jobs
        Threads.
    force
        Replace files that exist.
    """

    latent: Path | None = None
    model: Path | None = None
    plot: Path | None = None
    n_latent: int = 32
    ridge: float = 0.0
    batch_key: str | None = None
    covariates: tuple[str, ...] = ()
    hidden: tuple[int, ...] = (64,)
    max_epochs: int | Literal["auto"] = "auto"
    batch_size: int = 128
    learning_rate: float = 4e-3
    mask: float = 0.5
    denoise: bool = False
    genes: tuple[str, ...] = ()
    device: Literal["auto", "cpu", "cuda"] = "auto"
    on_interrupt: Literal["raise", "keep"] = "raise"
    resume: bool = False
    checkpoint: Path | None = None
    layer: str | None = None
    rng: int = 0
    n_jobs: int | None = None
    force: bool = False


DEFAULTS = Options()


def autoencoder(
    data: Path,
    *,
    out: Path,
    kind: Literal["ae", "vae"] = "ae",
    likelihood: Literal["auto", "zinb", "nb", "poisson", "gaussian"] = "auto",
    dispersion: Literal["gene", "gene-cell", "gene-batch", "shared"] = "gene",
    dropout: Literal["gene-cell", "elementwise", "constant"] = "gene-cell",
    n_samples: int = 0,
    key_added: str | None = None,
    options: Options = DEFAULTS,
) -> None:
    """Compress counts to a few coordinates with a neural network.

    Parameters
    ----------
    data
        Cells: .h5ad, .zarr, a 10x .h5 or a 10x mtx folder.
    out
        AnnData with the results to write (.h5ad).
    kind
        A plain or a variational autoencoder.
    likelihood
        Of the counts; "auto" takes NB or ZINB, whichever predicts held-out cells better.
    dispersion
        What the dispersion depends on.
    dropout
        What the dropout of ZINB depends on.
    n_samples
        Draws from the posterior of every cell to write, of a variational autoencoder.
    key_added
        Name of the results; that of the kind by default.
    """
    own = {"kind": kind, "likelihood": likelihood, "dispersion": dispersion, "dropout": dropout, "n_samples": n_samples}
    _run("autoencoder", data, out, key_added or kind, options, own)


def zinb_ae(
    data: Path,
    *,
    out: Path,
    dispersion: Literal["gene", "gene-cell"] = "gene-cell",
    dropout: Literal["gene-cell", "elementwise", "constant"] = "gene-cell",
    key_added: str = "zinb_ae",
    options: Options = DEFAULTS,
) -> None:
    """Compress and denoise counts with a zero-inflated negative binomial autoencoder.

    Parameters
    ----------
    data
        Cells: .h5ad, .zarr, a 10x .h5 or a 10x mtx folder.
    out
        AnnData with the results to write (.h5ad).
    dispersion
        One per gene, or an output of the network.
    dropout
        An output of the network, a line in the log mean, or one number per gene.
    key_added
        Name of the results.
    """
    _run("zinb_ae", data, out, key_added, options, {"dispersion": dispersion, "dropout": dropout})


def _run(tool: str, data: Path, out: Path, key: str, options: Options, own: dict[str, Any]) -> None:
    """Read, fit, and write the AnnData, the table of coordinates, the model and the picture of the training."""
    import pandas as pd

    latent, model, plot = options.latent, options.model, options.plot
    check_outputs((out, latent, model, plot), force=options.force)
    check_endings(objects=[out], tables=[latent], pictures=[plot])
    adata = read_data(data)
    from unmix import pl, save, tl

    told = asdict(options) | own
    for of_the_shell in ("latent", "model", "plot", "force"):
        del told[of_the_shell]
    told["denoise"] = list(told.pop("genes")) or options.denoise
    told["covariates"] = list(options.covariates)
    getattr(tl, tool)(adata, key_added=key, **told)
    values = adata.obsm[f"X_{key}"]
    names = [f"{key}_{k + 1}" for k in range(values.shape[1])]  # as `unmix transform` names them
    coordinates = pd.DataFrame(values, index=adata.obs_names, columns=names)
    write_outputs(
        [
            (out, h5ad(adata)),
            (latent, table(coordinates)),
            (model, lambda path: save(adata, path, key=key)),
            (plot, picture(pl.training, adata, key=key)),
        ]
    )
