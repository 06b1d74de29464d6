"""A fitted autoencoder as an entry of `uns`, and back."""

from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from unmix._adata.conditions import Conditions, stored_conditions
from unmix._adata.disk import RowsOnDisk
from unmix._adata.read import check_expression, check_range, check_unique, read_matrix, summarise_rows
from unmix._adata.stored import Entry, stored_entry, stored_parts

if TYPE_CHECKING:
    from anndata import AnnData

    from unmix.core.autoencoder import Fit, State
    from unmix.core.training import Rows

TOOLS = ("autoencoder", "zinb_ae")


def model_entry(fit: "Fit", conditions: Conditions, genes: pd.Index) -> dict[str, Any]:
    """Return what `uns` stores of a fit; of one that was interrupted also where training stood."""
    entry = {
        "history": {name: np.array(values) for name, values in fit.history.items()},
        "best_epoch": fit.state.best_epoch,
        "design": {**asdict(fit.design), "hidden": np.array(fit.design.hidden)},
        "weights": fit.weights,
        "moments": asdict(fit.genes),
        "genes": np.array(genes, dtype=str),
        "conditions": conditions.entry(),
        "finished": fit.finished,
    }
    return entry if fit.finished else {**entry, "state": asdict(fit.state)}


def stored_fit(entry: dict[str, Any]) -> "Fit":
    """Return the fitted autoencoder that an entry describes."""
    from unmix.core.autoencoder import Fit, State
    from unmix.core.networks import Design
    from unmix.core.training import Genes

    plain = {k: v.item() if isinstance(v, np.generic) else v for k, v in entry["design"].items() if k != "hidden"}
    design = Design(hidden=tuple(int(h) for h in entry["design"]["hidden"]), **plain)
    m = entry["moments"]
    genes = Genes(m["mean"], m["variance"], float(m["inverse_size"]), m["input_scale"], float(m["median_total"]))
    weights = {name: np.asarray(value) for name, value in entry["weights"].items()}
    return Fit(design, genes, weights, State(), np.zeros(0, np.int64), bool(entry["finished"]))


def checked_fit(entry: dict[str, Any], problem: str) -> "Fit":
    """Return the fitted autoencoder of an entry, if its weights are those of the network described.

    Raises
    ------
    ValueError
        If they are not; the message begins with `problem`.
    """
    from unmix.core.autoencoder import build

    try:
        fit = stored_fit(entry)
        build(fit.design, fit.weights)
        fits = len(entry["genes"]) == len(fit.genes.mean) == fit.design.n_vars
        scaled = bool((fit.genes.input_scale > 0).all()) and fit.genes.median_total > 0
    except (KeyError, TypeError, RuntimeError, ValueError, AttributeError, IndexError) as error:
        msg = f"{problem}: {error}"
        raise ValueError(msg) from error
    if not fits or not scaled:
        why = "scales of genes or totals are not above zero" if fits else "names of genes are not those of the network"
        msg = f"{problem}: {why}."
        raise ValueError(msg)
    return fit


def stored_state(adata: "AnnData", key: str) -> "State":
    """Return where an interrupted training stood.

    Raises
    ------
    KeyError
        If there is none.
    """
    from unmix.core.autoencoder import State

    entry = adata.uns.get(key, {})
    if not isinstance(entry, dict) or not isinstance(entry.get("state"), dict):
        msg = f"no interrupted training is stored in uns[{key!r}]."
        raise KeyError(msg)
    stored = Entry(entry["state"], f"uns[{key!r}]['state']")
    history = {name: [float(v) for v in values] for name, values in stored_parts(stored, "history").items()}
    numbers = {k: int(stored[k]) for k in ("epoch", "best_epoch", "waited", "returns", "seed")}
    return State(**{**stored, **numbers, "history": history, "best_loss": float(stored["best_loss"])})


def read_rows(
    adata: "AnnData",
    layer: str | None,
    conditions: Conditions,
    *,
    counts: bool,
    columns: np.ndarray | None = None,
    batch: str | None = None,
    n_jobs: int = 1,
) -> "Rows":
    """Return the matrix and what is known of its rows, checked.

    Parameters
    ----------
    adata, layer
        Where the matrix is.
    conditions
        Batches and covariates.
    counts
        Whether it must hold counts.
    columns
        Positions of the genes to read; `None` for all.
    batch
        Take all observations to be of this batch.
    n_jobs
        Threads.
    """
    from unmix.core.training import Rows

    matrix = read_matrix(adata, layer)
    if columns is not None and isinstance(matrix.X, RowsOnDisk):  # a view of a file would be read as a whole
        matrix = replace(matrix, X=matrix.X.of(columns))
    elif columns is not None:
        matrix = read_matrix(adata[:, columns], layer)
    index, codes = conditions.design(adata, batch)
    summary = summarise_rows(matrix, n_jobs=n_jobs)
    if counts:
        check_expression(matrix, summary, expect_counts=True)
    check_range(matrix, summary)
    return Rows(matrix.X, summary.totals, index, codes, counts)


def read_for_model(
    adata: "AnnData", fitted: "AnnData", key: str, layer: str | None, *, batch: str | None = None, n_jobs: int = 1
) -> "tuple[Fit, Rows, Conditions]":
    """Return a stored model, and rows of counts that are aligned to its genes by name.

    Raises
    ------
    KeyError
        If no model is stored under the key.
    ValueError
        If genes of the fit are missing.
    """
    entry = stored_entry(fitted, key, *TOOLS)
    fit = checked_fit(entry, f"{entry.where} is no longer as the tool left it")
    conditions = stored_conditions(entry["conditions"])
    check_unique(adata.var_names)
    columns = pd.Index(adata.var_names).get_indexer(pd.Index(entry["genes"]))
    if (columns < 0).any():
        missing = entry["genes"][columns < 0]
        msg = f"{len(missing)} of {len(columns)} genes of the fit are missing, such as {missing[:3].tolist()}."
        raise ValueError(msg)
    same = len(columns) == adata.n_vars and (columns == np.arange(adata.n_vars)).all()
    counts = fit.design.likelihood != "gaussian"
    how: dict[str, Any] = {"counts": counts, "batch": batch, "n_jobs": n_jobs}
    return fit, read_rows(adata, layer, conditions, columns=None if same else columns, **how), conditions
