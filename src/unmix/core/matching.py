"""Pairs from scores: stable marriage, optimal assignment, and a permutation null for scores of gene sets."""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.stats import norm


def stable_marriage(proposers: np.ndarray, acceptors: np.ndarray | None = None) -> np.ndarray:
    """Return a stable matching, the best one possible for every proposer (Gale and Shapley, 1962).

    Parameters
    ----------
    proposers
        Score that every proposer (row) gives every acceptor (column); NaN or -inf where it would rather stay single.
    acceptors
        Score that every acceptor (column) gives every proposer (row), of the same shape; `proposers` by default.

    Returns
    -------
    For every proposer its acceptor, or -1. Ties go to the lower index on both sides.

    Examples
    --------
    >>> stable_marriage(np.array([[3.0, 1.0], [2.0, 1.0], [1.0, -np.inf]]))
    array([ 0,  1, -1])
    """
    P = np.asarray(proposers, dtype=float)
    A = P if acceptors is None else np.asarray(acceptors, dtype=float)
    if A.shape != P.shape:
        msg = f"the two sides' scores must have one shape, got {P.shape} and {A.shape}."
        raise ValueError(msg)
    allowed = np.isfinite(P) & np.isfinite(A)
    order = np.argsort(-np.where(allowed, P, -np.inf), axis=1, kind="stable")
    n_allowed = allowed.sum(axis=1)
    turn = np.zeros(len(P), dtype=int)
    holder = np.full(P.shape[1], -1)
    waiting = list(range(len(P) - 1, -1, -1))
    while waiting:
        i = waiting.pop()
        if turn[i] >= n_allowed[i]:
            continue
        j = order[i, turn[i]]
        turn[i] += 1
        other = holder[j]
        if other < 0 or (A[i, j], -i) > (A[other, j], -other):
            holder[j] = i
            i = other
        if i >= 0:
            waiting.append(i)
    return _partners(holder, len(P))


def optimal_assignment(score: np.ndarray) -> np.ndarray:
    """Return the matching of the largest total score; NaN or -inf marks pairs that must not be made.

    As many pairs as possible are made first.

    Examples
    --------
    >>> optimal_assignment(np.array([[10.0, 9.0], [9.0, 0.0]]))
    array([1, 0])
    """
    score = np.asarray(score, dtype=float)
    allowed = np.isfinite(score)
    partner = np.full(len(score), -1)
    if not allowed.any():
        return partner
    forbidden = -1.0 - 2.0 * np.abs(score[allowed]).sum()
    rows, columns = linear_sum_assignment(np.where(allowed, score, forbidden), maximize=True)
    kept = allowed[rows, columns]
    partner[rows[kept]] = columns[kept]
    return partner


def _partners(holder: np.ndarray, n: int) -> np.ndarray:
    """Turn 'who holds acceptor j' into 'whom holds proposer i'."""
    partner = np.full(n, -1)
    held = holder >= 0
    partner[holder[held]] = np.flatnonzero(held)
    return partner


@dataclass(frozen=True)
class SetScores:
    """Scores of gene sets in archetypes (sets x archetypes), with their permutation p-values and BH q-values."""

    score: np.ndarray
    pval: np.ndarray
    qval: np.ndarray


def score_sets(
    effects: np.ndarray,
    sets: np.ndarray,
    abundance: np.ndarray,
    *,
    n_permutations: int = 200,
    rng: int | np.random.Generator | None = 0,
) -> SetScores:
    """Score gene sets against archetypes, with a null of random sets of genes of like abundance.

    Parameters
    ----------
    effects
        How much a gene stands out in an archetype, genes x K.
    sets
        Weights of the genes in the sets, genes x sets, non-negative; a score is the weighted mean of the effects.
    abundance
        Mean expression of the genes; a gene is replaced by one of the same twentieth.
    n_permutations
        Number of random sets per set; p-values are those of a normal law with the mean and spread of their scores.
    rng
        Seed.
    """
    rng = np.random.default_rng(rng)
    bins = (20 * np.argsort(np.argsort(abundance, kind="stable"), kind="stable")) // len(abundance)
    members = [np.flatnonzero(bins == b) for b in range(20)]
    score = np.zeros((sets.shape[1], effects.shape[1]))
    pval = np.ones_like(score)
    for t in range(sets.shape[1]):
        genes = np.flatnonzero(sets[:, t])
        if not len(genes):
            continue
        w = sets[genes, t] / sets[genes, t].sum()
        score[t] = w @ effects[genes]
        drawn = np.stack([rng.choice(members[bins[g]], n_permutations) for g in genes], axis=1)
        null = np.einsum("g,ngk->nk", w, effects[drawn])
        spread = null.std(axis=0)
        pval[t] = norm.sf(np.divide(score[t] - null.mean(axis=0), spread, out=np.zeros(len(spread)), where=spread > 0))
    return SetScores(score, pval, adjust(pval.ravel()).reshape(pval.shape))


def adjust(p: np.ndarray) -> np.ndarray:
    """Return Benjamini-Hochberg q-values.

    Examples
    --------
    >>> adjust(np.array([0.01, 0.04, 0.03]))
    array([0.03, 0.04, 0.04])
    """
    order = np.argsort(p, kind="stable")
    scaled = p[order] * len(p) / np.arange(1, len(p) + 1)
    q = np.empty_like(scaled)
    q[order] = np.minimum(np.minimum.accumulate(scaled[::-1])[::-1], 1.0)
    return q
