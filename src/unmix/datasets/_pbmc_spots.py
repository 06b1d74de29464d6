"""The embedded default data set: spots pooled from 700 real blood cells that scanpy carries."""

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from unmix._adata.arguments import checked
from unmix.datasets._pool import pool_cells, split_cells

if TYPE_CHECKING:
    from anndata import AnnData


@checked
def pbmc_spots(
    rng: int | np.random.Generator | None = 0,
    *,
    shape: tuple[int, int] = (15, 20),
    cells_per_spot: float = 8.0,
    types_per_spot: int | None = None,
    smoothness: float = 3.0,
    platform_sd: float = 0.0,
    depth: float | None = None,
) -> tuple["AnnData", "AnnData"]:
    """Spots of a small tissue with known composition, and a reference of other cells, from 700 real blood cells.

    The cells are those of `scanpy.datasets.pbmc68k_reduced` (10x Genomics, Zheng 2017; 10 types, 765 genes), which is
    part of scanpy: nothing is downloaded. Their counts are recovered exactly from the normalised values. Half of the
    cells of every type are the reference; the other half is pooled into spots, so that no cell is in both.

    Parameters
    ----------
    rng
        Source of randomness.
    shape
        Rows and columns of the tissue; each place is a spot.
    cells_per_spot
        Mean number of cells of a spot, at least 1.
    types_per_spot
        Largest number of types in a spot; `None` for all that the cells of a spot happen to have.
    smoothness
        Distance, in spots, over which the composition changes; 0 for independent spots.
    platform_sd
        Standard deviation of the log of a factor per gene between spots and reference.
    depth
        Mean counts of a spot; `None` keeps all, about 5,000.

    Returns
    -------
    The spots, with the truth in `obsm` as :func:`pool_cells` writes it, and the reference, with `obs["cell_type"]`.
    Both have counts in `X` (CSR).

    Raises
    ------
    ValueError
        If an option is out of range.

    References
    ----------
    Zheng, G. X. Y. et al. (2017) Massively parallel digital transcriptional profiling of single cells. Nat. Commun. 8, 14049.

    Examples
    --------
    >>> import unmix as um
    >>> spots, reference = um.datasets.pbmc_spots()
    >>> spots.shape, reference.obs["cell_type"].nunique()
    ((300, 765), 10)
    >>> spots.obsm["truth_proportions"].iloc[0, :3].round(2).tolist()
    [0.0, 0.83, 0.0]
    """
    rng = np.random.default_rng(rng)
    reference, pool = split_cells(_pbmc_cells(), "cell_type", rng=rng)
    spots = pool_cells(
        pool,
        "cell_type",
        shape=shape,
        cells_per_spot=cells_per_spot,
        types_per_spot=types_per_spot,
        smoothness=smoothness,
        platform_sd=platform_sd,
        depth=depth,
        rng=rng,
    )
    return spots, reference


def _pbmc_cells() -> "AnnData":
    """Return the 700 cells with whole counts and `obs["cell_type"]`."""
    import scanpy as sc
    from anndata import AnnData

    from unmix.core.lattice import Scale, counts_of, units

    cells = sc.datasets.pbmc68k_reduced()
    logged, scale = cells.raw.X, Scale(log=1.0, step=1e-3)
    counts = counts_of(logged, scale, units(logged, scale))
    obs = cells.obs[["bulk_labels"]].rename(columns={"bulk_labels": "cell_type"})
    obs["cell_type"] = pd.Categorical(obs["cell_type"].astype(str))  # in the order of their names
    obs.index.name = None
    return AnnData(counts, obs=obs, var=cells.raw.var[[]].copy())
