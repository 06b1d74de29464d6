"""Pictures of autoencoders: how training went, and pairs of genes before and after denoising."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from anndata import AnnData

from unmix._adata import keys
from unmix._adata.arguments import checked
from unmix._adata.models import TOOLS
from unmix._adata.read import Matrix, check_expression, check_range, read_matrix, summarise_rows
from unmix._adata.stored import belongs, positions, stored_entry, stored_names, stored_number, stored_parts, tool_of
from unmix.core.blocks import map_rows
from unmix.pl._canvas import COLOURS, LABEL, TITLE, finish, legend, palette, panels

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@checked
def training(
    adata: AnnData,
    *,
    key: str = "ae",
    ax: "Sequence[Axes] | None" = None,
    show: bool | None = None,
    save: str | Path | None = None,
) -> "list[Axes]":
    """Draw the loss on training and held-out cells by epoch, the epoch that was kept, and the learning rate.

    Parameters
    ----------
    adata
        Object that :func:`unmix.tl.autoencoder` or :func:`unmix.tl.zinb_ae` has written to.
    key
        The tool's `key_added`.
    ax
        Two axes to draw in.
    show
        Whether to show the figure; `None` shows it in interactive sessions, unless it is saved.
    save
        File to save the figure to.

    Returns
    -------
    The axes of the losses (nats per cell) and of the learning rate.

    Raises
    ------
    KeyError
        If there is no such result.

    Examples
    --------
    >>> import unmix as um
    >>> _, cells = um.datasets.pbmc_spots()
    >>> um.tl.autoencoder(cells, 5, likelihood="nb", max_epochs=2)
    >>> len(um.pl.training(cells, show=False))
    2
    """
    from matplotlib.ticker import MaxNLocator

    entry = stored_entry(adata, key, *TOOLS)
    stored = stored_parts(entry, "history")
    history = {name: np.asarray(stored[name], dtype=float) for name in ("train", "validation", "learning_rate")}
    axes = panels(ax, 2, aspect=0.9)
    epochs = np.arange(1, len(history["train"]) + 1)
    for name, label, colour in (("train", "training cells", COLOURS[0]), ("validation", "held-out cells", COLOURS[1])):
        axes[0].plot(epochs, history[name], marker="o", markersize=3, color=colour, label=label)
    best = stored_number(entry, "best_epoch")
    axes[0].axvline(best, color="0.6", linestyle=":", zorder=0, label=f"kept: epoch {best:g}")
    axes[0].set_ylabel("loss per cell, nats", fontsize=LABEL)
    axes[0].legend(fontsize=LABEL, frameon=False)
    axes[0].set_title(f"{key}: loss", fontsize=TITLE)
    axes[1].step(epochs, history["learning_rate"], where="mid", color="0.3")
    axes[1].set_yscale("log")
    axes[1].set_ylabel("learning rate", fontsize=LABEL)
    axes[1].set_title(f"{key}: learning rate", fontsize=TITLE)
    for panel in axes:
        panel.set_xlabel("epoch", fontsize=LABEL)
        panel.xaxis.set_major_locator(MaxNLocator(integer=True))
    finish(axes, ours=ax is None, show=show, save=save)
    return axes


@checked
def denoised(
    adata: AnnData,
    genes: Sequence[str],
    *,
    key: str = "ae",
    layer: str | None = None,
    color: str | None = None,
    ax: "Sequence[Axes] | None" = None,
    show: bool | None = None,
    save: str | Path | None = None,
) -> "list[Axes]":
    """Draw two genes against each other before and after denoising, as log(1 + x) at the median total.

    Of an autoencoder of real values (`likelihood="gaussian"`), the values are drawn as they are.

    Parameters
    ----------
    adata
        Object with a layer that :func:`unmix.tl.denoise` or a fit with `denoise` has written.
    genes
        Two names.
    key
        The tool's `key_added`.
    layer
        Layer with the counts; `None` for `X`.
    color
        Column of `obs` with groups to colour by, in the colours of `uns[f"{color}_colors"]` where there are such.
    ax
        Two axes to draw in.
    show
        Whether to show the figure; `None` shows it in interactive sessions, unless it is saved.
    save
        File to save the figure to.

    Returns
    -------
    The axes before and after.

    Raises
    ------
    KeyError
        If there is no denoised layer, or no such gene or column.
    ValueError
        If not two genes are given, they were not denoised, or genes of the fit, by whose totals counts are scaled, were taken
        out of the object.

    Examples
    --------
    >>> import unmix as um
    >>> _, cells = um.datasets.pbmc_spots()
    >>> um.tl.autoencoder(cells, 5, likelihood="nb", max_epochs=2, denoise=["CD3D", "MS4A1"])
    >>> len(um.pl.denoised(cells, ["CD3D", "MS4A1"], show=False))
    2
    """
    columns = _two_columns(adata, genes, key)
    matrix = read_matrix(adata, layer)
    counted = _of_counts(adata, key)
    if counted:
        _check_whole(adata, key)
    totals = _totals(matrix, counted)
    scale = np.median(totals[totals > 0]) / np.where(totals > 0, totals, np.nan) if counted else np.ones(len(totals))
    axes = panels(ax, 2, size=3.2 if color is None else 4.2, aspect=1.0 if color is None else 0.8)
    counts, means = (map_rows(_some, X, constants=(columns,)) for X in (matrix.X, adata.layers[key + keys.DENOISED]))
    scaled = counts.T * scale, means.T * (scale if _at_own_total(adata, key) else 1.0)
    unit = "log(1 + counts at the median total)" if counted else "value"
    for panel, title, values in zip(axes, ("counts" if counted else "values", "denoised"), scaled, strict=True):
        x, y = np.log1p(values) if counted else values
        _scatter(panel, adata, x, y, color)
        panel.set_title(title, fontsize=TITLE)
        panel.set_xlabel(f"{genes[0]}\n{unit}", fontsize=LABEL)
        panel.set_ylabel(f"{genes[1]}\n{unit}", fontsize=LABEL)
    if color is not None:
        legend(axes[1], axes[1].get_legend_handles_labels()[0], title=color, markerscale=3)
    finish(axes, ours=ax is None, show=show, save=save)
    return axes


def _of_counts(adata: AnnData, key: str) -> bool:
    """Tell whether the autoencoder, where it is stored here, was of counts."""
    stored = tool_of(adata.uns.get(key)) in TOOLS
    return not stored or stored_parts(stored_entry(adata, key, *TOOLS), "design")["likelihood"] != "gaussian"


def _check_whole(adata: AnnData, key: str) -> None:
    """Refuse an object that has fewer genes than its fit: the totals of its cells are no longer what they were."""
    if tool_of(adata.uns.get(key)) in TOOLS:
        n = len(stored_names(stored_entry(adata, key, *TOOLS), "genes"))
        if adata.n_vars < n:
            msg = f"{n - adata.n_vars} of the {n} genes of the fit were taken out since, so that the totals of the cells are not "
            msg += "known; draw the object as it was before."
            raise ValueError(msg)


def _at_own_total(adata: AnnData, key: str) -> bool:
    """Tell whether the means are those at every cell's own total, as a fit writes them and `tl.denoise` unless told otherwise."""
    name = key + keys.DENOISED
    entry = adata.uns.get(name)
    if tool_of(entry) != "denoise" or not belongs(adata, name, "layers", name):  # the latter of means written to a file
        return True
    return bool(entry["params"].get("library", True))


