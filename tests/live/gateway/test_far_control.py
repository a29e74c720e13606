"""Gateways of other machines, over TLS: one set of limits and budgets, counts that nothing loses or doubles, and a kept table.

Read next: `tests/live/test_link_port.py` for the port, `test_streams.py` for streams through restarts.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import msgspec
import numpy as np
import pytest
from msgspec import structs
from typer.testing import CliRunner

from sageserve.base.config import EngineAccess, LinkSettings, LinkTlsSettings, Scenario
from sageserve.base.units import HOUR, MINUTE, SECOND
from sageserve.cli.main import app
from sageserve.core.columns import ENDPOINT
from sageserve.core.layout import Layout
from sageserve.core.strategies import layout_of
from sageserve.live.control.gateway_reports import GatewayReports
from sageserve.live.control.spending import SpendingFile
from sageserve.live.gateway import server
from sageserve.live.gateway.context import Options
from sageserve.live.gateway.kept_table import KEPT_AT_MOST, KeptTable, TableFile
from sageserve.live.gateway.keys import hash_of
from sageserve.live.gateway.server import GatewayBinding, GatewayProcess, clock
from sageserve.live.link import LinkServer
from sageserve.live.link_port import ControlAddress, LinkPort
from sageserve.live.private import write_private
from sageserve.live.wire import VERSION, EndpointRow, Hello, InstanceRow, Report, RoutingTable, Spent, ToControl, layout_mark
from tests.live.gateway.stage import HELLO, USAGE, Engine, play, settings
from tests.live.papers import Authority
from tests.live.test_link import until

CALM = EndpointRow(0.1, 0.1, 0.1, 0.1, 0.0, 100_000, 1)
EACH = USAGE["total_tokens"]
KEYS = [
    {"name": "day", "sha256": hash_of(b"day"), "tokens_per_day": 5 * EACH},
    {"name": "minute", "sha256": hash_of(b"minute"), "requests_per_minute": 4},
]


class FarControl:
    """Control's side: its port, what it spent and counted; no loop that decides."""

    def __init__(self, folder: Path, layout: Layout, port: LinkPort, engine: Engine) -> None:
        self.folder = folder
        self.version = 0
        self.port = port
        self.engine = engine
        self.hosts: dict[int, str] = {}
        self.link = LinkServer(self._heard, self._left, layout_mark(layout), port=port)
        self.spending = SpendingFile(folder / "spending.json", self.link.send)
        self.reports = GatewayReports(layout, np.zeros(layout.endpoints, ENDPOINT), 50.0)

    def _heard(self, number: int, message: ToControl) -> None:
        match message:
            case Hello():
                self.hosts[number] = message.host
                self.reports.meet(number, message, clock())
                self.spending.meet(number, message.nonce)
                self.publish()
            case Report():
                self.reports.take(number, message, clock())
            case Spent():
                self.spending.take(number, message)
            case _:
                pass

    def _left(self, number: int) -> None:
        del self.hosts[number]
        self.spending.left(number)
        self.reports.leave(number)
        self.publish()

    def publish(self) -> None:
        self.version += 1
        row = InstanceRow(0, 0, f"http://127.0.0.1:{self.engine.port}", "", True, 0, 0)
        for number in self.link.gateways:
            table = RoutingTable(self.version, "e", self.version, 0, (CALM,) * 4, (row,), (50.0,) * 6, len(self.hosts))
            self.link.send(number, table)

    def spent(self) -> int:
        return sum(used["day"][0] for day in self.spending._days.values() for used in day.values())

    @property
    def counted(self) -> int:
        return int(self.reports.totals.requests.sum())


