"""Sections: which spots lie on which slide, in objects that hold several."""

import warnings
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData

from unmix._adata.read import in_order, read_labels

MOST = 200
"""Values of a column beyond which it does not tell sections apart."""


class SectionsWarning(UserWarning):
    """Spots of several sections lie on top of each other, or sections are drawn without the images that are there."""


def libraries(adata: AnnData) -> dict[str, Any]:
    """Return images and scale factors by section: `uns["spatial"]`, where scanpy and squidpy keep them."""
    found = adata.uns.get("spatial")
    return {str(name): library for name, library in found.items()} if isinstance(found, dict) else {}


def spots_by_section(adata: AnnData, library_key: str, library_id: str | None = None) -> dict[str, np.ndarray]:
    """Return the positions of the spots of every section that occurs, or of one, in the order of the categories.

    Raises
    ------
    KeyError
        If there is no such column, or no such section.
    ValueError
        If a spot has no section, or almost every spot has its own.
    """
    labels = read_labels(adata, library_key, name="library_key")
    if missing := int((labels.codes < 0).sum()):
        msg = f"obs[{library_key!r}] must name the section of every spot; {missing} of {adata.n_obs} have none."
        raise ValueError(msg)
    if len(labels.categories) > MOST:
        msg = f"obs[{library_key!r}] has {len(labels.categories)} different values; a column of sections has at most {MOST}."
        raise ValueError(msg)
    names = list(map(str, in_order(labels, adata.obs[library_key]).categories))
    if library_id is not None and library_id not in names:
        msg = f"`library_id` {library_id!r} is not among the sections of obs[{library_key!r}]; there are {names}."
        raise KeyError(msg)
    return {name: np.flatnonzero(labels == name) for name in (names if library_id is None else [library_id])}


def warn_of_overlay(adata: AnnData) -> None:
    """Say so where spots of several sections are about to be drawn on top of each other.

    Warns
    -----
    SectionsWarning
        If `uns["spatial"]` holds several sections, unless a column of `obs` shows that all spots are of one.
    """
    known = set(libraries(adata))
    if len(known) < 2:
        return
    column, which = "...", "a column of `obs` that names the section of every spot"
    for name, values in adata.obs.items():
        found = _values(values)
        if found and found <= known:
            if len(found) == 1:
                return
            column, which = repr(str(name)), "the column of `obs` that names it"
            break
    msg = (
        f"uns['spatial'] holds {len(known)} sections, whose spots lie on top of each other in one map; "
        f"`library_key={column}` draws every section by itself ({which})."
    )
    warnings.warn(msg, SectionsWarning, stacklevel=5)


def warn_of_names(adata: AnnData, library_key: str, sections: list[str]) -> None:
    """Say so where sections are drawn without an image, and there are images that no section of the column has.

    Warns
    -----
    SectionsWarning
        If there are both.
    """
    known = libraries(adata)
    bare = [name for name in sections if name not in known]
    spare = sorted(set(known) - set(adata.obs[library_key].dropna().astype(str)))
    if bare and spare:
        msg = (
            f"the sections {_some(bare)} are drawn without an image: uns['spatial'] has none of these names, only {_some(spare)} "
            f"beside them; name them alike in obs[{library_key!r}] and uns['spatial']."
        )
        warnings.warn(msg, SectionsWarning, stacklevel=5)


def _some(names: list[str]) -> str:
    """Return the first names as a list, and how many there are."""
    return f"{names[:3]}" + (f" ({len(names)} in all)" if len(names) > 3 else "")


def _values(column: pd.Series) -> set[str]:
    """Return the different values of a column as text; none of measurements."""
    return set() if column.dtype.kind in "fcmM" else set(map(str, column.dropna().unique()))
