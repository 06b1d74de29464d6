"""A real browser without a screen, for the tests of the report; without Chromium they skip and say so."""

import shutil
import time

import pytest

FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", "--enable-unsafe-swiftshader",
    "--window-size=1400,900",
)  # fmt: skip
PLACE = """
const {x_range, y_range} = Bokeh.documents[0].get_model_by_name("map");
const share = (v, range) => (v - range.start) / (range.end - range.start);
const canvas = document.getElementById("canvas");
canvas.scrollIntoView({block: "center"});
const r = canvas.getBoundingClientRect();
return [r.left + r.width * share(arguments[0], x_range), r.top + r.height * (1 - share(arguments[1], y_range))];
"""


class Browser:
    """Chromium with the few things that the tests do in it."""

    def __init__(self, driver, folder):
        self.driver, self.folder = driver, folder
        driver.set_script_timeout(60)
        driver.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(folder)})

    def js(self, script, *arguments):
        return self.driver.execute_script(script, *arguments)

    def until(self, script, *arguments, seconds=60):
        """Wait for a script to return something true, and return it."""
        end = time.monotonic() + seconds
        while not (found := self.js(script, *arguments)):
            assert time.monotonic() < end, f"still not so after {seconds} s: {script}"
            time.sleep(0.05)
        return found

    def open(self, path, mark=""):
        """Open a page and wait until it is drawn; return what the console has to complain of."""
        self.driver.get("about:blank")
        self.driver.get_log("browser")
        self.driver.get(path.as_uri() + mark)
        self.until("return document.documentElement.dataset.ready || !document.getElementById('trouble').hidden")
        return self.complaints()

    def complaints(self):
        return [entry["message"] for entry in self.driver.get_log("browser") if entry["level"] == "SEVERE"]

    def frames(self):
        """Let the page draw what it has to draw."""
        self.driver.execute_async_script("requestAnimationFrame(() => requestAnimationFrame(arguments[0]))")

    def point_at(self, x, y):
        """Move the pointer to a place of the tissue."""
        left, top = self.place(x, y)
        self.mouse("mouseMoved", x=left, y=top)

    def place(self, x, y):
        """Bring the map into view and return where on the screen a place of the tissue is."""
        return self.js(PLACE, float(x), float(y))

    def mouse(self, kind, **event):
        self.driver.execute_cdp_cmd("Input.dispatchMouseEvent", {"type": kind, **event})

    def tap(self, x, y):
        """Touch a place of the tissue."""
        left, top = self.place(x, y)
        for kind, points in (("touchStart", [{"x": left, "y": top}]), ("touchEnd", [])):
            self.driver.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    def text(self, selector):
        return self.js("return document.querySelector(arguments[0]).innerText", selector)

    def texts(self, selector):
        return self.js("return [...document.querySelectorAll(arguments[0])].map((e) => e.innerText)", selector)

    def click(self, selector):
        self.js("document.querySelector(arguments[0]).click()", selector)
        self.frames()

    def keys(self, selector, *pressed):
        for key in pressed:
            self.driver.find_element("css selector", selector).send_keys(key)
        self.frames()

    def saved(self, name, seconds=60):
        """Return a file that the page gave to save, once it is whole."""
        end = time.monotonic() + seconds
        while not (self.folder / name).exists():
            assert time.monotonic() < end, sorted(path.name for path in self.folder.iterdir())
            time.sleep(0.05)
        return self.folder / name


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """Start Chromium."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    from selenium.webdriver.chrome.service import Service

    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    helper = shutil.which("chromedriver")
    if program is None or helper is None:
        pytest.skip("Chromium and its driver are not installed (Debian: apt-get install chromium chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = program
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    driver = webdriver.Chrome(options=options, service=Service(helper))
    yield Browser(driver, tmp_path_factory.mktemp("saved"))
    driver.quit()
