"""Signatures: moments against numpy, tests against scipy, shrinkage and variances by simulation, the choice of markers."""

import numpy as np
import pytest
from scipy import sparse, stats

from unmix.core.cell_moments import SCALE, moments
from unmix.core.signatures import (
    choose_markers,
    collinear_types,
    signatures_from_moments,
    with_wilcoxon,
)


@pytest.fixture(scope="module")
def cells():
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2], [60, 40, 30])
    rate = rng.gamma(0.5, 2.0, (3, 50))
    return rng.poisson(rate[labels] * rng.gamma(5, 0.3, (130, 1))), labels


def test_moments_equal_numpy_and_leave_out_unlabelled_and_empty_cells(cells):
    X, labels = cells[0].copy(), cells[1].copy()
    labels[5], X[70] = -1, 0
    m = moments(sparse.csr_matrix(X), labels, 3)
    share = X / np.maximum(X.sum(axis=1, keepdims=True), 1)
    for k in range(3):
        of_k = (labels == k) & (X.sum(axis=1) > 0)
        assert m.n_cells[k] == of_k.sum()
        np.testing.assert_allclose(m.share[k], share[of_k].sum(axis=0), rtol=1e-12)
        np.testing.assert_allclose(m.count_share[k], (X * share)[of_k].sum(axis=0), rtol=1e-12)
        np.testing.assert_allclose(m.count_depth[k], (X * X.sum(axis=1, keepdims=True))[of_k].sum(axis=0), rtol=1e-12)
        np.testing.assert_allclose(m.inverse_depth[k], (1 / X.sum(axis=1)[of_k]).sum(), rtol=1e-12)
        np.testing.assert_allclose(m.log_squared[k], (np.log1p(SCALE * share[of_k]) ** 2).sum(axis=0), rtol=1e-12)


def test_profiles_and_tests_equal_scipy(cells):
    X, labels = cells
    found = signatures_from_moments(moments(X, labels, 3))
    share = SCALE * X / X.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(found.profiles[:, 1], share[labels == 1].mean(axis=0), rtol=1e-10)
    logged = np.log1p(share)
    p = stats.ttest_ind(logged[labels == 1], logged[labels != 1], equal_var=False).pvalue
    np.testing.assert_allclose(found.p_values[:, 1], p, rtol=1e-6)
    np.testing.assert_allclose(found.q_values[:, 1], stats.false_discovery_control(p), rtol=1e-6)
    np.testing.assert_allclose(found.sizes[2], X[labels == 2].sum(axis=1).mean())


def test_variances_are_those_of_repeated_sampling():
    rng = np.random.default_rng(1)
    rate = rng.gamma(0.7, 3.0, (2, 40)) + 0.2
    labels = np.repeat([0, 1], [25, 200])
    fits = [signatures_from_moments(moments(rng.poisson(rate[labels]), labels, 2)) for _ in range(300)]
    seen = np.var([f.profiles for f in fits], axis=0)
    told = np.mean([f.variances for f in fits], axis=0)
    ratio = told / seen
    assert np.all(np.abs(np.median(ratio, axis=0) - 1) < 0.15)


def test_small_types_are_drawn_to_the_pooled_mean_and_come_closer_to_the_truth():
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2], [60, 40, 2])
    errors = []
    for _ in range(40):
        rate = rng.gamma(2.0, 0.5, (1, 50)) * rng.lognormal(0, 0.5, (3, 50))
        X = rng.poisson(rate[labels])
        found = signatures_from_moments(moments(X, labels, 3))
        np.testing.assert_array_equal(found.shrinkage[:2], 0)
        assert 0 < found.shrinkage[2] <= 1
        truth = SCALE * rate[2] / rate[2].sum()
        raw = (SCALE * X / X.sum(axis=1, keepdims=True))[labels == 2].mean(axis=0)
        errors.append((((found.profiles[:, 2] - truth) ** 2).sum(), ((raw - truth) ** 2).sum()))
    shrunk, plain = np.mean(errors, axis=0)
    assert shrunk < 0.9 * plain


