"""Synthetic tissue of any size, with the difficulties of real tissue switched on one by one.

A cell of type k has RNA in proportion to its size b_k and its profile S_k (genes, sum 1). A spot with n_k cells of type
k and depth d has counts around

    mu_g = d * f_g * ((1 - a) * sum_k n_k b_k S_kg / sum_k n_k b_k + a * A_g) / (the same summed over g)

with platform factor f, ambient fraction a and ambient profile A; counts are Poisson, or negative binomial with variance
mu + dispersion * mu^2. Reference cells are drawn alike, without platform and ambient.
"""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np
from scipy import sparse

from unmix._adata.arguments import checked
from unmix._adata.write import storable
from unmix.core.blocks import row_slices
from unmix.datasets._pool import add_truth, check_options, spots_on_grid
from unmix.datasets._tissue import cells_in_spots, compositions, grid, smooth_fields

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

BLOCK_ROWS = 1024
MARKER_FOLD = 8.0
"""How many times higher a marker is in its type."""
TYPE_SD = 0.25
"""Standard deviation of the log of how much any gene differs between types."""


@checked
def simulate_spots(
    n_spots: int = 400,
    n_genes: int = 500,
    n_types: int = 8,
    *,
    cells_per_spot: float = 8.0,
    types_per_spot: int = 4,
    smoothness: float = 5.0,
    depth: float = 5000.0,
    depth_sd: float = 0.3,
    cells_per_type: int | Mapping[str, int] = 50,
    cell_depth: float = 2000.0,
    n_markers: int = 20,
    platform_sd: float = 0.0,
    missing_type: str | None = None,
    ambient: float = 0.0,
    n_donors: int = 1,
    donor_sd: float = 0.0,
    size_sd: float = 0.0,
    dispersion: float = 0.0,
    rng: int | np.random.Generator | None = 0,
) -> tuple["AnnData", "AnnData"]:
    """Simulate spots of a tissue with known composition, and a reference of labelled cells.

    Each difficulty of real tissue is one argument, and off unless asked for: `platform_sd`, few cells of a type
    (`cells_per_type`), `missing_type`, shallow spots (`depth`), `ambient`, `donor_sd`, `size_sd`, `dispersion`. Rows
    are drawn block by block: besides the result, memory is that of one block.

    Parameters
    ----------
    n_spots, n_genes, n_types
        Size. Types are named `type_0`, `type_1`, ...
    cells_per_spot
        Mean number of cells of a spot, at least 1.
    types_per_spot
        Largest number of types in a spot; the others are exactly 0.
    smoothness
        Distance, in spots, over which the composition changes; 0 for spots that are independent of their neighbours.
    depth
        Mean counts of a spot; in proportion to the RNA in the spot.
    depth_sd
        Standard deviation of the log of the depth that is due to the technique, of spots and of cells.
    cells_per_type
        Cells of each type in the reference: a number, or one for every type by name (50 for those not named).
    cell_depth
        Mean counts of a reference cell.
    n_markers
        Genes per type that are eightfold higher in it; fewer where there are not enough genes.
    platform_sd
        Standard deviation of the log of a factor per gene between spots and reference.
    missing_type
        Name of a type that is in the tissue and not in the reference.
    ambient
        Fraction of a spot's counts that come from the tissue's mean profile.
    n_donors
        Donors of the reference, `obs["donor"]`.
    donor_sd
        Standard deviation of the log of a factor per donor, type and gene; the tissue is of one more donor.
    size_sd
        Standard deviation of the log of the RNA content of a cell between types: fractions of cells and of RNA differ.
    dispersion
        Overdispersion of the counts of spots and cells: their variance is mu + dispersion * mu^2.
    rng
        Source of randomness.

    Returns
    -------
    The spots: counts in `X` (CSR), and

    - `obs["array_row"]`, `obs["array_col"]`, `obsm["spatial"]`, `obs["n_cells"]`: place and number of cells,
    - `obsm["truth_counts"]`, `obsm["truth_proportions"]`, `obsm["truth_umi_fractions"]`: cells of each type, their
      share, and each type's share of the cells' RNA, spots x types,
    - `var["platform_factor"]`, `var["ambient_profile"]`: per gene,
    - `varm["truth_profiles"]`: profiles of the types in this tissue before the platform factor, genes x types,
    - `uns["simulation"]`: `params` and `type_sizes`, the relative RNA content of a cell of each type.

    The reference: counts in `X`, `obs["cell_type"]`, `obs["donor"]`, `varm["truth_profiles"]` over all donors.

    Raises
    ------
    ValueError
        If an option is out of range, or a type is named that there is not.

    Examples
    --------
    >>> import unmix as um
    >>> spots, reference = um.datasets.simulate_spots(100, 200, 5, missing_type="type_3", cells_per_type={"type_0": 3})
    >>> spots.shape, reference.obs["cell_type"].value_counts().to_dict()
    ((100, 200), {'type_1': 50, 'type_2': 50, 'type_4': 50, 'type_0': 3})
    """
    params = {name: value for name, value in locals().items() if name != "rng"}
    types = [f"type_{k}" for k in range(n_types)]
    _check_simulation(types, params)
    tissue_rng, profile_rng, spot_rng, cell_rng = np.random.default_rng(rng).spawn(4)
    profiles = _profiles(n_types, n_genes, n_markers, profile_rng)
    sizes = _mean_one(size_sd, n_types, profile_rng)
    donors = np.stack([_vary(profiles, donor_sd, profile_rng) for _ in range(n_donors + 1)])
    places = grid(*_nearly_square(n_spots), n_spots)
    fields = smooth_fields(places, n_types, smoothness, tissue_rng)
    cells = cells_in_spots(compositions(fields, np.ones(n_types), types_per_spot), cells_per_spot, tissue_rng)

    rna = cells * sizes
    ambient_profile = rna.sum(axis=0) @ donors[-1] / rna.sum()
    factor = _mean_one(platform_sd, n_genes, spot_rng)
    depths = depth * rna.sum(axis=1) / rna.sum(axis=1).mean() * _mean_one(depth_sd, n_spots, spot_rng)

    def spot_means(rows: slice) -> np.ndarray:
        share = rna[rows] / rna[rows].sum(axis=1, keepdims=True)
        mean = ((1 - ambient) * (share @ donors[-1]) + ambient * ambient_profile) * factor
        return mean * (depths[rows] / mean.sum(axis=1))[:, None]

    spots = spots_on_grid(_draw(spot_means, (n_spots, n_genes), dispersion, spot_rng), places, _gene_names(n_genes))
    spots.var["platform_factor"] = factor
    spots.var["ambient_profile"] = ambient_profile
    spots.varm["truth_profiles"] = _profile_table(donors[-1], types, spots.var_names)
    add_truth(spots, types, cells, rna)
    spots.uns["simulation"] = {"params": storable(params), "type_sizes": sizes}
    n_cells = _reference_cells(types, cells_per_type, missing_type)
    reference = _reference(types, n_cells, donors[:-1], cell_depth * sizes, depth_sd, dispersion, cell_rng)
    kept = [name != missing_type for name in types]
    reference.varm["truth_profiles"] = _profile_table(profiles, types, reference.var_names).loc[:, kept]
    return spots, reference


