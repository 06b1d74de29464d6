"""Every tool on 1,000 to 1,000,000 rows x 2,000 genes, 5% dense: CPU and wall seconds, peak memory, exponents.

    python benchmarks/scale.py --tmp DIR                           # everything; hours of one thread
    python benchmarks/scale.py --tmp DIR --tools nnls nmf --rows 1000 10000 100000
    python benchmarks/scale.py --tmp DIR --report                  # the table of what was measured before

Every measurement has a process of its own: a fork of one in which the tool has run on 300 rows, and once on 2,200,
which take single precision, so that loading and compiling are not counted. All work on one thread. Counts are
written to DIR block by block, and rows of the table to DIR/scale.jsonl as they come: an interrupted run goes on where
it was. "disk" reads the h5ad file backed; "memory" loads it first, and its peak holds the matrix. Exponents are slopes
of log(CPU seconds) over log(rows): of all sizes, and of the last two.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ[variable] = "1"  # before numpy is imported

import anndata as ad
import h5py
import numpy as np
import pandas as pd
from scipy import sparse

import unmix as um

ROWS = (1_000, 10_000, 100_000, 1_000_000)
GENES, PROTEINS, TYPES, DEPTH = 2_000, 50, 12, 112
BLOCK = 4096


def profiles() -> np.ndarray:
    """Return the profiles of the types, (types, genes), rows sum to 1."""
    rng = np.random.default_rng(0)
    base = rng.lognormal(0, 0.7, GENES)
    S = base * np.exp(rng.normal(0, 0.8, (TYPES, GENES)))
    return S / S.sum(axis=1, keepdims=True)


def simulate(n: int, seed: int = 1, *, pure: bool = False) -> Iterator[tuple[sparse.csr_matrix, np.ndarray]]:
    """Yield blocks of counts, mixtures of the types, and the mixtures."""
    S, rng = profiles(), np.random.default_rng(seed)
    for start in range(0, n, BLOCK):
        size = min(BLOCK, n - start)
        W = np.eye(TYPES)[rng.integers(TYPES, size=size)] if pure else rng.dirichlet(np.full(TYPES, 0.15), size)
        depth = DEPTH * rng.lognormal(0, 0.3, (size, 1))
        yield sparse.csr_matrix(rng.poisson(depth * W @ S).astype(np.float32)), W


def write_counts(folder: Path, n: int) -> tuple[Path, Path]:
    """Write counts of genes and proteins to disk block by block, unless they are there; return the files."""
    paths = folder / f"rna{n}.h5ad", folder / f"adt{n}.h5ad"
    if all(p.exists() for p in paths):
        return paths
    rng = np.random.default_rng(2)
    levels = rng.lognormal(0, 1, (TYPES, PROTEINS))
    obs = pd.DataFrame({"batch": pd.Categorical(np.where(np.arange(n) % 2, "a", "b"))}, index=np.arange(n).astype(str))
    temporary = [p.with_suffix(".part") for p in paths]
    files = [h5py.File(p, "w") for p in temporary]
    for file, names in zip(files, ([f"g{i}" for i in range(GENES)], [f"p{i}" for i in range(PROTEINS)]), strict=True):
        file.attrs.update({"encoding-type": "anndata", "encoding-version": "0.1.0"})
        ad.io.write_elem(file, "obs", obs)
        ad.io.write_elem(file, "var", pd.DataFrame(index=names))
    for i, (block, W) in enumerate(simulate(n)):
        for file, part in zip(
            files, (block, sparse.csr_matrix(rng.poisson(W @ levels).astype(np.float32))), strict=True
        ):
            if i == 0:
                ad.io.write_elem(file, "X", part)
            else:
                ad.io.sparse_dataset(file["X"]).append(part)
    for file, part, path in zip(files, temporary, paths, strict=True):
        file.close()
        part.replace(path)
    return paths


def reference() -> ad.AnnData:
    """Return 1,200 single cells with their types."""
    parts = list(simulate(1_200, seed=3, pure=True))
    labels = np.concatenate([W.argmax(axis=1) for _, W in parts])
    X = sparse.vstack([block for block, _ in parts], format="csr")
    obs = pd.DataFrame({"type": [f"t{k}" for k in labels]}, index=np.arange(X.shape[0]).astype(str))
    return ad.AnnData(X, obs=obs, var=pd.DataFrame(index=[f"g{i}" for i in range(GENES)]))


def signature() -> pd.DataFrame:
    """Return the profiles as a table, genes x types."""
    return pd.DataFrame(
        profiles().T * 1e4, index=[f"g{i}" for i in range(GENES)], columns=[f"t{k}" for k in range(TYPES)]
    )


def sets() -> dict[str, list[str]]:
    """Return the 30 genes that stand out most in every type."""
    S = profiles()
    best = np.argsort(-S / S.mean(axis=0), axis=1)[:, :30]
    return {f"t{k}": [f"g{i}" for i in genes] for k, genes in enumerate(best)}


Run = Callable[[ad.AnnData, ad.AnnData], Any]


def deconvolve(method: str, **options: Any) -> Run:
    return lambda rna, _: um.tl.deconvolve(rna, signature(), method=method, n_jobs=1, **options)


def count_model(**options: Any) -> Run:
    return lambda rna, _: um.tl.deconvolve(rna, reference(), groupby="type", n_jobs=1, **options)


def factorize(k: int = 15, **options: Any) -> Run:
    return lambda rna, _: um.tl.factorize(rna, k, n_jobs=1, **options)


def views(rna: ad.AnnData, adt: ad.AnnData) -> None:
    um.tl.joint_nmf({"rna": rna, "adt": adt}, 15, max_iter=5, tol=0, n_jobs=1)


def poisson_views(rna: ad.AnnData, adt: ad.AnnData) -> None:
    um.tl.joint_nmf({"rna": rna, "adt": adt}, 15, loss="kl", max_iter=5, tol=0, n_jobs=1)


def batches(**options: Any) -> Run:
    return lambda rna, _: um.tl.joint_nmf(rna, 15, batch_key="batch", tol=0, n_jobs=1, **options)


def fitted(tool: Callable[..., Any], **options: Any) -> Callable[[], ad.AnnData]:
    """Return what fits a tool to 2,000 rows."""

    def fit() -> ad.AnnData:
        small = ad.AnnData(sparse.vstack([block for block, _ in simulate(2_000, seed=4)], format="csr"))
        small.var_names = [f"g{i}" for i in range(GENES)]
        tool(small, n_jobs=1, **options)
        return small

    return fit


def on_fitted(fit: Callable[[], ad.AnnData], use: Callable[[ad.AnnData, ad.AnnData], Any]) -> Run:
    """Return a run that maps rows onto a small fit, which is made once, before the clock starts."""
    kept: list[ad.AnnData] = []

    def run(rna: ad.AnnData, _: ad.AnnData) -> None:
        kept.append(kept[0] if kept else fit())
        use(rna, kept[0])

    return run


def denoise_to_file(rna: ad.AnnData, small: ad.AnnData) -> None:
    out = Path(os.environ["UNMIX_SCALE_OUT"])
    out.unlink(missing_ok=True)
    um.tl.denoise(rna, small, out=out, n_jobs=1)
    out.unlink()


NB = fitted(um.tl.autoencoder, n_latent=10, likelihood="nb", max_epochs=2)
TOOLS: dict[str, tuple[str, Run]] = {
    "nnls": ("table of 12 types", deconvolve("nnls")),
    "poisson": ("table of 12 types", deconvolve("poisson")),
    "nusvr": ("table of 12 types", deconvolve("nusvr")),
    "auto": ("reference of 1,200 cells, 12 types", count_model()),
    "auto unknown": ("the same, unknown=True", count_model(unknown=True)),
    "archetypes": ("n_archetypes=12, 3 restarts", lambda rna, _: um.tl.starfysh_archetypes(
        rna, 12, n_restarts=3, n_jobs=1)),
    "archetypes sets": ("the same, 12 sets of 30 genes", lambda rna, _: um.tl.starfysh_archetypes(
        rna, 12, n_restarts=3, signatures=sets(), n_jobs=1)),
    "svd": ("15 components", factorize(method="svd")),
    "als": ("15 components, 10 passes", factorize(method="als", max_iter=10, tol=0)),
    "nmf": ("15 components, 10 passes", factorize(max_iter=10, tol=0)),
    "nmf kl": ("15 components, 10 passes", factorize(loss="kl", max_iter=10, tol=0)),
    "metagenes": ("12 programs, 5 runs of 30 passes", lambda rna, _: um.tl.metagenes(
        rna, 12, n_runs=5, max_iter=30, tol=0, max_distance=2.0, n_jobs=1)),
    "joint batches": ("2 batches, 15 components, 5 passes", batches(max_iter=5)),
    "joint online": ("the same, 2 passes online, then 1", batches(online=2, max_iter=3)),
    "joint modalities": ("2,000 genes, 50 proteins, 5 passes", views),
    "joint modalities kl": ("the same, Poisson", poisson_views),
    "autoencoder": ("NB, one epoch", lambda rna, _: um.tl.autoencoder(rna, likelihood="nb", max_epochs=1, n_jobs=1)),
    "zinb_ae": ("one epoch", lambda rna, _: um.tl.zinb_ae(rna, max_epochs=1, n_jobs=1)),
    "denoise genes": ("10 genes, into a layer", on_fitted(NB, lambda rna, small: um.tl.denoise(
        rna, small, genes=[f"g{i}" for i in range(10)], n_jobs=1))),
    "denoise file": ("all genes, into a file", on_fitted(NB, denoise_to_file)),
    "transform nmf": ("15 components", on_fitted(fitted(um.tl.factorize, n_components=15), lambda rna, small: (
        um.tl.transform(rna, small, key="nmf", n_jobs=1)))),
    "transform ae": ("10 coordinates", on_fitted(NB, lambda rna, small: (
        um.tl.transform(rna, small, key="ae", n_jobs=1)))),
    "transform archetypes": ("12 archetypes", on_fitted(fitted(um.tl.starfysh_archetypes, n_archetypes=12), lambda rna, small: (
        um.tl.transform(rna, small, key="archetypes", n_jobs=1)))),
}  # fmt: skip
"""Name: settings, the same at every size, and the call."""


def peak_gib() -> float:
    """Return the largest resident memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 2**30


