"""Matching: no blocking pair, proposers' best, optimal totals equal to scipy's, a null that holds its level."""

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment
from scipy.stats import false_discovery_control

from unmix.core.matching import adjust, optimal_assignment, score_sets, stable_marriage


def blocking_pairs(P, A, partner):
    holder = np.full(P.shape[1], -1)
    holder[partner[partner >= 0]] = np.flatnonzero(partner >= 0)
    mine = np.array([P[i, j] if j >= 0 else -np.inf for i, j in enumerate(partner)])
    theirs = np.array([A[i, j] if i >= 0 else -np.inf for j, i in enumerate(holder)])
    return int(((mine[:, None] < P) & (theirs[None] < A)).sum())


@pytest.mark.parametrize("seed", range(30))
def test_no_blocking_pair_with_ties_and_unequal_sides(seed):
    rng = np.random.default_rng(seed)
    shape = tuple(rng.integers(1, 12, 2))
    P, A = rng.integers(0, 4, shape).astype(float), rng.integers(0, 4, shape).astype(float)
    P[rng.random(shape) < 0.2] = -np.inf
    A[~np.isfinite(P)] = -np.inf
    partner = stable_marriage(P, A)
    assert blocking_pairs(P, A, partner) == 0
    assert blocking_pairs(A.T, P.T, stable_marriage(A.T, P.T)) == 0
    used = partner[partner >= 0]
    assert len(set(used)) == len(used)


def test_each_side_gets_its_best_stable_matching_by_proposing():
    rng = np.random.default_rng(0)
    P, A = rng.random((8, 8)), rng.random((8, 8))
    ours, theirs = stable_marriage(P, A), np.argsort(stable_marriage(A.T, P.T))
    rows = np.arange(8)
    assert (P[rows, ours] >= P[rows, theirs]).all()
    assert (A[np.argsort(ours), rows] <= A[np.argsort(theirs), rows]).all()


def test_large_problems_need_no_recursion():
    P = np.random.default_rng(0).random((2000, 2000))
    assert sorted(stable_marriage(P)) == list(range(2000))


@pytest.mark.parametrize("shape", [(6, 6), (4, 9), (9, 4)])
def test_optimal_assignment_has_scipys_total(shape):
    score = np.random.default_rng(1).normal(size=shape)
    partner = optimal_assignment(score)
    rows, columns = linear_sum_assignment(score, maximize=True)
    kept = partner >= 0
    assert score[kept, partner[kept]].sum() == pytest.approx(score[rows, columns].sum())


def test_forbidden_pairs_stay_single():
    score = np.array([[1.0, -np.inf], [2.0, -np.inf]])
    assert optimal_assignment(score).tolist() == [-1, 0]
    assert optimal_assignment(np.full((2, 2), np.nan)).tolist() == [-1, -1]
    with pytest.raises(ValueError, match="one shape"):
        stable_marriage(np.ones((2, 2)), np.ones((3, 2)))


def test_adjusted_p_values_are_scipys():
    p = np.random.default_rng(0).random(200)
    np.testing.assert_allclose(adjust(p), false_discovery_control(p))


def test_null_sets_are_not_called_and_planted_ones_are():
    rng = np.random.default_rng(0)
    effects = rng.normal(size=(1000, 3))
    sets = np.zeros((1000, 41))
    for t in range(40):
        sets[rng.choice(1000, 20, replace=False), t] = 1
    sets[:20, 40] = 1
    effects[:20, 1] += 1.5
    found = score_sets(effects, sets, rng.random(1000))
    assert 0.02 < (found.pval[:40] <= 0.1).mean() < 0.2
    assert found.qval[40].argmin() == 1
    assert found.qval[40, 1] < 0.05
    assert (found.qval[:40] < 0.05).sum() == 0
