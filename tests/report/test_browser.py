"""The report in a real browser: what it shows, saves and does with keys is right, and nothing in it can be run."""

import numpy as np
import pandas as pd
import pytest

import unmix as um

EVIL = '<script>alert(1)</script><img src=x onerror="window.harmed=1">'

pytestmark = pytest.mark.filterwarnings("ignore::unmix._adata.signatures.SignatureWarning", "ignore::ResourceWarning")


@pytest.fixture(scope="module")
def spots():
    """Twenty spots on a grid, one of them without counts, with proportions, archetypes and an image."""
    spots, reference = um.datasets.pbmc_spots(shape=(4, 5))
    spots.X.data[spots.X.indptr[7] : spots.X.indptr[8]] = 0
    um.tl.deconvolve(spots, reference, groupby="cell_type")
    um.tl.starfysh_archetypes(spots, 3, resolution=None)
    image = np.full((60, 80, 3), 0.8)
    factors = {"tissue_hires_scalef": 10.0, "spot_diameter_fullres": 0.9}
    spots.uns["spatial"] = {"here": {"images": {"hires": image}, "scalefactors": factors}}
    return spots


@pytest.fixture(scope="module")
def page(spots, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "report.html"
    um.report(spots, path)
    return path


@pytest.fixture
def opened(browser, page):
    """Return the browser with the page freshly opened."""
    assert browser.open(page) == []
    return browser


def shown(number):
    """Write a number as the page does."""
    return "0" if number == 0 else f"{number:.3f}" if number >= 5e-4 else f"{number:.1e}".replace("e-0", "e-")


def values_on_the_map(browser):
    return np.array(
        browser.js(
            "return [...Bokeh.documents[0].get_model_by_name('spots').data.value].map((v) => isNaN(v) ? null : v)"
        ),
        dtype=float,
    )


def test_it_opens_without_a_complaint_and_without_a_network(opened):
    assert (
        opened.js(
            "return performance.getEntriesByType('resource').map((e) => e.name).filter((n) => !/^(data|blob):/.test(n))"
        )
        == []
    )
    assert opened.texts("#results button") == ["Cell types\ndeconvolve", "Archetypes\narchetypes"]
    assert opened.js("return document.getElementById('trouble').hidden")
    assert "1 of 20 observations could not be fitted" in opened.text("#findings")
    opened.click("#results button:nth-child(2)")
    opened.until("return document.getElementById('explorer-title').innerText === 'Archetypes (weight)'")
    opened.until("return document.querySelectorAll('#tables details').length === 3")
    assert opened.complaints() == []


def test_pointing_at_a_spot_shows_its_proportions_with_their_errors(opened, spots):
    table = um.get.proportions(spots)
    errors = spots.obsm["deconvolve_se"].to_numpy()
    for i in (0, 13, 19):
        opened.point_at(*spots.obsm["spatial"][i])
        opened.until("return document.querySelector('#panel h3').innerText === arguments[0]", spots.obs_names[i])
        order = [k for k in np.argsort(-table.iloc[i], kind="stable") if table.iloc[i, k] > 0]
        expected = [f"{shown(table.iloc[i, k])} ± {shown(errors[i, k])}" for k in order]
        assert opened.texts("#panel .parts .name") == list(table.columns[order])
        assert opened.texts("#panel .parts .number") == expected
        assert opened.text("#tip") == f"{spots.obs_names[i]}\n{table.columns[order[0]]}: {expected[0]}"
    opened.point_at(*spots.obsm["spatial"][7])
    opened.until("return document.querySelector('#panel h3').innerText === arguments[0]", spots.obs_names[7])
    assert "not fitted" in opened.text("#panel .parts")
    assert "no counts" in opened.text("#panel .pairs")


def test_choosing_a_type_colours_the_tissue(opened, spots):
    table = um.get.proportions(spots)
    largest = np.where(table.isna().any(axis=1), np.nan, table.fillna(0).to_numpy().argmax(axis=1))
    np.testing.assert_array_equal(values_on_the_map(opened), largest)
    before = opened.driver.find_element("id", "canvas").screenshot_as_png
    opened.click("#choices input[value='part:2']")
    np.testing.assert_array_equal(values_on_the_map(opened), table.iloc[:, 2])
    assert opened.text("#legend").split("\n")[0] == f"{table.columns[2]}: share of cells"
    assert opened.text("#legend .ticks").split()[-1] == shown(table.iloc[:, 2].max())
    assert opened.driver.find_element("id", "canvas").screenshot_as_png != before
    opened.click("#shared")
    assert opened.text("#legend .ticks").split()[-1] == shown(np.nanmax(table))
    opened.js("const q = document.getElementById('quantity'); q.value = 1; q.dispatchEvent(new Event('change'))")
    np.testing.assert_array_equal(values_on_the_map(opened), spots.obsm["deconvolve_se"].iloc[:, 2])
    opened.click("#choices input[value='column:1']")
    np.testing.assert_array_equal(values_on_the_map(opened), spots.obs["deconvolve_misfit"])


def test_the_wheel_zooms_and_dragging_moves(opened, spots):
    get = "const {x_range: x, y_range: y} = Bokeh.documents[0].get_model_by_name('map');"
    get += "return [[x.start, x.end], [y.start, y.end]]"
    whole = np.array(opened.js(get))
    left, top = opened.place(*spots.obsm["spatial"][7])
    mouse = {"x": left, "y": top, "button": "left", "clickCount": 1}
    opened.mouse("mouseWheel", x=left, y=top, deltaX=0, deltaY=-120)
    opened.until("return (() => {" + get + "})()[0][0] !== arguments[0]", whole[0, 0])
    zoomed = np.array(opened.js(get))
    size = np.ptp(zoomed, axis=1) / np.ptp(whole, axis=1)
    assert size[0] < 1
    assert size[0] == pytest.approx(size[1])
    opened.mouse("mousePressed", **mouse)
    for step in (20, 40, 60):
        opened.mouse("mouseMoved", **{**mouse, "x": left + step}, buttons=1)
    opened.mouse("mouseReleased", **{**mouse, "x": left + 60})
    opened.until("return (() => {" + get + "})()[0][0] < arguments[0]", zoomed[0, 0])
    moved = np.array(opened.js(get))
    np.testing.assert_allclose(np.ptp(moved, axis=1), np.ptp(zoomed, axis=1))
    np.testing.assert_allclose(moved[1], zoomed[1])
    opened.click("#whole")
    np.testing.assert_allclose(opened.js(get), whole)


def test_what_is_saved_is_the_table_of_the_anndata(opened, spots):
    opened.click("#table .tools button")
    saved = pd.read_csv(opened.saved("deconvolve_proportion.csv"), index_col=0, float_precision="round_trip")
    pd.testing.assert_frame_equal(saved, um.get.proportions(spots), check_exact=True, check_names=False)
    opened.click("#table .tools button:last-child")
    columns = pd.read_csv(opened.saved("deconvolve_columns.csv"), index_col=0, float_precision="round_trip")
    assert list(columns["status"]) == list(spots.obs["deconvolve_status"])
    np.testing.assert_array_equal(columns["p-value of misfit"], spots.obs["deconvolve_misfit"])


def test_the_table_sorts_filters_and_leads_to_the_spot(opened, spots):
    table = um.get.proportions(spots)
    name = table.columns[1]
    opened.click("#table thead th:nth-child(3) button")
    assert opened.js("return document.querySelector('#table thead th:nth-child(3)').ariaSort") == "descending"
    order = table[name].sort_values(ascending=False, kind="stable", na_position="last").index
    assert opened.texts("#table tbody th") == list(order)
    opened.js(
        "const f = document.querySelector('#table .find'); f.value = 'spot_1'; f.dispatchEvent(new Event('input'))"
    )
    assert opened.texts("#table tbody th") == [spot for spot in order if "spot_1" in spot]
    opened.js("const f = document.querySelector('#table .find'); f.value = ''; f.dispatchEvent(new Event('input'))")
    choose = (
        "const s = document.querySelector(arguments[0]); s.value = arguments[1]; s.dispatchEvent(new Event('input'))"
    )
    opened.js(choose, "#table .where", "2")
    opened.js(choose, "#table .limit", "0.2")
    assert opened.texts("#table tbody th") == [spot for spot in order if table.loc[spot, name] >= 0.2]
    opened.click("#table tbody tr:nth-child(2) button")
    assert opened.text("#panel h3") == order[1]


def test_names_that_are_code_are_only_text(browser, spots, tmp_path):
    evil = spots.copy()
    evil.obs_names = [f"{EVIL}{i}" for i in range(20)]
    evil.var_names = [f"{EVIL}{i}" for i in range(evil.n_vars)]
    evil.uns["deconvolve"]["names"] = [EVIL, "$$\\alpha$$", *evil.uns["deconvolve"]["names"][2:]]
    evil.obs["note"] = pd.Categorical([EVIL] * 20)
    um.report(evil, tmp_path / "evil.html", title=EVIL, obs="note")
    assert browser.open(tmp_path / "evil.html") == []
    browser.point_at(*spots.obsm["spatial"][0])
    browser.until("return document.querySelector('#panel h3').innerText.startsWith('<script>')")
    browser.click("#choices input[value='column:0']")
    assert browser.text("h1") == EVIL
    assert EVIL in browser.text("#legend")
    assert browser.driver.title == EVIL
    del evil.obsm["spatial"]
    um.report(evil, tmp_path / "bars.html")
    assert browser.open(tmp_path / "bars.html") == []
    assert browser.js("return document.querySelectorAll('img').length") == 0
    assert browser.js("return window.harmed") is None


def test_everything_can_be_done_with_keys(opened, spots):
    from selenium.webdriver.common.keys import Keys

    xy = spots.obsm["spatial"]
    opened.keys("#canvas", Keys.ENTER, Keys.ARROW_RIGHT)
    first = list(spots.obs_names).index(opened.text("#panel h3"))
    opened.keys("#canvas", Keys.ARROW_DOWN)
    second = list(spots.obs_names).index(opened.text("#panel h3"))
    np.testing.assert_allclose(xy[second] - xy[first], [0, 1])
    assert opened.js("return document.getElementById('live').innerText").startswith(spots.obs_names[second])
    width = "const r = Bokeh.documents[0].get_model_by_name('map').x_range; return r.end - r.start"
    whole = opened.js(width)
    opened.keys("#canvas", "+")
    assert opened.js(width) == pytest.approx(whole / 1.4)
    opened.keys("#canvas", "0")
    assert opened.js(width) == pytest.approx(whole)
    opened.keys("#canvas", Keys.ESCAPE)
    assert opened.text("#panel h3") == "All together"
    opened.keys("#choices input:checked", Keys.ARROW_DOWN)
    assert opened.js("return document.activeElement.value") == "part:0"
    np.testing.assert_array_equal(values_on_the_map(opened), um.get.proportions(spots).iloc[:, 0])
    opened.keys("#table thead th:nth-child(2) button", Keys.ENTER)
    assert opened.js("return document.activeElement.closest('th').ariaSort") == "descending"


def test_on_a_phone_nothing_sticks_out_and_a_tap_chooses(browser, page, spots):
    metrics = {"width": 390, "height": 844, "deviceScaleFactor": 2, "mobile": True}
    try:
        browser.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        browser.driver.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": True})
        assert browser.open(page) == []
        assert browser.js("return document.documentElement.scrollWidth") <= 390
        browser.tap(*spots.obsm["spatial"][12])
        browser.until("return document.querySelector('#panel h3').innerText === arguments[0]", spots.obs_names[12])
        assert browser.text("#tip").startswith(spots.obs_names[12])
    finally:
        browser.driver.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": False})
        browser.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_without_coordinates_bars_show_the_rows_of_the_table(browser, spots, tmp_path):
    bulk = spots[:9].copy()
    del bulk.obsm["spatial"]
    um.report(bulk, tmp_path / "bulk.html", keys="deconvolve")
    assert browser.open(tmp_path / "bulk.html") == []
    table = um.get.proportions(bulk)
    get = "const d = Bokeh.documents[0].get_model_by_name(arguments[0]).data; return arguments[1].map((n) => [...d[n]])"
    names, left, right = browser.js(get, "pieces", ["y", "left", "right"])
    total = pd.Series(np.subtract(right, left)).groupby(names).sum()
    np.testing.assert_allclose(total[table.index[table.notna().all(axis=1)]], 1)
    browser.click("#choices input[value='part:1']")
    names, low, high = browser.js(get, "errors", ["y", "low", "high"])
    errors = bulk.obsm["deconvolve_se"].iloc[:, 1]
    expected = table.iloc[:, 1] + errors
    assert len(names) == int((errors > 0).sum())
    np.testing.assert_allclose(high, expected[names])
    np.testing.assert_allclose(low, np.maximum(table.iloc[:, 1] - errors, 0)[names])
    browser.click("#table thead th:nth-child(3) button")
    factors = browser.js("return Bokeh.documents[0].get_model_by_name('bars').y_range.factors")
    assert factors[::-1] == browser.texts("#table tbody th")


@pytest.mark.parametrize("mark, backend", [("#webgl", "webgl"), ("", "canvas")])
def test_it_draws_with_webgl_and_without(browser, page, mark, backend):
    assert browser.open(page, mark) == []
    assert browser.js("return Bokeh.documents[0].get_model_by_name('map').output_backend") == backend
    browser.click("#picture")
    picture = browser.saved("deconvolve_Largest_cell_type.png")
    from matplotlib import image

    pixels = image.imread(picture)
    picture.unlink()
    assert len(np.unique(pixels.reshape(-1, pixels.shape[2]).round(2), axis=0)) > 5
