"""The report of several sections: side by side at one scale, each under its name and over its image."""

import json
import re

import numpy as np
import pytest

import unmix as um
from unmix._report.packing import unpack_array
from unmix.cli import main
from unmix.pl._sections import SectionsWarning

pytestmark = pytest.mark.filterwarnings("ignore::unmix._adata.signatures.SignatureWarning")


@pytest.fixture
def spots(sections):
    return sections.copy()


def data_of(path):
    return json.loads(re.search('<script type="application/json" id="data">(.*?)</script>', path.read_text(), re.S)[1])


def written(adata, folder, **options):
    um.report(adata, folder / "report.html", **options)
    return data_of(folder / "report.html")


def boxes(place, sections, margin=0.0):
    """Lowest and highest coordinates of every section."""
    xy = unpack_array(place["xy"])
    return {
        name: (xy[sections == name].min(axis=0) - margin, xy[sections == name].max(axis=0) + margin)
        for name in sections.unique()
    }


def apart(one, other):
    return (one[0] > other[1]).any() or (other[0] > one[1]).any()


def test_sections_lie_beside_each_other_at_one_scale(spots, tmp_path):
    place = written(spots, tmp_path, library_key="section")["place"]
    sections, xy = spots.obs["section"], unpack_array(place["xy"])
    found = boxes(place, sections, place["diameter"])
    for a in found:
        assert all(a == b or apart(found[a], found[b]) for b in found)
    sizes = {name: library["scalefactors"]["spot_diameter_fullres"] for name, library in spots.uns["spatial"].items()}
    for name, size in sizes.items():
        here = (sections == name).to_numpy()
        before, after = spots.obsm["spatial"][here], xy[here]
        stretch = np.ptp(after, axis=0) / np.ptp(before, axis=0)
        np.testing.assert_allclose(after - after[0], (before - before[0]) * stretch, atol=1e-9)
        np.testing.assert_allclose(stretch, sizes["early"] / size)
    assert place["diameter"] == pytest.approx(sizes["early"])


def test_names_stand_above_their_sections(spots, tmp_path):
    place = written(spots, tmp_path, library_key="section")["place"]
    found = boxes(place, spots.obs["section"], place["diameter"])
    assert [label["name"] for label in place["labels"]] == ["early", "middle", "late"]
    for label in place["labels"]:
        low, high = found[label["name"]]
        assert low[0] < label["x"] < high[0]
        line = (
            np.array([label["x"], label["y"] - label["height"] / 2]),
            np.array([label["x"], label["y"] + label["height"] / 2]),
        )
        assert line[1][1] == pytest.approx(low[1])
        others = [box for name, box in found.items() if name != label["name"]]
        assert all(apart((line[0] + 1e-6, line[1] - 1e-6), box) for box in others)


def test_images_lie_under_their_own_spots_only(spots, tmp_path):
    place = written(spots, tmp_path, library_key="section")["place"]
    found, xy = boxes(place, spots.obs["section"], place["diameter"]), unpack_array(place["xy"])
    assert len(place["images"]) == 3
    for image, name in zip(place["images"], ("early", "middle", "late"), strict=True):
        low = np.array([image["x"], image["y"]])
        high = low + [image["width"], image["height"]]
        assert (low >= found[name][0] - 1e-6).all()
        assert (high <= found[name][1] + 1e-6).all()
        here = xy[spots.obs["section"] == name]
        assert (low < here.min(axis=0)).all()
        assert (high > here.max(axis=0)).all()


def test_a_part_of_an_image_stays_where_it_was(tmp_path):
    """A bright pixel under a spot is still under it when the section has been moved and its image cut."""
    from unmix._report.sections import side_by_side
    from unmix.pl._tissue import Tissue

    rng = np.random.default_rng(0)
    sections = []
    for k, scale in enumerate((1.0, 3.0)):
        xy = scale * (10 + 40 * rng.random((20, 2)))
        pixels = np.zeros((140, 150, 3))
        x, y = (xy[4] * 2 / scale).astype(int)
        pixels[y - 1 : y + 2, x - 1 : x + 2] = 1
        rows = np.arange(20) + 20 * k
        sections.append(Tissue("spatial", xy, scale, (pixels, 2 / scale), scale, f"{k}", rows))
    place = side_by_side(sections, 40)
    for k, image in enumerate(place.images):
        shown = decoded(image["uri"])
        height, width = shown.shape
        at = (place.xy[4 + 20 * k] - [image["x"], image["y"]]) / [image["width"] / width, image["height"] / height]
        assert shown[int(at[1]), int(at[0])] > 128


