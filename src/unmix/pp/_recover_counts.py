"""Counts behind normalised or log-transformed values."""

import numpy as np
from anndata import AnnData

from unmix._adata import keys
from unmix._adata.read import Matrix, check_expression, check_some, read_matrix, summarise_rows
from unmix._adata.tool import tool
from unmix._adata.write import Slots
from unmix._settings import settings

NAME = "recover_counts"


@tool
def recover_counts(
    adata: AnnData,
    *,
    layer: str | None = None,
    key_added: str = "counts",
    n_jobs: int | None = None,
    copy: bool = False,
) -> Slots:
    """Get back the counts that depth normalisation, with or without a logarithm, was made of.

    Many files hold normalised values alone, and count models want counts. Where every row is its counts times one number
    (`sc.pp.normalize_total`, counts per million) or the logarithm of one plus that (`sc.pp.log1p`), the counts are still
    there: every value is a whole multiple of what a single count has become. They are found exactly, or not at all: values that
    a gene's length, regression, scaling, imputation or a correction for ambient RNA has changed are refused. Genes may have
    been left out since.

    Parameters
    ----------
    adata
        Normalised values. Whether their logarithm was taken, and to the base of e, 2 or 10, is told from the values; any other
        base from `uns["log1p"]["base"]`, where scanpy notes it.
    layer
        Layer with the values; `None` for `X`.
    key_added
        Name of the layer to write.
    n_jobs
        Threads; `None` for the setting.
    copy
        Whether to return a copy instead of writing to `adata`.

    Returns
    -------
    `None`, or with `copy=True` the copy. Sets the following fields:

    `layers[key_added]` : sparse, float32
        Counts. A row all of whose counts share a divisor, which happens to the shortest, is too small by that.
    `obs[key_added + "_unit"]` : float
        What one count of the row has become, before the logarithm.
    `uns[key_added]` : dict
        `values`: `"counts"`, `"normalised"` or `"log-normalised"`; `params`.

    Raises
    ------
    KeyError
        If there is no such layer.
    ValueError
        If the values are no counts times one number a row, or `layers[key_added]` is there and of other origin.

    Examples
    --------
    >>> import scanpy as sc
    >>> import unmix as um
    >>> spots, _ = um.datasets.pbmc_spots()
    >>> counts = spots.X.copy()
    >>> sc.pp.normalize_total(spots, target_sum=1e4)
    >>> sc.pp.log1p(spots)
    >>> um.pp.recover_counts(spots)
    >>> (spots.layers["counts"] != counts).nnz
    0
    """
    _check_free(adata, key_added)
    threads = settings.threads(n_jobs)
    matrix = read_matrix(adata, layer)
    summary = summarise_rows(matrix, n_jobs=threads)
    check_expression(matrix, summary, expect_counts=False)
    check_some(matrix, summary)
    from unmix.core.lattice import Scale, counts_of, scale_of, units

    scale = Scale(None) if summary.integer else scale_of(matrix.X, _noted_base(adata))
    if scale is None:
        raise _no_counts(matrix, "")
    unit = np.ones(len(matrix.obs_names)) if summary.integer else units(matrix.X, scale, n_jobs=threads)
    if np.isnan(unit).any():
        raise _no_counts(matrix, f", first in {matrix.obs_names[np.flatnonzero(np.isnan(unit))[0]]!r}")
    values = "counts" if summary.integer else "normalised" if scale.log is None else "log-normalised"
    return Slots(
        layers={key_added: counts_of(matrix.X, scale, unit, n_jobs=threads)},
        obs={key_added + keys.UNIT: unit},
        uns={key_added: {"values": values}},
    )


def _check_free(adata: AnnData, key: str) -> None:
    """Refuse to replace a layer that this function has not written."""
    note = adata.uns.get(key)
    params = note.get("params") if isinstance(note, dict) else None
    if key in adata.layers and not (isinstance(params, dict) and params.get("tool") == NAME):
        msg = f"layers[{key!r}] is there already; if these are the counts, name them with `layer=` where they are needed, "
        msg += "or choose another `key_added`."
        raise ValueError(msg)


def _noted_base(adata: AnnData) -> float | None:
    """Return the base that scanpy notes where it takes logarithms; `None` stands for e, or for no note."""
    note = adata.uns.get("log1p")
    base = note.get("base") if isinstance(note, dict) else None
    return float(base) if isinstance(base, int | float | np.number) and 1 < base < np.inf else None


def _no_counts(matrix: Matrix, where: str) -> ValueError:
    msg = (
        f"no counts can be recovered from {matrix.where}: its values are not counts times one number a row, nor the "
        f"logarithm of one plus those{where}. Lengths of genes, regression, scaling, imputation and corrections cannot be "
        "undone."
    )
    return ValueError(msg)
