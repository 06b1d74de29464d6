"""Layers of an olfactory bulb without labels: archetypes beside k-means and Leiden on the same components.

Run:  python benchmarks/archetypes_layers.py [parts]
Parts: layers, markers, subsets; all of them by default. Subsets leave a random tenth of the spots out, ten times.
Data: `st_mob_rep11` (Stahl et al., Science 353, 2016), five annotated layers. Agreement is the adjusted Rand index over
annotated spots. Leiden at its default resolution, and at the one that gives five clusters; k-means with five, median of
ten seeds. The markers sought are those that the literature names for a layer:
granule cells: Penk (Stahl et al., 2016), Meis2 (Allen et al., J. Mol. Histol. 38, 2007); mitral cells: Tbx21 (Faedo et al.,
Mech. Dev. 116, 2002), Reln (Alcantara et al., J. Neurosci. 18, 1998); periglomerular cells: Th, Calb2 (Kosaka et al.,
Neurosci. Res. 23, 1995); nerve layer: Npy (Ubink et al., Neuroscience 60, 1994), Kctd12 (Stahl et al., 2016). The outer
plexiform layer holds dendrites, and no gene of its own is sought.
"""

import sys
import warnings
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import scanpy as sc
from scipy import sparse
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score

import unmix as um

FOLDER = Path(__file__).resolve().parents[2] / "shared" / "data" / "st_mob_rep11"
PUBLISHED = {
    "1: Granular Cell Layer": ["Penk", "Meis2"],
    "2: Mitral Cell Layer": ["Tbx21", "Reln"],
    "3: Outer Plexiform Layer": [],
    "4: Glomerular Layer": ["Th", "Calb2"],
    "5: Olfactory Nerve Layer": ["Npy", "Kctd12"],
}


def components(spots: ad.AnnData, how: dict) -> np.ndarray:
    """Return the rows in the space that the archetypes were fitted in."""
    counts = sparse.csr_array(spots.X).astype(float)
    totals = np.asarray(counts.sum(axis=1)).ravel()
    scaled = counts[:, spots.var_names.get_indexer(how["genes"])]
    scaled.data = np.log1p(scaled.data * np.repeat(how["target"] / totals, np.diff(scaled.indptr)))
    return scaled @ how["loadings"] - how["mean"] @ how["loadings"]


def leiden(X: np.ndarray, resolution: float) -> np.ndarray:
    cells = ad.AnnData(np.zeros((len(X), 1), dtype=np.float32), obsm={"X_pca": X})
    sc.pp.neighbors(cells, use_rep="X_pca", random_state=0)
    sc.tl.leiden(cells, resolution=resolution, flavor="igraph", n_iterations=-1, random_state=0)
    return cells.obs["leiden"].to_numpy().astype(int)


def agreements(spots: ad.AnnData) -> tuple[dict[str, float], str]:
    """Return the adjusted Rand index of every method, and what the archetypes were fitted to."""
    layer = spots.obs["layer"].astype(str).to_numpy()
    found = um.tl.starfysh_archetypes(spots, resolution=None, copy=True)
    W, entry = um.get.archetypes(found).to_numpy(), found.uns["archetypes"]
    fitted = (found.obs["archetypes_status"] == "ok").to_numpy()
    X = components(spots, entry["reduction"])
    known = np.isin(layer, list(PUBLISHED)) & fitted

    def agreement(labels: np.ndarray) -> float:
        return float(adjusted_rand_score(layer[known], labels[known]))

    def among_fitted(labels: np.ndarray) -> float:
        full = np.full(len(layer), -1)
        full[fitted] = labels
        return agreement(full)

    rows = {"archetypes, auto": agreement(W.argmax(axis=1))}
    for K in (5, 8):
        other = um.tl.starfysh_archetypes(spots, K, resolution=None, copy=True)
        rows[f"archetypes, {K}"] = agreement(um.get.archetypes(other).to_numpy().argmax(axis=1))
    X = X[fitted]
    means = [among_fitted(KMeans(5, n_init=10, random_state=seed).fit_predict(X)) for seed in range(10)]
    rows["k-means, 5"] = float(np.median(means))
    rows["Leiden, resolution 1"] = among_fitted(leiden(X, 1.0))
    five = next((c for r in np.arange(0.2, 2.0, 0.1) if (c := leiden(X, r)).max() == 4), None)
    rows["Leiden, 5 clusters"] = np.nan if five is None else among_fitted(five)
    shallow = int((~fitted).sum())
    return rows, f"{spots.n_obs} spots, {shallow} shallow, {X.shape[1]} components, auto: {W.shape[1]} archetypes"


def subsets(spots: ad.AnnData, n_subsets: int = 10) -> None:
    """Print the quartiles of the agreement over random nine tenths of the spots, and how often archetypes are no worse."""
    rng, rows = np.random.default_rng(0), []
    for _ in range(n_subsets):
        kept = np.sort(rng.permutation(spots.n_obs)[: int(0.9 * spots.n_obs)])
        rows.append(agreements(spots[kept].copy())[0])
    table = pd.DataFrame(rows)
    quartiles = table.quantile([0, 0.25, 0.5, 0.75, 1]).T
    quartiles["auto no worse in"] = [(table["archetypes, auto"] >= table[name]).sum() for name in table]
    sys.stdout.write(f"\n{n_subsets} random nine tenths of the spots\n{quartiles.round(3).to_string()}\n")


def layer_markers(spots: ad.AnnData) -> None:
    """Print which published markers of a layer are among those of the archetype that lies most in it.

    And in which archetype's profile each of them is highest: a layer whose expression lies between those of its
    neighbours is no corner of the tissue, and has no archetype of its own.
    """
    um.tl.starfysh_archetypes(spots, resolution=None)
    W, layer = um.get.archetypes(spots), spots.obs["layer"].astype(str).to_numpy()
    profiles = spots.varm["archetypes"]
    for name, genes in PUBLISHED.items():
        rise = W[layer == name].mean() - W[layer != name].mean()
        best = um.get.markers(spots, group=rise.idxmax(), max_q=0.01, min_log_fold_change=0.5)["gene"].astype(str)
        found = [f"{gene} (rank {list(best).index(gene) + 1})" for gene in genes if gene in set(best)]
        highest = ", ".join(f"{gene} in {profiles.loc[gene].idxmax()}" for gene in genes)
        sys.stdout.write(
            f"{name:26s} {rise.idxmax()} (mean weight {W[layer == name].mean().max():.2f}): {', '.join(found) or 'none'}; "
            f"highest profile: {highest or '-'}; best: {', '.join(best[:6])}\n"
        )


def main() -> None:
    warnings.simplefilter("ignore")
    if not FOLDER.is_dir():
        sys.stdout.write("the data is not here\n")
        return
    parts = sys.argv[1:] or ["layers", "markers", "subsets"]
    spots = ad.read_h5ad(FOLDER / "spatial.h5ad")
    if "layers" in parts:
        rows, title = agreements(spots)
        sys.stdout.write(f"{title}\n{pd.Series(rows).round(3).to_string()}\n")
    if "markers" in parts:
        layer_markers(spots)
    if "subsets" in parts:
        subsets(spots)


if __name__ == "__main__":
    main()
