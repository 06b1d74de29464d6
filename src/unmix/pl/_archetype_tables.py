"""Archetypes as heatmaps: profiles of their markers, scores of gene sets."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from anndata import AnnData

from unmix._adata.arguments import checked
from unmix._adata.stored import positions, stored_array, stored_entry, stored_names
from unmix.get import archetypes as get_archetypes
from unmix.get import markers as get_markers
from unmix.get._archetypes import TOOL
from unmix.pl._canvas import LABEL, TITLE, finish, heatmap, panels

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@checked
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
    levels = stored_array(adata, "varm", key)[positions(adata, genes)]
    top = levels.max(axis=1, keepdims=True)
    panel = panels(ax, 1, size=_width(entry["names"]), aspect=_height(genes) / _width(entry["names"]))[0]
    names = [str(name) for name in entry["names"]]
    heatmap(panel, levels / np.where(top > 0, top, 1), genes, names, label="level relative to the gene's largest")
    panel.set_ylabel("gene", fontsize=LABEL)
    panel.set_title("Markers of archetypes", fontsize=TITLE)
    finish([panel], ours=ax is None, show=show, save=save)
    return [panel]


@checked
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
    names = stored_names(entry, "names")
    scores = np.asarray(entry["set_scores"], dtype=float)
    types = list(matching["type"].astype(str))
    panel = panels(ax, 1, size=_width(names), aspect=_height(types) / _width(names))[0]
    heatmap(panel, scores, types, names, label="score of the gene set")
    pairs = [(names.index(to), t) for t, to in enumerate(matching["archetype"].astype(str)) if to in names]
    at = np.reshape(pairs, (-1, 2))
    for colour, width in (("white", 4.0), ("black", 1.5)):
        panel.scatter(at[:, 0], at[:, 1], marker="s", s=70, facecolors="none", edgecolors=colour, lw=width)
    panel.set_ylabel("gene set", fontsize=LABEL)
    panel.set_title("Gene sets in archetypes; squares: matched", fontsize=TITLE)
    finish([panel], ours=ax is None, show=show, save=save)
    return [panel]


def _width(names: list[str]) -> float:
    return float(np.clip(0.3 * len(names) + 2.5, 3.5, 12))


def _height(names: list[str]) -> float:
    return float(np.clip(0.16 * len(names) + 1.6, 2.5, 14))
