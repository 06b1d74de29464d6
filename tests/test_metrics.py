import numpy as np
import pandas as pd
import pytest
from scipy import stats
from scipy.spatial.distance import jensenshannon
from sklearn.metrics import average_precision_score

import unmix as um
from unmix import metrics


@pytest.fixture
def tables():
    rng = np.random.default_rng(0)
    rows, types = [f"s{i}" for i in range(40)], ["B", "Mitral/Tufted cells", "NK", "T"]
    truth = rng.dirichlet([0.3] * 4, 40)
    truth[truth < 0.1] = 0
    truth /= truth.sum(axis=1, keepdims=True)
    estimated = 0.7 * truth + 0.3 * rng.dirichlet([1.0] * 4, 40).round(2)
    return pd.DataFrame(estimated, rows, types), pd.DataFrame(truth, rows, types)


def test_summary_is_what_scipy_and_sklearn_say(tables):
    x, y = (table.to_numpy() for table in tables)
    summary = metrics.evaluate(*tables)
    assert summary["rmse"] == pytest.approx(np.linalg.norm(x - y) / np.sqrt(x.size), rel=1e-12)
    assert summary["pearson"] == pytest.approx(stats.pearsonr(x.ravel(), y.ravel()).statistic, rel=1e-12)
    assert summary["pearson_per_type"] == pytest.approx(
        np.mean([stats.pearsonr(x[:, k], y[:, k]).statistic for k in range(4)]), rel=1e-12
    )
    assert summary["jsd"] == pytest.approx(np.mean(jensenshannon(x, y, base=2, axis=1) ** 2), rel=1e-10)
    assert summary["aupr"] == pytest.approx(average_precision_score(y.ravel() > 0, x.ravel()), rel=1e-12)
    assert summary[["n_obs", "n_excluded"]].tolist() == [40, 0]


def test_each_type_is_what_scipy_and_sklearn_say(tables):
    estimated, truth = tables
    table = metrics.per_type(estimated, truth, threshold=0.2)
    assert list(table.index) == list(estimated.columns)
    for name in estimated:
        x, y = estimated[name], truth[name]
        assert table.loc[name, "rmse"] == pytest.approx(np.sqrt(((x - y) ** 2).mean()), rel=1e-12)
        assert table.loc[name, "pearson"] == pytest.approx(stats.pearsonr(x, y).statistic, rel=1e-12)
        assert table.loc[name, "aupr"] == pytest.approx(average_precision_score(y > 0.2, x), rel=1e-12)
        lin = stats.pearsonr(x, y).statistic * 2 * x.std(ddof=0) * y.std(ddof=0)
        lin /= x.var(ddof=0) + y.var(ddof=0) + (x.mean() - y.mean()) ** 2
        assert table.loc[name, "concordance"] == pytest.approx(lin, rel=1e-12)


def test_concordance_of_a_shift_and_of_a_scale():
    y = np.array([0.1, 0.2, 0.3, 0.4])[:, None]
    variance = y.var()
    shifted = metrics.per_type(y + 0.05, y).iloc[0]
    assert shifted["pearson"] == pytest.approx(1)
    assert shifted["concordance"] == pytest.approx(2 * variance / (2 * variance + 0.05**2))
    halved = metrics.per_type(y / 2 + y.mean() / 2, y).iloc[0]
    assert halved["concordance"] == pytest.approx(2 * 0.5 / (1 + 0.25))


def test_order_of_rows_and_types_does_not_matter(tables):
    estimated, truth = tables
    shuffled = truth.sample(frac=1, random_state=0).iloc[:, ::-1]
    pd.testing.assert_series_equal(
        metrics.evaluate(estimated, truth), metrics.evaluate(estimated, shuffled), rtol=1e-12
    )


def test_a_slash_matches_its_stored_spelling(tables):
    estimated, truth = tables
    stored = truth.rename(columns=lambda name: name.replace("/", "_"))
    pd.testing.assert_series_equal(metrics.evaluate(estimated, stored), metrics.evaluate(estimated, truth))
    assert "Mitral/Tufted cells" in metrics.align(estimated, stored)[1]


def test_a_type_that_one_side_lacks_counts_as_zero(tables):
    estimated, truth = tables
    left_out = metrics.evaluate(estimated.drop(columns="NK"), truth)
    assert left_out["rmse"] == pytest.approx(metrics.evaluate(estimated.assign(NK=0.0), truth)["rmse"], rel=1e-12)
    invented = metrics.per_type(estimated, truth.drop(columns="NK")).loc["NK"]
    assert invented["truth"] == 0
    assert np.isnan(invented[["pearson", "concordance", "aupr"]].to_numpy(dtype=float)).all()


