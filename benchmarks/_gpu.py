"""Seconds per epoch of the autoencoder on the processor and on a GPU, and where the GPU's go."""

import argparse
import time
import unittest.mock
from collections import defaultdict

import numpy as np
import torch
from scipy import sparse

from unmix._settings import settings
from unmix.core import autoencoder
from unmix.core.autoencoder import Options, fit
from unmix.core.networks import Design
from unmix.core.training import Rows, batches, gene_moments, masked

EPOCHS = 3


def counts(n: int, g: int, block: int = 5000) -> sparse.csr_matrix:
    """Return planted counts of about five per cent density."""
    rng, parts = np.random.default_rng(0), []
    profiles = rng.gamma(0.3, 1.0, (8, g)) + 1e-3
    profiles *= 0.065 * g / profiles.sum(1, keepdims=True)
    for start in range(0, n, block):
        rows = min(block, n - start)
        x = rng.poisson(profiles[rng.integers(8, size=rows)] * rng.lognormal(0, 0.3, (rows, 1)))
        parts.append(sparse.csr_matrix(x.astype(np.float32)))
    return sparse.vstack(parts, format="csr")


def epoch(rows: Rows, design: Design, n_jobs: int = 1, **more: object) -> tuple[float, float]:
    """Return seconds of an epoch, the first left out, and the held-out loss after `EPOCHS`."""
    clock: list[float] = []
    options = Options(max_epochs=EPOCHS, **more)  # type: ignore[arg-type]
    found = fit(rows, design, options, n_jobs=n_jobs, on_epoch=lambda _: clock.append(time.perf_counter()))
    return float(np.median(np.diff(clock))), found.state.best_loss


def host(rows: Rows, size: int) -> float:
    """Return seconds in which an epoch's batches are made."""
    genes, rng = gene_moments(rows), np.random.default_rng(0)
    train = np.flatnonzero(rows.used)
    start = time.perf_counter()
    for part in batches(rows, train, genes, size, rng):
        masked(part.batch, 0.5, rng)
    return time.perf_counter() - start


def kernels(rows: Rows, design: Design, size: int) -> list[tuple[str, float, float]]:
    """Return name, seconds on the GPU and calls per epoch of what takes its time, most first."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CUDA]) as found:
        fit(rows, design, Options(max_epochs=2, device="cuda", batch_size=size))
    sums: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
    for event in found.key_averages():
        name = event.key.replace("at::native::", "").replace("void ", "").replace("(anonymous namespace)::", "")
        sums[name[:70]][0] += event.self_device_time_total / 1e6 / 2
        sums[name[:70]][1] += event.count / 2
    return sorted(((k, *v) for k, v in sums.items()), key=lambda row: -row[1])


def gpu(options: argparse.Namespace) -> None:
    """Print a table for two numbers of cells and sizes of batches, and what the GPU does in an epoch."""
    settings.progress = False
    there = torch.cuda.is_available()
    print(torch.cuda.get_device_name() if there else "no GPU: the processor alone", torch.__version__)
    threads = f"{settings.threads()} threads"
    heads = ("cells", "batch", "CPU, 1 thread", threads, "GPU", "GPU, bf16", "one by one", "MiB", "batches")
    print(
        "seconds per epoch; one by one: on the GPU, steps that are not recorded; MiB: most on the GPU; batches: making them"
    )
    print("  ".join(f"{head:>13}" for head in heads), flush=True)
    design = Design(options.genes)
    for n, sizes in ((5_000, (128, 512, 1024)), (100_000, (128, 1024, 4096))):
        X = counts(n, options.genes)
        rows = Rows(X, np.asarray(X.sum(1)).ravel().astype(float), np.zeros(n, np.int64), np.zeros((n, 0), np.float32))
        for size in sizes:
            row, losses = [], []
            for n_jobs in (1, settings.threads()):
                seconds, loss = epoch(rows, design, n_jobs, device="cpu", batch_size=size)
                row.append(seconds)
            losses.append(loss)
            if there:
                torch.cuda.reset_peak_memory_stats()
                for precision in ("float32", "bfloat16"):
                    seconds, loss = epoch(rows, design, device="cuda", precision=precision, batch_size=size)
                    row.append(seconds)
                    losses.append(loss)
                with unittest.mock.patch.object(autoencoder, "Recorded", return_value=None):
                    row.append(epoch(rows, design, device="cuda", batch_size=size)[0])
                row += [torch.cuda.max_memory_allocated() / 2**20, host(rows, size)]
            cells = "  ".join(f"{value:13.3f}" for value in row)
            print(f"{n:>13}  {size:>13}  {cells}   held-out {' '.join(f'{x:.2f}' for x in losses)}", flush=True)
        if there and n == 5_000:
            busiest = kernels(rows, design, 128)
            print(f"at batches of 128 the GPU is busy for {sum(k[1] for k in busiest):.3f} s of an epoch; most with")
            for name, seconds, calls in busiest[:8]:
                print(f"{seconds:12.4f} s {calls:8.0f} x  {name}", flush=True)
