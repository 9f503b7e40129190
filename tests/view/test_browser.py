"""The page in a real browser, without a screen: one session and one page for all tests."""

from __future__ import annotations

import io
import os
import shutil
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from matplotlib import image as picture

from calid.view.page import write_page
from calid.view.sources import load_scene

pytestmark = pytest.mark.nightly

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
PANELS = 3


@pytest.fixture(scope="module")
def browser(files, tmp_path_factory) -> Iterator:
    """Chromium with the page open: acquired, linear and reconstructed, with both overlays."""
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    driver = shutil.which("chromedriver")
    if program is None or driver is None:
        pytest.skip("Chromium and its driver are not installed (chromium, chromium-driver)")
    webdriver = pytest.importorskip("selenium.webdriver")

    page = tmp_path_factory.mktemp("page") / "viewer.html"
    write_page(load_scene([files.dense], files.sparse, files.uncertainty, files.labels), page)
    options = webdriver.ChromeOptions()
    options.binary_location = program
    for argument in (
        "--headless=new",
        "--window-size=900,640",
        # WebGL 2 without a graphics card.
        "--use-gl=angle",
        "--use-angle=swiftshader",
        "--enable-unsafe-swiftshader",
        "--disable-dev-shm-usage",
        # Whatever the page asked for would fail and leave an error on the console.
        "--host-resolver-rules=MAP * ~NOTFOUND",
    ):
        options.add_argument(argument)
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        options.add_argument("--no-sandbox")  # root has none
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    session = webdriver.Chrome(options, webdriver.ChromeService(driver))
    try:
        session.set_script_timeout(180)
        session.get(page.as_uri())
        until(lambda: session.execute_script("return document.body.dataset.ready"), 300)
        yield session
    finally:
        session.quit()


def until(true: Callable[[], object], seconds: float = 180) -> object:
    """Wait for something, however slow the machine is."""
    end = time.monotonic() + seconds
    while not (found := true()):
        assert time.monotonic() < end, "the page did not get there"
        time.sleep(0.05)
    return found


@pytest.fixture
def run(browser) -> Callable:
    """Runs a script and waits until what it changed is drawn."""

    def script(text: str) -> object:
        return browser.execute_async_script(
            f"const result = (() => {{ {text} }})(); const done = arguments[0];"
            "requestAnimationFrame(() => requestAnimationFrame(() =>"
            "requestAnimationFrame(() => done(result))));"
        )

    return script


@pytest.fixture
def press(browser, run) -> Callable[[str], None]:
    """Presses a key, wherever the page's focus is."""
    from selenium.webdriver.common.action_chains import ActionChains

    def key(value: str) -> None:
        ActionChains(browser).send_keys(value).perform()
        run("")

    return key


def canvases(browser) -> list[np.ndarray]:
    """Grey pixels of every panel, as they are on the screen."""
    from selenium.webdriver.common.by import By

    found = browser.find_elements(By.CSS_SELECTOR, ".stage")
    return [picture.imread(io.BytesIO(e.screenshot_as_png))[..., :3].mean(-1) for e in found]


def badges(run) -> list[str]:
    return run("return panels.map(p => p.badge.textContent)")


def crosshairs(run) -> np.ndarray:
    return np.array(run("return panels.map(p => p.point)"), float)


def test_the_page_loads_and_shows_something_in_every_panel(browser, run):
    assert run("return document.body.dataset.ready") == "yes"
    images = canvases(browser)
    assert len(images) == PANELS
    for image in images:
        assert image.std() > 0.05
        assert (image > 0.5).mean() > 0.02


def test_every_badge_says_what_the_slice_is(run):
    run("goToSlice(5)")
    assert badges(run) == ["acquired slice 2 of 4"] * 3
    run("goToSlice(7)")
    assert badges(run) == [
        "within acquired slice 2 of 4",
        "interpolated between slices 2 and 3",
        "generated between slices 2 and 3",
    ]
    classes = run("return panels.map(p => p.badge.className)")
    assert classes == ["badge acquired", "badge interpolated", "badge generated"]


def test_the_ruler_marks_acquired_slices(run):
    ticks = run("return [...byId('ruler').children].map(tick => tick.classList[0])")
    assert [k for k, kind in enumerate(ticks) if kind == "acquired"] == [0, 5, 10, 15]
    assert set(ticks) == {"acquired", "generated"}


