"""The tools and what a contract test needs to run each of them: a new tool is covered by being listed in `TOOLS`."""

import functools
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy import sparse

import unmix as um


@dataclass(frozen=True)
class Case:
    """One tool on a small input."""

    tool: Callable[..., Any]
    data: Callable[[], AnnData]
    arguments: Callable[[], dict[str, Any]]
    slots: set[str] = field(default_factory=set)
    """What the docstring promises for these arguments."""
    tolerance: float = 1e-6

    def run(self, adata: AnnData, **changes: Any) -> Any:
        return self.tool(adata, **{**self.arguments(), **changes})


def counts() -> AnnData:
    """Forty spots of three types over sixty genes, with an empty spot and a silent gene."""
    rng = np.random.default_rng(0)
    weights = rng.dirichlet(np.ones(3), 40)
    X = rng.poisson(weights @ profiles().to_numpy().T * 20.0)
    X[7] = 0
    X[:, 11] = 0
    spots = AnnData(sparse.csr_matrix(X.astype(np.float32)))
    spots.obs_names = [f"spot {i}" for i in range(40)]
    spots.var_names = list(profiles().index)
    spots.obsm["spatial"] = rng.random((40, 2))
    return spots


def profiles() -> pd.DataFrame:
    """Return a signature of three types over sixty genes; one of the types has a `/` in its name."""
    rng = np.random.default_rng(1)
    return pd.DataFrame(
        rng.gamma(0.5, 2.0, (60, 3)), index=[f"gene {g}" for g in range(60)], columns=["A", "B/b cells", "C"]
    )


def cells() -> AnnData:
    """Return thirty labelled cells of the three types, with a missing label and an empty cell."""
    rng = np.random.default_rng(2)
    labels = np.repeat([0, 1, 2], 10)
    X = rng.poisson(profiles().to_numpy().T[labels] * 5)
    X[3] = 0
    adata = AnnData(sparse.csr_matrix(X.astype(np.float32)))
    adata.obs_names = [f"cell {i}" for i in range(30)]
    adata.var_names = list(profiles().index)
    names = np.asarray(profiles().columns, dtype=object)[labels]
    names[5] = np.nan
    adata.obs["cell_type"] = pd.Categorical(names)
    adata.obs["donor"] = pd.Categorical(np.arange(30) % 2)
    return adata


def _deconvolve(method: str, **more: Any) -> Case:
    slots = {
        "obsm['deconvolve']",
        "varm['deconvolve_signature']",
        "obs['deconvolve_correlation']",
        "obs['deconvolve_rmse']",
        "obs['deconvolve_status']",
        "obs['deconvolve_pval']",
        "obs['deconvolve_qval']",
        "uns['deconvolve']",
    }
    return Case(
        um.tl.deconvolve, counts, lambda: {"reference": profiles(), "method": method, "n_perms": 5, **more}, slots
    )


def _deconvolve_with_all() -> Case:
    """Return the count model with every option that adds slots."""
    slots = {f"obs['deconvolve_{ending}']" for ending in ("correlation", "rmse", "status", "unknown", "misfit")}
    slots |= {"obsm['deconvolve']", "obsm['deconvolve_se']", "obsm['deconvolve_detection']", "obsm['deconvolve_cells']"}
    slots |= {"obs['deconvolve_unexplained']", "varm['deconvolve_signature']", "uns['deconvolve']"}
    options = {"groupby": "cell_type", "batch_key": "donor", "unknown": True, "smoothing": "auto"}
    return Case(
        um.tl.deconvolve, on_a_chain, lambda: {"reference": cells(), "cells_per_spot": "n_cells", **options}, slots
    )


def on_a_chain() -> AnnData:
    """Return the forty spots with neighbours and numbers of cells."""
    spots = counts()
    spots.obsp["spatial_connectivities"] = neighbours()
    spots.obs["n_cells"] = np.arange(40) % 5 + 1
    return spots


def neighbours() -> sparse.csr_matrix:
    """Return a chain of the forty spots."""
    return sparse.csr_matrix(sparse.diags_array([np.ones(39), np.ones(39)], offsets=[-1, 1]))


def batches() -> AnnData:
    """Return the forty spots in two batches, in turn."""
    spots = counts()
    spots.obs["batch"] = pd.Categorical(np.tile(["one", "two"], 20))
    return spots


def _factorize(method: str, **more: Any) -> Case:
    slots = {f"obsm['X_{method}']", f"varm['{method}']", f"uns['{method}']"}
    slots |= {f"layers['{method}_completed']"} if "complete" in more else set()
    return Case(um.tl.factorize, counts, lambda: {"n_components": 3, "method": method, **more}, slots)


@functools.cache
def _fit() -> AnnData:
    return um.tl.autoencoder(counts(), 3, likelihood="nb", max_epochs=1, copy=True)


def fitted() -> AnnData:
    """Return the forty spots with a fitted autoencoder."""
    return _fit().copy()


