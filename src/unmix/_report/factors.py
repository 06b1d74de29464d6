"""What a report shows of factorisations: `tl.factorize`, `tl.metagenes`, `tl.joint_nmf`, and new data mapped onto them."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData

from unmix._adata import keys
from unmix._adata.colours import palette
from unmix._adata.stored import mapped_table, stored_entry
from unmix._report.common import by_part, component_table, loss_curve, percent, unfitted, unsettled
from unmix._report.content import Curve, Finding, Result, Table
from unmix.get import enrichment, joint_loadings, loadings

N_GENES = 20
METHODS = {"nmf": "Non-negative factors", "als": "Least-squares factors", "svd": "Principal components"}


def read_factorize(adata: AnnData, key: str) -> list[Result]:
    """Return the usages, leading genes and curves of a factorisation."""
    entry = stored_entry(adata, key, "factorize")
    method = str(entry["params"]["method"])
    part = "component" if method == "svd" else "factor"
    table = component_table(adata, keys.EMBEDDING + key, part)
    title = METHODS[method] if method != "svd" or bool(entry["params"].get("center")) else "Singular vectors"
    curves = [*loss_curve(entry), *_ranks(entry, table.shape[1]), *_spectrum(entry)]
    findings = [*unfitted(table, "observed entry"), *unsettled(entry)]
    facts: dict[str, Any] = {name: entry[name] for name in ("n_iter", "converged") if name in entry}
    unit = "coordinate" if method == "svd" else "usage"
    return [_result(adata, key, "factorize", title, part, unit, table, entry, curves, findings, facts)]


def read_metagenes(adata: AnnData, key: str) -> list[Result]:
    """Return the usages of programs, their genes, gene sets and stability."""
    entry = stored_entry(adata, key, "metagenes")
    table = component_table(adata, keys.EMBEDDING + key, "program")
    more = []
    if "enrichment" in entry:
        frame = enrichment(adata, key=key).rename(columns={"source": "gene set"})
        more.append(Table("Gene sets", "Regression of a program's gene scores on each set, one at a time.", frame))
    stability = entry["stability"]
    n_runs = int(entry["params"].get("n_runs", 0))
    kept = stability.loc[stability["n_components"] == table.shape[1], "kept"]
    findings = unfitted(table, "counts in the genes used")
    if n_runs and len(kept):
        share = float(kept.iloc[0]) / (n_runs * table.shape[1])
        text = f"{percent(share)} of the programs of {n_runs} runs recur in other runs and were kept."
        findings.append(Finding("warning" if share < 0.5 else "note", text))
    curves = [*_stability(stability, table.shape[1]), *_ranks(entry.get("selection", {}), table.shape[1])]
    return [
        _result(
            adata, key, "metagenes", "Gene programs", "program", "usage", table, entry, curves, findings, {},
            more=more, composition=True,
        )
    ]  # fmt: skip


def read_joint_nmf(adata: AnnData, key: str) -> list[Result]:
    """Return the usages that modalities or batches share, with the loadings of each."""
    entry = stored_entry(adata, key, "joint_nmf")
    table = component_table(adata, keys.EMBEDDING + key, "factor")
    aligned = keys.EMBEDDING + key + keys.ALIGNED
    extra = (
        {"aligned usage": component_table(adata, aligned, "factor")}
        if entry["params"].get("align") and aligned in adata.obsm
        else {}
    )
    findings = [*unfitted(table, "usage"), *unsettled(entry)]
    told = ("n_iter", "converged", "weights", "depth", "modality")
    facts: dict[str, Any] = {name: entry[name] for name in told if name in entry}
    found = _result(
        adata, key, "joint_nmf", "Shared factors", "factor", "usage", table, entry, loss_curve(entry), findings, facts,
        genes=_joint_genes(adata, key), extra=extra,
    )  # fmt: skip
    return [found]


def read_transform(adata: AnnData, key: str) -> list[Result]:
    """Return the coordinates of data that were mapped onto a fit from elsewhere."""
    entry = stored_entry(adata, key, "transform")
    named = "names" in entry
    if (key if named else keys.EMBEDDING + key) not in adata.obsm:
        return []
    part, unit = ("archetype", "weight") if named else ("component", "coordinate")
    table = mapped_table(adata, key) if named else component_table(adata, keys.EMBEDDING + key, part)
    facts = {"n_shared_genes": entry.get("n_shared_genes")}
    title, findings = "Mapped onto a fit", unfitted(table, f"{unit}s")
    return [
        _result(
            adata, key, "transform", title, part, unit, table, entry, [], findings, facts, genes=[], composition=named
        )
    ]


def _result(
    adata: AnnData,
    key: str,
    tool: str,
    title: str,
    part: str,
    unit: str,
    table: pd.DataFrame,
    entry: Mapping[str, Any],
    curves: list[Curve],
    findings: list[Finding],
    facts: Mapping[str, Any],
    *,
    genes: list[Table] | None = None,
    more: list[Table] | None = None,
    extra: dict[str, pd.DataFrame] | None = None,
    composition: bool = False,
) -> Result:
    """Return what factorisations have in common."""
    if genes is None:
        genes = by_part(_genes(adata, key, part), part, title="Leading genes", note=f"Genes that lead every {part}.")
    batch = entry["params"].get("batch_key")
    return Result(
        key=key,
        tool=tool,
        title=title,
        part=part,
        unit=unit,
        quantities={unit: table, **(extra or {})},
        colours=palette(adata, key, [str(c + 1) for c in range(table.shape[1])]),
        composition=composition,
        columns=adata.obs[[batch]].rename(columns=str) if batch in adata.obs else pd.DataFrame(index=adata.obs_names),
        tables=[*genes, *(more or [])],
        curves=curves,
        findings=findings,
        facts=dict(facts),
        parameters=dict(entry["params"]),
    )


def _joint_genes(adata: AnnData, key: str) -> list[Table]:
    """Return what leads every factor of what is shared, and of what each batch or modality has."""
    table = joint_loadings(adata, key=key, n_top=N_GENES)
    shared = np.where(table["part"] == "shared", "", " of " + table["part"].astype(str))
    labelled = np.where(table["component"] == "all", "all factors", "factor " + table["component"].astype(str)) + shared
    table.insert(0, "factor", labelled)
    note = "Genes that lead every factor: first what is shared, then what each batch has of its own."
    return by_part(table[["factor", "gene", "loading"]], "factor", title="Leading genes", note=note)


def _genes(adata: AnnData, key: str, part: str) -> pd.DataFrame:
    table = loadings(adata, key=key, n_top=N_GENES)
    table["rank"] = table.groupby("component", sort=False).cumcount() + 1
    table[part] = [f"{part} {name}" for name in table["component"]]
    return table[[part, "rank", "gene", "loading"]]


def _ranks(entry: Mapping[str, Any], chosen: int) -> list[Curve]:
    """Return the losses of entries held out by rank, of the mean over masks."""
    if "held_out" not in entry:
        return []
    losses = np.asarray(entry["held_out"], dtype=float).reshape(len(entry["ranks"]), -1).mean(axis=1)
    ranks = np.asarray(entry["ranks"])
    note = "Mean loss of entries that the fit has not seen; taken is the smallest number within one standard error of the best."
    labels = ("number of components", "held-out loss")
    return [Curve("Number of components", note, *labels, ranks, {"held out": losses}, float(chosen))]


def _spectrum(entry: Mapping[str, Any]) -> list[Curve]:
    if "variance_ratio" not in entry:
        return []
    ratio = np.asarray(entry["variance_ratio"], dtype=float)
    order = np.arange(1, len(ratio) + 1)
    return [Curve("Variance by component", "", "component", "share of the total", order, {"share": ratio})]


def _stability(table: pd.DataFrame, chosen: int) -> list[Curve]:
    """Return how stable each number of programs was, if several were tried."""
    if len(table) < 2:
        return []
    lines = {name: table[name] for name in ("silhouette", "cophenetic", "dispersion") if name in table}
    note = "How well the runs agree; the number with the largest silhouette is taken."
    labels = ("number of programs", "agreement of the runs")
    return [Curve("Stability", note, *labels, table["n_components"], lines, float(chosen))]
