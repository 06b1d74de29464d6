"""Autoencoders on planted zero-inflated counts: CPU seconds, held-out likelihood, what of the plan is found; scVI beside.

Run: python benchmarks/autoencoder.py [speed] [accuracy] [planted] [inflation] [--cells 5000] [--genes 2000] [--device cpu|cuda]
     python benchmarks/autoencoder.py disk [--cells 1000000] [--n-jobs 2] [--tmp DIR]
     python benchmarks/autoencoder.py gpu
One thread each: OMP_NUM_THREADS=1. Gaps are nats per cell to the planted likelihood on cells that took no part in training.
scVI is run where scvi-tools is installed.
"""

import argparse
import importlib.util
import multiprocessing
import os
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from _gpu import gpu
from scipy import sparse, stats

from unmix.core.autoencoder import Fit, Options, State, fit
from unmix.core.decoding import Wanted, denoise, project
from unmix.core.inflation import Table, empty_table, tabulate, zero_inflation
from unmix.core.likelihoods import log_prob
from unmix.core.networks import Design
from unmix.core.training import Rows

HAS_SCVI = importlib.util.find_spec("scvi") is not None
LEARNING_RATES = (1e-3, 2e-3, 4e-3)
N_TEST = 1000
SCORED_CELLS = 20_000
"""As many cells as the zero-inflation score looks at, at most."""


