"""Pictures of proportions hold the stored numbers, titles and units."""

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib import pyplot as plt

import unmix as um

mpl.use("Agg")
pytestmark = pytest.mark.filterwarnings("ignore::unmix._adata.signatures.SignatureWarning")


@pytest.fixture(scope="module")
def spots():
    spots, reference = um.datasets.pbmc_spots(shape=(4, 5))
    um.tl.deconvolve(spots, reference, groupby="cell_type", method="nnls")
    return spots


@pytest.fixture(autouse=True)
def close():
    yield
    plt.close("all")


def test_maps_show_every_type(spots):
    table = um.get.proportions(spots)
    axes = um.pl.proportions(spots, show=False)
    assert [ax.get_title() for ax in axes] == list(table.columns)
    for ax in axes:
        np.testing.assert_allclose(ax.collections[0].get_array(), table[ax.get_title()])
    labels = {ax.get_ylabel() for ax in axes[0].get_figure().axes} - {""}
    assert labels == {"share of cells", "spatial 2"}


def test_one_map_in_axes_of_the_caller_and_a_shared_scale(spots):
    _, ax = plt.subplots()
    assert um.pl.proportions(spots, types=["CD19+ B"], ax=ax, show=False) == [ax]
    with pytest.raises(ValueError, match="one Axes per panel"):
        um.pl.proportions(spots, ax=ax, show=False)
    axes = um.pl.proportions(spots, vmax="shared", show=False)
    assert len({a.collections[0].get_clim() for a in axes}) == 1


def test_the_tissue_image_lies_under_the_spots(spots):
    with_image = spots.copy()
    image = np.zeros((40, 60, 3))
    with_image.uns["spatial"] = {"lib": {"images": {"hires": image}, "scalefactors": {"tissue_hires_scalef": 10.0}}}
    ax = um.pl.proportions(with_image, types=["CD19+ B"], show=False)[0]
    assert ax.images[0].get_extent() == [0, 6.0, 4.0, 0]


def test_leading_types_and_bars(spots, tmp_path):
    table = um.get.proportions(spots)
    ax = um.pl.proportions(spots, kind="top", show=False)[0]
    shown = {t.get_text() for t in ax.get_legend().get_texts()}
    assert shown == set(table.idxmax(axis=1))
    ax = um.pl.proportions(spots, kind="bars", save=tmp_path / "bars.png")[0]
    heights = np.array([patch.get_height() for patch in ax.patches]).reshape(table.shape[1], len(table))
    np.testing.assert_allclose(heights.sum(axis=0), 1)
    assert (tmp_path / "bars.png").stat().st_size > 0


@pytest.mark.parametrize(
    "given",
    [
        lambda grey: (grey * 65535).astype(np.uint16),
        lambda grey: grey[:, :, None] * 255.0,
        lambda grey: np.stack([(grey * 255).astype(np.uint8)] * 3),
        lambda grey: np.stack([(grey * 65535).astype(np.uint16)] * 3, axis=2),
        lambda grey: np.stack([grey] * 3, axis=2),
    ],
)
def test_images_of_any_kind_are_drawn_as_they_are(spots, given, tmp_path):
    from unmix._report.place import _bytes
    from unmix._report.tissue import find_place

    grey = np.linspace(0, 1, 24).reshape(4, 6)
    with_image = spots.copy()
    factors = {"tissue_hires_scalef": 1.0, "spot_diameter_fullres": 1.0}
    with_image.uns["spatial"] = {"lib": {"images": {"hires": given(grey)}, "scalefactors": factors}}
    ax = um.pl.proportions(with_image, types=["CD19+ B"], show=False)[0]
    drawn = np.asarray(ax.images[0].get_array(), dtype=float)
    drawn = drawn / 255 if drawn.max() > 1 else drawn
    np.testing.assert_allclose(drawn, np.stack([grey] * 3, axis=2), atol=0.01)
    assert len(find_place(with_image, None).images) == 1
    assert np.abs(_bytes(drawn)[:, :, 0] / 255 - grey).max() < 0.01


def test_what_is_no_image_is_left_out(spots):
    for image in ("tissue.png", np.zeros((0, 3)), np.zeros(5)):
        other = spots.copy()
        other.uns["spatial"] = {"lib": {"images": {"hires": image}, "scalefactors": {"tissue_hires_scalef": 1.0}}}
        assert not um.pl.proportions(other, types=["CD19+ B"], show=False)[0].images


def test_scores_are_called_scores(spots):
    scored = spots.copy()
    _, reference = um.datasets.pbmc_spots()
    with pytest.warns(um._adata.signatures.SignatureWarning):
        um.tl.deconvolve(scored, reference, groupby="cell_type", method="nusvr", absolute="no.sumto1")
    ax = um.pl.proportions(scored, kind="bars", show=False)[0]
    assert (ax.get_ylabel(), ax.get_title()) == ("score", "Cell-type scores")
    ax = um.pl.proportions(scored, kind="bars", as_rna=True, show=False)[0]
    assert ax.get_ylabel() == "share of RNA"


def test_what_is_not_there_is_named(spots):
    with pytest.raises(KeyError, match="deconvolve"):
        um.pl.proportions(spots, key="nothing")
    with pytest.raises(ValueError, match="nobody"):
        um.pl.proportions(spots, types=["nobody"])
    with pytest.raises(KeyError, match="umap"):
        um.pl.proportions(spots, kind="maps", basis="umap")
    far = spots.copy()
    far.obsm["spatial"] = np.full((far.n_obs, 2), 1e308)
    with pytest.raises(ValueError, match="finite and below"):
        um.pl.proportions(far, kind="maps")
