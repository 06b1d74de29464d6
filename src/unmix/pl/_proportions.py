"""Pictures of proportions: maps, leading types, bars."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd
from anndata import AnnData

from unmix._adata.stored import stored_entry
from unmix.get import proportions as get_proportions
from unmix.pl._canvas import coordinates, draw_spots, finish, grid, palette, spot_diameter, tissue_image

if TYPE_CHECKING:
    from matplotlib.axes import Axes

KINDS = ("maps", "top", "bars")


def proportions(
    adata: AnnData,
    *,
    key: str = "deconvolve",
    kind: Literal["auto", "maps", "top", "bars"] = "auto",
    types: Sequence[str] | None = None,
    as_rna: bool | None = None,
    basis: str = "spatial",
    vmax: float | Literal["shared"] | None = None,
    cmap: str = "viridis",
    ax: "Axes | None" = None,
    show: bool | None = None,
    save: str | Path | None = None,
) -> "list[Axes]":
    """Draw the proportions of cell types.

    Parameters
    ----------
    adata
        Object that :func:`unmix.tl.deconvolve` has written to.
    key
        The tool's `key_added`.
    kind
        `"maps"`: one map of the tissue per type, over the tissue's image where there is one; `"top"`: one map with the
        largest type of every spot; `"bars"`: one stacked bar per observation, for bulk samples. `"auto"` draws maps where
        there are coordinates and bars where there are none.
    types
        Types to draw; `None` for all.
    as_rna
        Shares of RNA or of cells, as in :func:`unmix.get.proportions`.
    basis
        Key of the coordinates in `obsm`.
    vmax
        Proportion at the top of the colour scale: a number, `"shared"` for the largest of all types, `None` for each
        type's own largest.
    cmap
        Colour map of the maps.
    ax
        Axes to draw in, for the kinds that need one only.
    show
        Whether to show the figure; `None` shows it in interactive sessions, unless it is saved.
    save
        File to save the figure to.

    Returns
    -------
    The axes, one per panel.

    Raises
    ------
    KeyError
        If there is no such result, or there are no coordinates for a map.
    ValueError
        If `kind` or `types` are not among what is allowed.

    Examples
    --------
    >>> import unmix as um
    >>> spots, reference = um.datasets.pbmc_spots()
    >>> um.tl.deconvolve(spots, reference, groupby="cell_type")
    >>> axes = um.pl.proportions(spots, types=["CD14+ Monocyte", "CD19+ B"], show=False)
    >>> [ax.get_title() for ax in axes]
    ['CD14+ Monocyte', 'CD19+ B']
    """
    entry = stored_entry(adata, key, "deconvolve")
    table = get_proportions(adata, key=key, as_rna=as_rna)
    chosen = _chosen_types(table, types)
    if kind == "auto":
        kind = "maps" if basis in adata.obsm else "bars"
    if kind not in KINDS:
        msg = f"`kind` must be 'auto' or one of {list(KINDS)}, got {kind!r}."
        raise ValueError(msg)
    unit = "share of RNA" if (entry["fraction_of"] == "RNA" if as_rna is None else as_rna) else "share of cells"
    colours = dict(zip(table.columns, palette(adata, key, table.shape[1]), strict=True))
    if kind == "maps":
        axes = _maps(adata, table[chosen], coordinates(adata, basis), unit, vmax, cmap, ax)
    elif kind == "top":
        axes = [_top(adata, table[chosen], coordinates(adata, basis), colours, ax)]
    else:
        axes = [_bars(table[chosen], unit, colours, ax)]
    finish(axes, show=show, save=save)
    return axes


def _chosen_types(table: pd.DataFrame, types: Sequence[str] | None) -> list[str]:
    if types is None:
        return list(table.columns)
    unknown = [name for name in types if name not in table.columns]
    if unknown or not len(types):
        msg = f"`types` {unknown} are not among the types {list(table.columns)}."
        raise ValueError(msg)
    return list(types)


def _maps(
    adata: AnnData,
    table: pd.DataFrame,
    xy: np.ndarray,
    unit: str,
    vmax: float | Literal["shared"] | None,
    cmap: str,
    ax: "Axes | None",
) -> "list[Axes]":
    """Draw one map per type; spots that could not be fitted are grey."""
    if ax is not None and table.shape[1] > 1:
        msg = f"`ax` takes one map, but {table.shape[1]} types are to be drawn; name one with `types=`."
        raise ValueError(msg)
    extent = np.ptp(xy, axis=0)
    aspect = float(extent[1] / extent[0]) if extent.min() > 0 else 1.0
    axes = [ax] if ax is not None else grid(table.shape[1], aspect=aspect)[1]
    image, diameter = tissue_image(adata), spot_diameter(xy)
    top = float(np.nanmax(table.to_numpy())) if vmax == "shared" else vmax
    for panel, name in zip(axes, table.columns, strict=True):
        values = table[name].to_numpy()
        missing = np.isnan(values)
        if missing.any():
            draw_spots(panel, xy[missing], diameter, facecolors="#dddddd")
        spots = draw_spots(panel, xy, diameter, image=image, array=np.ma.masked_invalid(values), cmap=cmap)
        spots.set_clim(0, top if top is not None else max(float(np.nanmax(values, initial=0)), 1e-12))
        panel.set_title(name, fontsize=10)
        panel.get_figure().colorbar(spots, ax=panel, shrink=0.8, label=unit)  # type: ignore[union-attr]
    return axes


def _top(adata: AnnData, table: pd.DataFrame, xy: np.ndarray, colours: dict[str, str], ax: "Axes | None") -> "Axes":
    """Draw the largest type of every spot."""
    from matplotlib.patches import Patch

    panel = ax if ax is not None else grid(1, size=5)[1][0]
    fitted = table.notna().all(axis=1).to_numpy()
    largest = table.to_numpy()[fitted].argmax(axis=1)
    faces = np.full(len(table), "#dddddd", dtype=object)
    faces[fitted] = [colours[table.columns[k]] for k in largest]
    draw_spots(panel, xy, spot_diameter(xy), image=tissue_image(adata), facecolors=list(faces))
    shown = [name for k, name in enumerate(table.columns) if (largest == k).any()]
    handles = [Patch(color=colours[name], label=name) for name in shown]
    handles += [Patch(color="#dddddd", label="not fitted")] if not fitted.all() else []
    panel.legend(handles=handles, loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, fontsize=8)
    panel.set_title("Largest type of every spot", fontsize=10)
    return panel


def _bars(table: pd.DataFrame, unit: str, colours: dict[str, str], ax: "Axes | None") -> "Axes":
    """Draw one stacked bar per observation."""
    from matplotlib import pyplot as plt

    if ax is None:
        _, ax = plt.subplots(figsize=(float(np.clip(0.35 * len(table) + 3, 5, 24)), 4.5), layout="constrained")
    bottom = np.zeros(len(table))
    for name in table.columns:
        values = np.nan_to_num(table[name].to_numpy())
        ax.bar(np.arange(len(table)), values, bottom=bottom, color=colours[name], label=name, width=0.9)
        bottom += values
    ax.set_xticks(np.arange(len(table)), table.index.astype(str), rotation=90, fontsize=8)
    ax.set_xlim(-0.6, len(table) - 0.4)
    ax.set_ylabel(unit)
    ax.set_title("Cell-type proportions", fontsize=10)
    ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, fontsize=8)
    return ax
