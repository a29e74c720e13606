"""Small random fleets that the live plane and the simulator can both serve, drawn from a seed.

A live plane needs a whole scenario, where `tests/sim/cases.py` draws the kernel's arrays; the traces and scripts are drawn alike.
Kept out is what a gateway cannot see: preemptions (there is memory enough), cached prompts, engines of unequal speed in one
endpoint, and answers of one engine within a millisecond (iterations take two and more). Jobs of the store come in at the first
region.
Read next: `front_door.py` for the live plane, `tests/sim/compare.py` for what is compared.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from sageserve.base.config import Scenario, TenantSettings
from sageserve.base.records import Trace
from sageserve.core.feed import DIRECT
from sageserve.core.layout import Layout, names_of
from sageserve.core.perf import OUTPUT_GUESS
from sageserve.core.route import ROUTES
from sageserve.sim.kernel.engine import Kernel
from sageserve.sim.kernel.rows.shares import Sharers
from sageserve.sim.kernel.state import DONE, HELD, PLACE, REFUSED, SHED, request_rows
from sageserve.sim.run import kernel_setup
from tests.core.small import ENGINE, layout_of, scenario
from tests.parity.front_door import LivePlane
from tests.sim.cases import Case, Draw, Stop, drive, watch
from tests.sim.compare import first_difference
from tests.sim.reference_promises import missed_of

MS = 1000
REQUESTS = 120
LONGEST = 400  # prompt that is served
BATCH = 2  # of the tiers
MISSED = 5  # of what a stop tells of demand
OVER = (DONE, REFUSED, SHED)


@dataclass(frozen=True, slots=True)
class LiveCase:
    """One world, and whether its batch work comes from clients that wait or from the store."""

    scenario: Scenario
    layout: Layout
    case: Case
    clients: bool


def make_live_case(draw: Draw) -> LiveCase:
    """Draw a scenario, a trace and a script."""
    settings = _scenario(draw)
    layout = layout_of(settings)
    setup = kernel_setup(settings, layout)
    # who waits is told to go in the end, admission or not; the simulator gives up what is over only with admission
    clients = settings.admission.act and draw(0, 1) == 1
    trace = _trace(draw, settings, jobs_at=None if clients else 0)
    pools = [range(pool.begin, pool.end) for pool in layout.pools]
    most = 3 if draw(0, 3) else 0  # at first nothing is open
    opened = tuple(i for pool in pools for i in list(pool)[: draw(0, most)])
    end = int(trace.arrival[-1]) + 200 * MS
    steps, at = [], 0
    for _ in range(draw(0, 9)):
        at = min(end, at + draw(0, end // 5))
        pool = list(pools[draw(0, len(pools) - 1)])
        steps.append((at, tuple(sorted({pool[draw(0, len(pool) - 1)] for _ in range(draw(1, 3))}))))
    case = Case(setup, trace, opened, tuple(steps), draw(0, 1) == 1)
    one = LiveCase(settings, layout, case, clients)
    return _shared(draw, _balanced(one) if draw(0, 3) == 3 else one)


def _shared(draw: Draw, one: LiveCase) -> LiveCase:
    """In half of the worlds two or three tenants share, one of which asks for most."""
    if draw(0, 1):
        return one
    weights = [2.0 ** draw(-3, 1) for _ in range(draw(2, 3))]
    owner = np.array([draw(0, len(weights) - 1) if draw(0, 1) else 0 for _ in range(len(one.case.trace))], np.int32)
    tenants = {str(number): TenantSettings(weight=weight) for number, weight in enumerate(weights)}
    case = replace(one.case, sharers=Sharers(owner, np.array(weights)))
    return replace(one, scenario=one.scenario.model_copy(update={"tenants": tenants}), case=case)


def _scenario(draw: Draw) -> Scenario:
    below = sorted((draw(0, 10) / 10, draw(0, 10) / 10))
    patient = 10 ** draw(0, 2)  # batch work is over soon, is promoted soon, or waits until there is room
    fast = draw(40, 200)
    tiers: dict[str, Any] = {
        "iw-f": {"ttft": f"{fast}ms", "ttft_per_1k_tokens": f"{fast}ms" if fast % 3 == 0 else None, "priority": 0},
        "iw-n": {"ttft": f"{draw(50, 2_000)}ms", "priority": draw(0, 1)},
        "niw": {"deadline": f"{patient * draw(60, 300)}ms", "priority": 2},
    }
    admission: Any = {"wait": draw(1, 32) / 16, "queued": draw(1, 4)} if draw(0, 2) else "off"
    return scenario(
        gpus=800,
        tiers=tiers,
        models={name: {"context": 2_000, "engines": {"h100": _engine(draw)}} for name in ("big", "small")},
        fleet={"start": 2, "minimum": int(fast % 5 < 3), "maximum": 3},
        signals={"scrape": f"{draw(20, 400)}ms", "half_life": f"{draw(50, 2_000)}ms", "kind": ("load", "kv", "busy")[draw(0, 2)]},
        routing={"region": ROUTES[draw(0, 3)], "threshold": draw(1, 10) / 10},
        order={"kind": ("fcfs", "edf", "pf", "dpa")[draw(0, 3)]},
        batch={
            "feed": ("steps", "fill", "steps", "fill", "direct")[draw(0, 4)],
            "two_below": below[0],
            "one_below": below[1],
            "promote_after": f"{patient * draw(5, 400)}ms",
            "safety": draw(4, 16) / 4,
        },
        admission=admission,
        strategy={"name": ("reactive", "siloed", "chiron", "reactive")[draw(0, 3)]},
    )


def _engine(draw: Draw) -> dict[str, object]:
    odd = np.pi / 3  # coefficients with a full mantissa, so that nothing happens at once by design
    base, token = draw(2, 12) * odd, draw(2, 60) * odd  # milliseconds, microseconds
    bend = base + 0.01 * token  # the first twenty tokens cost half as much
    return ENGINE | {
        "iteration_ms": [[1, base], [21, bend], [1_021, bend + token]],
        "eager_ms": base / 32,
        "decode_us_per_sequence": draw(0, 200) * odd,
        "kv_ns_per_token": draw(0, 40) * odd,
        "attention_ns_per_token2": draw(0, 8) * odd,
        "kv_tokens": 100_000,
        "max_sequences": draw(1, 8),
        "max_batched_tokens": draw(16, 600),
        "chunked": draw(0, 1) == 1,
    }


def _trace(draw: Draw, settings: Scenario, jobs_at: int | None) -> Trace:
    names = names_of(settings)
    gap = 1 << draw(0, 7)  # mean milliseconds between arrivals when not together
    together = draw(1, 4)
    at, rows = 0, []
    for _ in range(REQUESTS):
        if draw(1, 4) >= together:
            at += draw(0, 2 * gap * MS)
        prompt = 2_100 if draw(0, 40) == 40 else draw(1, LONGEST)
        region, tier = draw(0, 1), draw(0, 2) if draw(0, 1) else BATCH
        output = 1 if draw(0, 3) == 3 else draw(1, 24)  # one token: answers of one prefill end together
        rows.append((at, prompt, output, draw(0, 1), jobs_at if tier == BATCH and jobs_at is not None else region, tier))
    columns = np.array(rows)
    return Trace(
        arrival=columns[:, 0].astype(np.int64),
        prompt=columns[:, 1].astype(np.int32),
        output=columns[:, 2].astype(np.int32),
        model=columns[:, 3].astype(np.uint8),
        region=columns[:, 4].astype(np.uint8),
        tier=columns[:, 5].astype(np.uint8),
        names=names,
        window=at + 1,
    ).check()


def _balanced(one: LiveCase) -> LiveCase:
    """Prompts as long as answers are expected to be, so that who has least hangs on what is expected, and rare scrapes."""
    trace, signals = one.case.trace, one.scenario.signals
    short = trace.prompt <= LONGEST
    trace.output[trace.prompt % 2 == 0] = 1  # many end between two scrapes, and move what is expected
    trace.prompt[short] = int(OUTPUT_GUESS) - 1 - trace.prompt[short] % 12
    settings = one.scenario.model_copy(update={"signals": signals.model_copy(update={"scrape": 4 * signals.scrape})})
    case = replace(one.case, setup=kernel_setup(settings, one.layout))
    return replace(one, scenario=settings, case=case)


def play_live(one: LiveCase) -> tuple[list[Stop], LivePlane]:
    """What the live plane shows at every stop, and the plane itself for its counts."""
    rows = request_rows(one.case.trace, one.case.setup)
    plane = LivePlane(one.scenario, one.layout, one.case.setup, rows, clients=one.clients, sharers=one.case.sharers)
    return drive(plane, one.case), plane


def play_kernel(one: LiveCase) -> Iterator[Stop]:
    """What the simulator shows at the same stops."""
    return watch(Kernel(one.case.setup, request_rows(one.case.trace, one.case.setup), sharers=one.case.sharers), one.case)


def live_stops(one: LiveCase, tried: Counter[str] | None = None) -> list[Stop]:
    """What the live plane shows, as it is compared; `tried` counts which rules were."""
    stops, plane = play_live(one)
    if tried is not None:
        tried.update(plane.counts)
    return list(_until_over(one, stops))


def simulated_stops(one: LiveCase) -> Iterator[Stop]:
    """What the simulator shows, as it is compared."""
    return _until_over(one, play_kernel(one))


def _until_over(one: LiveCase, stops: Iterable[Stop]) -> Iterator[Stop]:
    """Stops as they are settled, until the script is at its end and everything is over: what was given up unseen, too."""
    end = max((at for at, _ in one.case.script), default=0)
    for stop in stops:
        yield _settled(one, stop)
        if stop.now >= end and np.isin(stop.requests["state"] & PLACE, OVER).all():
            return


def differs(one: LiveCase, tried: Counter[str] | None = None) -> str:
    """How the live plane departs from the simulator; empty when it does not. `tried` counts which rules were."""
    return first_difference(live_stops(one, tried), simulated_stops(one))


def _settled(one: LiveCase, stop: Stop) -> Stop:
    """A stop at which what is over has been given up: the simulator does so when it next looks at the queue, live at once."""
    if one.scenario.admission.act:
        rows = stop.requests
        over = (rows["state"] == HELD) & (rows["deadline"] <= stop.now)
        rows["state"][over] = SHED
        names = one.layout.names
        cells = (rows["region"].astype(int) * len(names.models) + rows["model"]) * len(names.tiers) + rows["tier"]
        stop.demand[-1] += np.bincount(cells[over], minlength=stop.demand.shape[1])
        if one.layout.feed != DIRECT:  # else they wait at the door
            stop.batch_waiting[:] -= np.bincount(rows["model"][over], minlength=len(stop.batch_waiting))
        stop.demand[MISSED] = missed_of(rows, one.case.setup)
    return stop
