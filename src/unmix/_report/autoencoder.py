"""What a report shows of `tl.autoencoder` and `tl.zinb_ae`."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData

from unmix._adata import keys
from unmix._adata.colours import palette
from unmix._adata.models import TOOLS
from unmix._adata.stored import belongs, stored_entry, stored_parts
from unmix._report.common import component_table, obs_columns, unfitted
from unmix._report.content import Curve, Finding, Result, Table

N_GENES = 100
GENE_COLUMNS = {
    keys.ZERO_INFLATION: "evidence of zero inflation, nats",
    keys.DROPOUT: "probability of dropout",
    keys.DISPERSION: "inverse dispersion",
}


def read_autoencoder(adata: AnnData, key: str) -> list[Result]:
    """Return the coordinates, how training went, and which genes ask for zero inflation."""
    entry = stored_entry(adata, key, *TOOLS)
    embedding = keys.EMBEDDING + key
    table = component_table(adata, embedding, "coordinate")
    quantities = {"coordinate": table}
    if belongs(adata, key, "obsm", embedding + keys.VARIANCE):
        quantities["standard error"] = np.sqrt(component_table(adata, embedding + keys.VARIANCE, "coordinate"))
    columns = obs_columns(adata, key, {keys.NLL: "negative log-likelihood, nats"})
    batch = entry["params"].get("batch_key")
    if batch in adata.obs:
        columns[str(batch)] = adata.obs[batch]
    design = entry["design"]
    facts = {name: design[name] for name in ("kind", "likelihood", "dispersion", "dropout") if name in design}
    facts |= {
        "best_epoch": entry["best_epoch"],
        **{f"held-out loss, {k}": v for k, v in entry.get("chosen", {}).items()},
    }
    return [
        Result(
            key=key,
            tool=str(entry["params"]["tool"]),
            title="Autoencoder",
            part="coordinate",
            unit="coordinate",
            quantities=quantities,
            colours=palette(adata, key, [str(c + 1) for c in range(table.shape[1])]),
            columns=columns,
            tables=tables(adata, key),
            curves=curves(entry),
            findings=findings(adata, key, table, entry),
            facts=facts,
            parameters=dict(entry["params"]),
        )
    ]


def tables(adata: AnnData, key: str) -> list[Table]:
    """Return what the decoder says of genes, those that most ask for zero inflation first."""
    held = {label: key + ending for ending, label in GENE_COLUMNS.items() if belongs(adata, key, "var", key + ending)}
    found = {label: adata.var[name] for label, name in held.items()}
    if not found:
        return []
    frame = pd.DataFrame(found).sort_values(next(iter(found)), ascending=False)[:N_GENES].rename_axis("gene")
    note = f"The {len(frame)} genes with the largest {next(iter(found))}."
    return [Table("Genes", note, frame.reset_index())]


def curves(entry: Mapping[str, Any]) -> list[Curve]:
    """Return the losses by epoch."""
    stored = stored_parts(entry, "history")
    history = {name: np.asarray(stored[name], dtype=float) for name in ("train", "validation", "learning_rate")}
    epochs = np.arange(1, len(history["train"]) + 1)
    lines = {"training cells": history["train"], "held-out cells": history["validation"]}
    note = "The epoch that predicts held-out cells best is kept."
    return [Curve("Training", note, "epoch", "loss per cell, nats", epochs, lines, float(entry["best_epoch"]))]


def findings(adata: AnnData, key: str, table: pd.DataFrame, entry: Mapping[str, Any]) -> list[Finding]:
    """Return what to know of the fit."""
    found = unfitted(table, "counts")
    if not bool(entry.get("finished", True)):
        found.append(Finding("warning", "Training was interrupted; resume=True goes on with it."))
    if belongs(adata, key, "var", key + keys.ZERO_INFLATION):
        score = adata.var[key + keys.ZERO_INFLATION].dropna()
        text = f"{int((score > 0).sum()):,} of {len(score):,} genes ask for zero inflation (odds above 20)."
        found.append(Finding("note", text))
    return found
