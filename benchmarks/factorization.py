"""Factorisations beside scikit-learn, in one process on one thread.

Run `OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 python benchmarks/factorization.py [nmf] [real] [kl] [metagenes]`. CPU
seconds to a level of the loss, medians of three; "real" and "metagenes" need `../shared/data/pbmc3k`.
"""

import sys
import time
import warnings
from pathlib import Path

import numpy as np
from anndata import read_h5ad
from scipy import sparse
from sklearn.decomposition import non_negative_factorization

from unmix.core.consensus import combine
from unmix.core.factorization import Walk, nmf
from unmix.core.kl import nmf_kl
from unmix.core.replicates import replicate
from unmix.core.starts import random_start

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
K = 15


def synthetic(n=10_000, m=2_000, density=0.1):
    rng = np.random.default_rng(0)
    W = rng.dirichlet(np.full(K, 0.2), n) * rng.lognormal(0, 0.4, (n, 1))
    rate = W @ (rng.gamma(0.3, 1.0, (K, m)) * rng.gamma(0.6, 1.0, m))
    low, high = 1e-9, 1e6
    for _ in range(60):
        size = np.sqrt(low * high)
        low, high = (size, high) if (1 - np.exp(-size * rate[:400])).mean() < density else (low, size)
    X = sparse.csr_matrix(rng.poisson(size * rate).astype(np.float32))
    X.sort_indices()
    return X


def lognormal(X):
    total = np.maximum(np.asarray(X.sum(axis=1)).ravel(), 1)
    X = sparse.csr_matrix(sparse.diags((np.median(total) / total).astype(np.float32)) @ X)
    X.data = np.log1p(X.data)
    return X


def pbmc(n_top=2_000):
    X = sparse.csr_matrix(read_h5ad(next((DATA / "pbmc3k").glob("*.h5ad"))).X, dtype=np.float32)
    X = lognormal(X)
    mean = np.asarray(X.mean(axis=0)).ravel()
    fano = np.where(mean > 0, (np.asarray(X.multiply(X).mean(axis=0)).ravel() - mean**2) / np.maximum(mean, 1e-12), 0)
    X = X[:, np.sort(np.argsort(-fano)[:n_top])]
    X.sort_indices()
    return X


def seconds(run, repeats=3):
    """CPU seconds, median."""
    run()
    found = []
    for _ in range(repeats):
        start = time.process_time()
        run()
        found.append(time.process_time() - start)
    return float(np.median(found))


def half_squares(X, W, H):
    G = (W.T @ W).astype(float) * (H @ H.T)
    return 0.5 * float(X.multiply(X).sum(dtype=float) - 2 * ((X @ H.T) * W).sum(dtype=float) + G.sum())


def kl(X, W, H):
    X = X.tocoo()
    fitted = np.einsum("pk,pk->p", W[X.row], H.T[X.col]).astype(float)
    return float((X.data * np.log(X.data / fitted) - X.data).sum() + W.sum(axis=0, dtype=float) @ H.sum(axis=1))


def peer(X, start, n, solver="cd", init="custom", **kw):
    if init == "custom":
        kw |= {"W": start.W.astype(np.float32), "H": start.H.astype(np.float32)}
    kw |= {"n_components": K, "init": init, "solver": solver, "tol": 0, "max_iter": n, "random_state": 0}
    return non_negative_factorization(X, **kw)[:2]


def to_level(run, losses, level):
    """CPU seconds of the fewest iterations that reach the level; None where they do not."""
    n = next((n for n, loss in losses if loss <= level), None)
    return None if n is None else seconds(lambda: run(n))


def summary(name, found):
    reached = [t for t in found if t is not None]
    typical = float(np.median(reached)) if reached else np.nan
    print(f"  {name}: {typical:.3f} s, median of the starts that reach it ({len(reached)} of {len(found)})")
    return typical


