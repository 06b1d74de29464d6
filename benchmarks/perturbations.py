"""One thing wrong at a time in a reference or a tissue of real cells: the default beside simpler methods.

    python benchmarks/perturbations.py [--only NAME ...] [--data NAME ...] [--seeds 201 202]

Spots are pooled from one half of the cells, the reference is of the other half, at most 150 cells a type. RMSE is over data sets
and seeds; `ratio` is the geometric mean of that of the default over the best other method of each case, `worst` the largest. Real
cells are read from ../shared/data beside the project.
"""

import argparse
import warnings
from collections.abc import Callable

import anndata as ad
import numpy as np
import pandas as pd
from development import DATA, load
from scipy import sparse

import unmix as um

METHODS = ("auto", "poisson", "nnls", "simplex")
DEPTH = {"pbmc_facs": 2000.0, "baron_pancreas_h1": 1500.0, "pbmc3k": 1000.0, "lymph": 1000.0, "cerebellum": 500.0}
Rng = np.random.Generator
Change = Callable[[np.ndarray, np.ndarray, Rng], tuple[np.ndarray, np.ndarray]]


def types_of(labels: np.ndarray) -> list[str]:
    """Return the types, the most frequent first."""
    return list(pd.Series(labels).value_counts().index)


def pool_spots(
    cells: ad.AnnData,
    rng: Rng,
    *,
    n_spots: int = 100,
    cells_per_spot: float = 8.0,
    depth: float | None = None,
    platform_sd: float = 0.5,
    type_sd: float = 0.0,
    dominant: int | None = None,
    rare: int | None = None,
    evenness: float = 4.0,
    depth_sd: float = 0.0,
    ambient: float = 0.0,
) -> ad.AnnData:
    labels, X = cells.obs["cell_type"].to_numpy(), sparse.csr_matrix(cells.X, dtype=np.float64)
    types, G = types_of(labels), X.shape[1]
    frequency = np.sqrt([(labels == t).mean() for t in types])
    P = rng.dirichlet(evenness * frequency / frequency.sum(), n_spots)
    if dominant is not None:
        P *= 0.1
        P[:, dominant] += 0.9
    if rare is not None:
        rare = min(rare, len(types) - 1)
        P[:, rare] = 0
        P *= 0.99 / P.sum(axis=1, keepdims=True)
        P[:, rare] = 0.01
    counts = np.stack(
        [rng.multinomial(n, p) for n, p in zip(np.maximum(rng.poisson(cells_per_spot, n_spots), 1), P, strict=True)]
    )
    factor, Y = rng.lognormal(-(platform_sd**2) / 2, platform_sd, G), np.zeros((n_spots, G))
    for k, t in enumerate(types):
        own = X[np.flatnonzero(labels == t)]
        which = np.stack(
            [np.bincount(rng.integers(own.shape[0], size=n), minlength=own.shape[0]) for n in counts[:, k]]
        )
        Y += (sparse.csr_matrix(which) @ own).toarray() * factor * rng.lognormal(-(type_sd**2) / 2, type_sd, G)
    if ambient:
        mean = np.asarray(X.mean(axis=0)).ravel() * factor
        Y += ambient / (1 - ambient) * Y.sum(axis=1, keepdims=True) * mean / mean.sum()
    thinned = min(depth / Y.sum(axis=1).mean(), 1.0) if depth else 0.7
    Y = rng.poisson(Y * thinned * rng.lognormal(-(depth_sd**2) / 2, depth_sd, (n_spots, 1)))
    spots = ad.AnnData(sparse.csr_matrix(Y.astype(np.float32)), var=pd.DataFrame(index=cells.var_names))
    names = [t.replace("/", "_") for t in types]
    spots.obsm["truth"] = pd.DataFrame(counts / counts.sum(axis=1, keepdims=True), spots.obs_names, names)
    return spots


def mislabelled(share: float) -> Change:
    def change(X: np.ndarray, labels: np.ndarray, rng: Rng) -> tuple[np.ndarray, np.ndarray]:
        types, wrong = np.unique(labels), rng.random(len(labels)) < share
        labels = labels.copy()
        labels[wrong] = [rng.choice(types[types != own]) for own in labels[wrong]]
        return X, labels

    return change


def doublets(share: float) -> Change:
    def change(X: np.ndarray, labels: np.ndarray, rng: Rng) -> tuple[np.ndarray, np.ndarray]:
        return X + X[rng.permutation(len(X))] * (rng.random((len(X), 1)) < share), labels

    return change


