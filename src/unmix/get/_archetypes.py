"""Tables of archetypes: weights, anchors, markers."""

from typing import Literal

import numpy as np
import pandas as pd
from anndata import AnnData

from unmix._adata import keys
from unmix._adata.arguments import checked
from unmix._adata.stored import mapped_table, stored_entry, stored_frame, stored_names, stored_table, tool_of

TOOL = "starfysh_archetypes"


@checked
def archetypes(
    adata: AnnData,
    *,
    key: str = "archetypes",
    what: Literal["weights", "proportions", "anchors", "matching", "selection"] = "weights",
) -> pd.DataFrame:
    """Tables that :func:`unmix.tl.starfysh_archetypes` has stored, under the names that the user gave.

    Parameters
    ----------
    adata
        Object that the tool has written to; for weights also one that :func:`unmix.tl.transform` has mapped onto archetypes.
    key
        The tool's `key_added`.
    what
        `"weights"` W; `"proportions"` of types and novel archetypes; `"anchors"`, the observations that stand for an
        archetype, with their weights in B and W; `"matching"` of types to archetypes; `"selection"` of the number.

    Returns
    -------
    The table.

    Raises
    ------
    KeyError
        If there is no such result, or a mapped object is asked for more than weights.
    ValueError
        If `what` is unknown.

    Examples
    --------
    >>> import unmix as um
    >>> spots, _ = um.datasets.pbmc_spots()
    >>> um.tl.starfysh_archetypes(spots, 4, resolution=None)
    >>> bool(um.get.archetypes(spots).sum(axis=1).round(6).eq(1).all())
    True
    """
    if tool_of(adata.uns.get(key)) == "transform" and "names" in adata.uns[key]:
        if what == "weights":
            return mapped_table(adata, key)
        msg = f"{key!r} was written by `tl.transform`, which stores weights alone; ask the object that was fitted for its {what}."
        raise KeyError(msg)
    entry = stored_entry(adata, key, TOOL)
    if what == "weights":
        return stored_table(adata, key, entry["names"])
    if what == "proportions":
        if "proportion_names" not in entry:
            msg = f"{key!r} holds no proportions; run `tl.starfysh_archetypes` with `signatures=`."
            raise KeyError(msg)
        return stored_table(adata, key + keys.PROPORTIONS, entry["proportion_names"])
    if what not in ("anchors", "matching", "selection"):
        msg = f"`what` must be 'weights', 'proportions', 'anchors', 'matching' or 'selection', got {what!r}."
        raise ValueError(msg)
    if what != "anchors" and what not in entry:
        reason = "`signatures=`" if what == "matching" else "`n_archetypes='auto'`"
        msg = f"{key!r} holds no {what}; run `tl.starfysh_archetypes` with {reason}."
        raise KeyError(msg)
    return stored_frame(entry, what).reset_index(drop=True)


@checked
def markers(
    adata: AnnData,
    *,
    key: str = "archetypes",
    group: str | None = None,
    n_genes: int | None = None,
    max_q: float = 1.0,
    min_log_fold_change: float = -np.inf,
) -> pd.DataFrame:
    """Markers of archetypes' communities, best first.

    Parameters
    ----------
    adata
        Object that :func:`unmix.tl.starfysh_archetypes` has written to.
    key
        The tool's `key_added`.
    group
        Archetype; `None` for all.
    n_genes
        Largest number of genes per archetype; `None` for all that are stored.
    max_q
        Largest q-value.
    min_log_fold_change
        Smallest log2 fold change.

    Returns
    -------
    One row per archetype and gene: `score` (Wilcoxon), `pval`, `qval`, `log_fold_change`, `share` and `share_rest` of
    rows that express the gene, `specificity` against the best other archetype.

    Raises
    ------
    KeyError
        If there is no such result.
    ValueError
        If `group` is no archetype.

    Examples
    --------
    >>> import unmix as um
    >>> spots, _ = um.datasets.pbmc_spots()
    >>> um.tl.starfysh_archetypes(spots, 4, resolution=None)
    >>> um.get.markers(spots, n_genes=2).shape
    (8, 9)
    """
    entry = stored_entry(adata, key, TOOL)
    table = stored_frame(entry, "markers", "archetype", "gene", "qval", "log_fold_change")
    if group is not None:
        if group not in stored_names(entry, "names"):
            msg = f"`group` {group!r} is not among the archetypes {list(entry['names'])}."
            raise ValueError(msg)
        table = table[table["archetype"].astype(str) == group]
    table = table[(table["qval"] <= max_q) & (table["log_fold_change"] >= min_log_fold_change)]
    if n_genes is not None:
        table = table.groupby("archetype", sort=False, observed=True).head(n_genes)
    return table.reset_index(drop=True)
