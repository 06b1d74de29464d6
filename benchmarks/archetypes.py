"""Archetypes: speed, memory and explained variance beside py_pcha and partipy, where they are installed.

Run:  OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 python benchmarks/archetypes.py [parts]
Parts: small, restarts, large, tool, million; all of them by default.
"""

import resource
import sys
import time

import anndata as ad
import numpy as np
import pandas as pd
from scipy import sparse

import unmix as um
from unmix.core.archetypes import fit_archetypes


def problem(n: int, K: int, D: int = 30, seed: int = 1) -> np.ndarray:
    """Return mixtures of K random corners with noise, centred."""
    rng = np.random.default_rng(seed)
    Z = 3 * rng.normal(size=(K, D)) * np.linspace(1, 0.25, D)
    X = np.empty((n, D))
    for a in range(0, n, 50_000):
        m = min(50_000, n - a)
        X[a : a + m] = rng.dirichlet(np.full(K, 0.4), m) @ Z + 0.15 * rng.normal(size=(m, D))
    return X - X.mean(axis=0)


def explained(X: np.ndarray, W: np.ndarray, B: np.ndarray) -> float:
    return 1 - ((X - W @ (B @ X)) ** 2).sum() / (X**2).sum()


def pcha(X, K, seed):
    vars(np).setdefault("mat", np.asmatrix)  # it needs what NumPy 2 removed
    from py_pcha import PCHA

    np.random.seed(seed)  # noqa: NPY002
    _, S, C, _, _ = PCHA(X.T, noc=K, conv_crit=1e-6, maxiter=500)
    return np.asarray(S).T, np.asarray(C).T


def partipy(X, K, seed):
    import partipy as pt

    found = pt.AA(n_archetypes=K, init="plus_plus", optim="projected_gradients", max_iter=500, rel_tol=1e-4, seed=seed)
    found.fit(X)
    return found.A, found.B


def ours(n_restarts: int):
    def run(X, K, seed):
        fit = fit_archetypes(X, K, n_restarts=n_restarts, rng=seed)
        return fit.W, fit.B

    return run


def compare(title: str, X: np.ndarray, K: int, methods: dict, n_seeds: int = 3) -> None:
    rows = {}
    for name, method in methods.items():
        seconds, variance = [], []
        try:
            method(problem(300, K), K, 0)
            for seed in range(n_seeds):
                start = time.process_time()
                W, B = method(X, K, seed)
                seconds.append(time.process_time() - start)
                variance.append(explained(X, W, B))
        except ImportError as error:
            rows[f"{name} (not installed: {error.name})"] = {"CPU s": np.nan}
            continue
        rows[name] = {"CPU s": np.median(seconds), "best EV": max(variance), "median EV": np.median(variance)}
    table = pd.DataFrame(rows).T
    table["times ours"] = table["CPU s"] / table["CPU s"].iloc[0]
    sys.stdout.write(f"\n{title}\n{table.round(5).to_string()}\n")
    sys.stdout.flush()


def million() -> None:
    X = problem(1_000_000, 12)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    wall, cpu = time.perf_counter(), time.process_time()
    fit = fit_archetypes(X, 12, n_jobs=2)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    sys.stdout.write(
        f"\n1,000,000 x 30, K=12, 2 threads, 10 restarts: {wall:.1f} s wall, {cpu:.1f} s CPU, "
        f"EV {fit.explained_variance:.5f}, peak {peak / 2**20:.2f} GiB ({before / 2**20:.2f} before the fit)\n"
    )


def whole_tool() -> None:
    rng = np.random.default_rng(0)
    profile = rng.gamma(0.3, 1.0, (5, 5000)) + 0.02
    for t in range(5):
        profile[t, 20 * t : 20 * t + 20] *= 10
    profile /= profile.sum(axis=1, keepdims=True)
    counts = rng.poisson(rng.dirichlet(np.full(5, 0.4), 2500) @ profile * 4000)
    spots = ad.AnnData(sparse.csr_matrix(counts.astype(np.float32)))
    sets = {f"type_{t}": [str(g) for g in range(20 * t, 20 * t + 20)] for t in range(5)}
    um.tl.starfysh_archetypes(spots[:300].copy(), signatures=sets)
    start = time.process_time()
    um.tl.starfysh_archetypes(spots, signatures=sets, n_jobs=1)
    sys.stdout.write(f"\nwhole tool, 2,500 spots x 5,000 genes, signatures: {time.process_time() - start:.1f} s CPU\n")


def main() -> None:
    chosen = sys.argv[1:] or ["small", "restarts", "large", "tool", "million"]
    if "small" in chosen:
        compare("2,000 x 30, K=8", problem(2000, 8), 8, {"unmix": ours(1), "py_pcha": pcha, "partipy": partipy})
    if "restarts" in chosen:
        compare(
            "2,000 x 30, K=12; ten restarts beside one fit each", problem(2000, 12), 12,
            {"unmix x 10": ours(10), "py_pcha": pcha, "partipy": partipy}, 10,
        )  # fmt: skip
    if "large" in chosen:
        compare(
            "20,000 x 30, K=10", problem(20_000, 10), 10, {"unmix": ours(1), "py_pcha": pcha, "partipy": partipy}, 1
        )
    if "tool" in chosen:
        whole_tool()
    if "million" in chosen:
        million()


if __name__ == "__main__":
    main()
