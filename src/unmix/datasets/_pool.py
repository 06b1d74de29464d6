"""Spots with known composition, pooled from real, labelled cells."""

from typing import TYPE_CHECKING

import numpy as np
from scipy import sparse

from unmix._adata.arguments import checked
from unmix._adata.keys import column_names
from unmix._adata.read import LARGEST, read_matrix
from unmix.core.blocks import take_rows
from unmix.datasets._tissue import cells_in_spots, compositions, grid, smooth_fields

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData


@checked
def split_cells(
    cells: "AnnData", groupby: str, *, fraction: float = 0.5, rng: int | np.random.Generator | None = 0
) -> tuple["AnnData", "AnnData"]:
    """Split labelled cells into two disjoint sets with the same share of every type.

    Parameters
    ----------
    cells
        Labelled cells.
    groupby
        Column of `cells.obs` with the types; cells without a label are left out.
    fraction
        Share of the cells of each type in the first set, rounded up, so that it has every type.
    rng
        Source of randomness.

    Returns
    -------
    The first and the second set, both copies, in the order of the cells.

    Raises
    ------
    ValueError
        If `groupby` is not a column, or `fraction` is not between 0 and 1.

    Examples
    --------
    >>> import unmix as um
    >>> _, cells = um.datasets.pbmc_spots()
    >>> reference, pool = um.datasets.split_cells(cells, "cell_type", fraction=0.7)
    >>> set(reference.obs_names) & set(pool.obs_names)
    set()
    """
    if not 0 < fraction < 1:
        msg = f"`fraction` must be between 0 and 1, got {fraction!r}."
        raise ValueError(msg)
    rng = np.random.default_rng(rng)
    members = _members(cells, groupby)
    first = [rng.permutation(rows)[: int(np.ceil(fraction * len(rows)))] for rows in members.values()]
    chosen = np.sort(np.concatenate(first))
    rest = np.setdiff1d(np.concatenate(list(members.values())), chosen)
    return cells[chosen].copy(), cells[rest].copy()


@checked
def pool_cells(
    cells: "AnnData",
    groupby: str,
    *,
    shape: tuple[int, int] = (15, 20),
    cells_per_spot: float = 8.0,
    types_per_spot: int | None = None,
    smoothness: float = 3.0,
    platform_sd: float = 0.0,
    depth: float | None = None,
    layer: str | None = None,
    rng: int | np.random.Generator | None = 0,
) -> "AnnData":
    """Pool real, labelled cells into the spots of a small tissue whose composition is known.

    Use other cells as the reference, see :func:`split_cells`: a spot's own cells must not be in it.

    Parameters
    ----------
    cells
        Cells with counts.
    groupby
        Column of `cells.obs` with the types; cells without a label are left out.
    shape
        Rows and columns of the tissue; each place is a spot.
    cells_per_spot
        Mean number of cells of a spot, at least 1.
    types_per_spot
        Largest number of types in a spot; `None` for all that the cells of a spot happen to have.
    smoothness
        Distance, in spots, over which the composition changes; 0 for spots that are independent of their neighbours.
    platform_sd
        Standard deviation of the log of a factor per gene, as between two platforms; 0 for none. A factor that raises
        a gene above what its cells hold is applied by Poisson draws, one that lowers it by thinning.
    depth
        Mean counts of a spot after thinning; `None` keeps all. Spots with less than their share keep what they have.
    layer
        Layer of `cells` with the counts; `None` for `X`.
    rng
        Source of randomness.

    Returns
    -------
    Spots x genes with counts in `X` (CSR), and

    - `obs["array_row"]`, `obs["array_col"]`, `obsm["spatial"]`: place on the grid,
    - `obs["n_cells"]`: number of cells,
    - `obsm["truth_counts"]`, `obsm["truth_proportions"]`: cells of each type and their share, spots x types,
    - `obsm["truth_umi_fractions"]`: each type's share of the counts before platform and depth,
    - `uns["truth_counts"]` etc., `names`: the types' names; in the columns a `/` is written as `_`,
    - `var["platform_factor"]`: the factor per gene.

    Raises
    ------
    ValueError
        If `groupby` is not a column, an option is out of range, or the counts are negative or not finite.

    Examples
    --------
    >>> import unmix as um
    >>> _, cells = um.datasets.pbmc_spots()
    >>> spots = um.datasets.pool_cells(cells, "cell_type", shape=(4, 5), depth=1000)
    >>> spots.shape
    (20, 765)
    """
    _check_pooling(shape, cells_per_spot, types_per_spot, smoothness, platform_sd, depth)
    rng = np.random.default_rng(rng)
    members = _members(cells, groupby)
    counts = _counts(cells, layer)
    places = grid(*shape)
    fields = smooth_fields(places, len(members), smoothness, rng)
    abundance = np.array([len(rows) for rows in members.values()], dtype=float)
    proportions = compositions(fields, abundance, types_per_spot or len(members))
    truth = cells_in_spots(proportions, cells_per_spot, rng)
    drawn = [_draw_cells(truth[:, k], rows, counts.shape[0], rng) for k, rows in enumerate(members.values())]
    cell_umi = np.asarray(counts.sum(axis=1)).ravel()
    umi = np.column_stack([which @ cell_umi for which in drawn])
    factor = rng.lognormal(-(platform_sd**2) / 2, platform_sd, counts.shape[1]) if platform_sd else None
    pooled = _resample(sum(drawn[1:], drawn[0]) @ counts, factor, depth, rng)
    spots = spots_on_grid(pooled, places, cells.var_names)
    spots.var["platform_factor"] = 1.0 if factor is None else factor
    add_truth(spots, list(members), truth, umi)
    return spots