def child(tool: str, folder: Path, wanted: list[tuple[str, int]]) -> None:
    """Run a tool on 300 rows, so that everything is loaded and compiled; measure it in a fork for every place and size."""
    warnings.simplefilter("ignore")  # a fixed number of passes does not converge, and says so
    run = TOOLS[tool][1]
    os.environ["UNMIX_SCALE_OUT"] = str(folder / f"denoised-{os.getpid()}.h5ad")
    if pid := os.fork():  # what single precision compiles is kept on disk, and the memory of it goes with the fork
        os.waitpid(pid, 0)
    else:
        run(*(ad.read_h5ad(p)[:2_200].copy() for p in write_counts(folder, ROWS[1])))
        os._exit(0)
    run(*(ad.read_h5ad(p)[:300].copy() for p in write_counts(folder, ROWS[0])))
    sys.stdout.flush()
    for where, n in wanted:
        if pid := os.fork():
            status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            if status:
                print(json.dumps({"tool": tool, "where": where, "rows": n, "failed": f"exit {status}"}), flush=True)
            continue
        measure(tool, run, where, folder, n)
        os._exit(0)


def measure(tool: str, run: Run, where: str, folder: Path, n: int) -> None:
    """Measure one call in this process, and print what was found."""
    row: dict[str, Any] = {"tool": tool, "where": where, "rows": n, "start": peak_gib()}
    try:
        data = [ad.read_h5ad(p, backed="r" if where == "disk" else None) for p in write_counts(folder, n)]
        cpu, system, wall = time.process_time(), os.times().system, time.perf_counter()
        run(*data)
        row |= {"cpu": time.process_time() - cpu, "system": os.times().system - system}
        row |= {"wall": time.perf_counter() - wall, "peak": peak_gib()}
    except (MemoryError, ValueError, TypeError, RuntimeError) as error:
        row["failed"] = repr(error)
    print(json.dumps(row), flush=True)


