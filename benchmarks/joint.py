"""`tl.joint_nmf`: prediction of proteins, treated cells, speed beside peers, data on disk.

Run `OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 python benchmarks/joint.py [citeseq] [ifnb] [speed] [disk]`. The first two
need `../shared/data`. Peers are optional: `pyliger` 0.2.4 and `nmf-torch` 0.1.1. Times are CPU seconds in one process.
"""

import contextlib
import importlib.util
import io
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import scanpy as sc
from anndata import AnnData, read_h5ad
from factorization import lognormal, print_table
from scipy import sparse
from sklearn.neighbors import NearestNeighbors

import unmix as um
from unmix.core.factorization import Walk
from unmix.core.joint import joint_batches

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
K, PRICE = 15, 5.0


def read_normalised(name, **filters):
    """Log-normalised counts, with the counts as a layer."""
    adata = read_h5ad(DATA / name)
    adata.X = sparse.csr_matrix(adata.X, dtype=np.float32)
    adata.layers["counts"] = adata.X.copy()
    sc.pp.filter_genes(adata, **{"min_cells": 1, **filters})
    sc.pp.normalize_total(adata)
    sc.pp.log1p(adata)
    return adata


def variable_genes(counts, n_top=2000):
    """Genes of the largest Fano ratio, seen in five cells or more."""
    mean = np.asarray(counts.mean(axis=0)).ravel()
    variance = np.asarray(counts.multiply(counts).mean(axis=0)).ravel() - mean**2
    seen = np.asarray((counts > 0).sum(axis=0)).ravel() >= 5
    return np.sort(np.argsort(-np.where(seen, variance / np.maximum(mean, 1e-12), 0))[:n_top])


def neighbours_predict(train, test, proteins, k=15, n_pcs=20):
    mean = train.mean(axis=0)
    V = np.linalg.svd(train - mean, full_matrices=False)[2][:n_pcs]
    near = NearestNeighbors(n_neighbors=k).fit((train - mean) @ V.T).kneighbors((test - mean) @ V.T)[1]
    return proteins[near].mean(axis=1)


def joint_predict(rna, adt, train, test, k, loss):
    data = {"rna": rna[train].copy(), "adt": adt[train].copy()}
    layer = "counts" if loss == "kl" else None
    options = {"loss": {"rna": loss, "adt": "frobenius"}, "layer": {"rna": layer}, "tol": 1e-4}
    um.tl.joint_nmf(data, k, **options)
    new = rna[test].copy()
    um.tl.transform(new, data["rna"], key="joint_nmf", predict="adt", layer=layer)
    return new.obsm["joint_nmf_adt"].to_numpy()


def pearson(predicted, truth):
    return np.array(
        [np.corrcoef(p, t)[0, 1] if p.std() > 0 else 0.0 for p, t in zip(predicted.T, truth.T, strict=True)]
    )


def citeseq():
    """Proteins of the fifth of cells held out in turn, from RNA; genes are chosen on the others."""
    rna, adt = read_normalised("citeseq_pbmc500/rna.h5ad"), read_normalised("citeseq_pbmc500/adt.h5ad")
    truth, everyone = adt.X.toarray(), np.arange(adt.n_obs)
    models = [("kl", 20), ("kl", 10), ("frobenius", 20), ("frobenius", 10)]
    found = {name: np.zeros_like(truth) for name in ("mean", "15 neighbours", *models)}
    for test in np.array_split(np.random.default_rng(0).permutation(everyone), 5):
        train = np.setdiff1d(everyone, test)
        part = rna[:, variable_genes(rna.layers["counts"][train])].copy()
        dense = part.X.toarray()
        found["mean"][test] = truth[train].mean(axis=0)
        found["15 neighbours"][test] = neighbours_predict(dense[train], dense[test], truth[train])
        for loss, k in models:
            found[loss, k][test] = joint_predict(part, adt, train, test, k, loss)
    scores = {name: pearson(p, truth) for name, p in found.items()}
    print("protein: Pearson over the cells of joint NMF (RNA as counts, 20 factors), 15 nearest neighbours")
    for j in np.argsort(-scores["kl", 20]):
        print(f"  {adt.var_names[j]:20s} {scores['kl', 20][j]:6.3f} {scores['15 neighbours'][j]:6.3f}")
    for name, p in found.items():
        error = np.sqrt(((p - truth) ** 2).mean())
        what = name if isinstance(name, str) else f"joint NMF, loss of RNA {name[0]}, {name[1]} factors"
        pick = "no correlation (constant)" if name == "mean" else (
            f"Pearson median {np.median(scores[name]):.3f}, mean {scores[name].mean():.3f}")  # fmt: skip
        print(f"{what}: {pick}, RMSE {error:.3f}")


