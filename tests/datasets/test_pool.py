import dask.array as da
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

import unmix as um


@pytest.fixture
def cells():
    """Cells whose counts tell their type: type k has 100 (k + 1) counts, all in its own five genes."""
    rng = np.random.default_rng(0)
    labels = np.array(["a/1", "b", "c"])[np.arange(60) % 3]
    counts = np.zeros((60, 15))
    for i in range(60):
        k = i % 3
        counts[i, 5 * k : 5 * k + 5] = rng.multinomial(100 * (k + 1), np.full(5, 0.2))
    return AnnData(counts, obs=pd.DataFrame({"type": labels}, index=[f"c{i}" for i in range(60)]))


def test_truth_is_what_the_counts_say(cells):
    spots = um.datasets.pool_cells(cells, "type", rng=3)
    umi = spots.X.toarray().reshape(spots.n_obs, 3, 5).sum(axis=2)
    np.testing.assert_array_equal(umi, spots.obsm["truth_counts"] * [100, 200, 300])
    np.testing.assert_allclose(spots.obsm["truth_umi_fractions"], umi / umi.sum(axis=1, keepdims=True))
    assert list(spots.obsm["truth_counts"].columns) == ["a_1", "b", "c"]
    assert spots.uns["truth_counts"]["names"] == ["a/1", "b", "c"]


def test_number_of_cells_has_the_given_mean(cells):
    n_cells = um.datasets.pool_cells(cells, "type", shape=(50, 50), cells_per_spot=6).obs["n_cells"]
    assert n_cells.min() >= 1
    assert abs(n_cells.mean() - 6) < 4 * np.sqrt(5 / 2500)


def test_depth_is_thinned_to_the_given_mean_and_never_adds(cells):
    full = um.datasets.pool_cells(cells, "type", shape=(30, 30), rng=1)
    thin = um.datasets.pool_cells(cells, "type", shape=(30, 30), rng=1, depth=500)
    total = thin.X.sum(axis=1)
    assert abs(total.mean() - 500) < 4 * np.sqrt(500 / 900)
    assert (full.X - thin.X).data.min() >= 0
    assert (um.datasets.pool_cells(cells, "type", shape=(30, 30), rng=1, depth=1e6).X != full.X).nnz == 0


def test_platform_factor_is_the_ratio_of_gene_totals(cells):
    full = um.datasets.pool_cells(cells, "type", shape=(40, 40), rng=2)
    other = um.datasets.pool_cells(cells, "type", shape=(40, 40), rng=2, platform_sd=0.5)
    np.testing.assert_array_equal(full.obsm["truth_counts"], other.obsm["truth_counts"])
    expected = np.asarray(full.X.sum(axis=0)).ravel() * other.var["platform_factor"]
    z = (np.asarray(other.X.sum(axis=0)).ravel() - expected) / np.sqrt(expected)
    assert np.abs(z).max() < 4
    assert (full.var["platform_factor"] == 1).all()


def test_at_most_so_many_types_in_a_spot(cells):
    truth = um.datasets.pool_cells(cells, "type", types_per_spot=2, cells_per_spot=40).obsm["truth_counts"]
    assert (truth > 0).sum(axis=1).max() == 2


def test_smoothness_zero_means_independent_neighbours(cells):
    def likeness(smoothness):
        spots = um.datasets.pool_cells(cells, "type", shape=(40, 40), cells_per_spot=50, smoothness=smoothness)
        share = spots.obsm["truth_proportions"]["b"].to_numpy().reshape(40, 40)
        return np.corrcoef(share[:, 1:].ravel(), share[:, :-1].ravel())[0, 1]

    assert abs(likeness(0)) < 0.1
    assert likeness(5) > 0.8


def test_cells_without_a_label_are_left_out(cells):
    cells.obs.loc[cells.obs["type"] == "c", "type"] = np.nan
    spots = um.datasets.pool_cells(cells, "type")
    assert spots.uns["truth_counts"]["names"] == ["a/1", "b"]
    assert spots.X[:, 10:].nnz == 0
    parts = um.datasets.split_cells(cells, "type", fraction=0.25)
    assert [part.n_obs for part in parts] == [10, 30]
    assert not set(parts[0].obs_names) & set(parts[1].obs_names)


def test_counts_from_a_layer(cells):
    expected = um.datasets.pool_cells(cells, "type").X
    cells.layers["counts"] = cells.X.astype(np.uint16)
    lazy = cells.copy()
    lazy.X = da.from_array(lazy.X, chunks=(20, 15))
    assert (expected != um.datasets.pool_cells(lazy, "type").X).nnz == 0
    cells.X = np.log1p(cells.X)
    assert (expected != um.datasets.pool_cells(cells, "type", layer="counts").X).nnz == 0
    with pytest.raises(ValueError, match=r"`cells.X` must hold counts"):
        um.datasets.pool_cells(cells, "type")


@pytest.mark.parametrize(
    "option, value",
    [
        ("shape", (0, 3)),
        ("cells_per_spot", 0.5),
        ("types_per_spot", 0),
        ("smoothness", -1),
        ("platform_sd", -1),
        ("depth", 0),
    ],
)
def test_options_out_of_range_are_named(cells, option, value):
    with pytest.raises(ValueError, match=f"`{option}` must be"):
        um.datasets.pool_cells(cells, "type", **{option: value})


def test_errors_say_what_there_is(cells):
    with pytest.raises(ValueError, match="not a column of `cells.obs`; there are"):
        um.datasets.pool_cells(cells, "label")
    with pytest.raises(ValueError, match="`fraction` must be between 0 and 1"):
        um.datasets.split_cells(cells, "type", fraction=1)
    cells.obs["type"] = np.nan
    with pytest.raises(ValueError, match="no cell"):
        um.datasets.pool_cells(cells, "type")
