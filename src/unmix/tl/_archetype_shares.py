"""Shares of types and of archetypes that no gene set is active in."""

import warnings
from itertools import count, islice

import numpy as np
import pandas as pd

from unmix._adata.signatures import SignatureWarning
from unmix.core.refinement import scale_activities, set_activities
from unmix.core.scaled import ScaledRows, gene_moments
from unmix.core.set_model import SetModel, choose_set_model, regress_profiles, set_shares
from unmix.tl._archetype_input import some_rows
from unmix.tl._archetype_sets import Matched

MODEL_ROWS = 5_000
MODEL_GENES = 500
"""Variable genes that profiles and shares are estimated from besides those of the sets."""
MIN_EXPRESSED = 10


def type_shares(
    Y: ScaledRows,
    totals: np.ndarray,
    fitted: np.ndarray,
    types: list[str],
    given: np.ndarray,
    refined: np.ndarray,
    rng: np.random.Generator,
    n_jobs: int,
) -> tuple[np.ndarray, SetModel]:
    """Return the shares of the sets' types in every row, n_obs x T, and the model that they come from.

    Profiles are learned from at most 5,000 rows: those of the genes of the given sets together with the shares, and then
    by these shares those of the genes that the refined sets have gained and of 500 variable ones. Refined sets do not
    make the first estimates: the genes that they gain are markers of an archetype, which may hold more than one type.
    A type of whose genes nothing was counted has no share.
    """
    rows = np.flatnonzero(fitted)
    rows = rows[some_rows(len(rows), MODEL_ROWS, rng)]
    seen, totals_seen = Y.take(rows), totals[rows]
    genes = np.flatnonzero(given.sum(axis=1) > 0)
    genes = genes[np.asarray(seen.of(genes).gathered().sum(axis=0)).ravel() > 0]
    counted = counted_types(types, given[genes])
    given, refined = given[:, counted], refined[:, counted]
    chosen = seen.of(genes)
    estimates = scale_activities(set_activities(chosen.gathered(), given[genes], rng))
    counts = chosen.counts().gathered()
    model = choose_set_model(counts, totals_seen, estimates, rng, n_jobs=n_jobs)
    shares = set_shares(counts, totals_seen, model, n_jobs=n_jobs)
    genes = np.unique(np.concatenate([genes, np.flatnonzero(refined.sum(axis=1) > 0), _variable_genes(seen, n_jobs)]))
    model = regress_profiles(seen.of(genes).counts().gathered(), totals_seen, shares, model.alpha, n_jobs=n_jobs)
    all_shares = np.zeros((len(totals), len(types)))
    all_shares[:, counted] = set_shares(Y.of(genes).counts(), totals, model, n_jobs=n_jobs)
    return all_shares, model


def counted_types(types: list[str], sets: np.ndarray) -> np.ndarray:
    """Return the positions of the types that have weights among genes with counts; warn of the others.

    Raises
    ------
    ValueError
        If there are none.
    """
    counted = sets.sum(axis=0) > 0
    silent = [name for name, has in zip(types, counted, strict=True) if not has]
    if not counted.any():
        msg = f"no observation has a count of a gene of `signatures` ({', '.join(silent[:5])})."
        raise ValueError(msg)
    if silent:
        msg = (
            f"no observation has a count of a gene of these signatures, whose types get no share: {', '.join(silent)}."
        )
        warnings.warn(msg, SignatureWarning, stacklevel=4)
    return np.flatnonzero(counted)


def _variable_genes(Y: ScaledRows, n_jobs: int) -> np.ndarray:
    """Return the most overdispersed genes among those that more than a few rows express."""
    moments = gene_moments(Y, n_jobs=n_jobs)
    excess = np.where(moments.expressed > MIN_EXPRESSED, moments.excess, -1.0)
    best = np.argsort(-excess, kind="stable")[:MODEL_GENES]
    return best[excess[best] > 0]


def share_table(shares: np.ndarray, W: np.ndarray, matched: Matched, types: list[str], max_q: float) -> pd.DataFrame:
    """Return the shares of the types, and those of archetypes in which no gene set is active."""
    known = ((matched.scores.qval <= max_q) & (matched.scores.score > 0)).any(axis=0)
    novel = W[:, ~known] if known.any() else W[:, :0]
    free = (name for number in count(1) if (name := f"novel_{number}") not in types)
    columns = types + list(islice(free, novel.shape[1]))
    return pd.DataFrame(np.hstack([shares * (1.0 - novel.sum(axis=1, keepdims=True)), novel]), columns=columns)
