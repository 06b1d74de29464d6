"""The Bayes factor of zero inflation: against sums over the raw counts, and what it finds in planted data."""

import numpy as np
import pytest
from scipy import special, stats

from unmix.core.inflation import (
    _FROM,
    BINS,
    EVIDENCE,
    REFERENCE,
    WIDTH,
    Table,
    _expect,
    dispersion_prior,
    empty_table,
    tabulate,
    zero_inflation,
)


def planted(n, means, theta, dropout, seed=0):
    rng = np.random.default_rng(seed)
    mu = np.exp(rng.normal(0, 0.5, (n, 1))) * means
    x = rng.poisson(rng.gamma(theta, mu / theta)) * (rng.random(mu.shape) >= dropout)
    return np.log(mu), x.astype(float)


def table_of(log_mean, x, centre, parts=1):
    table = empty_table(x.shape[1])
    for rows in np.array_split(np.arange(len(x)), parts):
        part = x[rows]
        indptr, (_, genes) = np.r_[0, np.cumsum((part > 0).sum(1))], part.nonzero()
        tabulate(log_mean[rows], centre, indptr, genes, part[part > 0], table)
    return table


def log_bayes_factor(log_mean, x, prior):
    """Sum likelihood times prior of every count over a fine grid of scale, dispersion and dropout."""
    logits, t, scale = np.linspace(-9, 5, 60), np.linspace(-4, 5, 70), np.linspace(-1.8, 1.8, 120)
    theta = np.exp(t)[:, None, None]
    mu = np.exp(log_mean + scale[:, None])
    log_p = stats.nbinom.logpmf(x, theta, theta / (theta + mu))  # dispersions, scales, cells
    log_prior = stats.norm.logpdf(t, prior[0], prior[1] ** 0.5)[:, None]
    zero, positive, odds = log_p[:, :, x == 0], log_p[:, :, x > 0].sum(2), np.exp(logits)
    pi, n = odds / (1 + odds), (x > 0).sum()
    with_dropout = [
        np.log(p + (1 - p) * np.exp(zero)).sum(2) + positive + n * np.log1p(-p) + np.log(p * (1 - p)) + log_prior for p in pi
    ]  # fmt: skip
    step = np.log(logits[1] - logits[0])
    return special.logsumexp(with_dropout) + step - special.logsumexp(log_p.sum(2) + log_prior)


@pytest.mark.parametrize(("mean", "dropout"), [(2.0, 0.4), (2.0, 0.0), (0.2, 0.0), (0.2, 0.5)])
def test_agrees_with_sums_over_the_counts_themselves(mean, dropout):
    log_mean, x = planted(300, np.array([mean]), 1.5, dropout)
    centre, prior = np.log(np.exp(log_mean).mean(0)), (0.7, 0.5)
    found = zero_inflation(table_of(log_mean, x, centre), centre, prior)
    assert found.score[0] + np.log(EVIDENCE) == pytest.approx(log_bayes_factor(log_mean[:, 0], x[:, 0], prior), abs=0.5)
    if dropout and mean > 1:
        assert found.dropout[0] == pytest.approx(dropout, abs=0.1)


