"""Denoising by molecular cross-validation, and clusters on the latent coordinates, on real data beside the checkout.

Run: python benchmarks/denoising.py [thinning] [clusters] [--data ../shared/data] [--scvi-epochs 40]
Thinning: every molecule of pbmc3k goes to a training part (9 in 10) or a test part; what a method says of the training part
is scored on the test part by the squared error of log(1 + counts per 10,000) and by the Poisson loss per entry, test counts
given means. Clusters: Leiden at the resolution that gives as many clusters as there are types. scVI is run where it is
installed, at its better learning rate (4e-3, no KL warm-up).
"""

import argparse
import importlib.util
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import anndata as ad
import numpy as np
from scipy import sparse

import unmix as um

HAS_SCVI = importlib.util.find_spec("scvi") is not None
SHARE = 0.9


def thinned(X: sparse.csr_matrix, rng: np.random.Generator) -> tuple[sparse.csr_matrix, sparse.csr_matrix]:
    """Return the training and the test molecules."""
    train, test = X.copy(), X.copy()
    train.data = rng.binomial(X.data.astype(np.int64), SHARE).astype(np.float32)
    test.data = X.data.astype(np.float32) - train.data
    for part in (train, test):
        part.eliminate_zeros()
    return train, test


def errors(mean: np.ndarray, test: sparse.csr_matrix) -> tuple[float, float]:
    """Return squared error of log(1 + counts per 10,000) and Poisson loss per entry."""
    mean = np.maximum(mean, 0).astype(np.float32) * np.float32((1 - SHARE) / SHARE)
    truth = test.toarray()
    poisson = float((mean - truth * np.log(np.maximum(mean, 1e-8))).mean(dtype=np.float64))
    for matrix in (mean, truth):
        matrix *= 1e4 / np.maximum(matrix.sum(1, keepdims=True), 1e-9)
        np.log1p(matrix, out=matrix)
    return float(np.square(mean - truth).mean(dtype=np.float64)), poisson


def methods(train: sparse.csr_matrix, scvi_epochs: int) -> Iterator[tuple[str, np.ndarray]]:
    """Yield what each method says of the training part."""
    totals = np.asarray(train.sum(1))
    scaled = sparse.csr_matrix(train.multiply(np.median(totals) / totals))
    yield "none", train.toarray()
    yield "gene mean", (totals / totals.sum()) @ np.asarray(train.sum(0))
    for rank in (5, 10, 20, 50):
        U, s, Vt = sparse.linalg.svds(scaled, k=rank, random_state=0)
        yield f"truncated SVD, rank {rank}", (U * s) @ Vt * (totals / np.median(totals))
    options = {"nb": {"likelihood": "nb"}, "nb, gene-cell": {"likelihood": "nb", "dispersion": "gene-cell"}}
    for name, given in options.items():
        adata = ad.AnnData(train)
        um.tl.autoencoder(adata, **given, denoise=True)
        yield f"tl.autoencoder, {name}", adata.layers["ae_denoised"]
    adata = ad.AnnData(train)
    um.tl.zinb_ae(adata, denoise=True)
    yield "tl.zinb_ae", adata.layers["zinb_ae_denoised"]
    if HAS_SCVI:
        from _scvi import ScVI

        yield f"scVI, {scvi_epochs} epochs", ScVI(train).train(scvi_epochs, lr=4e-3, warmup=None).denoised()


def thinning(options: argparse.Namespace) -> None:
    """Print the errors of every method on pbmc3k."""
    X = sparse.csr_matrix(ad.read_h5ad(options.data / "pbmc3k" / "counts.h5ad").X)
    X = X[:, np.asarray((X > 0).sum(0)).ravel() >= 10]
    train, test = thinned(X, np.random.default_rng(0))
    print(f"pbmc3k, {X.shape[0]} x {X.shape[1]}, molecules {SHARE:.0%} / {1 - SHARE:.0%}")
    print(f"{'':<28}{'MSE':>8}{'Poisson':>10}{'CPU s':>8}")
    start = time.process_time()
    for name, mean in methods(train, options.scvi_epochs):
        seconds = time.process_time() - start
        print("{:<28}{:8.4f}{:10.5f}{:8.1f}".format(name, *errors(mean, test), seconds), flush=True)
        start = time.process_time()


