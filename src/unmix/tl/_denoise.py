"""Values decoded by a fitted autoencoder, at any time after the fit."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pandas as pd
from anndata import AnnData

from unmix._adata import keys
from unmix._adata.h5ad import new_dense_h5ad
from unmix._adata.models import read_for_model
from unmix._adata.tool import check_anndata, tool
from unmix._adata.write import Slots
from unmix._settings import settings
from unmix.tl import _autoencoder_steps as steps


@tool
def denoise(
    adata: AnnData,
    fitted: AnnData | None = None,
    *,
    key: str = "ae",
    genes: Sequence[str] | None = None,
    dropout: bool = False,
    library: bool = True,
    batch: str | None = None,
    layer: str | None = None,
    out: str | Path | None = None,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    key_added: str | None = None,
    n_jobs: int | None = None,
    copy: bool = False,
) -> Slots:
    r"""Replace counts by the means that a fitted autoencoder decodes: :math:`\mu`, or :math:`(1 - \pi) \mu` with dropout.

    Parameters
    ----------
    adata
        Counts, of the cells fitted or of new ones; genes are matched by name, all genes of the fit are needed.
    fitted
        The AnnData that :func:`unmix.tl.autoencoder` or :func:`unmix.tl.zinb_ae` has written to, or what
        :func:`unmix.load` returns; `None` for `adata` itself.
    key
        Under which name.
    genes
        Genes to decode; `None` for all.
    dropout
        Whether to give what would be counted, dropouts included, instead of what is there.
    library
        Whether means are those at the cell's own total, or else at the median total of the cells fitted.
    batch
        Decode as if all cells were of this batch of the fit; `None` for their own.
    layer
        Layer with the counts; `None` for `X`.
    out
        File (.h5ad) to write the means to, block by block, as `X`, instead of a layer; nothing is held in memory.
    device
        Where to compute.
    key_added
        Name of the slots; `None` for `key`.
    n_jobs
        Threads; `None` for the setting.
    copy
        Whether to return a copy instead of writing to `adata`.

    Returns
    -------
    `None`, or with `copy=True` the copy. Sets the following fields, where `name` is `key_added` or `key`:

    `layers[name + "_denoised"]` : float32
        Means, NaN in cells without counts; for a list of genes a sparse matrix in which only their columns are filled.
    `uns[name + "_denoised"]` : dict
        `params`.

    With `out` neither: `adata` stays as it is. Another fit under `key` removes both where they have its name.

    Raises
    ------
    KeyError
        If there is no such model, or a gene is not among its own.
    ValueError
        If genes of the fit are missing, the batch is unknown, or `out` exists.

    References
    ----------
    Eraslan, G. et al. (2019) Single-cell RNA-seq denoising using a deep count autoencoder. Nat. Commun. 10, 390.

    Examples
    --------
    >>> import unmix as um
    >>> _, cells = um.datasets.pbmc_spots()
    >>> um.tl.autoencoder(cells, 5, likelihood="nb", max_epochs=2)
    >>> um.tl.denoise(cells, genes=["CD3D", "MS4A1"], library=False)
    >>> cells.layers["ae_denoised"].nnz == 2 * cells.n_obs
    True
    """
    fitted = adata if fitted is None else check_anndata(fitted, "denoise")
    steps.check_options({"device": device})
    threads, name = settings.threads(n_jobs), (key_added or key) + keys.DENOISED
    fit, rows, conditions = read_for_model(adata, fitted, key, layer, n_jobs=threads)
    from unmix.core.decoding import Wanted

    known = pd.Index(fitted.uns[key]["genes"])
    columns = steps.gene_columns(known, genes)
    wanted, names = Wanted(columns, dropout, library), known if columns is None else known[columns]
    if batch is not None:
        index, codes = conditions.design(adata, batch)
        wanted = replace(wanted, conditions=replace(rows, batch=index, codes=codes))
    if out is not None:
        with new_dense_h5ad(Path(out), adata.obs_names, names) as X:
            steps.write_denoised(X, slice(None), fit, rows, wanted, device=device, n_jobs=threads)
        return Slots()
    at = adata.var_names.get_indexer(names)
    values = steps.denoised_layer(fit, rows, wanted, adata.n_vars, at, device=device, n_jobs=threads)
    return Slots(uns={name: {}}, layers={name: values})
