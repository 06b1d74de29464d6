"""What the tools write goes through scanpy, squidpy and SpatialData."""

import anndata as ad
import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt

import unmix as um

mpl.use("Agg")
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*pkg_resources.*", "ignore::FutureWarning", "ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::unmix._adata.signatures.SignatureWarning", "ignore::ImportWarning"),
    pytest.mark.filterwarnings("ignore::PendingDeprecationWarning", "ignore:No data for colormapping:UserWarning"),
]


@pytest.fixture(scope="module")
def spots():
    """Spots with proportions, one of them not fitted, and their graph of neighbours."""
    import warnings

    spots, cells = um.datasets.pbmc_spots(shape=(8, 10))
    spots.X = spots.X.multiply((np.arange(80) != 3)[:, None]).tocsr()
    um.tl.deconvolve(spots, cells, groupby="cell_type", method="nnls")
    um.tl.factorize(spots, 3)
    um.tl.starfysh_archetypes(spots, 3, resolution=None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import squidpy as sq
    sq.gr.spatial_neighbors(spots, coord_type="grid", n_neighs=4)
    return spots


@pytest.fixture(autouse=True)
def close():
    yield
    plt.close("all")


def moran(x, W):
    """Moran's I with the rows of W made to sum to 1 (Moran 1950)."""
    total = W.sum(axis=1, keepdims=True)
    W = W / np.where(total > 0, total, 1)
    z = x - x.mean()
    return len(x) / W.sum() * (z @ W @ z) / (z @ z)


def test_spatial_autocorrelation_of_proportions_by_one_line(spots):
    import squidpy as sq

    shares = um.get.as_anndata(spots, dropna=True)
    found = sq.gr.spatial_autocorr(shares, mode="moran", n_perms=None, copy=True)
    assert sorted(found.index) == sorted(um.get.proportions(spots).columns)
    table = um.get.proportions(spots).dropna()
    W = spots.obsp["spatial_connectivities"][spots.obs_names.get_indexer(table.index)].toarray()
    W = W[:, spots.obs_names.get_indexer(table.index)]
    for name in table:
        assert found.loc[name, "I"] == pytest.approx(moran(table[name].to_numpy(), W), abs=1e-5)


@pytest.mark.filterwarnings("ignore:invalid value encountered in divide:RuntimeWarning")
def test_neighbourhoods_and_co_occurrence_of_dominant_types(spots):
    import squidpy as sq

    shares = um.get.as_anndata(spots, dropna=True)
    largest = um.get.proportions(spots).dropna().idxmax(axis=1)
    assert (shares.obs["deconvolve_dominant"].astype(str) == largest).all()
    k = shares.obs["deconvolve_dominant"].nunique()
    sq.gr.nhood_enrichment(shares, "deconvolve_dominant", n_perms=20, show_progress_bar=False, seed=0)
    assert shares.uns["deconvolve_dominant_nhood_enrichment"]["zscore"].shape == (k, k)
    sq.gr.co_occurrence(shares, "deconvolve_dominant")
    assert shares.uns["deconvolve_dominant_co_occurrence"]["occ"].shape[:2] == (k, k)


def test_scanpy_reads_columns(spots):
    import scanpy as sc

    table = um.get.proportions(spots)
    column = sc.get.obs_df(spots, obsm_keys=[("deconvolve", "CD19+ B")])["deconvolve-CD19+ B"]
    np.testing.assert_array_equal(column, table["CD19+ B"])
    shares = um.get.as_anndata(spots)
    pd.testing.assert_frame_equal(sc.get.obs_df(shares, list(table)), table, check_names=False)
    assert np.isnan(shares.X[3]).all()
    assert shares.obs["deconvolve_dominant"].isna().tolist() == [i == 3 for i in range(80)]


def test_pictures_of_scanpy_and_squidpy_take_our_colours(spots):
    import scanpy as sc
    import squidpy as sq

    marked = spots.copy()
    names = list(um.get.proportions(spots).columns)
    marked.uns["deconvolve_colors"] = [mpl.colors.to_hex((k / 20, 0.2, 0.4)) for k in range(10)]
    shares = um.get.as_anndata(marked)
    dominant = shares.obs["deconvolve_dominant"].cat.categories
    expected = [marked.uns["deconvolve_colors"][names.index(name)] for name in dominant]
    assert list(shares.uns["deconvolve_dominant_colors"]) == expected
    ax = sc.pl.embedding(shares, "spatial", color="deconvolve_dominant", show=False)
    drawn = {mpl.colors.to_hex(c) for c in ax.collections[-1].get_facecolors()} | {
        mpl.colors.to_hex(c) for collection in ax.collections for c in collection.get_facecolors()
    }
    assert set(expected) <= drawn
    sc.pl.embedding(shares, "spatial", color=names[:2], show=False)
    sq.pl.spatial_scatter(shares, color=[names[0], "deconvolve_dominant"], shape=None)


def test_sections_lie_where_squidpy_puts_them(sections):
    """Places, values and sizes of spots over every section's image; squidpy draws in the pixels of the image."""
    import squidpy as sq

    names, kind = list(sections.obs["section"].cat.categories), "CD19+ B"
    coloured = sections.copy()
    coloured.obs["share"] = um.get.proportions(sections)[kind].to_numpy()
    theirs = sq.pl.spatial_scatter(
        coloured, library_key="section", library_id=names, color="share", img=True, return_ax=True
    )
    ours = um.pl.proportions(sections, types=[kind], library_key="section", show=False)
    for name, other, ax in zip(names, theirs, ours, strict=True):
        pixels = sections.uns["spatial"][name]["scalefactors"]["tissue_hires_scalef"]
        discs, spots = other.collections[0], ax.collections[0]
        boxes = [path.get_extents() for path in discs.get_paths()]
        middles = np.array([(box.min + box.max) / 2 for box in boxes]) / pixels
        np.testing.assert_allclose(middles, spots.get_offsets())
        np.testing.assert_allclose([box.width / pixels for box in boxes], spots.get_widths())
        np.testing.assert_array_equal(discs.get_array(), spots.get_array())
        np.testing.assert_array_equal(other.images[0].get_array(), ax.images[0].get_array())


def test_every_kind_of_result(spots):
    usages = um.get.as_anndata(spots, key="nmf")
    assert list(usages.var_names) == ["nmf_1", "nmf_2", "nmf_3"]
    np.testing.assert_allclose(usages.X, spots.obsm["X_nmf"], equal_nan=True)
    weights = um.get.as_anndata(spots, key="archetypes")
    pd.testing.assert_frame_equal(weights.to_df(), um.get.archetypes(spots), check_names=False, check_column_type=False)
    signed = spots[spots.obs["deconvolve_status"] == "ok"].copy()
    um.tl.factorize(signed, 2, method="svd")
    assert "svd_dominant" not in um.get.as_anndata(signed, key="svd").obs
    mapped = signed[:5].copy()
    um.tl.transform(mapped, signed, key="svd", key_added="mapped")
    assert um.get.as_anndata(mapped, key="mapped").shape == (5, 2)
    with pytest.raises(KeyError, match="no result of"):
        um.get.as_anndata(spots, key="nothing")


def test_it_can_be_saved(spots, tmp_path):
    cells = um.datasets.pbmc_spots(shape=(8, 10))[1]
    cells.obs["cell_type"] = cells.obs["cell_type"].astype(str)
    shares = um.get.as_anndata(spots)
    shares.write_h5ad(tmp_path / "x.h5ad")
    back = ad.read_h5ad(tmp_path / "x.h5ad")
    np.testing.assert_array_equal(back.X, shares.X)
    assert list(back.var_names) == list(shares.var_names)
    assert any("/" in name for name in back.var_names)


@pytest.mark.filterwarnings("ignore")
def test_tables_of_spatialdata(spots, tmp_path):
    spatialdata = pytest.importorskip("spatialdata")
    from spatialdata.models import ShapesModel, TableModel

    raw, cells = um.datasets.pbmc_spots(shape=(4, 5))
    raw.obs["region"] = pd.Categorical(["spots"] * raw.n_obs)
    raw.obs["spot"] = np.arange(raw.n_obs)
    table = TableModel.parse(raw, region="spots", region_key="region", instance_key="spot")
    shapes = ShapesModel.parse(raw.obsm["spatial"].astype(float), geometry=0, radius=0.4, index=raw.obs["spot"])
    sdata = spatialdata.SpatialData(shapes={"spots": shapes}, tables={"table": table})
    um.tl.deconvolve(sdata.tables["table"], cells, groupby="cell_type", method="nnls")
    sdata.tables["shares"] = um.get.as_anndata(sdata.tables["table"])
    sdata.write(tmp_path / "x.zarr")
    back = spatialdata.read_zarr(tmp_path / "x.zarr")
    expected = um.get.proportions(sdata.tables["table"])
    np.testing.assert_allclose(um.get.proportions(back.tables["table"]), expected)
    np.testing.assert_allclose(back.tables["shares"].X, expected)
    assert len(um.pl.proportions(back.tables["table"], show=False)) == expected.shape[1]
