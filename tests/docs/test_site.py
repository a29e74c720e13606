"""The site: it builds, its links and headings are checked as it builds, and its pages load nothing from anybody.

Read next: zensical.toml, docs/why/decisions/0007-documentation-site.md.
"""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Final

import pytest

ROOT: Final = Path(__file__).resolve().parents[2]
PROGRAM: Final = Path(sys.executable).with_name("zensical")
BROWSERS: Final = ("chromium", "chromium-browser", "google-chrome")
LOADING: Final = {"script": "src", "img": "src", "iframe": "src", "source": "src", "video": "src", "audio": "src", "link": "href"}

pytestmark = pytest.mark.skipif(not PROGRAM.exists(), reason="needs the site's builder: pip install 'sageserve[docs]'")


def build(folder: Path, *, added: str = "") -> subprocess.CompletedProcess[str]:
    """Build a copy of the site in a folder, with something added to its first page."""
    shutil.copytree(ROOT / "docs", folder / "docs")
    shutil.copy(ROOT / "zensical.toml", folder)
    first = folder / "docs" / "index.md"
    first.write_text(first.read_text("utf-8") + added, "utf-8")
    command = [str(PROGRAM), "build", "--strict", "--clean"]
    return subprocess.run(command, cwd=folder, capture_output=True, encoding="utf-8", check=False)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    done = build(folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "build" / "site"


class Loaded(HTMLParser):
    """Addresses that a browser loads to show a page; what a reader may click is none of them."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Keep the address that a tag loads."""
        address = dict(attrs).get(LOADING.get(tag, ""))
        if address and dict(attrs).get("rel") not in {"canonical", "next", "prev"}:
            self.addresses.append(address)


def loaded(page: str) -> list[str]:
    parser = Loaded()
    parser.feed(page)
    return parser.addresses


def foreign(page: str) -> Iterator[str]:
    """Of what a page loads, that which is on no disk of the reader's."""
    return (address for address in loaded(page) if re.match(r"(?:[a-z]+:)?//|data:text/html", address))


def test_a_broken_link_ends_the_build(tmp_path: Path) -> None:
    done = build(tmp_path, added="\n[x](nowhere.md)\n\n[x](#nowhere)\n\n[x](reference/kernel.md#nowhere)\n")
    assert done.returncode != 0
    found = re.findall(r"Warning:\S* (\w+) does not exist", done.stderr)
    assert len(found) == 3, done.stdout + done.stderr


def test_every_page_is_built(site: Path) -> None:
    pages = sorted(path.relative_to(ROOT / "docs").with_suffix(".html") for path in (ROOT / "docs").rglob("*.md"))
    assert [page for page in pages if not (site / page).exists()] == []


def test_pages_load_nothing_from_a_network(site: Path) -> None:
    pages = sorted(site.rglob("*.html"))
    assert len(pages) > 20
    texts = {page.relative_to(site).as_posix(): page.read_text("utf-8") for page in pages}
    assert all(loaded(text) for text in texts.values())
    assert [f"{name}: {address}" for name, text in texts.items() for address in foreign(text)] == []
    sheets = "\n".join(sheet.read_text("utf-8") for sheet in site.rglob("*.css"))
    assert re.findall(r"(?:url\(|@import )['\"]?(?:https?:)?//[^)]*", sheets) == []


@pytest.mark.parametrize(
    "page",
    [
        '<link rel="stylesheet" href="https://fonts.example/css">',
        '<script src="//cdn.example/x.js"></script>',
        '<img src="http://example.org/x.png">',
    ],
)
def test_a_page_that_loads_from_a_network_is_seen(page: str) -> None:
    assert len(list(foreign(page))) == 1
    assert list(foreign(page.replace("link", "a").replace("script", "a").replace("img", "a"))) == []


def test_a_browser_asks_nobody(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What scripts fetch is seen only in a browser: pages opened as files, and sent by a server and searched."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright drives the browser: pip install playwright")
    program = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if program is None:
        pytest.skip("no Chromium here: apt-get install chromium")
    monkeypatch.delenv("TMPDIR", raising=False)  # Chromium makes a socket there, whose path may have 107 bytes
    with served(site) as server, playwright.sync_playwright() as tool:
        page = tool.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu"]).new_page()
        page.set_default_timeout(60_000)  # machines that run tests are busy
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.goto((site / "index.html").as_uri())
        page.goto(f"{server}/tutorial/ten-minutes.html")
        page.locator("button.md-search__button").click()
        page.locator("dialog input").first.fill("autoscaler")
        page.locator("dialog mark").first.wait_for()
    assert len(asked) > 5
    assert [address for address in asked if not address.startswith(("file:", "data:", "blob:", f"{server}/"))] == []


class Quiet(SimpleHTTPRequestHandler):
    """Sends files and says nothing about it."""

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 # the name is the standard library's
        """Say nothing."""


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """A folder on a port of its own."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
