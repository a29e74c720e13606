"""What Envoy counted is reported as a gateway's, whatever comes, ends, begins anew or is taken away meanwhile.

Read next: `src/sageserve/live/envoy/counts.py`, `process.py`.
"""

import asyncio
import json
import socket
from pathlib import Path

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from sageserve.base.config import Scenario
from sageserve.base.errors import ConfigError
from sageserve.base.units import SECOND
from sageserve.cli.envoy import _folder, _tier
from sageserve.live.envoy.counts import AdminPage, EnvoyCounts, HostCount, Place, bytes_in, hosts_in
from sageserve.live.envoy.folder import EnvoyFolder
from sageserve.live.envoy.names import ROUTES_FILE, cluster_of, file_of, used
from sageserve.live.envoy.process import EnvoyBinding, EnvoyPublisher, layout_for
from sageserve.live.gateway.demand_counters import DemandCounters
from sageserve.live.wire import InstanceRow, Report, RoutingTable, ToControl, Trouble
from tests.core.small import scenario
from tests.live.gateway.test_routing_state import LAYOUT, NEAR, SETTINGS, instance, state_of, table

CLUSTER = cluster_of(LAYOUT, NEAR)
ROW = NEAR * LAYOUT.slots
HERE: Place = (CLUSTER, "127.0.0.1", 9000 + ROW)


class Counting:
    """An Envoy with one instance, and the truth beside what is counted."""

    def __init__(self) -> None:
        self.state = state_of(table())
        self.counters = DemandCounters(SETTINGS, LAYOUT, self.state)
        self.counts = EnvoyCounts(self.state, self.counters, 0, 0)
        self.said = HostCount()
        self.sent = self.now = self.up_s = 0
        self.look()

    def look(self, **changes: int) -> Report:
        self.said = HostCount(**{**{name: getattr(self.said, name) for name in ("total", "good", "active", "failed")}, **changes})
        self.now += SECOND
        self.up_s += 1
        page = AdminPage({HERE: self.said}, {CLUSTER: self.sent}, self.up_s)
        self.counts.take(page, {HERE: self.state.targets[ROW]}, self.now)
        return self.counters.report(self.counts.streams)


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9), st.booleans()), max_size=12))
def test_every_request_is_counted_once_and_what_is_open_is_what_envoy_has(steps: list[tuple[int, int, bool]]) -> None:
    one, come, has = Counting(), 0, 0
    for arrived, left, anew in steps:
        total = one.said.total
        if anew and one.up_s > 1:  # Envoy is started again: what was open is cut, and it counts from 0
            has = total = one.up_s = 0
        come += arrived
        ends = min(left, has + arrived)
        has += arrived - ends
        one.sent = (one.sent if one.up_s else 0) + 800 * arrived
        report = one.look(total=total + arrived, good=(one.said.good if one.up_s else 0) + ends, active=has)
        assert sum(cell.requests for cell in report.cells) == come
        assert report.streams == has == sum(there.in_flight for there in report.instances)
        assert [there.row for there in report.instances] == ([ROW] if has else [])
        assert all(cell.finished == cell.on_time == cell.refused == 0 for cell in report.cells), "no promise is judged"
    state = one.state
    assert state.loads[NEAR].in_flight == has
    assert state.loads[NEAR].placed >= come
    assert (state.loads[NEAR].backlog > 0) <= (has > 0)


def test_prompts_are_as_long_as_what_was_sent_and_work_is_smoothed_as_control_does() -> None:
    short, long = Counting(), Counting()
    for one, size in ((short, 400), (long, 4000)):
        one.sent = 10 * size
        one.look(total=10, active=10)
    assert [sum(c.prompt_tokens for c in one.counters.report(0).cells) for one in (short, long)] == [1000, 10_000]
    assert 0 < short.counts.rates[NEAR] < long.counts.rates[NEAR]
    before = long.counts.rates[NEAR]
    report = long.look(good=10, active=0)
    assert sum(cell.output_tokens for cell in report.cells) == 10 * 200  # the mean of the table
    assert 0 < long.counts.rates[NEAR] < before