class Fleet:
    """Control, an engine, and gateways on two machines."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.scenario: Scenario = settings([], keys=KEYS)
        self.layout = layout_of(self.scenario)
        self.engine = Engine()
        ours = Authority(folder, "ours")
        control, gateway = ours.issue("control"), ours.issue("gateway")
        self.tls = LinkTlsSettings(certificate=control.certificate, key=control.key, client_ca=ours.file)
        self.files = EngineAccess(ca_file=ours.file, certificate=gateway.certificate, key=gateway.key)
        self.port = 0
        self.gateways: list[GatewayProcess] = []
        self.client = httpx.AsyncClient()

    async def control(self) -> FarControl:
        """A control process, at the port of the one before."""
        port = LinkPort(LinkSettings(listen=f"127.0.0.1:{self.port}", tls=self.tls), ("127.0.0.1", 9), "the-secret")
        made = FarControl(self.folder, self.layout, port, self.engine)
        await made.link.open(self.folder / "link")
        self.port = port.port
        return made

    async def gateway(self, host: str, table: Path | None = None) -> GatewayProcess:
        address = ControlAddress(f"tls://localhost:{self.port}", self.files)
        options = Options(nonce=host, host=host)
        made = GatewayProcess(self.scenario, GatewayBinding("127.0.0.1", 0, control=address, table=table, options=options))
        await made.start()
        self.gateways.append(made)
        return made

    async def ask(self, gateway: GatewayProcess, key: str) -> int:
        url = f"http://127.0.0.1:{gateway.port}/v1/chat/completions"
        return (await self.client.post(url, json=HELLO, headers={"authorization": f"Bearer {key}"})).status_code


@contextlib.asynccontextmanager
async def fleet(folder: Path) -> AsyncIterator[Fleet]:
    found = Fleet(folder)
    await found.engine.start()
    try:
        yield found
    finally:
        for gateway in found.gateways:
            await gateway.close()
        await found.client.aclose()
        await found.engine.kill()


def test_two_machines_have_one_limit_and_reconnecting_loses_and_doubles_nothing(tmp_path: Path) -> None:
    async def story() -> None:
        async with fleet(tmp_path) as here:
            control = await here.control()
            telling = asyncio.create_task(control.spending.run())
            one, two = [await here.gateway(host) for host in ("pod-1", "pod-2")]
            both = [gateway.context for gateway in (one, two)]
            await until(lambda: all(each.routing.gateways == 2 and each.internal == "the-secret" for each in both))
            await until(lambda: len(control.reports._known) == 2)  # their counting begins

            assert sum([await here.ask(gateway, "minute") == 200 for gateway in (one, two) for _ in range(4)]) == 4
            assert [await here.ask(one, "day") for _ in range(3)] == [200] * 3
            assert [await here.ask(two, "day") for _ in range(2)] == [200] * 2
            await until(lambda: all(each.budgets.used("day").tokens == 5 * EACH for each in both))
            assert [await here.ask(gateway, "day") for gateway in (one, two)] == [429, 429]
            await until(lambda: control.counted == 15)  # those that were refused among them

            for pipe in list(control.link._pipes.values()):
                pipe.abort()
            await until(lambda: not control.hosts)
            await until(lambda: sorted(control.hosts.values()) == ["pod-1", "pod-2"])
            await until(lambda: all(each.hears for each in both))
            telling.cancel()
            await asyncio.gather(telling, return_exceptions=True)
            await control.link.close()
            assert (control.spent(), control.counted) == (5 * EACH, 15)

            await until(lambda: not any(each.hears for each in both))
            assert [await here.ask(gateway, "day") for gateway in (one, two)] == [429, 429]
            again = await here.control()
            await until(lambda: len(again.reports._known) == 2)
            assert again.spent() == 5 * EACH
            assert all(each.budgets.used("day").tokens == 5 * EACH for each in both)
            await again.link.close()

    play(story())


def test_a_gateway_that_begins_while_control_is_away_serves_from_what_was_said_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "_TABLE_WITHIN_S", 0.05)

    async def story() -> None:
        kept = tmp_path / "table"
        async with fleet(tmp_path) as here:
            control = await here.control()
            first = await here.gateway("pod-1", kept)
            await until(lambda: first.context.routing.known)
            told = (await here.client.get(f"http://127.0.0.1:{first.port}/health/ready")).json()
            assert (told["status"], told["control"]) == ("ready", "heard")
            await control.link.close()
            await first.close()
            assert kept.stat().st_mode & 0o777 == 0o600  # of a test
            assert b"the-secret" not in kept.read_bytes()  # of a test
            older = msgspec.msgpack.decode(kept.read_bytes(), type=KeptTable)
            write_private(kept, msgspec.msgpack.encode(structs.replace(older, at=older.at - 10 * MINUTE)))

            second = await here.gateway("pod-1", kept)
            assert await here.ask(second, "minute") == 200
            told = (await here.client.get(f"http://127.0.0.1:{second.port}/health/ready")).json()
            assert (told["status"], told["control"]) == ("ready", "away")
            assert 600 <= told["table_age_s"] < 660, "own counts, which stand in for it, do not make it newer"
            metrics = (await here.client.get(f"http://127.0.0.1:{second.port}/metrics")).text
            assert "sageserve_gateway_control_away 1\n" in metrics

            without = await here.gateway("pod-2")
            assert (await here.client.get(f"http://127.0.0.1:{without.port}/health/ready")).status_code == 503
            control = await here.control()
            await until(lambda: all(one.context.hears and one.context.routing.known for one in (second, without)))
            await control.link.close()

    play(story())


TABLE = RoutingTable(7, "e", 3, 2 * SECOND, (CALM,), (InstanceRow(0, 0, "http://a:1", "", True, 0, 0),), (50.0,), 2)


def test_a_table_is_kept_whole_with_its_age(tmp_path: Path) -> None:
    kept = TableFile(tmp_path / "t", "mark", keeps=True)
    assert kept.load(HOUR) is None
    kept.hear(TABLE, HOUR)
    kept.save()
    assert kept.load(HOUR + MINUTE) == structs.replace(TABLE, version=0, epoch="kept", age=MINUTE + 2 * SECOND)
    TableFile(tmp_path / "u", "mark", keeps=False).hear(TABLE, HOUR)
    assert not (tmp_path / "u").exists()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"layout": "other"}, "other settings"),
        ({"protocol": VERSION - 2}, "version"),
        ({"at": 5 * HOUR - KEPT_AT_MOST - 1}, "1.0 h old"),
        ({"at": 5 * HOUR + 2 * MINUTE}, "old"),
    ],
)
def test_a_table_that_may_lead_astray_is_refused(
    tmp_path: Path, change: dict[str, object], said: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "t"
    good = KeptTable(VERSION, "mark", 5 * HOUR - KEPT_AT_MOST, TABLE)
    path.write_bytes(msgspec.msgpack.encode(good))
    path.chmod(0o600)
    assert TableFile(path, "mark", keeps=True).load(5 * HOUR) is not None
    path.write_bytes(msgspec.msgpack.encode(structs.replace(good, **change)))
    assert TableFile(path, "mark", keeps=True).load(5 * HOUR) is None
    assert said in caplog.records[-1].getMessage()


@pytest.mark.parametrize("spoil", ["torn", "open", "link", "theirs"])
def test_a_file_that_is_torn_or_may_be_anothers_is_refused(tmp_path: Path, spoil: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "t"
    kept = TableFile(path, "mark", keeps=True)
    kept.hear(TABLE, HOUR)
    kept.save()
    if spoil == "torn":
        path.write_bytes(path.read_bytes()[:-3])
    elif spoil == "open":
        path.chmod(0o622)
    elif spoil == "theirs":  # they would be sent prompts, and the keys of engines
        monkeypatch.setattr("os.geteuid", lambda: path.lstat().st_uid + 1)
    else:
        path.rename(tmp_path / "real")
        path.symlink_to(tmp_path / "real")
    assert kept.load(HOUR) is None


def test_a_table_that_could_not_be_kept_is_refused_or_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sageserve.cli.gateway.log_as_json", lambda _: None)  # the log is this test's
    told = ["--control", "control.sock", "--table"]
    for words in (["--table", "t"], [*told, str(tmp_path / "no" / "t")], [*told, str(tmp_path)]):
        assert "--table" in str(CliRunner().invoke(app, ["gateway", "local", *words]).exception)
    kept = TableFile(tmp_path / "no" / "t", "mark", keeps=True)
    for _ in range(3):
        kept.hear(TABLE, HOUR)
        kept.save()
    said = f"what control said last cannot be kept in {tmp_path}/no/t: No such file or directory"
    assert [record.getMessage() for record in caplog.records] == [said]