def slope(part: pd.DataFrame) -> float:
    """Return the slope of log(CPU seconds) over log(rows)."""
    return float(np.polyfit(np.log(part["rows"]), np.log(part["cpu"]), 1)[0]) if len(part) > 1 else np.nan


def report(file: Path) -> None:
    """Print what was measured: the last row of every tool, place and size."""
    found = pd.DataFrame([json.loads(line) for line in file.read_text().splitlines()])
    found = found.drop_duplicates(["tool", "where", "rows"], keep="last")
    sizes = sorted(found["rows"].unique())
    print("| tool | X | " + " | ".join(f"{n:,} rows" for n in sizes) + " | exponent | last | ms | bytes |")
    print("|---|---|" + "---|" * (len(sizes) + 4))
    for tool in TOOLS:
        for where in ("memory", "disk"):
            part = found[(found["tool"] == tool) & (found["where"] == where)].sort_values("rows")
            good = part[part["cpu"].notna()]
            if len(good):
                cells = [cell(part[part["rows"] == n]) for n in sizes]
                print(f"| {tool} | {where} | " + " | ".join([*cells, *rates(good)]) + " |")
    print(
        "\nCPU s / wall s / peak GiB of one thread. ms: CPU time of 4,096 rows, bytes: memory that each row adds, both"
    )
    print("from the last size (and the one before). Settings, the same at every size:")
    print("; ".join(f"{tool}: {settings}" for tool, (settings, _) in TOOLS.items() if tool in set(found["tool"])) + ".")
    last = found[(found["where"] == "disk") & found["cpu"].notna()].sort_values("rows").groupby("tool").last()
    print("\nOn paper, CPU hours of 100,000,000 rows from the CPU time of a block in the largest file read:")
    hours = last["cpu"] / last["rows"] * 1e8 / 3600
    print("; ".join(f"{tool} {hours[tool]:.2g}" for tool in TOOLS if tool in hours) + ".")


