"""Factorisations beside scikit-learn, cNMF, pyliger and nmf-torch, in one process on one thread; ends with a table.

Run `OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 python benchmarks/factorization.py [seed] [nmf] [real] [kl] [metagenes]
[joint] [large] [facs]`. CPU seconds; "real", "metagenes" and "facs" need `../shared/data`; cNMF 1.7.1, pyliger 0.2.4 and
nmf-torch 0.1.1 are run where they are installed; "large" writes 1.2 GB to the temporary folder and removes it.
"""

import contextlib
import functools
import importlib.util
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
from anndata import AnnData, read_h5ad
from anndata.io import sparse_dataset, write_elem
from scipy import sparse
from scipy.optimize import linear_sum_assignment
from sklearn.decomposition import non_negative_factorization
from sklearn.metrics import adjusted_rand_score, roc_auc_score

import unmix as um
from unmix.core.als import als
from unmix.core.consensus import fano_genes, gene_moments
from unmix.core.factorization import Walk, nmf
from unmix.core.kl import nmf_kl
from unmix.core.starts import Start, random_start
from unmix.core.svd import svd

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
    X.sort_indices()
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
    """Return the run of the fewest iterations that reach the level; None where they do not."""
    n = next((n for n, loss in losses if loss <= level), None)
    return None if n is None else functools.partial(run, n)


def in_turn(groups, repeats=5):
    """Print the CPU seconds of every group of runs, the median of its runs' medians; return by how much the first wins.

    All take turns, so that the load of the machine hits all.
    """
    runs = [run for group in groups.values() for run in group if run is not None]
    for run in runs:
        run()
    clock = [[] for _ in runs]
    for _ in range(repeats):
        for found, run in zip(clock, runs, strict=True):
            start = time.process_time()
            run()
            found.append(time.process_time() - start)
    medians, typical = iter(np.median(clock, axis=1)), []
    for name, group in groups.items():
        times = [next(medians) for run in group if run is not None]
        typical.append(float(np.median(times)) if times else np.nan)
        print(f"  {name}: {typical[-1]:.3f} s, median of the starts that reach it ({len(times)} of {len(group)})")
    ratios = [peer / typical[0] for peer in typical[1:]]
    print("  ratios " + ", ".join(f"{ratio:.1f}" for ratio in ratios), flush=True)
    return [f"{ratio:.1f}x" if ratio == ratio else "the peer does not get there" for ratio in ratios]


def compare_frobenius(name, X, asked):
    """CPU seconds to within 0.1% of the best error over five starts, the making of the start included."""
    steps, tried = 200, (5, 8, 10, 12, 15, 20, 25, 30, 40, 50, 70, 100, 150, 200, 300)

    def ours(n, **kw):
        return nmf(X, K, walk=Walk(tol=0, max_iter=n), **kw)

    def theirs(start, init):
        """Loss after each number of iterations; a run goes on from where the shorter one ended."""
        trace, done = [], 0
        for n in tried:
            start = Start(*peer(X, start, n - done, init=init))
            init, done = "custom", n
            trace.append((n, half_squares(X, start.W, start.H)))
        return trace

    starts = [random_start(*X.shape, K, X.mean(), np.random.default_rng(s)) for s in range(5)]
    same = [list(enumerate(ours(steps, start=s).loss, 1)) for s in starts]
    own = [list(enumerate(ours(steps, rng=s).loss, 1)) for s in range(5)]
    cd, nndsvd = [theirs(s, "custom") for s in starts], theirs(None, "nndsvd")

    def our_runs(traces, level, **kw):
        return [
            to_level(lambda n, s=s: ours(n, **{k: v[s] for k, v in kw.items()}), t, level) for s, t in enumerate(traces)
        ]

    def cd_runs(level):
        return [to_level(lambda n, s=s: peer(X, s, n), t, level) for s, t in zip(starts, cd, strict=True)]

    level = best(same, cd)
    print(f"{name}: to within 0.1% of the best error over five random starts, {np.sqrt(2 * level):.2f}")
    (same_start,) = in_turn({"ours": our_runs(same, level, start=starts), "scikit-learn cd": cd_runs(level)})
    level = best(same, cd, own, [nndsvd])
    print(f"{name}: to within 0.1% of the best error over all starts, {np.sqrt(2 * level):.2f}")
    nndsvd_run = to_level(lambda n: peer(X, None, n, init="nndsvd"), nndsvd, level)
    random, double_svd = in_turn({
        "ours, default start": our_runs(own, level, rng=range(5)),
        "scikit-learn cd, random": cd_runs(level),
        "scikit-learn cd, nndsvd": [nndsvd_run],
    })  # fmt: skip
    work = f"NMF, {name}, 15 components, to within 0.1% of the best error"
    return [
        (work, "scikit-learn cd, random starts", asked, random),
        (work, "scikit-learn cd, NNDSVD", asked, double_svd),
        (work, "scikit-learn cd, both from the same random starts", asked, same_start),
    ]


