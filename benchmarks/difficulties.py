"""What tissue does to deconvolution, one difficulty at a time, and whether the default notices and holds.

    python benchmarks/difficulties.py                  everything
    python benchmarks/difficulties.py --only missing   a population is taken from the reference of pooled blood cells
    python benchmarks/difficulties.py --only few       the signature of one type is made of three cells
    python benchmarks/difficulties.py --only smooth    neighbours, in smooth tissue and in tissue that is not
    python benchmarks/difficulties.py --only donors    the reference is of four donors, the tissue of a fifth
    python benchmarks/difficulties.py --only gene      one gene has many of the counts, and varies from row to row
    python benchmarks/difficulties.py --only alike     the cells of one type are split at random into two
    python benchmarks/difficulties.py --only many      references of 10, 30, 60 and 100 types
    python benchmarks/difficulties.py --only sizes     bulk, by few reference cells that hold very different amounts of RNA
    python benchmarks/difficulties.py --only levels    error bars, the test of the fit, and p-values under a true null

Real cells are read from ../shared/data beside the project; without it the tables of simulated tissue are printed alone.
"""

import argparse
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
from _peers import plain_nnls
from accuracy import shared_cases
from scipy import sparse
from scipy.spatial import cKDTree

import unmix as um

DATA = Path("../shared/data")


def blood(seed: int, **options: float) -> tuple[ad.AnnData, ad.AnnData]:
    """Pool half of the sorted blood cells; the other half is the reference."""
    cells = ad.read_h5ad(DATA / "pbmc_facs/counts.h5ad")
    cells.obs["cell_type"] = cells.obs["facs_population"]
    reference, pool = um.datasets.split_cells(cells, "cell_type", rng=seed)
    spots = um.datasets.pool_cells(pool, "cell_type", rng=seed, smoothness=2.0, depth=2000, shape=(20, 15), **options)
    return spots, reference


def missing() -> Iterator[dict]:
    """RMSE without and with `unknown=True`, the unknown share's correlation with the missing population's, and its mean.

    A population's share counts as the truth of the unknown type; where nothing is missing that is 0 everywhere.
    """
    if not DATA.exists():
        return
    populations = ("CD14+ Monocyte", "CD19+ B", "CD34+", "CD56+ NK", "CD8+ Cytotoxic T", "none")
    shared = [ad.read_h5ad(DATA / "pbmc_facs_spots" / name) for name in ("spots.h5ad", "reference.h5ad")]
    for name, (spots, reference) in {"pool": blood(101, platform_sd=0.3), "pbmc_facs_spots": shared}.items():
        for population in populations:
            kept = reference[(reference.obs["cell_type"] != population).to_numpy()].copy()
            yield {"tissue": name, "missing": population} | absorbed(spots, kept, population)
    for name, spots, reference, truth in shared_cases():
        if isinstance(reference, ad.AnnData) and name != "pbmc_facs_spots":
            spots.obsm["truth_proportions"] = truth
            yield {"tissue": name, "missing": "none"} | absorbed(spots, reference, "none")


def absorbed(spots: ad.AnnData, reference: ad.AnnData, population: str) -> dict:
    row: dict = {}
    truth = spots.obsm["truth_proportions"].rename(columns=lambda name: name.replace("/", "_"))
    share = truth.get(population.replace("/", "_"), pd.Series(0.0, truth.index))
    for label, asked in (("without", False), ("with", True)):
        um.tl.deconvolve(spots, reference, groupby="cell_type", unknown=asked)
        found = spots.obsm["deconvolve"]
        known = found.columns.drop("unknown", errors="ignore")
        errors = found[known] - truth.reindex(columns=known, fill_value=0.0)
        errors["unknown"] = found.get("unknown", 0.0) - share
        row[f"RMSE {label}"] = np.sqrt((errors.to_numpy() ** 2).mean())
        slopes = [np.polyfit(share, errors[name], 1)[0] for name in known] if population != "none" else [np.nan]
        row[f"slope {label}"] = max(slopes)
    unknown = spots.obs["deconvolve_unknown"].to_numpy()
    row["mean"] = unknown.mean()
    row["correlation"] = np.corrcoef(unknown, share)[0, 1] if population != "none" and unknown.any() else np.nan
    return row | {"likelihood": spots.uns["deconvolve"]["chosen"]["unknown"]}


