import numpy as np
import pytest
from scipy import sparse
from scipy.optimize import nnls

from unmix.core import robust
from unmix.core.robust import beyond_counting, fit_robust, refit, specific_genes


def mixtures(seed=0, N=6, G=300, K=5, platform=0.0, background=0.0):
    rng = np.random.default_rng(seed)
    S = rng.gamma(0.5, 1.0, (G, K)) * rng.uniform(0.5, 20.0, K)
    W = rng.dirichlet(np.full(K, 0.7), N) * rng.uniform(1, 100, (N, 1))
    return W @ S.T * rng.lognormal(0, platform, G) + background, S, W


def fitted(Y, S, *prior):
    return fit_robust(sparse.csr_array(Y), S, *prior)


def shares(W):
    return W / W.sum(axis=1, keepdims=True)


def weights_of(u, m):
    """Variances and Huber's weights of a row of mean one."""
    v = np.maximum(m, robust.MIN_MEAN)
    r = np.abs(u - m) / np.sqrt(v)
    scale = 1.4826 * np.median(r[u > 0])
    return v, np.minimum(1.0, robust.HUBER * scale / np.maximum(r, 1e-300))


@pytest.mark.parametrize("background", [0.0, 30.0])
def test_the_estimating_equations_hold(background):
    Y, S, _ = mixtures(platform=0.5, background=background)
    W, level = fitted(Y, S)
    assert (W == 0).any()
    A = np.column_stack([S / S.mean(axis=0), np.ones(len(S))])
    for y, w, b in zip(Y, W, level, strict=True):
        mean = y.mean()
        x = np.append(w * S.mean(axis=0), b) / mean
        v, h = weights_of(y / mean, A @ x)
        score = A.T @ (h * (y / mean - A @ x) / v) / (A.T @ (h / v))
        assert np.abs(score[x > 0]).max() < 1e-5
        assert (score[x == 0] < 1e-5).all()


def test_another_implementation_finds_the_same():
    Y, S, _ = mixtures(1, platform=0.4)
    W, _ = fitted(Y, S)
    A = np.column_stack([S / S.mean(axis=0), np.ones(len(S))])
    for y, w in zip(Y, W, strict=True):
        u, x, h = y / y.mean(), np.full(6, 0.2), np.ones(len(S))
        for turn in range(300):
            v, believed = weights_of(u, A @ x)
            h = believed if turn else h
            root = np.sqrt(h / v)
            x = 0.5 * x + 0.5 * nnls(A * root[:, None], u * root)[0]
        np.testing.assert_allclose(w * S.mean(axis=0) / y.mean(), x[:-1], atol=1e-5)


def test_mixtures_of_the_profiles_are_met_exactly():
    Y, S, W = mixtures()
    found, level = fitted(Y, S)
    np.testing.assert_allclose(found, W, rtol=1e-9)
    np.testing.assert_allclose(level, 0, atol=1e-9)


def test_types_keep_what_a_background_would_explain_as_well():
    S = np.array([[9.0, 1.0], [1.0, 9.0], [5.0, 5.0]])  # both types together are the same in all genes
    np.testing.assert_allclose(fitted(np.array([[30.0, 30.0, 30.0]]), S)[0], [[3.0, 3.0]], rtol=1e-6)


def test_genes_that_are_wrong_do_not_matter_where_most_are_right():
    Y, S, W = mixtures()
    rng = np.random.default_rng(1)
    wrong = rng.choice(300, 60, replace=False)
    Y[:, wrong] *= rng.lognormal(0, 1.0, 60)
    np.testing.assert_allclose(shares(fitted(Y, S)[0]), shares(W), atol=1e-6)


def test_a_background_that_all_genes_share_is_found():
    Y, S, W = mixtures(background=7.0)
    found, level = fitted(Y, S)
    np.testing.assert_allclose(found, W, rtol=1e-4)
    np.testing.assert_allclose(level, 7.0, rtol=1e-4)


def test_units_order_and_other_rows_do_not_matter():
    Y, S, _ = mixtures(platform=0.5)
    rng = np.random.default_rng(2)
    genes, unit = rng.permutation(len(S)), rng.uniform(0.01, 100, S.shape[1])
    W, _ = fitted(Y, S)
    np.testing.assert_allclose(fitted(1e-7 * Y[:, genes], S[genes] * unit)[0] * unit * 1e7, W, rtol=1e-7, atol=1e-9)
    np.testing.assert_array_equal(fitted(Y[3:4], S)[0], W[3:4])


def test_a_row_of_zeros_gets_zeros_and_a_type_without_counts_nothing():
    Y, S, _ = mixtures(N=2)
    Y[0], S[:, 2] = 0.0, 0.0
    W, level = fitted(Y, S)
    assert not W[0].any()
    assert level[0] == 0
    assert not W[:, 2].any()
    assert np.isfinite(W).all()


def test_a_prior_holds_the_weights_as_far_as_it_is_sure():
    Y, S, _ = mixtures(platform=0.5)
    W, _ = fitted(Y, S)
    target = np.full_like(W, 2.0)
    np.testing.assert_allclose(fitted(Y, S, target, np.full_like(W, 1e12))[0], target, rtol=1e-5)
    np.testing.assert_allclose(fitted(Y, S, target, np.full_like(W, 1e-12))[0], W, rtol=1e-5, atol=1e-6)


def test_specific_genes_do_not_depend_on_the_unit_of_a_column():
    _, S, _ = mixtures(G=2000)
    S[:50], S[50] = 3.0 * S.mean(axis=0), 0.0
    chosen = specific_genes(S)
    assert len(chosen) == 500
    assert chosen.min() > 50  # genes in which types do not differ
    np.testing.assert_array_equal(specific_genes(S * [1.0, 10.0, 0.1, 3.0, 7.0]), chosen)


def test_counts_in_any_unit_that_vary_as_counts_keep_their_fit():
    rng = np.random.default_rng(0)
    mean = rng.gamma(2.0, 20.0, (5, 400))
    counts = rng.poisson(mean).astype(float)
    dispersion = ((counts - mean) ** 2 / mean).mean(axis=1)
    counts[:, 0] = 1.0
    for unit in (1.0, 0.37, 1e6):
        assert not beyond_counting(sparse.csr_array(unit * counts), unit * dispersion).any()
        assert beyond_counting(sparse.csr_array(unit * counts), unit * 10 * dispersion).all()
    assert beyond_counting(sparse.csr_array(mean), dispersion).all()
    counts[:, 150:] = 0.0
    assert not beyond_counting(sparse.csr_array(counts), 100 * dispersion).any()


def test_rows_without_a_robust_answer_keep_their_weights():
    Y, S, W = mixtures()
    Y[1, :40] = 0.0
    found, _, again = refit(sparse.csr_array(Y), S, 2 * W, np.full(6, 1e9), np.arange(40))
    np.testing.assert_array_equal(again, [True, False, True, True, True, True])
    np.testing.assert_array_equal(found[1], 2 * W[1])
    none = refit(sparse.csr_array(Y), S, W, np.full(6, 1e9), np.arange(0))
    np.testing.assert_array_equal(none[0], W)
