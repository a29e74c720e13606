"""The live page in a real browser: what it shows, in silence, without asking anyone else, in both themes and on a phone.

Served without a fleet: the control process's routes over a status made here. Skipped where Chromium or playwright is absent.
Read next: `src/sageserve/live/control/page/index.html`.
"""

import math
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeAlias

import msgspec
import pytest
import uvicorn
from msgspec import structs
from starlette.applications import Starlette

from sageserve.live.control.admin import routes
from sageserve.live.control.day import (
    BacklogDay,
    DayDecision,
    DayPlan,
    DayView,
    EndpointDay,
    ForecastAhead,
    TierDay,
    Unseen,
)
from sageserve.live.control.status import (
    DecisionStatus,
    EndpointStatus,
    GatewayAddress,
    InstanceStatus,
    PoolStatus,
    Status,
    TierStatus,
)

axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe finds faults of accessibility")

WIDE, PHONE = (1280, 900), (390, 844)
PATIENCE = 30  # seconds: machines that run tests are busy
Page: TypeAlias = Any  # playwright's types cannot be named where it is not installed
Browser: TypeAlias = Any  # as above

WHY = "utilisation 82 % is above 70 %"
HOSTILE = "<img src=x onerror=alert(1)>"


def pool(endpoint: str, kind: str, **counts: int) -> PoolStatus:
    return structs.replace(PoolStatus(f"{endpoint}/{kind}", serving=0, coming=0, draining=0, spot=0, maximum=4), **counts)


def endpoint(region: str, model: str, *, load: float, blind: bool = False, jobs: int = 0, **counts: int) -> EndpointStatus:
    name = f"{region}/{model}"
    return EndpointStatus(
        name,
        region,
        model,
        min(1, load),
        load / 2,
        min(1, load),
        blind,
        jobs,
        (pool(name, "h100-80gb", **counts),),
        max(0, load - 1),
    )


def instance(number: int, where: str, state: str, *, inside: int = 0, kv: float | None = 0.25) -> InstanceStatus:
    seen = None if kv is None else 0.4
    return InstanceStatus(
        number, f"{where}/h100-80gb", state, 40.0 * number, f"http://127.0.0.1:{20_000 + number}", inside, kv, seen
    )


def made() -> Status:
    """A fleet with one of everything that the page can show."""
    small, large = "llama-3.1-8b", "llama-3.1-70b"
    decisions = (
        DecisionStatus(1_760_000_000.0, f"east/{small}/h100-80gb", 1, 1, "load", "", f"one more: {WHY}"),
        DecisionStatus(1_759_999_000.0, f"west/{large}/h100-80gb", -1, 0, "load", "blind", "nothing: its engines are not seen"),
    )
    return Status(
        fleet="local",
        strategy="reactive",
        acting=True,
        gateway=GatewayAddress("http://127.0.0.1:8100", 1, 1),
        up_s=4000.0,
        scraped_s=0.4,
        gpus_held=11,
        endpoints=(
            endpoint("east", small, load=0.82, jobs=1_234, serving=2, coming=1, draining=1),
            endpoint("west", small, load=0.05, jobs=1_234, serving=1),
            endpoint("east", large, load=1.3, serving=1, spot=1),
            endpoint("west", large, load=0.4, blind=True, serving=1),
        ),
        instances=(
            instance(0, f"east/{small}", "serving", inside=112),
            instance(1, f"east/{small}", "serving", inside=98),
            instance(2, f"east/{small}", "starting", kv=None),
            instance(3, f"east/{small}", "draining", inside=3),
            instance(4, f"west/{small}", "serving", inside=4),
            instance(8, f"east/{large}", "serving", inside=64),
            instance(9, f"east/{large}", "spot"),
            instance(12, f"west/{large}", "serving", kv=None),
        ),
        tiers=(
            TierStatus("iw-f", 12_345, 12_300, 12, 12_280),
            TierStatus("iw-n", 4_000, 3_990, 0, 3_990),
            TierStatus("niw", 0, 0, 0, 0),
        ),
        decisions=decisions,
    )


def made_day() -> DayView:
    """A day of one of its endpoints, with a time in which it was not seen, and the forecast of the next hours."""
    end, step, steps = 1_760_000_100.0, 300.0, 289
    begin = end - (steps - 1) * step
    name = "east/llama-3.1-8b"
    busy = tuple(None if 100 <= k < 110 else round(1.5 + abs(k - 144) / 100, 2) for k in range(steps))
    needed = tuple(None if one is None else float(math.ceil(one)) for one in busy)
    ahead = ForecastAhead((end, end + 900, end + 1800), (3.0, 3.2, 3.4), (2.0, 2.1, 2.2), (4.0, 4.5, 5.0))
    unseen = (Unseen(begin + 100 * step, begin + 110 * step, "signals too old"),)
    each = EndpointDay(
        name,
        busy,
        needed,
        (2.0,) * steps,
        (2.0,) * 144 + (3.0,) * (steps - 144),
        (None,) * steps,
        unseen,
        ahead,
        (f"{name}/h100-80gb",),
    )
    decisions = (
        DayDecision(begin + 150 * step, f"{name}/h100-80gb", f"one more: {WHY}", "not"),
        DayDecision(begin + 200 * step, f"{name}/h100-80gb", HOSTILE, "no-stock"),
        DayDecision(begin + 150 * step, f"{name}/tuned/h100-80gb", "of a model named like this one", "not"),
    )
    plans = (DayPlan(begin + 250 * step, {f"{name}/h100-80gb": 3}, {f"{name}/h100-80gb": "demand"}, ""),)
    tiers = (TierDay("iw-f", 0.95, (None,) * 10 + (0.999,) * (steps - 10)), TierDay("niw", 0.95, (None,) * steps))
    backlog = (BacklogDay("llama-3.1-8b", (1234.0,) * steps, (None,) * 280 + (-60.0,) * (steps - 280)),)
    return DayView(begin, end + 10, step, (each,), tiers, backlog, decisions, plans)


