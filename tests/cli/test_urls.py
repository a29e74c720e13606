"""URLs that people name: a password in one is said nowhere, and what is no URL is refused as that by every command that asks one.

Read next: `src/sageserve/base/urls.py`, `src/sageserve/cli/urls.py`.
"""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from sageserve.base.errors import ConfigError, SageServeError
from sageserve.base.urls import is_store, shown_text, shown_url, shown_value
from sageserve.cli.agent import check_url
from sageserve.cli.main import app
from sageserve.cli.urls import checked_url
from tests.live.watch.command import FLEET

WORD = "hunter2"
NOBODY = f"http://bob:{WORD}@127.0.0.1:1"  # where no server is
BROKEN = f"http://bob:{WORD}@h:abc", f"ftp://bob:{WORD}@h", f"http://bob:{WORD}@[::1"
SIGNS = st.text("ab:/@'\" \n#?")
AT = "live.clusters.here.prometheus.url"
OPTIONS = (
    "init new.yaml --prometheus URL",
    "calibrate counters --out new.yaml --prometheus URL",
    "calibrate benchmark URL --model small",
    "calibrate benchmark http://127.0.0.1:1 --model small --metrics-url URL",
    "watch fleet.yaml --state state --prometheus URL",
    f"watch fleet.yaml --state state --set {AT}=URL",
    "batch status --url URL",
    "envoy run --folder envoy --state state --admin URL",
)
REFUSES = (
    "backtest fleet.yaml --last 1h --prometheus URL",  # these go on asking for a while
    "scaler fleet.yaml --set live.scaler.listen=127.0.0.1:0 --leader URL",
)


def said_to(command: str, url: str) -> str:
    """All that a command says that fails as it should."""
    ran = CliRunner().invoke(app, [word.replace("URL", url) for word in command.split()])
    assert ran.exit_code != 0
    assert isinstance(ran.exception, SageServeError), (command, ran.output, ran.exception)
    return f"{ran.output}{ran.exception}"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "fleet.yaml").write_text(FLEET, "utf-8")
    (tmp_path / "state").mkdir()
    return tmp_path


@pytest.mark.parametrize("command", [*OPTIONS, *REFUSES])
@pytest.mark.usefixtures("folder")
def test_no_command_says_a_password(command: str) -> None:
    for url in (*BROKEN, *(() if command in REFUSES else (NOBODY,))):
        said = said_to(command, url)
        assert WORD not in said, (command, url)
        assert "bob" not in said, (command, url)


@pytest.mark.parametrize("command", [one for one in (*OPTIONS, *REFUSES) if AT not in one])
@pytest.mark.usefixtures("folder")
def test_what_is_no_url_is_refused_as_that(command: str) -> None:
    for url in ("http://h:abc", "ftp://h", "http:", "http://h:0", "http://h:99999", "http://[::1", "h:9901"):
        if "benchmark" in command and "//" not in url:
            continue  # which takes an engine's address without http://
        said = said_to(command, url)
        words = ("is no URL", "is not the address of a server", "the URL of an engine begins with")
        assert any(one in said for one in words), (command, url, said)


def test_a_scenario_is_shown_without_the_password_of_its_server(folder: Path) -> None:
    table, told = (
        CliRunner().invoke(app, ["scenario", "show", "fleet.yaml", "--set", f"{AT}={NOBODY}", *more]).output
        for more in ([], ["--json"])
    )
    assert WORD not in f"{table}{told}"
    assert json.loads(told)["scenario"]["live"]["clusters"]["here"]["prometheus"]["url"] == "http://127.0.0.1:1"


@given(SIGNS, SIGNS, st.sampled_from(["http", "https", "ftp"]))
def test_of_a_url_all_that_may_be_a_password_is_left_out(user: str, password: str, scheme: str) -> None:
    url = f"{scheme}://{user}:{password}@host:80/path"
    assert shown_url(url) == shown_value(url) == f"{scheme}://host:80/path"
    assert shown_text(f"--set a.url={url}: is wrong") == f"--set a.url={scheme}://host:80/path: is wrong"


@given(st.text("ab/@'\" \n#?"))
def test_what_is_no_url_stays_as_it_is(text: str) -> None:
    assert (shown_text(text), shown_value(text)) == (text, text)
    assert shown_url("http://host/a") == "http://host/a"


@pytest.mark.parametrize(
    "store", ["sqlit", "mysql://h/q", f"postgresql://b:{WORD}@h:abc/q", "postgresql://[::1", "postgresql://h:0/q"]
)
def test_a_store_that_is_none_is_refused_before_anything_begins(store: str) -> None:
    ran = CliRunner().invoke(app, ["scenario", "check", "quickstart", "--set", f"live.store={store}"])
    assert isinstance(ran.exception, ConfigError)
    assert "names no store" in str(ran.exception)
    assert WORD not in str(ran.exception)


def test_stores_pass() -> None:
    for store in (
        "sqlite",
        "memory",
        "sqlite:////q.db",
        f"postgresql://b:{WORD}/@h:5432/q?sslmode=require",
        "postgresql:///q?host=/run",
    ):
        assert is_store(store)
    for store in ("postgresql://me@a,b/q", "postgres://[::1]:5432/q", "postgresql+psycopg://h:/q"):
        assert is_store(store)


def test_urls_that_can_be_asked_pass() -> None:
    for url in ("http://h", "https://[::1]:9901/x", NOBODY):
        assert checked_url("--url", url, "x") == url
    with pytest.raises(ConfigError, match="--url: what was given is no URL\nsuch as x"):
        checked_url("--url", BROKEN[0], "x")


@pytest.mark.parametrize("url", [*BROKEN, NOBODY, "https://:99999/", f"https://{WORD}@h", f"https://h/?sig={WORD}"])
def test_an_agent_says_no_password_either(url: str) -> None:
    with pytest.raises(ConfigError) as refused:
        check_url("--report", url, None)
    assert WORD not in str(refused.value)