def spots_on_grid(counts: sparse.csr_matrix, places: np.ndarray, genes: "pd.Index") -> "AnnData":
    """Return counts of spots as AnnData, with their places in `obs` and `obsm["spatial"]` (x, y)."""
    import pandas as pd
    from anndata import AnnData

    obs = pd.DataFrame(places, columns=["array_row", "array_col"], index=[f"spot_{i}" for i in range(len(places))])
    spots = AnnData(counts, obs=obs, var=pd.DataFrame(index=genes.copy()))
    spots.obsm["spatial"] = places[:, ::-1].astype(float)
    return spots


def add_truth(spots: "AnnData", types: list[str], cells: np.ndarray, umi: np.ndarray) -> None:
    """Store numbers of cells, proportions of cells and shares of the counts; `/` in a column becomes `_`."""
    import pandas as pd

    tables = {
        "truth_counts": cells,
        "truth_proportions": cells / cells.sum(axis=1, keepdims=True),
        "truth_umi_fractions": umi / np.maximum(umi.sum(axis=1, keepdims=True), np.finfo(float).tiny),
    }
    spots.obs["n_cells"] = cells.sum(axis=1)
    for key, table in tables.items():
        spots.obsm[key] = pd.DataFrame(table, index=spots.obs_names, columns=column_names(types))
        spots.uns[key] = {"names": list(types)}


def _members(cells: "AnnData", groupby: str) -> dict[str, np.ndarray]:
    """Return the rows of every type that has cells, types in alphabetical order."""
    if groupby not in cells.obs:
        msg = f"`groupby`={groupby!r} is not a column of `cells.obs`; there are {list(cells.obs.columns)}."
        raise ValueError(msg)
    labels = cells.obs[groupby].astype(object)
    if labels.isna().all():
        msg = f"no cell has a label in `cells.obs[{groupby!r}]`."
        raise ValueError(msg)
    return {str(name): np.flatnonzero(labels == name) for name in sorted(labels.dropna().unique(), key=str)}


def _counts(cells: "AnnData", layer: str | None) -> sparse.csr_matrix:
    """Return the counts as CSR in double precision, or raise."""
    counts = sparse.csr_matrix(take_rows(read_matrix(cells, layer).X, np.arange(cells.n_obs)), dtype=np.float64)
    if (
        not np.isfinite(counts.data).all()
        or (counts.data < 0).any()
        or (counts.data % 1).any()
        or counts.data.max(initial=0) > LARGEST
    ):
        msg = (
            f"{'`cells.X`' if layer is None else f'layer {layer!r}'} must hold counts: whole numbers, 0 or more. "
            "Give the layer with the raw counts by `layer=`."
        )
        raise ValueError(msg)
    return counts


def _draw_cells(n_cells: np.ndarray, rows: np.ndarray, n_rows: int, rng: np.random.Generator) -> sparse.csr_matrix:
    """Draw cells of one type with replacement; return how often each is in every spot, spots x cells."""
    spot = np.repeat(np.arange(len(n_cells)), n_cells)
    cell = rows[rng.integers(len(rows), size=len(spot))]
    return sparse.csr_matrix((np.ones(len(spot)), (spot, cell)), shape=(len(n_cells), n_rows))


def _resample(
    pooled: sparse.csr_matrix, factor: np.ndarray | None, depth: float | None, rng: np.random.Generator
) -> sparse.csr_matrix:
    """Apply a factor per gene and thin to a mean depth; whole numbers in float32."""
    pooled.sort_indices()
    rate = np.ones(pooled.nnz) if factor is None else factor[pooled.indices]
    if depth is not None:
        spot = np.repeat(np.arange(pooled.shape[0]), np.diff(pooled.indptr))
        total = np.bincount(spot, weights=pooled.data * rate, minlength=pooled.shape[0])
        rate = rate * (depth / max(total.mean(), depth))
    lowered = rng.binomial(pooled.data.astype(np.int64), np.minimum(rate, 1.0))
    raised = rng.poisson(pooled.data * rate)
    pooled.data = np.where(rate > 1, raised, lowered).astype(np.float32)
    pooled.eliminate_zeros()
    return pooled


def _check_pooling(
    shape: tuple[int, int],
    cells_per_spot: float,
    types_per_spot: int | None,
    smoothness: float,
    platform_sd: float,
    depth: float | None,
) -> None:
    """Raise with the name of the first option that is out of range."""
    rules = [
        ("shape", shape, len(shape) == 2 and min(shape) >= 1, "two whole numbers >= 1"),
        ("cells_per_spot", cells_per_spot, 1 <= cells_per_spot <= 1e9, "at least 1, at most 1e9"),
        ("types_per_spot", types_per_spot, types_per_spot is None or types_per_spot >= 1, "None or at least 1"),
        ("smoothness", smoothness, smoothness >= 0, "0 or more"),
        ("platform_sd", platform_sd, platform_sd >= 0, "0 or more"),
        ("depth", depth, depth is None or depth > 0, "None or more than 0"),
    ]
    check_options(rules)


def check_options(rules: list[tuple[str, object, bool, str]]) -> None:
    """Raise for the first (name, value, whether it is allowed, what is allowed) that is not."""
    for name, value, allowed, wanted in rules:
        if not allowed:
            msg = f"`{name}` must be {wanted}, got {value!r}."
            raise ValueError(msg)
