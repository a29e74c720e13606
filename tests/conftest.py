"""What every test may ask for: reproducible generated cases, kernels from one cache, and the real traces.

Must not hold a fixture that only one folder needs. Read next: `test_tidy.py` for the rules the code keeps.
"""

import importlib.util
import os
import shutil
import signal
import ssl
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import certifi
import pytest
from hypothesis import HealthCheck, settings

ROOT = Path(__file__).resolve().parent.parent

# The suite replays the same cases on every machine, so that a red run is red for everyone.
# To look for new ones: pytest --hypothesis-profile=explore
settings.register_profile(
    "suite",
    max_examples=50,  # keeps the suite in minutes on two cores; a law that needs more says so itself
    derandomize=True,
    deadline=None,  # the first example of a compiled function pays for its compilation
    suppress_health_check=[HealthCheck.too_slow],  # for the same reason
    print_blob=True,
)
settings.register_profile("explore", settings.get_profile("suite"), max_examples=2_000, derandomize=False)
settings.load_profile("suite")

# A shell that runs the suite in the background has it ignore Ctrl-C, and every program that a test starts would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

if importlib.util.find_spec("sageserve.cli.kernels") is not None:
    # Before any test imports a compiled module: numba reads the place of its cache once, on import.
    importlib.import_module("sageserve.cli.kernels").use_cache()


@pytest.fixture(scope="session", autouse=True)
def _authorities() -> Iterator[None]:
    """Certificates of authorities are read once: each client of HTTP does, for 20 ms, and nearly none of them ever sees TLS."""
    plain, kept = ssl.create_default_context, dict[str, ssl.SSLContext]()

    def once(purpose: ssl.Purpose = ssl.Purpose.SERVER_AUTH, **more: Any) -> ssl.SSLContext:  # noqa: ANN401 # ssl's
        if (purpose, more) != (ssl.Purpose.SERVER_AUTH, {"cafile": certifi.where()}):
            return plain(purpose, **more)
        return kept.setdefault("", kept.get("") or plain(purpose, **more))

    ssl.create_default_context = once
    yield
    ssl.create_default_context = plain


@pytest.fixture(scope="session")
def repo_root() -> Path:
    """The folder that holds pyproject.toml."""
    return ROOT


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real traces and measurements; tests that need it are skipped where it is absent."""
    given = os.environ.get("SAGESERVE_DATA")  # noqa: TID251  # a test run is told where its data is, as the CLI is
    folder = Path(given) if given else ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("the real traces are not on this machine: set SAGESERVE_DATA to the folder that holds azure2023")
    return folder


@pytest.fixture(scope="session")
def shared_cases() -> Path:
    """The folder of situations that others reported; tests that need it are skipped where it is absent."""
    folder = ROOT.parent / "shared" / "cases"
    if not folder.is_dir():
        pytest.skip("the reported situations are not on this machine: they lie beside the checkout, in ../shared/cases")
    return folder


@pytest.fixture(scope="session")
def short_folder() -> Iterator[Callable[[], Path]]:
    """Makes folders whose paths leave room for the name of a Unix socket, about a hundred bytes in all, whatever TMPDIR says."""
    places = [place for place in (tempfile.gettempdir(), "/tmp") if os.access(place, os.W_OK)]  # noqa: S108 # mkdtemp makes it private
    shortest = min(places, key=len)
    base = Path(tempfile.mkdtemp(prefix="sageserve-", dir=shortest))
    try:
        yield lambda: Path(tempfile.mkdtemp(prefix="", dir=base))
    finally:
        shutil.rmtree(base, ignore_errors=True)  # a process that was killed may still be writing


BROWSERS = ("chromium", "chromium-browser", "google-chrome")
QUIET = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--no-first-run"]


@pytest.fixture(scope="module")
def browser(short_folder: Callable[[], Path]) -> Iterator[Any]:
    """A headless Chromium; its types cannot be named where playwright is not installed."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright drives the browser: pip install playwright")
    path = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if path is None:
        pytest.skip("there is no Chromium on this machine (Debian: apt install chromium)")
    own = {**os.environ, "TMPDIR": str(short_folder())}  # noqa: TID251 # a browser keeps a socket among its temporary files
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=path, args=QUIET, env=own)
        yield opened
        opened.close()