def test_the_crosshair_of_one_panel_moves_all(browser, run):
    from selenium.webdriver.common.action_chains import ActionChains

    run("reset()")
    before, images = crosshairs(run), canvases(browser)
    np.testing.assert_allclose(before, before[[0]].repeat(PANELS, 0), atol=1e-3)
    middle = run(
        "const [left, top, width, height] = panels[0].view.screenSlices"
        ".find(s => s.axCorSag === 0).leftTopWidthHeight;"
        "const box = panels[0].canvas.getBoundingClientRect();"
        "const ratio = panels[0].canvas.width / box.width;"
        "return [(left + 0.7 * width) / ratio - box.width / 2,"
        "        (top + 0.3 * height) / ratio - box.height / 2]"
    )
    canvas = run("return panels[0].canvas")
    ActionChains(browser).move_to_element_with_offset(
        canvas, *(round(v) for v in middle)
    ).click().perform()
    run("")
    after = crosshairs(run)
    np.testing.assert_allclose(after, after[[0]].repeat(PANELS, 0), atol=1e-3)
    # To the right of the page and up, within the same slice: 0.2 of 72 and of 80 mm.
    np.testing.assert_allclose(after[0] - before[0], [14.4, 16, 0], atol=2.5)
    for one, other in zip(images, canvases(browser), strict=True):
        assert (abs(one - other) > 0.1).any()


def test_the_frame_slider_changes_what_is_seen(browser, run):
    before = canvases(browser)
    run("const s = byId('frame'); s.value = 2; s.dispatchEvent(new Event('input'))")
    assert run("return byId('frame-text').textContent") == "3 / 3 · 80 ms"
    for one, other in zip(before, canvases(browser), strict=True):
        assert (abs(one - other) > 0.2).mean() > 0.002


def test_the_film_plays_and_stops(run):
    run("setFrame(0)")
    run("byId('play').click(); window.seen = new Set();")
    until(lambda: run("seen.add(state.frame); return seen.size") == 3)
    assert run("return byId('play').getAttribute('aria-label')") == "Pause"
    run("byId('play').click()")
    stopped = run("return state.frame")
    time.sleep(0.3)
    assert run("return [state.frame, byId('play').getAttribute('aria-label')]") == [
        stopped,
        "Play",
    ]


def test_keys_move_through_slices_frames_and_layouts(run, press):
    from selenium.webdriver.common.keys import Keys

    run("document.activeElement.blur(); goToSlice(7); setFrame(0)")
    number = "return main.slice(main.point).number"
    for key, expected in ((Keys.ARROW_UP, 8), (Keys.ARROW_DOWN, 7), ("]", 10), ("[", 5)):
        press(key)
        assert run(number) == expected
    press(Keys.ARROW_RIGHT)
    assert run("return state.frame") == 1
    press("2")
    assert run("return state.layout") == "short axis"
    assert run("return panels.map(p => p.view.screenSlices.length)") == [1] * PANELS
    press("1")
    press("?")
    assert run("return byId('help').open") is True
    press(Keys.ESCAPE)
    assert run("return byId('help').open") is False


@pytest.mark.parametrize(("key", "name"), [("l", "labels"), ("u", "uncertainty")])
def test_overlays_are_drawn_on_the_reconstruction_only(key, name, browser, run, press):
    run("setOverlay('labels', false); setOverlay('uncertainty', false); setLayout('short axis')")
    run("goToSlice(7)")
    before = canvases(browser)
    press(key)
    assert run(f"return byId('overlay-{name}').checked") is True
    changed = [
        (abs(one - other) > 0.02).mean()
        for one, other in zip(before, canvases(browser), strict=True)
    ]
    assert changed[:2] == [0, 0]
    assert changed[2] > 0.002
    run("setLayout('overview')")


def test_the_crosshair_can_be_hidden_and_the_view_reset(run, press):
    press("x")
    assert run("return panels.map(p => p.view.opts.crosshairWidth)") == [0] * PANELS
    press("x")
    press("+")
    assert run("return panels[1].view.scene.pan2Dxyzmm[3]") == pytest.approx(1.25)
    press("r")
    assert run("return panels[1].view.scene.pan2Dxyzmm[3]") == 1
    assert min(run("return panels.map(p => p.view.opts.crosshairWidth)")) > 0


def test_nothing_went_wrong_on_the_console(browser):
    assert [entry for entry in browser.get_log("browser") if entry["level"] != "INFO"] == []