def test_rows_that_were_not_fitted_are_left_out_and_counted(tables):
    estimated, truth = tables
    expected = metrics.evaluate(estimated.iloc[2:], truth.iloc[2:])
    estimated.iloc[0] = np.nan
    truth.iloc[1] = 0.0
    result = metrics.evaluate(estimated, truth)
    assert result["n_excluded"] == 2
    pd.testing.assert_series_equal(result.drop("n_excluded"), expected.drop("n_excluded"))


def test_a_constant_estimate_has_no_correlation(tables):
    _, truth = tables
    summary = metrics.evaluate(truth * 0 + truth.mean(), truth)
    assert summary["pearson_per_type"] == 0
    assert summary["concordance_per_type"] == pytest.approx(0, abs=1e-12)


def test_divergence_is_bounded_and_symmetric():
    rng = np.random.default_rng(1)
    p, q = rng.dirichlet([0.2] * 5, 50), rng.dirichlet([0.2] * 5, 50)
    np.testing.assert_allclose(metrics.jensen_shannon(p, q), metrics.jensen_shannon(q, 3 * p), atol=1e-12)
    np.testing.assert_allclose(metrics.jensen_shannon(p, q), jensenshannon(p, q, base=2, axis=1) ** 2, atol=1e-12)
    edge = metrics.jensen_shannon(np.array([[1.0, 0], [0, 0], [1, 0]]), np.array([[0.0, 1], [1, 0], [0, 0]]))
    np.testing.assert_array_equal(edge, [1, 1, np.nan])


def test_intervals_cover_as_often_as_they_say():
    rng = np.random.default_rng(2)
    truth = rng.uniform(size=(20000, 2))
    se = np.full_like(truth, 0.1) * [1, 2]
    covered = metrics.coverage(truth + rng.normal(size=truth.shape) * 0.1, se, truth, level=0.9)
    expected = [0.9, 2 * stats.norm.cdf(2 * stats.norm.ppf(0.95)) - 1]
    np.testing.assert_allclose(covered, expected, atol=4 * np.sqrt(0.09 / 20000))


def test_coverage_leaves_out_what_has_no_interval(tables):
    estimated, truth = tables
    se = (estimated * 0 + 10).drop(columns="T")
    se.iloc[:10] = np.nan
    covered = metrics.coverage(estimated, se, truth)
    assert covered.drop("T").tolist() == [1, 1, 1]
    assert np.isnan(covered["T"])


def test_errors_say_what_was_given(tables):
    estimated, truth = tables
    with pytest.raises(ValueError, match=r"\(40, 4\) and `truth` \(39, 4\)"):
        metrics.evaluate(estimated, truth.to_numpy()[1:])
    with pytest.raises(ValueError, match=r"1 rows of `estimated` are not in `truth`, e.g. \['s0'\]"):
        metrics.evaluate(estimated, truth.iloc[1:])
    with pytest.raises(ValueError, match="`truth` has rows or types of the same name"):
        metrics.evaluate(estimated, pd.concat([truth, truth]))
    with pytest.raises(ValueError, match="no type in common"):
        metrics.evaluate(estimated, truth.set_axis(range(4), axis=1))
    with pytest.raises(ValueError, match="none of the 40 rows"):
        metrics.evaluate(estimated * np.nan, truth)
    with pytest.raises(ValueError, match="`level` must be between 0 and 1"):
        metrics.coverage(estimated, truth, truth, level=90)


def test_arrays_take_the_names_of_the_other_side(tables):
    estimated, truth = tables
    assert list(um.metrics.per_type(estimated.to_numpy(), truth).index) == list(truth.columns)


def test_percentages_beside_shares_are_told_once():
    truth = np.random.default_rng(0).dirichlet(np.ones(3), 20)
    with pytest.warns(UserWarning, match="add up to 1 and those of `truth` to 100") as seen:
        um.metrics.evaluate(truth, 100 * truth)
    assert len(seen) == 1
    with pytest.warns(UserWarning, match="Give shares on both sides"):
        um.metrics.per_type(8 * truth, truth)
    um.metrics.evaluate(truth, truth[:, :3] * [1, 1, 0.5])
