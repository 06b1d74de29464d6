"""Colours of types, archetypes, programs and groups, shared with scanpy: `uns[key + "_colors"]`."""

import colorsys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import pandas as pd

if TYPE_CHECKING:
    from anndata import AnnData

COLOURS = (
    "#0072b2", "#e69f00", "#009e73", "#d55e00", "#cc79a7", "#56b4e9", "#f0e442", "#332288", "#999933", "#882255",
    "#44aa99", "#aa4499", "#661100", "#6699cc", "#888888", "#117733", "#ddcc77", "#cc6677", "#88ccee", "#000000",
)  # fmt: skip
"""Colours that the colour-blind can tell apart: Okabe and Ito (2008), then Tol's muted scheme (2021)."""
MISSING = "#dddddd"
"""Colour of what could not be fitted."""


def palette(adata: "AnnData", key: str, names: Sequence[str]) -> list[str]:
    """Return one colour per name: those of `uns[key + "_colors"]` where they fit, else the package's own.

    Stored colours belong to the categories of `obs[key]` where there is such a column (scanpy's rule), and to `names` in
    their order otherwise. They fit if every name has one; names that are no category, as anndata drops those of which a
    subset has no row, then have the package's own.

    Examples
    --------
    >>> import numpy as np
    >>> from anndata import AnnData
    >>> adata = AnnData(np.ones((2, 1)), uns={"types_colors": ["red", "blue"]})
    >>> palette(adata, "types", ["A", "B"]), palette(adata, "types", ["A", "B", "C"])[0]
    (['red', 'blue'], '#0072b2')
    """
    stored = adata.uns.get(f"{key}_colors")
    own = [own_colour(i) for i in range(len(names))]
    if stored is None or isinstance(stored, str):
        return own
    column = adata.obs.get(key)
    grouped = column is not None and isinstance(column.dtype, pd.CategoricalDtype)
    colours = dict(zip(map(str, column.cat.categories if grouped else names), map(str, stored), strict=False))
    wanted = [str(name) for name in names]
    fit = all(name in colours for name in wanted) or (grouped and set(colours) <= set(wanted))
    return [colours.get(name, mine) for name, mine in zip(wanted, own, strict=True)] if fit else own


def own_colour(i: int) -> str:
    """Return colour number `i` of the package: each round after the first is lighter, so that none comes back soon."""
    turn, place = divmod(i, len(COLOURS))
    if turn == 0:
        return COLOURS[place]
    r, g, b = (int(COLOURS[place][at : at + 2], 16) / 255 for at in (1, 3, 5))
    hue, light, saturation = colorsys.rgb_to_hls(r, g, b)
    light = light + (1 - light) * (0.45 if turn % 2 else 0.7)
    return "#" + "".join(f"{round(255 * c):02x}" for c in colorsys.hls_to_rgb(hue, light, saturation))
