"""The page in a browser: Chromium, headless, driven by playwright. Skipped where one of them is not there."""

import contextlib
import os
import shutil
from pathlib import Path

import pytest
from conftest import draw_image

import pixelbert_plugin
from pixelbert_plugin.config.shipped import trained
from pixelbert_plugin.demo.server import serving
from pixelbert_plugin.demo.visits import Visits

pytest.importorskip("gradio", minversion="6.27", reason="gradio is not installed: pip install -e '.[demo]'")
playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install playwright")

pytestmark = pytest.mark.slow
CHOSEN = "Picture, as it was chosen"
QUESTION = "What color is the disc?"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
WIDTHS = {"desktop": 1280, "phone": 375}


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as started:
        try:
            found = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        except playwright.Error as error:
            pytest.skip(f"no Chromium can be started: {str(error).splitlines()[0]}; apt-get install chromium")
        yield found
        found.close()


@pytest.fixture(scope="module")
def address(tiny_run):
    with serving(Visits(pixelbert_plugin.load(tiny_run), 3), "save/tiny", "127.0.0.1", 0, 1) as found:
        yield found


@pytest.fixture
def picture(tmp_path) -> Path:
    draw_image(tmp_path / "disc.png", "red", 1, (64, 48))
    return tmp_path / "disc.png"


@pytest.fixture(params=WIDTHS)
def page(browser, address, request):
    """The page at one width; nothing may be asked of another machine, and nothing may fail in it."""
    found = browser.new_page(viewport={"width": WIDTHS[request.param], "height": 900})
    found.set_default_timeout(20_000)
    outside, failed = [], []
    found.on("request", lambda each: None if each.url.startswith((address, "data:", "blob:")) else outside.append(each.url))
    found.on("pageerror", lambda each: failed.append(str(each)))
    found.goto(address)
    found.get_by_role("button", name="Ask", exact=True).wait_for()
    yield found
    found.close()
    assert not outside and not failed


def chosen(page, path: Path) -> None:
    page.set_input_files("input[type=file]", path)


def until(act, told: str, seen):
    """Do it until it is heeded: what is seen of the page is there before its scripts listen."""
    for _ in range(10):
        act()
        with contextlib.suppress(playwright.TimeoutError):
            return seen()
    raise AssertionError(f"{told}: nothing happens")


def test_a_picture_is_asked_about_and_words_looked_at(page, picture):
    until(lambda: chosen(page, picture), "upload", lambda: page.get_by_alt_text(CHOSEN).wait_for(timeout=3000))
    page.get_by_label("Question").fill(QUESTION)
    page.get_by_role("button", name="Ask", exact=True).click()
    table = page.get_by_role("table", name=QUESTION)
    table.wait_for()
    assert table.get_by_role("row").count() == 1 + 3  # its head and top_k
    look = page.locator("#answer_look img")
    assert look.get_attribute("alt").startswith("The picture, lit where “the answer: ") and look.is_visible()
    first = look.get_attribute("src")
    words = page.get_by_role("group", name="Where does this come from?").get_by_role("radio")
    assert words.count() == 9  # the answer, [CLS] what color is the disc ? [SEP]
    words.nth(3).check()
    page.get_by_alt_text("The picture, lit where “color” looks").wait_for()
    assert page.locator("#answer_look img").get_attribute("src") != first
    assert "“color”: " in page.locator("#answer_look figcaption").inner_text()
    # nothing is wider than the screen
    assert page.evaluate("document.documentElement.scrollWidth") <= page.viewport_size["width"]
    if folder := os.environ.get("PIXELBERT_SCREENSHOTS"):
        page.screenshot(path=f"{folder}/demo_{page.viewport_size['width']}.png", full_page=True)


