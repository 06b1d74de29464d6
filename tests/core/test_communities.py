"""Merge trees and communities: the simplex is kept, nothing depends on order, archetypes on spots survive."""

import numpy as np
import pytest
from scipy import sparse

from unmix.core.archetypes import fit_archetypes
from unmix.core.communities import (
    archetype_distances,
    cut_tree,
    disjoint,
    find_anchors,
    heavy_communities,
    merge,
    merge_tree,
    nearest_communities,
    smooth,
)


@pytest.fixture(scope="module")
def fitted():
    rng = np.random.default_rng(0)
    Z = 5 * np.eye(4) + 0.0
    X = np.vstack([Z, rng.dirichlet(np.full(4, 0.4), 200) @ Z])
    return X, fit_archetypes(X, 4, n_restarts=2)


def test_archetypes_that_lie_on_spots_survive_the_merge(fitted):
    X, fit = fitted
    assert (np.diff(fit.B.indptr) == 1).all()
    tree = merge_tree(fit.W, fit.Z)
    assert cut_tree(tree, resolution=0.3).tolist() == [0, 1, 2, 3]


def test_merging_keeps_the_simplex_and_anchors(fitted):
    X, fit = fitted
    group = cut_tree(merge_tree(fit.W, fit.Z), n_groups=2)
    W, B, Z = merge(fit.W, fit.B, fit.Z, group)
    assert W.shape[1] == len(set(group)) == 2
    np.testing.assert_allclose(W.sum(axis=1), 1)
    np.testing.assert_allclose(B.sum(axis=1), 1)
    np.testing.assert_allclose(B @ X, Z, atol=1e-8)


def test_the_tree_does_not_depend_on_the_order_of_archetypes(fitted):
    X, fit = fitted
    rng = np.random.default_rng(1)
    Z = np.vstack([fit.Z, fit.Z[0] + 0.1, fit.Z[1] + 0.1])
    W = np.hstack([fit.W[:, :2] / 2, fit.W[:, 2:], fit.W[:, :2] / 2])
    p = rng.permutation(6)
    group, permuted = (cut_tree(merge_tree(W[:, o], Z[o]), resolution=0.4) for o in (np.arange(6), p))
    same = group[:, None] == group[None]
    assert np.array_equal(same[np.ix_(p, p)], permuted[:, None] == permuted[None])
    assert group[0] == group[4]
    assert group[1] == group[5]
    assert len(set(group)) == 4


def test_distances_are_a_symmetric_share(fitted):
    _, fit = fitted
    D = archetype_distances(fit.W, fit.Z)
    assert np.array_equal(D, D.T)
    assert D.min() == 0
    assert D.max() <= 1
    twice = archetype_distances(np.hstack([fit.W, fit.W]), np.vstack([fit.Z, fit.Z]))
    assert twice[0, 4] == pytest.approx(0, abs=1e-12)


def test_one_archetype_has_an_empty_tree():
    assert merge_tree(np.ones((3, 1)), np.zeros((1, 2))).shape == (0, 4)
    assert cut_tree(np.empty((0, 4)), resolution=0.5).tolist() == [0]


def test_anchors_exist_once_per_archetype_with_ties_in_order():
    W = np.array([[1.0, 0.0], [1.0, 0.0], [0.5, 0.5], [0.0, 1.0]])
    B = sparse.csr_array(np.array([[0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0]]))
    anchors = find_anchors(W, B, 2)
    assert anchors.row.tolist() == [1, 0, 3, 2]
    assert anchors.archetype.tolist() == [0, 0, 1, 1]
    assert anchors.weight.tolist() == [1, 0, 1, 0]


def test_two_identical_spots_and_more_neighbours_wanted_than_spots():
    X = np.zeros((2, 3))
    assert nearest_communities(X, X[:1], share=1.0).sum() == 2
    assert nearest_communities(np.zeros((1, 3)), X[:1], share=0.5).sum() == 1


def test_communities(fitted):
    X, fit = fitted
    near = nearest_communities(X, fit.Z, 0.1)
    assert (near.sum(axis=0) == 21).all()
    distance = ((X - fit.Z[0]) ** 2).sum(axis=1)
    assert distance[near[:, 0]].max() <= distance[~near[:, 0]].min()
    assert disjoint(near, fit.W).sum(axis=1).max() == 1
    heavy = heavy_communities(fit.W, 0.6)
    assert fit.W[heavy].min() >= 0.6


def test_smoothing_stays_on_the_simplex_and_leaves_lonely_rows_alone(fitted):
    _, fit = fitted
    graph = sparse.diags_array([np.ones(203)], offsets=[1], shape=(204, 204)).tolil()
    graph[202, 203] = 0
    W = smooth(fit.W, graph.tocsr())
    np.testing.assert_allclose(W.sum(axis=1), 1)
    np.testing.assert_array_equal(W[203], fit.W[203])
    np.testing.assert_allclose(W[0], (fit.W[0] + fit.W[1]) / 2)
