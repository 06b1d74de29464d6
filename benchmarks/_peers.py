"""Other tools' deconvolution, each with its own defaults, where they are installed: shares as the tool reports them."""

import contextlib
import importlib.util
import io
import logging
import os
import subprocess
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
from scipy.optimize import nnls

import unmix as um

Peer = Callable[[ad.AnnData, "ad.AnnData | pd.DataFrame"], pd.DataFrame]


CPU = "cpu"
"""Where a table's `attrs` hold the seconds of a peer that runs in a process of its own."""


def peers(*, slow: bool, epochs: int, rectangle_python: str | None = None) -> dict[str, Peer]:
    """Return the peers that can run here; says which cannot. scikit-learn's nu-SVR and cell2location only if `slow`."""
    found: dict[str, Peer] = {"scipy nnls": scipy_nnls}
    if _installed("flashdeconv"):
        found["flashdeconv"] = flashdeconv
    if rectangle_python:
        found["rectangle"] = lambda spots, reference: rectangle(spots, reference, rectangle_python)
    else:
        print("rectanglepy: no --rectangle PYTHON given, skipped", flush=True)
    if slow:
        found["scikit-learn nu-SVR"] = sklearn_nusvr
        if _installed("cell2location"):
            found["cell2location"] = lambda spots, reference: cell2location(spots, reference, epochs)
    return found


def _installed(name: str) -> bool:
    there = importlib.util.find_spec(name) is not None
    if not there:
        print(f"{name} is not installed: skipped", flush=True)
    return there


def _markers(spots: ad.AnnData, reference: "ad.AnnData | pd.DataFrame") -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Return counts per 10,000 of every spot, and signatures, on the markers they share (all genes of a table)."""
    if isinstance(reference, pd.DataFrame):
        genes = spots.var_names.intersection(reference.index)
        return np.asarray(spots[:, genes].X, dtype=float), reference.loc[genes].to_numpy(float), list(reference)
    table = um.pp.signatures(reference, "cell_type", copy=True)
    names = list(table.uns["signatures"]["names"])
    marked = table.var_names[table.var["signatures_marker"].notna()]
    genes = spots.var_names.intersection(marked)
    X = spots[:, genes].X
    X = np.asarray(X.toarray() if hasattr(X, "toarray") else X, dtype=float)
    totals = np.asarray(spots.X.sum(axis=1), dtype=float).reshape(-1, 1)
    return 1e4 * X / totals, np.asarray(table[:, genes].varm["signatures"], dtype=float), names


def _shares(weights: np.ndarray, spots: ad.AnnData, names: list[str]) -> pd.DataFrame:
    total = weights.sum(axis=1, keepdims=True)
    shares = np.where(total > 0, weights / np.where(total > 0, total, 1.0), 1 / weights.shape[1])
    return pd.DataFrame(shares, index=spots.obs_names, columns=names)


def scipy_nnls(spots: ad.AnnData, reference: "ad.AnnData | pd.DataFrame") -> pd.DataFrame:
    Y, S, names = _markers(spots, reference)
    return _shares(np.array([nnls(S, y)[0] for y in Y]), spots, names)


def plain_nnls(spots: ad.AnnData, reference: ad.AnnData) -> pd.DataFrame:
    """Least squares of all genes by the plain means of the cells' shares of counts, which nothing shrinks; in shares of cells."""
    labels = reference.obs["cell_type"].astype(str).str.replace("/", "_").to_numpy()
    cells = reference[:, spots.var_names].to_df().to_numpy()
    depth, names = cells.sum(axis=1), sorted(set(labels))
    share = cells / np.maximum(depth, 1)[:, None]
    S = np.column_stack([share[labels == name].mean(axis=0) for name in names])
    sizes = np.array([depth[labels == name].mean() for name in names])
    counts = spots.to_df().to_numpy(dtype=float)
    return _shares(np.array([nnls(S, y / max(y.sum(), 1.0))[0] for y in counts]) / sizes, spots, names)


