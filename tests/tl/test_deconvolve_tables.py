"""`tl.deconvolve` by a table: what must not change, or must change with it, where the same data are given in another way."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import unmix as um

GENES, TYPES = [f"g{i}" for i in range(600)], list("abcd")


def bulk(seed=0, n=8, platform=0.4):
    rng = np.random.default_rng(seed)
    table = pd.DataFrame(rng.lognormal(0, 1, (600, 1)) * rng.lognormal(0, 1, (600, 4)), index=GENES, columns=TYPES)
    table *= 1e6 / table.sum()
    truth = rng.dirichlet(np.ones(4), n)
    Y = truth @ table.to_numpy().T * rng.lognormal(0, platform, 600) * rng.lognormal(0, 0.1, (n, 600))
    return ad.AnnData(Y, var=pd.DataFrame(index=GENES)), table, truth


def shares(samples, table, **options):
    out = um.tl.deconvolve(samples, table, copy=True, **options)
    return out.obsm["deconvolve"], out.uns["deconvolve"]["chosen"]


def changed(samples, X):
    return ad.AnnData(X, obs=samples.obs, var=samples.var)


def test_units_and_order_do_not_matter():
    samples, table, _ = bulk()
    one, chosen = shares(samples, table)
    assert chosen["fit"].startswith("robust on the 400 genes")
    rng = np.random.default_rng(0)
    genes, rows = rng.permutation(600), rng.permutation(8)
    for other, profiles in (
        (changed(samples, 2.0 * samples.X), table),
        (changed(samples, 1e-4 * samples.X), 1e3 * table),
        (samples[rows, genes].copy(), table),
        (samples, table.iloc[genes]),
        (samples[2:3].copy(), table),
        (ad.concat([samples, samples[:2]], index_unique="-"), table),
    ):
        two = shares(other, profiles)[0].to_numpy()
        same = {8: one.to_numpy(), 1: one.to_numpy()[2:3], 10: np.vstack([one, one[:2]])}[len(two)]
        same = same[rows] if other.obs_names[0] == samples.obs_names[rows[0]] and len(two) == 8 else same
        np.testing.assert_allclose(two, same, atol=1e-6)


def test_a_column_in_another_unit_changes_its_amounts_alone():
    samples, table, _ = bulk()
    one, _ = shares(samples, table)
    two, _ = shares(samples, table.assign(b=10 * table["b"]))
    two = two.assign(b=10 * two["b"])
    np.testing.assert_allclose(two.div(two.sum(axis=1), axis=0), one, atol=1e-6)


def test_a_gene_of_zeros_says_nothing():
    samples, table, _ = bulk()
    more = ad.AnnData(np.column_stack([samples.X, np.zeros(8)]), var=pd.DataFrame(index=[*GENES, "none"]))
    zeros = pd.concat([table, pd.DataFrame(0.0, index=["none"], columns=TYPES)])
    np.testing.assert_allclose(shares(more, zeros)[0], shares(samples, table)[0], atol=1e-9)


@pytest.mark.filterwarnings("ignore::unmix._adata.signatures.SignatureWarning")
def test_a_column_that_is_there_twice_keeps_its_share():
    samples, table, _ = bulk()
    one, two = shares(samples, table)[0], shares(samples, table.assign(again=table["a"]))[0]
    np.testing.assert_allclose(
        two.assign(a=two["a"] + two["again"])[TYPES], one, atol=0.02
    )  # some more genes are taken


def test_mixtures_of_the_table_are_met_exactly():
    _, table, truth = bulk()
    exact = ad.AnnData(3.3 * truth @ table.to_numpy().T, var=pd.DataFrame(index=GENES))
    np.testing.assert_allclose(shares(exact, table)[0], truth, atol=1e-9)
    rng = np.random.default_rng(0)
    exact.X[:, rng.choice(600, 120, replace=False)] *= rng.lognormal(0, 1, 120)  # a fifth of the genes is wrong
    np.testing.assert_allclose(shares(exact, table)[0], truth, atol=1e-6)
    assert np.abs(shares_by(exact, table, "poisson") - truth).max() > 0.005


def shares_by(samples, table, method):
    return um.tl.deconvolve(samples, table, method=method, copy=True).obsm["deconvolve"].to_numpy()


def test_platform_background_and_a_zero_that_is_none_cost_little():
    samples, table, truth = bulk(n=30, platform=0.6)
    table = table.mask(table < 200, 0.0)
    samples.X = samples.X + 300.0

    def error(method):
        return np.sqrt(np.mean((shares_by(samples, table, method) - truth) ** 2))

    assert error("auto") < 0.8 * min(error("poisson"), error("nnls"))
    assert shares(samples, table)[1]["fit"].split("background ")[1].startswith("1")


def test_spots_are_fitted_by_the_likelihood_of_counts():
    _, table, truth = bulk()
    rates = truth @ table.to_numpy().T / 1e6
    counts = np.random.default_rng(0).poisson(500 * rates).astype(float)
    spots = ad.AnnData(counts, var=pd.DataFrame(index=GENES))
    found, chosen = shares(spots, table)
    assert chosen["fit"].startswith("by likelihood on all genes")
    np.testing.assert_allclose(found, shares_by(spots, table, "poisson"), atol=1e-3)
