"""Picture of a joint factorisation: what leads every component in every modality, or shared and in every batch."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from anndata import AnnData

from unmix._adata.arguments import checked
from unmix._adata.colours import COLOURS
from unmix.get._joint import joint_loadings as get_joint_loadings
from unmix.pl._canvas import LABEL, TICK, finish, named_axis, palette, panels, wrapped

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes


@checked
def joint_loadings(
    data: Any,
    *,
    key: str = "joint_nmf",
    components: "Sequence[str | int] | None" = None,
    n_top: int = 8,
    ax: "Axes | Sequence[Axes] | None" = None,
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
    ax
        Axes to draw in, one per panel.
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
    ValueError
        If `components` is empty.

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
    parts = list(table["part"].unique())
    pairs = [(part, name) for name in wanted for part in parts if len(_rows(table, part, name))]
    axes = _new_panels(pairs, n_top) if ax is None else panels(ax, len(pairs))
    colours = _colours(data, key, parts)
    for panel, (part, name) in zip(axes, pairs, strict=True):
        rows = _rows(table, part, name)
        panel.barh(np.arange(len(rows)), rows["loading"], color=colours[part])
        named_axis(panel.yaxis, list(rows["gene"]), fontsize=TICK)
        panel.tick_params(axis="x", labelsize=TICK)
        panel.locator_params(axis="x", nbins=4)
        panel.invert_yaxis()
        panel.set_xlabel("loading", fontsize=TICK)
        panel.set_title(wrapped(f"{part}, {name if name == 'all' else f'component {name}'}"), fontsize=LABEL)
    finish(axes, ours=ax is None, show=show, save=save)
    return axes


def _components(have: list[str], wanted: "Sequence[str | int] | None", key: str) -> list[str]:
    """Return the names of the components to draw."""
    names = have if wanted is None else [str(name) for name in wanted]
    if not names:
        msg = f"`components` is empty; {key!r} has {have}."
        raise ValueError(msg)
    if missing := [name for name in names if name not in have]:
        msg = f"`components` names {missing}; {key!r} has {have}."
        raise KeyError(msg)
    return names


def _rows(table: Any, part: str, name: str) -> Any:
    return table[(table["part"] == part) & (table["component"] == name)]


def _colours(data: Any, key: str, parts: list[str]) -> dict[str, str]:
    """Return a colour per part; batches keep the colours that scanpy stores for them."""
    own = dict(zip(parts, [COLOURS[i % len(COLOURS)] for i in range(len(parts))], strict=True))
    if not isinstance(data, AnnData):
        return own
    batch_key = data.uns[key]["params"].get("batch_key")
    if batch_key is None or f"{batch_key}_colors" not in data.uns:
        return own
    batches = [part for part in parts if part != "shared"]
    return own | {"shared": "#555555"} | dict(zip(batches, palette(data, batch_key, batches), strict=True))


def _new_panels(pairs: list[tuple[str, str]], n_top: int) -> "list[Axes]":
    """Make one row of axes per component, one column per part."""
    from matplotlib import pyplot as plt

    parts = list(dict.fromkeys(part for part, _ in pairs))
    names = list(dict.fromkeys(name for _, name in pairs))
    size = (2.6 * len(parts), (0.8 + 0.16 * n_top) * len(names))
    _, grid = plt.subplots(len(names), len(parts), figsize=size, squeeze=False, layout="constrained")
    axes = {(part, name): grid[i, j] for i, name in enumerate(names) for j, part in enumerate(parts)}
    for pair in axes.keys() - set(pairs):
        axes[pair].remove()
    return [axes[pair] for pair in pairs]
