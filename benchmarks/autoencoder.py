"""CPU seconds per epoch and held-out gap to the planted likelihood, on planted zero-inflated counts.

Run: python benchmarks/autoencoder.py [--cells 5000] [--genes 2000] [--epochs 10] [--device cpu|cuda] [--n-jobs 1]
"""

import argparse
import time

import numpy as np
import torch
from scipy import sparse

from unmix.core.autoencoder import Options, fit
from unmix.core.likelihoods import log_prob
from unmix.core.networks import Design
from unmix.core.training import Rows


def planted(n: int, g: int, seed: int = 0) -> tuple[sparse.csr_matrix, np.ndarray, np.ndarray, np.ndarray]:
    """Return counts of eight groups of cells, and the log means, log dispersions and dropout logits behind them."""
    rng = np.random.default_rng(seed)
    profiles = np.tile(rng.gamma(0.3, 1.0, g) + 1e-3, (8, 1))
    for profile in profiles:
        markers = rng.choice(g, g * 6 // 100, replace=False)
        profile[markers] *= 2 ** rng.normal(2.0, 0.7, len(markers))
    profiles /= profiles.sum(1, keepdims=True)
    group, w = rng.integers(8, size=n), rng.uniform(0, 0.25, (n, 1))
    p = (1 - w) * profiles[group] + w * profiles[(group + 1) % 8]
    mu = p * rng.lognormal(np.log(0.4 * g), 0.4, (n, 1))
    theta = rng.lognormal(np.log(2.0), 0.7, g)
    logits = -(1.2 + 0.8 * np.log(p * 0.4 * g + 1e-8))
    x = rng.poisson(rng.gamma(theta, mu / theta)) * (rng.random((n, g)) >= 1 / (1 + np.exp(-logits)))
    return sparse.csr_matrix(x.astype(np.float32)), np.log(mu), np.log(theta), logits


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name, value in {"cells": 5000, "genes": 2000, "epochs": 10, "n-jobs": 1}.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    X, log_mu, log_theta, logits = planted(options.cells, options.genes)
    n = X.shape[0]
    rows = Rows(X, np.asarray(X.sum(1)).ravel().astype(float), np.zeros(n, np.int64), np.zeros((n, 0), np.float32))
    print(f"{n} x {options.genes}, density {X.nnz / n / options.genes:.3f}, device {options.device}")
    print(
        f"{'likelihood':<12}{'dispersion':<12}{'cpu/epoch':>12}{'wall/epoch':>13}{'best epoch':>11}{'gap, nats/cell':>16}"
    )
    for likelihood, dispersion in (("zinb", "gene"), ("zinb", "gene-cell"), ("nb", "gene")):
        cpu, wall = [], []
        fitted = fit(
            rows,
            Design(options.genes, likelihood=likelihood, dispersion=dispersion),
            Options(max_epochs=options.epochs, device=options.device),
            n_jobs=options.n_jobs,
            on_epoch=lambda _, cpu=cpu, wall=wall: (cpu.append(time.process_time()), wall.append(time.perf_counter())),
        )
        v = fitted.held_out
        params = (torch.tensor(log_mu[v]), torch.tensor(log_theta)[None], torch.tensor(logits[v]))
        oracle = -log_prob(torch.tensor(X[v].toarray()).double(), "zinb", *params).sum().item() / len(v)
        seconds = [float(np.median(np.diff(t))) if len(t) > 1 else np.nan for t in (cpu, wall)]
        gap = fitted.state.best_loss - oracle
        print(
            f"{likelihood:<12}{dispersion:<12}{seconds[0]:12.3f}{seconds[1]:13.3f}{fitted.state.best_epoch:11}{gap:16.2f}"
        )


if __name__ == "__main__":
    main()
