import numpy as np
import pandas as pd
import pytest

from unmix.core.cibersort import cibersort, cibersort_simplex, quantile_normalize, zscore
from unmix.core.permutation import null_correlations, p_values


def spots(G=120, K=5, N=30, seed=0):
    random = np.random.default_rng(seed)
    S = random.lognormal(0, 1, (G, K))
    for j in range(K):
        S[j * (G // K) : (j + 1) * (G // K), j] *= 10
    p = random.dirichlet(np.ones(K), N)
    return S, p, random.poisson(p @ S.T * 20).astype(float)


@pytest.fixture
def tables(shared_reference):
    """Signature, mixtures and their order of genes, of the problem that the original script was run on."""
    folder = shared_reference / "cibersort_r"
    return folder, *(pd.read_csv(folder / f"{name}.tsv", sep="\t", index_col=0) for name in ("signature", "mixtures"))


@pytest.mark.parametrize(
    "answer, absolute, quantiles",
    [
        ("r_relative_tight", False, False),
        ("r_relative_qn_tight", False, True),
        ("r_absolute_sigscore_tight", "sig.score", False),
        ("r_absolute_nosumto1_tight", "no.sumto1", False),
    ],
)
def test_agrees_with_the_original_at_the_optimum(tables, answer, absolute, quantiles):
    folder, signature, mixtures = tables
    M = mixtures.T.to_numpy()
    M = pd.DataFrame(quantile_normalize(M) if quantiles else M, columns=mixtures.index)
    ours = cibersort(
        signature.to_numpy(), M[signature.index].to_numpy(), absolute=absolute, y_median=float(np.median(M))
    )
    theirs = pd.read_csv(folder / f"{answer}.tsv", sep="\t", index_col=0)
    np.testing.assert_allclose(ours.weights, theirs[signature.columns], atol=2e-5)
    np.testing.assert_allclose(ours.correlation, theirs["Correlation"], atol=2e-5)
    np.testing.assert_allclose(ours.rmse, theirs["RMSE"], atol=2e-5)


def test_p_values_rank_what_is_no_mixture_last(tables):
    _, signature, mixtures = tables
    M = mixtures.loc[signature.index].T.to_numpy()
    S = signature.to_numpy()
    p = p_values(cibersort(S, M).correlation, null_correlations(S, M, 100))
    assert set(np.argsort(p)[-2:]) == {22, 23}
    assert p[:22].max() < 0.02
    assert p[22:].min() > 0.05


def test_blocks_scale_and_order_of_genes():
    S, _, M = spots()
    whole = cibersort(S, M)
    parts = [cibersort(S, rows).weights for rows in np.array_split(M, 4)]
    np.testing.assert_allclose(np.concatenate(parts), whole.weights, atol=1e-10)
    order = np.random.default_rng(0).permutation(len(S))
    np.testing.assert_allclose(cibersort(S[order] * 7, M[:, order] * 3).weights, whole.weights, atol=1e-9)


def test_absolute_scores_follow_the_depth():
    S, _, M = spots(N=6)
    deep = cibersort(S, M * np.array([[1, 2, 3, 4, 5, 6]]).T, absolute="sig.score", y_median=2.0)
    flat = cibersort(S, M, absolute="sig.score", y_median=2.0)
    np.testing.assert_allclose(deep.weights, flat.weights * [[1], [2], [3], [4], [5], [6]], atol=1e-9)
    assert (cibersort(S, M, absolute="sig.score", y_median=0.1).weights >= flat.weights).all()


@pytest.mark.parametrize("fit", [cibersort, cibersort_simplex])
def test_recovers_the_proportions(fit):
    S, p, M = spots()
    result = fit(S, M)
    np.testing.assert_allclose(result.weights.sum(axis=1), 1, atol=1e-12)
    assert np.sqrt(np.mean((result.weights - p) ** 2)) < 0.03
    assert np.sqrt(np.mean((fit(S, M).weights - p.mean(axis=0)) ** 2)) > 0.1
    assert result.gap.max() <= 1e-8
    assert result.correlation.min() > 0.9


def test_simplex_is_exact_on_exact_mixtures_of_any_depth_and_size():
    S, p, _ = spots(N=8)
    S = S * np.array([1, 2, 3, 4, 5])
    M = (p @ S.T) * np.random.default_rng(0).lognormal(size=(8, 1))
    np.testing.assert_allclose(cibersort_simplex(S, M, C=1e6).weights, p, atol=1e-5)


@pytest.mark.parametrize("fit", [cibersort, cibersort_simplex])
def test_empty_spots_are_nan_and_disturb_nobody(fit):
    S, _, M = spots(N=5)
    full = fit(S, M)
    M[2] = 0
    result = fit(S, M)
    assert result.degenerate.tolist() == [False, False, True, False, False]
    assert np.isnan(result.weights[2]).all()
    assert np.isnan([result.correlation[2], result.rmse[2], result.nu[2]]).all()
    keep = ~result.degenerate
    np.testing.assert_allclose(result.weights[keep], full.weights[keep], atol=1e-10)


def test_zero_heavy_spots_say_that_nothing_is_decided():
    S, _, _ = spots()
    M = np.zeros((2, len(S)))
    M[0, 3] = M[1, [3, 50]] = 1
    result = cibersort(S, M, nus=(0.5, 0.75))
    assert result.degenerate.all()
    assert np.isnan(result.weights).all()


def test_quantile_normalized_samples_share_their_values():
    Y = np.random.default_rng(0).gamma(1.0, size=(4, 50))
    Q = quantile_normalize(Y)
    np.testing.assert_allclose(np.sort(Q, axis=1), np.tile(np.sort(Y, axis=1).mean(axis=0), (4, 1)))
    np.testing.assert_array_equal(np.argsort(Q, axis=1), np.argsort(Y, axis=1))
    np.testing.assert_allclose(quantile_normalize(Q), Q)


def test_zscore_matches_its_definition():
    y = np.random.default_rng(0).gamma(1.0, size=(3, 20))
    z = zscore(y)
    np.testing.assert_allclose([z.mean(axis=1), z.std(axis=1, ddof=1)], [np.zeros(3), np.ones(3)], atol=1e-12)


@pytest.mark.parametrize(
    "signature, mixtures, absolute, match",
    [
        (np.ones((4, 2)), np.ones((2, 4)), False, "constant"),
        (np.eye(4), np.ones((2, 3)), False, "same genes"),
        (np.eye(4), np.ones((2, 4)), "score", "sig.score"),
    ],
)
def test_errors_say_what_was_given(signature, mixtures, absolute, match):
    with pytest.raises(ValueError, match=match):
        cibersort(signature, mixtures, absolute=absolute)


def test_a_type_without_counts_is_named():
    with pytest.raises(ValueError, match=r"\[1\]"):
        cibersort_simplex(np.eye(4)[:, :2] * [1, 0], np.ones((1, 4)))


def test_signatures_without_any_difference_between_genes_are_refused():
    with pytest.raises(ValueError, match="the same over all genes"):
        cibersort_simplex([[1.0, 2.0, 3.0]], [[1.0], [2.0]])
    with pytest.raises(ValueError, match="the same over all genes"):
        cibersort_simplex([[1.0, 7.0], [1.0, 7.0], [1.0, 7.0]], [[1.0, 2.0, 3.0]])
