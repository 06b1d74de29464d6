"""The number of archetypes: planted ones are found, agreement is a cosine that ignores order."""

import numpy as np
import pytest

from unmix.core.archetype_selection import agreement, held_out_variance, select_n_archetypes


@pytest.mark.parametrize("K", [2, 3, 5])
def test_planted_numbers_are_found(K):
    rng = np.random.default_rng(K)
    X = rng.dirichlet(np.full(K, 0.3), 600) @ (5 * np.eye(6)[:K]) + 0.1 * rng.normal(size=(600, 6))
    found = select_n_archetypes(X, range(2, 8))
    assert found.chosen == K
    assert found.stability[K - 2] > 0.95
    assert (np.diff(found.explained) > -1e-3).all()


def test_agreement_ignores_order():
    A = np.random.default_rng(0).normal(size=(4, 6))
    assert agreement(A, A[[2, 0, 3, 1]]) == pytest.approx(1)
    assert agreement(A[:1], -A[:1]) == 1


def test_held_out_variance_is_one_where_mixtures_are_exact():
    rng = np.random.default_rng(0)
    Z = rng.normal(size=(3, 5))
    assert held_out_variance(rng.dirichlet(np.ones(3), 40) @ Z, Z) == pytest.approx(1)