class Planted:
    """Counts of eight groups of cells with known log means, log dispersions and dropout; the last cells are for testing."""

    def __init__(self, n: int, g: int, *, half: bool = False, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        n += N_TEST
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
        self.inflated = rng.random(g) < (0.5 if half else 2.0)
        lost = (1 / (1 + np.exp(-logits))) * self.inflated
        x = rng.poisson(rng.gamma(theta, mu / theta)) * (rng.random((n, g)) >= lost)
        self.X = sparse.csr_matrix(x.astype(np.float32))
        self.log_mu, self.log_theta, self.logits = np.log(mu), np.log(theta), np.where(self.inflated, logits, -30.0)

    @property
    def train(self) -> sparse.csr_matrix:
        """Counts for training."""
        return self.X[:-N_TEST]

    @property
    def test(self) -> sparse.csr_matrix:
        """Counts for testing."""
        return self.X[-N_TEST:]

    def gap(self, nll: np.ndarray) -> float:
        """Return the mean loss per test cell less that of the planted parameters."""
        truth = (self.log_mu[-N_TEST:], self.log_theta[None], self.logits[-N_TEST:])
        best = log_prob(torch.tensor(self.test.toarray()).double(), "zinb", *map(torch.tensor, truth))
        return float(nll.mean() + best.sum(1).mean())


def rows_of(X: sparse.csr_matrix) -> Rows:
    n = X.shape[0]
    return Rows(X, np.asarray(X.sum(1)).ravel().astype(float), np.zeros(n, np.int64), np.zeros((n, 0), np.float32))


def ours_per_epoch(X: sparse.csr_matrix, epochs: int, options: argparse.Namespace, **design: str) -> float:
    clock: list[float] = []
    fit(
        rows_of(X), Design(X.shape[1], **design), Options(max_epochs=epochs, device=options.device),  # type: ignore[arg-type]
        n_jobs=options.n_jobs, on_epoch=lambda _: clock.append(time.process_time()),
    )  # fmt: skip
    return float(np.median(np.diff(clock)))


def speed(options: argparse.Namespace) -> None:
    """CPU seconds per epoch, ours and scVI's in turn, medians of three rounds."""
    X = Planted(options.cells, options.genes).train
    print(f"{X.shape[0]} x {X.shape[1]}, density {X.nnz / X.shape[0] / X.shape[1]:.3f}")
    designs = {
        "zinb, gene": {}, "zinb, gene-cell": {"dispersion": "gene-cell"}, "nb, gene": {"likelihood": "nb"},
    }  # fmt: skip
    floors = {name: floor(X, heads) for name, heads in zip(designs, (2, 3, 1), strict=True)}
    times: dict[str, list[float]] = {}
    for _ in range(3):
        for name, design in designs.items():
            times.setdefault(name, []).append(ours_per_epoch(X, options.epochs, options, **design))
        if HAS_SCVI:
            from _scvi import cpu_seconds_per_epoch

            times.setdefault("scVI zinb, gene", []).append(cpu_seconds_per_epoch(X, options.epochs))
    peer = times.get("scVI zinb, gene")
    print(f"{'CPU s/epoch':<20}{'median':>9}{'of its floor':>20}{'scVI / it, by round':>28}")
    for name, values in times.items():
        ratios = "" if peer is None else "  ".join(f"{b / a:.2f}" for a, b in zip(values, peer, strict=True))
        above = f"{np.median(values) / floors[name]:.2f} x {floors[name]:.3f}" if name in floors else ""
        print(f"{name:<20}{np.median(values):9.3f}{above:>20}{ratios:>28}", flush=True)


def floor(X: sparse.csr_matrix, heads: int, hidden: int = 64, batch: int = 128) -> float:
    """Return CPU seconds of the last layer's three products and one pass of six nanoseconds an entry, per epoch.

    The layer has a head for the means, one for dropouts, and one for dispersions that differ from cell to cell.
    """
    n, G = int(0.9 * X.shape[0]), X.shape[1]
    h, W = torch.randn(batch, hidden), torch.randn(heads * G, hidden)
    torch.set_num_threads(1)
    clock = []
    for _ in range(20):
        start = time.process_time()
        out = h @ W.t()
        torch.mm(out, W)
        torch.mm(out.t(), h)
        clock.append(time.process_time() - start)
    return float(np.median(clock)) * n / batch + 6e-9 * n * G


def accuracy(options: argparse.Namespace) -> None:
    """CPU seconds to the best held-out gap that scVI reaches in 40 epochs over a grid of learning rates."""
    data = Planted(options.cells, options.genes)
    target, peer_cpu = 3.0, np.nan
    if HAS_SCVI:
        target, peer_cpu = scvi_best(data)
    print(
        f"{'ours, zinb':<14}{'CPU s to gap <= ' + format(target, '.2f'):>24}{'scVI / it':>11}{'best gap':>10}{'final gap':>11}"
    )
    for dispersion in ("gene", "gene-cell"):
        curve, fitted = gap_curve(data, Design(options.genes, dispersion=dispersion), Options(max_epochs=40))
        reached = [cpu for cpu, gap in curve if gap <= target]
        seconds = reached[0] if reached else np.nan
        final = data.gap(project(fitted, rows_of(data.test)).nll)
        print(
            f"{dispersion:<14}{seconds:24.2f}{peer_cpu / seconds:11.1f}{min(g for _, g in curve):10.2f}{final:11.2f}",
            flush=True,
        )


def gap_curve(data: Planted, design: Design, options: Options) -> tuple[list[tuple[float, float]], Fit]:
    """Return CPU seconds and gap of the weights kept, after every epoch, and the fit."""
    rows, test, curve = rows_of(data.train), rows_of(data.test), []
    start, paused = time.process_time(), 0.0

    def score(state: State) -> None:
        nonlocal paused
        now = time.process_time()
        kept = Fit(design, kept_genes, state.best, state, np.zeros(0, np.int64), False)
        curve.append((now - start - paused, data.gap(project(kept, test).nll)))
        paused += time.process_time() - now

    from unmix.core.training import gene_moments

    kept_genes = gene_moments(rows)
    return curve, fit(rows, design, options, on_epoch=score)


def scvi_best(data: Planted, epochs: int = 40) -> tuple[float, float]:
    """Return scVI's best gap over the grid, and the CPU seconds of the run that reached it, up to there."""
    from _scvi import ScVI

    best, x = (np.inf, np.nan), torch.tensor(data.test.toarray()).double()
    print(f"{'scVI':<10}{'KL warm-up':>11}{'best gap':>10}{'at epoch':>10}{'CPU s':>8}")
    for lr in LEARNING_RATES:
        for warmup in (None, 400):
            model, curve = ScVI(data.train), []
            clock = [time.process_time()]

            def score(model: ScVI = model, curve: list = curve, clock: list = clock) -> None:
                now = time.process_time()
                nll = -log_prob(x, "zinb", *model.parameters(data.test)).sum(1).numpy()
                curve.append((data.gap(nll), now - clock[0]))
                clock[0] += time.process_time() - now

            model.train(epochs, lr=lr, warmup=warmup, on_epoch=score)
            here = min(curve)
            print(
                f"lr {lr:<7}{warmup or 'none':>11}{here[0]:10.2f}{curve.index(here) + 1:10}{here[1]:8.1f}", flush=True
            )
            best = min(best, here)
    return best


def planted(options: argparse.Namespace) -> None:
    """Print what of the plan is found: gap, means, dispersions; and whether more epochs do harm."""
    data = Planted(options.cells, options.genes)
    rows, test = rows_of(data.train), rows_of(data.test)
    seen = np.asarray(data.train.mean(0)).ravel() > 0.5
    print(f"{'':<24}{'gap':>7}{'r of log(1 + mean)':>20}{'rank r of theta (mean > .5)':>29}")
    for dispersion, epochs in (("gene", 20), ("gene", 200), ("gene-cell", 20), ("gene-cell", 200)):
        fitted = fit(rows, Design(options.genes, dispersion=dispersion), Options(max_epochs=epochs))
        mean = np.concatenate(list(denoise(fitted, test, Wanted(dropout=True))))
        kept = 1 / (1 + np.exp(data.logits[-N_TEST:]))
        r = np.corrcoef(np.log1p(mean).ravel(), np.log1p(kept * np.exp(data.log_mu[-N_TEST:])).ravel())[0, 1]
        rank = np.nan
        if dispersion == "gene":
            rank = stats.spearmanr(fitted.weights["log_dispersion"][0][seen], data.log_theta[seen])[0]
        gap = data.gap(project(fitted, test).nll)
        print(f"{dispersion + ', ' + str(epochs) + ' epochs':<24}{gap:7.2f}{r:20.4f}{rank:29.3f}", flush=True)


def inflation(options: argparse.Namespace) -> None:
    """Print how well the zero-inflation score tells inflated genes, beside scores that know more than data can say."""
    print(
        "zero-inflation score, dropout in half of the genes; called: score above 0, of those with dropout, and without"
    )
    for n in (options.cells, SCORED_CELLS):
        inflation_of(Planted(n, options.genes, half=True))


def inflation_of(data: Planted) -> None:
    rows = rows_of(data.train)
    found = project(fit(rows, Design(data.train.shape[1]), Options()), rows, score_genes=True).inflation
    mean = np.asarray(data.train.mean(0)).ravel()
    title = f"{data.train.shape[0]} cells"
    print(f"  {title:<28}{'genes':>6}{'AUC':>9}{'called':>9}{'':>9}{'AUC, true means':>17}{'and dispersions':>17}")
    known = scores_by_truth(data)
    groups = {"all": np.isfinite(found.score)} | {f"power at least {p}": found.power >= p for p in (0.5, 0.8, 0.95)}
    groups |= {f"mean above {least}": mean > least for least in (0.01, 0.03, 0.1, 0.3, 1.0)}
    for name, of in groups.items():
        score, inflated = found.score[of], data.inflated[of]
        called = (score > 0)[inflated].mean(), (score > 0)[~inflated].mean()
        oracles = "".join(f"{auc(other[of], inflated):17.3f}" for other in known)
        row = f"  genes, {name:<21}{of.sum():6}{auc(score, inflated):9.3f}{called[0]:9.3f}{called[1]:9.3f}{oracles}"
        print(row, flush=True)


def auc(score: np.ndarray, positive: np.ndarray) -> float:
    """Return the probability that a positive's score is above another's."""
    rank, n1, n0 = stats.rankdata(score), positive.sum(), (~positive).sum()
    return float((rank[positive].sum() - n1 * (n1 + 1) / 2) / n1 / n0)


def scores_by_truth(data: Planted) -> tuple[np.ndarray, np.ndarray]:
    """Return scores by the planted means, but for a factor per gene, and by planted means and dispersions.

    (The factor is what no data tell: a gene with dropout has the mean of one without at a lower level.)
    """
    X, log_mu = data.train, data.log_mu[:-N_TEST].astype(np.float32)
    X.sort_indices()
    table, centre = empty_table(X.shape[1]), np.log(np.exp(log_mu).mean(0))
    tabulate(log_mu, centre, X.indptr.astype(np.int64), X.indices.astype(np.int64), X.data, table)
    by_gene = (
        zero_inflation(Table(table.cells[[g]], table.above[[g]]), centre[[g]], (data.log_theta[g], 1e-4))
        for g in range(X.shape[1])
    )
    return zero_inflation(table, centre).score, np.concatenate([found.score for found in by_gene])


def disk(options: argparse.Namespace) -> None:
    """One epoch over a file that is never in memory as a whole; another process writes it."""
    import anndata as ad

    import unmix as um

    n, g = (options.cells if options.cells != 5000 else 1_000_000), options.genes
    with tempfile.TemporaryDirectory(dir=options.tmp) as folder:
        path = Path(folder) / "cells.h5ad"
        writer = multiprocessing.get_context("spawn").Process(target=write_file, args=(path, n, g))
        writer.start()
        writer.join()
        before = os.getloadavg()[0]
        start, cpu = time.perf_counter(), time.process_time()
        adata = ad.read_h5ad(path, backed="r")
        um.tl.zinb_ae(adata, max_epochs=1, n_jobs=options.n_jobs)
        seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        size, loss = path.stat().st_size / 2**30, adata.uns["zinb_ae"]["history"]["validation"][0]
        print(
            f"{n} x {g} from disk ({size:.2f} GiB), zinb_ae: checks, one epoch, encoding: {seconds:.0f} s, {cpu:.0f} CPU s"
        )
        print(f"{options.n_jobs} threads, peak RSS {peak:.2f} GiB, held-out loss {loss:.3f}", end="; ")
        print(f"load of the machine before {before:.1f}, after {os.getloadavg()[0]:.1f}")
        adata.file.close()


def write_file(path: Path, n: int, g: int, block: int = 20_000) -> None:
    """Write planted counts of about five per cent density block by block."""
    import anndata as ad

    rng = np.random.default_rng(0)
    profiles = rng.gamma(0.3, 1.0, (8, g)) + 1e-3
    profiles *= 0.065 * g / profiles.sum(1, keepdims=True)
    for start in range(0, n, block):
        rows = min(block, n - start)
        x = rng.poisson(profiles[rng.integers(8, size=rows)] * rng.lognormal(0, 0.3, (rows, 1)))
        part = ad.AnnData(sparse.csr_matrix(x.astype(np.float32)))
        part.obs_names = [f"c{start + i}" for i in range(rows)]
        if start == 0:
            names = ad.AnnData(obs=ad.AnnData(sparse.csr_matrix((n, 1), dtype=np.float32)).obs, var=part.var)
            names.X = sparse.csr_matrix((n, g), dtype=np.float32)[:0] if n == 0 else None
            names.write_h5ad(path)
            import h5py

            with h5py.File(path, "r+") as file:
                file.pop("X", None)
                ad.io.write_elem(file, "X", part.X)
        else:
            with h5py.File(path, "r+") as file:
                ad.io.sparse_dataset(file["X"]).append(part.X)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = {
        "speed": speed, "accuracy": accuracy, "planted": planted, "inflation": inflation, "disk": disk, "gpu": gpu,
    }  # fmt: skip
    parser.add_argument("parts", nargs="*", choices=[[], *parts])
    for name, value in {"cells": 5000, "genes": 2000, "epochs": 6, "n-jobs": 1}.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--tmp", type=Path, help="folder for the file of `disk`")
    options = parser.parse_args()
    for name in options.parts or ("speed", "accuracy", "planted", "inflation"):
        parts[name](options)


if __name__ == "__main__":
    main()