def ambient(share: float) -> Change:
    def change(X: np.ndarray, labels: np.ndarray, rng: Rng) -> tuple[np.ndarray, np.ndarray]:
        return X + rng.poisson(share / (1 - share) * X.sum(axis=1, keepdims=True) * X.sum(axis=0) / X.sum()), labels

    return change


def few(*numbers: int) -> Change:
    """Keep so many cells of the types, by their frequency, in turn."""

    def change(X: np.ndarray, labels: np.ndarray, rng: Rng) -> tuple[np.ndarray, np.ndarray]:
        order = rng.permutation(len(labels))
        kept = [order[labels[order] == t][: numbers[j % len(numbers)]] for j, t in enumerate(types_of(labels))]
        rows = np.sort(np.concatenate(kept))
        return X[rows], labels[rows]

    return change


def depths(X: np.ndarray, labels: np.ndarray, rng: Rng) -> tuple[np.ndarray, np.ndarray]:
    types = np.unique(labels)
    kept = dict(zip(types, np.resize([1.0, 0.05, 0.3], len(types)), strict=True))
    return rng.binomial(X.astype(int), np.array([[kept[t]] for t in labels])), labels


def exponentiated(X: np.ndarray, labels: np.ndarray, rng: Rng) -> tuple[np.ndarray, np.ndarray]:
    return np.expm1(np.log1p(1e4 * X / np.maximum(X.sum(axis=1, keepdims=True), 1)).astype(np.float32)), labels


def reads(X: np.ndarray, labels: np.ndarray, rng: Rng) -> tuple[np.ndarray, np.ndarray]:
    """Make reads of a full-length protocol: a bias of every gene, and amplification of every molecule's own."""
    return rng.poisson(20 * X * rng.lognormal(0, 0.5, X.shape[1]) * rng.lognormal(0, 0.8, X.shape)), labels


def tpm(X: np.ndarray, labels: np.ndarray, rng: Rng) -> tuple[np.ndarray, np.ndarray]:
    counts, labels = reads(X, labels, rng)
    return 1e6 * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1), labels


def two_platforms(*shares: float) -> Change:
    """Take such shares of the cells of the types, in turn, from a second, shallower platform."""

    def change(X: np.ndarray, labels: np.ndarray, rng: Rng) -> tuple[np.ndarray, np.ndarray]:
        types = np.unique(labels)
        share = dict(zip(types, np.resize(shares, len(types)), strict=True))
        second = rng.random(len(labels)) < np.array([share[t] for t in labels])
        X = X.copy()
        X[second] = rng.poisson(X[second] * 0.3 * rng.lognormal(-0.245, 0.7, X.shape[1]))
        return X, labels

    return change


