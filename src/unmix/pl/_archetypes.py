"""Pictures of archetypes: maps, the plane with hull and anchors, tree, selection, markers, matching."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from anndata import AnnData

from unmix._adata.stored import stored_entry
from unmix.get import archetypes as get_archetypes
from unmix.get import markers as get_markers
from unmix.get._archetypes import TOOL
from unmix.pl._canvas import coordinates, draw_spots, finish, grid, palette, spot_diameter, tissue_image

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def archetypes(
    adata: AnnData,
    *,
    key: str = "archetypes",
    proportions: bool = False,
    basis: str = "spatial",
    cmap: str = "viridis",
    show: bool | None = None,
    save: str | Path | None = None,
) -> "list[Axes]":
    """Draw the weights of archetypes on the tissue, one map each.

    Parameters
    ----------
    adata
        Object that :func:`unmix.tl.starfysh_archetypes` has written to.
    key
        The tool's `key_added`.
    proportions
        Whether to draw the shares of types and novel archetypes instead.
    basis
        Key of the coordinates in `obsm`.
    cmap
        Colour map.
    show
        Whether to show the figure; `None` shows it in interactive sessions, unless it is saved.
    save
        File to save the figure to.

    Returns
    -------
    The axes, one per map.

    Raises
    ------
    KeyError
        If there is no such result or there are no coordinates.

    Examples
    --------
    >>> import unmix as um
    >>> spots, _ = um.datasets.pbmc_spots()
    >>> um.tl.starfysh_archetypes(spots, 4, resolution=None)
    >>> len(um.pl.archetypes(spots, show=False))
    4
    """
    table = get_archetypes(adata, key=key, what="proportions" if proportions else "weights")
    xy = coordinates(adata, basis)
    extent = np.ptp(xy, axis=0)
    axes = grid(table.shape[1], aspect=float(extent[1] / extent[0]) if extent.min() > 0 else 1.0)[1]
    image, diameter = tissue_image(adata), spot_diameter(xy)
    for panel, name in zip(axes, table.columns, strict=True):
        values = np.ma.masked_invalid(table[name].to_numpy())
        spots = draw_spots(panel, xy, diameter, image=image, array=values, cmap=cmap)
        spots.set_clim(0, max(float(values.max()) if values.count() else 0.0, 1e-12))
        panel.set_title(name, fontsize=10)
        panel.get_figure().colorbar(spots, ax=panel, shrink=0.8, label="weight")  # type: ignore[union-attr]
    finish(axes, show=show, save=save)
    return axes


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
    panel = ax if ax is not None else grid(1, size=5)[1][0]
    colours = palette(adata, key, len(names))
    panel.scatter(xy[:, 0], xy[:, 1], s=8, c=[colours[k] for k in W[rows].argmax(axis=1)], alpha=0.5, linewidths=0)
    _draw_hull(panel, corners)
    anchors = entry["anchors"]
    position = adata.obs_names.get_indexer(anchors.loc[anchors["weight"] > 0, "obs_name"].astype(str))
    anchored = W[position[position >= 0]] @ corners
    panel.scatter(anchored[:, 0], anchored[:, 1], s=40, facecolors="none", edgecolors="black", label="anchors")
    for name, corner, colour in zip(names, corners, colours, strict=True):
        panel.scatter(corner[0], corner[1], marker="^", s=90, color=colour, edgecolors="black")
        panel.annotate(name, corner, textcoords="offset points", xytext=(6, 6), fontsize=8)
    panel.set_xlabel("direction 1")
    panel.set_ylabel("direction 2")
    panel.set_title("Archetypes, hull and anchors", fontsize=10)
    panel.legend(frameon=False, fontsize=8)
    finish([panel], show=show, save=save)
    return [panel]


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
    linkage = np.asarray(entry["linkage"], dtype=float)
    if len(linkage) == 0:
        msg = f"{key!r} holds one archetype; a tree needs two."
        raise ValueError(msg)
    labels = [str(entry["names"][g]) for g in np.asarray(entry["group"])]
    panel = ax if ax is not None else grid(1, size=5)[1][0]
    dendrogram(linkage, labels=labels, ax=panel, color_threshold=0, above_threshold_color="#333333", leaf_rotation=90)
    panel.set_ylabel("height")
    panel.set_title("Merge tree", fontsize=10)
    finish([panel], show=show, save=save)
    return [panel]


def archetype_selection(
    adata: AnnData,
    *,
    key: str = "archetypes",
    ax: "Axes | None" = None,
    show: bool | None = None,
    save: str | Path | None = None,
) -> "list[Axes]":
    """Draw what the number of archetypes was chosen by.

    Parameters
    ----------
    adata
        Object that :func:`unmix.tl.starfysh_archetypes` has written to with `n_archetypes="auto"`.
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
    >>> um.tl.starfysh_archetypes(spots, "auto")
    >>> axes = um.pl.archetype_selection(spots, show=False)
    """
    table = get_archetypes(adata, key=key, what="selection")
    panel = ax if ax is not None else grid(1, size=5)[1][0]
    for name, label in (
        ("stability", "agreement of subsets"),
        ("held_out", "variance explained, held out"),
        ("explained", "variance explained, fitted"),
    ):
        panel.plot(table["n_archetypes"], table[name], marker="o", label=label)
    chosen = int(table.loc[table["chosen"].astype(bool), "n_archetypes"].iloc[0])
    panel.axvline(chosen, color="#555555", ls="--", label=f"chosen: {chosen}")
    panel.set_xlabel("number of archetypes")
    panel.set_ylabel("cosine, share")
    panel.legend(frameon=False, fontsize=8)
    finish([panel], show=show, save=save)
    return [panel]


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