def _profiles(n_types: int, n_genes: int, n_markers: int, rng: np.random.Generator) -> np.ndarray:
    """Draw the profiles, types x genes, rows sum to 1: log-normal means, small differences, strong markers."""
    log_mean = rng.normal(0.0, 1.0, n_genes) + rng.normal(0.0, TYPE_SD, (n_types, n_genes))
    genes = rng.permutation(n_genes)
    width = min(n_markers, n_genes // n_types)
    for k in range(n_types):
        log_mean[k, genes[k * width : (k + 1) * width]] += np.log(MARKER_FOLD)
    return np.exp(log_mean) / np.exp(log_mean).sum(axis=1, keepdims=True)


def _mean_one(sd: float, size: int | tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Draw log-normal factors of mean 1 whose logs have standard deviation `sd`."""
    return np.exp(rng.normal(-(sd**2) / 2, sd, size)) if sd else np.ones(size)


def _vary(profiles: np.ndarray, sd: float, rng: np.random.Generator) -> np.ndarray:
    """Return the profiles of one donor, rows sum to 1."""
    if sd == 0:
        return profiles
    varied = profiles * _mean_one(sd, profiles.shape, rng)
    return varied / varied.sum(axis=1, keepdims=True)


def _draw(
    means: Callable[[slice], np.ndarray], shape: tuple[int, int], dispersion: float, rng: np.random.Generator
) -> sparse.csr_matrix:
    """Draw counts around `means(rows)` block by block."""
    slices = row_slices(shape[0], BLOCK_ROWS)
    blocks = [
        _draw_block(means(rows), dispersion, block_rng)
        for rows, block_rng in zip(slices, rng.spawn(len(slices)), strict=True)
    ]
    return _stack(blocks, shape)


def _draw_block(mean: np.ndarray, dispersion: float, rng: np.random.Generator) -> sparse.csr_matrix:
    """Draw Poisson or gamma-Poisson counts, whole numbers in float32."""
    if dispersion > 0:
        mean = mean * rng.gamma(1 / dispersion, dispersion, mean.shape)
    return sparse.csr_matrix(rng.poisson(mean), dtype=np.float32)


def _stack(blocks: list[sparse.csr_matrix], shape: tuple[int, int]) -> sparse.csr_matrix:
    """Stack blocks of rows, giving each back to the system once it is copied."""
    per_row = np.concatenate([np.zeros(1, dtype=np.int64), *(np.diff(block.indptr) for block in blocks)])
    indptr = np.cumsum(per_row)
    data, indices = np.empty(indptr[-1], dtype=np.float32), np.empty(indptr[-1], dtype=np.int32)
    start = 0
    for i, block in enumerate(blocks):
        data[start : start + block.nnz], indices[start : start + block.nnz] = block.data, block.indices
        start += block.nnz
        blocks[i] = None
    return sparse.csr_matrix((data, indices, indptr), shape=shape)


def _reference(
    types: list[str],
    n_cells: np.ndarray,
    donors: np.ndarray,
    type_depths: np.ndarray,
    depth_sd: float,
    dispersion: float,
    rng: np.random.Generator,
) -> "AnnData":
    """Draw the labelled cells; `donors` has the profiles, donors x types x genes, and cells go to donors in turn."""
    import pandas as pd
    from anndata import AnnData

    cell_type = np.repeat(np.arange(len(types)), n_cells)
    donor = np.concatenate([np.arange(n) % len(donors) for n in n_cells])
    depths = type_depths[cell_type] * _mean_one(depth_sd, len(cell_type), rng)
    shape = (len(cell_type), donors.shape[2])
    X = _draw(lambda rows: donors[donor[rows], cell_type[rows]] * depths[rows, None], shape, dispersion, rng)
    present = [name for name, n in zip(types, n_cells, strict=True) if n]
    obs = pd.DataFrame(
        {
            "cell_type": pd.Categorical([types[k] for k in cell_type], categories=present),
            "donor": pd.Categorical([f"donor_{d}" for d in donor]),
        },
        index=[f"cell_{i}" for i in range(len(cell_type))],
    )
    return AnnData(X, obs=obs, var=pd.DataFrame(index=_gene_names(shape[1])))


def _reference_cells(types: list[str], cells_per_type: int | Mapping[str, int], missing: str | None) -> np.ndarray:
    """Return how many cells of each type the reference has."""
    wanted = cells_per_type if isinstance(cells_per_type, Mapping) else dict.fromkeys(types, cells_per_type)
    return np.array([0 if name == missing else wanted.get(name, 50) for name in types])


def _nearly_square(n_spots: int) -> tuple[int, int]:
    """Return rows and columns of a grid with room for `n_spots`."""
    n_cols = int(np.ceil(np.sqrt(n_spots)))
    return -(-n_spots // n_cols), n_cols


def _gene_names(n_genes: int) -> "pd.Index":
    import pandas as pd

    return pd.Index([f"gene_{g}" for g in range(n_genes)])


def _profile_table(profiles: np.ndarray, types: list[str], genes: "pd.Index") -> "pd.DataFrame":
    import pandas as pd

    return pd.DataFrame(profiles.T, index=genes, columns=types)


def _check_simulation(types: list[str], options: dict) -> None:
    """Raise with the name of the first option that is out of range."""
    at_least = {
        "n_spots": 1, "n_genes": 1, "n_types": 1, "cells_per_spot": 1, "types_per_spot": 1, "n_donors": 1,
        "n_markers": 0, "smoothness": 0, "depth_sd": 0, "platform_sd": 0, "donor_sd": 0, "size_sd": 0, "dispersion": 0,
    }  # fmt: skip
    rules = [(name, options[name], options[name] >= low, f"at least {low}") for name, low in at_least.items()]
    rules += [(name, options[name], options[name] <= 1e9, "at most 1e9") for name in (*at_least, "depth", "cell_depth")]
    rules += [(name, options[name], options[name] > 0, "more than 0") for name in ("depth", "cell_depth")]
    rules += [("ambient", options["ambient"], 0 <= options["ambient"] < 1, "at least 0 and less than 1")]
    missing, cells = options["missing_type"], options["cells_per_type"]
    named = cells if isinstance(cells, Mapping) else dict.fromkeys(types[:1], cells)
    rules += [
        ("missing_type", missing, missing is None or (missing in types and len(types) > 1), f"None or one of {types}"),
        ("cells_per_type", cells, set(named) <= set(types) and min(named.values(), default=1) >= 1,
         f"at least 1, for some of {types}"),
    ]  # fmt: skip
    check_options(rules)