def sklearn_nusvr(spots: ad.AnnData, reference: "ad.AnnData | pd.DataFrame") -> pd.DataFrame:
    """CIBERSORT's rule with libsvm at its default tolerance: of three nus, the one with the smallest RMSE."""
    from sklearn.svm import NuSVR

    Y, S, names = _markers(spots, reference)
    Z = (S - S.mean()) / S.std(ddof=1)
    weights = np.zeros((len(Y), S.shape[1]))
    for i, y in enumerate(Y):
        z, best = (y - y.mean()) / max(y.std(ddof=1), 1e-300), np.inf
        for nu in (0.25, 0.5, 0.75):
            w = np.maximum(NuSVR(kernel="linear", nu=nu, C=1.0).fit(Z, z).coef_.ravel(), 0.0)
            w = w / max(w.sum(), 1e-300)
            error = float(np.mean((Z @ w - z) ** 2))
            if error < best:
                best, weights[i] = error, w
    return _shares(weights, spots, names)


def flashdeconv(spots: ad.AnnData, reference: "ad.AnnData | pd.DataFrame") -> pd.DataFrame:
    import flashdeconv as fd

    spots = spots.copy()
    if "spatial" not in spots.obsm:
        spots.obsm["spatial"] = np.random.default_rng(0).random((spots.n_obs, 2))
    fd.tl.deconvolve(spots, reference, "cell_type", key_added="fd")
    return spots.obsm["fd"]


def rectangle(spots: ad.AnnData, reference: "ad.AnnData | pd.DataFrame", python: str) -> pd.DataFrame:
    """Run Rectangle by the interpreter `python` of an environment that has rectanglepy 1.7.0, on one core."""

    def dense(X: Any) -> np.ndarray:
        return np.asarray(X.toarray() if hasattr(X, "toarray") else X, dtype=float)

    arrays = {"mixtures": dense(spots.X), "spots": spots.obs_names, "genes": spots.var_names}
    if isinstance(reference, pd.DataFrame):
        arrays |= {"reference": reference, "reference_genes": reference.index, "types": reference.columns}
    else:
        cells = reference[reference.obs["cell_type"].notna()]
        arrays |= {"reference": dense(cells.X).astype(np.int64), "reference_genes": cells.var_names}
        arrays["labels"] = cells.obs["cell_type"]
    names = [name for name in arrays if name not in ("mixtures", "reference")]
    one_core = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"), "1")
    with tempfile.TemporaryDirectory() as folder:
        np.savez(Path(folder) / "in.npz", **(arrays | {name: np.asarray(arrays[name], dtype=str) for name in names}))
        command = [python, str(Path(__file__).with_name("_rectangle.py")), folder]
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | one_core
        done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
        found = pd.read_csv(Path(folder) / "out.csv", index_col=0)
    found.index = spots.obs_names
    found.attrs[CPU] = float(done.stdout.splitlines()[-1])
    return found


def cell2location(spots: ad.AnnData, reference: "ad.AnnData | pd.DataFrame", epochs: int) -> pd.DataFrame:
    """Means of the posterior abundances, from mean counts per type on at most 2,000 genes."""
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    import scvi
    from cell2location.models import Cell2location

    scvi.settings.seed = 0
    genes = spots.var_names.intersection(reference.var_names)
    cells = reference[reference.obs["cell_type"].notna(), genes]
    labels = cells.obs["cell_type"].astype(str)
    means = pd.DataFrame(
        {name: np.asarray(cells[(labels == name).to_numpy()].X.mean(axis=0)).ravel() for name in sorted(set(labels))},
        index=genes,
    )
    spread = means.std(axis=1) / np.sqrt(means.mean(axis=1) + 1e-6)
    kept = spread.nlargest(2000).index
    tissue = spots[:, kept].copy()
    Cell2location.setup_anndata(tissue)
    model = Cell2location(tissue, cell_state_df=means.loc[kept], N_cells_per_location=8, detection_alpha=20)
    quiet = {"enable_progress_bar": False, "logger": False}
    with contextlib.redirect_stderr(io.StringIO()):
        model.train(max_epochs=epochs, batch_size=None, train_size=1, lr=0.01, accelerator="cpu", **quiet)
        post = model.sample_posterior(num_samples=50, accelerator="cpu", return_samples=False, batch_size=tissue.n_obs)
    return _shares(np.asarray(post["post_sample_means"]["w_sf"]), spots, list(means))
