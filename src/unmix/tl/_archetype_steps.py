"""What lies between the tool and the mathematics of archetypes: expression, reduction, gene sets, matching."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pandas as pd
from scipy import sparse

from unmix._adata.read import Matrix
from unmix._adata.signatures import _match_without_case
from unmix.core.archetype_selection import Selection, select_n_archetypes
from unmix.core.archetypes import Archetypes, fit_archetypes
from unmix.core.blocks import iter_blocks
from unmix.core.markers import Markers, rank_markers
from unmix.core.matching import SetScores, optimal_assignment, score_sets, stable_marriage
from unmix.core.pca import parallel_analysis, principal_components
from unmix.core.refinement import Thresholds, refine_sets

MAX_PCS = 30
N_TOP_GENES = 2000
ROBUST_ROUNDS = 3
MAX_ARCHETYPES = 20
RANK_ROWS = 1500


@dataclass(frozen=True)
class Reduced:
    """Rows in a reduced space, and how they got there."""

    X: np.ndarray
    rank: int
    """Number of dimensions in which expression mixes: mixtures of K parts span K - 1."""
    how: dict[str, Any] = field(default_factory=dict)


def normalised(matrix: Matrix, rows: np.ndarray, totals: np.ndarray) -> tuple[sparse.csr_array, float]:
    """Return the rows with counts, sparse, scaled to the median total; and that total."""
    target = float(np.median(totals[rows]))
    blocks = [sparse.csr_array(block) for _, block in iter_blocks(matrix.X)]
    Y = sparse.csr_array(sparse.vstack(blocks, format="csr"))[np.flatnonzero(rows)].astype(np.float64)
    Y.data *= np.repeat(target / totals[rows], np.diff(Y.indptr))
    return Y, target


def logged(Y: sparse.csr_array) -> sparse.csr_array:
    """Return log(1 + Y)."""
    Y = Y.copy()
    Y.data = np.log1p(Y.data)
    return Y


def reduce(
    Y: sparse.csr_array, var: pd.DataFrame, n_pcs: int | Literal["auto"], target: float, rng: np.random.Generator
) -> Reduced:
    """Return principal components of log-normalised, highly variable genes; their number by parallel analysis."""
    genes = np.flatnonzero(_variable_genes(Y, var))
    chosen = logged(Y[:, genes])
    k = min(MAX_PCS if n_pcs == "auto" else n_pcs, min(chosen.shape) - 1)
    found = principal_components(chosen, max(k, 1), rng)
    above, threshold = parallel_analysis(chosen, found.values, rng)
    kept = max(above, 2) if n_pcs == "auto" else k
    how = {
        "genes": var.index[genes].to_numpy(dtype=str),
        "mean": found.mean,
        "loadings": found.loadings[:, :kept],
        "target": target,
        "singular_values": found.values,
        "null_singular_value": threshold,
    }
    return Reduced(np.ascontiguousarray(found.scores[:, :kept]), mixing_rank(Y[:, genes], rng), how)


def mixing_rank(Y: sparse.csr_array, rng: np.random.Generator) -> int:
    """Return the rank of linear expression by parallel analysis.

    Mixing is linear in counts, so that logarithms would bend the simplex and add dimensions. Genes are divided by the
    root of their mean, which makes Poisson noise equal. A few genes in bursts can hide all others then, and roots of
    counts, which tame them, count as well: the larger rank holds. 1,500 rows are enough.
    """
    Y = Y[np.sort(rng.permutation(Y.shape[0])[:RANK_ROWS])] if Y.shape[0] > RANK_ROWS else Y
    mean = np.asarray(Y.mean(axis=0)).ravel()
    scale = np.divide(1.0, np.sqrt(mean), out=np.zeros_like(mean), where=mean > 0)
    k = max(min(MAX_ARCHETYPES - 1, min(Y.shape) - 1), 1)
    ranks = []
    for stable in (sparse.csr_array(Y.multiply(scale[None, :])), Y.sqrt()):
        found = principal_components(stable, k, rng)
        ranks.append(parallel_analysis(stable, found.values, rng)[0])
    return max(ranks)


def _variable_genes(Y: sparse.csr_array, var: pd.DataFrame) -> np.ndarray:
    """Return the genes marked in `var["highly_variable"]`, or the 2,000 most overdispersed ones that are expressed.

    The variance is compared with that of a negative binomial law of dispersion 0.01, the spread of techniques (Lause et
    al., Genome Biol. 22, 2021).
    """
    expressed = np.asarray((Y > 0).sum(axis=0)).ravel() > 1
    if "highly_variable" in var:
        marked = var["highly_variable"].to_numpy(dtype=bool) & expressed
        return marked if marked.any() else expressed
    if expressed.sum() <= N_TOP_GENES:
        return expressed if expressed.any() else np.ones_like(expressed)
    mean = np.asarray(Y.mean(axis=0)).ravel()
    variance = np.asarray(Y.power(2).mean(axis=0)).ravel() - mean**2
    excess = np.where(expressed, variance / np.maximum(mean + 0.01 * mean**2, np.finfo(float).tiny), -1.0)
    chosen = np.zeros_like(expressed)
    chosen[np.argsort(-excess, kind="stable")[:N_TOP_GENES]] = True
    return chosen


def choose_n(
    reduced: Reduced, n_archetypes: int | Literal["auto"], rng: np.random.Generator, n_jobs: int
) -> tuple[int, Selection | None]:
    """Return the number of archetypes: at least 2, at most the corners of a simplex of the dimension of mixing."""
    X = reduced.X
    if n_archetypes != "auto":
        return n_archetypes, None
    if len(X) < 8:
        return min(2, len(X)), None
    found = select_n_archetypes(X, range(2, max(min(reduced.rank + 1, MAX_ARCHETYPES), 2) + 1), rng=rng, n_jobs=n_jobs)
    return found.chosen, found


def fit(X: np.ndarray, K: int, *, robust: bool, **options: Any) -> Archetypes:
    """Fit archetypes; if `robust`, again with bisquare weights of the rows' residuals."""
    found = fit_archetypes(X, K, **options)
    for _ in range(ROBUST_ROUNDS if robust else 0):
        residual = np.sqrt(((X - found.W @ found.Z) ** 2).sum(axis=1))
        cut = 6.0 * np.median(residual)
        weights = np.clip(1.0 - (residual / cut) ** 2, 0.0, None) ** 2 if cut > 0 else None
        found = fit_archetypes(X, K, weights=weights, **options)
    return found


