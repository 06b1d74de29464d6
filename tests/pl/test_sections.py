"""Maps of several sections: each shows its own spots over its own image, on a scale that all sections share."""

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib import pyplot as plt

import unmix as um
from unmix.pl._sections import SectionsWarning

mpl.use("Agg")
pytestmark = pytest.mark.filterwarnings("ignore::unmix._adata.signatures.SignatureWarning")
ORDER = ["early", "middle", "late"]
TYPES = ["CD14+ Monocyte", "CD19+ B", "CD34+"]


@pytest.fixture
def spots(sections):
    return sections.copy()


@pytest.fixture(autouse=True)
def close():
    yield
    plt.close("all")


def drawn(ax):
    """What a map shows: places, values, limits of colours, view and image."""
    discs = ax.collections[0]
    image = [(im.get_extent(), np.asarray(im.get_array())) for im in ax.images]
    return discs.get_offsets(), discs.get_array(), discs.get_clim(), (ax.get_xlim(), ax.get_ylim()), image


def same(one, other):
    for a, b in zip(drawn(one)[:4], drawn(other)[:4], strict=True):
        np.testing.assert_array_equal(a, b)
    for (extent, pixels), (extent_b, pixels_b) in zip(drawn(one)[4], drawn(other)[4], strict=True):
        assert extent == extent_b
        np.testing.assert_array_equal(pixels, pixels_b)


def test_a_row_per_section_and_a_column_per_type(spots):
    table = um.get.proportions(spots)
    axes = um.pl.proportions(spots, types=TYPES, library_key="section", show=False)
    assert [ax.get_title() for ax in axes] == [f"{section}: {name}" for section in ORDER for name in TYPES]
    grid = axes[0].get_gridspec()
    assert (grid.nrows, grid.ncols) == (3, 3)
    for ax in axes:
        section, name = ax.get_title().split(": ")
        here = (spots.obs["section"] == section).to_numpy()
        places, values, limits, *_ = drawn(ax)
        np.testing.assert_array_equal(places, spots.obsm["spatial"][here])
        np.testing.assert_array_equal(values, table.loc[here, name])
        assert limits == (0, table[name].max())


def test_every_section_lies_on_its_own_image(spots):
    for ax in um.pl.proportions(spots, types=TYPES[:1], library_key="section", show=False):
        library = spots.uns["spatial"][ax.get_title().split(": ")[0]]
        height, width = library["images"]["hires"].shape[:2]
        assert ax.images[0].get_extent() == pytest.approx([0, width / 0.1, height / 0.1, 0])
        np.testing.assert_array_equal(ax.images[0].get_array(), library["images"]["hires"])
        assert ax.collections[0].get_widths() == pytest.approx(library["scalefactors"]["spot_diameter_fullres"])
    bare = spots.copy()
    del bare.uns["spatial"]["middle"]
    axes = um.pl.proportions(bare, types=TYPES[:1], library_key="section", show=False)
    assert [len(ax.images) for ax in axes] == [1, 0, 1]


def test_sections_whose_images_have_other_names_are_warned_of(spots, tmp_path):
    spots.uns["spatial"]["V1_middle"] = spots.uns["spatial"].pop("middle")
    for draw in (
        lambda: um.pl.proportions(spots, types=TYPES[:1], library_key="section", show=False),
        lambda: um.report(spots, tmp_path / "report.html", library_key="section"),
    ):
        with pytest.warns(SectionsWarning, match=r"\['middle'\] are drawn without .* only \['V1_middle'\] beside them"):
            draw()
    um.pl.proportions(spots, types=TYPES[:1], library_key="section", library_id="late", show=False)
    um.pl.proportions(spots[spots.obs["section"] == "late"], types=TYPES[:1], library_key="section", show=False)


@pytest.mark.parametrize(
    "library", [3, {}, {"images": None}, {"images": {"hires": np.ones((9, 9))}, "scalefactors": "x"}]
)
def test_a_library_that_is_none_is_no_image(spots, library):
    spots.uns["spatial"]["late"] = library
    assert [len(ax.images) for ax in um.pl.proportions(spots, types=TYPES[:1], library_key="section", show=False)] == [
        1,
        1,
        0,
    ]


