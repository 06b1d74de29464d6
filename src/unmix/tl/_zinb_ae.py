"""The zero-inflated negative binomial autoencoder."""

from typing import Literal

import numpy as np
from anndata import AnnData

from unmix._adata.tool import tool
from unmix._adata.write import Slots
from unmix.tl._autoencoder import autoencoder


@tool
def zinb_ae(
    adata: AnnData,
    n_latent: int = 32,
    *,
    dispersion: Literal["gene", "gene-cell"] = "gene-cell",
    dropout: Literal["gene-cell", "elementwise"] = "gene-cell",
    ridge: float = 0.0,
    hidden: tuple[int, ...] = (64,),
    layer: str | None = None,
    max_epochs: int | Literal["auto"] = "auto",
    denoise: bool = False,
    key_added: str = "zinb_ae",
    rng: int | np.random.Generator | None = 0,
    n_jobs: int | None = None,
    copy: bool = False,
) -> Slots:
    """Compress counts with a zero-inflated negative binomial autoencoder, in the architecture of DCA.

    Parameters
    ----------
    adata
        Counts.
    n_latent
        Number of coordinates.
    dispersion
        One per gene, or an output of the network.
    dropout
        An output of the network, or a line in the log mean per gene.
    ridge
        Weight of the squared dropout probabilities in the loss.
    hidden
        Widths of the encoder's hidden layers; the decoder mirrors them.
    layer
        Layer with the counts; `None` for `X`.
    max_epochs
        Most epochs.
    denoise
        Whether to write the decoder's means.
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
    `var[key_added + "_dispersion"]` : float
        With `dispersion="gene"`.
    `layers[key_added + "_denoised"]` : float32
        With `denoise`.
    `uns[key_added]` : dict
        What :func:`unmix.tl.autoencoder` stores.

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
        layer=layer, max_epochs=max_epochs, denoise=denoise, key_added=key_added, rng=rng, n_jobs=n_jobs,
    )  # fmt: skip
