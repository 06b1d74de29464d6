"""The zero-inflated negative binomial autoencoder."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from anndata import AnnData

from unmix._adata.tool import tool
from unmix._adata.write import Slots
from unmix.tl._autoencoder import Dropout, autoencoder


@tool
def zinb_ae(
    adata: AnnData,
    n_latent: int = 32,
    *,
    dispersion: Literal["gene", "gene-cell"] = "gene-cell",
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
    device: Literal["auto", "cpu", "cuda"] = "auto",
    on_interrupt: Literal["raise", "keep"] = "raise",
    resume: bool = False,
    checkpoint: str | Path | None = None,
    key_added: str = "zinb_ae",
    rng: int | np.random.Generator | None = 0,
    n_jobs: int | None = None,
    copy: bool = False,
) -> Slots:
    """Compress counts with a zero-inflated negative binomial autoencoder, with the layers and options of DCA.

    Parameters
    ----------
    adata
        Counts.
    n_latent
        Number of coordinates.
    dispersion
        One per gene, or an output of the network.
    dropout
        An output of the network; `"elementwise"`, a line in the log mean per gene; `"constant"`, one number per gene.
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
        Most epochs; `"auto"` for enough to see 2,000,000 cells, 5 to 200.
    batch_size
        Cells per step.
    learning_rate
        Of Adam.
    mask
        Share of the counts that the encoder does not see at a step, so that it does not copy noise; half of the cells are
        thinned besides, so that coordinates depend little on depth. 0 turns off both.
    denoise
        Whether to write the decoder's means, or of which genes.
    device
        Where to train.
    on_interrupt
        `"keep"` writes the best epoch so far when interrupted; `"raise"` leaves `adata` as it was.
    resume
        Whether to go on with the interrupted training stored under the same key.
    checkpoint
        Folder in which every finished epoch is kept, from which a call that was killed goes on.
    key_added
        Name of the slots.
    rng
        Seed.
    n_jobs
        Threads; `None` for the setting. The result does not depend on it.
    copy
        Whether to return a copy instead of writing to `adata`.

    Returns
    -------
    `None`, or with `copy=True` the copy. Sets the following fields, as :func:`unmix.tl.autoencoder` does:

    `obsm["X_" + key_added]` : float32, n_obs x n_latent
        Coordinates.
    `obs[key_added + "_nll"]` : float
        Negative log-likelihood of the cell, in nats.
    `var[key_added + "_dropout"]`, `var[key_added + "_zero_inflation"]` : float
        Mean probability of dropout; whether the gene needs zero inflation.
    `var[key_added + "_zero_inflation_power"]` : float
        Whether the data can tell.
    `var[key_added + "_dispersion"]` : float
        With `dispersion="gene"`.
    `layers[key_added + "_denoised"]` : float32
        With `denoise`.
    `uns[key_added]` : dict
        What :func:`unmix.tl.autoencoder` stores.

    Raises
    ------
    KeyError
        If `layer`, `batch_key` or a gene does not exist, or there is nothing to resume.
    ValueError
        If the matrix holds no counts or an option is unknown.

    References
    ----------
    Eraslan et al. 2019, Nature Communications 10, 390.

    Examples
    --------
    >>> import unmix as um
    >>> _, cells = um.datasets.pbmc_spots()
    >>> um.tl.zinb_ae(cells, 5, max_epochs=2)
    >>> "zinb_ae_nll" in cells.obs
    True
    """
    return autoencoder.__wrapped__(  # type: ignore[attr-defined]
        adata, n_latent, likelihood="zinb", dispersion=dispersion, dropout=dropout, ridge=ridge, hidden=hidden,
        batch_key=batch_key, covariates=covariates, layer=layer, max_epochs=max_epochs, batch_size=batch_size,
        learning_rate=learning_rate, mask=mask, denoise=denoise, device=device, on_interrupt=on_interrupt, resume=resume,
        checkpoint=checkpoint, key_added=key_added, rng=rng, n_jobs=n_jobs,
    )  # fmt: skip