def test_what_envoy_had_before_we_came_is_in_flight_and_no_demand() -> None:
    state = state_of(table())
    counters = DemandCounters(SETTINGS, LAYOUT, state)
    counts = EnvoyCounts(state, counters, 0, 0)
    counts.take(AdminPage({HERE: HostCount(total=500, good=490, active=3)}, {CLUSTER: 9999}), {HERE: state.targets[ROW]}, SECOND)
    report = counters.report(counts.streams)
    assert (report.cells, report.instances[0].in_flight) == ((), 3)
    counts.take(AdminPage({}, {}), {}, 2 * SECOND)  # it is no instance any more
    assert (state.loads[NEAR].in_flight, counters.report(counts.streams).streams) == (0, 0)


def test_the_pages_of_envoy_are_read_and_nothing_else() -> None:
    host = {
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": 9000}},
        "stats": [
            {"name": "rq_total", "value": "12"},
            {"name": "rq_active", "type": "GAUGE"},
            {"name": "cx_connect_fail", "value": "1"},
        ],
        "health_status": {"eds_health_status": "DRAINING"},
    }
    page = json.dumps({"cluster_statuses": [{"name": "a/b", "host_statuses": [host]}, {"name": "c/d"}]}, allow_nan=False)
    assert hosts_in(page.encode()) == {("a/b", "127.0.0.1", 9000): HostCount(12, 0, 0, 1, closed=True)}
    assert bytes_in(
        b'{"stats":[{"name":"cluster.a/b.upstream_cx_tx_bytes_total","value":7},{"name":"server.uptime","value":5}]}'
    ) == ({"a/b": 7}, 5)
    for read in (hosts_in, bytes_in):
        with pytest.raises(ValueError, match=r"."):
            read(b"<html>")


# --- the process ---


class Publishing:
    """A publisher whose control and Envoy are this test."""

    def __init__(self, folder: Path, settings: Scenario = SETTINGS) -> None:
        self.said: list[ToControl] = []
        self.told: list[str] = []
        self.now = 0
        place = EnvoyBinding(folder / "none.sock", folder / "files", "http://none", nonce="n", told=self.told.append)
        self.one = EnvoyPublisher(settings, place, lambda: self.now)
        self.one._link.send = self._heard  # type: ignore[method-assign] # control's side
        self.files = folder / "files"

    def _heard(self, message: ToControl) -> bool:
        self.said.append(message)
        return True

    def hear(self, said: RoutingTable) -> None:
        self.one._hear(said)
        asyncio.run(self.one._publish(said))

    def ports(self, endpoint: int) -> dict[int, str]:
        """Health by port, as the file of a cluster says."""
        [told] = json.loads((self.files / file_of(cluster_of(LAYOUT, endpoint))).read_text("utf-8"))["resources"]
        hosts = [host for some in told["endpoints"] for host in some["lb_endpoints"]]
        return {host["endpoint"]["address"]["socket_address"]["port_value"]: host["health_status"] for host in hosts}

    def routes(self) -> list[dict[str, int]]:
        """Shares by cluster, of each model."""
        [told] = json.loads((self.files / ROUTES_FILE).read_text("utf-8"))["resources"]
        found = [one.get("route", {"weighted_clusters": {"clusters": []}}) for one in told["virtual_hosts"][0]["routes"][1:-1]]
        return [{each["name"]: each["weight"] for each in one["weighted_clusters"]["clusters"]} for one in found]

    def reported(self) -> Report:
        return next(one for one in reversed(self.said) if isinstance(one, Report))


def with_instances(*rows: InstanceRow, version: int = 1) -> RoutingTable:
    return replace(table(), instances=rows, version=version)


def test_files_are_there_once_control_said_something_and_stay_when_it_is_gone(tmp_path: Path) -> None:
    one = Publishing(tmp_path)
    assert one.one._link._hello.stays, "requests go on without it"
    assert not one.files.exists(), "an Envoy that runs would take empty files for a fleet that is gone"
    one.hear(replace(table(), instances=(), version=0))
    assert {file.name for file in one.files.iterdir()} == {ROUTES_FILE, *(file_of(cluster_of(LAYOUT, e)) for e in used(LAYOUT))}
    assert one.routes() == [{}, {}]
    one.hear(table())
    shares, ports = one.routes(), one.ports(NEAR)
    assert (shares[0], ports) == ({CLUSTER: 100}, {9000 + ROW: "HEALTHY"})
    one.one._control_changed(False)
    assert "goes on with what it was told last" in one.told[-1]
    again = Publishing(tmp_path)  # started anew, before control says anything
    assert (again.routes(), again.ports(NEAR)) == (shares, ports)
    again.one.take(AdminPage({HERE: HostCount(total=5)}, {}))
    assert again.said == []


