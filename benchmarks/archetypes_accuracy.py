"""Proportions and communities of archetypes with gene sets, on pooled spots with known truth.

Run:  python benchmarks/archetypes_accuracy.py [parts]
Parts: simulated, pools, dominated, real; all of them by default. Pools are what the method was developed on
(`docs/archetypes-protocol.md`): cells of a pancreas and of blood, one half pooled, the other half asked for 20 genes a type;
in dominated ones half of all cells are of one type.
Beside them: `scanpy.tl.score_genes` of the same sets, negative scores at 1e-6, rows normalised (Starfysh's prior). The
column "taught" is what the model does if the true shares of four fifths of the spots are told, from which profiles of the
sets' genes are regressed: about the best to hope for from gene lists.
"""

import sys
import warnings
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import scanpy as sc
from scipy import sparse

import unmix as um
from unmix.core.set_model import regress_profiles, set_shares

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


def marker_sets(cells: ad.AnnData, groupby: str, n: int = 20) -> dict[str, list[str]]:
    """Return the n best genes of every type by Wilcoxon's test on other cells."""
    cells = ad.AnnData(sparse.csr_matrix(cells.X).astype(np.float32), obs=cells.obs[[groupby]], var=cells.var[[]])
    cells.obs[groupby] = cells.obs[groupby].astype(str).astype("category")
    sizes = cells.obs[groupby].value_counts()
    cells = cells[cells.obs[groupby].isin(sizes.index[sizes >= 3])].copy()
    sc.pp.normalize_total(cells, target_sum=1e4)
    sc.pp.log1p(cells)
    sc.tl.rank_genes_groups(cells, groupby, method="wilcoxon", pts=True)
    sets = {}
    for name in cells.obs[groupby].cat.categories:
        table = sc.get.rank_genes_groups_df(cells, name)
        sets[name] = table.loc[table["pct_nz_group"] > 0.1, "names"].head(n).tolist()
    return sets


def score_shares(spots: ad.AnnData, sets: dict[str, list[str]]) -> np.ndarray:
    log = ad.AnnData(sparse.csr_matrix(spots.X).astype(np.float32), var=spots.var[[]])
    sc.pp.normalize_total(log)
    sc.pp.log1p(log)
    for name, genes in sets.items():
        sc.tl.score_genes(log, [g for g in genes if g in log.var_names], score_name=name)
    scores = np.maximum(log.obs[list(sets)].to_numpy(), 1e-6)
    return scores / scores.sum(axis=1, keepdims=True)


def taught_shares(spots: ad.AnnData, true: np.ndarray, sets: dict[str, list[str]], folds: int = 5) -> np.ndarray:
    """Return shares by profiles that the true shares of other spots yield."""
    totals = np.asarray(spots.X.sum(axis=1), dtype=float).ravel()
    genes = sorted({g for members in sets.values() for g in members} & set(spots.var_names))
    counts = sparse.csr_array(spots[:, genes].X).astype(float)
    fold, shares = np.random.default_rng(0).permutation(len(true)) % folds, np.zeros_like(true)
    for k in range(folds):
        told, asked = np.flatnonzero(fold != k), np.flatnonzero(fold == k)
        model = regress_profiles(counts[told], totals[told], true[told])
        shares[asked] = set_shares(counts[asked], totals[asked], model)
    return shares


