"""What `starfysh_archetypes` refuses before any work starts."""

from typing import Any

import numpy as np
from anndata import AnnData


def check_options(
    adata: AnnData,
    n_archetypes: Any,
    resolution: Any,
    community: str,
    share: float,
    smooth: float,
    smoothing: Any,
    assignment: str,
    proposer: str,
    n_pcs: Any,
    use_rep: str | None,
    delta: float,
) -> None:
    """Refuse options before any work starts."""
    for name, value, choices in (
        ("community", community, ("nearest", "heavy")),
        ("assignment", assignment, ("stable", "optimal")),
        ("proposer", proposer, ("types", "archetypes")),
    ):
        if value not in choices:
            msg = f"`{name}` must be one of {list(choices)}, got {value!r}."
            raise ValueError(msg)
    for name, value, low in (("n_archetypes", n_archetypes, 1), ("n_pcs", n_pcs, 1)):
        if value != "auto" and (not isinstance(value, int | np.integer) or isinstance(value, bool) or value < low):
            msg = f"`{name}` must be 'auto' or an integer >= {low}, got {value!r}."
            raise ValueError(msg)
    if n_archetypes != "auto" and 0 < adata.n_obs < n_archetypes:
        msg = f"`n_archetypes` is {n_archetypes}, but there are only {adata.n_obs} observations."
        raise ValueError(msg)
    for name, number in (("share", share), ("smooth", smooth)):
        if not 0 <= number <= 1 or (name == "share" and number == 0):
            msg = f"`{name}` must lie between 0 and 1, got {number!r}."
            raise ValueError(msg)
    if isinstance(resolution, str) and resolution != "auto":
        msg = f"`resolution` must be 'auto', a height in [0, 1] or None, got {resolution!r}."
        raise ValueError(msg)
    if use_rep not in (None, "X") and use_rep not in adata.obsm:
        msg = f"`use_rep` {use_rep!r} is not in obsm; there are {sorted(adata.obsm)}, and 'X' for the genes themselves."
        raise KeyError(msg)
    if smoothing is not None and use_rep == "X":
        msg = "`smoothing` needs components, and `use_rep='X'` fits genes; leave one of them out."
        raise ValueError(msg)
    asked = [name for name, given in (("smooth", smooth > 0), ("smoothing", smoothing is not None)) if given]
    if asked and "spatial_connectivities" not in adata.obsp:
        msg = f"`{asked[0]}` needs a spatial graph; call `squidpy.gr.spatial_neighbors(adata)` first."
        raise KeyError(msg)
    if delta < 0 or (delta > 0 and use_rep == "X"):
        msg = f"`delta` must be >= 0, and 0 with `use_rep='X'`, got {delta!r}."
        raise ValueError(msg)