def few() -> Iterator[dict]:
    """Compare what a type's RMSE loses when its signature is of 3 cells, not 50: 24 tissues x 4 types, 500 counts a cell.

    "nnls" is ours, which shrinks profiles of few cells; "plain nnls" takes the means of the cells as they are.
    """
    losses: dict[str, list] = {"auto": [], "plain nnls": [], "nnls": [], "poisson": []}
    for seed in range(24):
        full, share = error_of_types(seed, None)
        for name in share.nlargest(4).index:
            poor, _ = error_of_types(seed, name)
            for method, loss in losses.items():
                loss.append((seed, full[method][name], poor[method][name]))
    for method, loss in losses.items():
        table = np.array(loss)
        row = {"method": method, "50 cells": table[:, 1].mean(), "3 cells": table[:, 2].mean()}
        row["lost"] = (table[:, 2] - table[:, 1]).mean()
        for other in ("plain nnls", "nnls"):
            row[f"of {other}'s loss"], row[f"se by {other}"] = ratio_of_losses(table, np.array(losses[other]))
        yield row


def error_of_types(seed: int, poor: str | None) -> tuple[dict[str, pd.Series], pd.Series]:
    """Return the RMSE of every type by every method, and the types' mean shares; the type `poor` has three cells."""
    cells = dict.fromkeys([f"type_{k}" for k in range(8)], 50) | ({poor: 3} if poor else {})
    spots, reference = um.datasets.simulate_spots(150, 500, 8, cells_per_type=cells, cell_depth=500.0, rng=seed)
    found = {}
    for method in ("auto", "nnls", "poisson"):
        um.tl.deconvolve(spots, reference, groupby="cell_type", method=method)
        error = spots.obsm["deconvolve"] - spots.obsm["truth_proportions"]
        found[method] = np.sqrt((error**2).mean())
    found["plain nnls"] = np.sqrt(((plain_nnls(spots, reference) - spots.obsm["truth_proportions"]) ** 2).mean())
    return found, spots.obsm["truth_proportions"].mean()


def ratio_of_losses(table: np.ndarray, other: np.ndarray) -> tuple[float, float]:
    """Ratio of mean losses, and its standard error by leaving one tissue out (columns: seed, RMSE before and after)."""

    def ratio(rows: np.ndarray) -> float:
        return float((table[rows, 2] - table[rows, 1]).mean() / (other[rows, 2] - other[rows, 1]).mean())

    seeds = np.unique(table[:, 0])
    left_out = np.array([ratio(table[:, 0] != seed) for seed in seeds])
    n = len(seeds)
    return ratio(np.full(len(table), True)), float(np.sqrt((n - 1) / n * ((left_out - left_out.mean()) ** 2).sum()))


def smooth() -> Iterator[dict]:
    """RMSE without and with the smoothing that held-out genes choose."""
    for smoothness in (3.0, 0.0):
        for name, (spots, reference) in shallow(smoothness):
            _, near = cKDTree(spots.obsm["spatial"]).query(spots.obsm["spatial"], 7)
            rows = np.repeat(np.arange(spots.n_obs), 6)
            graph = sparse.csr_matrix((np.ones(rows.size), (rows, near[:, 1:].ravel())), shape=(spots.n_obs,) * 2)
            spots.obsp["spatial_connectivities"] = graph
            row = {"tissue": name, "smoothness": smoothness}
            for smoothing in (None, "auto"):
                um.tl.deconvolve(spots, reference, groupby="cell_type", smoothing=smoothing)
                score = um.metrics.evaluate(spots.obsm["deconvolve"], spots.obsm["truth_proportions"])
                row |= {f"rmse {smoothing}": score["rmse"], f"aupr {smoothing}": score["aupr"]}
            yield row | {"chosen": spots.uns["deconvolve"]["chosen"]["smoothing"]}


def shallow(smoothness: float) -> Iterator[tuple[str, tuple[ad.AnnData, ad.AnnData]]]:
    yield "simulated", um.datasets.simulate_spots(300, 400, 6, depth=300.0, smoothness=smoothness, rng=5)
    for name in ("baron_pancreas_h1", "pbmc3k") if DATA.exists() else ():
        cells = ad.read_h5ad(DATA / name / "counts.h5ad")
        reference, pool = um.datasets.split_cells(cells, "cell_type", rng=5)
        options = {"smoothness": smoothness, "depth": 600, "platform_sd": 0.3, "shape": (16, 16)}
        yield name, (um.datasets.pool_cells(pool, "cell_type", rng=5, **options), reference)