class Served:
    """The page's server, and the status that it gives out next."""

    def __init__(self) -> None:
        self.status = made()
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.day = made_day()
        app = Starlette(routes=routes(lambda: self.status, dict, lambda: self.day))
        self.server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=self.port, log_level="warning", lifespan="off"))
        self.thread = threading.Thread(target=self.server.run, daemon=True)
        self.thread.start()
        while not self.server.started:  # a browser that comes sooner is refused
            time.sleep(0.01)

    def stop(self) -> None:
        self.server.should_exit = True
        self.thread.join(10)


class Watched:
    """A page, and everything it said or asked for."""

    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        self.said: list[str] = []
        self.asked: list[str] = []
        page.on("console", lambda message: self.said.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: self.said.append(str(error)))
        page.on("request", lambda request: self.asked.append(request.url))
        page.goto(f"{url}/ui")
        self.until("() => document.querySelectorAll('#instances tr').length > 0")
        self.until("() => document.querySelectorAll('#day svg[tabindex]').length > 0")

    def until(self, question: str) -> None:
        """Wait until the page says yes; playwright's own way is `eval`, which the page's security policy forbids."""
        for _ in range(PATIENCE * 20):
            if self.page.evaluate(question):
                return
            self.page.wait_for_timeout(50)
        raise AssertionError(f"never true within {PATIENCE} s: {question}")

    def text(self, selector: str) -> str:
        return str(self.page.locator(selector).inner_text())


