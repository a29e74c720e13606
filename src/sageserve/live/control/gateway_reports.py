"""What gateways reported, added up: demand by cell, requests and work outstanding by instance, backlog by endpoint.

Counts are cumulative per process, so a report is taken in by what it changed; a process that comes back over another link goes on
where it was. Taking one in costs what is in it, however many gateways and instances there are. Sends nothing.
Read next: `fleet_view.py`, the owner; `live/wire.py` for what a report is.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from sageserve.base.records import Floats, Ints
from sageserve.base.units import MINUTE, NEVER, SECOND, Micros
from sageserve.core.layout import Layout
from sageserve.core.pace import ANSWER_WIDTH
from sageserve.core.response import MIX_WIDTH
from sageserve.live.wire import EndpointCount, Hello, InstanceCount, Report, WaitingCount

LINGERS: Final = 10 * MINUTE  # as long as a gateway that control lost sight of may wait for an answer
_SILENT: Final = 5 * SECOND  # longer than it takes any report to come from who speaks for another
_LATELY: Final = MINUTE
_REMEMBERED: Final = 64  # processes that left and may come back, such as gateways that control loses sight of


@dataclass(slots=True)
class Gateway:
    """One connected gateway, and what its latest report said it has where."""

    nonce: str  # of its process
    heard_at: Micros
    backlog: Floats  # by endpoint
    version: int = -1
    instances: dict[int, InstanceCount] = field(default_factory=dict)
    held: tuple[WaitingCount, ...] = ()
    worker: int = 0
    host: str = ""  # see Hello
    release: str = ""  # likewise
    layout: str = ""
    settings: str = ""
    stays: bool = False  # see Hello
    new: bool = True  # it has reported nothing yet
    busy_at: Micros = -NEVER  # when it last reported requests

    @property
    def name(self) -> str:
        """For people."""
        if self.stays:
            return "An Envoy (`sageserve envoy run`)"
        return f"Gateway {self.worker} on {self.host}" if self.host else f"Gateway {self.worker}"

    @property
    def worked(self) -> bool:
        """Whether it had requests when it was last heard of; where they go on without it, those of late count too."""
        return self.heard_at - self.busy_at <= _LATELY * self.stays

    def has(self, instance: int) -> bool:
        """Whether it has requests there."""
        return instance in self.instances and self.instances[instance].in_flight > 0

    def outstanding(self, instance: int) -> int:
        """Tokens times weight that it has there."""
        return self.instances[instance].outstanding if instance in self.instances else 0

    def unfinished(self, instance: int) -> int:
        """Tokens of prompts that it has there and that are not done."""
        return self.instances[instance].unfinished if instance in self.instances else 0


@dataclass(frozen=True, slots=True)
class Totals:
    """Cumulative, by cell; the columns of a Report."""

    prompt: Ints
    output: Ints
    requests: Ints
    work: Floats
    finished: Ints
    refused: Ints
    on_time: Ints
    could: Ints
    mixes: Floats  # by model and column of `core/response.py`
    answers: Floats  # by model x tier and column of `core/pace.py`; no rows where no tier promises a pace

    def counted(self) -> tuple[Ints, Ints, Ints, Ints, Ints, Floats, Floats, Floats]:
        """As they stand, in the order of `Counters` in `loop.py`."""
        missed = self.finished - self.on_time + self.refused
        cells = self.prompt.copy(), self.output.copy(), self.requests.copy(), self.could.copy(), missed
        return *cells, self.work.copy(), self.mixes.copy(), self.answers.copy()


class GatewayReports:
    """All gateways of one fleet.

    Args:
        layout: numbers of endpoints, instances and cells.
        endpoints: ENDPOINT rows; what was offered and placed is added to them, and their backlog set.
        output_guess: tokens of an answer, until some were seen.
    """

    def __init__(self, layout: Layout, endpoints: NDArray[Any], output_guess: float) -> None:
        names = layout.names
        cells = len(names.regions) * len(names.models) * len(names.tiers)
        prompt, output, requests, finished, refused, on_time, could = (np.zeros(cells, np.int64) for _ in range(7))
        self.gateways: dict[int, Gateway] = {}
        mixes = np.zeros((len(names.models), MIX_WIDTH))
        answers = np.zeros((len(names.models) * len(names.tiers) * bool(layout.tiers["gap"].any()), ANSWER_WIDTH))
        self.totals = Totals(prompt, output, requests, np.zeros(cells), finished, refused, on_time, could, mixes, answers)
        self.in_flight = np.zeros(layout.instances, np.int64)
        self.outstanding = np.zeros(layout.instances, np.int64)  # tokens times weight
        self.unfinished = np.zeros(layout.instances, np.int64)  # prompt tokens
        self.revisions: dict[tuple[int, int], tuple[Ints, Ints]] = {}  # by model and revision: asked and missed, by tier
        self.freed = np.zeros(layout.endpoints, np.int64)  # see EndpointCount
        self._lost: dict[str, Gateway] = {}  # by process: gone with requests, and not heard of again
        self.held = np.zeros(cells, np.int64)  # requests that wait for an instance
        self.asked = False  # the first of a cell began to wait; whoever reads it takes it back
        self.output_mean = np.full(len(names.models) * len(names.tiers), output_guess)
        self._endpoints = endpoints
        self._means: dict[int, Floats] = {}  # by gateway
        self._known: dict[str, Report] = {}  # last report by process, so that a link that is made anew counts nothing twice

    def meet(self, number: int, hello: Hello, now: Micros) -> None:
        """A gateway connected; a link that it had before is over, though what came over it may not all be read yet."""
        for old in [one for one, gateway in self.gateways.items() if gateway.nonce == hello.nonce]:
            self.leave(old)
        backlog = np.zeros(len(self._endpoints))
        known = {key: getattr(hello, key) for key in ("nonce", "worker", "stays", "host", "release", "layout", "settings")}
        self.gateways[number] = Gateway(heard_at=now, backlog=backlog, **known)

    def take(self, number: int, report: Report, now: Micros) -> bool:
        """A gateway reported; over a link that it has left, that is older than what is known.

        Returns:
            Whether requests went on of which nothing was heard: how busy endpoints are has to be learned anew.
        """
        gateway = self.gateways.get(number)
        if gateway is None:
            return False
        before = self._known.pop(gateway.nonce, None)
        unheard = gateway.stays and (before is None or now - gateway.heard_at > _SILENT)
        gateway.heard_at, gateway.version = now, report.version
        if gateway.new:
            gateway.new = False
            self._find(gateway)
        if before is not None:  # the first report of a process is where its counting begins
            self._add_counts(before, report)
        self._known[gateway.nonce] = report
        while len(self._known) > len(self.gateways) + _REMEMBERED:
            del self._known[next(iter(self._known))]  # of the process that was silent longest
        self._means[number] = np.array(report.output_mean)
        self.output_mean[:] = np.mean(list(self._means.values()), axis=0)
        self._replace(gateway, report.instances, report.endpoints)
        self._hold(gateway, report.held)
        came = gateway.stays and before is not None and _requests(report) > _requests(before)
        if came or gateway.held or any(one.in_flight for one in gateway.instances.values()):
            gateway.busy_at = now
        return unheard

    def away(self, now: Micros, blind_after: Micros) -> list[Gateway]:
        """Gateways that had requests and are gone or silent, not longer than they may have them."""
        here = [one for one in self.gateways.values() if now - one.heard_at > (_SILENT if one.stays else blind_after)]
        return [one for one in (*self._lost.values(), *here) if one.worked and now - one.heard_at <= LINGERS]

    def away_in_words(self, now: Micros, blind_after: Micros) -> tuple[str, ...]:
        """The same in sentences."""
        return tuple(
            f"{one.name} had requests and was last heard of {(now - one.heard_at) // SECOND} s ago: no instance is taken away "
            f"until it is back, or for {(one.heard_at + LINGERS - now) // SECOND} s more."
            for one in self.away(now, blind_after)
        )

    def _find(self, gateway: Gateway) -> None:
        """It reports: it is lost no more, or is what was begun in place of one that is."""
        instead = (nonce for nonce, one in self._lost.items() if (one.host, one.worker) == (gateway.host, gateway.worker))
        found = gateway.nonce if gateway.nonce in self._lost else next(instead, None)
        if found is not None:
            del self._lost[found]

    def leave(self, number: int) -> None:
        """A gateway is gone: what it had sent is gone with it, or will be reported again under another number."""
        if number in self.gateways:
            self._replace(self.gateways[number], (), ())
            self._hold(self.gateways[number], ())
            self._means.pop(number, None)
            gone = self.gateways.pop(number)
            if gone.worked:
                self._lost[gone.nonce] = gone
            while len(self._lost) > _REMEMBERED:
                del self._lost[next(iter(self._lost))]

    def forget(self, instance: int) -> None:
        """An instance is gone, and what was sent there with it."""
        for gateway in self.gateways.values():
            gateway.instances.pop(instance, None)
        self.in_flight[instance] = self.outstanding[instance] = self.unfinished[instance] = 0

    def _replace(self, gateway: Gateway, instances: Iterable[InstanceCount], endpoints: Iterable[EndpointCount]) -> None:
        for count in gateway.instances.values():
            self.in_flight[count.row] -= count.in_flight
            self.outstanding[count.row] -= count.outstanding
            self.unfinished[count.row] -= count.unfinished
        gateway.instances = {count.row: count for count in instances}
        for count in gateway.instances.values():
            self.in_flight[count.row] += count.in_flight
            self.outstanding[count.row] += count.outstanding
            self.unfinished[count.row] += count.unfinished
        gateway.backlog[:] = 0.0
        for row in endpoints:
            gateway.backlog[row.endpoint] = row.backlog
        self._endpoints["backlog"] = sum(one.backlog for one in self.gateways.values())

    def _hold(self, gateway: Gateway, held: tuple[WaitingCount, ...]) -> None:
        before = self.held.copy()
        for one in gateway.held:
            self.held[one.cell] -= one.requests
        gateway.held = held
        for one in held:
            self.held[one.cell] += one.requests
        self.asked |= bool(((before == 0) & (self.held > 0)).any())

    def _add_counts(self, before: Report, after: Report) -> None:
        old = {cell.cell: cell for cell in before.cells}
        totals = self.totals
        for new in after.cells:
            was = old.get(new.cell)
            at = new.cell
            totals.prompt[at] += new.prompt_tokens - (was.prompt_tokens if was else 0)
            totals.output[at] += new.output_tokens - (was.output_tokens if was else 0)
            totals.requests[at] += new.requests - (was.requests if was else 0)
            totals.work[at] += new.work - (was.work if was else 0.0)
            totals.finished[at] += new.finished - (was.finished if was else 0)
            totals.refused[at] += new.refused - (was.refused if was else 0)
            totals.on_time[at] += new.on_time - (was.on_time if was else 0)
            totals.could[at] += new.could - (was.could if was else 0)
        mixes = {mix.model: mix for mix in before.mixes}
        for mix in after.mixes:
            first = mixes.get(mix.model)
            totals.mixes[mix.model] += np.array(mix.counted) - (np.array(first.counted) if first else 0.0)
        known = {each.row: each for each in before.answers}
        for answer in after.answers:
            told = known.get(answer.row)
            totals.answers[answer.row] += np.array(answer.counted) - (np.array(told.counted) if told else 0.0)
        counted = {(row.model, row.revision): row for row in before.revisions}
        for each in after.revisions:
            key, tiers = (each.model, each.revision), len(each.asked)
            asked, missed = self.revisions.setdefault(key, (np.zeros(tiers, np.int64), np.zeros(tiers, np.int64)))
            earlier = counted.get(key)
            asked += np.array(each.asked) - (np.array(earlier.asked) if earlier else 0)
            missed += np.array(each.missed) - (np.array(earlier.missed) if earlier else 0)
        offered = {row.endpoint: row for row in before.endpoints}
        for row in after.endpoints:
            past = offered.get(row.endpoint)
            self._endpoints[row.endpoint]["offered"] += row.offered - (past.offered if past else 0.0)
            self._endpoints[row.endpoint]["placed"] += row.placed - (past.placed if past else 0)
            self.freed[row.endpoint] += row.freed - (past.freed if past else 0)


def _requests(report: Report) -> int:
    return sum(one.requests for one in report.cells)
