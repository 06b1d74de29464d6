"""What the readers of several tools need."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData

from unmix._adata.stored import belongs, stored_array
from unmix._report.content import Curve, Finding, Table

N_READ = 10
"""Genes of a part that are listed to read."""


def obs_columns(adata: AnnData, key: str, labels: Mapping[str, str]) -> pd.DataFrame:
    """Return the columns of `obs` named `key` and an ending, under the labels given by ending, where they exist."""
    held = {label: key + ending for ending, label in labels.items() if belongs(adata, key, "obs", key + ending)}
    found = {label: adata.obs[name] for label, name in held.items()}
    return pd.DataFrame(found, index=adata.obs_names)


def component_table(adata: AnnData, name: str, part: str) -> pd.DataFrame:
    """Return what a tool has stored in `obsm` as a table with columns such as `program 1`, single precision."""
    values = stored_array(adata, "obsm", name, kind=np.float32)
    return pd.DataFrame(values, index=adata.obs_names, columns=[f"{part} {c + 1}" for c in range(values.shape[1])])


def loss_curve(entry: Mapping[str, Any]) -> list[Curve]:
    """Return the loss of every iteration, if there were several."""
    loss = np.atleast_1d(np.asarray(entry.get("loss", []), dtype=float))
    if len(loss) < 2:
        return []
    title = "Convergence"
    return [
        Curve(title, "", "iteration", "loss", np.arange(1, len(loss) + 1), {"loss": loss}, log=bool(loss.min() > 0))
    ]


def unfitted(table: pd.DataFrame, what: str) -> list[Finding]:
    """Say how many observations have no value."""
    n = int(table.isna().any(axis=1).sum())
    text = f"{n:,} of {len(table):,} observations have no {what}; they are grey on the map and empty in the table."
    return [Finding("warning", text)] if n else []


def unsettled(entry: Mapping[str, Any]) -> list[Finding]:
    """Say so if the fit stopped before it had settled."""
    if bool(entry.get("converged", True)):
        return []
    return [Finding("warning", "The fit reached its largest number of iterations before it settled; raise max_iter.")]


def by_part(frame: pd.DataFrame, part: str, *, title: str, note: str) -> list[Table]:
    """Return tables of leading genes: a line per part to read, and the numbers behind it to open."""
    genes = frame.groupby(part, sort=False, observed=True)["gene"].agg(
        lambda names: ", ".join(names.astype(str)[:N_READ])
    )
    lines = genes.rename("genes, best first").reset_index()
    return [Table(title, note, lines), Table(f"{title}: numbers", "", frame, opened=False)] if len(frame) else []


def percent(share: float) -> str:
    """Write a share as a percentage.

    Examples
    --------
    >>> percent(0.123), percent(0.0), percent(0.004)
    ('12 %', '0 %', '0.4 %')
    """
    return f"{100 * share:.2g} %" if share < 0.0995 else f"{100 * share:.0f} %"
