"""What holds for every picture: axes of the caller, whole files, colours, names that fit; a few compared as images."""

import inspect
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt
from matplotlib.testing.compare import compare_images
from matplotlib.testing.decorators import remove_ticks_and_titles

import unmix as um
from unmix._adata.colours import COLOURS, MISSING, own_colour
from unmix.pl._sections import SectionsWarning
from unmix.pl._tissue import tissues

mpl.use("Agg")
BASELINE = Path(__file__).resolve().parents[1] / "baseline"
PICTURES = [getattr(um.pl, name) for name in um.pl.__all__]
pytestmark = pytest.mark.filterwarnings("ignore::unmix._adata.signatures.SignatureWarning")


@pytest.fixture(autouse=True)
def close():
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def fitted():
    """Thirty-six spots with proportions of 25 types, some with long names or a slash, and archetypes; one not fitted."""
    spots, cells = um.datasets.simulate_spots(36, 120, 25, rng=0)
    names = ["Mitral/Tufted cells", "a type of lymphocyte whose name is long, and longer than any map is wide"]
    cells.obs["cell_type"] = (
        cells.obs["cell_type"].astype(str).replace(dict(zip(["type_0", "type_1"], names, strict=True)))
    )
    spots.X = spots.X.multiply((np.arange(36) != 4)[:, None]).tocsr()
    um.tl.deconvolve(spots, cells, groupby="cell_type", method="nnls", genes="all")
    um.tl.starfysh_archetypes(spots, 4, resolution=None)
    return spots


@pytest.mark.parametrize("picture", PICTURES, ids=lambda f: f.__name__)
def test_every_picture_takes_axes_shows_and_saves(picture):
    parameters = inspect.signature(picture).parameters
    assert {"ax", "show", "save"} <= set(parameters)
    assert all(parameters[name].default is None for name in ("ax", "show", "save"))


@pytest.mark.parametrize("kind", ["maps", "top", "bars"])
def test_everything_is_labelled_and_nothing_is_cut_off(fitted, kind, tmp_path):
    axes = um.pl.proportions(fitted, kind=kind, show=False, save=tmp_path / "x.png")
    figure = axes[0].figure
    assert all(ax.get_title() for ax in axes)
    assert all(ax.get_ylabel() for ax in figure.axes)
    renderer = figure.canvas.get_renderer()
    boxes = [ax.title.get_window_extent(renderer) for ax in axes]
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])


def test_what_was_not_fitted_is_grey(fitted):
    assert um.get.proportions(fitted).iloc[4].isna().all()
    grey = mpl.colors.to_rgba(MISSING)
    for axes in (
        um.pl.proportions(fitted, types=["Mitral/Tufted cells"], show=False),
        um.pl.proportions(fitted, kind="top", show=False),
        um.pl.archetypes(fitted, show=False),
    ):
        axes[0].figure.canvas.draw()
        faces = axes[0].collections[0].get_facecolor()
        assert tuple(faces[4]) == pytest.approx(grey)
        assert sum(np.allclose(face, grey) for face in faces) == 1
    bars = um.pl.proportions(fitted, kind="bars", show=False)[0]
    assert bars.patches[0].get_x() == pytest.approx(4 - 0.45)
    assert bars.get_legend().get_texts()[-1].get_text() == "not fitted"


def test_axes_of_the_caller_one_per_panel(fitted):
    _, axes = plt.subplots(2, 2)
    assert um.pl.archetypes(fitted, ax=axes, show=False) == list(axes.ravel())
    with pytest.raises(ValueError, match="there are 4 panels and 2 Axes"):
        um.pl.archetypes(fitted, ax=axes[0], show=False)
    assert um.pl.archetype_tree(fitted, ax=axes[0, 0], show=False) == [axes[0, 0]]
    for part, value in (("group", [0, 99]), ("linkage", {}), ("linkage", np.zeros((2, 3)))):
        changed = fitted.copy()
        changed.uns["archetypes"][part] = value
        with pytest.raises(ValueError, match="no longer as the tool left it"):
            um.pl.archetype_tree(changed, show=False)