def mixing(Z, is_one, k=30):
    """Share of the neighbours that are of the other batch, over what it is in a perfect mixture; 1 is perfect."""
    Z = Z / np.maximum(np.linalg.norm(Z, axis=0), 1e-12)
    Z = Z / np.maximum(np.linalg.norm(Z, axis=1, keepdims=True), 1e-12)
    near = NearestNeighbors(n_neighbors=k + 1).fit(Z).kneighbors(Z)[1][:, 1:]
    share = np.where(is_one, 1 - is_one.mean(), is_one.mean())
    return float(((is_one[near] != is_one[:, None]).mean(axis=1) / share).mean())


def ifnb(k=10):
    """Stimulated beside control cells: what the stimulated have of their own, and how shared factors mix."""
    adata = read_normalised("ifnb_2k/ifnb_2k.h5ad", min_cells=50)
    is_one = (adata.obs["stim"] == "stim").to_numpy()
    um.tl.factorize(adata, k, tol=1e-4)
    um.tl.joint_nmf(adata, k, batch_key="stim", tol=1e-4, align=True)
    counts = {"loss": "kl", "layer": "counts"}
    um.tl.factorize(adata, k, key_added="nmf_counts", **counts)
    um.tl.joint_nmf(adata, k, batch_key="stim", align=True, key_added="counts", **counts)
    for key, what in (("joint_nmf", "squared error of logarithms"), ("counts", "likelihood of counts")):
        own = um.get.joint_loadings(adata, key=key).query("part == 'stim' and component == 'all'")
        ranks = {gene: 1 + own["gene"].tolist().index(gene) for gene in ("ISG15", "IFI6", "IFIT1", "ISG20")}
        print(f"{what}: rank of {len(own)} genes in the stimulated batch's own part: {ranks}")
        print(f"  it begins with {', '.join(own['gene'][:15])}")
        plain = "X_nmf" if key == "joint_nmf" else "X_nmf_counts"
        names = {"plain NMF": plain, "shared factors": f"X_{key}", "aligned": f"X_{key}_aligned"}
        scores = ", ".join(f"{name} {mixing(adata.obsm[slot], is_one):.2f}" for name, slot in names.items())
        print(f"  mixing of the conditions among 30 neighbours (1 is perfect): {scores}", flush=True)


def two_batches(n=5_000, m=2_000, density=0.1):
    """Log-normalised counts of two batches that share programs, each with changes of its own."""
    rng = np.random.default_rng(0)

    def loadings():
        return rng.gamma(0.3, 1.0, (K, m)) * rng.gamma(0.6, 1.0, m)

    H, batches = loadings(), []
    for _ in range(2):
        W = rng.dirichlet(np.full(K, 0.2), n) * rng.lognormal(0, 0.4, (n, 1))
        rate = W @ (H * rng.lognormal(0, 0.5, (1, m)) + 0.3 * loadings())
        low, high = 1e-9, 1e6
        for _ in range(60):
            size = np.sqrt(low * high)
            low, high = (size, high) if (1 - np.exp(-size * rate[:400])).mean() < density else (low, size)
        batches.append(lognormal(sparse.csr_matrix(rng.poisson(size * rate).astype(np.float32))))
    return batches


def objective(X, W, H, V):
    total = 0.0
    for x, w, v in zip(X, W, V, strict=True):
        F, G = H + v, (w.T @ w).astype(float)
        fit = (
            x.multiply(x).sum(dtype=float) - 2 * float(((x @ F.T) * w).sum(dtype=float)) + float((G * (F @ F.T)).sum())
        )
        total += fit + PRICE * float((G * (v @ v.T)).sum())
    return total


@contextlib.contextmanager
def quiet():
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield


def liger(X, n_iter):
    import pyliger

    data = type("Liger", (), {"adata_list": [], "num_samples": len(X), "var_genes": list(range(X[0].shape[1]))})()
    for b, x in enumerate(X):
        part = AnnData(x.astype(float))
        part.layers["scale_data"], part.uns["sample_name"] = x.astype(float), str(b)
        data.adata_list.append(part)
    pyliger.optimize_ALS(data, k=K, value_lambda=PRICE, thresh=0, max_iters=n_iter)
    W, V = ([np.asarray(getattr(a, s)[key]) for a in data.adata_list] for s, key in (("obsm", "H"), ("varm", "V")))
    return W, np.asarray(data.adata_list[0].varm["W"]).T, [v.T for v in V]