def test_a_table_is_known_when_envoy_does_it_and_not_when_it_is_written(tmp_path: Path) -> None:
    one, other = Publishing(tmp_path), instance(ROW + 1)
    there: Place = (CLUSTER, "127.0.0.1", 9000 + ROW + 1)
    one.hear(with_instances(instance(ROW), other))
    one.one.take(AdminPage({HERE: HostCount(), there: HostCount(total=1, active=1)}, {}))
    assert (one.reported().version, one.reported().instances[0].row) == (1, ROW + 1)
    one.hear(with_instances(instance(ROW), replace(other, open=False), version=2))
    assert one.ports(NEAR) == {9000 + ROW: "HEALTHY", 9001 + ROW: "DRAINING"}
    one.one.take(AdminPage({HERE: HostCount(), there: HostCount(total=2, active=2)}, {}))
    assert one.reported().version == 1, "Envoy sends requests there still"
    one.one.take(AdminPage({HERE: HostCount(), there: HostCount(total=2, active=1, closed=True)}, {}))
    assert (one.reported().version, one.reported().instances[0].in_flight) == (2, 1)
    one.one.take(AdminPage({HERE: HostCount(), there: HostCount(total=2, good=2, closed=True)}, {}))
    assert (one.reported().version, one.reported().instances) == (2, ())
    one.hear(with_instances(instance(ROW), version=3))
    assert one.ports(NEAR) == {9000 + ROW: "HEALTHY"}
    for _ in range(25):
        one.one.take(AdminPage({HERE: HostCount(), there: HostCount(total=2, closed=True)}, {}))
    assert one.reported().version == 2
    assert "does not do what the files" in one.told[-1]
    one.one.take(AdminPage({HERE: HostCount()}, {}))
    assert (one.reported().version, one.told[-1].startswith("over: ")) == (3, True)


def test_nothing_is_written_when_nothing_changed_and_failed_connections_are_told(tmp_path: Path) -> None:
    one = Publishing(tmp_path)
    one.hear(table())
    before = {file.name: file.stat().st_mtime_ns for file in one.files.iterdir()}
    one.hear(replace(table(), version=2))
    assert {file.name: file.stat().st_mtime_ns for file in one.files.iterdir()} == before
    one.one.take(AdminPage({HERE: HostCount()}, {}))
    one.one.take(AdminPage({HERE: HostCount(failed=2)}, {}))
    assert [message for message in one.said if isinstance(message, Trouble)] == [Trouble(ROW, "Envoy could not connect")]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"url": "https://127.0.0.1:9000"}, "it speaks TLS"),
        ({"url": "http://127.0.0.1:9000/base/path/"}, "its URL has a path, /base/path,"),
        ({"served_model": "meta/other"}, "its engine knows the model as meta/other"),
        ({"url": "http://no.such.host.invalid:9000"}, "there is no address of no.such.host.invalid"),
    ],
)
def test_instances_that_envoy_cannot_serve_are_left_out_and_said_once(tmp_path: Path, change: dict[str, str], why: str) -> None:
    one = Publishing(tmp_path)
    for version in (1, 2):
        one.hear(with_instances(replace(instance(ROW), **change), version=version))
    assert (one.ports(NEAR), one.routes()[0], len(one.told)) == ({}, {}, 1)
    assert why in one.told[0]


