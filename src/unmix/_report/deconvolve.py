"""What a report shows of `tl.deconvolve`."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData

from unmix._adata import keys
from unmix._adata.colours import palette
from unmix._adata.stored import belongs, stored_array, stored_entry, stored_table
from unmix._report.common import by_part, obs_columns, percent
from unmix._report.content import Curve, Finding, Result, Table
from unmix.get import proportions

COLUMNS = {
    keys.STATUS: "status",
    keys.UNKNOWN: "share of the unknown type",
    keys.MISFIT: "p-value of misfit",
    keys.UNEXPLAINED: "share of counts unexplained",
    keys.CORRELATION: "correlation with the fit",
    keys.RMSE: "RMSE of the fit",
    keys.PVAL: "p-value",
    keys.QVAL: "q-value",
}
FACTS = {
    "tau": "platform effect (tau, SD of log factors)",
    "dispersion": "dispersion (variance beyond counting)",
    "amounts": "proportions",
    "genes": "genes used",
    "scale": "scale of the counts",
    "cells_per_spot": "cells per spot",
    "errors": "standard errors",
    "unknown": "unknown type",
}
"""What is said of the choices, in words."""
UNITS = {"cells": "share of cells", "RNA": "share of RNA", "score": "score"}
MISFIT = 0.01
"""p-value below which an observation counts as not explained."""
N_MARKERS = 10
FLOOR = 1e-5
"""Level, as a share of a type's RNA, below which differences of genes are not told apart."""


def read_deconvolve(adata: AnnData, key: str) -> list[Result]:
    """Return proportions with their errors, diagnostics, markers and choices."""
    entry = stored_entry(adata, key, "deconvolve")
    names = [str(name) for name in entry["names"]]
    table = proportions(adata, key=key)
    quantities = {"score" if entry["fraction_of"] == "score" else "proportion": table}
    for ending, name in ((keys.SE, "standard error"), (keys.CELLS, "number of cells")):
        if belongs(adata, key, "obsm", key + ending):
            quantities[name] = stored_table(adata, key + ending, names)
    columns = obs_columns(adata, key, COLUMNS)
    return [
        Result(
            key=key,
            tool="deconvolve",
            title="Cell types",
            part="cell type",
            unit=UNITS[str(entry["fraction_of"])],
            quantities=quantities,
            colours=palette(adata, key, names),
            composition=entry["fraction_of"] != "score",
            columns=columns,
            tables=tables(adata, key, entry, names),
            curves=curves(entry),
            findings=findings(table, columns, entry),
            facts={FACTS.get(name, name): value for name, value in entry.get("chosen", {}).items()},
            parameters=dict(entry["params"]),
        )
    ]


def tables(adata: AnnData, key: str, entry: Mapping[str, Any], names: list[str]) -> list[Table]:
    """Return the genes that tell the types apart, how many of the markers the data has, and what fits worst."""
    note = "Genes of the signature whose level in a type is furthest above that in any other type."
    found = by_part(
        specific_genes(stored_levels(adata, key, entry, names)), "cell type", title="Marker genes", note=note
    )
    overlap = entry.get("overlap")
    if isinstance(overlap, pd.DataFrame) and overlap["n_markers"].sum() > 0:
        renamed = {"n_markers": "markers in the reference", "n_shared": "of these in the data", "share": "share"}
        frame = overlap.rename(columns=renamed).rename_axis("cell type").reset_index()
        frame = frame.assign(**{"cell type": names[: len(frame)]})
        found.append(Table("Markers shared with the data", "", frame, opened=False))
    if isinstance(entry.get("worst_genes"), pd.DataFrame):
        frame = entry["worst_genes"].rename_axis("gene").reset_index()
        note = "Counts over all observations beside those that the fit expects."
        found.append(Table("Genes that fit worst", note, frame, opened=False))
    return found


def stored_levels(adata: AnnData, key: str, entry: Mapping[str, Any], names: list[str]) -> pd.DataFrame:
    """Return the signature on the genes that were used, each type's levels as shares of its sum when it was fitted."""
    levels = stored_array(adata, "varm", key + keys.SIGNATURE, len(names))
    used = np.isfinite(levels).all(axis=1)
    total = np.asarray(entry["sums"] if "sums" in entry else levels[used].sum(axis=0), dtype=float)
    return pd.DataFrame(levels[used] / np.where(total > 0, total, 1), index=adata.var_names[used], columns=names)