def donors() -> Iterator[dict]:
    """RMSE with donors taken for one, and told apart."""
    for seed in range(4):
        for sd in (0.0, 0.3):
            spots, reference = um.datasets.simulate_spots(150, 500, 8, n_donors=4, donor_sd=sd, rng=seed)
            row: dict = {"seed": seed, "donor_sd": sd}
            for label, options in {
                "as one": {},
                "apart": {"batch_key": "donor"},
                "nnls": {"method": "nnls", "genes": "all"},
                "poisson": {"method": "poisson"},
            }.items():
                um.tl.deconvolve(spots, reference, groupby="cell_type", **options)
                truth = spots.obsm["truth_proportions"]
                row[label] = um.metrics.evaluate(spots.obsm["deconvolve"], truth)["rmse"]
            yield row


def gene() -> Iterator[dict]:
    """Mean RMSE where one gene, of any type, has so many times the counts of all others, with a log-normal factor per row."""
    for ratio, sd in ((0.0, 0.0), (0.03, 0.7), (0.1, 0.7), (0.5, 0.4)):
        found: dict[str, list[float]] = {"auto": [], "poisson": [], "nnls": []}
        for seed in range(8):
            rng = np.random.default_rng(seed)
            spots, reference = um.datasets.simulate_spots(60, 200, 5, platform_sd=0.3, rng=100 + seed)
            for adata in (spots, reference):
                X = adata.X.toarray()
                if ratio:
                    X[:, 7] = rng.poisson(ratio * X.sum(axis=1) * rng.lognormal(-(sd**2) / 2, sd, len(X)))
                adata.X = sparse.csr_matrix(X)
            for method, errors in found.items():
                um.tl.deconvolve(spots, reference, groupby="cell_type", method=method)
                score = um.metrics.evaluate(spots.obsm["deconvolve"], spots.obsm["truth_proportions"])
                errors.append(score["rmse"])
        yield {"counts": ratio, "log-sd": sd} | {method: np.mean(errors) for method, errors in found.items()}


def many() -> Iterator[dict]:
    """300 simulated spots of 3,000 genes, 30 cells a type: RMSE and CPU seconds, by the number of types."""
    um.tl.deconvolve(*um.datasets.simulate_spots(150, 500, 8, rng=0), groupby="cell_type", n_jobs=1)  # compiles
    for n_types in (10, 30, 60, 100):
        spots, reference = um.datasets.simulate_spots(300, 3000, n_types, platform_sd=0.3, cells_per_type=30, rng=0)
        row = {"types": n_types}
        for method in ("auto", "poisson", "nnls"):
            began = time.process_time()
            um.tl.deconvolve(spots, reference, groupby="cell_type", method=method, n_jobs=1)
            row[f"{method} CPU s"] = time.process_time() - began
            row[method] = um.metrics.evaluate(um.get.proportions(spots), spots.obsm["truth_proportions"])["rmse"]
        yield row


def alike() -> Iterator[dict]:
    """RMSE with a type whole and in two random halves, added up again; how far this moves its share, at most and by RMS."""
    tissues = {"simulated": um.datasets.simulate_spots(144, 500, 8, rng=31)}
    if DATA.exists():
        tissues["pbmc_facs"] = blood(11, platform_sd=0.5)
    for name, (spots, reference) in tissues.items():
        truth = spots.obsm["truth_proportions"]
        um.tl.deconvolve(spots, reference, groupby="cell_type")
        whole = spots.obsm["deconvolve"]
        for cell_type in truth.columns[np.argsort(-truth.mean().to_numpy())[:3]]:
            halves, rng = reference.copy(), np.random.default_rng(0)
            labels = halves.obs["cell_type"].astype(str).to_numpy(dtype=object)
            rows = rng.permutation(np.flatnonzero(labels == cell_type))
            labels[rows[::2]], labels[rows[1::2]] = "one", "two"
            halves.obs["cell_type"] = labels
            um.tl.deconvolve(spots, halves, groupby="cell_type")
            found = spots.obsm["deconvolve"]
            split = found.assign(**{cell_type: found["one"] + found["two"]})[whole.columns]
            moved = (split[cell_type] - whole[cell_type]).abs()
            yield {
                "tissue": name,
                "type": cell_type,
                "cells": len(rows),
                "whole": um.metrics.evaluate(whole, truth)["rmse"],
                "halves": um.metrics.evaluate(split, truth)["rmse"],
                "most": moved.max(),
                "rms": np.sqrt((moved**2).mean()),
            }


