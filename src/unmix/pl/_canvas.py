"""What every picture shares: colours, axes, the tissue with its image, saving."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from anndata import AnnData

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.collections import Collection
    from matplotlib.figure import Figure

COLOURS = (
    "#0072b2", "#e69f00", "#009e73", "#d55e00", "#cc79a7", "#56b4e9", "#f0e442", "#332288", "#999933", "#882255",
    "#44aa99", "#aa4499", "#661100", "#6699cc", "#888888", "#117733", "#ddcc77", "#cc6677", "#88ccee", "#000000",
)  # fmt: skip
"""Colours that the colour-blind can tell apart: Okabe and Ito (2008), then Tol's muted scheme (2021)."""


def palette(adata: AnnData, key: str, n: int) -> list[str]:
    """Return one colour per type: `uns[key + "_colors"]` where it fits, else the package's own, repeated if need be."""
    stored = adata.uns.get(f"{key}_colors")
    if stored is not None and len(stored) >= n:
        return [str(c) for c in stored[:n]]
    return [COLOURS[i % len(COLOURS)] for i in range(n)]


def grid(n: int, *, columns: int = 4, size: float = 3.2, aspect: float = 1.0) -> "tuple[Figure, list[Axes]]":
    """Make a figure of `n` panels, `columns` to a row; `aspect` is height over width of a panel."""
    from matplotlib import pyplot as plt

    columns = max(1, min(columns, n))
    rows = -(-n // columns)
    height = float(np.clip(size * aspect, 1.5, 8.0))
    figure, axes = plt.subplots(
        rows, columns, figsize=(columns * size * 1.15, rows * (height + 0.35)), squeeze=False, layout="constrained"
    )
    figure.get_layout_engine().set(w_pad=0.12)  # type: ignore[union-attr, call-arg]
    flat = list(axes.ravel())
    for ax in flat[n:]:
        ax.remove()
    return figure, flat[:n]


def coordinates(adata: AnnData, basis: str) -> np.ndarray:
    """Return the two coordinates of every observation.

    Raises
    ------
    KeyError
        If there are none under this name.
    """
    if basis not in adata.obsm:
        msg = f"`basis` {basis!r} is not in obsm; there are {sorted(adata.obsm)}."
        raise KeyError(msg)
    return np.asarray(adata.obsm[basis], dtype=float)[:, :2]


def spot_diameter(xy: np.ndarray) -> float:
    """Return the median distance from a spot to its nearest neighbour, so that spots just touch."""
    from scipy.spatial import cKDTree

    if len(xy) < 2:
        return 1.0
    distance = cKDTree(xy).query(xy, k=2)[0][:, 1]
    positive = distance[distance > 0]
    return float(np.median(positive)) if positive.size else 1.0


def tissue_image(adata: AnnData, library_id: str | None = None) -> tuple[np.ndarray, float] | None:
    """Return the tissue's image (scanpy's and squidpy's place, `uns["spatial"]`) and pixels per coordinate, if any."""
    libraries = adata.uns.get("spatial")
    if not isinstance(libraries, dict) or not libraries:
        return None
    library = libraries[library_id if library_id is not None else next(iter(libraries))]
    images, factors = library.get("images", {}), library.get("scalefactors", {})
    for resolution in ("hires", "lowres"):
        if resolution in images and f"tissue_{resolution}_scalef" in factors:
            return np.asarray(images[resolution]), float(factors[f"tissue_{resolution}_scalef"])
    return None


def draw_spots(
    ax: "Axes", xy: np.ndarray, diameter: float, *, image: tuple[np.ndarray, float] | None = None, **style: Any
) -> "Collection":
    """Draw one disc per spot in the units of the tissue, over its image where there is one."""
    from matplotlib.collections import EllipseCollection

    size = np.full(len(xy), diameter)
    spots = EllipseCollection(
        size, size, np.zeros(len(xy)), units="xy", offsets=xy, offset_transform=ax.transData, linewidths=0, **style
    )
    if image is not None:
        picture, per_unit = image
        height, width = picture.shape[:2]
        ax.imshow(picture, extent=(0, width / per_unit, height / per_unit, 0), zorder=0)
    ax.add_collection(spots)
    margin = diameter
    ax.set_xlim(xy[:, 0].min() - margin, xy[:, 0].max() + margin)
    ax.set_ylim(xy[:, 1].max() + margin, xy[:, 1].min() - margin)  # images count rows from the top
    ax.set_aspect("equal")
    ax.set_xticks([])
    ax.set_yticks([])
    return spots


def finish(axes: "Sequence[Axes]", *, show: bool | None, save: str | Path | None) -> None:
    """Save and show the figure the axes belong to; `show=None` shows it in interactive sessions, unless it is saved."""
    from matplotlib import pyplot as plt

    figure = axes[0].get_figure()
    if save is not None:
        figure.savefig(save, dpi=150, bbox_inches="tight")  # type: ignore[union-attr]
    if show or (show is None and save is None and plt.isinteractive()):
        plt.show()
