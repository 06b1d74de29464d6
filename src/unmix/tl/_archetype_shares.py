"""Shares of types and of archetypes that no gene set is active in."""

import numpy as np
import pandas as pd

from unmix.core.refinement import scale_activities, set_activities
from unmix.core.scaled import ScaledRows
from unmix.core.set_model import SetModel, choose_set_model, set_shares
from unmix.tl._archetype_input import some_rows
from unmix.tl._archetype_sets import Matched

MODEL_ROWS = 5_000


def type_shares(
    Y: ScaledRows,
    totals: np.ndarray,
    fitted: np.ndarray,
    sets: np.ndarray,
    rng: np.random.Generator,
    n_jobs: int,
) -> tuple[np.ndarray, SetModel]:
    """Return the shares of the sets' types in every row, n_obs x T, and the model that they come from.

    Profiles of the sets' genes are learned from at most 5,000 rows.
    """
    rows = np.flatnonzero(fitted)
    rows = rows[some_rows(len(rows), MODEL_ROWS, rng)]
    genes = np.flatnonzero(sets.sum(axis=1) > 0)
    genes = genes[np.asarray(Y.take(rows).of(genes).gathered().sum(axis=0)).ravel() > 0]
    chosen = Y.take(rows).of(genes)
    estimates = scale_activities(set_activities(chosen.gathered(), sets[genes], rng))
    model = choose_set_model(chosen.counts().gathered(), totals[rows], estimates, rng, n_jobs=n_jobs)
    return set_shares(Y.of(genes).counts(), totals, model, n_jobs=n_jobs), model


def share_table(shares: np.ndarray, W: np.ndarray, matched: Matched, types: list[str], max_q: float) -> pd.DataFrame:
    """Return the shares of the types, and those of archetypes in which no gene set is active."""
    known = ((matched.scores.qval <= max_q) & (matched.scores.score > 0)).any(axis=0)
    novel = W[:, ~known] if known.any() else W[:, :0]
    columns = types + [f"novel_{k + 1}" for k in range(novel.shape[1])]
    return pd.DataFrame(np.hstack([shares * (1.0 - novel.sum(axis=1, keepdims=True)), novel]), columns=columns)
