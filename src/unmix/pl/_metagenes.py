"""Pictures of metagenes: the consensus of the runs, and the genes that mark every program."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from anndata import AnnData

from unmix._adata import keys
from unmix._adata.arguments import checked
from unmix._adata.stored import rows_of_names, stored_array, stored_entry, stored_parts
from unmix.get._loadings import loadings as get_loadings
from unmix.get._loadings import ranking
from unmix.pl._canvas import LABEL, TITLE, colour_bar, finish, heatmap, palette, panels

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@checked
def consensus(
    adata: AnnData,
    *,
    key: str = "metagenes",
    ax: "Sequence[Axes] | None" = None,
    show: bool | None = None,
    save: str | Path | None = None,
) -> "list[Axes]":
    """Draw how often the runs put two cells into the same program, beside the program that each cell uses most.

    Parameters
    ----------
    adata
        Object that :func:`unmix.tl.metagenes` has written to.
    key
        The tool's `key_added`.
    ax
        Two axes to draw in: a narrow one for the programs, one for the matrix.
    show
        Whether to show the figure; `None` shows it in interactive sessions, unless it is saved.
    save
        File to save the figure to.

    Returns
    -------
    The axes of the programs and of the consensus matrix.

    Raises
    ------
    KeyError
        If there is no such result, or its cells are not in `adata`.

    Examples
    --------
    >>> import unmix as um
    >>> spots, reference = um.datasets.pbmc_spots()
    >>> um.tl.metagenes(reference, 5, n_runs=5, n_top_genes=200, max_distance=2.0)
    >>> len(um.pl.consensus(reference, show=False))
    2
    """
    from matplotlib.colors import ListedColormap
    from matplotlib.patches import Patch

    stored = stored_parts(stored_entry(adata, key, "metagenes"), "consensus")
    rows = rows_of_names(adata, stored["names"])
    if (rows < 0).any():
        msg = f"{int((rows < 0).sum())} cells of the consensus under {key!r} are not in this AnnData."
        raise KeyError(msg)
    usages = np.nan_to_num(stored_array(adata, "obsm", keys.EMBEDDING + key)[rows])
    program, k = usages.argmax(axis=1), usages.shape[1]
    colours = palette(adata, key, [str(c + 1) for c in range(k)])
    side, panel = _side_and_panel() if ax is None else panels(ax, 2)
    side.imshow(program[:, None], aspect="auto", cmap=ListedColormap(colours), vmin=-0.5, vmax=k - 0.5)
    image = panel.imshow(stored["matrix"], aspect="auto", cmap="viridis", vmin=0, vmax=1, interpolation="nearest")
    for a in (side, panel):
        a.set_xticks([])
        a.set_yticks([])
    side.set_ylabel("cells, by program", fontsize=LABEL)
    panel.set_xlabel("cells, in the same order", fontsize=LABEL)
    panel.set_title(f"{key}: consensus of the runs, {len(rows)} cells", fontsize=TITLE)
    colour_bar(panel, image, "share of runs together", shrink=0.6)
    patches = [Patch(color=colours[c], label=str(c + 1)) for c in range(k)]
    where = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.07), "ncols": min(k, 10)}
    panel.legend(handles=patches, title="program", fontsize=LABEL, title_fontsize=LABEL, frameon=False, **where)
    finish([side, panel], ours=ax is None, show=show, save=save)
    return [side, panel]


def _side_and_panel() -> "tuple[Axes, Axes]":
    """Make a figure with a narrow and a square panel."""
    from matplotlib import pyplot as plt

    space = {"wspace": 0.02}
    _, axes = plt.subplots(1, 2, figsize=(6.6, 5.0), width_ratios=[1, 18], layout="constrained", gridspec_kw=space)
    return axes[0], axes[1]


@checked
def top_genes(
    adata: AnnData,
    *,
    key: str = "metagenes",
    n_top: int = 5,
    ax: "Axes | None" = None,
    show: bool | None = None,
    save: str | Path | None = None,
) -> "list[Axes]":
    """Draw the leading genes of every component across all components.

    Genes are ranked by score where the tool stores one; each gene's row is divided by its largest absolute value.

    Parameters
    ----------
    adata
        Object that :func:`unmix.tl.metagenes`, :func:`unmix.tl.factorize` or :func:`unmix.tl.joint_nmf` has written to.
    key
        The tool's `key_added`.
    n_top
        Number of genes per component; a gene that leads several stands with the first.
    ax
        Axes to draw in.
    show
        Whether to show the figure; `None` shows it in interactive sessions, unless it is saved.
    save
        File to save the figure to.

    Returns
    -------
    The axes, as a list of one.

    Raises
    ------
    KeyError
        If there is no such result.

    Examples
    --------
    >>> import unmix as um
    >>> spots, reference = um.datasets.pbmc_spots()
    >>> um.tl.factorize(reference, 3)
    >>> axes = um.pl.top_genes(reference, key="nmf", n_top=2, show=False)
    >>> len(axes[0].get_yticklabels()) <= 6
    True
    """
    genes = list(dict.fromkeys(get_loadings(adata, key=key, n_top=n_top)["gene"]))
    values = stored_array(adata, "varm", ranking(adata, key))
    table = pd.DataFrame(values, index=adata.var_names).loc[genes]
    size = table.abs().max(axis=1).to_numpy()
    table = table.div(np.where(size > 0, size, 1), axis=0)
    size = 1.8 + 0.4 * table.shape[1]
    panel = panels(ax, 1, size=size, aspect=(0.9 + 0.17 * len(genes)) / size)[0]
    signed = bool((table < 0).any(axis=None))
    limits = {"cmap": "RdBu_r", "vmin": -1, "vmax": 1} if signed else {"vmin": 0, "vmax": 1}
    names = [str(c + 1) for c in range(table.shape[1])]
    heatmap(panel, table, genes, names, label="relative to the gene's largest", **limits)
    panel.set_xlabel("component", fontsize=LABEL)
    panel.set_ylabel("gene", fontsize=LABEL)
    panel.set_title(f"{key}: leading genes", fontsize=TITLE)
    finish([panel], ours=ax is None, show=show, save=save)
    return [panel]
