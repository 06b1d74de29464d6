"""Where a factorisation of modalities starts: from the cells that have all, whatever their order; drawn where there are few."""

import numpy as np
import pytest
from scipy import sparse

from unmix.core import view_starts
from unmix.core.factorization import Walk
from unmix.core.view_starts import first_factors
from unmix.core.views import _balanced, _view, joint_views

MIXES = [["frobenius"] * 2, ["kl"] * 2, ["kl", "frobenius"]]
N, K = 240, 4


@pytest.fixture(scope="module")
def matrices():
    r = np.random.default_rng(0)
    W = r.dirichlet([0.3] * K, N) * r.lognormal(0, 0.4, (N, 1))
    return [sparse.csr_array(r.poisson(W @ r.gamma(0.3, s, (K, m))).astype(float)) for m, s in ((90, 8.0), (25, 40.0))]


def seen(matrices, rows, kinds):
    views = [_view(x, found, kind == "kl", Walk()) for x, found, kind in zip(matrices, rows, kinds, strict=True)]
    for view, weight in zip(views, _balanced(views), strict=True):
        view.weight = weight
    return views


@pytest.mark.parametrize("kinds", MIXES, ids="-".join)
def test_neither_seed_nor_order_nor_unit_decide_the_fit(matrices, kinds):
    order = np.random.default_rng(1).permutation(N)
    everyone, walk = np.arange(N), Walk(tol=1e-7, max_iter=3000)
    fit = joint_views(matrices, [everyone] * 2, N, K, losses=kinds, walk=walk)
    others = [
        joint_views(matrices, [everyone] * 2, N, K, losses=kinds, walk=walk, rng=1),
        joint_views([matrices[0][order], matrices[1]], [order, everyone], N, K, losses=kinds, walk=walk),
        joint_views([matrices[0], 1000 * matrices[1]], [everyone] * 2, N, K, losses=kinds, walk=walk),
    ]
    for other in others:
        assert other.loss[-1] == pytest.approx(fit.loss[-1], rel=1e-3)
        assert np.corrcoef(other.W.ravel(), fit.W.ravel())[0, 1] > 0.999


@pytest.mark.parametrize("kinds", MIXES, ids="-".join)
def test_it_begins_far_below_what_is_drawn(matrices, kinds, monkeypatch):
    options = {"losses": kinds, "walk": Walk(max_iter=1)}
    loss = joint_views(matrices, [np.arange(N)] * 2, N, K, **options).loss[0]
    monkeypatch.setattr(view_starts, "ENOUGH", N)
    assert loss < 0.9 * joint_views(matrices, [np.arange(N)] * 2, N, K, **options).loss[0]


@pytest.mark.parametrize("kinds", MIXES, ids="-".join)
def test_a_part_of_the_cells_is_enough_and_no_variable_with_counts_begins_at_zero(matrices, kinds):
    """What is 0 stays so under multiplicative steps: neither cells nor variables that the start does not see may be."""
    x = matrices[1].toarray()
    x[: N // 2, 0] = 0  # a variable that the cells with both do not show
    x[N // 2 :, 0] += 5
    rows = [np.arange(N // 2), np.arange(N)]
    views = seen([matrices[0][: N // 2], sparse.csr_array(x)], rows, kinds)
    W, Ht = first_factors(views, N, K, np.random.default_rng(0))
    assert (W[N // 2 :, :K] == W[N // 2, :K]).all()
    for view, h in zip(views, Ht, strict=True):
        if view.poisson:
            assert (h[:, :K].min(axis=1) > 0).tolist() == (view.means > 0).tolist()
            assert W[:, :K].min() > 0


def test_few_cells_with_both_and_modalities_without_weight_begin_as_drawn(matrices):
    rows = [np.arange(10), np.arange(N)]
    views = seen([matrices[0][:10], matrices[1]], rows, MIXES[2])
    W, Ht = first_factors(views, N, K, np.random.default_rng(0))
    assert len(np.unique(W[:, 0])) == N
    views = seen(matrices, [np.arange(N)] * 2, MIXES[2])
    views[1].weight = 0.0
    drawn, alone = (
        first_factors(views, N, K, np.random.default_rng(0))[1],
        first_factors(views[:1], N, K, np.random.default_rng(0))[1],
    )
    assert drawn[1][:, :K].min(axis=1).any()
    assert np.isfinite(alone[0]).all()


def test_a_sample_stands_for_many_cells(matrices, monkeypatch):
    whole = joint_views(matrices, [np.arange(N)] * 2, N, K, walk=Walk(tol=1e-7, max_iter=3000))
    monkeypatch.setattr(view_starts, "LARGEST_SAMPLE", 80)
    part = joint_views(matrices, [np.arange(N)] * 2, N, K, walk=Walk(tol=1e-7, max_iter=3000))
    assert part.loss[-1] == pytest.approx(whole.loss[-1], rel=1e-3)