def measure(spots: ad.AnnData, truth: pd.DataFrame, sets: dict[str, list[str]]) -> dict[str, float]:
    names = [name for name in truth.columns if name in sets]
    sets, true = {name: sets[name] for name in names}, truth[names].to_numpy()
    found = um.tl.starfysh_archetypes(spots, signatures=sets, copy=True)
    shares = um.get.archetypes(found, what="proportions")[names].to_numpy()
    prior = score_shares(spots, sets)
    matching = um.get.archetypes(found, what="matching").astype({"archetype": str, "type": str})
    W, purity = um.get.archetypes(found), []
    for _, row in matching[matching["archetype"] != "none"].iterrows():
        top = W[row["archetype"]].to_numpy().argsort()[-max(len(W) // 20, 5) :]
        purity.append(true[top, names.index(row["type"])].mean())
    taught = taught_shares(spots, true, sets)
    ours, theirs, best = (float(np.sqrt(((p - true) ** 2).mean())) for p in (shares, prior, taught))
    K = int(found.uns["archetypes"]["selection"].query("chosen")["n_archetypes"].iloc[0])
    return {
        "types": len(names), "auto K": K, "matched": len(purity), "purity": float(np.mean(purity or [np.nan])),
        "RMSE": ours, "score_genes": theirs, "ratio": ours / theirs, "taught": best / theirs,
    }  # fmt: skip


def pool(
    cells: ad.AnnData, groupby: str, seed: int, *, n: int = 300, size: int = 8, concentration: float = 0.5,
    depth: float = 2000, platform_sd: float = 0.5, dominant: float = 0.0,
) -> tuple[ad.AnnData, pd.DataFrame, dict[str, list[str]]]:  # fmt: skip
    """Return spots pooled from one half of the cells, their shares of cells, and the other half's gene sets.

    Spots hold `size` / 2 to 3 `size` / 2 cells of types drawn from a Dirichlet law; every gene has a platform factor.
    With `dominant` this share of all cells is of the type that most cells of the source are of, and the others are uneven.
    """
    rng = np.random.default_rng(seed)
    label = cells.obs[groupby].astype(str).to_numpy()
    cells, label = cells[label != "nan"], label[label != "nan"]
    pooled = np.zeros(len(label), dtype=bool)
    for name in np.unique(label):
        rows = rng.permutation(np.flatnonzero(label == name))
        pooled[rows[: len(rows) // 2]] = True
    types = [name for name in np.unique(label) if (pooled & (label == name)).sum() >= 6]
    X = sparse.csr_array(cells.X).astype(float)
    rows = [np.flatnonzero(pooled & (label == name)) for name in types]
    prevalence = np.sqrt([len(r) for r in rows])
    prevalence /= prevalence.sum()
    if dominant:
        largest = int(prevalence.argmax())
        prevalence = rng.dirichlet(np.ones(len(types)))
        prevalence *= (1 - dominant) / (1 - prevalence[largest])
        prevalence[largest] = dominant
    counts, truth = np.zeros((n, X.shape[1])), np.zeros((n, len(types)))
    for i in range(n):
        m = rng.integers(max(size // 2, 1), size + size // 2)
        drawn = rng.choice(len(types), m, p=rng.dirichlet(concentration * len(types) * prevalence))
        counts[i] = X[[rng.choice(rows[t]) for t in drawn]].sum(axis=0)
        truth[i] = np.bincount(drawn, minlength=len(types)) / m
    rate = counts * rng.lognormal(0, platform_sd, X.shape[1])
    rate *= rng.lognormal(np.log(depth), 0.3, (n, 1)) / rate.sum(axis=1, keepdims=True)
    spots = ad.AnnData(sparse.csr_matrix(rng.poisson(rate).astype(np.float32)), var=cells.var[[]])
    other = cells[~pooled & np.isin(label, types)]
    return spots, pd.DataFrame(truth, columns=types), marker_sets(other, groupby)


def simulated() -> dict[str, dict[str, float]]:
    rows = {}
    for k in (3, 5, 10):
        for mixed, cells in (("pure spots", 2.0), ("mixed spots", 12.0)):
            spots, reference = um.datasets.simulate_spots(
                600, 1000, k, cells_per_spot=cells, types_per_spot=min(k, 4), rng=1
            )
            sets = marker_sets(reference, "cell_type")
            rows[f"simulated, {k} types, {mixed}"] = measure(spots, spots.obsm["truth_proportions"], sets)
    return rows


def pools(title: str = "", **how: float) -> dict[str, dict[str, float]]:
    rows = {}
    for folder, seeds in (("baron_pancreas_h1", (11, 12, 13)), ("pbmc3k", (11, 12, 13))):
        if not (SHARED / folder).is_dir():
            continue
        cells = ad.read_h5ad(next((SHARED / folder).glob("*.h5ad")))
        for seed in seeds:
            rows[f"{folder}{title}, seed {seed}"] = measure(*pool(cells, "cell_type", seed, **how))
    return rows


def dominated() -> dict[str, dict[str, float]]:
    return pools(", dominated", n=160, depth=8000, dominant=0.5)


def real() -> dict[str, dict[str, float]]:
    rows = {}
    for name, folder, file, cells, groupby in (
        ("pbmc_facs_spots", "pbmc_facs_spots", "spots.h5ad", "reference.h5ad", "cell_type"),
        ("seqfish_ob grid", "seqfish_ob", "spots_grid42um.h5ad", "cells.h5ad", "cell_type"),
    ):
        if not (SHARED / folder).is_dir():
            continue
        spots, reference = ad.read_h5ad(SHARED / folder / file), ad.read_h5ad(SHARED / folder / cells)
        if "circle_spot" in reference.obs:
            reference = reference[reference.obs["circle_spot"].astype(str) == "none"]
        rows[name] = measure(spots, spots.obsm["truth_proportions"], marker_sets(reference, groupby))
    return rows


def main() -> None:
    warnings.simplefilter("ignore")
    parts = {"simulated": simulated, "pools": pools, "dominated": dominated, "real": real}
    rows: dict[str, dict[str, float]] = {}
    for part in sys.argv[1:] or parts:
        rows |= parts[part]()
    sys.stdout.write(pd.DataFrame(rows).T.round(3).to_string() + "\n")


if __name__ == "__main__":
    main()
