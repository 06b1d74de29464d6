"""Signatures of cell types from labelled cells."""

from typing import Literal

import numpy as np
import pandas as pd
from anndata import AnnData

from unmix._adata import keys
from unmix._adata.signatures import check_n_markers, reference_signatures, table_of, warn_few_cells
from unmix._adata.tool import tool
from unmix._adata.write import Slots
from unmix._settings import settings
from unmix.core.signatures import choose_markers


@tool
def signatures(
    adata: AnnData,
    groupby: str,
    *,
    layer: str | None = None,
    batch_key: str | None = None,
    test: Literal["welch", "wilcoxon"] = "welch",
    n_markers: tuple[int, int] = (50, 150),
    max_q: float = 0.01,
    min_cells: int = 10,
    key_added: str = "signatures",
    n_jobs: int | None = None,
    copy: bool = False,
) -> Slots:
    """Signatures of the cell types of a labelled reference: profiles, their variances, tests and markers.

    One pass over the cells. The profile of a type is the mean of its cells' counts per 10,000; beside it stands the
    sampling variance of every entry. Each type is tested against all other cells (on `log1p`, FDR by
    Benjamini-Hochberg); markers are the genes of largest fold change with a q-value of at most `max_q`, as many per type
    as give the signature the smallest condition number (Newman et al. 2015). A type with fewer such genes than
    `n_markers[0]` is filled up to this number, and no further, with genes that rise in it but do not pass; `n_filled` counts
    them. Types of fewer than `min_cells` cells are shrunk towards the pooled mean, by the share of their distance from it
    that sampling explains, and named in a warning.

    Parameters
    ----------
    adata
        Labelled cells; counts.
    groupby
        Column of `obs` with the cell type; cells without a label are left out, and types keep the order of its categories.
    layer
        Layer with the counts; `None` for `X`.
    batch_key
        Column of `obs` with the donor or batch of every cell. Profiles then are means over donors, and their variances
        count how far donors differ. `None` to take all cells for one donor's.
    test
        Test of a type against all other cells, on `log1p` of depth-normalised counts: Welch's t-test, in the same pass as
        the profiles, or Wilcoxon's rank-sum test with correction for ties, which gathers the cells into one sparse matrix.
    n_markers
        Smallest and largest number of markers per type.
    max_q
        Largest q-value of a marker, except of those that fill a type up to `n_markers[0]`.
    min_cells
        Cells from which a type's profile is left as it is.
    key_added
        Name of the slots.
    n_jobs
        Threads; `None` for the setting.
    copy
        Whether to return a copy instead of writing to `adata`.

    Returns
    -------
    `None`, or with `copy=True` the copy. Sets the following fields:

    `varm[key_added]` : DataFrame, n_vars x types
        Profiles, counts per 10,000 counts of a cell.
    `varm[key_added + "_variance"]` : DataFrame, n_vars x types
        Sampling variances of the profiles.
    `varm[key_added + "_logfc"]`, `varm[key_added + "_qvals"]` : DataFrame, n_vars x types
        log2 fold change and q-value, type against rest.
    `var[key_added + "_marker"]` : category
        Type that the gene is a marker of; empty for other genes. Of several types, those where it passes `max_q` come
        first, then the one of largest fold change.
    `uns[key_added]` : dict
        `names`, `n_cells`, `sizes` (mean counts per cell), `shrinkage`, `n_markers`, `n_filled` (of every type's genes in
        `var`, how many have a q-value above `max_q`), `curve` (markers per type against condition number), `params`.

    Raises
    ------
    KeyError
        If `groupby`, `batch_key` or `layer` does not exist.
    ValueError
        If the matrix holds NaN or negative values, fewer than two types have cells, or a cell has no batch.

    References
    ----------
    Newman, A. M. et al. (2015) Robust enumeration of cell subsets from tissue expression profiles. Nat. Methods 12, 453.

    Examples
    --------
    >>> import unmix as um
    >>> _, reference = um.datasets.pbmc_spots()
    >>> um.pp.signatures(reference, "cell_type", n_markers=(5, 50), min_cells=4)
    >>> reference.varm["signatures"].loc["CD79A"].idxmax()
    'CD19+ B'
    """
    if test not in ("welch", "wilcoxon"):
        msg = f"`test` must be 'welch' or 'wilcoxon', got {test!r}."
        raise ValueError(msg)
    check_n_markers(n_markers)
    threads = settings.threads(n_jobs)
    names, genes, found = reference_signatures(
        adata, groupby, layer=layer, batch_key=batch_key, test=test, min_cells=min_cells, n_jobs=threads
    )
    warn_few_cells(names, found)
    choice = choose_markers(found.profiles, found.log_fold_change, found.q_values, bounds=n_markers, max_q=max_q)
    owner = _owners(choice.markers, found.log_fold_change, found.q_values <= max_q)
    tables = {
        "": found.profiles,
        keys.VARIANCE: found.variances,
        keys.LOG_FOLD_CHANGE: found.log_fold_change,
        keys.Q_VALUES: found.q_values,
    }
    return Slots(
        varm={key_added + ending: table_of(values, genes, names) for ending, values in tables.items()},
        var={key_added + keys.MARKER: pd.Categorical.from_codes(owner, names)},
        uns={
            key_added: {
                "names": names,
                "n_cells": found.n_cells,
                "sizes": found.sizes,
                "shrinkage": found.shrinkage,
                "n_markers": choice.n_markers,
                "n_filled": _count_filled(owner, found.q_values, max_q),
                "curve": pd.DataFrame(choice.curve, columns=["n_markers", "condition_number"]),
            }
        },
    )


def _owners(markers: list[np.ndarray], log_fold_change: np.ndarray, passing: np.ndarray) -> np.ndarray:
    """Return the type that every gene is a marker of, or -1: one where it passes, then the one of largest fold change."""
    owner = np.full(len(log_fold_change), -1)
    for passes in (False, True):
        largest = np.full(len(log_fold_change), -np.inf)
        for k, genes in enumerate(markers):
            own = genes[passing[genes, k] == passes]
            better = own[log_fold_change[own, k] > largest[own]]
            owner[better], largest[better] = k, log_fold_change[better, k]
    return owner


def _count_filled(owner: np.ndarray, q_values: np.ndarray, max_q: float) -> np.ndarray:
    """Count the genes of every type that do not pass in it, shape (K,)."""
    genes = np.flatnonzero(owner >= 0)
    above = q_values[genes, owner[genes]] > max_q
    return np.bincount(owner[genes[above]], minlength=q_values.shape[1])
