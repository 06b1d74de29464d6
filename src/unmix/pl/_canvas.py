"""What every picture shares: panels, names that fit, saving and showing."""

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from unmix._adata.colours import COLOURS, MISSING, palette
from unmix._adata.files import replacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["COLOURS", "MISSING", "palette"]

TITLE, LABEL, TICK = 10, 8, 7
"""Sizes of letters, in points."""


def panels(
    ax: "Axes | Sequence[Axes] | None", n: int, *, columns: int = 4, size: float = 3.2, aspect: float = 1.0
) -> "list[Axes]":
    """Return the axes that the caller gave, or those of a new figure of `n` panels, `columns` to a row.

    `aspect` is height over width of a panel, `size` its width in inches.

    Raises
    ------
    ValueError
        If the caller gave another number of axes, or there is nothing to draw.
    """
    if n == 0:
        msg = "there is nothing to draw; the result has no genes or components in this object."
        raise ValueError(msg)
    if ax is not None:
        given = list(np.ravel(np.asarray(ax, dtype=object)))
        if len(given) != n:
            msg = f"`ax` must hold one Axes per panel; there are {n} panels and {len(given)} Axes."
            raise ValueError(msg)
        return given
    from matplotlib import pyplot as plt

    columns = max(1, min(columns, n))
    rows = -(-n // columns)
    height = float(np.clip(size * aspect, 1.5, 8.0))
    figure, axes = plt.subplots(
        rows, columns, figsize=(columns * size * 1.15, rows * (height + 0.35)), squeeze=False, layout="constrained"
    )
    figure.get_layout_engine().set(w_pad=0.12)  # type: ignore[union-attr, call-arg]
    flat = list(axes.ravel())
    for empty in flat[n:]:
        empty.remove()
    return flat[:n]


def wrapped(name: str, width: int = 28) -> str:
    """Break a long name into lines."""
    return textwrap.fill(str(name), width, break_long_words=True)


def short(name: str, length: int = 24) -> str:
    """Cut a long name."""
    return name if len(name) <= length else f"{name[: length - 1]}…"


def named_axis(axis: Any, names: Sequence[str], **style: Any) -> None:
    """Put names at 0, 1, 2, ... of an axis, smaller where there are many."""
    size = float(np.clip(550 / max(len(names), 1), 4, LABEL))
    axis.set_ticks(np.arange(len(names)), [short(str(name)) for name in names], **{"fontsize": size, **style})


def legend(ax: "Axes", handles: Sequence[Any], *, title: str | None = None, **style: Any) -> None:
    """Put a legend to the right of the axes, in several columns where there are many entries."""
    for handle in handles:
        handle.set_label(wrapped(handle.get_label()))
    columns = -(-len(handles) // 24)
    ax.legend(
        handles=list(handles), title=title, loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False,
        fontsize=LABEL, title_fontsize=LABEL, ncols=max(columns, 1), **style,
    )  # fmt: skip


def colour_bar(ax: "Axes", drawn: Any, label: str, shrink: float = 0.8) -> None:
    """Put a colour bar with its label beside the axes."""
    bar = ax.get_figure().colorbar(drawn, ax=ax, shrink=shrink)  # type: ignore[union-attr]
    bar.set_label(label, fontsize=LABEL)
    bar.ax.tick_params(labelsize=TICK)


def heatmap(ax: "Axes", values: Any, rows: Sequence[str], columns: Sequence[str], *, label: str, **style: Any) -> None:
    """Draw a table with the names of its rows and columns and a colour bar.

    Raises
    ------
    ValueError
        If there are no rows or no columns, or the values are of another shape.
    """
    if not rows or not columns:
        msg = "there is nothing to draw; the result has no genes or components in this object."
        raise ValueError(msg)
    if np.shape(values) != (len(rows), len(columns)):
        msg = f"a table of {len(rows)} x {len(columns)} names has values of shape {np.shape(values)}; "
        msg += "the result was changed since, so run the tool again."
        raise ValueError(msg)
    image = ax.imshow(values, aspect="auto", interpolation="nearest", **{"cmap": "viridis", **style})
    named_axis(ax.yaxis, rows)
    named_axis(ax.xaxis, columns, rotation=90 if max(map(len, columns)) > 2 else 0)
    colour_bar(ax, image, label)


def finish(axes: "Sequence[Axes]", *, ours: bool, show: bool | None, save: str | Path | None) -> None:
    """Save and show the figure the axes belong to; `show=None` shows it in interactive sessions, unless it is saved.

    A file appears only when the picture is complete; its ending names the format, PNG where there is none. A figure of
    ours that was to be saved and not shown is closed in pyplot, so that pictures drawn in a loop do not pile up; its axes
    stay usable.
    """
    from matplotlib import pyplot as plt
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    figure = axes[0].figure.canvas.figure
    shown = show or (show is None and save is None and plt.isinteractive())
    try:
        if save is not None:
            _save(figure, Path(save) if Path(save).suffix else Path(f"{save}.png"))
    finally:
        if ours and save is not None and not shown:
            plt.close(figure)
            FigureCanvasAgg(figure)  # pyplot takes its canvas away
    if shown:
        plt.show()


def _save(figure: "Figure", path: Path) -> None:
    if path.suffix[1:].lower() not in figure.canvas.get_supported_filetypes():
        kinds = sorted(figure.canvas.get_supported_filetypes())
        msg = f"`save` must end in one of {kinds}, got {path.name!r}."
        raise ValueError(msg)
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=150, bbox_inches="tight", format=path.suffix[1:])
