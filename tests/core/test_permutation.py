import numpy as np
import pytest
from scipy import stats

from unmix.core.cibersort import cibersort
from unmix.core.permutation import null_correlations, null_mixtures, p_values, tail_p_values


def test_draws_are_without_replacement_and_uniform_over_genes():
    pool = np.arange(1.0, 21.0)
    drawn = null_mixtures(pool, 20, 3)
    np.testing.assert_array_equal(np.sort(drawn, axis=1), np.tile(pool, (3, 1)))
    means = null_mixtures(pool, 5, 20_000).mean(axis=0)
    np.testing.assert_allclose(means, pool.mean(), atol=5 * pool.std() / np.sqrt(20_000))


def test_zeros_need_not_be_in_memory():
    values = np.arange(1.0, 101.0)
    drawn = null_mixtures(values, 40, 4000, n_zeros=900)
    assert abs((drawn > 0).mean() - 0.1) < 0.005
    np.testing.assert_allclose((drawn > 0).mean(axis=0), 0.1, atol=0.025)
    rows = [row[row > 0] for row in drawn]
    assert all(len(np.unique(row)) == len(row) for row in rows)
    sample = null_mixtures(values, 40, 4000, n_zeros=9_000_000, n_values=1_000_000)
    assert abs((sample > 0).mean() - 0.1) < 0.005


def test_a_pool_smaller_than_a_mixture_is_refused():
    with pytest.raises(ValueError, match="too small"):
        null_mixtures(np.ones(3), 5, 1, n_zeros=1)


def test_p_values_count_the_observation_itself():
    null = np.array([0.1, 0.2, 0.3, np.nan])
    np.testing.assert_allclose(p_values(np.array([0.0, 0.2, 0.9]), null), [1, 0.75, 0.25])
    assert np.isnan(p_values(np.array([0.5]), np.array([np.nan]))).all()


def test_p_is_uniform_where_there_is_nothing_to_find():
    random = np.random.default_rng(0)
    S = random.gamma(0.5, 100.0, (60, 4))
    pool = random.gamma(0.5, 100.0, 3000)
    null = null_correlations(S, pool, 400, rng=1)
    observed = cibersort(S, null_mixtures(pool, 60, 300, rng=2)).correlation
    p = p_values(observed, null)
    p = p[~np.isnan(p)]
    assert len(p) > 100
    assert stats.kstest(p, "uniform").pvalue > 0.01
    assert p.min() >= 1 / 401


def test_any_fit_can_be_calibrated_and_the_seed_decides():
    S = np.random.default_rng(0).gamma(1.0, size=(30, 3))

    def first_type(signature, mixtures):
        return np.array([np.corrcoef(signature[:, 0], row)[0, 1] for row in mixtures])

    one, same, other = (null_correlations(S, S, 300, fit=first_type, rng=seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one, same)
    assert (one != other).any()
    assert abs(one.mean()) < 0.05


@pytest.mark.parametrize("scale", [0.02, 0.3])
def test_the_tail_goes_on_where_permutations_end_and_is_on_the_safe_side(scale):
    random = np.random.default_rng(0)
    null = np.tanh(random.normal(0, scale, 2000))
    far = scale * np.array([3.5, 4.0, 4.5])
    p = tail_p_values(np.tanh(far), null)
    exact = stats.norm.sf([3.5, 4.0, 4.5])
    assert (p > exact / 2).all()
    assert p[-1] < 1 / 4000
    assert (np.diff(p) < 0).all()
    near = np.tanh(scale * np.array([0.0, 1.0, 2.0]))
    np.testing.assert_array_equal(tail_p_values(near, null), p_values(near, null))


def test_tailed_p_is_uniform_under_the_null_and_never_zero():
    random = np.random.default_rng(1)
    p = np.concatenate([tail_p_values(random.normal(0, 0.1, 50), random.normal(0, 0.1, 400)) for _ in range(100)])
    for level in (0.1, 0.05):
        assert (p <= level).mean() == pytest.approx(level, rel=0.25)
    for level in (0.01, 0.002):
        assert (p <= level).mean() <= 1.5 * level
    assert stats.kstest(p, "uniform").statistic < 0.04
    assert p.min() > 0


def test_few_permutations_have_no_tail():
    null = np.random.default_rng(2).normal(0, 0.1, 50)
    assert tail_p_values(np.array([0.9]), null)[0] == pytest.approx(1 / 51)