def coordinates(adata: ad.AnnData, scvi_epochs: int) -> Iterator[tuple[str, np.ndarray]]:
    """Yield every method's coordinates."""
    import scanpy as sc

    normal = ad.AnnData(adata.X.astype(np.float32))
    sc.pp.normalize_total(normal)
    sc.pp.log1p(normal)
    sc.pp.pca(normal, n_comps=30, random_state=0)
    yield "PCA, 30", normal.obsm["X_pca"]
    um.tl.autoencoder(adata)
    yield "tl.autoencoder", adata.obsm["X_ae"]
    um.tl.autoencoder(adata, 10, kind="vae")
    yield "tl.autoencoder, vae", adata.obsm["X_vae"]
    um.tl.zinb_ae(adata)
    yield "tl.zinb_ae", adata.obsm["X_zinb_ae"]
    if HAS_SCVI:
        from _scvi import ScVI

        X = sparse.csr_matrix(adata.X)
        yield f"scVI, {scvi_epochs} epochs", ScVI(X).train(scvi_epochs, lr=4e-3, warmup=None).latent()


def leiden(Z: np.ndarray, n_clusters: int) -> np.ndarray:
    """Return clusters at the first resolution, by bisection, that gives the number asked for or comes nearest."""
    import scanpy as sc

    cells = ad.AnnData(np.zeros((len(Z), 1), np.float32), obsm={"Z": Z})
    sc.pp.neighbors(cells, use_rep="Z", random_state=0)
    low, high, best = 0.01, 4.0, None
    for _ in range(14):
        middle = float(np.sqrt(low * high))
        sc.tl.leiden(cells, resolution=middle, flavor="igraph", n_iterations=2, directed=False, random_state=0)
        found = cells.obs["leiden"].astype(int).to_numpy()
        k = found.max() + 1
        if best is None or abs(k - n_clusters) < abs(best.max() + 1 - n_clusters):
            best = found
        if k == n_clusters:
            break
        low, high = (middle, high) if k < n_clusters else (low, middle)
    return best


def clusters(options: argparse.Namespace) -> None:
    """Print agreement of clusters with the types that are known."""
    from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

    for name, label in (("baron_pancreas_h1", None), ("pbmc_facs", "facs_population")):
        adata = ad.read_h5ad(options.data / name / "counts.h5ad")
        label = label or next(c for c in adata.obs if 2 <= adata.obs[c].nunique() <= 30)
        adata.X = sparse.csr_matrix(adata.X).astype(np.float32)
        adata = adata[:, np.asarray((adata.X > 0).sum(0)).ravel() >= 10].copy()
        truth = adata.obs[label].astype(str).to_numpy()
        print(f"{name}, {adata.n_obs} x {adata.n_vars}, {len(set(truth))} types")
        print(f"{'':<24}{'clusters':>9}{'ARI':>7}{'NMI':>7}{'CPU s':>8}")
        start = time.process_time()
        for method, Z in coordinates(adata, options.scvi_epochs):
            seconds = time.process_time() - start
            found = leiden(np.ascontiguousarray(Z, dtype=np.float32), len(set(truth)))
            scores = adjusted_rand_score(truth, found), normalized_mutual_info_score(truth, found)
            print("{:<24}{:9}{:7.3f}{:7.3f}{:8.1f}".format(method, found.max() + 1, *scores, seconds), flush=True)
            start = time.process_time()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = {"thinning": thinning, "clusters": clusters}
    parser.add_argument("parts", nargs="*", choices=[[], *parts])
    parser.add_argument("--data", type=Path, default=Path(__file__).resolve().parents[2] / "shared" / "data")
    parser.add_argument("--scvi-epochs", type=int, default=40)
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    for name in options.parts or parts:
        parts[name](options)


if __name__ == "__main__":
    main()
