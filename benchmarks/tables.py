"""Deconvolution by a table: the mixtures that the default was developed on, none of them one of the shared cases.

    python benchmarks/tables.py             two seeds; a quarter of an hour
    python benchmarks/tables.py --seeds 5   another one

Half of the cells make a table of types, in counts per million, the other half are mixed; the truth is in shares of RNA. Printed
is the RMSE over that of Poisson likelihood, geometric means over the cases of a kind. Real cells are read from ../shared/data
beside the project.
"""

import argparse
import warnings
import zlib
from collections.abc import Iterator

import anndata as ad
import numpy as np
import pandas as pd
from development import COARSE, DATA, load
from scipy import sparse

import unmix as um

METHODS = ("auto", "poisson", "nnls", "nusvr")
NAMES = ("pbmc_facs", "baron_pancreas_h1", "pbmc3k", "seqfish", "lymph", "cerebellum")
PAIRS = (("pbmc_facs", "pbmc3k"), ("pbmc3k", "pbmc_facs"))
KINDS: dict[str, dict] = {
    "as the table": {},
    "counts of 400 cells": {"n_cells": 400, "unit": None},
    "platform .3": {"platform": 0.3},
    "platform .6": {"platform": 0.6},
    "samples differ .3": {"samples": 0.3},
    "types differ .4": {"errors": 0.4},
    "all three .3": {"platform": 0.3, "samples": 0.3, "errors": 0.3},
    "one type not in the table": {"platform": 0.3, "missing": True},
    "three types": {"platform": 0.3, "n_types": 3},
    "table of 40 markers a type": {"markers": 40},
    "markers, platform .3": {"markers": 40, "platform": 0.3},
    "markers, all three .3": {"markers": 40, "platform": 0.3, "samples": 0.3, "errors": 0.3},
    "arrays by arrays": {"arrays": "both"},
    "arrays by counts": {"arrays": "samples", "platform": 0.3},
    "spots of 1000 counts": {"n_cells": 10, "depth": 1000, "platform": 0.3},
    "spots of 1000 counts, markers": {"n_cells": 10, "depth": 1000, "platform": 0.3, "markers": 40},
}
Cells = tuple[sparse.csr_matrix, np.ndarray]


def per_million(Y: np.ndarray) -> np.ndarray:
    return Y / np.maximum(Y.sum(axis=1, keepdims=True), 1e-300) * 1e6


def table_of(cells: Cells, types: list[str]) -> np.ndarray:
    X, labels = cells
    return per_million(np.stack([np.asarray(X[labels == t].sum(axis=0)).ravel() for t in types])).T


def mix(cells: Cells, types: list[str], n: int, n_cells: int, alpha: float, rng: np.random.Generator) -> tuple:
    """Return sums of cells drawn with replacement, and the types' shares of the RNA."""
    X, labels = cells
    rows = [np.flatnonzero(labels == t) for t in types]
    total = np.asarray(X.sum(axis=1)).ravel()
    drawn = np.zeros((n, X.shape[0]))
    for i, shares in enumerate(rng.dirichlet(np.full(len(types), alpha), n)):
        for own, k in zip(rows, rng.multinomial(n_cells, shares), strict=True):
            np.add.at(drawn[i], rng.choice(own, k), 1.0)
    rna = np.stack([(drawn * total)[:, own].sum(axis=1) for own in rows], axis=1)
    return np.asarray(drawn @ X), rna / rna.sum(axis=1, keepdims=True)


def highest(S: np.ndarray, n: int) -> np.ndarray:
    """Return the n genes of every type that exceed its next type by most."""
    logs = np.log2(S + 20)
    excess = [logs[:, k] - np.delete(logs, k, axis=1).max(axis=1) for k in range(S.shape[1])]
    return np.unique(np.concatenate([np.argsort(-e, kind="stable")[:n] for e in excess]))