def rates(part: pd.DataFrame) -> list[str]:
    """Return exponents over all sizes and over the last two, CPU milliseconds of a block, and bytes of a row."""
    last, before = part.iloc[-1], part.iloc[-2] if len(part) > 1 else part.iloc[-1]
    block = f"{last.cpu / last.rows * BLOCK * 1e3:.3g}"
    grown = (last.peak - before.peak) * 2**30 / max(last.rows - before.rows, 1)
    return [f"{slope(part):.2f}", f"{slope(part[-2:]):.2f}", block, f"{grown:,.0f}"]


def cell(row: pd.DataFrame) -> str:
    """Return one entry of the table."""
    if row.empty:
        return "-"
    r = row.iloc[0]
    return f"{r.cpu:.3g} / {r.wall:.3g} / {r.peak:.2f}" if pd.notna(r.cpu) else f"failed: {str(r.failed)[:60]}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--tmp", type=Path, required=True, help="folder for counts (1.3 GB for 1,000,000 rows) and results"
    )
    parser.add_argument("--tools", nargs="+", default=list(TOOLS), choices=list(TOOLS), metavar="TOOL")
    parser.add_argument("--rows", nargs="+", type=int, default=list(ROWS))
    parser.add_argument("--where", nargs="+", default=["memory", "disk"], choices=["memory", "disk"])
    parser.add_argument("--again", action="store_true", help="measure also what was measured before")
    parser.add_argument("--report", action="store_true", help="only print what was measured before")
    parser.add_argument("--child", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        tool, *pairs = options.child
        child(tool, options.tmp, [(w, int(n)) for w, n in (pair.split(":") for pair in pairs)])
        return
    options.tmp.mkdir(parents=True, exist_ok=True)
    results = options.tmp / "scale.jsonl"
    if not options.report:
        for n in {ROWS[0], *options.rows}:
            write_counts(options.tmp, n)
        measure_all(options, results)
    report(results)


def measure_all(options: argparse.Namespace, results: Path) -> None:
    """Start a process for every tool, and keep what it prints."""
    old = [json.loads(line) for line in results.read_text().splitlines()] if results.exists() else []
    done = set() if options.again else {f"{r['tool']}:{r['where']}:{r['rows']}" for r in old if "cpu" in r}
    for tool in options.tools:
        wanted = [f"{where}:{n}" for n in options.rows for where in options.where]
        if wanted := [pair for pair in wanted if f"{tool}:{pair}" not in done]:
            command = [sys.executable, __file__, "--tmp", str(options.tmp), "--child", tool, *wanted]
            with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process, results.open("a") as file:
                for line in process.stdout or ():
                    print(line.strip(), file=file, flush=True)
                    print(line.strip(), file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
