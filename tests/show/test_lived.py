"""`report` and `diff` of live fleets: minutes, journal and lines made by hand, each number with its arithmetic.

A simulated run that is written down as a fleet would have written it has the numbers of its summary. What cannot be known is
left out. Read next: `src/sageserve/show/lived/read.py`.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
import pyarrow.compute as pc
import pytest
from typer.testing import CliRunner

from sageserve.base.errors import ConfigError, ResultError
from sageserve.base.units import DAY, MINUTE, SECOND, Micros
from sageserve.cli.main import app
from sageserve.core.actions import Action, Donate, Drain, Release, Source, Start
from sageserve.core.events import DoorSeen, Event, InstanceLost, InstanceReady, SpotTaken, StartFailed
from sageserve.core.strategies import layout_of
from sageserve.data.results.journal import JournalLine, Stamped
from sageserve.data.results.run_folder import RunFolder, read_run
from sageserve.data.scenarios.load import resolved_yaml
from sageserve.data.watched.minutes import MINUTES, BacklogMinute, EndpointMinute, PoolMinute, TierMinute, WatchedMinute
from sageserve.data.watched.request_lines import FOLDER, RequestLine
from sageserve.show.difference import Number, Word
from sageserve.show.lived.compare import lived_difference
from sageserve.show.lived.lived_page import lived_page
from sageserve.show.lived.read import read_lived
from tests.live.watch.stage import BEGIN, POOL, one_pool

TIERS: dict[str, object] = {"chat": {"ttft": "1s", "ttft_per_1k_tokens": "200ms"}, "jobs": {"deadline": "24h"}}
HEARD = DoorSeen((), ())
AT_START: Sequence[tuple[Micros, Event, tuple[Action, ...]]] = [(0, HEARD, ())]


def fleet(
    state: Path,
    did: Sequence[int | None],
    *,
    asked: tuple[int, int] = (100, 3),
    lines: Sequence[tuple[Micros, Event, tuple[Action, ...]]] = AT_START,
    begin: Micros = BEGIN,
) -> Path:
    """A state folder whose pool served so many minute by minute (None: nobody looked), and its chat requests, all and late."""
    (state / "journal").mkdir(parents=True, exist_ok=True)
    (state / MINUTES).mkdir(exist_ok=True)
    (state / "scenario.yaml").write_text(resolved_yaml(one_pool(tiers=TIERS)), "utf-8")
    tiers = TierMinute("chat", *asked), TierMinute("jobs", 5, 5)
    kept = [
        WatchedMinute(
            begin + k * MINUTE,
            (PoolMinute(POOL, one, one),),
            (EndpointMinute("east/big", 1.0, 1),),
            tiers,
            (BacklogMinute("big", k, None),),
        )
        for k, one in enumerate(did)
        if one is not None
    ]
    _append(state / MINUTES / "minutes-20260921.jsonl", kept)
    stamped = [Stamped(begin + at, JournalLine(at, event, (), actions)) for at, event, actions in lines]
    _append(state / "journal" / "journal-000001.jsonl", stamped)
    return state


def _append(path: Path, records: Sequence[msgspec.Struct]) -> None:
    with path.open("ab") as out:
        out.write(b"".join(msgspec.json.encode(one) + b"\n" for one in records))


def line(
    at: Micros, *, tier: str = "chat", tenant: str = "alice", status: int = 200, first: Micros | None = 200_000
) -> RequestLine:
    return RequestLine(BEGIN + at, "req", tenant, "big", tier, "east", status, 100, 10, first, 2 * SECOND, 0)


def printed(*arguments: str) -> str:
    result = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0, result.stderr
    return result.stdout


def refusal(*arguments: str) -> str:
    with pytest.raises((ConfigError, ResultError)) as refused:
        CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    return f"{refused.value.message}; {refused.value.hint}"


def test_hours_by_state_and_what_they_cost(tmp_path: Path) -> None:
    """An instance is eight GPUs; sixteen are reserved at 30 a VM-hour, more are 80, a donated VM earns 12."""
    lines: list[tuple[Micros, Event, tuple[Action, ...]]] = [
        (0, InstanceReady(0), ()),
        (0, InstanceReady(1), ()),
        (MINUTE, HEARD, (Start(2, Source.VM, tuple(range(16, 24))),)),
        (MINUTE + 30 * SECOND, InstanceReady(2), ()),
        (3 * MINUTE, HEARD, (Drain(2),)),
        (3 * MINUTE + 15 * SECOND, HEARD, (Donate(2), Start(3, Source.VM, tuple(range(24, 32))))),
        (3 * MINUTE + 30 * SECOND, StartFailed(3, "no"), ()),
        (4 * MINUTE, SpotTaken(2), ()),
        (4 * MINUTE, InstanceLost(1, "gone"), (Release(1),)),
    ]
    reading = read_lived(fleet(tmp_path, [2, 3, 3, 2, 1], lines=lines))
    report, hours = reading.report, reading.report.gpu_hours
    assert hours is not None
    assert report.cost is not None
    assert hours.serving == pytest.approx(8 * (2 + 3 + 3 + 2 + 1) / 60, abs=1e-5)
    assert hours.starting == pytest.approx(8 * (0.5 + 0.25) / 60, abs=1e-5)
    assert hours.draining == pytest.approx(8 * 0.25 / 60, abs=1e-5)
    assert hours.spot == pytest.approx(8 * 0.75 / 60, abs=1e-5)
    assert hours.waste == pytest.approx(hours.starting + hours.draining, abs=1e-5)
    assert hours.total == pytest.approx(hours.serving + hours.waste, abs=1e-5)
    assert (report.starts, report.start_failures, report.spot_taken, report.reclaims) == (2, 2, 1, 0)
    stock = layout_of(reading.scenario).stocks[0].purchase
    held = [16, 24 + 4, 24, 16 + 2 + 2, 8]  # GPUs, minute by minute; 16 are paid anyway
    beyond = sum(max(0, one - 16) for one in held) / 60
    assert report.cost.reserved == pytest.approx(16 * 5 / 60 * stock.price_reserved, abs=0.01)
    assert report.cost.on_demand == pytest.approx(beyond * stock.price_on_demand, abs=0.01)
    assert report.cost.spot_income == pytest.approx(hours.spot * stock.price_spot, abs=0.01)
    assert report.pools[POOL].peak == 3


def test_a_simulated_run_written_down_as_a_fleet_has_the_hours_of_its_summary(results: Path, tmp_path: Path) -> None:
    run = read_run(results / "run")
    reading = read_lived(written_down(run, tmp_path))
    report, summary = reading.report, run.summary
    assert report.gpu_hours is not None
    for state in ("starting", "reclaiming", "draining", "spot"):
        assert getattr(report.gpu_hours, state) == pytest.approx(getattr(summary.gpu_hours, state), abs=1e-4), state
    assert summary.gpu_hours.starting > 0
    assert report.gpu_hours.serving == pytest.approx(summary.gpu_hours.serving, rel=0.03), "minutes are samples"
    assert (report.starts, report.start_failures) == (summary.starts, summary.start_failures)
    assert report.requests == summary.requests.arrived
    for name, tier in report.tiers.items():
        if not run.scenario.tiers[name].batch:
            assert tier.attainment == pytest.approx(summary.tiers[name].attainment, abs=1e-6), name
    assert report.choices.decisions == sum(len(one.decisions) for one in run.journal() if one.now >= 0)


def written_down(run: RunFolder, state: Path) -> Path:
    """The state folder of a live fleet to which happened what is in a run."""
    (state / "journal").mkdir()
    (state / MINUTES).mkdir()
    (state / "scenario.yaml").write_text(resolved_yaml(run.scenario), "utf-8")
    _append(state / "journal" / "journal-000001.jsonl", [Stamped(BEGIN + one.now, one) for one in run.journal()])
    pools = {pool.name.rpartition("/")[0]: pool.name for pool in layout_of(run.scenario).pools}
    served: dict[int, list[PoolMinute]] = {}
    for row in run.timeline().to_pylist():
        pool = PoolMinute(pools[row["endpoint"]], row["serving"], 0)
        served.setdefault(row["time_us"] // MINUTE, []).append(pool)
    table = run.requests(["arrival_us", "tier", "met"])
    minutes = pc.divide(table.column("arrival_us"), MINUTE).to_pylist()
    tiers, met = table.column("tier").to_pylist(), table.column("met").to_pylist()
    asked = Counter(zip(minutes, tiers, strict=True))
    missed = Counter(key for key, kept in zip(zip(minutes, tiers, strict=True), met, strict=True) if not kept)
    names = list(run.scenario.tiers)
    kept = [
        WatchedMinute(
            BEGIN + k * MINUTE,
            tuple(served.get(k, ())),
            (),
            tuple(TierMinute(name, asked[k, name], missed[k, name]) for name in names),
        )
        for k in range(round(run.summary.window_s) // 60)
    ]
    _append(state / MINUTES / "minutes-20260921.jsonl", kept)
    return state


def test_nothing_that_came_or_ended_is_carried_over_a_time_nobody_saw(tmp_path: Path) -> None:
    """Control died while an instance was coming, which is not there any more when the next one looks."""
    lines: list[tuple[Micros, Event, tuple[Action, ...]]] = [(MINUTE, HEARD, (Start(2, Source.VM, tuple(range(16, 24))),))]
    reading = read_lived(fleet(tmp_path, [2, 2, None, None, None, 2, 2], lines=lines))
    assert reading.report.gpu_hours is not None
    assert reading.report.gpu_hours.starting == pytest.approx(8 / 60, abs=1e-5), "until the second minute ended"
    assert reading.report.hours == pytest.approx(4 / 60, abs=1e-5)
    assert any("not taken down, 3m together" in note for note in reading.report.notes)


def test_promises_lines_and_keys(tmp_path: Path) -> None:
    state = fleet(tmp_path, [2] * 10)
    folder = state / FOLDER
    folder.mkdir()
    many = [line(k * SECOND, first=k * 10_000) for k in range(1, 101)]
    others = [line(0, tenant="bob", status=429, first=None), line(0, tenant="bob", status=499), line(0, status=502, first=None)]
    _append(folder / "w0-000001.jsonl", [*many, *others, line(-1), line(DAY)])
    _append(folder / "w1-000001.jsonl", [line(0, tier="jobs", tenant="bob")])
    report = read_lived(state).report
    chat = report.tiers["chat"]
    assert chat.promise == "first token in 1s and 200ms for every 1,000 tokens of the prompt"
    assert (chat.requests, chat.missed, chat.attainment) == (1000, 30, 0.97)
    assert (chat.lines, chat.answered, chat.turned_away, chat.left, chat.failed) == (103, 100, 1, 1, 1)
    assert chat.first_s is not None
    assert chat.first_s.p50 == pytest.approx(0.505)
    assert chat.first_s.p95 == pytest.approx(0.9505)
    bob = report.tenants["bob"]
    assert list(report.tenants) == ["alice", "bob"]
    assert (bob.requests, bob.answered, bob.turned_away, bob.prompt_tokens, bob.output_tokens) == (3, 1, 1, 300, 30)
    assert report.tiers["jobs"].attainment is None
    assert any("once a minute" in note for note in report.notes), "what served for seconds is not in hours"
    assert "expired" in report.left_out["promises of jobs"]
    assert "104 of 1,050" in report.left_out["the other requests' latencies and tenants"]


def test_what_cannot_be_known_is_left_out_and_why(tmp_path: Path) -> None:
    report = read_lived(fleet(tmp_path / "plain", [2, 2])).report
    assert "live.records" in report.left_out["latencies and tenants"]
    assert report.tiers["chat"].first_s is None
    assert report.gpu_hours is not None

    dropped = fleet(tmp_path / "dropped", [2, 2], lines=[(MINUTE, HEARD, ())])
    (dropped / "journal" / "journal-000001.jsonl").rename(dropped / "journal" / "journal-000009.jsonl")
    other = fleet(tmp_path / "other", [2, 2])
    (path,) = (other / MINUTES).glob("*")
    path.write_bytes(path.read_bytes().replace(POOL.encode(), b"east/big/b200"))
    watched = fleet(tmp_path / "watched", [])
    minute = WatchedMinute(BEGIN, (PoolMinute(POOL, 2, 2),), (EndpointMinute("east/big", 1.0, 1),))
    _append(watched / MINUTES / "minutes-20260921.jsonl", [minute])
    for state, why in (
        (dropped, "does not go back so far"),
        (other, "no east/big/b200 any more"),
        (watched, "others start and stop"),
    ):
        told = read_lived(state).report
        assert (told.gpu_hours, told.cost, told.starts) == (None, None, None)
        assert why in told.left_out["GPU-hours and cost"]
        assert sum(one.instance_hours for one in told.pools.values()) > 0
        assert lived_page(read_lived(state))
    with pytest.raises(ResultError, match="no folder of `sageserve up`"):
        read_lived(tmp_path)


def test_two_stretches_differ_beyond_what_their_requests_explain(tmp_path: Path) -> None:
    calm = read_lived(fleet(tmp_path / "a", [2] * 60, asked=(100, 1)))
    late = read_lived(fleet(tmp_path / "b", [3] * 60, asked=(100, 5)))
    same = read_lived(fleet(tmp_path / "c", [2] * 60, asked=(101, 1)))
    found = numbers(lived_difference(calm, late).numbers)
    kept = found["tiers.chat.attainment"]
    assert kept.word is Word.TRAFFIC
    assert kept.high is not None
    assert kept.high < 0
    assert found["gpu_hours.serving"].change == pytest.approx(8.0)
    assert "chat worse" in lived_difference(calm, late).sentence
    assert numbers(lived_difference(calm, same).numbers)["tiers.chat.attainment"].word is Word.SAMPLING
    assert "No promise" in lived_difference(calm, same).sentence
    none = read_lived(fleet(tmp_path / "d", [2] * 60, asked=(0, 0)))
    assert numbers(lived_difference(calm, none).numbers)["requests.arrived"].after == 60 * 5, "jobs came"
    assert numbers(lived_difference(calm, none).numbers)["tiers.chat.attainment"].after is None


def numbers(found: Sequence[Number]) -> Mapping[str, Number]:
    return {one.key: one for one in found}


def test_the_commands(tmp_path: Path, results: Path) -> None:
    state = fleet(tmp_path / "live", [2] * 120 + [3] * 120)
    page = tmp_path / "page.html"
    assert printed("report", str(state), "--last", "2h", "-o", str(page)).strip() == str(page)
    text = page.read_text("utf-8")
    assert "kept the promise of chat." in text
    assert "Left out: latencies and tenants" in text
    assert "http://" not in text.split("plotly")[0]
    assert "summary.json" not in text.split("<footer>")[1]
    found = json.loads(printed("diff", str(state), "--last", "2h", "--json"))["differences"][0]
    assert "12,600 requests in 2h between" in found["before"]
    hours = next(one for one in found["numbers"] if one["key"] == f"instance_hours.{POOL}")
    assert (hours["before"], hours["after"]) == (4.0, 6.0)
    assert found["how"] == "stretches"
    assert any("audit log" in one for one in found["cautions"])
    other = fleet(tmp_path / "other", [2] * 60)
    drawn = printed("diff", str(state), str(other))
    assert "differs" in drawn
    assert "told by the hour" in " ".join(drawn.split())
    run = str(results / "run")
    assert "live fleet, and" in refusal("diff", str(state), run)
    assert "live fleet, and" in refusal("report", run, str(state))
    assert "say how long" in refusal("diff", str(state))
    assert "run is shown whole" in refusal("report", run, "--last", "1h")
    assert "less than a minute" in refusal("report", str(state), "--last", "1s")
    assert "holds no minute of that time" in refusal("diff", str(state), "--last", "10h")