@pytest.mark.parametrize("value", [None, "wide", 0, -1.0, np.nan, np.inf])
def test_scale_factors_that_are_none_are_left_out(spots, value):
    spots.uns["spatial"]["late"]["scalefactors"] = dict.fromkeys(
        ("tissue_hires_scalef", "spot_diameter_fullres"), value
    )
    axes = um.pl.proportions(spots, types=TYPES[:1], library_key="section", show=False)
    assert [len(ax.images) for ax in axes] == [1, 1, 0]
    assert axes[2].collections[0].get_widths() == pytest.approx(100.0)


def test_one_section_can_be_drawn_where_another_has_no_places(spots):
    spots.obsm["spatial"][spots.obs["section"] == "late"] = np.nan
    um.pl.proportions(spots, types=TYPES, library_key="section", library_id="early", show=False)
    with pytest.raises(ValueError, match="must be finite"):
        um.pl.proportions(spots, types=TYPES, library_key="section", show=False)


@pytest.mark.parametrize("section", ORDER)
def test_one_section_alone_is_the_picture_of_its_spots(spots, section):
    alone = um.pl.proportions(spots, types=TYPES, library_key="section", library_id=section, show=False)
    subset = spots[spots.obs["section"] == section]
    for one, other in zip(alone, um.pl.proportions(subset, types=TYPES, library_id=section, show=False), strict=True):
        same(one, other)
    assert [ax.get_title() for ax in alone] == [f"{section}: {name}" for name in TYPES]
    for one, other in zip(
        alone, um.pl.proportions(subset, types=TYPES, library_key="section", show=False), strict=True
    ):
        same(one, other)


def test_a_long_name_stands_on_lines_of_its_own(spots):
    name = "the third section of patient number 12"
    spots.obs["section"] = spots.obs["section"].cat.rename_categories({"late": name})
    spots.uns["spatial"][name] = spots.uns["spatial"].pop("late")
    titles = [ax.get_title() for ax in um.pl.proportions(spots, types=TYPES[1:2], library_key="section", show=False)]
    assert titles == ["early: CD19+ B", "middle: CD19+ B", "the third section of patient\nnumber 12:\nCD19+ B"]


def test_scales_are_shared_by_all_or_given(spots):
    table = um.get.proportions(spots)[TYPES]
    for vmax, most in (("shared", table.to_numpy().max()), (0.3, 0.3)):
        axes = um.pl.proportions(spots, types=TYPES, library_key="section", vmax=vmax, show=False)
        assert {drawn(ax)[2] for ax in axes} == {(0, most)}


def test_the_largest_type_has_one_map_per_section_and_one_legend(spots):
    axes = um.pl.proportions(spots, kind="top", library_key="section", show=False)
    assert [ax.get_title() for ax in axes] == [f"{section}: largest type" for section in ORDER]
    leading = um.get.proportions(spots).idxmax(axis=1)
    whole = [ax.get_legend() for ax in axes if ax.get_legend()]
    assert len(whole) == 1
    assert {text.get_text() for text in whole[0].get_texts()} == set(leading)
    colour = {
        t.get_text(): p.get_facecolor() for t, p in zip(whole[0].get_texts(), whole[0].get_patches(), strict=True)
    }
    for ax, section in zip(axes, ORDER, strict=True):
        expected = [colour[name] for name in leading[spots.obs["section"] == section]]
        np.testing.assert_allclose(ax.collections[0].get_facecolor(), expected)


def test_spots_that_were_not_fitted_are_counted_by_section(spots):
    holes = spots.copy()
    late = np.flatnonzero(spots.obs["section"] == "late")[:2]
    holes.obsm["deconvolve"].iloc[late] = np.nan
    axes = um.pl.proportions(holes, types=TYPES, library_key="section", show=False)
    told = [ax.get_legend() and ax.get_legend().get_texts()[0].get_text() for ax in axes]
    assert told == [None] * 6 + ["not fitted: 2", None, None]