def specific_genes(levels: pd.DataFrame) -> pd.DataFrame:
    """Return the genes of every type with the largest ratio of its level to the next highest type's."""
    parts = []
    values = levels.to_numpy() + FLOOR
    for k, name in enumerate(levels.columns if levels.shape[1] > 1 else []):
        others = np.delete(values, k, axis=1)
        ratio = np.log2(values[:, k] / others.max(axis=1))
        best = np.argsort(-ratio, kind="stable")[:N_MARKERS]
        runner = np.delete(np.arange(values.shape[1]), k)[others[best].argmax(axis=1)]
        parts.append(
            pd.DataFrame(
                {
                    "cell type": name,
                    "gene": levels.index[best].astype(str),
                    "counts per million": 1e6 * levels.iloc[best, k].to_numpy(),
                    "log2 ratio to the next type": ratio[best],
                    "next type": levels.columns[runner],
                }
            )
        )
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=["cell type", "gene"])


def curves(entry: Mapping[str, Any]) -> list[Curve]:
    """Return what the strength of smoothing was chosen by."""
    curve = entry.get("smoothing_curve")
    if not isinstance(curve, pd.DataFrame):
        return []
    lines = {"true neighbours": curve["neighbours"], "others in their place": curve["others"]}
    note = "Log-likelihood of genes held out; neighbours help where they foretell them better than others do."
    labels = ("strength of smoothing", "log-likelihood per observation")
    strength = str(entry["chosen"]["smoothing"]).partition(":")[0]
    mark = float(strength) if strength in {f"{s:g}" for s in curve["strength"]} else None
    return [Curve("Spatial smoothing", note, *labels, curve["strength"], lines, mark)]


def findings(table: pd.DataFrame, columns: pd.DataFrame, entry: Mapping[str, Any]) -> list[Finding]:
    """Return what to know before the proportions are believed."""
    found = [*_not_fitted(table, columns), *_misfit(columns), *_unknown(columns, entry)]
    overlap = entry.get("overlap")
    if isinstance(overlap, pd.DataFrame):
        poor = ((overlap["share"] < 0.5) & (overlap["n_markers"] > 0)).to_numpy()
        told = ", ".join(np.asarray(entry["names"])[: len(poor)][poor])
        found += [Finding("warning", f"The data lacks more than half of the markers of {told}.")] if told else []
    if entry.get("ignored_case"):
        found.append(Finding("note", "Gene names of reference and data match only when case is ignored."))
    if "q-value" in columns:
        share = float((columns["q-value"] < 0.05).mean())
        found.append(
            Finding("note", f"{percent(share)} of the observations fit better than random genes do (q < 0.05).")
        )
    return found


def _not_fitted(table: pd.DataFrame, columns: pd.DataFrame) -> list[Finding]:
    missing = table.isna().any(axis=1)
    status = columns.get("status", pd.Series("", index=table.index)).astype(str)
    unusual = status[missing | (status != "ok") & (status != "")]
    if not len(unusual):
        return [Finding("note", f"All {len(table):,} observations could be fitted.")]
    reasons = ", ".join(f"{reason}: {n:,}" for reason, n in unusual.value_counts().items())
    text = (
        f"{int(missing.sum()):,} of {len(table):,} observations could not be fitted; they are grey on the map and "
        f"empty in the table. Status other than ok: {reasons}."
    )
    return [Finding("warning", text)]


def _misfit(columns: pd.DataFrame) -> list[Finding]:
    if "p-value of misfit" not in columns:
        return []
    pval = columns["p-value of misfit"].dropna()
    share = float((pval < MISFIT).mean()) if len(pval) else 0.0
    text = (
        f"{percent(share)} of the observations lie further from the fit than the model expects (p < {MISFIT}; "
        f"{percent(MISFIT)} would by chance). Colour the map by the p-value of misfit to see where."
    )
    return [Finding("warning" if share > 5 * MISFIT else "note", text)]


def _unknown(columns: pd.DataFrame, entry: Mapping[str, Any]) -> list[Finding]:
    if "share of the unknown type" not in columns:
        return []
    share = columns["share of the unknown type"].dropna()
    if "unknown" not in [str(name) for name in entry["names"]] or not (share > 0).any():
        return [Finding("note", "A type that the reference lacks was looked for; the likelihood does not support one.")]
    text = (
        f"The reference lacks a type: on average {percent(float(share.mean()))} of an observation is unknown, and more "
        f"than a fifth of {int((share > 0.2).sum()):,} observations."
    )
    return [Finding("warning", text)]
