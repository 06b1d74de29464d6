"""Deconvolution beside its peers: CPU seconds as ratios in one process, one thread unless said, medians.

python benchmarks/deconvolve.py                      the rows in memory, some minutes
python benchmarks/deconvolve.py --large --tmp DIR    also 1,000,000 spots from disk (1 GB is written to DIR and removed)
python benchmarks/deconvolve.py --only ROW           one of nusvr, nnls, csr, auto and large

The rows against FlashDeconv need `pip install "unmix[bench]"` and are skipped without it. scikit-learn's loop over all
200 spots takes minutes; it runs over a few of them (`--sklearn-spots`), and its time is per spot.
"""

import os

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ[variable] = "1"

import argparse
import importlib.util
import json
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import anndata as ad
import h5py
import numpy as np
import pandas as pd
from scipy import sparse
from scipy.optimize import nnls as scipy_nnls

import unmix as um
from unmix.core.nusvr import solve_nusvr
from unmix.core.simplex import nnls

NUS = (0.25, 0.5, 0.75)
POOL_ROWS = 20_000


def main() -> None:
    options = arguments()
    if options.large_child:
        print(json.dumps(fit_file(Path(options.large_child))))
        return
    if options.auto_child:
        print(json.dumps(fit_default(Path(options.auto_child))))
        return
    rows: dict[str, Callable[[], Any]] = {
        "nusvr": lambda: [*nusvr_rows(options.sklearn_spots)],
        "nnls": lambda: [nnls_row(options.repeats)],
        "csr": lambda: [row for d in (112, 1000) for row in csr_rows(options.spots, d, options.repeats)],
        "auto": lambda: [auto_row(options.tmp)],
        "large": lambda: [large_row(options.tmp, options.large_spots)],
    }
    wanted = [options.only] if options.only else ["nusvr", "nnls", "csr", "auto"] + ["large"] * options.large
    print("| work | against | at least | measured |\n|---|---|---|---|")
    for name in wanted:
        for row in rows[name]():
            print("| " + " | ".join(row) + " |", flush=True)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=["nusvr", "nnls", "csr", "auto", "large"])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--sklearn-spots", type=int, default=12)
    parser.add_argument("--spots", type=int, default=20_000, help="spots of the rows against FlashDeconv")
    parser.add_argument("--large", action="store_true", help="also the row from disk")
    parser.add_argument("--large-spots", type=int, default=1_000_000)
    parser.add_argument("--tmp", type=Path, default=None, help="folder for the file of --large")
    parser.add_argument("--large-child", help=argparse.SUPPRESS)
    parser.add_argument("--auto-child", help=argparse.SUPPRESS)
    return parser.parse_args()


def simulate(
    n_genes: int, n_types: int, n_spots: int, depth: float, seed: int = 0
) -> tuple[np.ndarray, sparse.csr_array]:
    """Return profiles (genes x types, columns sum to 1) and overdispersed counts of sparse mixtures of them."""
    rng = np.random.default_rng(seed)
    S = rng.lognormal(0, 1, (n_genes, 1)) * rng.lognormal(0, 0.3, (n_genes, n_types))
    for k, genes in enumerate(np.array_split(np.arange(n_genes), n_types)):
        S[genes, k] *= rng.uniform(5, 20, len(genes))
    S /= S.sum(axis=0)
    blocks = []
    for start in range(0, n_spots, 1000):
        n = min(1000, n_spots - start)
        W = rng.dirichlet(np.full(n_types, 0.2), n) * rng.lognormal(np.log(depth), 0.4, (n, 1))
        counts = rng.poisson(W @ S.T * rng.gamma(10.0, 0.1, (n, n_genes)))
        blocks.append(sparse.csr_array(counts.astype(np.float32)))
    return S, sparse.csr_array(sparse.vstack(blocks))


def seconds(work: Callable[[], Any], repeats: int) -> float:
    """Return the median CPU time of some repeats, after one that is not timed."""
    work()
    times = []
    for _ in range(repeats):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return float(np.median(times))


def svr_objective(X: np.ndarray, y: np.ndarray, w: np.ndarray, nu: float) -> float:
    """Return LIBSVM's primal objective of a nu-SVR with C = 1, at the best offset and tube for w."""
    r = np.sort(y - X @ w)
    k = nu * len(y) / 2
    full, part = int(k), k - int(k)
    top = r[len(r) - full :].sum() + part * r[len(r) - full - 1]
    bottom = r[:full].sum() + part * r[full]
    return 0.5 * w @ w + top - bottom


