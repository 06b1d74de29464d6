"""Archetypes on the tissue, and what their number was chosen by."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from anndata import AnnData

from unmix.get import archetypes as get_archetypes
from unmix.pl._canvas import coordinates, draw_spots, finish, grid, spot_diameter, tissue_image

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
    panel.set_xticks(table["n_archetypes"])
    panel.set_ylabel("cosine, share")
    panel.set_title("Number of archetypes", fontsize=10)
    panel.legend(frameon=False, fontsize=8)
    finish([panel], show=show, save=save)
    return [panel]
