"""Pictures of proportions: maps, leading types, bars."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd
from anndata import AnnData

from unmix._adata import keys
from unmix._adata.arguments import checked
from unmix._adata.stored import belongs, stored_entry, stored_table
from unmix.get import proportions as get_proportions
from unmix.pl._canvas import LABEL, MISSING, TICK, TITLE, finish, legend, palette, panels, short
from unmix.pl._tissue import Tissue, draw_maps, draw_spots, tissues, titled

if TYPE_CHECKING:
    from matplotlib.axes import Axes

KINDS = ("maps", "se", "top", "bars")
UNITS = {"cells": "share of cells", "RNA": "share of RNA", "score": "score"}
MOST_NAMES = 80
"""Observations whose names fit under their bars."""


@checked
def proportions(
    adata: AnnData,
    *,
    key: str = "deconvolve",
    kind: Literal["auto", "maps", "se", "top", "bars"] = "auto",
    types: Sequence[str] | None = None,
    as_rna: bool | None = None,
    basis: str = "spatial",
    library_key: str | None = None,
    library_id: str | None = None,
    vmax: float | Literal["shared"] | None = None,
    cmap: str = "viridis",
    ax: "Axes | Sequence[Axes] | None" = None,
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
        `"maps"`: one map of the tissue per type, over the tissue's image where there is one; `"se"`: the same of the
        standard errors, where the method gives them; `"top"`: one map with the largest type of every spot; `"bars"`: one
        stacked bar per observation, for bulk samples. `"auto"` draws maps where there are coordinates and bars where there
        are none. What could not be fitted is grey.
    types
        Types to draw; `None` for all.
    as_rna
        Shares of RNA or of cells, as in :func:`unmix.get.proportions`.
    basis
        Key of the coordinates in `obsm`.
    library_key
        Column of `obs` with the section of every spot, in objects that hold several (squidpy's name for it). Sections are
        then drawn one by one, each over its own image `uns["spatial"][section]` where there is one: a row of maps per
        section, a column per type, with the same scale in all sections.
    library_id
        Which image of `uns["spatial"]` to draw under the spots; `None` for the only one. With `library_key`, the one section
        to draw.
    vmax
        Proportion at the top of the colour scale: a number, `"shared"` for the largest of all types, `None` for each
        type's own largest.
    cmap
        Colour map of the maps.
    ax
        Axes to draw in, one per panel, section after section.
    show
        Whether to show the figure; `None` shows it in interactive sessions, unless it is saved.
    save
        File to save the figure to.

    Returns
    -------
    The axes, one per panel, section after section.

    Raises
    ------
    KeyError
        If there is no such result, there are no coordinates for a map or no standard errors, or no such column or section.
    ValueError
        If `kind` or `types` are not among what is allowed, a spot has no section, sections are asked for with bars, or `ax`
        does not hold one Axes per panel.

    Warns
    -----
    SectionsWarning
        If `uns["spatial"]` holds several sections, whose spots lie on top of each other in maps without `library_key`,
        or with it sections have no image and it has images of other names.

    Notes
    -----
    Types have the colours of `uns[f"{key}_colors"]`, in the order of the types, where there are such.

    Examples
    --------
    >>> import unmix as um
    >>> spots, reference = um.datasets.pbmc_spots()
    >>> um.tl.deconvolve(spots, reference, groupby="cell_type")
    >>> axes = um.pl.proportions(spots, types=["CD14+ Monocyte", "CD19+ B"], show=False)
    >>> [ax.get_title() for ax in axes]
    ['CD14+ Monocyte', 'CD19+ B']

    Sections in one object:

    >>> spots.obs["section"] = ["left" if x < 5 else "right" for x in spots.obsm["spatial"][:, 0]]
    >>> axes = um.pl.proportions(spots, types=["CD19+ B"], library_key="section", show=False)
    >>> [ax.get_title() for ax in axes]
    ['left: CD19+ B', 'right: CD19+ B']
    """
    entry = stored_entry(adata, key, "deconvolve")
    table = get_proportions(adata, key=key, as_rna=as_rna)
    chosen = _chosen_types(table, types)
    if kind == "auto":
        kind = "maps" if basis in adata.obsm else "bars"
    if kind not in KINDS:
        msg = f"`kind` must be 'auto' or one of {list(KINDS)}, got {kind!r}."
        raise ValueError(msg)
    unit = UNITS[entry["fraction_of"] if as_rna is None else "RNA" if as_rna else "cells"]
    colours = dict(zip(table.columns, palette(adata, key, list(table.columns)), strict=True))
    if kind == "bars":
        if library_key is not None:
            msg = "`library_key` is for maps; give the observations of one section to draw its bars."
            raise ValueError(msg)
        axes = [_bars(table[chosen], unit, colours, ax)]
    else:
        if kind == "se":
            table, unit = _errors(adata, key, entry, as_rna), f"standard error, {unit}"
        places = tissues(adata, basis, library_key=library_key, library_id=library_id)
        if kind == "top":
            axes = _top(table[chosen], places, colours, ax)
        else:
            axes = draw_maps(places, table[chosen], unit, vmax=vmax, cmap=cmap, ax=ax)
    finish(axes, ours=ax is None, show=show, save=save)
    return axes


