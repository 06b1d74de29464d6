"""Picture of a joint factorisation: what leads every component in every modality, or shared and in every batch."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from unmix.get._joint import joint_loadings as get_joint_loadings
from unmix.pl._canvas import COLOURS, finish

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes


def joint_loadings(
    data: Any,
    *,
    key: str = "joint_nmf",
    components: "Sequence[str | int] | None" = None,
    n_top: int = 8,
    show: bool | None = None,
    save: str | Path | None = None,
) -> "list[Axes]":
    """Draw the leading genes or features of every component (a row of panels) in every part (a column).

    Parameters
    ----------
    data
        What :func:`unmix.tl.joint_nmf` has written to: an AnnData with batches, a MuData, or a dict of AnnData.
    key
        Its `key_added`.
    components
        Names of the components to draw, counted from 1, or "all" for what a batch's own part adds to its mean cell; by
        default all of them.
    n_top
        Number of genes per panel.
    show
        Whether to show the figure; `None` shows it in interactive sessions, unless it is saved.
    save
        File to save the figure to.

    Returns
    -------
    The axes, component by component.

    Raises
    ------
    KeyError
        If there is no such result or component.

    Examples
    --------
    >>> import unmix as um
    >>> _, cells = um.datasets.pbmc_spots()
    >>> cells.obs["half"] = ["a", "b"] * (cells.n_obs // 2) + ["a"] * (cells.n_obs % 2)
    >>> um.tl.joint_nmf(cells, 3, batch_key="half", tol=1e-3)
    >>> len(um.pl.joint_loadings(cells, components=[1, 2], show=False))
    6
    """
    table = get_joint_loadings(data, key=key, n_top=n_top)
    wanted = _components(table["component"].unique().tolist(), components, key)
    panels = [
        (part, name) for name in wanted for part in table["part"].unique() if _rows(table, part, name)["gene"].size
    ]
    axes = _panels(panels, n_top)
    colours = dict(zip(table["part"].unique(), COLOURS, strict=False))
    for ax, (part, name) in zip(axes, panels, strict=True):
        rows = _rows(table, part, name)
        ax.barh(np.arange(len(rows)), rows["loading"], color=colours.get(part, COLOURS[0]))
        ax.set_yticks(np.arange(len(rows)), [_short(gene) for gene in rows["gene"]], fontsize=7)
        ax.tick_params(axis="x", labelsize=6)
        ax.locator_params(axis="x", nbins=4)
        ax.invert_yaxis()
        ax.set_title(f"{part}, {name if name == 'all' else f'component {name}'}", fontsize=8)
    finish(axes, show=show, save=save)
    return axes


def _components(have: list[str], wanted: "Sequence[str | int] | None", key: str) -> list[str]:
    """Return the names of the components to draw."""
    names = have if wanted is None else [str(name) for name in wanted]
    if missing := [name for name in names if name not in have]:
        msg = f"`components` names {missing}; {key!r} has {have}."
        raise KeyError(msg)
    return names


def _rows(table: Any, part: str, name: str) -> Any:
    return table[(table["part"] == part) & (table["component"] == name)]


def _panels(panels: list[tuple[str, str]], n_top: int) -> "list[Axes]":
    """Make one row of axes per component, one column per part."""
    from matplotlib import pyplot as plt

    parts = list(dict.fromkeys(part for part, _ in panels))
    names = list(dict.fromkeys(name for _, name in panels))
    size = (2.6 * len(parts), (0.5 + 0.16 * n_top) * len(names))
    _, grid = plt.subplots(len(names), len(parts), figsize=size, squeeze=False, layout="constrained")
    used = {(parts.index(part), names.index(name)) for part, name in panels}
    for i, row in enumerate(grid):
        for j, ax in enumerate(row):
            if (j, i) not in used:
                ax.remove()
    return [grid[names.index(name), parts.index(part)] for part, name in panels]


def _short(name: str, length: int = 18) -> str:
    return name if len(name) <= length else f"{name[: length - 1]}…"
