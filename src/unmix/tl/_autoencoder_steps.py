"""What lies between the tools and the mathematics of autoencoders: choices, training, slots, denoised layers."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy import sparse

from unmix._adata import keys
from unmix._adata.conditions import Conditions, stored_conditions
from unmix._adata.models import checked_fit, model_entry, read_for_model, stored_state
from unmix._adata.runs import EpochFile, fingerprint
from unmix._adata.stored import Entry, stored_parts
from unmix._adata.write import Slots
from unmix._settings import logger
from unmix.core.blocks import iter_blocks

if TYPE_CHECKING:
    from unmix.core.autoencoder import Fit, Options, State
    from unmix.core.decoding import Wanted
    from unmix.core.networks import Design
    from unmix.core.training import Rows

CHOICES = {
    "kind": ("ae", "vae"),
    "likelihood": ("auto", "zinb", "nb", "poisson", "gaussian"),
    "dispersion": ("gene", "gene-cell", "gene-batch", "shared"),
    "dropout": ("gene-cell", "elementwise", "constant"),
    "on_interrupt": ("raise", "keep"),
    "device": ("auto", "cpu", "cuda"),
}
STORED_OPTIONS = (
    "n_latent", "kind", "likelihood", "dispersion", "dropout", "ridge", "hidden", "batch_key", "covariates", "layer", "rng",
)  # fmt: skip
"""What a resumed training takes over from the one that was interrupted."""
SHORT_RUN = 5
"""Epochs after which `likelihood="auto"` compares."""


def check_options(given: dict[str, str]) -> None:
    """Raise ValueError for an option that is not among its choices."""
    for name, value in given.items():
        if value not in CHOICES[name]:
            msg = f"`{name}` must be one of {list(CHOICES[name])}, got {value!r}."
            raise ValueError(msg)


def check_numbers(least: int = 1, **given: Any) -> None:
    """Raise ValueError for what must be a whole number of at least `least`."""
    for name, value in given.items():
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
            msg = f"`{name}` must be a whole number of at least {least}, got {value!r}."
            raise ValueError(msg)


def check_real(name: str, value: Any, *, positive: bool) -> None:
    """Raise ValueError for what must be a finite number above, or not below, zero."""
    if (
        isinstance(value, bool)
        or not np.isreal(value)
        or not np.isfinite(value)
        or value < 0
        or (positive and not value)
    ):
        msg = f"`{name}` must be a finite number {'above' if positive else 'of at least'} 0, got {value!r}."
        raise ValueError(msg)


def check_share(name: str, value: Any) -> None:
    """Raise ValueError for what must be at least 0 and below 1."""
    check_real(name, value, positive=False)
    if value >= 1:
        msg = f"`{name}` must be below 1, got {value!r}."
        raise ValueError(msg)


def check_together(kind: str, likelihood: str, dispersion: str, batch_key: str | None, n_samples: int) -> None:
    """Raise ValueError for options that do not go together."""
    if n_samples and kind != "vae":
        msg = f"`n_samples` asks for draws from a posterior, which only kind='vae' has; got kind={kind!r}."
        raise ValueError(msg)
    if dispersion == "gene-batch" and batch_key is None:
        msg = "dispersion='gene-batch' needs `batch_key`."
        raise ValueError(msg)
    if dispersion != "gene" and likelihood == "poisson":
        msg = f"likelihood='poisson' has no dispersion; got dispersion={dispersion!r}."
        raise ValueError(msg)


def seed_of(rng: int | np.random.Generator | None) -> int:
    """Return one integer seed."""
    return int(rng) if isinstance(rng, int | np.integer) else int(np.random.default_rng(rng).integers(2**31))


def gene_columns(known: pd.Index, genes: Any) -> np.ndarray | None:
    """Return the positions of genes among those known, in ascending order; None for all.

    Raises
    ------
    KeyError
        If a gene is not there.
    """
    if genes is None or isinstance(genes, bool):
        return None
    wanted = [genes] if isinstance(genes, str) else list(genes)
    columns = known.get_indexer(pd.Index(wanted))
    if not wanted or (columns < 0).any():
        missing = [g for g, c in zip(wanted, columns, strict=True) if c < 0]
        msg = f"genes to denoise are unknown: {missing[:3]}." if wanted else "no genes to denoise were given."
        raise KeyError(msg)
    return np.unique(columns)


def train(
    rows: "Rows", design: "Design", options: "Options", *, seed: int, n_jobs: int, checkpoint: str | Path | None = None
) -> "tuple[Fit, dict[str, float]]":
    """Fit, after choosing between NB and ZINB by a short run of each where asked; return also both held-out losses."""
    from unmix.core.autoencoder import fit

    def run(design: "Design", options: "Options", seed: int, **more: Any) -> "Fit":
        if checkpoint is None:
            return fit(rows, design, options, seed=seed, n_jobs=n_jobs, **more)
        device_free = replace(options, device="", precision="", on_interrupt="")
        known = fingerprint(
            (block for _, block in iter_blocks(rows.X)), rows.codes.tobytes(), design, device_free, seed
        )
        file = EpochFile(Path(checkpoint) / f"{known}.safetensors")
        more["state"] = file.load() or more.get("state")
        return fit(rows, design, options, seed=seed, n_jobs=n_jobs, on_epoch=file.keep, **more)

    if design.likelihood != "auto":
        return run(design, options, seed), {}
    short = replace(options, max_epochs=min(SHORT_RUN, options.max_epochs or SHORT_RUN), on_interrupt="raise")
    fits = {name: run(replace(design, likelihood=name), short, seed) for name in ("nb", "zinb")}
    losses = {name: float(f.state.best_loss) for name, f in fits.items()}
    best = min(losses, key=losses.__getitem__)
    logger.info("autoencoder: held-out loss per cell %s; going on with %s", losses, best)
    return run(fits[best].design, options, seed, state=fits[best].state), losses


@dataclass(frozen=True)
class Interrupted:
    """A training that was interrupted, as it is stored."""

    design: "Design"
    state: "State"
    conditions: Conditions
    chosen: dict[str, float]
    options: dict[str, Any]
    """Those of the network and of the data."""
    totals: np.ndarray | None = None
    """Of the cells, in their order: which of them are held out goes by it."""

    def go_on(self, rows: "Rows", options: "Options", *, n_jobs: int) -> "Fit":
        """Train on, from where it stood.

        Raises
        ------
        ValueError
            If batches and covariates have another number of columns, or the cells are others.
        """
        from unmix.core.autoencoder import fit

        known = rows.totals if self.totals is None else self.totals
        near = 1e-6 * np.abs(known).max(initial=0.0)
        if known.shape != rows.totals.shape or not np.allclose(known, rows.totals, rtol=1e-6, atol=near):
            msg = f"the training had other cells ({len(known)}, now {len(rows.totals)}), or in another order: cells that were "
            msg += "held out would be trained on. Give the object as it was, or start anew without `resume`."
            raise ValueError(msg)
        if (had := self.design.n_codes) != (now := rows.codes.shape[1]):
            msg = f"the training had {had} columns of batches and covariates, now there are {now}."
            raise ValueError(msg)
        return fit(rows, self.design, options, n_jobs=n_jobs, state=self.state)


def interrupted(adata: AnnData, key: str, **given: Any) -> Interrupted:
    """Return the interrupted training that is stored under a key.

    Raises
    ------
    KeyError
        If there is none.
    ValueError
        If the genes are others, or an option that is `given` is not the one stored.
    """
    state = stored_state(adata, key)
    entry = Entry(adata.uns[key], f"uns[{key!r}]")
    design = checked_fit(entry, f"uns[{key!r}] is no longer as the tool left it").design
    if list(entry["genes"]) != list(adata.var_names):
        msg = f"the training under {key!r} had other genes ({design.n_vars}, now {adata.n_vars}), or in another order."
        raise ValueError(msg)
    params, conditions = stored_parts(entry, "params"), stored_conditions(entry["conditions"])
    options = {name: params.get(name) for name in STORED_OPTIONS}
    known = {"batch_key": conditions.batch_key, "covariates": [c.name for c in conditions.covariates]}
    for name, value in given.items():
        now, before = (_names(v) for v in (value, known.get(name, options[name])))
        if now and now != before:
            msg = f"the training under {key!r} had {name}={before}, now it is {now}; leave it out to go on with the former."
            raise ValueError(msg)
    chosen = dict(stored_parts(entry, "chosen")) if "chosen" in entry else {}
    totals = _totals(entry["totals"]) if "totals" in entry else None
    return Interrupted(design, state, conditions, chosen, options, totals)


def _totals(stored: Any) -> np.ndarray:
    """Return the totals of the cells of a training; none where they were spoiled since, which no cells have."""
    try:
        return np.atleast_1d(np.asarray(stored, dtype=float))
    except (TypeError, ValueError):
        return np.zeros(0)


def _names(value: Any) -> list[str]:
    return [] if value is None else [str(name) for name in np.ravel(value)]


def slots_of(
    adata: AnnData,
    rows: "Rows",
    fitted: "Fit",
    key: str,
    conditions: Conditions,
    *,
    n_samples: int,
    seed: int,
    device: str,
    threads: int,
) -> Slots:
    """Return everything that is written, but for denoised values."""
    from unmix.core.decoding import project, samples

    counted = fitted.design.likelihood in ("nb", "zinb")
    found = project(fitted, rows, score_genes=counted, n_jobs=threads, device=device, desc="encoding")
    entry = {**model_entry(fitted, conditions, adata.var_names), "n_empty": int((~rows.used).sum())}
    if not fitted.finished:
        entry["totals"] = rows.totals
    embedding = keys.EMBEDDING + key
    slots = Slots(uns={key: entry}, obsm={embedding: found.latent}, obs={key + keys.NLL: found.nll})
    if fitted.design.kind == "vae":
        slots.obsm[embedding + keys.VARIANCE] = found.variance
    if n_samples:
        slots.obsm[embedding + keys.SAMPLES] = samples(found, n_samples, seed)
    silent = fitted.genes.mean <= 0 if rows.counts else ~fitted.genes.varies
    if fitted.design.dispersion == "gene" and fitted.design.likelihood != "poisson":
        theta = np.exp(fitted.weights["log_dispersion"][0].astype(float))
        theta = theta if rows.counts else theta / fitted.genes.input_scale**2
        slots.var[key + keys.DISPERSION] = np.where(silent, np.nan, theta)
    if found.dropout is not None:
        slots.var[key + keys.DROPOUT] = np.where(silent, np.nan, found.dropout)
    if found.inflation is not None:
        slots.var[key + keys.ZERO_INFLATION] = found.inflation.score
        slots.var[key + keys.POWER] = found.inflation.power
    return slots


def denoised_layer(
    fitted: "Fit", rows: "Rows", wanted: "Wanted", n_vars: int, at: Any = slice(None), *, device: str, n_jobs: int
) -> np.ndarray | sparse.csr_matrix:
    """Return decoded means in the columns `at`: dense, or where genes were chosen a sparse matrix with these alone."""
    n = len(rows.totals)
    if wanted.genes is None:
        out = np.full((n, n_vars), np.nan, np.float32)
        write_denoised(out, at, fitted, rows, wanted, device=device, n_jobs=n_jobs)
        return out
    out = np.empty((n, len(at)), np.float32)
    write_denoised(out, slice(None), fitted, rows, wanted, device=device, n_jobs=n_jobs)
    layer = sparse.csr_matrix((out.ravel(), np.tile(at, n), np.arange(n + 1) * len(at)), shape=(n, n_vars))
    layer.sort_indices()
    return layer


def write_denoised(
    out: Any, at: Any, fitted: "Fit", rows: "Rows", wanted: "Wanted", *, device: str, n_jobs: int
) -> None:
    """Write decoded means to the columns `at` of anything that takes slices of rows, one block at a time."""
    from unmix.core.decoding import denoise

    start = 0
    for part in denoise(fitted, rows, wanted, n_jobs=n_jobs, device=device, desc="denoising"):
        out[start : start + len(part), at] = part
        start += len(part)


def project_autoencoder(
    adata: AnnData, fitted: AnnData, key: str, layer: str | None, threads: int, batch: str | None = None
) -> tuple[np.ndarray, dict[str, Any]]:
    """Encode new cells; genes are matched by name, all genes of the fit are needed."""
    from unmix.core.decoding import project

    fit, rows, _ = read_for_model(adata, fitted, key, layer, batch=batch, n_jobs=threads)
    return project(fit, rows, n_jobs=threads).latent, {"n_shared_genes": fit.design.n_vars}