def nusvr_rows(n_loop: int) -> list[Sequence[str]]:
    from sklearn.svm import NuSVR

    S, counts = simulate(500, 20, 200, depth=5000)
    Y = counts.toarray().astype(float)
    X = (S - S.mean()) / S.std(ddof=1)
    Y = (Y - Y.mean(axis=1, keepdims=True)) / Y.std(axis=1, ddof=1, keepdims=True)

    def loop(rows: np.ndarray, tol: float) -> list[list[np.ndarray]]:
        return [[NuSVR(kernel="linear", nu=nu, tol=tol).fit(X, y).coef_[0] for y in rows] for nu in NUS]

    chosen = Y[:: max(len(Y) // n_loop, 1)][:n_loop]
    ours = seconds(lambda: [solve_nusvr(X, Y, nu) for nu in NUS], 3) / len(Y)
    theirs = seconds(lambda: loop(chosen, 1e-3), 1) / len(chosen)
    few = chosen[:4]
    excess = [
        svr_objective(X, y, w, nu) / svr_objective(X, y, best, nu) - 1
        for nu, exact in zip(NUS, loop(few, 1e-8), strict=True)
        for y, w, best in zip(few, solve_nusvr(X, few, nu).w, exact, strict=True)
    ]
    measured = (
        f"{theirs / ours:.0f}x ({ours * 1e3:.2f} ms a spot, scikit-learn {theirs * 1e3:.0f} on {len(chosen)} spots)"
    )
    quality = f"objective relative to tol 1e-8: {max(excess):+.1e} at most, {min(excess):+.1e} at least"
    return [
        ("nu-SVR, three nus, 500 genes x 20 types, 200 spots", "scikit-learn NuSVR loop, tol 1e-3", "150x", measured),
        ("- its objective", "scikit-learn NuSVR, tol 1e-8, 4 spots", "no worse", quality),
    ]


def nnls_row(repeats: int) -> Sequence[str]:
    S, counts = simulate(500, 20, 10_000, depth=5000)
    Y = counts.toarray().astype(float)
    ours = seconds(lambda: nnls(S.T @ S, Y @ S), 2 * repeats + 1)
    start = time.process_time()
    expected = np.array([scipy_nnls(S, y)[0] for y in Y])
    theirs = time.process_time() - start
    off = np.abs(nnls(S.T @ S, Y @ S) - expected).max() / expected.max()
    measured = (
        f"{theirs / ours:.1f}x ({ours / len(Y) * 1e6:.1f} us a spot, with the products), weights differ by {off:.0e}"
    )
    return "NNLS, 500 x 20, 10,000 spots", "scipy.optimize.nnls loop", "20x, same to 1e-10", measured


def csr_rows(n_spots: int, depth: float, repeats: int) -> list[Sequence[str]]:
    S, counts = simulate(2000, 20, n_spots, depth)
    adata, signature = as_tissue(counts, S)
    work = f"from CSR to table, {n_spots:,} spots x 2,000 genes x 20 types ({counts.nnz / n_spots / 2000:.0%} dense)"
    time_of = {
        method: seconds(lambda m=method: um.tl.deconvolve(adata, signature, method=m, n_jobs=1), repeats)
        for method in ("nnls", "poisson")
    }
    if importlib.util.find_spec("flashdeconv") is None:
        skipped = "skipped: flashdeconv is not installed"
        return [(f"{m}, {work}", "flashdeconv 0.2.0", "5x" if m == "nnls" else "2x", skipped) for m in time_of]
    from flashdeconv import FlashDeconv

    def peer() -> np.ndarray:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return FlashDeconv().fit_transform(counts, S.T * 1e4, adata.obsm["spatial"])

    theirs = seconds(peer, repeats)
    return [
        (
            f"{method}, {work}",
            "flashdeconv 0.2.0, its defaults (arrays in and out)",
            least,
            f"{theirs / time_of[method]:.1f}x ({time_of[method]:.2f} s against {theirs:.2f} s)",
        )
        for method, least in (("nnls", "5x"), ("poisson", "2x"))
    ]


def as_tissue(counts: sparse.csr_array, S: np.ndarray) -> tuple[ad.AnnData, pd.DataFrame]:
    genes = [f"gene{g}" for g in range(len(S))]
    side = int(np.ceil(np.sqrt(counts.shape[0])))
    adata = ad.AnnData(
        counts, obs=pd.DataFrame(index=[f"spot{i}" for i in range(counts.shape[0])]), var=pd.DataFrame(index=genes)
    )
    adata.obsm["spatial"] = np.column_stack(np.divmod(np.arange(counts.shape[0]), side)).astype(float)
    return adata, pd.DataFrame(S * 1e4, index=genes, columns=[f"type{k}" for k in range(S.shape[1])])


def auto_row(folder: Path | None) -> Sequence[str]:
    """Time the default on simulated tissue with a platform effect, and its memory, in a process of its own."""
    with tempfile.TemporaryDirectory(dir=folder) as tmp:
        spots, reference = um.datasets.simulate_spots(20_000, 2000, 20, platform_sd=0.3, rng=0)
        spots.write_h5ad(Path(tmp) / "spots.h5ad")
        reference.write_h5ad(Path(tmp) / "reference.h5ad")
        command = [sys.executable, __file__, "--auto-child", tmp]
        result = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])
    measured = (
        f"{result['cpu']:.0f} CPU s, {result['two']:.0f} s on 2 threads, {result['beyond'] / 2**20:.0f} MiB beyond "
        f"the {result['held'] / 2**20:.0f} MiB of the spots"
    )
    return "auto, 20,000 spots x 2,000 genes x 20 types", "-", "60 s, .3 x spots + 500 MB", measured