def split_types(X: np.ndarray, labels: np.ndarray, rng: Rng) -> tuple[np.ndarray, np.ndarray]:
    """Cut the two most frequent types into three along their first axis."""
    labels = labels.astype(object)
    for t in types_of(labels)[:2]:
        rows = np.flatnonzero(labels == t)
        logs = np.log1p(1e4 * X[rows] / np.maximum(X[rows].sum(axis=1, keepdims=True), 1))
        axis = np.linalg.svd(logs - logs.mean(axis=0), full_matrices=False)[0][:, 0]
        labels[rows] = [f"{t}#{c}" for c in np.argsort(np.argsort(axis)) * 3 // len(rows)]
    return X, labels


CHANGES: dict[str, tuple[Change | None, dict, int | None]] = {
    "nothing": (None, {}, None),
    "5% wrong labels": (mislabelled(0.05), {}, None),
    "20% wrong labels": (mislabelled(0.2), {}, None),
    "20% doublets": (doublets(0.2), {}, None),
    "10% ambient, reference": (ambient(0.1), {}, None),
    "30% ambient, reference": (ambient(0.3), {}, None),
    "10% ambient, tissue": (None, {"ambient": 0.1}, None),
    "30% ambient, tissue": (None, {"ambient": 0.3}, None),
    "all, 1, 2, 5 cells": (few(150, 1, 2, 5), {}, None),
    "5 cells": (few(5), {}, None),
    "2 cells": (few(2), {}, None),
    "depth by type": (depths, {}, None),
    "exponentiated logs": (exponentiated, {}, None),
    "TPM": (tpm, {}, None),
    "reads": (reads, {}, None),
    "two platforms": (two_platforms(0.5), {}, None),
    "two platforms, unbalanced": (two_platforms(0.05, 0.5, 0.95), {}, None),
    "types split in three": (split_types, {}, None),
    "a type of 1%": (None, {"rare": 4}, None),
    "a type of 90%": (None, {"dominant": 0}, None),
    "1 to 3 cells a spot": (None, {"cells_per_spot": 1.5}, None),
    "100 cells, deep": (None, {"cells_per_spot": 100, "depth": 20000.0}, None),
    "5 spots": (None, {"n_spots": 5}, None),
    "12 spots": (None, {"n_spots": 12}, None),
    "25 spots": (None, {"n_spots": 25}, None),
    "30 markers": (None, {}, 30),
    "100 markers": (None, {}, 100),
    "platform sd 0": (None, {"platform_sd": 0.0}, None),
    "platform sd 1": (None, {"platform_sd": 1.0}, None),
    "platform sd 0.3 by type": (None, {"type_sd": 0.3}, None),
    "depth sd 1.5": (None, {"depth_sd": 1.5}, None),
    "all types everywhere": (None, {"evenness": 100.0}, None),
    "one or two types a spot": (None, {"evenness": 0.3}, None),
}


def markers(reference: ad.AnnData, n: int) -> np.ndarray:
    X, labels = reference.X.toarray(), reference.obs["cell_type"].to_numpy()
    X = 1e4 * X / np.maximum(X.sum(axis=1, keepdims=True), 1)
    means = np.stack([X[labels == t].mean(axis=0) for t in np.unique(labels)])
    rest = (means.sum(axis=0) - means) / (len(means) - 1)
    return np.unique(np.argsort(-np.log2((means + 0.5) / (rest + 0.5)), axis=1)[:, : max(n // len(means), 2)])


def make(name: str, seed: int, what: str) -> tuple[ad.AnnData, ad.AnnData]:
    change, tissue, n_genes = CHANGES[what]
    cells = load(name)
    cells.obs["cell_type"] = cells.obs["cell_type"].astype(str)
    often = cells.obs["cell_type"].value_counts()
    cells = cells[cells.obs["cell_type"].isin(often.index[often >= 12])].copy()
    reference, rest = um.datasets.split_cells(cells, "cell_type", rng=seed)
    settings = {"depth": DEPTH.get(name), "platform_sd": 0.5 if name in DEPTH else 0.0} | tissue
    spots, rng = pool_spots(rest, np.random.default_rng(seed), **settings), np.random.default_rng(seed + 1000)
    X, labels = few(150)(reference.X.toarray().astype(float), reference.obs["cell_type"].to_numpy(), rng)
    if change is not None:
        X, labels = change(X, labels, rng)
    obs = pd.DataFrame({"cell_type": labels.astype(str)}, index=[f"cell_{i}" for i in range(len(labels))])
    reference = ad.AnnData(sparse.csr_matrix(X.astype(np.float32)), obs, pd.DataFrame(index=cells.var_names))
    if n_genes is None:
        return spots, reference
    genes = markers(reference, n_genes)
    return spots[:, genes].copy(), reference[:, genes].copy()


def errors(spots: ad.AnnData, reference: ad.AnnData) -> dict:
    row = {}
    for method in METHODS:
        um.tl.deconvolve(spots, reference, groupby="cell_type", method=method, n_jobs=1)
        found = spots.obsm["deconvolve"]
        found = found.T.groupby([str(t).split("#")[0] for t in found]).sum().T
        truth = spots.obsm["truth"].reindex(columns=found.columns, fill_value=0.0)
        row[method] = float(np.sqrt(((found - truth) ** 2).to_numpy().mean()))
        row[f"r {method}"] = float(found.corrwith(truth).fillna(0.0)[truth.std() > 0].mean())
        if method == "auto":
            row["taken out"] = float(spots.uns["deconvolve"]["chosen"]["contamination"].split()[0])
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", choices=list(CHANGES), default=list(CHANGES))
    parser.add_argument("--data", nargs="+", default=["pbmc_facs", "baron_pancreas_h1", "lymph"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[201, 202])
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    um.settings.progress = False
    if not DATA.exists():
        print("needs ../shared/data beside the project")
        return
    columns = ["auto", "poisson", "nnls", "simplex", "ratio", "worst", "r auto", "r poisson", "r nnls", "taken out"]
    print(f"{'':28s}" + "".join(f"{c:>10s}" for c in columns))
    for what in options.only:
        table = pd.DataFrame([errors(*make(name, seed, what)) for name in options.data for seed in options.seeds])
        ratio = table["auto"] / table[list(METHODS[1:])].min(axis=1)
        row = table.mean()
        row["ratio"], row["worst"] = np.exp(np.log(ratio).mean()), ratio.max()
        print(f"{what:28s}" + "".join(f"{row[c]:10.3f}" for c in columns), flush=True)


if __name__ == "__main__":
    main()