def levels() -> Iterator[dict]:
    """Coverage of 90% intervals, share of spots with a misfit below .05, and p-values below .05 under a true null."""
    tissues: dict[str, tuple[ad.AnnData, ad.AnnData]] = {
        "simulated": um.datasets.simulate_spots(200, 500, 8, rng=1),
        "simulated, platform .5": um.datasets.simulate_spots(200, 500, 8, platform_sd=0.5, rng=1),
        "simulated, 800 counts": um.datasets.simulate_spots(200, 500, 8, depth=800.0, rng=1),
    }
    if DATA.exists():
        tissues |= {f"pbmc_facs, platform {sd}": blood(7, platform_sd=sd) for sd in (0.0, 0.5)}
    for name, (spots, reference) in tissues.items():
        um.tl.deconvolve(spots, reference, groupby="cell_type")
        table, truth = spots.obsm["deconvolve"], spots.obsm["truth_proportions"]
        coverage = um.metrics.coverage(table, spots.obsm["deconvolve_se"], truth[table.columns])
        null = spots.copy()
        null.X = sparse.csr_matrix(np.random.default_rng(0).permuted(spots.X.toarray(), axis=1))
        um.tl.deconvolve(null, reference, groupby="cell_type", method="poisson", n_perms=500)
        yield {
            "tissue": name,
            "coverage": float(np.nanmean(coverage)),
            "misfit < .05": float((spots.obs["deconvolve_misfit"] < 0.05).mean()),
            "null p < .05": float((null.obs["deconvolve_pval"] < 0.05).mean()),
            "null p < .5": float((null.obs["deconvolve_pval"] < 0.5).mean()),
        }


def sizes() -> Iterator[dict]:
    """Print how often 90% intervals hold the truth in bulk: a type's mean size is that of few cells (log-sd 0.6), 8 tissues."""
    for n_cells, depth in ((8, 30_000.0), (15, 100_000.0), (30, 10_000.0)):
        covered, error = [], []
        for seed in range(8):
            spots, reference = deep_tissue(seed, n_cells, depth)
            um.tl.deconvolve(spots, reference, groupby="cell_type", cells_per_spot=float("inf"))
            table, truth = spots.obsm["deconvolve"], spots.obsm["truth_proportions"]
            truth = truth[table.columns]
            covered.append(np.nanmean(um.metrics.coverage(table, spots.obsm["deconvolve_se"], truth)))
            error.append(np.sqrt(((table - truth) ** 2).to_numpy().mean()))
        yield {"cells a type": n_cells, "depth": depth, "rmse": np.mean(error), "coverage": np.mean(covered)}


def deep_tissue(seed: int, n_cells: int, depth: float) -> tuple[ad.AnnData, ad.AnnData]:
    """Return simulated tissue, and a reference every cell of which keeps a share of its counts of its own."""
    options = {"cells_per_type": n_cells, "cell_depth": 8000.0, "size_sd": 0.6, "depth": depth}
    spots, reference = um.datasets.simulate_spots(40, 500, 6, rng=seed, **options)
    rng = np.random.default_rng(seed)
    kept = np.clip(0.25 * rng.lognormal(0, 0.6, reference.n_obs), 0, 1)
    X = sparse.csr_matrix(reference.X)
    X.data = rng.binomial(X.data.astype(int), np.repeat(kept, np.diff(X.indptr))).astype(float)
    reference.X = X
    return spots, reference


TABLES: dict[str, Callable[[], Iterator[dict]]] = {
    "missing": missing,
    "few": few,
    "smooth": smooth,
    "donors": donors,
    "gene": gene,
    "alike": alike,
    "many": many,
    "sizes": sizes,
    "levels": levels,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=list(TABLES))
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    um.settings.progress = False
    pd.set_option("display.width", 200, "display.max_columns", 30, "display.max_colwidth", 90)
    for name, rows in TABLES.items():
        if options.only in (None, name):
            print(f"\n{name}: {rows.__doc__}\n{pd.DataFrame(rows()).round(4).to_string(index=False)}", flush=True)


if __name__ == "__main__":
    main()
