"""What a report shows of `tl.starfysh_archetypes`."""

from collections.abc import Mapping
from typing import Any

import pandas as pd
from anndata import AnnData

from unmix._adata import keys
from unmix._adata.colours import palette
from unmix._adata.stored import stored_entry
from unmix._report.common import by_part, obs_columns, percent, unfitted, unsettled
from unmix._report.content import Curve, Finding, Result, Table
from unmix.get import archetypes, markers
from unmix.get._archetypes import TOOL

N_MARKERS = 20
COLUMNS = {"": "archetype", keys.ANCHOR: "anchor of"}


def read_archetypes(adata: AnnData, key: str) -> list[Result]:
    """Return the weights of archetypes and, where gene sets were given, the proportions of types."""
    entry = stored_entry(adata, key, TOOL)
    weights = archetypes(adata, key=key)
    common: dict[str, Any] = {
        "key": key,
        "tool": TOOL,
        "composition": True,
        "columns": obs_columns(adata, key, COLUMNS),
        "tables": tables(adata, key, entry),
        "curves": curves(entry),
        "findings": [*unfitted(weights, "counts"), *unsettled(entry), *findings(entry)],
        "facts": {name: entry[name] for name in ("explained_variance", "reduction") if name in entry},
        "parameters": dict(entry["params"]),
    }
    colours = palette(adata, key, list(weights.columns))
    found = [
        Result(
            title="Archetypes",
            part="archetype",
            unit="weight",
            quantities={"weight": weights},
            colours=colours,
            **common,
        )
    ]
    if "proportion_names" in entry:
        shares = archetypes(adata, key=key, what="proportions")
        colours = palette(adata, key + keys.PROPORTIONS, list(shares.columns))
        more: dict[str, Any] = {
            "part": "cell type",
            "unit": "share",
            "quantities": {"proportion": shares},
            "colours": colours,
        }
        found.append(Result(title="Cell types by gene sets", **more, **common))
    return found


def tables(adata: AnnData, key: str, entry: Mapping[str, Any]) -> list[Table]:
    """Return markers, matching, scores of gene sets, and anchors."""
    best = markers(adata, key=key, n_genes=N_MARKERS)
    best["rank"] = best.groupby("archetype", observed=True).cumcount() + 1
    best = best[["archetype", "rank", *[name for name in best if name not in ("archetype", "rank")]]]
    note = "By a Wilcoxon test of the archetype's community against the rest."
    found = by_part(best, "archetype", title="Marker genes", note=note)
    if "matching" in entry:
        note = "The archetype that every gene set is matched with; none where no q-value allows it."
        found.append(Table("Matching of gene sets and archetypes", note, archetypes(adata, key=key, what="matching")))
        scores = entry["set_scores"].rename_axis("gene set").reset_index()
        found.append(
            Table("Scores of gene sets", "", scores.assign(**{"gene set": list(entry["types"])}), opened=False)
        )
    note = "Observations that stand for an archetype: the purest places of the tissue."
    found.append(Table("Anchors", note, archetypes(adata, key=key, what="anchors")))
    return found


def curves(entry: Mapping[str, Any]) -> list[Curve]:
    """Return what the number of archetypes was chosen by."""
    table = entry.get("selection")
    if not isinstance(table, pd.DataFrame):
        return []
    lines = {
        "agreement of subsets": table["stability"],
        "variance explained, held out": table["held_out"],
        "variance explained, fitted": table["explained"],
    }
    chosen = float(table.loc[table["chosen"].astype(bool), "n_archetypes"].iloc[0])
    note = "The largest number that random subsets agree on and that still explains more of rows held out."
    labels = ("number of archetypes", "cosine, share")
    return [Curve("Number of archetypes", note, *labels, table["n_archetypes"], lines, chosen)]


def findings(entry: Mapping[str, Any]) -> list[Finding]:
    """Return how much the archetypes explain, and which gene sets found none."""
    found = []
    if "explained_variance" in entry:
        share = percent(float(entry["explained_variance"]))
        found.append(Finding("note", f"The archetypes explain {share} of the variance of the reduced data."))
    if "matching" in entry:
        table = entry["matching"]
        alone = ", ".join(table.loc[table["archetype"].astype(str) == "none", "type"].astype(str))
        found += [Finding("warning", f"No archetype matches the gene sets of {alone}.")] if alone else []
    return found