def test_without_a_checkpoint_one_press_of_a_button_shows_an_answer(browser):
    """Of the package's own model, about the picture that stands there."""
    begin = trained()
    with serving(Visits(pixelbert_plugin.load(fast=True), 3), begin.name, "127.0.0.1", 0, 1, begin) as address:
        page = browser.new_page()
        page.set_default_timeout(20_000)
        page.goto(address)
        page.get_by_alt_text(CHOSEN).wait_for()
        table = page.get_by_role("table", name=begin.question())

        def ask() -> None:
            page.get_by_role("button", name="Ask", exact=True).click()

        until(ask, "Ask", lambda: table.wait_for(timeout=5000))
        assert table.get_by_role("row").nth(1).inner_text().startswith("red")
        page.close()


def test_by_the_keyboard_alone(page, picture):
    """Tab reaches the picture first, then the question; Enter asks; Tab reaches each word, and Space chooses it."""

    def focused() -> str:
        return page.evaluate(
            "(e => (e.getAttribute('aria-label') || e.innerText || e.labels?.[0]?.innerText || e.tagName).trim())"
            "(document.activeElement)"
        )

    def tab_to(name: str, most: int) -> list[str]:
        seen = []
        for _ in range(most):
            page.keyboard.press("Tab")
            seen.append(focused())
            if name in seen[-1]:
                return seen
        raise AssertionError(f"{name} is not reached in {most} steps: {seen}")

    assert len(tab_to("Drop an image file here to upload", 3)) == 1  # is the first
    choosers = []
    page.on("filechooser", lambda found: choosers.append(found))
    until(lambda: page.keyboard.press("Enter"), "Enter", lambda: page.wait_for_event("filechooser", timeout=2000))
    choosers[0].set_files(picture)
    page.get_by_alt_text(CHOSEN).wait_for()
    tab_to("Question", 8)
    page.keyboard.type(QUESTION)
    page.keyboard.press("Enter")
    page.get_by_role("table", name=QUESTION).wait_for()
    words = page.get_by_role("group", name="Where does this come from?").get_by_role("radio")
    words.first.wait_for()
    tab_to("the answer", 4)
    page.keyboard.press("Tab")
    page.keyboard.press("Space")
    page.get_by_alt_text("The picture, lit where “[CLS]” looks").wait_for()
    assert words.nth(1).is_checked()
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline != "none"  # the focus is seen


def test_what_is_no_picture_is_one_line_on_the_page(page, tmp_path):
    (tmp_path / "text.png").write_text("this is no picture")
    there = page.get_by_alt_text(CHOSEN)
    until(lambda: chosen(page, tmp_path / "text.png"), "upload", lambda: there.wait_for(state="attached", timeout=3000))
    page.get_by_label("Question").fill(QUESTION)
    page.get_by_role("button", name="Ask", exact=True).click()
    told = page.get_by_role("status").filter(has_text="text.png: not a readable image (18 bytes; no known image format)")
    told.wait_for()
    assert page.locator("#answer_results table").count() == 0


def test_a_file_that_is_too_large_is_told(page, tmp_path):
    (tmp_path / "large.png").write_bytes(bytes(1_100_000))
    told = page.get_by_role("status").filter(has_text="exceed the maximum allowed size")
    until(lambda: chosen(page, tmp_path / "large.png"), "upload", lambda: told.first.wait_for(timeout=3000))


def test_its_parts_have_names(page):
    """Everything that takes the focus has a name, and headings go down by one."""
    nameless = page.evaluate(
        """() => [...document.querySelectorAll('button, input:not([type=file]), textarea, [tabindex="0"]')]
            .filter((e) => e.offsetParent && !(e.ariaLabel || e.title || e.innerText.trim() || e.labels?.length))
            .map((e) => e.outerHTML.slice(0, 200))"""
    )
    assert nameless == []
    assert page.evaluate("[...document.querySelectorAll('h1, h2, h3')].map((e) => e.tagName)") == ["H1", "H2"]
    assert page.evaluate("document.documentElement.lang") == "en" and page.title() == "Pixel-BERT: save/tiny"
    assert page.evaluate("getComputedStyle(document.querySelector('.gradio-container')).fontFamily").startswith("system-ui")
