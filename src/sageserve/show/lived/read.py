"""A state folder of `sageserve up` or `watch`, summed up over a stretch of time: hours, cost, promises, tenants, decisions.

    reading = read_lived(Path("~/.local/state/sageserve"), last=DAY)

Minutes say what served, what came and what was late; the journal which instances came and ended, and what was decided; lines of
requests (`live.records`) how long answers took and whose they were. A figure that none of them holds is left out, with the
reason. Reads only; the fleet may run meanwhile. Read next: `records.py`, `lived_page.py`, `compare.py`.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from sageserve.base.config import Scenario
from sageserve.base.errors import ResultError
from sageserve.base.records import Floats
from sageserve.base.units import MINUTE, SECOND, Micros, show_duration
from sageserve.core.fleet import Pool, State
from sageserve.core.layout import Layout
from sageserve.core.strategies import layout_of
from sageserve.data.results.journal import LIVE, LiveJournal, is_state_folder, live_files, read_stamped
from sageserve.data.scenarios.load import load_scenario
from sageserve.data.watched.minutes import newest_minute, read_minutes
from sageserve.show.choices import choices
from sageserve.show.lived.asked import AskedLines, asked_of, tenants_of
from sageserve.show.lived.records import LivedCost, LivedHours, LivedPool, LivedReport, LivedTier
from sageserve.show.lived.states import OtherStates, other_states
from sageserve.show.lived.table import MinuteTable, table_of

_DIGITS: Final = 6
_WHOLE: Final = 0.98  # of the requests that gateways counted: fewer lines are told as a part of them
_FIRST: Final = "journal-000001.jsonl"
COUNTED: Final = "promises and requests"
_HELD: Final = "GPU-hours and cost"
_OF_OTHERS: Final = "others start and stop its instances, and its engines do not say whose a request was"


@dataclass(frozen=True, slots=True)
class LivedReading:
    """A report with what is behind it.

    Args:
        report: summed up.
        scenario: the settings in force.
        layout: the numbers behind their names.
        table: the minutes.
        state: the folder.
    """

    report: LivedReport
    scenario: Scenario
    layout: Layout
    table: MinuteTable
    state: Path


def read_lived(state: Path, last: Micros | None = None, before: Micros = 0) -> LivedReading:
    """Read a state folder.

    Args:
        state: of a fleet that ran.
        last: length of the stretch, microseconds; None: all that was kept.
        before: where it ends, microseconds back from the newest minute's end.

    Raises:
        ResultError: nothing was kept there, or nothing of that time.
    """
    if not is_state_folder(state):
        raise ResultError(f"{state} is no folder of `sageserve up` or `watch`", hint="name the one it keeps with --state")
    end = newest_minute(state) + MINUTE - before
    begin = 0 if last is None else end - last
    table = table_of(one for one in read_minutes(state, begin) if one.wall < end)
    if not len(table.wall):
        late = (
            "what it keeps begins later: give a shorter --last"
            if before
            else "a minute is there once its demand is counted: wait two"
        )
        raise ResultError(f"{state} holds no minute of that time", hint=late)
    scenario = load_scenario(state / "scenario.yaml")
    layout = layout_of(scenario)
    return LivedReading(_report(state, scenario, layout, table), scenario, layout, table, state)


def _report(state: Path, scenario: Scenario, layout: Layout, table: MinuteTable) -> LivedReport:
    begin, end = int(table.wall[0]), int(table.wall[-1]) + MINUTE
    left_out: dict[str, str] = {}
    asked = asked_of(state, begin, end)
    why = _unheld(state, layout, table)
    if why:
        left_out[_HELD] = left_out["starts, failures and reclaims"] = why
    others = None if why else other_states(read_stamped(state / LIVE), table, layout.pools)
    hours = None if others is None else _hours(layout, table, others)
    requests = sum(int(one.sum()) for one in table.requests.values())
    left_out |= _unknown(scenario, table, asked, requests)
    journal = LiveJournal(state, scenario, begin, 0)
    return LivedReport(
        fleet=scenario.name,
        strategy=scenario.strategy.name,
        begins_s=begin / SECOND,
        ends_s=end / SECOND,
        hours=round(len(table.wall) / 60, _DIGITS),
        requests=requests,
        pools=dict(_pools(layout, table)),
        gpu_hours=hours,
        cost=None if others is None else _cost(layout, table, others),
        tiers={name: _tier(scenario, name, table, asked) for name in scenario.tiers},
        tenants=tenants_of(asked),
        starts=None if others is None else others.starts,
        start_failures=None if others is None else others.failures,
        reclaims=None if others is None else others.reclaims,
        spot_taken=None if others is None else others.taken,
        choices=choices((one for one in journal.lines() if 0 <= one.now < end - begin), scenario),
        left_out=left_out,
        notes=tuple(_notes(state, table)),
        currency=scenario.currency,
    )


def _unheld(state: Path, layout: Layout, table: MinuteTable) -> str:
    """Why hours by state cannot be known; empty: they can."""
    if not table.requests:
        return _OF_OTHERS
    known = {pool.name for pool in layout.pools}
    strange = [name for name in table.did if name not in known]
    if strange:
        return f"the settings have no {', '.join(strange)} any more, so what it held and cost is not known"
    if not (state / LIVE / _FIRST).exists():
        begins = next((one.wall for one in read_stamped(state / LIVE)), None)
        if begins is None or begins > int(table.wall[0]):
            return "the journal does not go back so far: its oldest files were dropped"
    return "" if live_files(state / LIVE) else "there is no journal"


def _unknown(scenario: Scenario, table: MinuteTable, asked: Mapping[str, AskedLines], requests: int) -> dict[str, str]:
    """What is not known of requests and engines, whatever was kept."""
    found = {
        "starts of the instances that the fleet began with": "the journal has them from when they served, so"
        " neither these starts nor their hours are in the counts",
        "utilisation and idle hours": "engines are scraped to decide, and what they said is not kept; Prometheus has it",
        "energy and CO2": "they follow from hours at work, which are not kept",
        "who pays what": "they follow from hours at work; tokens by key are told where lines of requests are kept",
    }
    lines = sum(len(one) for one in asked.values())
    if not table.requests:
        found[COUNTED] = f"{_OF_OTHERS}; `sageserve shadow-report` has what engines measured"
    batch = [name for name, tier in scenario.tiers.items() if tier.batch]
    if batch and table.requests:
        found[f"promises of {', '.join(batch)}"] = (
            "a job's deadline counts from its batch, which gateways do not see: /v1/batches has what expired"
        )
    if not lines and requests:
        found["latencies and tenants"] = "no lines of requests were kept: set live.records"
    elif lines < _WHOLE * requests:
        found["the other requests' latencies and tenants"] = f"lines of {lines:,} of {requests:,} requests were kept"
    return found


def _pools(layout: Layout, table: MinuteTable) -> Iterator[tuple[str, LivedPool]]:
    order = [pool.name for pool in layout.pools]
    for name in sorted(table.did, key=lambda one: (order.index(one) if one in order else len(order), one)):
        did = table.did[name]
        yield name, LivedPool(round(float(did.sum()) / 60, _DIGITS), int(did.max()), round(float(did.mean()), _DIGITS))


def _hours(layout: Layout, table: MinuteTable, others: OtherStates) -> LivedHours:
    def hours(state: State) -> float:
        minutes = len(table.wall)
        return float(sum(others.of(state, pool.name, minutes).sum() * pool.gpus for pool in layout.pools)) / 60

    serving = float(sum(int(table.did[pool.name].sum()) * pool.gpus for pool in layout.pools if pool.name in table.did)) / 60
    starting, reclaiming, draining = (hours(state) for state in (State.STARTING, State.RECLAIMING, State.DRAINING))
    waste = starting + reclaiming + draining
    found = (serving + waste, serving, starting, reclaiming, draining, waste, hours(State.SPOT))
    return LivedHours(*(round(one, _DIGITS) for one in found))


def _cost(layout: Layout, table: MinuteTable, others: OtherStates) -> LivedCost:
    """Minute by minute; of each stock what is reserved is paid, and what is held beyond it."""
    minutes = len(table.wall)
    reserved = on_demand = income = 0.0
    for number, stock in enumerate(layout.stocks):
        pools = [pool for pool in layout.pools if pool.stock == number]
        held, spot = np.zeros(minutes), np.zeros(minutes)
        for pool in pools:
            held += _held(pool, table, others) * pool.gpus
            spot += others.of(State.SPOT, pool.name, minutes) * pool.gpus
        bought = stock.purchase
        reserved += bought.reserved * minutes / 60 * bought.price_reserved
        on_demand += float(np.maximum(held - bought.reserved, 0).sum()) / 60 * bought.price_on_demand
        income += float(spot.sum()) / 60 * bought.price_spot
    cents = [round(one, 2) for one in (reserved + on_demand, reserved, on_demand, income)]
    return LivedCost(*cents)


def _held(pool: Pool, table: MinuteTable, others: OtherStates) -> Floats:
    """Instances of a pool that hold GPUs, minute by minute."""
    minutes = len(table.wall)
    found = table.did[pool.name].astype(np.float64) if pool.name in table.did else np.zeros(minutes)
    for state in (State.STARTING, State.RECLAIMING, State.DRAINING):
        found = found + others.of(state, pool.name, minutes)
    return found


def _tier(scenario: Scenario, name: str, table: MinuteTable, asked: Mapping[str, AskedLines]) -> LivedTier:
    settings = scenario.tiers[name]
    requests = int(table.requests[name].sum()) if name in table.requests else 0
    missed = None if settings.batch or name not in table.missed else int(table.missed[name].sum())
    kept = None if missed is None or not requests else max(0.0, 1 - missed / requests)
    lines = asked.get(name, AskedLines())
    told = (len(lines), lines.answered, lines.turned_away, lines.left, lines.failed, lines.first_s(), lines.e2e_s())
    within = settings.deadline if settings.ttft is None else settings.ttft
    grows = f" and {show_duration(settings.growth)} for every 1,000 tokens of the prompt" if settings.growth else ""
    words = f"{'done' if settings.batch else 'first token'} in {show_duration(within or 0)}{grows}"
    return LivedTier(requests, missed, kept, settings.percentile, words, *(told if len(lines) else ()))


def _notes(state: Path, table: MinuteTable) -> Iterator[str]:
    gaps = table.gaps()
    if gaps:
        total = sum(end - begin for begin, end in gaps)
        yield (
            f"{len(gaps)} {'time was' if len(gaps) == 1 else 'times were'} not taken down, {show_duration(total)} together: the"
            " fleet or its control process did not run"
        )
    yield "Instances are counted once a minute: what served for seconds, as one that is woken and left again may, can be missing"
    yield "Costs are at the prices of the settings in force now; other GPUs of VMs that are bought whole are not in them"
    yield f"What reloads changed is in {state / 'audit'}"