def decoded(uri):
    import base64
    import io

    from PIL import Image

    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))).convert("L"))


def test_nothing_else_changes(spots, tmp_path):
    one = written(spots, tmp_path, library_key="section")
    with pytest.warns(SectionsWarning, match="library_key='section'") as told:
        other = written(spots, tmp_path)
    assert len(told) == 1
    assert told[0].filename == __file__
    assert one["results"] == other["results"]
    assert one["names"] == other["names"]
    assert other["place"]["labels"] == other["place"]["images"] == []
    np.testing.assert_array_equal(unpack_array(other["place"]["xy"]), spots.obsm["spatial"])


def test_embeddings_and_units_that_are_not_known(spots, tmp_path):
    bare = spots.copy()
    del bare.uns["spatial"]
    place = written(bare, tmp_path, library_key="section")["place"]
    for name, (low, high) in boxes(place, bare.obs["section"]).items():
        before = bare.obsm["spatial"][bare.obs["section"] == name]
        np.testing.assert_allclose(high - low, np.ptp(before, axis=0))
    bare.obsm["X_umap"] = bare.obsm.pop("spatial")
    up = written(bare, tmp_path, library_key="section")["place"]
    assert not up["down"]
    found = boxes(up, bare.obs["section"], up["diameter"])
    for label in up["labels"]:
        assert label["y"] - label["height"] / 2 == pytest.approx(found[label["name"]][1][1])
    del bare.obsm["X_umap"]
    with pytest.raises(ValueError, match="no coordinates"):
        um.report(bare, tmp_path / "none.html", library_key="section")


def test_sections_of_known_spots_are_scaled_and_others_are_not(spots, tmp_path):
    del spots.uns["spatial"]["late"]
    place = written(spots, tmp_path, library_key="section")["place"]
    before, sizes = spots.obsm["spatial"], {}
    for name, (low, high) in boxes(place, spots.obs["section"]).items():
        sizes[name] = (high - low) / np.ptp(before[spots.obs["section"] == name], axis=0)
    np.testing.assert_allclose(sizes["early"], 1)
    np.testing.assert_allclose(sizes["middle"], 250 / 40)
    np.testing.assert_allclose(sizes["late"], 1)


def test_columns_that_name_no_sections_are_refused(spots, tmp_path):
    with pytest.raises(KeyError, match="`library_key` 'slide'"):
        um.report(spots, tmp_path / "none.html", library_key="slide")
    holes = spots.copy()
    holes.obs.loc[holes.obs_names[0], "section"] = np.nan
    with pytest.raises(ValueError, match="1 of 62 have none"):
        um.report(holes, tmp_path / "none.html", library_key="section")
    assert not list(tmp_path.iterdir())


def test_the_shell_writes_the_same_page(spots, tmp_path):
    spots.write_h5ad(tmp_path / "spots.h5ad")
    arguments = ["report", str(tmp_path / "spots.h5ad"), "--out", str(tmp_path / "out.html")]
    with pytest.raises(SystemExit) as end:
        main([*arguments, "--library-key", "section"])
    assert not end.value.code
    assert data_of(tmp_path / "out.html")["place"] == written(spots, tmp_path, library_key="section")["place"]


def test_the_browser_shows_all_sections_with_their_names(browser, spots, tmp_path):
    evil = r"$$\beta$$<img src=x>"
    spots.obs["section"] = spots.obs["section"].cat.rename_categories({"middle": evil})
    spots.uns["spatial"][evil] = spots.uns["spatial"].pop("middle")
    um.report(spots, tmp_path / "report.html", library_key="section")
    assert browser.open(tmp_path / "report.html") == []
    place = data_of(tmp_path / "report.html")["place"]
    names = "return [...Bokeh.documents[0].get_model_by_name('labels').data.name]"
    assert browser.js(names) == ["early", evil, "late"]
    view = "const {x_range: x, y_range: y} = Bokeh.documents[0].get_model_by_name('map');"
    left, right, bottom, top = browser.js(view + "return [x.start, x.end, y.start, y.end]")
    assert top < min(label["y"] - label["height"] / 2 for label in place["labels"])
    for low, high in boxes(place, spots.obs["section"]).values():
        assert left < low[0] < high[0] < right
        assert top < low[1] < high[1] < bottom
    assert f"early, {evil}, late" in browser.js("return document.getElementById('canvas').ariaLabel")
    xy = unpack_array(place["xy"])
    for i in (0, 35, 60):
        browser.point_at(*xy[i])
        browser.until("return document.querySelector('#panel h3').innerText === arguments[0]", spots.obs_names[i])