def best(*traces):
    """Return the loss whose error, a root of it, is 0.1% above the lowest."""
    return min(loss for group in traces for trace in group for _, loss in trace) * 1.001**2


def compare_kl(X, n=50):
    start = random_start(*X.shape, K, X.mean(), np.random.default_rng(0))
    t = time.process_time()
    W, H = peer(X, start, n, solver="mu", beta_loss="kullback-leibler")
    theirs = time.process_time() - t
    level, rows = kl(X, W, H), []
    for name, begin in (("same start", start), ("default start", "auto")):
        trace = nmf_kl(X, K, start=begin, walk=Walk(tol=0, max_iter=n)).loss
        reached = int(np.argmax(trace <= level)) + 1
        ours = seconds(lambda: nmf_kl(X, K, start=begin, walk=Walk(tol=0, max_iter=reached)))  # noqa: B023
        print(f"KL: scikit-learn mu {n} iterations {theirs:.2f} s; ours, {name}, {reached}, {ours:.3f} s; "
              f"ratio {theirs / ours:.1f}", flush=True)  # fmt: skip
        work = f"NMF, loss kl, to the level of {n} iterations of the peer"
        rows.append((work, f"scikit-learn mu, {name}", "20x", f"{theirs / ours:.1f}x"))
    return rows


def counts_of(name):
    """Read the counts of genes seen in three cells, under unique names, which cNMF needs."""
    adata = read_h5ad(next((DATA / name).glob("*.h5ad")))
    if name == "pbmc_facs":
        adata.var_names = adata.var.iloc[:, 0].astype(str)
    adata.var_names_make_unique()
    X = sparse.csr_matrix(adata.X, dtype=np.float32)
    adata = AnnData(X, obs=adata.obs, var=adata.var[[]])
    return adata[:, np.asarray((X > 0).sum(axis=0)).ravel() >= 3].copy()


def cnmf(adata, k, n_runs):
    """Spectra (per million), usages and CPU seconds of cNMF, with its defaults and one worker."""
    from cnmf import cNMF

    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(None):
        file = str(Path(folder) / "counts.h5ad")
        AnnData(adata.X.astype(np.float64), obs=adata.obs[[]], var=adata.var[[]]).write_h5ad(file)
        t = time.process_time()
        peer = cNMF(output_dir=folder, name="x")
        peer.prepare(counts_fn=file, components=[k], n_iter=n_runs, seed=14, num_highvar_genes=2000)
        peer.factorize(worker_i=0, total_workers=1)
        peer.combine()
        peer.consensus(k=k, density_threshold=0.5, show_clustering=False)
        t = time.process_time() - t
        usage, _, spectra, _ = peer.load_results(K=k, density_threshold=0.5)
    return spectra.reindex(adata.var_names).to_numpy().T, usage.reindex(adata.obs_names).to_numpy(), t


def metagenes(adata, k, n_runs, **options):
    t = time.process_time()
    um.tl.metagenes(adata, k, n_runs=n_runs, n_jobs=1, **options)
    return adata.varm["metagenes"].T, adata.obsm["X_metagenes"], time.process_time() - t


def matched_cosine(A, B):
    A, B = (S / np.linalg.norm(S, axis=1, keepdims=True) for S in (A, B))
    return (A @ B.T)[linear_sum_assignment(-(A @ B.T))]


def compare_metagenes(k=10, n_runs=100):
    """End to end: genes, runs, consensus and refits."""
    adata = counts_of("pbmc3k")
    metagenes(adata[:300].copy(), 2, 2)
    ours, _, own = metagenes(adata, k, n_runs)
    print(f"metagenes, pbmc3k, {n_runs} runs of {k}: ours {own:.1f} s")
    if importlib.util.find_spec("cnmf") is None:
        print("  cNMF is not installed (pip install cnmf==1.7.1)")
        return []
    theirs, _, peer = cnmf(adata, k, n_runs)
    cosine = matched_cosine(ours, theirs)
    print(
        f"  cNMF {peer:.1f} s, ratio {peer / own:.1f}; matched cosine of spectra, least {cosine.min():.4f}", flush=True
    )
    work = f"metagenes, pbmc3k, {n_runs} runs of {k}, end to end"
    found = f"{peer / own:.1f}x, least cosine {cosine.min():.4f}"
    return [(work, "cNMF 1.7.1, one worker", "10x, cosine above 0.99", found)]