def test_archetypes_have_sections_too(spots):
    um.tl.starfysh_archetypes(spots, 3, resolution=None)
    axes = um.pl.archetypes(spots, library_key="section", show=False)
    assert [ax.get_title() for ax in axes[::3]] == [f"{section}: archetype_1" for section in ORDER]
    weights = um.get.archetypes(spots)
    assert [drawn(ax)[2][1] for ax in axes[:3]] == list(weights.max())
    assert [drawn(ax)[2] for ax in axes[:3]] == [drawn(ax)[2] for ax in axes[6:]]


def test_axes_of_the_caller_hold_all_maps(spots):
    _, axes = plt.subplots(3, 3)
    assert um.pl.proportions(spots, types=TYPES, library_key="section", ax=axes, show=False) == list(axes.ravel())
    with pytest.raises(ValueError, match="there are 9 panels and 3 Axes"):
        um.pl.proportions(spots, types=TYPES, library_key="section", ax=axes[0], show=False)


def test_sections_need_no_image_nor_a_category(spots):
    bare = spots.copy()
    del bare.uns["spatial"]
    bare.obs["section"] = bare.obs["section"].astype(str)
    bare.obs["number"] = bare.obs["section"].map({"late": 10, "early": 2, "middle": 3})
    axes = um.pl.proportions(bare, types=TYPES[:1], library_key="section", show=False)
    assert [ax.get_title().split(": ")[0] for ax in axes] == sorted(ORDER)
    assert len(um.pl.proportions(bare, types=TYPES[:1], library_key="number", show=False)) == 3
    bare.obsm["X_umap"] = bare.obsm["spatial"]
    assert len(um.pl.proportions(bare, types=TYPES[:1], basis="X_umap", library_key="section", show=False)) == 3


def test_columns_that_name_no_sections_are_refused(spots, monkeypatch):
    draw = um.pl.proportions
    with pytest.raises(KeyError, match=r"`library_key` 'slide' is not among the columns of `obs`.*section"):
        draw(spots, library_key="slide")
    with pytest.raises(KeyError, match=r"'nowhere' is not among the sections of obs\['section'\]; there are \['early'"):
        draw(spots, library_key="section", library_id="nowhere")
    with pytest.raises(ValueError, match="is for maps"):
        draw(spots, kind="bars", library_key="section")
    holes = spots.copy()
    holes.obs.loc[holes.obs_names[:3], "section"] = np.nan
    with pytest.raises(ValueError, match=rf"must name the section of every spot; 3 of {spots.n_obs} have none"):
        draw(holes, library_key="section")
    monkeypatch.setattr("unmix.pl._sections.MOST", 50)
    holes.obs["spot"] = holes.obs_names
    with pytest.raises(ValueError, match="62 different values; a column of sections has at most"):
        draw(holes, library_key="spot")


def test_maps_that_lie_on_top_of_each_other_are_warned_of(spots):
    with pytest.warns(SectionsWarning, match=r"3 sections.*`library_key='section'`") as told:
        um.pl.proportions(spots, types=TYPES, show=False)
    assert len(told) == 1
    assert told[0].filename == __file__
    unnamed = spots.copy()
    del unnamed.obs["section"]
    with pytest.warns(SectionsWarning, match=r"`library_key=\.\.\.`"):
        um.pl.proportions(unnamed, kind="top", show=False)


def test_one_section_is_not_warned_of(spots):
    um.pl.proportions(spots[spots.obs["section"] == "late"], types=TYPES, show=False)
    um.pl.proportions(spots[spots.obs["section"] == "late"], types=TYPES, library_id="late", show=False)
    um.pl.proportions(spots, kind="bars", show=False)
    other = spots.copy()
    other.obsm["X_umap"] = other.obsm["spatial"]
    um.pl.proportions(other, types=TYPES, basis="X_umap", show=False)