@pytest.fixture
def served() -> Iterator[Served]:
    found = Served()
    yield found
    found.stop()


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where screenshots go: SAGESERVE_PICTURES, to keep them as build products, or a folder that is forgotten."""
    given = os.environ.get("SAGESERVE_PICTURES")  # noqa: TID251  # a test run is told where its products go
    folder = Path(given) if given else tmp_path_factory.mktemp("pictures")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def opened(browser: Browser, served: Served, size: tuple[int, int] = WIDE, theme: str = "light") -> Watched:
    context = browser.new_context(viewport={"width": size[0], "height": size[1]}, color_scheme=theme, reduced_motion="reduce")
    return Watched(context.new_page(), served.url)


@pytest.mark.parametrize(("size", "theme"), [(WIDE, "light"), (PHONE, "dark")])  # each size and each theme: faults are of one
def test_it_is_drawn_in_silence_and_without_faults_of_access(
    browser: Browser, served: Served, pictures: Path, size: tuple[int, int], theme: str
) -> None:
    one = opened(browser, served, size, theme)
    one.page.screenshot(path=pictures / f"live-{theme}-{'phone' if size == PHONE else 'wide'}.png", full_page=True)
    assert one.page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "the page scrolls sideways"
    grounds = {"light": "rgb(251, 251, 249)", "dark": "rgb(20, 23, 26)"}
    assert one.page.evaluate("getComputedStyle(document.body).backgroundColor") == grounds[theme]
    faults = axe.Axe().run(one.page).response["violations"]
    grave = [each for each in faults if each["impact"] in {"serious", "critical"}]
    assert [f"{each['id']}: {each['help']}: {[node['html'][:200] for node in each['nodes']]}" for each in grave] == []
    assert one.said == []
    assert {url.removeprefix(served.url) for url in one.asked if not url.startswith("data:")} == {
        "/ui",
        "/admin/status",
        "/admin/day",
    }
    one.page.context.close()


def test_of_a_fleet_that_is_watched_nobody_counts_answers(browser: Browser, served: Served) -> None:
    served.status = msgspec.structs.replace(made(), acting=False, watched=("http://prom:9090",))
    one = opened(browser, served)
    assert "only watching" in one.text("#how")
    assert "seen through http://prom:9090" in one.text("#how")
    assert "answered" not in one.text("#tiers")
    assert one.said == []
    one.page.context.close()


def test_it_shows_regions_instances_tiers_queue_and_decisions_with_reasons(browser: Browser, served: Served) -> None:
    one = opened(browser, served)
    cards = one.page.locator("#endpoints .card")
    shown = dict(zip(one.page.locator("#endpoints h3").all_inner_texts(), cards.all_inner_texts(), strict=True))
    assert set(shown) == {"east/llama-3.1-8b", "west/llama-3.1-8b", "east/llama-3.1-70b", "west/llama-3.1-70b"}
    assert "82\u00a0% utilised" in shown["east/llama-3.1-8b"]
    assert "1,234" in shown["east/llama-3.1-8b"]
    assert "not seen" in shown["west/llama-3.1-70b"]
    assert "utilised" not in shown["west/llama-3.1-70b"], "what is not seen has no number"
    states = one.page.locator("#endpoints .card:first-child .dots li").evaluate_all("all => all.map(one => one.className)")
    assert states == ["serving", "serving", "starting", "draining"]
    assert one.page.locator("#instances tr").count() == 8
    assert "99.8\u00a0% on time" in one.text("#tiers .card:first-child"), "twenty of 12,300 were late"
    assert "100\u00a0% on time" in one.text("#tiers .card:nth-child(2)")
    assert "12,345" in one.text("#tiers .card:first-child")
    assert one.page.locator("#decisions tr").count() == 2
    assert WHY in one.text("#decisions tr:first-child")
    assert "0 of −1" in one.text("#decisions tr:last-child")
    one.page.context.close()


def test_it_refreshes_itself_and_says_when_nobody_answers(browser: Browser, served: Served) -> None:
    one = opened(browser, served)
    served.status = msgspec.structs.replace(made(), notes=("3 journal lines could not be written: is the disk full?",))
    one.until("() => document.getElementById('note').textContent.includes('disk full')")
    served.status = made()
    one.until("() => document.getElementById('note').hidden")
    served.stop()
    one.until("() => document.getElementById('note').textContent.includes('does not answer')")
    assert one.page.locator("#instances tr").count() == 8, "what was known last stays"
    one.page.context.close()


def test_names_are_text_and_never_markup(browser: Browser, served: Served) -> None:
    status = made()
    decision = msgspec.structs.replace(status.decisions[0], words=HOSTILE)
    tiers = (msgspec.structs.replace(status.tiers[0], tier=HOSTILE),)
    served.status = msgspec.structs.replace(status, decisions=(decision,), tiers=tiers, fleet=HOSTILE)
    one = opened(browser, served)
    assert one.text("#tiers h3") == HOSTILE
    assert HOSTILE in one.text("#decisions")
    assert one.page.locator("main img").count() == 0
    assert one.said == []
    one.page.context.close()


def test_the_day_is_read_by_mouse_and_by_keyboard(browser: Browser, served: Served) -> None:
    one = opened(browser, served)
    titles = one.page.locator("#day h3").all_inner_texts()
    assert titles == [
        "east/llama-3.1-8b", "Promises kept", "Batch work of llama-3.1-8b", "Hours to the first deadline of llama-3.1-8b",
    ]  # fmt: skip
    assert "The first deadline has passed." in one.text("#day section:last-child .read")
    said = "#day section:first-child .read"
    assert "demand 2.94, needed 3, serving 2, asked for 3" in one.text(said)
    chart = one.page.locator("#day svg[tabindex]").first
    chart.focus()
    for key, expected in (
        ("ArrowRight", "forecast 3 (2 to 4)"),
        ("ArrowUp", "Plan: east/llama-3.1-8b/h100-80gb: 3 (demand)."),
        ("ArrowUp", HOSTILE),
        ("ArrowUp", f"one more: {WHY}."),
        ("Home", "demand 2.94"),
        ("End", "forecast 3.40 (2.20 to 5)"),
    ):
        one.page.keyboard.press(key)
        assert expected in one.text(said), key
    assert "another endpoint" not in one.text(said)
    box = chart.bounding_box()
    assert box is not None
    one.page.mouse.move(box["x"] + 44 + (box["width"] - 44) * 105.5 / 295, box["y"] + 60)
    assert "not seen: signals too old" in one.text(said)
    assert one.page.locator("#day img").count() == 0
    assert one.said == []
    one.page.context.close()


def test_who_reads_a_figure_goes_on_reading_in_what_is_known_since(browser: Browser, served: Served) -> None:
    one = opened(browser, served)
    said, chart = "#day section:first-child .read", one.page.locator("#day svg[tabindex]").first
    chart.focus()
    for _ in range(6):
        one.page.keyboard.press("ArrowLeft")
    before = one.text(said)
    more = "value => value === null ? null : value + 1"
    later = f"day => ({{...day, endpoints: day.endpoints.map(end => ({{...end, busy: end.busy.map({more})}}))}})"
    one.page.evaluate(f"showDay(({later})(latest))")
    after = one.text(said)
    assert after != before
    assert after.partition(": ")[0] == before.partition(": ")[0], "at the same time"
    assert one.page.evaluate("document.activeElement.name") == "east/llama-3.1-8b"
    one.page.keyboard.press("End")
    one.page.evaluate("showDay({...latest, begins_s: latest.begins_s + latest.step_s, now_s: latest.now_s + latest.step_s})")
    assert one.text(said) != after
    assert one.page.evaluate("latest.now_s - document.activeElement.reading()") <= 0, "the newest stays the newest"
    assert one.said == []
    one.page.context.close()
