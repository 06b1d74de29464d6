"""Maps: one disc per spot at its place in the tissue, over the tissue's image where there is one."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
from anndata import AnnData

from unmix.pl._canvas import LABEL, MISSING, TITLE, colour_bar, panels, wrapped
from unmix.pl._sections import libraries, spots_by_section, warn_of_names, warn_of_overlay

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.collections import Collection


LARGEST = 1e100
"""Coordinates from here on leave no digit for a margin."""
WIDEST = 100.0
"""Inches of the widest row of maps, as far as letters leave them room."""


@dataclass(frozen=True)
class Tissue:
    """Where the spots of a section lie, how large they are, and what lies under them."""

    basis: str
    xy: np.ndarray
    diameter: float
    image: tuple[np.ndarray, float] | None = None
    spot: float = 0.0
    """Diameter of a spot as the scale factors have it; 0 where they do not."""
    section: str | None = None
    """Its name, where sections are told apart."""
    rows: "np.ndarray | slice" = field(default_factory=lambda: slice(None))
    """Which observations its spots are."""

    @property
    def aspect(self) -> float:
        """Height over width."""
        extent = np.ptp(self.xy, axis=0)
        return float(extent[1] / extent[0]) if extent.min() > 0 else 1.0


def tissues(
    adata: AnnData, basis: str, *, library_key: str | None = None, library_id: str | None = None
) -> list[Tissue]:
    """Read where spots lie: section by section with `library_key`, one of them with `library_id` too, else all in one.

    Raises
    ------
    KeyError
        If there are no coordinates, no such column, or no section or library of this name.
    ValueError
        If there are no spots, coordinates are not finite, or there is one only, or a spot has no section.

    Warns
    -----
    SectionsWarning
        If spots of several sections lie on top of each other, or sections and images have different names.
    """
    xy = _coordinates(adata, basis)
    if library_key is not None:
        found = spots_by_section(adata, library_key, library_id).items()
        if basis == "spatial":
            warn_of_names(adata, library_key, [name for name, _ in found])
        return [_tissue(basis, xy[rows], libraries(adata).get(name), name, rows) for name, rows in found]
    if library_id is None and basis == "spatial":
        warn_of_overlay(adata)
    return [_tissue(basis, xy, _library(adata, library_id) if basis == "spatial" else None)]


def _coordinates(adata: AnnData, basis: str) -> np.ndarray:
    """Return the coordinates in `obsm[basis]`, (n_obs, 2)."""
    if basis not in adata.obsm:
        msg = f"`basis` {basis!r} is not in obsm, so there is no map to draw on; there are {sorted(adata.obsm)}."
        raise KeyError(msg)
    try:
        xy = np.asarray(adata.obsm[basis], dtype=float)[:, :2]
    except (TypeError, ValueError) as error:
        msg = f"the coordinates in obsm[{basis!r}] must be numbers."
        raise ValueError(msg) from error
    if xy.shape[1] < 2:
        msg = f"obsm[{basis!r}] has one column; a map needs two coordinates."
        raise ValueError(msg)
    return xy


def _tissue(
    basis: str, xy: np.ndarray, library: Any, section: str | None = None, rows: "np.ndarray | slice" = slice(None)
) -> Tissue:
    """Return a section over the image of its library."""
    if len(xy) == 0 or not (np.abs(xy) < LARGEST).all():
        msg = f"the coordinates in obsm[{basis!r}] must be finite and below {LARGEST:g}."
        raise ValueError(msg if len(xy) else "there are no spots to draw.")
    library = library if basis == "spatial" and isinstance(library, dict) else {}
    image, spot = _image(library), _factor(library, "spot_diameter_fullres")
    diameter = (spot if image is not None else 0) or _spacing(xy)
    return Tissue(basis, xy, diameter, image, spot, section, rows)


def _factor(library: dict[str, Any], name: str) -> float:
    """Return a scale factor; 0 where there is none."""
    factors = library.get("scalefactors")
    try:
        value = float(factors[name]) if isinstance(factors, dict) else 0.0
    except (KeyError, TypeError, ValueError):
        return 0.0
    return value if 0 < value < LARGEST else 0.0


def _library(adata: AnnData, library_id: str | None) -> Any:
    """Return the only library, or the one that is named; nothing where the choice is open."""
    known = libraries(adata)
    if library_id is not None:
        if library_id not in known:
            msg = f"`library_id` {library_id!r} is not in uns['spatial']; there are {sorted(known)}."
            raise KeyError(msg)
        return known[library_id]
    return next(iter(known.values())) if len(known) == 1 else None


def _image(library: dict[str, Any]) -> tuple[np.ndarray, float] | None:
    """Return an image and its pixels per unit of the coordinates, if there is one."""
    images = library.get("images") or {}
    for resolution in ("hires", "lowres"):
        if resolution in images and (per_unit := _factor(library, f"tissue_{resolution}_scalef")):
            picture = as_picture(images[resolution])
            return None if picture is None else (picture, per_unit)
    return None


def as_picture(image: Any) -> np.ndarray | None:
    """Return an image as rows x columns x colours, bytes or numbers from 0 to 1; nothing where it is no image.

    Numbers of another range, as microscopes write them in 16 bits, are divided by the largest; channels may come first, and one
    channel is grey.

    Examples
    --------
    >>> as_picture(np.array([[0, 500], [1000, 250]], dtype=np.uint16))[:, :, 0]
    array([[0.  , 0.5 ],
           [1.  , 0.25]], dtype=float32)
    """
    pixels = np.asarray(image)
    if pixels.dtype.kind not in "biuf" or pixels.ndim not in (2, 3) or 0 in pixels.shape:
        return None
    if pixels.ndim == 3 and pixels.shape[2] not in (1, 3, 4) and pixels.shape[0] in (1, 3, 4):
        pixels = np.moveaxis(pixels, 0, 2)
    if pixels.ndim == 2 or pixels.shape[2] not in (3, 4):
        pixels = np.repeat(pixels.reshape(*pixels.shape[:2], -1)[:, :, :1], 3, axis=2)
    if pixels.dtype == np.uint8:
        return pixels
    pixels = np.maximum(np.nan_to_num(pixels.astype(np.float32), posinf=0.0, neginf=0.0), 0.0)
    return pixels / max(float(pixels.max()), 1.0)


def _spacing(xy: np.ndarray) -> float:
    """Return the median distance from a spot to its nearest neighbour, so that spots just touch."""
    from scipy.spatial import cKDTree

    if len(xy) < 2:
        return 1.0
    distance = cKDTree(xy).query(xy, k=2)[0][:, 1]
    positive = distance[distance > 0]
    smallest = float(np.ptp(xy, axis=0).max()) / 150
    return max(float(np.median(positive)), smallest) if positive.size else 1.0


def draw_spots(ax: "Axes", place: Tissue, **style: Any) -> "Collection":
    """Draw one disc per spot in the units of the tissue, over its image where there is one."""
    from matplotlib.collections import EllipseCollection

    xy, margin = place.xy, place.diameter
    size = np.full(len(xy), place.diameter)
    spots = EllipseCollection(
        size, size, np.zeros(len(xy)), units="xy", offsets=xy, offset_transform=ax.transData, linewidths=0, **style
    )
    spots.set_rasterized(len(xy) > 2000)
    if place.image is not None:
        picture, per_unit = place.image
        height, width = picture.shape[:2]
        ax.imshow(picture, extent=(0, width / per_unit, height / per_unit, 0), zorder=0)
    ax.add_collection(spots)
    ax.set_xlim(xy[:, 0].min() - margin, xy[:, 0].max() + margin)
    y = xy[:, 1].min() - margin, xy[:, 1].max() + margin
    ax.set_ylim(*(y[::-1] if place.basis == "spatial" else y))  # images count rows from the top
    ax.set_aspect("equal")
    ax.set_xticks([])
    ax.set_yticks([])
    name = place.basis.removeprefix("X_")
    ax.set_xlabel(f"{name} 1", fontsize=LABEL)
    ax.set_ylabel(f"{name} 2", fontsize=LABEL)
    return spots


def _colour_map(cmap: Any) -> Any:
    """Return the colours of maps; spots that could not be fitted are grey."""
    import matplotlib as mpl

    try:
        return mpl.colormaps.get_cmap(cmap).with_extremes(bad=MISSING)
    except (ValueError, TypeError) as error:
        msg = f"`cmap` must be one of matplotlib's colour maps or its name, got {cmap!r}."
        raise ValueError(msg) from error


def draw_maps(
    places: Sequence[Tissue],
    table: pd.DataFrame,
    label: str,
    *,
    vmax: float | Literal["shared"] | None,
    cmap: Any,
    ax: "Axes | Sequence[Axes] | None",
) -> "list[Axes]":
    """Draw a row of maps per section and in it one map per column; spots that could not be fitted are grey.

    The scale of a column is the same in all sections.
    """
    from matplotlib.patches import Patch

    colours = _colour_map(cmap)
    columns = table.shape[1] if len(places) > 1 and table.shape[1] > 1 else 4
    size, aspect = min(3.2, WIDEST / columns), 0.8 * max(place.aspect for place in places) + 0.12
    axes = panels(ax, len(places) * table.shape[1], columns=columns, size=size, aspect=aspect)
    parts = [table.iloc[place.rows] for place in places]
    drawn = np.concatenate([part.to_numpy(dtype=float) for part in parts])
    top = _largest(drawn) if vmax == "shared" else vmax
    tops = [_largest(drawn[:, k]) if top is None else top for k in range(drawn.shape[1])]
    for row, (place, part) in enumerate(zip(places, parts, strict=True)):
        own = axes[row * table.shape[1] :][: table.shape[1]]
        for panel, name, most in zip(own, table.columns, tops, strict=True):
            spots = draw_spots(panel, place, array=np.ma.masked_invalid(part[name].to_numpy(dtype=float)), cmap=colours)
            spots.set_clim(0, most)
            panel.set_title(titled(place, str(name)), fontsize=TITLE)
            colour_bar(panel, spots, label, shrink=0.85)
        if missing := int(part.isna().any(axis=1).sum()):
            handles = [Patch(color=MISSING, label=f"not fitted: {missing}")]
            own[0].legend(handles=handles, loc="upper left", frameon=False, fontsize=LABEL, bbox_to_anchor=(0, -0.06))
    return axes


def titled(place: Tissue, name: str) -> str:
    """Return the title of a map: what it shows, behind or below the section where there are several."""
    if place.section is None:
        return wrapped(name)
    whole = f"{place.section}: {name}"
    return whole if wrapped(whole) == whole else f"{wrapped(place.section)}:\n{wrapped(name)}"


def _largest(values: np.ndarray) -> float:
    """Return the top of a colour scale that begins at 0; 1 where nothing is above 0."""
    return float(np.max(values, initial=0, where=~np.isnan(values))) or 1.0