def unit_variance(X):
    mean, squares = (np.asarray(Y.mean(axis=0)).ravel() for Y in (X, X.multiply(X)))
    return sparse.csr_matrix(X @ sparse.diags(1 / np.sqrt(np.maximum(squares - mean**2, 1e-12)).astype(np.float32)))


def show_facs(k=10, n_runs=100):
    """Sorted blood cells: programs against the populations, beside scikit-learn and cNMF.

    A cell belongs to its largest usage: as it is (a share), or relative to the program's mean over the cells. What
    differs between ours, cNMF and scikit-learn is the matrix: scaled counts, or logarithms as they are or scaled.
    """
    adata = counts_of("pbmc_facs")
    truth = adata.obs["facs_population"].astype(str).to_numpy()
    found = {"metagenes, loss kl": metagenes(adata, k, n_runs // 5, loss="kl")[1]}
    found["metagenes, unit poisson"] = metagenes(adata, k, n_runs, unit="poisson")[1]
    found["metagenes"] = metagenes(adata, k, n_runs)[1]
    X = lognormal(sparse.csr_matrix(adata.X))[:, adata.var_names.isin(adata.uns["metagenes"]["genes"])]
    found["scikit-learn, logs"] = non_negative_factorization(X, n_components=k, init="nndsvd", max_iter=500)[0]
    X = unit_variance(X)
    found["scikit-learn, scaled logs"] = non_negative_factorization(X, n_components=k, init="nndsvd", max_iter=500)[0]
    if importlib.util.find_spec("cnmf") is not None:
        found["cNMF"] = cnmf(adata, k, n_runs)[1]
    best = {}
    for name, usage in found.items():
        usage = np.nan_to_num(usage / np.maximum(usage.sum(axis=1, keepdims=True), 1e-12))
        index = [adjusted_rand_score(truth, u.argmax(axis=1)) for u in (usage, usage / usage.mean(axis=0))]
        print(f"pbmc_facs, {name}: adjusted Rand index {index[0]:.3f}, of relative usages {index[1]:.3f}", flush=True)
        best[name] = {g: max(roc_auc_score(truth == g, u) for u in usage.T) for g in np.unique(truth)}
    print("area under the ROC curve of the best factor per population")
    print(pd.DataFrame(best).round(3).to_string())
    print(adata.uns["metagenes"]["top_genes"].head(8).to_string())


def show_units(ranks=(6, 10)):
    """Print what predicts the other half of the molecules best: counts divided by one spread or the other, or loss kl.

    Each molecule is in one half or the other by chance; what is printed is by how much the Poisson log-likelihood per
    count of the half held out exceeds that under independence of cells and genes.
    """

    def likelihood(X, rate):
        rate = np.maximum(rate, 1e-6)
        return (np.asarray(X.multiply(np.log(rate)).sum()) - rate.sum()) / X.sum()

    for name in ("pbmc3k", "pbmc_facs"):
        X = sparse.csr_matrix(counts_of(name).X)
        per_million = 1e6 / np.asarray(X.sum(axis=1)).ravel()
        X = sparse.csr_matrix(X[:, fano_genes(*gene_moments(X, per_million), 2000)])
        half = X.copy()
        half.data = np.random.default_rng(0).binomial(X.data.astype(int), 0.5).astype(np.float32)
        other = sparse.csr_matrix(X - half)
        half.eliminate_zeros()
        mean, variance = gene_moments(half, np.ones(half.shape[0]))
        plain = likelihood(other, np.outer(half.sum(axis=1), half.sum(axis=0)) / half.sum())
        for unit, size in {
            "variance": np.sqrt(variance),
            "poisson": np.sqrt(mean),
            "loss kl": np.ones_like(mean),
        }.items():
            size = np.where(size > 0, size, 1)
            Y, fit = sparse.csr_matrix(half @ sparse.diags((1 / size).astype(np.float32))), []
            for k in ranks:
                found = (nmf_kl if unit == "loss kl" else nmf)(Y, k)
                fit.append(likelihood(other, found.W @ found.H * size) - plain)
            gains = ", ".join(f"{gain:.4f} with {k}" for gain, k in zip(fit, ranks, strict=True))
            print(f"{name}, {unit}: log-likelihood per count of the other half {gains} components", flush=True)


def large(folder, n_obs=1_000_000, pool=50_000):
    """From disk, in a process of its own."""
    with tempfile.TemporaryDirectory(dir=folder) as tmp:
        path = Path(tmp) / "counts.h5ad"
        block = synthetic(pool, 2000, 0.05)
        with h5py.File(path, "w") as f:
            f.attrs.update({"encoding-type": "anndata", "encoding-version": "0.1.0"})
            write_elem(f, "obs", pd.DataFrame(index=[f"c{i}" for i in range(n_obs)]))
            write_elem(f, "var", pd.DataFrame(index=[f"g{i}" for i in range(2000)]))
            write_elem(f, "X", block)
            for _ in range(n_obs // pool - 1):
                sparse_dataset(f["X"]).append(block)
        done = subprocess.run(
            [sys.executable, __file__, "child", str(path)], check=True, capture_output=True, text=True
        )
    took, peak = map(float, done.stdout.split())
    print(f"{n_obs:,} x 2,000 from disk, {block.nnz / np.prod(block.shape):.0%} dense, rank 20, 2 threads: "
          f"{took:.1f} s a pass, peak memory {peak:.2f} GiB", flush=True)  # fmt: skip
    work = f"NMF, {n_obs:,} x 2,000 from disk, rank 20, 2 threads"
    return [(work, "-", "a pass under 60 s, under 3 GiB", f"{took:.1f} s, {peak:.2f} GiB")]


def large_child(path, passes=3):
    X = read_h5ad(path, backed="r").X
    start = random_start(*X.shape, 20, 0.1, np.random.default_rng(0))
    t = time.perf_counter()
    nmf(X, 20, start=start, walk=Walk(n_jobs=2, tol=0, max_iter=passes))
    took = (time.perf_counter() - t) / (passes + 1)  # one pass more for the sums
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(took, peak)


def show_seed():
    """Recover the seed matrix at rank 2, complete it from its first row and column, and a random matrix from 60% of it."""
    R = np.outer([3, 1, 4, 2, 3], [1, 1, 0, 1.0]) + np.outer([1, 3, 2, 1, 2], [1, 1, 4, 1.0])
    first, tight = np.zeros(R.shape, bool), Walk(tol=1e-10, max_iter=3000)
    first[0] = first[:, 0] = True

    def error(U, V, X=R, at=True):
        return np.abs(U @ V - X)[np.broadcast_to(at, X.shape)].max()

    found, least, solution = svd(R, 2), als(R, 2), nmf(R, 2, walk=tight)
    print(f"seed matrix at rank 2, largest error (1e-6 asked): svd {error(found.U * found.S, found.V.T):.0e}, "
          f"als {error(least.W, least.H):.0e}, nmf {error(solution.W, solution.H):.0e}")  # fmt: skip
    one = als(R, 1, mask=first, walk=tight)
    two = als(R, 2, mask=first, walk=tight)
    print(f"from its first row and column (1e-6 asked): these at rank 2 {error(two.W, two.H, at=first):.0e}; "
          f"R[i,0] R[0,j] / R[0,0] at rank 1 {error(one.W, one.H, np.outer(R[:, 0], R[0]) / R[0, 0]):.0e}")  # fmt: skip
    rng = np.random.default_rng(0)
    X = rng.standard_normal((60, 3)) @ rng.standard_normal((3, 40))
    seen = rng.random(X.shape) > 0.4
    fit = als(np.where(seen, X, np.nan), 3, mask=seen, walk=Walk(tol=1e-8, max_iter=1500))
    print(f"60 x 40 of rank 3, 40% masked (1e-3 asked): the masked entries {error(fit.W, fit.H, X, ~seen):.0e}")


def print_table(rows):
    print("\n| work | against | at least | found |\n|---|---|---|---|")
    for row in rows:
        print("| " + " | ".join(row) + " |")


def main():
    warnings.simplefilter("ignore")
    if sys.argv[1:2] == ["child"]:
        large_child(sys.argv[2])
        return
    wanted = sys.argv[1:] or ["seed", "nmf", "real", "kl", "metagenes", "joint", "large", "facs"]
    counts = synthetic() if {"nmf", "kl"} & set(wanted) else None
    rows = []
    if "seed" in wanted:
        show_seed()
    if "nmf" in wanted:
        rows += compare_frobenius("synthetic 10,000 x 2,000, 10% dense", lognormal(counts), "5x")
    if "real" in wanted:
        rows += compare_frobenius("pbmc3k, 2,000 genes", pbmc(), "10x")
    if "kl" in wanted:
        rows += compare_kl(counts)
    if "metagenes" in wanted:
        for k in (10, 7):
            rows += compare_metagenes(k)
    if "joint" in wanted:
        import joint

        rows += joint.speed()
    if "large" in wanted:
        rows += large(None)
    if "facs" in wanted:
        show_units()
        show_facs()
    if rows:
        print_table(rows)


if __name__ == "__main__":
    main()