def make(
    cells: Cells, S: np.ndarray, types: list[str], alpha: float, rng: np.random.Generator, **kind: object
) -> tuple:
    """Return samples x genes, the table, and the truth of one case."""
    n = 40 if "depth" in kind else int(rng.integers(5, 41))
    n_cells = kind.get("n_cells") or int(np.exp(rng.uniform(np.log(400), np.log(5000))))
    if "n_types" in kind:
        chosen = np.sort(rng.choice(len(types), kind["n_types"], replace=False))
        types, S = [types[k] for k in chosen], S[:, chosen]
    Y, truth = mix(cells, types, n, n_cells, alpha, rng)
    Y = per_million(Y) if kind.get("unit", 1e6) else Y
    Y = Y * rng.lognormal(0, kind.get("platform", 0.0), len(S)) * rng.lognormal(0, kind.get("samples", 0.0), Y.shape)
    S = S * rng.lognormal(0, kind.get("errors", 0.0), S.shape)
    if "missing" in kind:
        left = np.delete(np.arange(len(types)), rng.integers(len(types)))
        S, truth = S[:, left], truth[:, left] / truth[:, left].sum(axis=1, keepdims=True)
    if "depth" in kind:
        Y = rng.poisson(per_million(Y) * kind["depth"] / 1e6).astype(float)
    used = S.any(axis=1)
    if "arrays" in kind:
        used &= (S > 20).any(axis=1)
        floor, top = rng.uniform(20, 80) * rng.lognormal(0, 0.3, len(S)), rng.uniform(3000, 10000)
        Y = (floor + Y / (1 + Y / top)) * rng.lognormal(0, 0.1, Y.shape)
        if kind["arrays"] == "both":
            S = (floor[:, None] + S / (1 + S / top)) * rng.lognormal(0, 0.1, S.shape)
    if "markers" in kind:
        used &= np.isin(np.arange(len(S)), highest(S, kind["markers"]))
    return Y[:, used], S[used], truth


def sources(seed: int) -> Iterator[tuple[str, Cells, Cells]]:
    """Yield a name, the cells of the table and those that are mixed."""
    for name in NAMES:
        cells = load(name)
        number = cells.obs["cell_type"].value_counts()
        few = 20 if name in ("lymph", "cerebellum") else 40
        cells = cells[cells.obs["cell_type"].isin(number.index[number >= few])].copy()
        yield name, *(plain(part) for part in um.datasets.split_cells(cells, "cell_type", rng=seed + 100))
    for names in PAIRS:
        pair = [load(name) for name in names]
        shared = pair[0].var_names.intersection(pair[1].var_names)
        for cells in pair:
            cells.obs["cell_type"] = cells.obs["cell_type"].map(COARSE)
        yield f"{names[1]} by {names[0]}", *(plain(cells[cells.obs["cell_type"].notna(), shared]) for cells in pair)


def plain(cells: ad.AnnData) -> Cells:
    return sparse.csr_matrix(cells.X).astype(float), cells.obs["cell_type"].astype(str).to_numpy()


def measure(Y: np.ndarray, S: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    genes = [f"gene_{g}" for g in range(len(S))]
    samples = ad.AnnData(Y, var=pd.DataFrame(index=genes))
    table = pd.DataFrame(S, index=genes, columns=[f"type_{k}" for k in range(S.shape[1])])
    errors = {}
    for method in METHODS:
        um.tl.deconvolve(samples, table, method=method, n_jobs=1)
        found = samples.obsm["deconvolve"].fillna(1 / S.shape[1]).to_numpy()
        errors[method] = float(np.sqrt(np.mean((found - truth) ** 2)))
    return errors


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[3, 4])
    seeds = parser.parse_args().seeds
    warnings.simplefilter("ignore")
    um.settings.progress = False
    pd.set_option("display.width", 200)
    if not DATA.exists():
        print("needs ../shared/data beside the project")
        return
    rows = []
    for seed in seeds:
        for name, reference, cells in sources(seed):
            types = sorted(set(reference[1]))
            S = table_of(reference, types)
            for kind, options in KINDS.items():
                for alpha in (0.3, 3.0):
                    rng = np.random.default_rng([seed, zlib.crc32(f"{name} {kind} {alpha}".encode())])
                    errors = measure(*make(cells, S, types, alpha, rng, **options))
                    rows.append({"data": name, "kind": kind} | errors)
    cases = pd.DataFrame(rows)
    relative = np.log(cases[list(METHODS)].div(cases["poisson"], axis=0))
    for by in ("kind", "data"):
        table = np.exp(relative.groupby(cases[by], sort=False).mean())
        table["RMSE poisson"] = cases.groupby(by)["poisson"].mean()
        print(table.to_string(float_format="{:.3f}".format), "\n")
    print(f"{len(cases)} cases:", np.exp(relative.mean()).round(3).to_dict())
    print("worst case:", np.exp(relative.max()).round(2).to_dict())
    print("cases where auto is worse:", f"{(relative['auto'] > 0).mean():.0%}")


if __name__ == "__main__":
    main()
