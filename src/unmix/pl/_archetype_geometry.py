"""Archetypes among each other: the plane with hull and anchors, the merge tree."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from anndata import AnnData

from unmix._adata import keys
from unmix._adata.arguments import checked
from unmix._adata.stored import Entry, belongs, stored_entry, stored_names
from unmix.get import archetypes as get_archetypes
from unmix.get._archetypes import TOOL
from unmix.pl._canvas import LABEL, TITLE, finish, legend, palette, panels

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@checked
def archetype_simplex(
    adata: AnnData,
    *,
    key: str = "archetypes",
    ax: "Axes | None" = None,
    show: bool | None = None,
    save: str | Path | None = None,
) -> "list[Axes]":
    """Draw all observations, the archetypes, their hull and their anchors in the plane where archetypes differ most.

    Parameters
    ----------
    adata
        Object that :func:`unmix.tl.starfysh_archetypes` has written to.
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
    >>> um.tl.starfysh_archetypes(spots, 4, resolution=None)
    >>> axes = um.pl.archetype_simplex(spots, show=False)
    """
    entry = stored_entry(adata, key, TOOL)
    names = [str(n) for n in entry["names"]]
    Z = np.asarray(entry["archetypes"], dtype=float)
    plane = np.linalg.svd(Z - Z.mean(axis=0), full_matrices=False)[2][:2]
    corners = _two_columns((Z - Z.mean(axis=0)) @ plane.T)
    W = get_archetypes(adata, key=key).to_numpy()
    rows = ~np.isnan(W).any(axis=1)
    xy = W[rows] @ corners
    panel = panels(ax, 1, size=4.5)[0]
    colours = palette(adata, key, names)
    panel.scatter(xy[:, 0], xy[:, 1], s=8, c=[colours[k] for k in W[rows].argmax(axis=1)], alpha=0.5, linewidths=0)
    _draw_hull(panel, corners)
    anchored = W[_anchors(adata, key, names)] @ corners
    marks = panel.scatter(
        anchored[:, 0], anchored[:, 1], s=40, facecolors="none", edgecolors="black", label="anchors (spots)"
    )
    handles = [marks]
    for name, corner, colour in zip(names, corners, colours, strict=True):
        handles += [
            panel.scatter(
                corner[0], corner[1], marker="^", s=90, color=colour, edgecolors="black", label=name, zorder=3
            )
        ]
        panel.annotate(name.rsplit("_", 1)[-1], corner, textcoords="offset points", xytext=(6, 5), fontsize=LABEL)
    panel.margins(0.08)
    panel.set_xlabel("direction 1, in units of the fitted space", fontsize=LABEL)
    panel.set_ylabel("direction 2, in units of the fitted space", fontsize=LABEL)
    panel.set_title("Archetypes, their hull and their anchors", fontsize=TITLE)
    legend(panel, handles)
    finish([panel], ours=ax is None, show=show, save=save)
    return [panel]


def _anchors(adata: AnnData, key: str, names: list[str]) -> np.ndarray:
    """Tell which observations are anchors, by the column of `obs`, which follows rows that are renamed or taken out."""
    column = key + keys.ANCHOR
    if not belongs(adata, key, "obs", column):
        msg = f"obs[{column!r}] is missing, though uns says that a tool wrote it; run the tool again."
        raise KeyError(msg)
    return adata.obs[column].isin(names).to_numpy()


def _two_columns(xy: np.ndarray) -> np.ndarray:
    return xy if xy.shape[1] == 2 else np.hstack([xy, np.zeros((len(xy), 2 - xy.shape[1]))])


def _draw_hull(panel: "Axes", corners: np.ndarray) -> None:
    """Draw the outline of the corners, if they span a plane."""
    from scipy.spatial import ConvexHull

    if len(corners) < 3 or np.linalg.matrix_rank(corners - corners[0], tol=1e-9) < 2:
        panel.plot(*corners.T, color="#555555", lw=1)
        return
    outline = ConvexHull(corners).vertices
    panel.plot(*corners[np.append(outline, outline[0])].T, color="#555555", lw=1)


@checked
def archetype_tree(
    adata: AnnData,
    *,
    key: str = "archetypes",
    ax: "Axes | None" = None,
    show: bool | None = None,
    save: str | Path | None = None,
) -> "list[Axes]":
    """Draw the merge tree of the fitted archetypes; leaves carry the archetype they were merged into.

    Parameters
    ----------
    adata
        Object that :func:`unmix.tl.starfysh_archetypes` has written to.
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
    ValueError
        If there is one archetype only.

    Examples
    --------
    >>> import unmix as um
    >>> spots, _ = um.datasets.pbmc_spots()
    >>> um.tl.starfysh_archetypes(spots, 4, resolution=None)
    >>> axes = um.pl.archetype_tree(spots, show=False)
    """
    from scipy.cluster.hierarchy import dendrogram

    entry = stored_entry(adata, key, TOOL)
    linkage, labels = _tree(entry, key)
    if len(linkage) == 0:
        msg = f"{key!r} holds one archetype; a tree needs two."
        raise ValueError(msg)
    panel = panels(ax, 1, size=float(np.clip(0.25 * len(labels) + 2, 4, 12)), aspect=0.8)[0]
    dendrogram(
        linkage,
        labels=labels,
        ax=panel,
        color_threshold=0,
        above_threshold_color="#333333",
        leaf_rotation=90,
        leaf_font_size=LABEL,
    )
    panel.set_ylabel("distance, 0 to 1: profiles and overlap", fontsize=LABEL)
    panel.set_title("Merge tree of the archetypes", fontsize=TITLE)
    finish([panel], ours=ax is None, show=show, save=save)
    return [panel]


def _tree(entry: Entry, key: str) -> tuple[np.ndarray, list[str]]:
    """Return the rows of the merge tree and the names of its leaves."""
    linkage, group, names = np.asarray(entry["linkage"]), np.asarray(entry["group"]), stored_names(entry, "names")
    rows = linkage.dtype.kind in "iuf" and linkage.ndim == 2 and linkage.shape[1] == 4
    leaves = group.dtype.kind in "iu" and group.shape == (len(linkage) + 1,) if rows else False
    if not leaves or not np.isin(group, np.arange(len(names))).all():
        msg = f"the merge tree under {key!r} is no longer as the tool left it; run the tool again."
        raise ValueError(msg)
    return linkage.astype(float), [names[g] for g in group]
