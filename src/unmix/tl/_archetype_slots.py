"""What `starfysh_archetypes` stores: weights, anchors, the account of the fit, markers, the matching."""

from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy import sparse

from unmix._adata import keys
from unmix._adata.write import Slots
from unmix.core.archetypes import Archetypes
from unmix.core.communities import find_anchors
from unmix.core.markers import Markers
from unmix.tl._archetype_input import Reduced
from unmix.tl._archetype_sets import Matched

STATUS = ("ok", "shallow", "no counts")
"""Fitted; too few counts to be fitted, and projected; no counts, and NaN."""


def spread(values: np.ndarray, rows: np.ndarray, adata: AnnData, names: list[str]) -> pd.DataFrame:
    """Return a table over all observations, NaN where there were no counts."""
    full = np.full((len(rows), values.shape[1]), np.nan)
    full[rows] = values
    return pd.DataFrame(full, index=adata.obs_names, columns=names)


def make_slots(
    key: str,
    adata: AnnData,
    rows: np.ndarray,
    fitted: np.ndarray,
    names: list[str],
    W: np.ndarray,
    B: sparse.csr_array,
    profiles: np.ndarray,
) -> Slots:
    slots = Slots()
    slots.obsm[key] = spread(W, rows, adata, names)
    slots.varm[key] = pd.DataFrame(profiles.T, index=adata.var_names, columns=names)
    code = np.full(len(rows), -1)
    code[rows] = W.argmax(axis=1)
    slots.obs[key] = pd.Categorical.from_codes(code, names)
    where = np.flatnonzero(rows)
    status = np.full(len(rows), STATUS.index("no counts"))
    status[rows] = np.where(fitted, STATUS.index("ok"), STATUS.index("shallow"))
    slots.obs[key + keys.STATUS] = pd.Categorical.from_codes(status, list(STATUS)).remove_unused_categories()
    anchors = find_anchors(np.where(fitted[:, None], W, 0.0), B)
    anchor = np.full(len(rows), len(names))
    for k, i, b in zip(anchors.archetype[::-1], anchors.row[::-1], anchors.weight[::-1], strict=True):
        if b > 0:
            anchor[where[i]] = k
    slots.obs[key + keys.ANCHOR] = pd.Categorical.from_codes(anchor, [*names, "none"])
    table = pd.DataFrame(
        {
            "archetype": np.array(names)[anchors.archetype],
            "obs_name": adata.obs_names[where[anchors.row]].astype(str),
            "weight": anchors.weight,
            "mixture": anchors.mixture,
        }
    )
    slots.uns[key] = {"names": names, "anchors": table}
    return slots


def account(
    fitted: Archetypes,
    Z: np.ndarray,
    linkage: np.ndarray,
    group: np.ndarray,
    selection: Any,
    reduced: Reduced,
) -> dict[str, Any]:
    """Return how the fit went."""
    entry: dict[str, Any] = {
        "archetypes": Z,
        "linkage": linkage,
        "group": group,
        "reduction": reduced.how,
        "n_shallow": int((~reduced.fitted).sum()),
        "explained_variance": fitted.explained_variance,
        "losses": np.array(fitted.losses),
        "restarts": np.array(fitted.restarts),
        "converged": fitted.converged,
    }
    if len(Z) < len(fitted.Z):
        entry["corners"] = fitted.Z
    if selection is not None:
        entry["selection"] = pd.DataFrame(
            {
                "n_archetypes": selection.n_archetypes,
                "stability": selection.stability,
                "held_out": selection.held_out,
                "explained": selection.explained,
                "chosen": selection.n_archetypes == selection.chosen,
            }
        )
    return entry


def marker_table(markers: Markers, names: list[str], genes: pd.Index, n: int = 100) -> pd.DataFrame:
    """Return the best `n` genes of every archetype by score."""
    parts = []
    for k, name in enumerate(names):
        best = np.argsort(-markers.score[:, k], kind="stable")[:n]
        columns = {
            field: getattr(markers, field)[best, k]
            for field in ("score", "pval", "qval", "log_fold_change", "share", "share_rest", "specificity")
        }
        parts.append(pd.DataFrame({"archetype": name, "gene": genes[best].astype(str), **columns}))
    return pd.concat(parts, ignore_index=True)


def matching_entry(matched: Matched, types: list[str], names: list[str], genes: pd.Index) -> dict[str, Any]:
    partner = matched.partner
    pairs = [(t, k) for t, k in enumerate(partner)]
    at = [(t, k if k >= 0 else int(matched.scores.pval[t].argmin())) for t, k in pairs]
    table = pd.DataFrame(
        {
            "type": types,
            "archetype": [names[k] if k >= 0 else "none" for k in partner],
            "score": [matched.scores.score[i] for i in at],
            "pval": [matched.scores.pval[i] for i in at],
            "qval": [matched.scores.qval[i] for i in at],
        }
    )
    history = [*matched.rounds, matched.sets]
    sets = {
        f"round_{r}": {name: genes[np.flatnonzero(s[:, t])].to_numpy(dtype=str) for t, name in enumerate(types)}
        for r, s in enumerate(history)
    }
    scores = pd.DataFrame(matched.scores.score, index=types, columns=names)
    return {"matching": table, "signatures": sets, "set_scores": scores, "types": types}
