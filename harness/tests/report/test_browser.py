"""The page in a browser: console, width, figures, dark mode, keyboard and print."""

from __future__ import annotations

import base64
import dataclasses
import re
import shutil
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.judgement.known_differences import KNOWN_DIFFERENCES
from harness.report.write import write_report
from harness.tests.support.drawings import HOSTILE, synthetic_drawing
from harness.tests.support.judged import judge_profiles, make_differing_profile
from harness.tests.support.synthetic_profiles import L, synthetic_profile

pytestmark = pytest.mark.slow
_BROWSERS = ("chromium", "chromium-browser", "google-chrome")
_LONG = "a-model-whose-name-is-as-long-as-names-of-checkpoints-are-nowadays-v2.5-instruct"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The address of a page on three pairs: equal, different, and with a long name and hostile texts."""
    folder = tmp_path_factory.mktemp("browser")
    same = dataclasses.replace(synthetic_profile(), drawings=(synthetic_drawing(),))
    other = dataclasses.replace(make_differing_profile(), dataset="others")
    hostile = synthetic_drawing("c", text=HOSTILE, captions=(HOSTILE, "word " * 90, "w" * 300))
    long = dataclasses.replace(synthetic_profile(), model=_LONG, drawings=(hostile,))
    session = judge_profiles(folder / "kept", same, other, long)
    return write_report(session, (), folder / "report").as_uri()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A headless browser."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="the browser is driven by selenium (extra dev)")
    driver = shutil.which("chromedriver")
    binary = next(filter(None, map(shutil.which, _BROWSERS)), None)
    if driver is None or binary is None:
        pytest.skip("no browser here: install chromium and chromium-driver (Debian), or Chrome with its chromedriver")
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    chrome = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield chrome
    chrome.quit()


def shown(browser: Any, page: str, width: int, **media: str) -> None:
    """Open the page on a screen of the given width, in pixels."""
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    features = [{"name": name.replace("_", "-"), "value": value} for name, value in media.items()]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    browser.get(page)


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1400, 400])
def test_no_console_message_no_sideways_scroll_and_all_figures(browser: Any, page: str, width: int, theme: str) -> None:
    shown(browser, page, width, prefers_color_scheme=theme)
    assert browser.get_log("browser") == []
    # All details are opened, so that their width counts.
    browser.execute_script("document.querySelectorAll('details').forEach(each => each.open = true)")
    assert browser.execute_script("let all = document.documentElement; return all.scrollWidth - all.clientWidth") == 0
    wide = browser.execute_script(
        "return [...document.querySelectorAll('main *:not(svg *)')].filter("
        "element => element.getBoundingClientRect().right > innerWidth + 1)"
        ".map(element => element.outerHTML.slice(0, 120))"
    )
    assert wide == []
    boxes = browser.execute_script(
        "return [...document.querySelectorAll('svg.figure')].map(element => {let box = element.getBoundingClientRect();"
        "return [element.closest('figure').id, box.width, box.height]})"
    )
    assert len(boxes) == len(list((Path(page.removeprefix("file://")).parent / "figures").glob("*.svg")))
    for name, across, down in boxes:
        assert across > 300, name
        assert down > 50, name


def test_four_pairs_as_expected_fit_eight_screens_and_answer_on_the_first(browser: Any, tmp_path: Path) -> None:
    profiles = [dataclasses.replace(synthetic_profile(), dataset=f"set-{number}") for number in range(4)]
    drawn = [dataclasses.replace(profile, drawings=(synthetic_drawing(),)) for profile in profiles]
    session = judge_profiles(tmp_path / "kept", *drawn)
    known = "".join(f'[{pair}]\nintra-modal = "measured"\n' for pair in session.profiles)
    (tmp_path / "kept" / KNOWN_DIFFERENCES).write_text(known, encoding="utf-8")
    index = write_report(session, (), tmp_path / "report")
    # Otherwise the page scrolls smoothly, which takes time.
    shown(browser, index.as_uri(), 1400, prefers_reduced_motion="reduce")
    # A screen is 900 pixels high; the page is as it opens, before anything is unfolded by hand.
    assert browser.execute_script("return document.documentElement.scrollHeight") <= 8 * 900
    bottom = "return document.querySelector(arguments[0]).getBoundingClientRect().bottom"
    assert browser.execute_script(bottom, "#phase-diagram svg") <= 900
    # A link of the table opens the folded details of another pair.
    browser.find_element("css selector", 'a[href="#pair-made-set-3:alignment"]').click()
    top = "return document.getElementById('pair-made-set-3:alignment').getBoundingClientRect().top"
    assert 0 < browser.execute_script(top) < 900
    assert browser.execute_script("return document.querySelectorAll('details.pair[open]').length") == 2


def test_markup_in_a_caption_is_not_executed(browser: Any, page: str) -> None:
    shown(browser, page, 1400)
    # No alert opened, and the page has no elements from the text.
    assert browser.execute_script("return document.querySelectorAll('script, img, iframe').length") == 0
    assert "alert(1)" in browser.execute_script("return document.body.textContent")


def test_text_has_contrast_on_dark_pages(browser: Any, page: str) -> None:
    script = (
        "let [body, text] = [document.body, document.querySelector('svg.figure text')];"
        "return [getComputedStyle(body).backgroundColor, getComputedStyle(text).fill]"
    )
    colours = []
    for theme in ("light", "dark"):
        shown(browser, page, 1400, prefers_color_scheme=theme)
        ground, letters = (sum(map(int, re.findall(r"\d+", rgb)[:3])) for rgb in browser.execute_script(script))
        colours.append((ground, letters))
    (light, ink), (dark, chalk) = colours
    assert light > 700 > 300 > ink
    assert dark < 100 < 450 < chalk


def test_keys_reach_theme_contents_and_closed_details(browser: Any, page: str) -> None:
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys

    shown(browser, page, 1400, prefers_color_scheme="light")
    reached = []
    for _ in range(12):
        ActionChains(browser).send_keys(Keys.TAB).perform()
        reached.append(
            browser.execute_script(
                "let active = document.activeElement; return active.id || active.hash || active.tagName"
            )
        )
    assert reached[0] == "#main"
    assert reached[1].startswith("theme-")
    assert {"#pair-made-curves", "#pair-made-curves:alignment"} <= set(reached)
    outline = browser.execute_script("return getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"
    # The arrow keys select one of the three themes.
    browser.find_element("id", "theme-auto").send_keys(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    assert browser.execute_script("return getComputedStyle(document.documentElement).colorScheme") == "dark"
    folded = browser.find_element("css selector", "article details:not([open]) summary")
    folded.send_keys(Keys.ENTER)
    assert browser.execute_script("return arguments[0].parentElement.open", folded)


def test_print_includes_closed_details_and_is_light(browser: Any, page: str) -> None:
    shown(browser, page, 1400, prefers_color_scheme="dark")
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    # Chromium shows closed details one frame after the medium has changed.
    unfolded = (
        "return [...document.querySelectorAll('article details:not([open]) table')].every("
        "element => element.checkVisibility({contentVisibilityAuto: true}))"
    )
    wait = pytest.importorskip("selenium.webdriver.support.wait").WebDriverWait(browser, 20)
    assert wait.until(lambda driver: driver.execute_script(unfolded), "tables in closed details are not printed")
    assert browser.execute_script("return getComputedStyle(document.querySelector('fieldset')).display") == "none"
    assert browser.execute_script("return getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    printed = base64.b64decode(browser.execute_cdp_cmd("Page.printToPDF", {"printBackground": True})["data"])
    assert printed.startswith(b"%PDF")
    streams = re.findall(rb"stream\r?\n(.*?)endstream", printed, re.DOTALL)
    assert sum(len(zlib.decompressobj().decompress(stream)) for stream in streams if stream[:1] == b"x") > 10_000


def test_the_page_works_without_other_files(browser: Any, page: str, tmp_path: Path) -> None:
    # The page works without the other files of its directory.
    alone = tmp_path / "sent.html"
    shutil.copy(Path(page.removeprefix("file://")), alone)
    shown(browser, alone.as_uri(), 1400)
    assert browser.get_log("browser") == []
    fetched = browser.execute_script("return performance.getEntriesByType('resource').map(element => element.name)")
    assert [name for name in fetched if not name.startswith("data:")] == []
    assert f"of {L} layers" in browser.find_element("tag name", "main").text
