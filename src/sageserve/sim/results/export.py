"""A run as the columns and records that result files are made of. Writes nothing: `data/results/run_folder.py` does.

Read next: `meter.py` for the latencies, `data/results/tables.py` for the columns.
"""

from collections.abc import Iterator
from typing import Final

import numpy as np

from sageserve.base.records import UNSET
from sageserve.data.results.journal import Decided, JournalLine
from sageserve.data.results.run_folder import RunRecord
from sageserve.data.results.summary import Summary
from sageserve.data.results.tables import RequestFrame, RequestNames, TimelineFrame
from sageserve.sim.kernel.state import DONE, FUTURE, HELD, PLACE, PREFILLING, REFUSED, RUNNING, SENDING, SHED, WAITING
from sageserve.sim.results.meter import blocks
from sageserve.sim.results.summary import costs_of_run
from sageserve.sim.run import Run
from sageserve.sim.timeline import FIELDS

STATES: Final = {
    FUTURE: "future",
    HELD: "held",
    WAITING: "waiting",
    PREFILLING: "prefilling",
    SENDING: "sending",
    RUNNING: "running",
    DONE: "finished",
    REFUSED: "refused",
    SHED: "shed",
}


def record_of(run: Run, summary: Summary) -> RunRecord:
    """Everything about a run that is written to its folder."""
    layout = run.layout
    last = SENDING if any(layout.apart) else SHED if run.scenario.admission.act else REFUSED  # not in the file: what cannot be
    names = RequestNames(
        names=layout.names,
        pools=tuple(pool.name for pool in layout.pools),
        gpus=tuple(layout.stocks[pool.stock].gpu for pool in layout.pools),
        sessions=() if run.talk is None else run.talk.names,
        tenants=() if run.tenants is None else run.tenants.names,
        states=tuple(STATES[code] for code in range(last + 1)),
    )
    return RunRecord(summary, run.scenario, names, _requests(run), _timeline(run), _journal(run), costs_of_run(run))


def _requests(run: Run) -> Iterator[RequestFrame]:
    pool_of = np.array(run.fleet.pool_of, np.int64)
    end = 0
    for block in blocks(run):
        rows = block.rows
        first, end = end, end + len(rows)
        instance = rows["instance"]
        yield RequestFrame(
            arrival=rows["arrival"],
            model=rows["model"],
            tier=rows["tier"],
            region=rows["region"],
            prompt=rows["prompt"],
            output=rows["output"],
            deadline=rows["deadline"],
            served=block.served,
            instance=instance,
            pool=np.where(instance == UNSET, UNSET, pool_of[instance]),
            state=(rows["state"] & PLACE).astype(np.uint8),
            ttft=block.ttft,
            e2e=block.e2e,
            met=block.met,
            cached=rows["cached"],
            session=None if run.talk is None else run.talk.session[first:end],
            turn=None if run.talk is None else run.talk.number[first:end],
            tenant=None if run.tenants is None else run.tenants.codes[first:end],
        )


def _timeline(run: Run) -> TimelineFrame:
    layout = run.layout
    endpoints = list(range(layout.endpoints))
    if any(layout.apart):  # a model whose prefill and decode are not has an endpoint less
        endpoints = [e for e in endpoints if layout.endpoint_pools(e)]
    roles = len(layout.roles)
    models = len(layout.names.models)
    return TimelineFrame(
        times=run.timeline.times[: run.timeline.length],
        endpoints=tuple(layout.endpoint_name(e) for e in endpoints),
        regions=tuple(layout.names.regions[e // roles // models] for e in endpoints),
        models=tuple(layout.names.models[e // roles % models] for e in endpoints),
        roles=tuple(layout.role_name(e) for e in endpoints),
        columns={name: run.timeline.column(name)[:, endpoints] for name in FIELDS},
    )


def _journal(run: Run) -> Iterator[JournalLine]:
    pools = run.layout.pools
    for entry in run.journal:
        decided = tuple(Decided(pools[decision.pool].name, decision) for decision in entry.decisions)
        yield JournalLine(entry.now, entry.event, decided, entry.actions)
