"""Pictures of factors: leading genes, choice of rank, stability, loss."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from anndata import AnnData

from unmix._adata.arguments import checked
from unmix._adata.stored import stored_array, stored_entry
from unmix.get._loadings import TOOLS
from unmix.get._loadings import loadings as get_loadings
from unmix.pl._canvas import COLOURS, LABEL, TICK, TITLE, finish, named_axis, palette, panels

if TYPE_CHECKING:
    from matplotlib.axes import Axes

HELD_OUT = "mean loss of held-out entries"
TITLES = {
    HELD_OUT: "Prediction (lower is better)",
    "silhouette": "Stability of the programs (higher is better)",
    "cophenetic": "Consensus of the runs (higher is better)",
    "dispersion": "Consensus, crispness (higher is better)",
    "error": "Error (always falls)",
}
"""What a criterion says, by its name on the axis."""


@checked
def loadings(
    adata: AnnData,
    *,
    key: str = "nmf",
    n_top: int = 10,
    ax: "Axes | Sequence[Axes] | None" = None,
    show: bool | None = None,
    save: str | Path | None = None,
) -> "list[Axes]":
    """Draw the leading genes of every component, by score where the tool stores one.

    Parameters
    ----------
    adata
        Object that :func:`unmix.tl.factorize`, :func:`unmix.tl.metagenes` or :func:`unmix.tl.joint_nmf` has written to.
    key
        The tool's `key_added`.
    n_top
        Number of genes per component.
    ax
        Axes to draw in, one per component.
    show
        Whether to show the figure; `None` shows it in interactive sessions, unless it is saved.
    save
        File to save the figure to.

    Returns
    -------
    The axes, one per component.

    Raises
    ------
    KeyError
        If there is no such result.

    Examples
    --------
    >>> import unmix as um
    >>> spots, reference = um.datasets.pbmc_spots()
    >>> um.tl.factorize(reference, 3)
    >>> len(um.pl.loadings(reference, show=False))
    3
    """
    table = get_loadings(adata, key=key, n_top=n_top)
    names = list(dict.fromkeys(table["component"]))
    axes = panels(ax, len(names), size=2.4, aspect=max(n_top / 10, 0.6))
    colours = palette(adata, key, names)
    for panel, name, colour in zip(axes, names, colours, strict=True):
        part = table[table["component"] == name]
        panel.barh(np.arange(len(part)), part["loading"], color=colour)
        named_axis(panel.yaxis, list(part["gene"]))
        panel.invert_yaxis()
        panel.locator_params(axis="x", nbins=4)
        panel.tick_params(axis="x", labelsize=TICK)
        panel.set_title(f"{key} {name}", fontsize=TITLE)
        panel.set_xlabel("loading", fontsize=LABEL)
    finish(axes, ours=ax is None, show=show, save=save)
    return axes


@checked
def rank_selection(
    adata: AnnData,
    *,
    key: str = "metagenes",
    ax: "Axes | Sequence[Axes] | None" = None,
    show: bool | None = None,
    save: str | Path | None = None,
) -> "list[Axes]":
    """Draw what speaks for each number of components: held-out loss, stability, consensus, error.

    Parameters
    ----------
    adata
        What :func:`unmix.tl.metagenes`, or :func:`unmix.tl.factorize` with `n_components="auto"`, has written to.
    key
        The tool's `key_added`.
    ax
        Axes to draw in, one per criterion.
    show
        Whether to show the figure; `None` shows it in interactive sessions, unless it is saved.
    save
        File to save the figure to.

    Returns
    -------
    The axes, one per criterion.

    Raises
    ------
    KeyError
        If there is no such result.
    ValueError
        If only one number of components was fitted, without a choice.

    Examples
    --------
    >>> import unmix as um
    >>> spots, reference = um.datasets.pbmc_spots()
    >>> cells = um.tl.factorize(reference[:100], "auto", ranks=[1, 2, 3], copy=True)
    >>> len(um.pl.rank_selection(cells, key="nmf", show=False))
    1
    """
    from matplotlib.ticker import MaxNLocator

    entry = stored_entry(adata, key, *TOOLS)
    chosen = stored_array(adata, "varm", key).shape[1]
    curves = _curves(entry)
    if not curves:
        msg = f"{key!r} holds one number of components and no curve; give a range or n_components='auto' to the tool."
        raise ValueError(msg)
    axes = panels(ax, len(curves), columns=2, aspect=0.7)
    for panel, (name, (ranks, values, spread)) in zip(axes, curves.items(), strict=True):
        panel.errorbar(ranks, values, yerr=spread, marker="o", markersize=3, color=COLOURS[0], capsize=2)
        panel.axvline(chosen, color="0.6", linestyle=":", zorder=0, label=f"chosen: {chosen}")
        panel.xaxis.set_major_locator(MaxNLocator(integer=True))
        panel.set_xlabel("number of components", fontsize=LABEL)
        panel.set_ylabel(name, fontsize=LABEL)
        panel.set_title(TITLES[name], fontsize=TITLE)
    axes[0].legend(frameon=False, fontsize=LABEL)
    finish(axes, ours=ax is None, show=show, save=save)
    return axes


def _curves(entry: dict) -> "dict[str, tuple[np.ndarray, np.ndarray, np.ndarray | None]]":
    """Return ranks, values and standard errors of every criterion that is stored."""
    found: dict[str, tuple[np.ndarray, np.ndarray, np.ndarray | None]] = {}
    selection = entry.get("selection", entry)
    if "held_out" in selection:
        losses = np.asarray(selection["held_out"])
        error = losses.std(axis=1) / np.sqrt(losses.shape[1])
        found[HELD_OUT] = np.asarray(selection["ranks"]), losses.mean(axis=1), error
    table = entry.get("stability")
    if isinstance(table, pd.DataFrame) and len(table) > 1:
        for column in ("silhouette", "cophenetic", "dispersion", "error"):
            found[column] = table["n_components"].to_numpy(), table[column].to_numpy(), None
    return found