def torch_peer(X, n_iter):
    import torch
    from nmf import integrative_nmf

    torch.set_num_threads(1)
    options = {"algo": "halsvar", "mode": "batch", "lam": PRICE, "tol": 1e-12, "n_jobs": 1, "random_state": 0}
    H, W, V, _ = integrative_nmf([x.toarray() for x in X], n_components=K, batch_max_iter=n_iter, **options)
    return [np.asarray(h) for h in H], np.asarray(W), [np.asarray(v) for v in V]


def speed():
    """CPU seconds to the objective that a peer reaches; every solver starts at random. Return rows of a table."""
    X, table = two_batches(), []
    rows, codes = sparse.vstack(X).tocsr(), np.repeat([0, 1], [x.shape[0] for x in X])
    options = {"specificity": PRICE}
    joint_batches(rows, codes, K, walk=Walk(max_iter=2), **options)
    peers = {
        "pyliger 0.2.4 optimize_ALS": ("pyliger", liger, (10, 30), "15x"),
        "nmf-torch 0.1.1 halsvar": ("nmf", torch_peer, (10, 30), "4x"),
    }
    for name, (module, run, lengths, asked) in peers.items():
        if importlib.util.find_spec(module) is None:
            print(f"{name}: not installed")
            continue
        with quiet():
            run([x[:300] for x in X], lengths[0])  # imports and compiles
        for n_iter in lengths:
            with quiet():
                start = time.process_time()
                fit = run(X, n_iter)
                theirs = time.process_time() - start
            level = objective(X, *fit)
            trace = joint_batches(rows, codes, K, walk=Walk(tol=0, max_iter=300), **options).loss
            reached = int(np.argmax(trace <= level)) + 1 if trace[-1] <= level else None
            if reached is None:
                print(
                    f"{name}, {n_iter} iterations: {theirs:.2f} s, objective {level:.0f} not reached ({trace[-1]:.0f})"
                )
                continue
            times = []
            for _ in range(3):
                start = time.process_time()
                joint_batches(rows, codes, K, walk=Walk(tol=0, max_iter=reached), **options)
                times.append(time.process_time() - start)
            ours = float(np.median(times))
            print(f"{name}, {n_iter} iterations: {theirs:.2f} s to {level:.0f}; "
                  f"ours {reached}, {ours:.3f} s; ratio {theirs / ours:.0f}", flush=True)  # fmt: skip
            work = f"joint NMF, two batches of 5,000, to the peer's objective after {n_iter} iterations"
            table.append((work, name, asked, f"{theirs / ours:.0f}x"))
    return table


def write_cells(path, n, m=2_000, density=0.05):
    """Write counts of 2,000 cells over and over, in two interleaved batches."""
    rng = np.random.default_rng(0)
    rate = rng.dirichlet(np.full(K, 0.2), 2_000) @ rng.gamma(0.3, 1.0, (K, m))
    few = sparse.csr_matrix(rng.poisson(rate * density / rate.mean()).astype(np.float32))
    cells = AnnData(sparse.vstack([few] * (n // 2_000)).tocsr())
    cells.obs["batch"] = np.where(np.arange(n) % 2, "a", "b")
    cells.write_h5ad(path)


def fit_from_disk(path, online, n_passes=6, threads=2):
    backed = read_h5ad(path, backed="r")
    start = time.perf_counter()
    um.tl.joint_nmf(backed, 20, batch_key="batch", online=online, max_iter=n_passes, tol=0, n_jobs=threads)
    seconds, loss = time.perf_counter() - start, backed.uns["joint_nmf"]["loss"]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    size = Path(path).stat().st_size / 2**30
    print(f"{backed.n_obs:,} x {backed.n_vars:,} on disk ({size:.2f} GiB), {online} online passes of {n_passes}, {threads} "
          f"threads: {seconds:.1f} s with checks and scales, loss after 3 and {n_passes} passes {loss[2]:.5g}, "
          f"{loss[-1]:.5g}; peak memory {peak:.2f} GiB", flush=True)  # fmt: skip


def disk(n=1_000_000):
    """Fit two batches in an h5ad file, read block by block; every fit in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "cells.h5ad")
        for call in (f"write_cells({path!r}, {n})", f"fit_from_disk({path!r}, 0)", f"fit_from_disk({path!r}, 3)"):
            code = f"import warnings; warnings.simplefilter('ignore'); import joint; joint.{call}"
            subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parent)


def main():
    warnings.simplefilter("ignore")
    for name in sys.argv[1:] or ["citeseq", "ifnb", "speed", "disk"]:
        table = {"citeseq": citeseq, "ifnb": ifnb, "speed": speed, "disk": disk}[name]()
        if table:
            print_table(table)


if __name__ == "__main__":
    main()