def read_sets(signatures: Any, genes: pd.Index) -> tuple[list[str], np.ndarray]:
    """Return the names of the types and their gene sets as weights, genes x types.

    Raises
    ------
    TypeError
        If the signatures are neither a mapping nor a DataFrame.
    ValueError
        If there is none, or a type has no gene among those of the data.
    """
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
        if (table.to_numpy() < 0).any() or not table.index.is_unique:
            msg = "a table of signature weights must be non-negative, and its genes (rows) unique."
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
    Y: sparse.csr_array,
    profiles: np.ndarray,
    member: np.ndarray,
    markers: Markers,
    sets: np.ndarray,
    *,
    assignment: Literal["stable", "optimal"],
    proposer: Literal["types", "archetypes"],
    max_q: float,
    max_rounds: int,
    rng: np.random.Generator,
) -> Matched:
    """Match types to archetypes and refine the sets until both stay as they are, or `max_rounds` have passed."""
    effects = set_effects(Y, profiles, member)
    abundance = np.asarray(Y.mean(axis=0)).ravel()
    seed = int(rng.integers(2**31))
    rounds: list[np.ndarray] = []
    while True:
        scores = score_sets(effects, sets, abundance, rng=seed)
        partner = pair(scores, max_q, assignment, proposer)
        if len(rounds) >= max_rounds:
            return Matched(partner, sets, scores, rounds)
        refined = refine_sets(sets, markers, partner, Thresholds())
        if np.array_equal(refined, sets) or any(np.array_equal(refined > 0, old > 0) for old in rounds):
            return Matched(partner, sets, scores, rounds)
        rounds.append(sets)
        sets = refined


def set_effects(Y: sparse.csr_array, profiles: np.ndarray, member: np.ndarray) -> np.ndarray:
    """Return how far genes stand out in an archetype's profile and community, genes x K, in standard deviations.

    Profile and community mean are compared with the mean of those of the other archetypes, and averaged.
    """
    mean = np.asarray(Y.mean(axis=0)).ravel()
    square = np.asarray(Y.power(2).mean(axis=0)).ravel()
    deviation = np.sqrt(np.maximum(square - mean**2, 0.0))
    share = member / np.maximum(member.sum(axis=0), 1)
    levels = 0.5 * (profiles.T + Y.T @ share)
    K = levels.shape[1]
    others = (levels.sum(axis=1, keepdims=True) - levels) / (K - 1) if K > 1 else mean[:, None]
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


def communities_markers(Y_log: sparse.csr_array, member: np.ndarray) -> Markers:
    """Rank the genes of all communities in one pass."""
    return rank_markers(sparse.csc_array(Y_log), member)