TOOLS = {
    "autoencoder": Case(
        um.tl.autoencoder,
        counts,
        lambda: {"n_latent": 3, "likelihood": "nb", "max_epochs": 1},
        {
            "obsm['X_ae']",
            "obs['ae_nll']",
            "var['ae_dispersion']",
            "var['ae_zero_inflation']",
            "var['ae_zero_inflation_power']",
            "uns['ae']",
        },
    ),
    "zinb_ae": Case(
        um.tl.zinb_ae,
        counts,
        lambda: {"n_latent": 3, "max_epochs": 1},
        {
            "obsm['X_zinb_ae']",
            "obs['zinb_ae_nll']",
            "var['zinb_ae_dropout']",
            "var['zinb_ae_zero_inflation']",
            "var['zinb_ae_zero_inflation_power']",
            "uns['zinb_ae']",
        },
    ),
    "denoise": Case(
        um.tl.denoise,
        fitted,
        lambda: {"fitted": fitted()},
        {"layers['ae_denoised']", "uns['ae_denoised']"},
    ),
    "recover_counts": Case(
        um.pp.recover_counts,
        counts,
        dict,
        {"layers['counts']", "obs['counts_unit']", "uns['counts']"},
    ),
    "signatures": Case(
        um.pp.signatures,
        cells,
        lambda: {"groupby": "cell_type", "n_markers": (2, 10)},
        {
            "varm['signatures']",
            "varm['signatures_variance']",
            "varm['signatures_logfc']",
            "varm['signatures_qvals']",
            "var['signatures_marker']",
            "uns['signatures']",
        },
    ),
    "signatures-wilcoxon": Case(
        um.pp.signatures,
        cells,
        lambda: {"groupby": "cell_type", "n_markers": (2, 10), "test": "wilcoxon"},
        {
            "varm['signatures']",
            "varm['signatures_variance']",
            "varm['signatures_logfc']",
            "varm['signatures_qvals']",
            "var['signatures_marker']",
            "uns['signatures']",
        },
    ),
    "deconvolve-auto": _deconvolve_with_all(),
    "deconvolve-poisson": _deconvolve("poisson"),
    "deconvolve-nnls": _deconvolve("nnls"),
    "deconvolve-simplex": _deconvolve("simplex"),
    "deconvolve-nusvr": _deconvolve("nusvr", degenerate="poisson"),
    "deconvolve-nusvr_simplex": _deconvolve("nusvr_simplex"),
    "factorize-nmf": _factorize("nmf"),
    "factorize-kl": _factorize("nmf", loss="kl", complete=True),
    "factorize-smooth": _factorize("nmf", graph=neighbours()),
    "metagenes": Case(
        um.tl.metagenes,
        counts,
        lambda: {"n_components": 3, "n_runs": 4, "max_distance": 2.0},
        {"obsm['X_metagenes']", "varm['metagenes']", "varm['metagenes_score']", "uns['metagenes']"},
    ),
    "metagenes-batches": Case(
        um.tl.metagenes,
        batches,
        lambda: {"n_components": 3, "n_runs": 4, "max_distance": 2.0, "batch_key": "batch"},
        {"obsm['X_metagenes']", "varm['metagenes']", "varm['metagenes_score']", "uns['metagenes']"},
    ),
    "joint_nmf": Case(
        um.tl.joint_nmf,
        batches,
        lambda: {"n_components": 3, "batch_key": "batch", "tol": 1e-4},
        {"obsm['X_joint_nmf']", "varm['joint_nmf']", "varm['joint_nmf_specific']", "uns['joint_nmf']"},
    ),
    "joint_nmf-online": Case(
        um.tl.joint_nmf,
        batches,
        lambda: {"n_components": 3, "batch_key": "batch", "tol": 1e-4, "online": 2, "measured": "nonzero"},
        {"obsm['X_joint_nmf']", "varm['joint_nmf']", "varm['joint_nmf_specific']", "uns['joint_nmf']"},
    ),
    "joint_nmf-counts": Case(
        um.tl.joint_nmf,
        batches,
        lambda: {"n_components": 3, "batch_key": "batch", "tol": 1e-3, "loss": "kl"},
        {"obsm['X_joint_nmf']", "varm['joint_nmf']", "varm['joint_nmf_specific']", "uns['joint_nmf']"},
    ),
    "starfysh_archetypes": Case(
        um.tl.starfysh_archetypes,
        counts,
        lambda: {"n_archetypes": 3, "resolution": None, "signatures": profiles()},
        {
            "obsm['archetypes']",
            "obsm['archetypes_proportions']",
            "varm['archetypes']",
            "obs['archetypes']",
            "obs['archetypes_anchor']",
            "obs['archetypes_status']",
            "uns['archetypes']",
        },
    ),
}
if importlib.util.find_spec("torch") is None:
    TOOLS = {name: case for name, case in TOOLS.items() if name not in ("autoencoder", "zinb_ae", "denoise")}
