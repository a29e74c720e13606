"""The report in a real browser: drawn in silence, no request to anyone, usable by mouse, keyboard and screen reader.

Skipped where Chromium or playwright is absent. Screenshots of every section, in both themes and on a phone, are in `pictures`.
Read next: `src/sageserve/show/templates/report.js`.
"""

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeAlias

import pytest

axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe finds faults of accessibility")

WIDE, PHONE = (1280, 900), (390, 844)
DRAWN = "name => document.querySelector(`#${name} .main-svg`) !== null"
RANGE = "name => document.querySelector(`#${name} .plot`)._fullLayout.xaxis.range.map(one => String(one))"
TIMED = ("capacity", "kept", "backlog", "heat", "forecast", "plans")
PATIENCE = 60  # seconds: machines that run tests are busy
Page: TypeAlias = Any  # playwright's types cannot be named where it is not installed
Browser: TypeAlias = Any  # as above


def until(page: Page, question: str, arg: object = None) -> None:
    """Wait until the page says yes; playwright's own way is `eval`, which the page's security policy forbids."""
    for _ in range(PATIENCE * 20):
        if page.evaluate(question, arg):
            return
        page.wait_for_timeout(50)
    raise AssertionError(f"never true within {PATIENCE} s: {question} {arg}")


class Watched:
    """A page, and everything it said or asked for."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.said: list[str] = []
        self.asked: list[str] = []
        page.on("console", lambda message: self.said.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: self.said.append(str(error)))
        page.on("request", lambda request: self.asked.append(request.url))

    def open(self, path: Path) -> "Watched":
        self.page.goto(path.as_uri())
        strategy = self.page.locator('select[data-key="strategy"]')
        if strategy.count():  # one that plans has something to show in every figure, whichever the verdict names
            strategy.select_option("lt-ua")
        return self

    def draw(self, name: str) -> Page:
        """Scroll to a figure, and wait until it is drawn."""
        section = self.page.locator(f"section#{name}")
        section.scroll_into_view_if_needed()
        until(self.page, DRAWN, name)
        return section

    def names(self) -> list[str]:
        """Figures that have something to draw."""
        found: list[str] = self.page.eval_on_selector_all("section.figure:has(.plot)", "all => all.map(one => one.id)")
        return found


def watched(browser: Browser, size: tuple[int, int], theme: str) -> Watched:
    context = browser.new_context(viewport={"width": size[0], "height": size[1]}, color_scheme=theme, reduced_motion="reduce")
    return Watched(context.new_page())


@pytest.fixture
def wide(browser: Browser) -> Iterator[Watched]:
    found = watched(browser, WIDE, "light")
    yield found
    found.page.context.close()


@pytest.mark.slow
@pytest.mark.parametrize(("size", "theme"), [(WIDE, "light"), (PHONE, "dark")])
def test_every_section_is_drawn_in_silence_and_without_faults_of_access(
    browser: Browser, compared: Path, pictures: Path, size: tuple[int, int], theme: str
) -> None:
    one = watched(browser, size, theme).open(compared)
    kind = f"{theme}-{'phone' if size == PHONE else 'wide'}"
    one.page.screenshot(path=pictures / f"{kind}-00-first-screen.png")
    for number, name in enumerate(one.names(), start=1):
        one.draw(name).screenshot(path=pictures / f"{kind}-{number:02d}-{name}.png")
    assert one.page.evaluate("document.documentElement.dataset.theme") == theme
    assert one.page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "the page scrolls sideways"
    one.page.locator("#capacity details.data > summary").click()
    faults = axe.Axe().run(one.page).response["violations"]
    grave = [each for each in faults if each["impact"] in {"serious", "critical"}]
    assert [f"{each['id']}: {each['help']}: {[node['html'][:200] for node in each['nodes']]}" for each in grave] == []
    assert one.said == []
    assert [url for url in one.asked if not url.startswith(("file:", "data:", "blob:"))] == []
    assert sum(url.startswith("file:") for url in one.asked) == 1, "it is one file"
    one.page.context.close()


def test_a_zoom_in_one_figure_moves_all_others_and_reset_takes_it_back(wide: Watched, compared: Path) -> None:
    wide.open(compared)
    first = wide.draw("capacity")
    wide.draw("backlog")
    whole = wide.page.evaluate(RANGE, "backlog")
    first.scroll_into_view_if_needed()
    box = first.locator(".nsewdrag").first.bounding_box()
    y = box["y"] + box["height"] / 2
    wide.page.mouse.move(box["x"] + box["width"] * 0.4, y)
    wide.page.mouse.down()
    wide.page.mouse.move(box["x"] + box["width"] * 0.6, y, steps=5)
    wide.page.mouse.up()
    moved = "([name, whole]) => String(document.querySelector(`#${name} .plot`)._fullLayout.xaxis.range) !== String(whole)"
    until(wide.page, moved, ["backlog", whole])
    for name in TIMED:  # those that are drawn later begin where the others are
        wide.draw(name)
    ranges = [[edge[:16] for edge in wide.page.evaluate(RANGE, name)] for name in TIMED]
    assert all(one == ranges[0] for one in ranges), ranges
    assert "day 1 00:4" in wide.page.locator("#range").inner_text()
    wide.page.locator("#reset").click()
    until(wide.page, "() => document.getElementById('range').textContent === ''")
    back = "([name, whole]) => String(document.querySelector(`#${name} .plot`)._fullLayout.xaxis.range) === String(whole)"
    until(wide.page, back, ["capacity", whole])
    assert wide.said == []


def test_the_buttons_zoom_by_keyboard(wide: Watched, compared: Path) -> None:
    wide.open(compared).draw("capacity")
    wide.page.locator('[data-zoom="in"]').focus()
    wide.page.keyboard.press("Enter")
    assert wide.page.locator("#range").inner_text() == "day 1 00:30 to day 1 01:30"
    wide.page.locator('[data-zoom="right"]').press("Enter")
    assert wide.page.locator("#range").inner_text() == "day 1 01:00 to day 1 02:00"


def test_hovering_a_decision_says_why(wide: Watched, compared: Path) -> None:
    wide.open(compared)
    section = wide.draw("capacity")
    section.scroll_into_view_if_needed()
    marks = section.locator(".plot .scatterlayer .trace path.point")
    assert marks.count() > 0
    marks.first.hover(force=True)
    until(wide.page, "() => document.querySelector('#capacity .hoverlayer').textContent.includes('wanted')")
    assert "done" in str(section.locator(".hoverlayer").first.text_content())


def test_what_is_chosen_is_shown_in_every_figure(wide: Watched, compared: Path) -> None:
    wide.open(compared).draw("capacity")
    wide.page.locator('select[data-key="strategy"]').select_option("reactive")
    wide.page.locator('select[data-key="model"]').select_option("llama-3.1-8b")
    shown = "() => document.querySelector('#capacity .shown').textContent"
    until(wide.page, f"() => ({shown})() === 'llama-3.1-8b · reactive'")
    assert "under reactive" in str(wide.page.locator("#capacity .plot").get_attribute("aria-label"))
    assert wide.page.locator("#forecast").is_hidden(), "reactive forecasts nothing, and no card says so"
    assert wide.page.locator('.contents a[href="#forecast"]').is_hidden()
    wide.draw("heat")
    assert "all models, whichever is chosen" in wide.page.locator("#heat .shown").inner_text()
    wide.page.locator("#latencies").scroll_into_view_if_needed()
    wide.page.locator("#latencies .local select").select_option("niw")
    until(wide.page, "() => document.querySelector('#latencies .shown').textContent.startsWith('niw')")


PRINTED = """() => addEventListener("beforeprint", () => { window.printed =
  [...document.querySelectorAll("section.figure")].map(one =>
  [one.id, one.hidden || one.querySelector(".main-svg") !== null, one.querySelector(".main-svg")?.getAttribute("width")]) })"""


def test_paper_has_every_figure_and_none_is_cut(browser: Browser, compared: Path) -> None:
    one = watched(browser, WIDE, "dark").open(compared)
    one.page.evaluate(PRINTED)
    for paper, width in (("A4", 703), ("Letter", 725)):  # pixels between margins of 12 mm
        pages = one.page.pdf(format=paper)
        printed = one.page.evaluate("window.printed")
        assert len(printed) >= 10
        assert [name for name, drawn, _ in printed if not drawn] == []
        assert {float(svg) for _, _, svg in printed if svg} == {660.0}
        assert pages.count(b"/Type /Page") > 5
        assert one.page.evaluate("document.documentElement.dataset.theme") == "dark", "afterwards it is as it was"
        one.page.emulate_media(media="print")
        one.page.set_viewport_size({"width": width, "height": 1000})
        one.page.evaluate("dispatchEvent(new Event('beforeprint'))")
        assert one.page.evaluate("document.documentElement.scrollWidth") <= width
        one.page.evaluate("dispatchEvent(new Event('afterprint'))")
        one.page.emulate_media(media="screen")
        one.page.set_viewport_size({"width": WIDE[0], "height": WIDE[1]})
    assert one.said == []
    one.page.context.close()


def test_a_phone_comes_to_the_figures_within_eight_screens(browser: Browser, compared: Path) -> None:
    one = watched(browser, PHONE, "light").open(compared)
    assert one.page.locator("details.more").first.evaluate("one => one.open") is False
    top = one.page.evaluate("document.querySelector('section.figure:not([hidden])').getBoundingClientRect().top + scrollY")
    assert top <= 8 * PHONE[1]
    one.page.locator("details.more > summary").first.click()
    assert one.page.locator("details.more .sheet").first.is_visible()
    one.page.context.close()


def test_the_theme_button_changes_page_and_figures(wide: Watched, alone: Path) -> None:
    wide.open(alone).draw("capacity")
    paper = "() => document.querySelector('#capacity .main-svg').style.background"
    before = wide.page.evaluate(paper)
    wide.page.locator("#theme").click()
    until(wide.page, f"before => ({paper})() !== before", before)
    assert wide.page.evaluate("document.documentElement.dataset.theme") == "dark"
    assert wide.page.locator("#theme").get_attribute("aria-pressed") == "true"
    assert wide.said == []


def test_every_figure_has_its_data_as_a_table_and_as_csv(wide: Watched, compared: Path, tmp_path: Path) -> None:
    wide.open(compared)
    for name in wide.names():
        section = wide.draw(name)
        section.locator("details.data > summary").click()
        until(wide.page, "name => document.querySelector(`#${name} .tables tbody tr`) !== null", name)
        with wide.page.expect_download() as arriving:
            section.locator("button.csv").first.click()
        arriving.value.save_as(tmp_path / f"{name}.csv")
        lines = list(csv.reader((tmp_path / f"{name}.csv").read_text("utf-8").splitlines()))
        assert len(lines) > 1, name
        assert {len(line) for line in lines} == {len(lines[0])}, name
        head = section.locator(".tables table").first.locator("th").all_inner_texts()
        assert head == lines[0], name
    assert wide.said == []
