"""Accuracy of every method, side by side: the simulator's grid and real cells pooled with known truth.

    python benchmarks/accuracy.py                 everything
    python benchmarks/accuracy.py --only shared   the real cases (folder ../shared/data beside the project)
    python benchmarks/accuracy.py --only grid --seeds 3
    python benchmarks/accuracy.py --slow          with scikit-learn's nu-SVR and cell2location (minutes a case)
    python benchmarks/accuracy.py --rectangle PY  with Rectangle, PY being the Python of an environment with rectanglepy==1.7.0
    python benchmarks/accuracy.py --cases circles grid --methods auto        some cases, some methods

Peers that are not installed are left out: flashdeconv==0.2.0; cell2location==0.1.5 with pyro-ppl==1.9.1.

Truth is read here and nowhere else: see docs/protocol.md.
"""

import argparse
import time
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
from _peers import CPU, Peer, peers

import unmix as um

DATA = Path("../shared/data")
METHODS = ("auto", "poisson", "nnls", "nnls all", "simplex", "nusvr", "nusvr_simplex")
GRID: dict[str, dict] = {
    "plain": {},
    "platform .3": {"platform_sd": 0.3},
    "platform .7": {"platform_sd": 0.7},
    "few cells": {"cells_per_type": 5},
    "one type of 3": {"cells_per_type": {"type_1": 3}},
    "shallow": {"depth": 500.0},
    "missing type": {"missing_type": "type_1"},
    "ambient": {"ambient": 0.1},
    "donors": {"n_donors": 4, "donor_sd": 0.3},
    "sizes": {"size_sd": 0.6},
    "dispersed": {"dispersion": 0.2},
    "all at once": {"platform_sd": 0.5, "cells_per_type": 10, "depth": 1500.0, "size_sd": 0.5, "dispersion": 0.1},
}
Case = tuple[str, ad.AnnData, "ad.AnnData | pd.DataFrame", "pd.DataFrame"]


def grid_cases(seeds: int) -> Iterator[Case]:
    for name, switches in GRID.items():
        for seed in range(seeds):
            options = dict(switches)
            if isinstance(options.get("cells_per_type"), dict):
                names = [f"type_{k}" for k in range(8)]
                options["cells_per_type"] = dict.fromkeys(names, 50) | options["cells_per_type"]
            spots, reference = um.datasets.simulate_spots(150, 500, 8, rng=seed, **options)
            yield f"{name} ({seed})", spots, reference, spots.obsm["truth_proportions"]


def shared_cases() -> Iterator[Case]:
    cells = ad.read_h5ad(DATA / "seqfish_ob/cells.h5ad")
    circles = ad.read_h5ad(DATA / "seqfish_ob/spots_circle27um.h5ad")
    away = cells[(cells.obs["circle_spot"].astype(str) == "none").to_numpy()].copy()
    yield "circles", circles, away, circles.obsm["truth_proportions"]
    yield grid_without_reference_cells(cells)
    for name in ("pbmc_facs_spots", "baron_spots", "pbmc3k_spots"):
        spots = ad.read_h5ad(DATA / name / "spots.h5ad")
        yield name, spots, ad.read_h5ad(DATA / name / "reference.h5ad"), spots.obsm["truth_proportions"]
    yield abis()
    yield shenorr()


def grid_without_reference_cells(cells: ad.AnnData, width: float = 42.0) -> Case:
    """Pool the cells inside the circles' neighbourhood by a grid of `width` um; the other cells are the reference."""
    spot = (cells.obs["circle_spot"].astype(str) == "none").to_numpy()
    reference, pool = cells[spot].copy(), cells[~spot]
    place = pd.DataFrame(pool.obsm["spatial"]).floordiv(width / 0.103).astype(int).astype(str)
    key = pool.obs["fov"].astype(str).to_numpy() + " " + place[0] + " " + place[1]
    codes, names = pd.factorize(key)
    pooled = np.zeros((len(names), pool.n_vars))
    np.add.at(pooled, codes, pool.X.toarray().astype(float))
    counts = pd.crosstab(key, pool.obs["cell_type"].astype(str).to_numpy()).loc[names]
    spots = ad.AnnData(pooled, obs=pd.DataFrame(index=names), var=pool.var)
    truth = counts.div(counts.sum(axis=1), axis=0)
    everything = [str(t) for t in reference.obs["cell_type"].unique()]
    return "grid", spots, reference, truth.reindex(columns=everything, fill_value=0.0)


def abis() -> Case:
    folder = DATA / "abis_bulk"
    bulk = pd.read_csv(folder / "bulk_tpm.csv.gz", index_col=0).T
    signature = pd.read_csv(folder / "signature_S0.csv.gz", index_col=0)
    truth = pd.read_csv(folder / "truth_flow_percent.csv", index_col=0).loc[bulk.index, signature.columns] / 100
    return "abis_bulk", ad.AnnData(bulk), signature, truth