def _chosen_types(table: pd.DataFrame, types: Sequence[str] | None) -> list[str]:
    if types is None:
        return list(table.columns)
    unknown = [name for name in types if name not in table.columns]
    if unknown or not len(types):
        msg = f"`types` {unknown} are not among the types {list(table.columns)}."
        raise ValueError(msg)
    return list(types)


def _errors(adata: AnnData, key: str, entry: dict, as_rna: bool | None) -> pd.DataFrame:
    """Return the standard errors that are stored."""
    if not belongs(adata, key, "obsm", key + keys.SE):
        msg = f"{key!r} holds no standard errors; `tl.deconvolve` gives them with the methods that model counts."
        raise KeyError(msg)
    if as_rna is not None and as_rna != (entry["fraction_of"] == "RNA"):
        msg = "standard errors are stored for the fractions that the tool wrote; leave `as_rna` out."
        raise ValueError(msg)
    return stored_table(adata, key + keys.SE, entry["names"])


def _top(
    table: pd.DataFrame, places: list[Tissue], colours: dict[str, str], ax: "Axes | Sequence[Axes] | None"
) -> "list[Axes]":
    """Draw the largest type of every spot, section by section, with one legend for all."""
    from matplotlib.patches import Patch

    axes = panels(ax, len(places), size=5 if len(places) == 1 else 4, aspect=max(place.aspect for place in places))
    fitted, largest = table.notna().all(axis=1).to_numpy(), np.full(len(table), -1)
    largest[fitted] = table.to_numpy()[fitted].argmax(axis=1)
    faces = np.array([*(colours[name] for name in table.columns), MISSING], dtype=object)[largest]
    for panel, place in zip(axes, places, strict=True):
        draw_spots(panel, place, facecolors=list(faces[place.rows]))
        panel.set_title(
            titled(place, "largest type" if place.section else "Largest type of every spot"), fontsize=TITLE
        )
    drawn = np.concatenate([largest[place.rows] for place in places])
    handles = [Patch(color=colours[name], label=name) for k, name in enumerate(table.columns) if (drawn == k).any()]
    handles += [Patch(color=MISSING, label="not fitted")] if (drawn < 0).any() else []
    legend(axes[min(len(axes), 4) - 1], handles)
    return axes


def _bars(table: pd.DataFrame, unit: str, colours: dict[str, str], ax: "Axes | Sequence[Axes] | None") -> "Axes":
    """Draw one stacked bar per observation, with its name where there is room."""
    from matplotlib.patches import Patch

    size = float(np.clip(0.3 * len(table) + 1.5, 4, 20))
    panel = panels(ax, 1, size=size, aspect=4.5 / size)[0]
    at, missing = np.arange(len(table)), table.isna().any(axis=1).to_numpy()
    panel.bar(at[missing], 1.0, color=MISSING, width=0.9)
    bottom = np.zeros(len(table))
    for name in table.columns:
        values = np.nan_to_num(table[name].to_numpy())
        panel.bar(at, values, bottom=bottom, color=colours[name], width=0.9)
        bottom += values
    if len(table) <= MOST_NAMES:
        panel.set_xticks(at, [short(str(name)) for name in table.index], rotation=90, fontsize=TICK)
    else:
        panel.set_xticks([])
        panel.set_xlabel(f"{len(table)} observations", fontsize=LABEL)
    panel.set_xlim(-0.6, len(table) - 0.4)
    panel.set_ylabel(unit)
    panel.set_title("Cell-type scores" if unit == UNITS["score"] else "Cell-type proportions", fontsize=TITLE)
    handles = [Patch(color=colours[name], label=name) for name in reversed(table.columns)]
    legend(panel, [*handles, Patch(color=MISSING, label="not fitted")] if missing.any() else handles)
    return panel
