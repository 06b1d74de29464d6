"""Archetypes with `smoothing="auto"`: the strength, and agreement with regions of the tissue with and without it.

Run:  python benchmarks/archetypes_smoothing.py
Agreement is the adjusted Rand index of the heaviest archetype and the region, for the number that `"auto"` takes and for as many
archetypes as regions. Beside it: the strength where the same spots have other spots' neighbours (shuffled).
Tissues: bands of five compositions whose spots pool 10 to 29 cells of a pancreas or of blood (`baron_pancreas_h1`,
`pbmc3k`); regions of a pancreatic cancer (`st_pdac_a`); osmFISH's cells of a cortex in 300 and 600 squares, labelled where one
region holds most cells (`osmfish_sscortex`); layers of an olfactory bulb, one or two spots wide (`st_mob_rep11`).
"""

import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
from scipy import sparse
from sklearn.metrics import adjusted_rand_score
from sklearn.neighbors import NearestNeighbors

import unmix as um

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
NOWHERE = ("NA", "nan", "Excluded")


def banded(cells: ad.AnnData, seed: int, side: int = 16, n_bands: int = 5) -> ad.AnnData:
    """Return spots in wavy bands; a spot's cells come from its own band or, near a border, from the next one."""
    rng = np.random.default_rng(seed)
    label = cells.obs["cell_type"].astype(str).to_numpy()
    types = [name for name in np.unique(label) if name != "nan" and (label == name).sum() >= 12]
    rows = [np.flatnonzero(label == name) for name in types]
    X = sparse.csr_array(cells.X).astype(float)
    mixes = rng.dirichlet(np.full(len(types), 0.5), n_bands)
    at = np.array([(i, j) for i in range(side) for j in range(side)], dtype=float)
    place = at[:, 0] + 1.2 * np.sin(at[:, 1] / 3)
    borders = np.quantile(place, np.arange(1, n_bands) / n_bands)
    band, counts = np.digitize(place, borders), np.zeros((len(at), X.shape[1]))
    for i in range(len(at)):
        own = rng.dirichlet(8 * mixes[band[i]] + 1e-3)
        from_band = np.digitize(place[i] + 0.8 * rng.normal(size=rng.integers(10, 30)), borders)
        drawn = [rng.choice(len(types), p=own if b == band[i] else mixes[b]) for b in from_band]
        counts[i] = X[[rng.choice(rows[t]) for t in drawn]].sum(axis=0)
    rate = counts * rng.lognormal(0, 0.5, X.shape[1])
    rate *= rng.lognormal(np.log(8000), 0.5, (len(at), 1)) / rate.sum(axis=1, keepdims=True)
    spots = ad.AnnData(sparse.csr_matrix(rng.poisson(rate).astype(np.float32)), obsm={"spatial": at})
    spots.obs["region"] = [f"band {b}" for b in band]
    return spots


def squares(cells: ad.AnnData, n: int) -> ad.AnnData:
    """Return the sums of cells in about n squares of their tissue."""
    at = np.asarray(cells.obsm["spatial"], dtype=float)
    width = np.sqrt(np.prod(np.ptp(at, axis=0)) / n)
    place, square = np.unique(np.floor((at - at.min(axis=0)) / width), axis=0, return_inverse=True)
    member = pd.get_dummies(square.ravel()).to_numpy(dtype=float).T
    shares = pd.get_dummies(cells.obs["region"].astype(str))
    part = pd.DataFrame(member @ shares.to_numpy(dtype=float), columns=shares.columns)
    region = part.idxmax(axis=1).where(part.max(axis=1) > part.sum(axis=1) / 2, "NA")
    counts = sparse.csr_matrix((member @ sparse.csr_matrix(cells.X)).astype(np.float32))
    spots = ad.AnnData(counts, obsm={"spatial": place})
    spots.obs["region"] = region.to_numpy()
    return spots[counts.sum(axis=1).A1 > 20].copy()


def tissues() -> Iterator[tuple[str, ad.AnnData]]:
    for folder in ("baron_pancreas_h1", "pbmc3k"):
        if (SHARED / folder).is_dir():
            cells = ad.read_h5ad(next((SHARED / folder).glob("*.h5ad")))
            for seed in (11, 12, 13):
                yield f"bands of {folder}, seed {seed}", banded(cells, seed)
    if (SHARED / "st_pdac_a").is_dir():
        yield "st_pdac_a", ad.read_h5ad(SHARED / "st_pdac_a" / "spatial.h5ad")
    if (SHARED / "osmfish_sscortex").is_dir():
        cells = ad.read_h5ad(SHARED / "osmfish_sscortex" / "cells.h5ad")
        for n in (300, 600):
            yield f"osmfish_sscortex, {n} squares", squares(cells, n)
    if (SHARED / "st_mob_rep11").is_dir():
        spots = ad.read_h5ad(SHARED / "st_mob_rep11" / "spatial.h5ad")
        spots.obs["region"] = spots.obs["layer"].astype(str)
        yield "st_mob_rep11", spots


def measure(spots: ad.AnnData) -> dict[str, float]:
    at = NearestNeighbors(n_neighbors=6).fit(spots.obsm["spatial"])
    graph = sparse.csr_matrix(at.kneighbors_graph())
    region = spots.obs["region"].astype(str).to_numpy()
    known = ~np.isin(region, NOWHERE)
    row: dict[str, float] = {"spots": spots.n_obs, "regions": len(set(region[known]))}
    spots.obsp["spatial_connectivities"] = graph
    for title, how in (("alone", None), ("smoothed", "auto")):
        for number in ("auto", int(row["regions"])):
            found = um.tl.starfysh_archetypes(spots, number, smoothing=how, resolution=None, copy=True)
            heaviest = um.get.archetypes(found).to_numpy().argmax(axis=1)
            name = title if number == "auto" else f"{title}, as many"
            row[name] = float(adjusted_rand_score(region[known], heaviest[known]))
    row["strength"] = found.uns["archetypes"]["smoothing"]
    other = np.random.default_rng(0).permutation(spots.n_obs)
    spots.obsp["spatial_connectivities"] = sparse.csr_matrix(graph[other][:, other])
    found = um.tl.starfysh_archetypes(spots, 2, smoothing="auto", resolution=None, copy=True)
    return {**row, "shuffled": found.uns["archetypes"]["smoothing"]}


def main() -> None:
    warnings.simplefilter("ignore")
    rows = {name: measure(spots) for name, spots in tissues()}
    sys.stdout.write(pd.DataFrame(rows).T.round(2).to_string() + "\n")


if __name__ == "__main__":
    main()
