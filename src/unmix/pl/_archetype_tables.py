"""Archetypes as heatmaps: profiles of their markers, scores of gene sets."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from anndata import AnnData

from unmix._adata.stored import stored_entry
from unmix.get import archetypes as get_archetypes
from unmix.get import markers as get_markers
from unmix.get._archetypes import TOOL
from unmix.pl._canvas import finish, grid

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def archetype_markers(
    adata: AnnData,
    *,
    key: str = "archetypes",
    n_genes: int = 5,
    ax: "Axes | None" = None,
    show: bool | None = None,
    save: str | Path | None = None,
) -> "list[Axes]":
    """Draw the profiles of the best markers, every gene relative to its largest level among archetypes.

    Parameters
    ----------
    adata
        Object that :func:`unmix.tl.starfysh_archetypes` has written to.
    key
        The tool's `key_added`.
    n_genes
        Genes per archetype.
    ax
        Axes to draw in.
    show
        Whether to show the figure.
    save
        File to save the figure to.

    Returns
    -------
    The axes.

    Raises
    ------
    KeyError
        If there is no such result.

    Examples
    --------
    >>> import unmix as um
    >>> spots, _ = um.datasets.pbmc_spots()
    >>> um.tl.starfysh_archetypes(spots, 4, resolution=None)
    >>> axes = um.pl.archetype_markers(spots, show=False)
    """
    entry = stored_entry(adata, key, TOOL)
    genes = list(dict.fromkeys(get_markers(adata, key=key, n_genes=n_genes)["gene"].astype(str)))
    levels = np.asarray(adata.varm[key])[adata.var_names.get_indexer(genes)]
    top = levels.max(axis=1, keepdims=True)
    return _heatmap(levels / np.where(top > 0, top, 1), genes, list(entry["names"]), "relative level", ax, show, save)


def signature_matching(
    adata: AnnData,
    *,
    key: str = "archetypes",
    ax: "Axes | None" = None,
    show: bool | None = None,
    save: str | Path | None = None,
) -> "list[Axes]":
    """Draw the scores of gene sets in archetypes; squares mark the pairs that were matched.

    Parameters
    ----------
    adata
        Object that :func:`unmix.tl.starfysh_archetypes` has written to with `signatures`.
    key
        The tool's `key_added`.
    ax
        Axes to draw in.
    show
        Whether to show the figure.
    save
        File to save the figure to.

    Returns
    -------
    The axes.

    Raises
    ------
    KeyError
        If there is no such result.

    Examples
    --------
    >>> import unmix as um
    >>> spots, _ = um.datasets.pbmc_spots()
    >>> sets = {"B": ["MS4A1", "CD79A", "CD79B"], "Monocyte": ["LYZ", "S100A8", "S100A9"]}
    >>> um.tl.starfysh_archetypes(spots, 4, resolution=None, signatures=sets)
    >>> axes = um.pl.signature_matching(spots, show=False)
    """
    matching = get_archetypes(adata, key=key, what="matching")
    entry = stored_entry(adata, key, TOOL)
    names = [str(n) for n in entry["names"]]
    scores = np.asarray(entry["set_scores"], dtype=float)
    axes = _heatmap(scores, list(matching["type"].astype(str)), names, "score", ax, None, None, draw=False)
    for t, partner in enumerate(matching["archetype"].astype(str)):
        if partner in names:
            axes[0].scatter(
                names.index(partner), t, marker="s", s=60, facecolors="none", edgecolors="red", linewidths=2
            )
    finish(axes, show=show, save=save)
    return axes


def _heatmap(
    values: np.ndarray,
    rows: list[str],
    columns: list[str],
    label: str,
    ax: "Axes | None",
    show: bool | None,
    save: str | Path | None,
    *,
    draw: bool = True,
) -> "list[Axes]":
    """Draw a table with its names."""
    panel = ax if ax is not None else grid(1, size=5, aspect=float(np.clip(0.05 * len(rows), 0.6, 1.6)))[1][0]
    picture = panel.imshow(values, aspect="auto", cmap="viridis")
    panel.set_yticks(np.arange(len(rows)), rows, fontsize=7)
    panel.set_xticks(np.arange(len(columns)), columns, rotation=90, fontsize=8)
    panel.get_figure().colorbar(picture, ax=panel, shrink=0.8, label=label)  # type: ignore[union-attr]
    if draw:
        finish([panel], show=show, save=save)
    return [panel]