def shenorr() -> Case:
    folder = DATA / "shenorr_mixtures"
    arrays = 2 ** pd.read_csv(folder / "linseed_datasetLiverBrainLung.csv.gz", index_col=0).T
    truth = pd.read_csv(folder / "mixture_truth.csv.gz", index_col=0).loc[arrays.index]
    pure = truth.max(axis=1) == 1
    signature = arrays[pure].groupby(truth[pure].idxmax(axis=1)).mean().T
    return "shenorr_mixtures", ad.AnnData(arrays[~pure]), signature, truth[~pure]


def run(method: str, spots: ad.AnnData, reference: ad.AnnData | pd.DataFrame) -> ad.AnnData:
    groupby = None if isinstance(reference, pd.DataFrame) else "cell_type"
    name, *genes = method.split()
    donors = "donor" if groupby and "donor" in reference.obs and reference.obs["donor"].nunique() > 1 else None
    options = {"groupby": groupby, "batch_key": donors, "genes": genes[0] if genes else None}
    return um.tl.deconvolve(spots, reference, method=name, n_jobs=1, copy=True, **options)


def measure(case: Case, methods: Iterable[str], others: dict[str, Peer]) -> list[dict]:
    name, spots, reference, truth = case
    truth = truth.set_axis([str(c).replace("/", "_") for c in truth.columns], axis=1)
    rows = []
    for method in methods:
        began = time.process_time()
        out = run(method, spots, reference)
        seconds = time.process_time() - began
        found = out.obsm["deconvolve"]
        row = {"case": name, "method": method, "cpu": seconds} | scores(found, truth)
        if "deconvolve_se" in out.obsm:
            shared = truth[found.columns.intersection(truth.columns)]
            row["coverage"] = float(np.nanmean(um.metrics.coverage(found, out.obsm["deconvolve_se"], shared)))
        rows.append(row)
    for method, call in others.items():
        if isinstance(reference, pd.DataFrame) and method in ("flashdeconv", "cell2location"):
            continue  # they need cells
        began = time.process_time()
        found = call(spots, reference)
        seconds = found.attrs.get(CPU, time.process_time() - began)
        rows.append({"case": name, "method": method, "cpu": seconds} | scores(found, truth))
    return rows


def scores(found: pd.DataFrame, truth: pd.DataFrame) -> dict[str, float]:
    found = found.set_axis([str(c).replace("/", "_") for c in found.columns], axis=1)
    found = found.reindex(columns=truth.columns, fill_value=0.0)
    keep = um.metrics.evaluate(found, truth)
    return {k: float(keep[k]) for k in ("rmse", "jsd", "pearson_per_type", "aupr")}


def regret(table: pd.DataFrame) -> pd.DataFrame:
    """Geometric mean over the cases of RMSE over that of the best other method, and leaving one case out."""
    rmse = table.pivot(index="case", columns="method", values="rmse")
    best_other = pd.DataFrame({m: rmse.drop(columns=m).min(axis=1) for m in rmse})
    logs = np.log(rmse / best_other)
    out = {"regret": np.exp(logs.mean()), "worst case": np.exp(logs.max())}
    left_out = pd.concat([np.exp(logs.drop(index=case).mean()).rename(case) for case in rmse.index], axis=1)
    return pd.DataFrame(out | {"leave one case out, lowest": left_out.min(axis=1), "highest": left_out.max(axis=1)})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=["grid", "shared"])
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--slow", action="store_true", help="also scikit-learn's nu-SVR and cell2location")
    parser.add_argument("--rectangle", metavar="PYTHON", help="Python of an environment with rectanglepy 1.7.0")
    parser.add_argument("--cases", nargs="+", help="names of cases; all without it")
    parser.add_argument("--methods", nargs="+", default=METHODS, choices=METHODS)
    parser.add_argument("--epochs", type=int, default=1500, help="of cell2location")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    um.settings.progress = False
    pd.set_option("display.width", 200, "display.max_rows", 500)
    others = peers(slow=options.slow, epochs=options.epochs, rectangle_python=options.rectangle)
    groups = {"grid": lambda: grid_cases(options.seeds), "shared": shared_cases}
    for group, cases in groups.items():
        if options.only not in (None, group) or (group == "shared" and not DATA.exists()):
            continue
        rows = []
        for case in cases():
            if options.cases and case[0] not in options.cases:
                continue
            rows += measure(case, options.methods, others)
            print(pd.DataFrame([r for r in rows if r["case"] == case[0]]).round(4).to_string(index=False), flush=True)
        table = pd.DataFrame(rows)
        print(f"\n{group}: RMSE over the best other method's\n", regret(table).round(3).to_string(), "\n")


if __name__ == "__main__":
    main()
