"""Budgets of a day: what is used through all processes counts, requests beyond are refused until midnight, and nothing is lost.

Read next: `src/sageserve/live/gateway/budgets.py`, `src/sageserve/live/control/spending.py`.
"""

from pathlib import Path

import httpx
import pytest

from sageserve.base.config import LiveSettings
from sageserve.base.errors import ConfigError
from sageserve.base.units import DAY, HOUR, MINUTE
from sageserve.live.control.spending import SpendingFile
from sageserve.live.gateway.api_error import ApiError
from sageserve.live.gateway.budgets import DayBudgets
from sageserve.live.gateway.keys import hash_of
from sageserve.live.wire import KeySpent, SpentElsewhere
from tests.live.gateway.stage import HELLO, USAGE, Engine, play, staged

NOON = 20_000 * DAY + 12 * HOUR


def key(name: str, **more: object) -> dict[str, object]:
    return {"name": name, "sha256": hash_of(name.encode()), **more}


class Day:
    """A process's budgets, whose clock stands at noon until it is moved."""

    def __init__(self, *keys: dict[str, object], prices: object = None) -> None:
        live = LiveSettings.model_validate({"keys": keys, "prices": prices or {}})
        self.now = 7
        self.wall = NOON
        self.budgets = DayBudgets(live, ("big", "small"), lambda: self.wall, lambda: self.now)

    def refuses(self, name: str) -> ApiError | None:
        try:
            self.budgets.check(name)
        except ApiError as refused:
            return refused
        return None


def test_tokens_of_a_day_are_used_up_and_come_back_at_midnight() -> None:
    day = Day(key("a", tokens_per_day=100), key("b"))
    day.budgets.note("a", 0, 60, 39)
    assert day.refuses("a") is None
    day.budgets.note("a", 1, 1, 0)
    refused = day.refuses("a")
    assert refused is not None
    assert (refused.status, refused.code, refused.retry_after) == (429, "insufficient_quota", 12 * HOUR)
    assert "100 of 100 tokens" in refused.message
    assert "2024-10-05T00:00:00+00:00" in refused.message
    assert b"x-should-retry: false" in refused.fields()
    assert day.refuses("b") is None
    day.wall += 40 * DAY
    assert day.refuses("a") is not None, "a step of the machine's clock gives no second budget"
    day.now += 12 * HOUR
    assert day.refuses("a") is None
    assert day.budgets.report(anew=True) is None, "nothing was used today"


def test_dollars_go_by_the_prices_of_models() -> None:
    day = Day(key("a", dollars_per_day=0.001), prices={"big": {"input": 1, "output": 5}, "small": {"input": 0, "output": 0}})
    day.budgets.note("a", 0, 500, 99)
    day.budgets.note("a", 1, 10**6, 10**6)
    assert day.refuses("a") is None
    day.budgets.note("a", 0, 0, 1)
    refused = day.refuses("a")
    assert refused is not None
    assert "0.00 of 0.00 dollars" in refused.message
    with pytest.raises(ConfigError, match="no price of small"):
        Day(key("a", dollars_per_day=1), prices={"big": {"input": 1, "output": 5}})


def test_a_request_that_would_go_beyond_is_refused_over_http_and_jobs_of_the_key_with_it() -> None:
    async def story() -> None:
        keys = [key("a", tokens_per_day=2 * USAGE["total_tokens"]), key("b")]
        async with staged(Engine(), keys=keys) as stage, httpx.AsyncClient(base_url=stage.url) as client:

            async def send(name: str) -> httpx.Response:
                return await client.post("/v1/chat/completions", json=HELLO, headers={"authorization": f"Bearer {name}"})

            assert [(await send("a")).status_code for _ in range(2)] == [200, 200]
            refused = await send("a")
            assert (refused.status_code, refused.json()["error"]["code"]) == (429, "insufficient_quota")
            assert refused.headers["x-should-retry"] == "false"
            assert int(refused.headers["retry-after"]) <= DAY // 1_000_000
            assert (await send("b")).status_code == 200
            assert stage.worker.context.budgets.used("a") == KeySpent("a", 26, 0)

    play(story())


class Fleet:
    """Gateway processes and control's file, without sockets."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.days: list[Day] = []
        self.begin()

    def begin(self) -> None:
        """A control process begins; gateways say anew what they know."""
        self.file = SpendingFile(self.path, self.send)
        for number in range(len(self.days)):
            self.file.meet(number, f"n{number}")
        for day in self.days:
            self.report(day, anew=True)

    def send(self, gateway: int, message: SpentElsewhere) -> bool:
        self.days[gateway].budgets.hear(message)
        return True

    def add(self) -> Day:
        self.days.append(Day(key("a", tokens_per_day=100)))
        self.file.meet(len(self.days) - 1, f"n{len(self.days) - 1}")
        return self.days[-1]

    def report(self, day: Day, *, anew: bool = False) -> None:
        said = day.budgets.report(anew=anew)
        if said is not None:
            self.file.take(self.days.index(day), said)
        for gateway in self.file._nonces:
            self.file._tell(gateway)


def test_processes_share_a_budget_and_a_restart_of_any_of_them_forgets_nothing(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path / "spending.json")
    one, two = fleet.add(), fleet.add()
    one.budgets.note("a", 0, 30, 0)
    two.budgets.note("a", 0, 30, 0)
    for day in (one, two, one):
        fleet.report(day)
    assert [day.budgets.used("a").tokens for day in fleet.days] == [60, 60]
    fleet.file.save()
    fleet.begin()
    assert [day.budgets.used("a").tokens for day in fleet.days] == [60, 60], "what was said twice counts once"
    fleet.file.left(1)
    three = fleet.add()
    assert three.budgets.used("a").tokens == 60, "that of a process that is gone, too"
    three.budgets.note("a", 0, 40, 0)
    fleet.days[1] = Day()
    fleet.report(three)
    assert one.refuses("a") is not None
    one.now += 12 * HOUR + MINUTE
    assert one.refuses("a") is None


def test_a_file_that_cannot_be_read_or_written_stops_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "spending.json"
    path.write_bytes(b"{not json")
    fleet = Fleet(path)
    day = fleet.add()
    day.budgets.note("a", 0, 1, 1)
    fleet.report(day)
    path.unlink()
    path.mkdir()
    fleet.file.save()
    path.rmdir()
    fleet.file.save()
    assert SpendingFile(path, fleet.send)._days == {NOON // DAY: {"n0": {"a": (2, 0)}}}
    assert "cannot be read" in caplog.text
    assert "cannot be written" in caplog.text