def test_a_type_of_one_cell_gives_finite_numbers(cells):
    X, labels = cells
    one = np.where((labels == 2) & (np.cumsum(labels == 2) > 1), -1, labels)
    found = signatures_from_moments(moments(X, one, 3))
    for values in (found.profiles, found.variances, found.log_fold_change, found.p_values):
        assert np.isfinite(values).all()
    np.testing.assert_array_equal(found.p_values[:, 2], 1)


def test_where_no_type_has_two_cells_variances_are_those_of_counting():
    rng = np.random.default_rng(0)
    p = rng.dirichlet(np.full(50, 0.5), 3)
    draws = [rng.multinomial(20_000, row, 400) for row in p]
    spread = np.stack([np.var(1e4 * x / 20_000, axis=0) for x in draws])
    one = signatures_from_moments(moments(np.stack([x[0] for x in draws]).astype(float), np.arange(3), 3), min_cells=0)
    seen = p > 0.01
    np.testing.assert_allclose((one.variances.T[seen] / spread[seen]).mean(), 1, atol=0.15)


def test_the_number_of_markers_has_the_smallest_condition_number(cells):
    found = signatures_from_moments(moments(*cells, 3))
    choice = choose_markers(found.profiles, found.log_fold_change, found.q_values, bounds=(2, 15))
    sizes, numbers = choice.curve.T
    assert choice.n_markers == sizes[np.argmin(numbers)]
    genes = np.unique(np.concatenate(choice.markers))
    np.testing.assert_allclose(numbers.min(), np.linalg.cond(found.profiles[genes]), rtol=1e-8)
    for k, markers in enumerate(choice.markers):
        assert (np.diff(found.log_fold_change[markers, k]) <= 1e-12).all() or len(markers) < 3
        assert (found.log_fold_change[markers, k] > 0).all()


def test_types_without_significant_genes_still_get_markers():
    profiles = np.random.default_rng(0).gamma(1, 1, (20, 3))
    log_fold_change = profiles - profiles.mean(axis=1, keepdims=True)
    choice = choose_markers(profiles, log_fold_change, np.ones((20, 3)), bounds=(3, 10))
    assert [len(m) for m in choice.markers] == [3, 3, 3]


def test_genes_that_do_not_pass_fill_up_to_the_smallest_number_only():
    rng = np.random.default_rng(0)
    profiles = rng.gamma(1, 1, (90, 3))
    log_fold_change = profiles - profiles.mean(axis=1, keepdims=True)
    q_values = np.ones((90, 3))
    for k, passing in enumerate((0, 4, 20)):
        q_values[rng.choice(np.flatnonzero(log_fold_change[:, k] > 0), passing, replace=False), k] = 0.001
    for smallest in (2, 6, 12):
        choice = choose_markers(profiles, log_fold_change, q_values, bounds=(smallest, 30))
        for k, genes in enumerate(choice.markers):
            passes = q_values[genes, k] <= 0.01
            assert passes.sum() == min((q_values[:, k] <= 0.01).sum(), choice.n_markers)
            assert (~passes).sum() == max(smallest - passes.sum(), 0)
            assert (np.diff(passes.astype(int)) <= 0).all()


def test_collinear_types_are_found():
    profiles = np.random.default_rng(0).gamma(1, 1, (20, 3))
    profiles[:, 2] = 5 * profiles[:, 0]
    assert [(i, j) for i, j, _ in collinear_types(profiles)] == [(0, 2)]


def test_wilcoxon_equals_scipy_and_leaves_out_unlabelled_cells(cells):
    X, labels = cells[0], cells[1].copy()
    labels[:7] = -1
    found = with_wilcoxon(signatures_from_moments(moments(X, labels, 3)), sparse.csr_matrix(X), labels)
    logged = np.log1p((SCALE / X.sum(axis=1, keepdims=True)) * X)
    a, b = logged[labels == 2], logged[(labels >= 0) & (labels != 2)]
    p = stats.mannwhitneyu(a, b, method="asymptotic", use_continuity=False).pvalue
    np.testing.assert_allclose(found.p_values[:, 2], p, rtol=1e-9)
