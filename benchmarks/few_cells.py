"""What a type of three reference cells costs on pooled real cells, beside all its cells: the default and simpler methods.

    python benchmarks/few_cells.py

Four types of every pool in turn, the commonest with ten cells or more, two pools of each data set. RMSE is of the type's own
share. `lost` is what three cells cost. `nnls` is ours, on markers and with profiles of few cells shrunk to the pooled mean;
it had little to lose. `plain nnls` is scipy's on all genes and plain means. Not the pools of development.py, but its data sets.
"""

import warnings
from collections.abc import Iterator

import anndata as ad
import numpy as np
import pandas as pd
from _peers import plain_nnls
from development import DATA, pool

import unmix as um

N_CELLS = 3
SETTINGS = {
    "pbmc_facs": {"platform_sd": 0.5, "depth": 2000},
    "baron_pancreas_h1": {"platform_sd": 0.5, "depth": 1500},
    "pbmc3k": {"platform_sd": 0.5, "depth": 1000},
    "seqfish": {"cells_per_spot": 7},
    "lymph": {"platform_sd": 0.5, "depth": 1000, "types_per_spot": 4},
}
METHODS = ("auto", "poisson", "nnls", "plain nnls")


def errors(spots: ad.AnnData, reference: ad.AnnData) -> dict[str, pd.Series]:
    """Return the RMSE of every type by every method."""
    found = {}
    for method in METHODS[:-1]:
        out = um.tl.deconvolve(spots, reference, groupby="cell_type", method=method, n_jobs=1, copy=True)
        found[method] = out.obsm["deconvolve"]
    found[METHODS[-1]] = plain_nnls(spots, reference)
    truth = spots.obsm["truth_proportions"].reindex(columns=found["auto"].columns, fill_value=0.0)
    return {method: np.sqrt(((shares - truth) ** 2).mean()) for method, shares in found.items()}


def rows(name: str, seed: int) -> Iterator[dict]:
    spots, reference = pool(name, seed, **SETTINGS[name])
    full, labels = errors(spots, reference), reference.obs["cell_type"].astype(str).str.replace("/", "_").to_numpy()
    for kind in spots.obsm["truth_proportions"].mean().nlargest(4).index:
        own = np.flatnonzero(labels == kind)
        if own.size < 10:
            continue
        kept = np.random.default_rng(seed).permutation(own)[:N_CELLS]
        poor = errors(spots, reference[(labels != kind) | np.isin(np.arange(labels.size), kept)].copy())
        for method in METHODS:
            yield {"data": name, "method": method, "all": full[method][kind], "three": poor[method][kind]}


def main() -> None:
    warnings.simplefilter("ignore")
    um.settings.progress = False
    pd.set_option("display.width", 200)
    if not DATA.exists():
        print("needs ../shared/data beside the project")
        return
    table = pd.DataFrame([row for name in SETTINGS for seed in (101, 102) for row in rows(name, seed)])
    table["lost"] = table["three"] - table["all"]
    means = table.groupby(["data", "method"], sort=False).mean()
    means = pd.concat([means, pd.concat({"mean of all": table.groupby("method", sort=False).mean(numeric_only=True)})])
    print(means.round(3).to_string())


if __name__ == "__main__":
    main()
