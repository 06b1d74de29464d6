"""Gene sets: reading them, matching them to archetypes, refining them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd

from unmix._adata.signatures import _match_without_case
from unmix.core.matching import SetScores, optimal_assignment, score_sets, stable_marriage
from unmix.core.refinement import Thresholds, refine_sets
from unmix.core.scaled import GeneMoments
from unmix.tl._archetype_genes import GeneTable


def read_sets(signatures: Any, genes: pd.Index) -> tuple[list[str], np.ndarray]:
    """Return the names of the types and their gene sets as weights, genes x types.

    Raises
    ------
    TypeError
        If the signatures are neither a mapping nor a DataFrame.
    ValueError
        If there is none, or a type has no gene among those of the data.
    """
    names = (
        pd.Index([str(name) for name in signatures]) if isinstance(signatures, Mapping | pd.DataFrame) else pd.Index([])
    )
    if not names.is_unique:
        msg = f"`signatures` names the types {names[names.duplicated()].unique().tolist()} more than once; rename them."
        raise ValueError(msg)
    table = _weights(signatures)
    if table.shape[1] == 0:
        msg = "`signatures` holds no type; give a dict of gene lists, a DataFrame with a column per type, or None."
        raise ValueError(msg)
    position = genes.get_indexer(table.index)
    if (position >= 0).sum() < 0.1 * len(table):
        folded = _match_without_case(table.index, genes)
        position = folded if (folded >= 0).sum() > 2 * (position >= 0).sum() else position
    sets = np.zeros((len(genes), table.shape[1]))
    sets[position[position >= 0]] = table.to_numpy()[position >= 0]
    empty = table.columns[sets.sum(axis=0) <= 0].tolist()
    if empty:
        msg = f"no gene of the signatures {empty} is among the genes of the data; leave these types out."
        raise ValueError(msg)
    return [str(name) for name in table.columns], sets


def _weights(signatures: Any) -> pd.DataFrame:
    """Return signatures of any kind as a table of weights, genes x types."""
    if isinstance(signatures, pd.DataFrame) and all(dtype.kind in "biuf" for dtype in signatures.dtypes):
        table = signatures.astype(float).fillna(0.0)
        if not (np.isfinite(table.to_numpy()) & (table.to_numpy() >= 0)).all() or not table.index.is_unique:
            msg = "a table of signature weights must be finite and non-negative, and its genes (rows) unique."
            raise ValueError(msg)
        return table.set_axis(table.index.astype(str))
    if isinstance(signatures, pd.DataFrame):
        signatures = {name: signatures[name].dropna() for name in signatures.columns}
    if not isinstance(signatures, Mapping):
        msg = f"`signatures` must be a dict of gene lists or a DataFrame, got {type(signatures).__name__}."
        raise TypeError(msg)
    lists = {str(name): list(dict.fromkeys(str(g) for g in members)) for name, members in signatures.items()}
    index = pd.Index(list(dict.fromkeys(g for members in lists.values() for g in members)), dtype=object)
    table = pd.DataFrame(0.0, index=index, columns=list(lists))
    for name, members in lists.items():
        table.loc[members, name] = 1.0
    return table


@dataclass(frozen=True)
class Matched:
    """The outcome of matching and refinement: partner of every type, final sets, scores, and what happened."""

    partner: np.ndarray
    sets: np.ndarray
    scores: SetScores
    rounds: list[np.ndarray]


def match(
    genes: GeneTable,
    sets: np.ndarray,
    *,
    assignment: Literal["stable", "optimal"],
    proposer: Literal["types", "archetypes"],
    max_q: float,
    max_rounds: int,
    rng: np.random.Generator,
) -> Matched:
    """Match types to archetypes and refine the sets until both stay as they are, or `max_rounds` have passed."""
    effects = set_effects(genes.moments, genes.profiles, genes.community_means)
    seed = int(rng.integers(2**31))
    rounds: list[np.ndarray] = []
    while True:
        scores = score_sets(effects, sets, genes.moments.mean, rng=seed)
        partner = pair(scores, max_q, assignment, proposer)
        if len(rounds) >= max_rounds:
            return Matched(partner, sets, scores, rounds)
        refined = refine_sets(sets, genes.markers, partner, Thresholds())
        if np.array_equal(refined, sets) or any(np.array_equal(refined > 0, old > 0) for old in rounds):
            return Matched(partner, sets, scores, rounds)
        rounds.append(sets)
        sets = refined


def set_effects(moments: GeneMoments, profiles: np.ndarray, community_means: np.ndarray) -> np.ndarray:
    """Return how far genes stand out in an archetype's profile and community, genes x K, in standard deviations.

    Profile (K x genes) and community mean (genes x K) are compared with the mean of those of the other archetypes, and
    averaged. All are of logarithms.
    """
    deviation = moments.deviation
    levels = 0.5 * (profiles.T + community_means)
    K = levels.shape[1]
    others = (levels.sum(axis=1, keepdims=True) - levels) / (K - 1) if K > 1 else moments.mean[:, None]
    return np.divide(levels - others, deviation[:, None], out=np.zeros_like(levels), where=deviation[:, None] > 0)


def pair(scores: SetScores, max_q: float, assignment: str, proposer: str) -> np.ndarray:
    """Return the archetype of every type, or -1. Types rank archetypes by score, archetypes rank types by p-value."""
    allowed = (scores.qval <= max_q) & (scores.score > 0)
    by_type = np.where(allowed, scores.score, -np.inf)
    if assignment == "optimal":
        return optimal_assignment(by_type)
    by_archetype = np.where(allowed, -scores.pval, -np.inf)
    if proposer == "types":
        return stable_marriage(by_type, by_archetype)
    holder = stable_marriage(by_archetype.T, by_type.T)
    partner = np.full(len(by_type), -1)
    partner[holder[holder >= 0]] = np.flatnonzero(holder >= 0)
    return partner
