"""Autoencoders of counts."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from anndata import AnnData

from unmix._adata import keys
from unmix._adata.conditions import read_conditions
from unmix._adata.models import read_rows
from unmix._adata.tool import tool
from unmix._adata.write import Slots
from unmix._settings import settings
from unmix.tl import _autoencoder_steps as steps

Likelihood = Literal["auto", "zinb", "nb", "poisson", "gaussian"]
Dispersion = Literal["gene", "gene-cell", "gene-batch", "shared"]
Dropout = Literal["gene-cell", "elementwise", "constant"]


@tool
def autoencoder(
    adata: AnnData,
    n_latent: int = 32,
    *,
    kind: Literal["ae", "vae"] = "ae",
    likelihood: Likelihood = "auto",
    dispersion: Dispersion = "gene",
    dropout: Dropout = "gene-cell",
    ridge: float = 0.0,
    hidden: tuple[int, ...] = (64,),
    batch_key: str | None = None,
    covariates: str | Sequence[str] | None = None,
    layer: str | None = None,
    max_epochs: int | Literal["auto"] = "auto",
    batch_size: int = 128,
    learning_rate: float = 4e-3,
    mask: float = 0.5,
    denoise: bool | Sequence[str] = False,
    n_samples: int = 0,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    on_interrupt: Literal["raise", "keep"] = "raise",
    resume: bool = False,
    checkpoint: str | Path | None = None,
    key_added: str | None = None,
    rng: int | np.random.Generator | None = 0,
    n_jobs: int | None = None,
    copy: bool = False,
) -> Slots:
    r"""Compress counts to a few coordinates with a neural network that rebuilds them: Z = E(X), X = D(Z).

    The decoder gives every count the parameters of a distribution, and training maximises its likelihood on the counts
    as they are; depth enters as the cell's total. The epoch that predicts a held-out tenth of the cells best is kept.

    Parameters
    ----------
    adata
        Counts.
    n_latent
        Number of coordinates.
    kind
        `"ae"`: a plain autoencoder. `"vae"`: a variational one, whose coordinates are means of a posterior.
    likelihood
        Of the counts; `"auto"` trains NB and ZINB for a few epochs and goes on with the one that predicts held-out
        cells better. `"gaussian"` takes any real values, of any unit; genes that do not vary do not matter.
    dispersion
        What the dispersion depends on.
    dropout
        For ZINB, the logit of dropout: an output of the network; `"elementwise"`, a line in the log mean per gene;
        `"constant"`, one number per gene.
    ridge
        Weight of the squared dropout probabilities in the loss.
    hidden
        Widths of the encoder's hidden layers; the decoder mirrors them.
    batch_key
        Column of `obs` with the batch, on which encoder and decoder are conditioned.
    covariates
        Columns of `obs`, numbers or categories, on which they are conditioned too.
    layer
        Layer with the counts; `None` for `X`.
    max_epochs
        Most epochs; `"auto"` for enough to see 2,000,000 cells, 5 to 200. Training stops by itself when the
        held-out loss has settled.
    batch_size
        Cells per step.
    learning_rate
        Of Adam; falls to a third whenever the held-out loss has not improved for three epochs.
    mask
        Share of the counts, drawn anew at every step, that the encoder does not see; without it the network learns to
        copy noise. Half of the cells are thinned besides, so that coordinates depend little on depth; 0 turns off both.
        Held-out cells are always scored blind, each fifth of the genes from the other four.
    denoise
        Whether to write the decoder's means, or of which genes; :func:`unmix.tl.denoise` does so later, from what is
        stored, and with more choice.
    n_samples
        With `kind="vae"`, how many draws from each cell's posterior to write.
    device
        Where to train.
    on_interrupt
        `"keep"` writes the best epoch so far when interrupted, with what `resume` needs; `"raise"`
        leaves `adata` as it was.
    resume
        Whether to go on with the interrupted training stored under the same key; the options of the network and of the data
        are those stored.
    checkpoint
        Folder in which every finished epoch is kept: a call that was interrupted or killed goes on from there when it is
        repeated with the same data, options and seed, to the same answer.
    key_added
        Name of the slots; `None` for `kind`.
    rng
        Seed.
    n_jobs
        Threads; `None` for the setting. The result does not depend on it.
    copy
        Whether to return a copy instead of writing to `adata`.

    Returns
    -------
    `None`, or with `copy=True` the copy. Sets the following fields:

    `obsm["X_" + key_added]` : float32, n_obs x n_latent
        Coordinates; NaN in cells without counts. With `kind="vae"` the posterior means.
    `obsm["X_" + key_added + "_variance"]`, `obsm["X_" + key_added + "_samples"]` : float32
        With `kind="vae"`: variances of the posterior; with `n_samples`: n_obs x n_samples x n_latent draws.
    `var[key_added + "_dispersion"]` : float
        Inverse dispersion theta, where it is one number per gene (the precision of real values); NaN for genes without
        counts, or of one value.
    `var[key_added + "_dropout"]` : float
        With ZINB: probability of dropout, averaged over cells.
    `var[key_added + "_zero_inflation"]` : float
        With NB and ZINB: log of the Bayes factor, in nats over up to 20,000 cells, of counts that drop out with one
        probability over counts that do not, at a dispersion of its own in both cases, less log(20): above 0 the counts
        are more than twenty times as probable with dropout. What dispersions are likely, all genes together say.
    `var[key_added + "_zero_inflation_power"]` : float
        Probability that the score is above 0 if a gene of this mean and dispersion drops out in 3 of 10 cells: whether
        the data can tell. Where it is small, a score below 0 says nothing.
    `obs[key_added + "_nll"]` : float
        Negative log-likelihood of the cell, in nats.
    `layers[key_added + "_denoised"]` : float32
        With `denoise`: means of the decoder at the cell's own total; for a list of genes a sparse matrix in which only
        their columns are filled.
    `uns[key_added]` : dict
        `history` (loss per cell and learning rate by epoch), `best_epoch`, `design`, `weights`, `moments`, `genes`,
        `conditions`, `chosen` (held-out losses of the likelihoods compared), `n_empty`, `finished`, `params`.

    Raises
    ------
    KeyError
        If `layer` or `batch_key` does not exist, or there is nothing to resume.
    ValueError
        If the matrix holds no counts, an option is unknown, or what is resumed was trained on other data.

    Notes
    -----
    In a process group of torch (`torchrun`, then `torch.distributed.init_process_group`) the processes share the work of
    every batch, and each gets the same fit; let one of them write it to disk.

    References
    ----------
    Eraslan et al. 2019, Nature Communications 10, 390. Lopez et al. 2018, Nature Methods 15, 1053.

    Examples
    --------
    >>> import unmix as um
    >>> _, cells = um.datasets.pbmc_spots()
    >>> um.tl.autoencoder(cells, 5, likelihood="nb", max_epochs=2)
    >>> cells.obsm["X_ae"].shape[1]
    5
    """
    given = {"kind": kind, "likelihood": likelihood, "dispersion": dispersion, "dropout": dropout}
    steps.check_options({**given, "on_interrupt": on_interrupt, "device": device})
    most = None if max_epochs == "auto" else max_epochs
    steps.check_numbers(n_latent=n_latent, batch_size=batch_size, max_epochs=most or 1)
    steps.check_numbers(0, n_samples=n_samples)
    steps.check_numbers(**{f"hidden[{i}]": width for i, width in enumerate(hidden)}, hidden=len(hidden))
    steps.check_real("learning_rate", learning_rate, positive=True)
    steps.check_real("ridge", ridge, positive=False)
    steps.check_share("mask", mask)
    steps.check_together(kind, likelihood, dispersion, batch_key, n_samples)
    columns = steps.gene_columns(adata.var_names, denoise)
    from unmix.core.autoencoder import Options
    from unmix.core.decoding import Wanted
    from unmix.core.networks import Design

    threads, key, seed = settings.threads(n_jobs), key_added or kind, steps.seed_of(rng)
    options = Options(most, batch_size, learning_rate, mask, device=device, on_interrupt=on_interrupt)
    if resume:
        before = steps.interrupted(adata, key, batch_key=batch_key, covariates=covariates, layer=layer)
        conditions, counts = before.conditions, before.design.likelihood != "gaussian"
        rows = read_rows(adata, before.options["layer"], conditions, counts=counts, n_jobs=threads)
        fitted, chosen = before.go_on(rows, options, n_jobs=threads), before.chosen
    else:
        conditions = read_conditions(adata, batch_key, covariates)
        rows = read_rows(adata, layer, conditions, counts=likelihood != "gaussian", n_jobs=threads)
        sizes = {"n_batches": len(conditions.batches), "n_codes": rows.codes.shape[1], "n_latent": n_latent}
        design = Design(rows.X.shape[1], hidden=tuple(hidden), ridge=ridge, **sizes, **given)  # type: ignore[arg-type]
        fitted, chosen = steps.train(rows, design, options, seed=seed, n_jobs=threads, checkpoint=checkpoint)
    how = {"n_samples": n_samples, "seed": seed, "device": device, "threads": threads}
    slots = steps.slots_of(adata, rows, fitted, key, conditions, **how)  # type: ignore[arg-type]
    slots.outdated = (key + keys.DENOISED,)
    slots.uns[key] |= {"chosen": chosen, "params": before.options} if resume else {"chosen": chosen}
    if denoise is not False:
        at = slice(None) if columns is None else columns
        slots.layers[key + keys.DENOISED] = steps.denoised_layer(
            fitted, rows, Wanted(columns), adata.n_vars, at, device=device, n_jobs=threads
        )
    return slots