def test_the_spread_of_dispersions_is_found_though_half_of_the_genes_drop_out():
    rng = np.random.default_rng(4)
    theta, inflated = rng.lognormal(0.7, 0.5, 400), rng.random(400) < 0.5
    log_mean, x = planted(2000, rng.lognormal(-1, 1, 400), theta, np.where(inflated, 0.5, 0.0))
    centre = np.log(np.exp(log_mean).mean(0))
    offsets = (np.arange(BINS) - BINS // 2 + 0.5) * WIDTH + centre[:, None]
    mean, variance = dispersion_prior(table_of(log_mean, x, centre), offsets)
    assert mean == pytest.approx(0.7, abs=0.2)
    assert variance == pytest.approx(0.25, abs=0.12)
    assert dispersion_prior(Table(np.zeros((0, BINS, 3)), np.zeros((0, len(_FROM)))), offsets[:0]) == (0.0, 1.0)


def test_tables_of_parts_add_up():
    log_mean, x = planted(300, np.array([0.2, 5.0, 400.0]), 2.0, 0.1)
    centre = log_mean.mean(0)
    whole, parts = table_of(log_mean, x, centre), table_of(log_mean, x, centre, parts=7)
    np.testing.assert_array_equal(whole.cells, parts.cells)
    np.testing.assert_allclose(whole.above, parts.above)
    np.testing.assert_array_equal(whole.cells[:, :, :2].sum((1, 2)), 300)
    np.testing.assert_allclose(whole.above.sum(1), x.sum(0))


def test_half_of_the_genes_are_told_from_the_others():
    rng = np.random.default_rng(1)
    inflated = rng.random(300) < 0.5
    log_mean, x = planted(3000, rng.lognormal(0, 1, 300), rng.lognormal(0.7, 0.5, 300), np.where(inflated, 0.3, 0.0))
    centre = np.log(np.exp(log_mean).mean(0))
    found = zero_inflation(table_of(log_mean, x, centre), centre)
    rank = stats.rankdata(found.score)
    n1, n0 = inflated.sum(), (~inflated).sum()
    assert (rank[inflated].sum() - n1 * (n1 + 1) / 2) / n1 / n0 > 0.95
    assert np.mean(found.score[~inflated] > 0) < 0.01
    expressed = inflated & (x.mean(0) > 1)
    assert np.median(abs(found.dropout[expressed] - 0.3)) < 0.05


def test_power_is_how_often_dropout_is_found_and_shrinks_with_the_mean():
    rng = np.random.default_rng(3)
    means, theta = rng.lognormal(-1, 1.3, 400), rng.lognormal(0.7, 0.6, 400)
    for n, dropout in ((1000, 0.3), (4000, 0.3), (4000, 0.0)):
        log_mean, x = planted(n, means, theta, dropout, seed=5)
        centre = np.log(np.exp(log_mean).mean(0))
        found = zero_inflation(table_of(log_mean, x, centre), centre)
        called, rare, able = found.score > 0, found.power < 0.1, found.power > 0.95
        assert min(rare.sum(), able.sum()) > 40
        if dropout:
            middle = (found.power > 0.2) & (found.power < 0.8)
            assert called[rare].mean() < 0.1
            assert called[middle].mean() == pytest.approx(found.power[middle].mean(), abs=0.2)
            assert called[able].mean() > 0.9
        else:
            assert called[able].mean() < 0.02
        assert stats.spearmanr(found.power, x.mean(0))[0] > 0.7


def test_expected_counts_are_those_of_the_distribution():
    mean, theta, cells, above = 4.0, 1.5, np.zeros(3), np.zeros(len(_FROM))
    _expect(mean, theta, 10.0, _FROM, cells, above)
    law, kept = stats.nbinom(theta, theta / (theta + mean)), 10 * (1 - REFERENCE)
    np.testing.assert_allclose(cells, [10 - kept * law.sf(0), kept * law.sf(0), kept * mean])
    np.testing.assert_allclose(above[:32], kept * law.sf(np.arange(32)), rtol=1e-8)
    np.testing.assert_allclose(above.sum(), kept * mean, rtol=1e-8)


def test_power_survives_means_beyond_every_count_and_dispersions_at_the_bounds():
    log_mean = np.full((500, 3), np.log([1e5, 2.0, 2.0]))
    rng = np.random.default_rng(0)
    x = np.c_[rng.poisson(1e5, 500), rng.poisson(2.0, 500), rng.poisson(rng.gamma(1e-3, 2e3, 500))].astype(float)
    found = zero_inflation(table_of(log_mean, x, log_mean[0]), log_mean[0])
    assert np.all((found.power >= 0) & (found.power <= 1))
    assert found.power[0] > 0.99
    assert found.power[1] > found.power[2]


def test_genes_without_counts_are_nan_and_all_counts_above_zero_are_not_inflated():
    log_mean, x = np.zeros((50, 2)), np.zeros((50, 2))
    x[:, 1] = 7
    found = zero_inflation(table_of(log_mean, x, np.zeros(2)), np.zeros(2))
    assert np.isnan(found.score[0])
    assert found.score[1] < 0
    assert found.dropout[1] < 0.03
    assert isinstance(table_of(log_mean, x, np.zeros(2)), Table)
