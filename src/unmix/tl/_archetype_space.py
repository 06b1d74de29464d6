"""Spatial neighbours of the rows that archetypes are fitted to."""

from dataclasses import replace
from typing import Any, Literal

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy import sparse

from unmix._adata.read import read_neighbours
from unmix.core.field import choose_field, smooth_field
from unmix.tl._archetype_input import Reduced

GRAPH = "spatial_connectivities"


def spatial_graph(adata: AnnData, rows: np.ndarray) -> sparse.csr_array:
    """Return the weights of neighbours among the rows that are left."""
    kept = np.flatnonzero(rows)
    return sparse.csr_array(read_neighbours(adata, GRAPH, f"obsp[{GRAPH!r}]")[kept][:, kept])


def smooth_rows(
    reduced: Reduced, graph: sparse.csr_array, smoothing: Literal["auto"] | float, rng: np.random.Generator
) -> tuple[Reduced, dict[str, Any]]:
    """Return the rows drawn towards their neighbours, and how strongly; shallow rows follow theirs altogether."""
    own, account = reduced.fitted.astype(float), {}
    if smoothing == "auto":
        choice = choose_field(reduced.X, graph, own, rng)
        smoothing = choice.strength
        account["smoothing_curve"] = pd.DataFrame(choice.curve, columns=["strength", "predicted"])
    account["smoothing"] = float(smoothing)
    X = smooth_field(reduced.X, graph, account["smoothing"], own)
    return replace(reduced, X=np.ascontiguousarray(X)), account
