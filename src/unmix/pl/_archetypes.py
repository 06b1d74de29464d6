"""Archetypes on the tissue, and what their number was chosen by."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from anndata import AnnData

from unmix._adata.arguments import checked
from unmix.get import archetypes as get_archetypes
from unmix.pl._canvas import COLOURS, LABEL, TITLE, finish, panels
from unmix.pl._tissue import draw_maps, tissues

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CRITERIA = {
    "stability": "agreement of subsets",
    "held_out": "variance explained, held out",
    "explained": "variance explained, fitted",
}


@checked
def archetypes(
    adata: AnnData,
    *,
    key: str = "archetypes",
    proportions: bool = False,
    basis: str = "spatial",
    library_key: str | None = None,
    library_id: str | None = None,
    vmax: float | Literal["shared"] | None = None,
    cmap: str = "viridis",
    ax: "Axes | Sequence[Axes] | None" = None,
    show: bool | None = None,
    save: str | Path | None = None,
) -> "list[Axes]":
    """Draw the weights of archetypes on the tissue, one map each.

    Parameters
    ----------
    adata
        Object that :func:`unmix.tl.starfysh_archetypes` has written to, or :func:`unmix.tl.transform` mapped onto archetypes.
    key
        The tool's `key_added`.
    proportions
        Whether to draw the shares of types and novel archetypes instead.
    basis
        Key of the coordinates in `obsm`.
    library_key
        Column of `obs` with the section of every spot, in objects that hold several (squidpy's name for it). Sections are
        then drawn one by one, each over its own image `uns["spatial"][section]` where there is one: a row of maps per
        section, a column per archetype or type, with the same scale in all sections.
    library_id
        Which image of `uns["spatial"]` to draw under the spots; `None` for the only one. With `library_key`, the one section
        to draw.
    vmax
        Weight at the top of the colour scale: a number, `"shared"` for the largest of all maps, `None` for the largest of
        each archetype or type.
    cmap
        Colour map.
    ax
        Axes to draw in, one per map, section after section.
    show
        Whether to show the figure; `None` shows it in interactive sessions, unless it is saved.
    save
        File to save the figure to.

    Returns
    -------
    The axes, one per map, section after section.

    Raises
    ------
    KeyError
        If there is no such result, or there are no coordinates or no such column or section.
    ValueError
        If a spot has no section, or `ax` does not hold one Axes per map.

    Warns
    -----
    SectionsWarning
        If `uns["spatial"]` holds several sections, whose spots lie on top of each other without `library_key`, or with
        it sections have no image and it has images of other names.

    Examples
    --------
    >>> import unmix as um
    >>> spots, _ = um.datasets.pbmc_spots()
    >>> um.tl.starfysh_archetypes(spots, 4, resolution=None)
    >>> len(um.pl.archetypes(spots, show=False))
    4
    """
    table = get_archetypes(adata, key=key, what="proportions" if proportions else "weights")
    label = "share" if proportions else "weight"
    places = tissues(adata, basis, library_key=library_key, library_id=library_id)
    axes = draw_maps(places, table, label, vmax=vmax, cmap=cmap, ax=ax)
    finish(axes, ours=ax is None, show=show, save=save)
    return axes


@checked
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
    panel = panels(ax, 1, size=4.5, aspect=0.8)[0]
    for (name, label), colour in zip(CRITERIA.items(), COLOURS, strict=False):
        panel.plot(table["n_archetypes"], table[name], marker="o", color=colour, label=label)
    chosen = int(table.loc[table["chosen"].astype(bool), "n_archetypes"].iloc[0])
    panel.axvline(chosen, color="#555555", ls="--", label=f"chosen: {chosen}")
    panel.set_xlabel("number of archetypes", fontsize=LABEL)
    panel.set_xticks(table["n_archetypes"])
    panel.set_ylabel("agreement (cosine), share of variance", fontsize=LABEL)
    panel.set_title("Number of archetypes", fontsize=TITLE)
    panel.legend(frameon=False, fontsize=LABEL)
    finish([panel], ours=ax is None, show=show, save=save)
    return [panel]