def test_25_types_have_25_colours():
    colours = [own_colour(i) for i in range(60)]
    assert len(set(colours)) == 60
    assert colours[:20] == list(COLOURS)


def test_stored_colours_are_used(fitted):
    spots = fitted.copy()
    table = um.get.proportions(spots)
    stored = [mpl.colors.to_hex(c) for c in plt.get_cmap("viridis")(np.linspace(0, 1, 25))]
    spots.uns["deconvolve_colors"] = np.array(stored)
    ax = um.pl.proportions(spots, kind="bars", show=False)[0]
    drawn = {text.get_text(): patch.get_facecolor() for text, patch in zip(
        ax.get_legend().get_texts(), ax.get_legend().get_patches(), strict=True)}  # fmt: skip
    assert mpl.colors.to_hex(drawn["Mitral/Tufted cells"]) == stored[table.columns.get_loc("Mitral/Tufted cells")]
    spots.obs["archetypes"] = spots.obs["archetypes"].cat.reorder_categories([f"archetype_{k}" for k in (4, 3, 2, 1)])
    spots.uns["archetypes_colors"] = ["#000004", "#000003", "#000002", "#000001"]
    ax = um.pl.archetype_simplex(spots, show=False)[0]
    marks = {
        c.get_label(): mpl.colors.to_hex(c.get_facecolor()[0]) for c in ax.collections if "archetype" in c.get_label()
    }
    assert marks == {f"archetype_{k}": f"#00000{k}" for k in (1, 2, 3, 4)}
    some = spots[spots.obs["archetypes"] != "archetype_2"].copy()  # anndata drops the category and its colour
    assert len(some.uns["archetypes_colors"]) == 3
    ax = um.pl.archetype_simplex(some, show=False)[0]
    kept = {c.get_label(): mpl.colors.to_hex(c.get_facecolor()[0]) for c in ax.collections if c.get_label() in marks}
    assert {name for name in marks if kept[name] != marks[name]} == {"archetype_2"}


def test_a_picture_is_saved_whole_or_not_at_all(fitted, tmp_path, monkeypatch):
    um.pl.archetype_tree(fitted, save=tmp_path / "tree")
    um.pl.archetype_tree(fitted, save=tmp_path / "tree.svg")
    assert (tmp_path / "tree.png").read_bytes().startswith(b"\x89PNG")
    old = (tmp_path / "tree.svg").read_text()
    assert "</svg>" in old

    def broken(self, file, **_):
        Path(file).write_text("half")
        raise OSError

    monkeypatch.setattr(mpl.figure.Figure, "savefig", broken)
    with pytest.raises(OSError):
        um.pl.archetype_tree(fitted, save=tmp_path / "tree.svg")
    assert (tmp_path / "tree.svg").read_text() == old
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tree.png", "tree.svg"]


@pytest.mark.parametrize(
    "draw",
    [um.pl.archetypes, um.pl.archetype_simplex, um.pl.archetype_tree, um.pl.proportions],
    ids=lambda f: f.__name__,
)
def test_a_figure_that_is_saved_and_not_shown_is_closed(fitted, draw, tmp_path):
    axes = draw(fitted, save=tmp_path / "x.png")
    draw(fitted, show=False, save=tmp_path / "x.png")
    with pytest.raises(ValueError, match="must end in one of"):
        draw(fitted, save=tmp_path / "x.nothing")
    assert plt.get_fignums() == []
    axes[0].set_title("drawn later")
    axes[0].figure.canvas.draw()
    assert axes[0].title.get_window_extent().width > 0
    axes[0].figure.savefig(tmp_path / "later.png")
    assert (tmp_path / "later.png").read_bytes() != (tmp_path / "x.png").read_bytes()


def test_a_figure_stays_open_where_it_is_the_callers_or_is_shown(fitted, tmp_path, monkeypatch):
    figure, ax = plt.subplots()
    um.pl.archetype_tree(fitted, ax=ax, save=tmp_path / "x.png")
    assert plt.get_fignums() == [figure.number]
    seen = []
    monkeypatch.setattr(plt, "show", lambda: seen.append(len(plt.get_fignums())))
    um.pl.archetype_tree(fitted, show=True, save=tmp_path / "x.png")
    assert seen == [2]
    plt.close("all")
    um.pl.archetype_tree(fitted, show=False)
    assert len(plt.get_fignums()) == 1