def test_what_came_while_nobody_looked_is_of_no_time_and_of_no_minute() -> None:
    one = Counting()
    one.look(total=4, good=1, active=3)
    before = one.counts.rates[NEAR]
    one.now += 3600 * SECOND
    report = one.look(total=3_600_000, good=3_599_990, active=10)
    assert (sum(cell.requests for cell in report.cells), one.counts.unknown) == (4, 3_599_996)
    assert (report.streams, one.counts.gap // SECOND, one.counts.rates[NEAR]) == (10, 3601, before)
    report = one.look(total=3_600_002, active=12)
    assert (sum(cell.requests for cell in report.cells), report.streams, one.counts.unknown) == (6, 12, 3_599_996)


def test_requests_of_a_gap_are_told(tmp_path: Path) -> None:
    one = Publishing(tmp_path)
    one.hear(table())
    one.one.take(AdminPage({HERE: HostCount()}, {}))
    one.now += 60 * SECOND
    one.one.take(AdminPage({HERE: HostCount(total=1234)}, {}))
    assert one.told == ["1,234 requests came in 60 s in which Envoy was not seen: they are in no count"]


def test_an_admin_page_that_is_none_is_said_once_and_nothing_is_reported(tmp_path: Path) -> None:
    one = Publishing(tmp_path)

    async def look(body: bytes) -> None:
        pages = httpx.MockTransport(lambda _: httpx.Response(200, content=body))
        async with httpx.AsyncClient(base_url="http://none", transport=pages) as client:
            await one.one._look(client)

    for body in (b"<html>", b"<html>", b'{"x":' + b"[" * 100_000):
        asyncio.run(look(body))
    assert (one.said, len(one.told)) == ([], 2)
    assert all(said.startswith("Envoy cannot be asked: http://none: ") for said in one.told)


def test_files_that_another_changed_or_deleted_are_written_again(tmp_path: Path) -> None:
    one = Publishing(tmp_path)
    one.hear(table())
    before = {file.name: file.read_text("utf-8") for file in one.files.iterdir()}
    asyncio.run(one.one._repair())
    assert one.told == []
    (one.files / ROUTES_FILE).unlink()
    (one.files / file_of(CLUSTER)).write_text("{", "utf-8")
    asyncio.run(one.one._repair())
    assert {file.name: file.read_text("utf-8") for file in one.files.iterdir()} == before
    assert ["and 1 more was changed or deleted by another" in said for said in one.told] == [True]


def test_a_folder_has_one_owner_and_says_who(tmp_path: Path) -> None:
    first, second = EnvoyFolder(tmp_path / "files"), EnvoyFolder(tmp_path / "files")
    refused = pytest.raises(ConfigError, match=r"--folder: .*files belongs to process 7")
    with first.held("process 7"), refused, second.held("8"):
        pass
    begun: list[int] = []
    with first.held("process 7"), pytest.raises(ConfigError, match="belongs to process 7"):
        asyncio.run(Publishing(tmp_path).one.run(lambda: begun.append(1)))
    assert not begun, "nothing is said of a folder that is refused"
    with EnvoyFolder(tmp_path / "files").held("another"):
        pass
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"--folder: .*file/x cannot be written"), EnvoyFolder(tmp_path / "file" / "x").held(""):
        pass


def test_names_of_hosts_are_asked_for_again_and_the_last_answer_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = [["10.0.0.1"], ["10.0.0.2", "10.0.0.1"], [], ["10.0.0.3"]]

    def asked(*_: object, **__: object) -> list[tuple[object, ...]]:
        if not (found := answers.pop(0)):
            raise socket.gaierror
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 0)) for address in found]

    monkeypatch.setattr(socket, "getaddrinfo", asked)
    one, seen = Publishing(tmp_path), list[str]()
    for version in range(5):
        one.hear(with_instances(replace(instance(ROW), url="http://engine-a:8000"), version=version))
        seen += [place[1] for place in one.one._wanted]
        one.now += (31 if version else 1) * SECOND
    assert (seen, answers) == (["10.0.0.1"] * 4 + ["10.0.0.3"], [])


def test_tiers_that_wait_and_folders_without_a_name_are_refused(tmp_path: Path) -> None:
    names = list(SETTINGS.tiers)
    assert _tier("", SETTINGS) == _tier(names[0], SETTINGS) == 0
    with pytest.raises(ConfigError, match=f"--tier: {names[-1]} is a batch tier"):
        _tier(names[-1], SETTINGS)
    waits = scenario(tiers={"nightly": {"deadline": "24h"}})
    assert _tier("", waits) == _tier("nightly", waits) == 0, "all of them wait: a note says what Envoy does"
    (tmp_path / "file").touch()
    for folder, why in ((" ", "names no folder"), ("", "names no folder"), (str(tmp_path / "file"), "is no folder")):
        with pytest.raises(ConfigError, match=why):
            _folder(folder)


def test_fleets_that_need_a_gateway_of_ours_are_refused() -> None:
    sleeps = scenario(fleet={"start": 1, "minimum": 0, "maximum": 4, "idle": "1m"})
    with pytest.raises(ConfigError, match="sleeps when nobody asks"):
        layout_for(sleeps)
    access = scenario(live={"access": {"vllm": {"bearer_file": "/run/key"}}})
    with pytest.raises(ConfigError, match="does not know the keys of engines"):
        layout_for(access)