def _totals(matrix: Matrix, counted: bool) -> np.ndarray:
    """Return the totals of the rows, checked.

    Raises
    ------
    ValueError
        If they hold no counts where there should be some.
    """
    summary = summarise_rows(matrix)
    if not counted:
        check_range(matrix, summary)
        return summary.totals
    check_expression(matrix, summary, expect_counts=False)
    if not summary.totals.any():
        msg = f"{matrix.where} holds no counts to draw."
        raise ValueError(msg)
    return summary.totals


def _two_columns(adata: AnnData, genes: Sequence[str], key: str) -> np.ndarray:
    if isinstance(genes, str) or len(genes) != 2:
        msg = f"`genes` must be two names, got {genes!r}."
        raise ValueError(msg)
    name = key + keys.DENOISED
    if name not in adata.layers:
        msg = f"no layer {name!r}; call `unmix.tl.denoise(adata, key={key!r})` first."
        raise KeyError(msg)
    columns = positions(adata, genes)
    sums = np.nansum(map_rows(_some, adata.layers[name], constants=(columns,)), axis=0)
    missing = [g for g, total in zip(genes, sums, strict=True) if not total]
    if missing:
        msg = f"{missing} were not denoised; give them to `unmix.tl.denoise`."
        raise ValueError(msg)
    return columns


def _some(block: Any, columns: np.ndarray) -> np.ndarray:
    """Return some columns of a block, dense."""
    part = block[:, columns]
    return np.asarray(part.toarray() if hasattr(part, "toarray") else part, dtype=float)


def _scatter(ax: "Axes", adata: AnnData, x: np.ndarray, y: np.ndarray, color: str | None) -> None:
    """Draw the points, those of rarer groups last."""
    if color is None:
        ax.scatter(x, y, s=8, color=COLOURS[0], alpha=0.6, linewidths=0, rasterized=True)
        return
    if color not in adata.obs:
        msg = f"`color` {color!r} is not among the columns of `obs`: {list(map(str, adata.obs.columns))}."
        raise KeyError(msg)
    groups = adata.obs[color].astype("category")
    colours = palette(adata, color, list(groups.cat.categories))
    for name, colour in zip(groups.cat.categories, colours, strict=True):
        of = (groups == name).to_numpy()
        ax.scatter(x[of], y[of], s=8, color=colour, alpha=0.7, linewidths=0, label=str(name), rasterized=True)