def test_the_image_of_one_library_of_several(fitted):
    spots = fitted.copy()
    picture = {"images": {"lowres": np.zeros((30, 60, 3))}}
    scale = {"tissue_lowres_scalef": 5.0, "spot_diameter_fullres": 0.5}
    spots.uns["spatial"] = {"a": {**picture, "scalefactors": scale}, "b": {}}
    with pytest.warns(SectionsWarning, match="2 sections"):
        assert tissues(spots, "spatial")[0].image is None
    chosen = tissues(spots, "spatial", library_id="a")[0]
    assert chosen.diameter == 0.5
    assert um.pl.archetypes(spots, library_id="a", show=False)[0].images[0].get_extent() == [0, 12.0, 6.0, 0]
    with pytest.raises(KeyError, match=r"'c' is not in uns\['spatial'\]"):
        um.pl.archetypes(spots, library_id="c", show=False)


def test_only_the_tissue_counts_from_the_top(fitted):
    spots = fitted.copy()
    spots.obsm["X_umap"] = spots.obsm["spatial"]
    up = um.pl.archetypes(spots, basis="X_umap", show=False)[0]
    assert up.get_ylim()[0] < up.get_ylim()[1]
    assert up.get_xlabel() == "umap 1"
    down = um.pl.archetypes(spots, show=False)[0]
    assert down.get_ylim()[0] > down.get_ylim()[1]


def test_places_that_cannot_be_drawn(fitted):
    spots = fitted.copy()
    spots.obsm["spatial"] = np.where(np.arange(36)[:, None] == 3, np.nan, spots.obsm["spatial"])
    with pytest.raises(ValueError, match="must be finite"):
        um.pl.archetypes(spots, show=False)
    del spots.obsm["spatial"]
    with pytest.raises(KeyError, match="no map to draw on"):
        um.pl.archetypes(spots, show=False)
    assert len(um.pl.proportions(spots, show=False)) == 1


def test_one_type_and_one_spot(fitted):
    one = fitted[[0]].copy()
    axes = um.pl.proportions(one, show=False)
    assert len(axes) == 25
    alone = fitted.copy()
    alone.obsm["deconvolve"] = pd.DataFrame({"only": np.ones(36)}, index=alone.obs_names)
    alone.uns["deconvolve"] = {**alone.uns["deconvolve"], "names": np.array(["only"])}
    assert [ax.get_title() for ax in um.pl.proportions(alone, show=False)] == ["only"]
    assert len(um.pl.proportions(alone, kind="bars", show=False)[0].patches) == 36


@pytest.mark.parametrize(
    ("name", "draw"),
    [
        ("maps", lambda a: um.pl.proportions(a, types=["type_2", "Mitral/Tufted cells"], show=False)),
        ("top", lambda a: um.pl.proportions(a, kind="top", show=False)),
        ("bars", lambda a: um.pl.proportions(a[:6], kind="bars", show=False)),
        ("simplex", lambda a: um.pl.archetype_simplex(a, show=False)),
    ],
)
def test_pictures_without_their_letters(fitted, name, draw, tmp_path):
    """Compare with what was looked at; letters are left out, since fonts differ, and proportions are given, not fitted."""
    spots = fitted.copy()
    shares = np.random.default_rng(0).dirichlet(np.full(25, 0.1), 36)
    shares[4] = np.nan
    spots.obsm["deconvolve"] = pd.DataFrame(shares, spots.obs_names, spots.obsm["deconvolve"].columns)
    with mpl.style.context("default"):
        figure = draw(spots)[0].figure
        remove_ticks_and_titles(figure)
        for ax in figure.axes:
            ax.set(xlabel="", ylabel="")
            for letters in [*ax.texts, *([ax.get_legend()] if ax.get_legend() else [])]:
                letters.remove()
        figure.savefig(tmp_path / f"{name}.png", dpi=40)
    assert compare_images(BASELINE / f"{name}.png", tmp_path / f"{name}.png", tol=6) is None