def fit_default(folder: Path) -> dict[str, float]:
    """Fit the default in this process; report CPU seconds on one thread, seconds on two, and the memory it took on top."""
    spots, reference = (ad.read_h5ad(folder / f"{name}.h5ad") for name in ("spots", "reference"))
    um.tl.deconvolve(spots[:100].copy(), reference, groupby="cell_type", n_jobs=1)  # compiles
    before, start = peak_memory(), time.process_time()
    um.tl.deconvolve(spots, reference, groupby="cell_type", n_jobs=1)
    cpu, beyond, wall = time.process_time() - start, peak_memory() - before, time.perf_counter()
    um.tl.deconvolve(spots, reference, groupby="cell_type", n_jobs=2)
    held = spots.X.data.nbytes + spots.X.indices.nbytes + spots.X.indptr.nbytes
    return {"cpu": cpu, "two": time.perf_counter() - wall, "beyond": beyond, "held": held}


def peak_memory() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def large_row(folder: Path | None, n_spots: int) -> Sequence[str]:
    with tempfile.TemporaryDirectory(dir=folder) as tmp:
        path = Path(tmp) / "spots.h5ad"
        density = write_file(path, n_spots)
        command = [sys.executable, __file__, "--large-child", str(path)]
        result = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])
    measured = (
        f"{result['seconds']:.0f} s, peak RSS {result['peak'] / 2**30:.2f} GiB, {result['fitted']:,} spots fitted"
    )
    work = f"nnls, {n_spots:,} spots x 2,000 genes ({density:.1%} dense) from h5ad, 2 threads"
    return work, "-", "120 s, 2 GiB", measured


def write_file(path: Path, n_spots: int) -> float:
    """Write spots to disk block by block, each drawn from a pool of simulated ones; return their density."""
    S, pool = simulate(2000, 20, min(POOL_ROWS, n_spots), depth=112)
    rng = np.random.default_rng(1)
    adata, signature = as_tissue(pool[:1], S)
    with h5py.File(path, "w") as f:
        f.attrs.update({"encoding-type": "anndata", "encoding-version": "0.1.0"})
        ad.io.write_elem(f, "obs", pd.DataFrame(index=[f"spot{i}" for i in range(n_spots)]))
        ad.io.write_elem(f, "var", adata.var)
        for start in range(0, n_spots, POOL_ROWS):
            block = sparse.csr_matrix(pool[rng.integers(0, pool.shape[0], min(POOL_ROWS, n_spots - start))])
            if start == 0:
                ad.io.write_elem(f, "X", block)
            else:
                ad.io.sparse_dataset(f["X"]).append(block)
    signature.to_csv(path.with_suffix(".csv"))
    return pool.nnz / pool.shape[0] / pool.shape[1]


def fit_file(path: Path) -> dict[str, float]:
    """Fit the spots of a file in this process, and report its seconds and peak memory."""
    signature = pd.read_csv(path.with_suffix(".csv"), index_col=0)
    small = ad.AnnData(sparse.csr_matrix(signature.to_numpy().T.round()), var=pd.DataFrame(index=signature.index))
    um.tl.deconvolve(small, signature, method="nnls", n_jobs=1)  # compiles
    start = time.perf_counter()
    adata = ad.read_h5ad(path, backed="r")
    um.tl.deconvolve(adata, signature, method="nnls", n_jobs=2)
    took = time.perf_counter() - start
    return {"seconds": took, "peak": peak_memory(), "fitted": int(um.get.proportions(adata).notna().all(axis=1).sum())}


if __name__ == "__main__":
    main()