def compare_frobenius(name, X):
    """CPU seconds to within 0.1% of the best error over five starts, the making of the start included."""
    steps, tried = 200, (5, 8, 10, 12, 15, 20, 25, 30, 40, 50, 70, 100, 150, 200, 300)

    def ours(n, **kw):
        return nmf(X, K, walk=Walk(tol=0, max_iter=n), **kw)

    def theirs(start, init):
        return [(n, half_squares(X, *peer(X, start, n, init=init))) for n in tried]

    starts = [random_start(*X.shape, K, X.mean(), np.random.default_rng(s)) for s in range(5)]
    same = [list(enumerate(ours(steps, start=s).loss, 1)) for s in starts]
    own = [list(enumerate(ours(steps, rng=s).loss, 1)) for s in range(5)]
    cd, nndsvd = [theirs(s, "custom") for s in starts], theirs(None, "nndsvd")
    level = best(same, cd)
    print(f"{name}: to within 0.1% of the best error over five random starts, {np.sqrt(2 * level):.2f}")
    a = summary(
        "ours", [to_level(lambda n, s=s: ours(n, start=s), t, level) for s, t in zip(starts, same, strict=True)]
    )
    b = summary(
        "scikit-learn cd", [to_level(lambda n, s=s: peer(X, s, n), t, level) for s, t in zip(starts, cd, strict=True)]
    )
    print(f"  ratio {b / a:.1f}")
    level = best(same, cd, own, [nndsvd])
    print(f"{name}: to within 0.1% of the best error over all starts, {np.sqrt(2 * level):.2f}")
    a = summary("ours, default start", [to_level(lambda n, s=s: ours(n, rng=s), t, level) for s, t in enumerate(own)])
    b = summary(
        "scikit-learn cd, random",
        [to_level(lambda n, s=s: peer(X, s, n), t, level) for s, t in zip(starts, cd, strict=True)],
    )
    c = summary("scikit-learn cd, nndsvd", [to_level(lambda n: peer(X, None, n, init="nndsvd"), nndsvd, level)])
    print(f"  ratios {b / a:.1f} and {c / a:.1f}")


def best(*traces):
    """Return the loss whose error, a root of it, is 0.1% above the lowest."""
    return min(loss for group in traces for trace in group for _, loss in trace) * 1.001**2


def compare_kl(X, n=50):
    start = random_start(*X.shape, K, X.mean(), np.random.default_rng(0))
    t = time.process_time()
    W, H = peer(X, start, n, solver="mu", beta_loss="kullback-leibler")
    theirs = time.process_time() - t
    level = kl(X, W, H)
    for name, begin in (("same start", start), ("default start", "auto")):
        trace = nmf_kl(X, K, start=begin, walk=Walk(tol=0, max_iter=n)).loss
        reached = int(np.argmax(trace <= level)) + 1
        ours = seconds(lambda: nmf_kl(X, K, start=begin, walk=Walk(tol=0, max_iter=reached)))  # noqa: B023
        print(f"KL: scikit-learn mu {n} iterations {theirs:.2f} s; ours, {name}, {reached}, {ours:.3f} s; "
              f"ratio {theirs / ours:.1f}")  # fmt: skip


def compare_metagenes(X, k=10, n_runs=10):
    """Time the replicates, which cNMF makes with scikit-learn in double precision (cd, tol 1e-4)."""
    sd = np.sqrt(np.asarray(X.multiply(X).mean(axis=0)).ravel() - np.asarray(X.mean(axis=0)).ravel() ** 2)
    X = sparse.csr_matrix(X @ sparse.diags(1 / np.maximum(sd, 1e-12)), dtype=np.float32)
    ours = seconds(lambda: replicate(X, k, n_runs=n_runs), repeats=1)
    t, spectra = time.process_time(), []
    for seed in range(n_runs):
        options = {"init": "random", "tol": 1e-4, "max_iter": 1000, "random_state": seed}
        spectra.append(non_negative_factorization(X.astype(np.float64), n_components=k, **options)[1])
    theirs = time.process_time() - t
    runs = replicate(X, k, n_runs=n_runs)
    spectra = np.vstack(spectra)
    other = type(runs)(spectra / np.linalg.norm(spectra, axis=1, keepdims=True), runs.labels, 0.0)
    a, b = (combine(r, k, max_distance=2.0).spectra for r in (runs, other))
    a, b = (s / np.linalg.norm(s, axis=1, keepdims=True) for s in (a, b))
    cosine = (a @ b.T).max(axis=1)
    print(f"metagenes, {n_runs} runs of {k}: ours {ours:.2f} s, as cNMF {theirs:.2f} s, ratio {theirs / ours:.1f}; "
          f"matched cosine median {np.median(cosine):.3f}, least {cosine.min():.3f}")  # fmt: skip


def main():
    warnings.simplefilter("ignore")
    wanted = sys.argv[1:] or ["nmf", "real", "kl", "metagenes"]
    counts = synthetic() if {"nmf", "kl"} & set(wanted) else None
    if "nmf" in wanted:
        compare_frobenius("synthetic 10,000 x 2,000", lognormal(counts))
    if "real" in wanted:
        compare_frobenius("pbmc3k, 2,000 genes", pbmc())
    if "kl" in wanted:
        compare_kl(counts)
    if "metagenes" in wanted:
        compare_metagenes(pbmc())


if __name__ == "__main__":
    main()
