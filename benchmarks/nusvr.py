"""Exact nu-SVR against a loop over scikit-learn's NuSVR: speed at its tolerance 1e-3, objective at its tolerance 1e-8.

Run as `python benchmarks/nusvr.py`. One process, one thread, CPU time.
"""

import os
import time

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

import numpy as np
from sklearn.svm import NuSVR

from unmix.core.cibersort import NUS, zscore
from unmix.core.nusvr import solve_nusvr


def simulate(n_genes=500, n_types=20, n_spots=200, depth=5000, seed=0):
    """Return a scaled signature with 25 markers per type, and scaled spots of overdispersed counts."""
    random = np.random.default_rng(seed)
    S = random.lognormal(0, 1, n_genes)[:, None] * random.lognormal(0, 0.3, (n_genes, n_types))
    per = n_genes // n_types
    for j in range(n_types):
        S[j * per : (j + 1) * per, j] *= random.uniform(5, 20, per)
    S /= S.sum(axis=0)
    p = np.zeros((n_spots, n_types))
    for row in p:
        some = random.choice(n_types, random.integers(2, 7), replace=False)
        row[some] = random.dirichlet(np.ones(len(some)))
    mean = p @ S.T * random.lognormal(np.log(depth), 0.4, (n_spots, 1))
    Y = random.poisson(mean * random.gamma(10.0, 0.1, mean.shape))
    return zscore(S.ravel()).reshape(S.shape), zscore(Y.astype(float))


def loop(X, Y, nu, tol):
    return np.array([NuSVR(kernel="linear", nu=nu, C=1.0, tol=tol).fit(X, y).coef_[0] for y in Y])


def objective(X, Y, w, nu):
    """Primal objective of weights alone: the best thresholds are order statistics of the residuals."""
    k = nu * len(X) / 2
    whole = int(k)
    r = np.sort(Y - w @ X.T, axis=1)
    tops = [s[:, ::-1][:, :whole].sum(axis=1) + (k - whole) * s[:, ::-1][:, whole] for s in (r, -r[:, ::-1])]
    return 0.5 * (w**2).sum(axis=1) + tops[0] + tops[1]


def seconds(function):
    start = time.process_time()
    value = function()
    return value, time.process_time() - start


def bench_nusvr(n_spots=200, n_peer=8, n_rounds=5):
    """Return one row per nu and one for all: ms per spot of both, their ratio, and objectives relative to tol 1e-8."""
    X, Y = simulate(n_spots=n_spots)
    solve_nusvr(X, Y[:2], 0.5)
    rows, total = [], np.zeros(2)
    for nu in NUS:
        ours, theirs = [], []
        for _ in range(n_rounds):
            fit, spent = seconds(lambda nu=nu: solve_nusvr(X, Y, nu))
            ours.append(spent / n_spots)
            loose, spent = seconds(lambda nu=nu: loop(X, Y[:n_peer], nu, 1e-3))
            theirs.append(spent / n_peer)
        tight = objective(X, Y[:n_peer], loop(X, Y[:n_peer], nu, 1e-8), nu)
        cost = np.median([ours, theirs], axis=1) * 1e3
        total += cost
        excess = [np.max(objective(X, Y[:n_peer], w, nu) / tight - 1) for w in (fit.w[:n_peer], loose)]
        rows.append((f"{nu}", *cost, cost[1] / cost[0], *excess, fit.gap.max()))
    return [*rows, ("all", *total, total[1] / total[0], *np.max([row[4:] for row in rows], axis=0))]


if __name__ == "__main__":
    print("nu-SVR, 500 genes x 20 types, 200 spots, one thread, CPU time (median of 5)")
    print("nu     ours ms/spot  sklearn 1e-3 ms/spot   ratio  objective above sklearn 1e-8: ours, sklearn 1e-3   gap")
    for nu, ours, theirs, ratio, excess, loose, gap in bench_nusvr():
        print(f"{nu:5s}  {ours:12.3f}  {theirs:20.1f}  {ratio:5.0f}x  {excess:34.1e}, {loose:12.1e}  {gap:.0e}")
