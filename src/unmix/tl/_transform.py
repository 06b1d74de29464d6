"""New observations on what was fitted before."""

from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

import pandas as pd
from anndata import AnnData

from unmix._adata import keys
from unmix._adata.stored import tool_of
from unmix._adata.tool import check_anndata, tool
from unmix._adata.write import Slots
from unmix._settings import settings
from unmix.tl._project_joint import check_predictable, predicted

TRANSFORMS = {
    "autoencoder": "unmix.tl._autoencoder_steps:project_autoencoder",
    "factorize": "unmix.tl._project:project_factors",
    "joint_nmf": "unmix.tl._project_joint:project_joint",
    "metagenes": "unmix.tl._programs:project_metagenes",
    "starfysh_archetypes": "unmix.tl._project_archetypes:project_archetypes",
    "zinb_ae": "unmix.tl._autoencoder_steps:project_autoencoder",
}
"""Who maps new data for a tool: a function (adata, fitted, key, layer, threads) -> (embedding, facts).

Embeddings are arrays, or tables where the components have names.
"""


@tool
def transform(
    adata: AnnData,
    fitted: AnnData,
    *,
    key: str,
    predict: str | Sequence[str] | None = None,
    layer: str | None = None,
    batch: str | None = None,
    key_added: str | None = None,
    n_jobs: int | None = None,
    copy: bool = False,
) -> Slots:
    """Map new observations onto a factorisation, metagenes or any other fitted tool, which stays as it is.

    Genes are matched by name. Genes that the fit did not see have no influence. Genes that the new data lack were not
    measured, which is not a count of 0: the new rows are fitted by the genes that both have. Autoencoders read every gene
    of the fit at once, so that there none may be lacking. Where a factorisation took zeros for missing, so does this; where
    a layer was its mask, a layer of this name masks the new data too. Rows of a batch that a joint factorisation with
    `scale=True` does not know are scaled gene by gene within the new data, so that they depend on which are given together;
    give a new batch whole.

    Parameters
    ----------
    adata
        New observations, on the scale of the data that was fitted.
    fitted
        The AnnData that a tool has written to.
    key
        Under which name.
    predict
        For a joint factorisation of modalities: names of those to predict for the new observations.
    layer
        Layer of `adata` with the matrix; `None` for `X`.
    batch
        For autoencoders with batches: take all observations to be of this batch of the fit; `None` for the column of
        `obs` of the same name.
    key_added
        Name of the slots; `None` for `key`. The object that was fitted itself needs another name than `key`.
    n_jobs
        Threads; `None` for the setting.
    copy
        Whether to return a copy instead of writing to `adata`.

    Returns
    -------
    `None`, or with `copy=True` the copy. Sets the following fields, where `name` is `key_added` or `key`:

    `obsm["X_" + name]` : float32, n_obs x k
        What the fitted tool stores under the same name.
    `obsm[name]` : DataFrame, n_obs x K
        For archetypes, in place of the former: their weights W, with the columns of the fit.
    `obsm[name + "_" + modality]` : DataFrame
        With `predict`: n_obs x features of the modality; for counts, at the mean depth of the cells fitted.
    `uns[name]` : dict
        `n_shared_genes`, `params`, and for archetypes their `names`.

    Raises
    ------
    KeyError
        If nothing was fitted under this key, or it cannot predict a modality of this name.
    ValueError
        If no gene is shared (for autoencoders: if one is lacking), the matrix is not of the kind that was fitted, or the
        fit itself would be overwritten.

    Warns
    -----
    SignatureWarning
        If the new data lack more than half of the genes of the fit.

    Examples
    --------
    >>> import unmix as um
    >>> spots, reference = um.datasets.pbmc_spots()
    >>> um.tl.factorize(reference, 5)
    >>> um.tl.transform(spots, reference, key="nmf")
    >>> spots.obsm["X_nmf"].shape
    (300, 5)
    """
    check_anndata(fitted, "transform")
    source = tool_of(fitted.uns.get(key))
    if source not in TRANSFORMS:
        have = sorted(str(k) for k in fitted.uns if tool_of(fitted.uns[k]) in TRANSFORMS)
        msg = f"nothing that new data can be mapped onto was fitted under `key` {key!r}; there are {have}."
        raise KeyError(msg)
    module, name = TRANSFORMS[source].split(":")
    project: Callable[..., Any] = getattr(import_module(module), name)
    given, wanted = key_added or key, [predict] if isinstance(predict, str) else list(predict or [])
    if adata is fitted and given == key and not copy:
        msg = f"this would overwrite the fit {key!r} that it maps onto: give `key_added` another name, or copy=True."
        raise ValueError(msg)
    check_predictable(fitted, key, wanted)
    if batch is not None and source not in ("autoencoder", "zinb_ae"):
        msg = f"`batch` is for autoencoders; {key!r} was fitted by `tl.{source}`."
        raise ValueError(msg)
    more = {} if batch is None else {"batch": batch}
    embedding, facts = project(adata, fitted, key, layer, settings.threads(n_jobs), **more)
    slot = given if isinstance(embedding, pd.DataFrame) else keys.EMBEDDING + given
    obsm: dict[str, Any] = {slot: embedding}
    if wanted:
        obsm |= {f"{given}_{m}": table for m, table in predicted(embedding, fitted, key, wanted).items()}
    return Slots(obsm=obsm, uns={given: facts})
