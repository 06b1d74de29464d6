"""The pools that the default was developed on, with known truth: none of them is one of the shared cases.

    python benchmarks/development.py

Real cells are read from ../shared/data beside the project. Coverage is of 90% intervals; `present` is how often a type is
there whose detection probability is between .4 and .6, and above .9.
"""

import time
import warnings
from collections.abc import Callable
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
from accuracy import scores
from scipy import sparse

import unmix as um

DATA = Path("../shared/data")
FILES = {
    "cerebellum": "slideseq_cerebellum_tiny/reference.h5ad",
    "lymph": "visium_lymph_node/reference.h5ad",
    "seqfish": "seqfish_ob/cells.h5ad",
    "osmfish": "osmfish_sscortex/cells.h5ad",
}
COARSE = {
    "CD19+ B": "B", "CD56+ NK": "NK", "CD14+ Monocyte": "Mono", "CD8+ Cytotoxic T": "CD8", "CD8 T": "CD8", "B": "B", "NK": "NK",
    "CD8+/CD45RA+ Naive Cytotoxic": "CD8", "CD4+ T Helper2": "CD4", "CD4+/CD45RO+ Memory": "CD4", "CD4+/CD25 T Reg": "CD4",
    "CD4+/CD45RA+/CD25- Naive T": "CD4", "Naive CD4 T": "CD4", "Memory CD4 T": "CD4", "CD14+ Mono": "Mono",
    "FCGR3A+ Mono": "Mono",
}  # fmt: skip
Pair = tuple[ad.AnnData, ad.AnnData]


def load(name: str) -> ad.AnnData:
    cells = ad.read_h5ad(DATA / FILES.get(name, f"{name}/counts.h5ad"))
    cells.X = sparse.csr_matrix(cells.X, dtype=np.float32)
    if name == "pbmc_facs":
        cells.obs["cell_type"] = cells.obs["facs_population"].astype(str)
        cells.var_names = cells.var["symbol"].astype(str).to_numpy()
        cells.var_names_make_unique()
    labels = cells.obs["cell_type"].astype(object)
    cells.obs["cell_type"] = labels.where(~labels.astype(str).isin(["nan", "Excluded"]))
    return cells[cells.obs["cell_type"].notna()].copy()


def pool(name: str, seed: int, n_cells: int | None = None, **options: object) -> Pair:
    """Pool half of the cells; of the other half, at most `n_cells` of every type are the reference."""
    reference, rest = um.datasets.split_cells(load(name), "cell_type", rng=seed)
    if n_cells:
        rng = np.random.default_rng(seed)
        groups = reference.obs.groupby("cell_type", observed=True).indices.values()
        reference = reference[np.sort(np.concatenate([rng.permutation(rows)[:n_cells] for rows in groups]))].copy()
    settings = {"shape": (12, 12), "smoothness": 2.0, "rng": seed} | options
    return um.datasets.pool_cells(rest, "cell_type", **settings), reference


def across(reference: str, tissue: str, seed: int) -> Pair:
    """Pool cells of one data set, with those of another as reference, by five coarse types."""
    pair = []
    for cells in (load(tissue), load(reference)):
        cells.obs["cell_type"] = cells.obs["cell_type"].map(COARSE)
        pair.append(cells[cells.obs["cell_type"].notna()].copy())
    options = {"shape": (12, 12), "smoothness": 2.0, "depth": 1500, "rng": seed}
    return um.datasets.pool_cells(pair[0], "cell_type", **options), pair[1]


HARD = {"platform_sd": 0.5, "cells_per_type": 10, "depth": 1500.0, "size_sd": 0.5, "dispersion": 0.1}
POOLS: dict[str, Callable[[], Pair]] = {
    "blood": lambda: pool("pbmc_facs", 11, platform_sd=0.5, depth=2000),
    "blood, 15 cells a type": lambda: pool("pbmc_facs", 12, n_cells=15, depth=1000),
    "pancreas": lambda: pool("baron_pancreas_h1", 13, platform_sd=0.7, depth=1500),
    "pancreas, 10 cells a type": lambda: pool("baron_pancreas_h1", 14, n_cells=10, depth=6000),
    "pbmc3k": lambda: pool("pbmc3k", 15, platform_sd=0.6, depth=1000),
    "pbmc3k, 400 counts": lambda: pool("pbmc3k", 16, platform_sd=0.3, depth=400),
    "seqfish": lambda: pool("seqfish", 17, cells_per_spot=7),
    "seqfish, 5 cells a type": lambda: pool("seqfish", 18, n_cells=5, cells_per_spot=15, platform_sd=0.4, depth=3000),
    "pbmc3k by blood": lambda: across("pbmc_facs", "pbmc3k", 19),
    "blood by pbmc3k": lambda: across("pbmc3k", "pbmc_facs", 20),
    "lymph node": lambda: pool("lymph", 21, platform_sd=0.5, depth=1000, types_per_spot=4),
    "cerebellum, 19 types": lambda: pool(
        "cerebellum", 22, platform_sd=0.4, depth=500, types_per_spot=3, cells_per_spot=4
    ),
    "cortex, 33 genes": lambda: pool("osmfish", 23, platform_sd=0.3),
    "blood, 100 cells a spot": lambda: pool("pbmc_facs", 24, cells_per_spot=100, platform_sd=0.5, depth=20000),
    "simulated": lambda: um.datasets.simulate_spots(144, 500, 8, rng=31),
    "simulated, all at once": lambda: um.datasets.simulate_spots(144, 500, 8, rng=32, **HARD),
}


def measure(spots: ad.AnnData, reference: ad.AnnData) -> dict:
    began = time.process_time()
    um.tl.deconvolve(spots, reference, groupby="cell_type", n_jobs=1)
    row = {"cpu": time.process_time() - began}
    found, truth = spots.obsm["deconvolve"], spots.obsm["truth_proportions"]
    truth = truth.reindex(columns=found.columns, fill_value=0.0)
    row |= scores(found, truth)
    row["coverage"] = float(np.nanmean(um.metrics.coverage(found, spots.obsm["deconvolve_se"], truth)))
    detection, there = spots.obsm["deconvolve_detection"].to_numpy(), truth.to_numpy() > 0
    row["present .4-.6"] = there[(detection > 0.4) & (detection < 0.6)].mean()
    row["present .9-1"] = there[detection > 0.9].mean()
    for method in ("poisson", "nnls"):
        um.tl.deconvolve(spots, reference, groupby="cell_type", method=method, n_jobs=1, key_added=method)
        row[f"rmse {method}"] = scores(spots.obsm[method], truth)["rmse"]
    return row | {"cells": spots.uns["deconvolve"]["chosen"]["cells_per_spot"].split(",")[0]}


def main() -> None:
    warnings.simplefilter("ignore")
    um.settings.progress = False
    pd.set_option("display.width", 220, "display.max_columns", 30)
    if not DATA.exists():
        print("needs ../shared/data beside the project")
        return
    print(
        pd.DataFrame({name: measure(*make()) for name, make in POOLS.items()}).T.to_string(float_format="{:.4f}".format)
    )


if __name__ == "__main__":
    main()
