"""Pictures and tables of factors hold what is stored."""

import matplotlib as mpl
import numpy as np
import pytest
from anndata import AnnData
from matplotlib import pyplot as plt

import unmix as um

mpl.use("Agg")


@pytest.fixture(scope="module")
def cells():
    r = np.random.default_rng(0)
    adata = AnnData(r.poisson(r.gamma(0.3, 1, (80, 3)) @ r.gamma(0.3, 9, (3, 40))).astype(np.float32))
    adata.var_names = [f"g{i}" for i in range(40)]
    um.tl.factorize(adata, 3)
    um.tl.metagenes(adata, [2, 3], n_runs=4, max_distance=2.0)
    return adata


def test_loadings_show_the_largest(cells, tmp_path):
    axes = um.pl.loadings(cells, n_top=4, save=tmp_path / "x.png")
    first = um.get.loadings(cells)["1"].sort_values(ascending=False)
    assert [t.get_text() for t in axes[0].get_yticklabels()] == list(first.index[:4])
    np.testing.assert_allclose([p.get_width() for p in axes[0].patches], first[:4])
    assert (tmp_path / "x.png").stat().st_size > 0
    plt.close("all")


def test_metagenes_are_listed_by_score(cells):
    table = um.get.loadings(cells, key="metagenes", n_top=5)
    top = cells.uns["metagenes"]["top_genes"]
    assert table[table["component"] == "2"]["gene"].tolist() == top["2"].astype(str)[:5].tolist()


def test_rank_selection_draws_the_stored_curves(cells):
    axes = um.pl.rank_selection(cells, show=False)
    assert [a.get_ylabel() for a in axes] == ["silhouette", "cophenetic", "dispersion", "error"]
    stored = cells.uns["metagenes"]["stability"]["silhouette"]
    np.testing.assert_allclose(axes[0].lines[0].get_ydata(), stored)
    plt.close("all")
    with pytest.raises(ValueError, match="no curve"):
        um.pl.rank_selection(cells, key="nmf")
    with pytest.raises(KeyError, match="keys with one"):
        um.pl.loadings(cells, key="other")


def test_consensus_is_drawn_as_stored(cells):
    side, ax = um.pl.consensus(cells, show=False)
    stored = cells.uns["metagenes"]["consensus"]
    np.testing.assert_array_equal(ax.images[0].get_array(), stored["matrix"])
    usage = cells.obsm["X_metagenes"][cells.obs_names.get_indexer(stored["names"])]
    np.testing.assert_array_equal(np.asarray(side.images[0].get_array())[:, 0], np.nan_to_num(usage).argmax(axis=1))
    plt.close("all")
    with pytest.raises(KeyError, match="not in this AnnData"):
        um.pl.consensus(cells[:5], show=False)
    twice = cells.copy()
    twice.obs_names = ["same"] * twice.n_obs
    twice.uns["metagenes"]["consensus"]["names"] = np.array(["same"] * len(stored["names"]))
    for _ in range(2):  # names that are told apart later are not those that were stored
        with pytest.raises(ValueError, match="must be unique"):
            um.pl.consensus(twice, show=False)
        twice.obs_names_make_unique()
    changed = cells.copy()
    changed.uns["metagenes"]["consensus"] = 3
    with pytest.raises(ValueError, match="must be a dict"):
        um.pl.consensus(changed, show=False)
    without = cells.copy()
    del without.obsm["X_metagenes"]
    with pytest.raises(KeyError, match="run the tool again"):
        um.pl.consensus(without, show=False)


def test_no_genes_are_no_picture(cells):
    with pytest.raises(ValueError, match="nothing to draw"):
        um.pl.loadings(cells[:, :0].copy(), show=False)
    with pytest.raises(ValueError, match="nothing to draw"):
        um.pl.top_genes(cells[:, :0].copy(), show=False)


def test_top_genes_lead_their_component(cells):
    for key in ("nmf", "metagenes"):
        (ax,) = um.pl.top_genes(cells, key=key, n_top=3, show=False)
        names = [t.get_text() for t in ax.get_yticklabels()]
        assert names == list(dict.fromkeys(um.get.loadings(cells, key=key, n_top=3)["gene"]))
        assert np.abs(np.asarray(ax.images[0].get_array())).max() == 1
        plt.close("all")
