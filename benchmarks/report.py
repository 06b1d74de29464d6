"""`um.report` at 50,000 spots: size of the file, and how long loading, pointing, colouring and sorting take in Chromium.

Run `python benchmarks/report.py [SPOTS]`; needs Chromium, its driver and `selenium`. Times are medians in milliseconds: by
the page's own clock, from the event to the frame after the page has answered, and in brackets what all of the browser's
processes computed meanwhile. "canvas" is what a page does without a graphics card, "webgl" here is WebGL drawn by software,
which a page chooses only when it is told to.
"""

import contextlib
import shutil
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil
from selenium import webdriver
from selenium.webdriver.chrome.service import Service

import unmix as um

FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--window-size=1400,900",
)  # fmt: skip
POINTS = 60
NAMES = ("load", "point", "colour", "sort", "zoom")
LISTEN = """
window.took = []; let start = 0;
document.addEventListener("mousemove", () => { start = performance.now(); }, true);
new MutationObserver(() => { if (start) { window.took.push(performance.now() - start); start = 0; } })
  .observe(document.getElementById("panel"), {childList: true, subtree: true});
"""
CLICK = """
const done = arguments[1], start = performance.now();
document.querySelector(arguments[0]).click();
requestAnimationFrame(() => requestAnimationFrame(() => done(performance.now() - start)));
"""


def tissue(n_spots):
    """Spots of ten types with errors, over an image."""
    spots, reference = um.datasets.simulate_spots(n_spots, 300, 10, rng=0)
    um.tl.deconvolve(spots, reference, groupby="cell_type", cells_per_spot=np.inf)
    image = np.random.default_rng(0).random((2000, 2000, 3)).astype(np.float32)
    extent = float(np.asarray(spots.obsm["spatial"]).max())
    factors = {"tissue_hires_scalef": 2000 / extent}
    spots.uns["spatial"] = {"tissue": {"images": {"hires": image}, "scalefactors": factors}}
    return spots


def chromium(folder, *flags):
    """Start a browser of its own."""
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    for flag in (*FLAGS, *flags, f"--user-data-dir={folder}"):
        options.add_argument(flag)
    return webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))


def measured(page, flag, mark=""):
    """Return milliseconds of the clock, and of all the browser's processors, by what was done."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        browser = chromium(folder, flag)
        try:
            browser.set_script_timeout(60)
            process = psutil.Process(browser.service.process.pid)
            address = page.as_uri() + mark
            rows = {"load": timed(process, [lambda: load(browser, address)] * 3)}
            backend = browser.execute_script("return Bokeh.documents[0].get_model_by_name('map').output_backend")
            rows["point"] = timed(process, [lambda: pointing(browser)], of=POINTS)
            inputs = [f"#choices label:nth-of-type({k}) input" for k in range(2, 10)]
            heads = [f"#table thead th:nth-child({k}) button" for k in (2, 3, 4, 1)]
            zooms = ["#closer", "#closer", "#farther", "#whole"]
            for name, buttons in (("colour", inputs), ("sort", heads), ("zoom", zooms)):
                acts = [lambda b=b: browser.execute_async_script(CLICK, b) for b in buttons]
                rows[name] = timed(process, acts)
        finally:
            browser.quit()
    return backend, rows


def timed(process, acts, of=1):
    """Return the medians of what the acts return and of the processors' time meanwhile, per one `of` several."""
    clock, used = [], []
    for act in acts:
        before = processors(process)
        clock.append(act())
        used.append(1000 * (processors(process) - before) / of)
    return np.median(clock), np.median(used)


def processors(process):
    """Return the seconds that the browser's processes have computed."""
    total = 0.0
    for one in (process, *process.children(recursive=True)):
        with contextlib.suppress(psutil.NoSuchProcess):
            total += sum(one.cpu_times()[:2])
    return total


def load(browser, address):
    """Return the milliseconds from the start of loading until the page is ready."""
    browser.get("about:blank")
    browser.get(address)
    while not (ready := browser.execute_script("return document.documentElement.dataset.ready")):
        time.sleep(0.05)
    return float(ready)


def pointing(browser):
    """Return the milliseconds between moving the pointer and seeing the spot's proportions."""
    browser.execute_script("document.getElementById('canvas').scrollIntoView({block: 'center'})")
    time.sleep(0.5)
    script = (
        "const r = document.getElementById('canvas').getBoundingClientRect(); return [r.left, r.top, r.width, r.height]"
    )
    left, top, width, height = browser.execute_script(script)
    browser.execute_script(LISTEN)
    for x, y in np.random.default_rng(0).uniform(0.25, 0.75, (POINTS, 2)):
        event = {"type": "mouseMoved", "x": left + x * width, "y": top + y * height}
        browser.execute_cdp_cmd("Input.dispatchMouseEvent", event)
        time.sleep(0.03)
    return np.median(browser.execute_script("return window.took"))


def main():
    """Write one report and print a table."""
    n_spots = int(sys.argv[1]) if len(sys.argv) > 1 else 50_000
    spots = tissue(n_spots)
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder, "report.html")
        start = time.perf_counter()
        um.report(spots, page)
        took = time.perf_counter() - start
        print(f"{n_spots:,} spots x {spots.obsm['deconvolve'].shape[1]} types: written in {took:.1f} s")
        print(f"{page.stat().st_size / 1e6:.1f} MB, of it the image {image_size(page):.1f} MB")
        print(f"{'ms, clock (all processors)':<28}" + "".join(f"{name:>15}" for name in NAMES))
        for flag, mark in (("--disable-webgl", ""), ("--enable-unsafe-swiftshader", "#webgl")):
            backend, rows = measured(page, flag, mark)
            cells = [f"{clock:.0f} ({used:.0f})" for clock, used in (rows[name] for name in NAMES)]
            print(f"{backend:<28}" + "".join(f"{cell:>15}" for cell in cells), flush=True)


def image_size(page):
    """Return the megabytes of the image inside the page."""
    text = page.read_text()
    start = text.index("data:image/jpeg")
    return (text.index('"', start) - start) / 1e6


if __name__ == "__main__":
    main()
