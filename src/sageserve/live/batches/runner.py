"""Runs the jobs of batches, and takes every batch from upload to its files.

The batch queue says when and where a job may run (`JobQueue`); it goes through the gateway like any request, and is done once
its result is in the store. Everything that must survive is there: killed at any moment, the next process reads there what to do.
Of several processes that share a store one runs the queue; what it has in hand is of its term alone (`queue_lead.py`).
Must not decide how much spare capacity there is. Read next: `live/control/batch_queue.py`, `result_writer.py`, `lifecycle.py`.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Final, TypeVar

from sageserve.base.config import LiveSettings, Scenario
from sageserve.base.errors import SageServeError
from sageserve.base.records import Names
from sageserve.base.units import SECOND, Micros
from sageserve.live.batches.gateway_lines import GatewayLines
from sageserve.live.batches.job_buffer import JobBuffer
from sageserve.live.batches.job_client import JobLines, Retry, ask
from sageserve.live.batches.lifecycle import BatchLifecycle
from sageserve.live.batches.queue_lead import QueueLead
from sageserve.live.batches.result_writer import ResultWriter
from sageserve.live.batches.store_thread import SteadyWall, StoreThread
from sageserve.live.control.batch_queue import QueueHead
from sageserve.live.store.models import Committed, Job, Key, Lease, Result, StoreError, Superseded
from sageserve.live.wire import ANYWHERE

_REGION: Final = 0  # where jobs come in: a batch names no region, and the first is where control and its gateway stand
_AGAIN_S: Final = 1.0  # a database that restarts
_BYTES_PER_TOKEN: Final = 4  # of a prompt in JSON, roughly; the gateway counts better, the batch queue needs an idea

_LOG: Final = logging.getLogger(__name__)
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Door:
    """The gateway.

    Args:
        url: its base, without /v1.
        key: of this deployment's own processes; empty: none is needed.
        lines: makes what jobs go over, of the URL, seconds to wait for an answer and a clock.
    """

    url: str
    key: str
    lines: Callable[[str, float, Callable[[], Micros]], JobLines] = GatewayLines


class BatchRunner:
    """Jobs in deadline order, for the batch queue; `run` does the rest.

    Args:
        store: files, batches, jobs.
        scenario: for tiers and settings.
        names: of models, in order of their numbers.
        door: where jobs are sent.
        time: wall time and the loop's clock.
        me: name of this process among those that share the store.
    """

    def __init__(
        self, store: StoreThread, scenario: Scenario, names: Names, door: Door, time: SteadyWall, *, me: str = ""
    ) -> None:
        live = scenario.live or LiveSettings()
        tiers = list(scenario.tiers.values())
        self.store = store
        self.lead = QueueLead(store, me, time.clock)
        self.writer = ResultWriter(store, self._recorded)
        self._live = live
        self._settings = live.jobs
        self._models = names.models
        self._buffers = {model: JobBuffer() for model in names.models}
        self._tier = next((code for code, tier in enumerate(tiers) if tier.batch), 0)
        self.tier = names.tiers[self._tier]
        key = f"authorization: Bearer {door.key}\r\n" if door.key else ""
        origin = f"x-sageserve-tier: {self.tier}\r\nx-sageserve-region: {names.regions[_REGION]}\r\n"
        self._fields = f"content-type: application/json\r\naccept-encoding: identity\r\n{origin}{key}"
        self._door = door
        self._time = time
        self._lifecycle = BatchLifecycle(store, names.models, live, time)
        self._tasks: dict[Key, asyncio.Task[None]] = {}
        self._reads: set[asyncio.Task[None]] = set()
        self._lines: JobLines | None = None
        self._away_until: Micros = 0  # by the clock, like the next
        self._limited: dict[str, Micros] = {}  # owners whose keys have used up a limit, and until when
        self._strange: frozenset[str] = frozenset()  # models of jobs that wait, and that the scenario does not have
        self._superseded = asyncio.Event()
        self._ended: Callable[[int], None] = lambda _: None
        self._loaded: Callable[[], None] = lambda: None

    # --- what the batch queue asks ---

    def waiting(self, model: int) -> int:
        """Jobs of a model that wait."""
        return self._buffers[self._models[model]].waiting

    def heads(self, model: int) -> list[QueueHead]:
        """The one of each owner that is due first; none when no job may begin now."""
        buffer = self._buffers[self._models[model]]
        if self._lines is None or self._is_held_up(buffer):
            return []
        if buffer.is_low:
            self._read_ahead(self._models[model])
        origin = self._time.origin
        jobs = buffer.firsts()
        if self._limited:
            self._limited = {owner: until for owner, until in self._limited.items() if until > self._time.clock()}
            jobs = [job for job in jobs if job.owner not in self._limited]
        return [
            QueueHead(
                job.deadline - origin, job.created_at - origin, _REGION, self._tier, job.size // _BYTES_PER_TOKEN, job.owner
            )
            for job in jobs
        ]

    def launch(self, model: int, endpoint: int, owner: str) -> None:
        """Take an owner's head and begin to run it at an endpoint, or ANYWHERE."""
        job = self._buffers[self._models[model]].take(owner)
        task = asyncio.get_running_loop().create_task(self._run(job, endpoint))
        self._tasks[job.key] = task
        task.add_done_callback(lambda _: self._tasks.pop(job.key, None) if self._tasks.get(job.key) is task else None)

    def tell(self, ended: Callable[[int], None], loaded: Callable[[], None]) -> None:
        """Call the first from now on with the endpoint of each job that is over there, the second when jobs may begin again."""
        self._ended, self._loaded = ended, loaded

    def _is_held_up(self, buffer: JobBuffer) -> bool:
        away = self._time.clock() < self._away_until or not self.lead.may_begin()
        return away or bool(self.writer.trouble) or buffer.running >= self._settings.in_hand

    # --- what the control process runs ---

    def notify(self) -> None:
        """A batch came or changed: look at once."""
        self._lifecycle.notify()

    async def run(self) -> None:
        """Run jobs whenever this process leads, until cancelled.

        Raises:
            SageServeError: another control process has taken over a queue that only one can have.
        """
        try:
            while True:
                epoch = await self.lead.win()
                await self._run_term(epoch)
                self.lead.lost(epoch)
                if not self.lead.shared:
                    raise SageServeError(
                        "another control process has taken the batch queue over", hint="one fleet, one control process"
                    )
                _LOG.warning("another process leads the batch queue now; this one stands by")
        finally:
            await self.lead.let_go()

    async def _run_term(self, epoch: int) -> None:
        """Run jobs until another process leads."""
        store = self.store.at(epoch)
        self.writer = ResultWriter(self.store, self._recorded)
        self.writer.epoch = epoch
        self._lifecycle = BatchLifecycle(store, self._models, self._live, self._time)
        self._superseded = asyncio.Event()
        lines = self._door.lines(self._door.url, self._settings.answer_within / SECOND, self._time.clock)
        parts = (self.lead.keep(), self.writer.run(), self._lifecycle.run(), self._follow(lines), self._superseded.wait())
        tasks = [asyncio.create_task(part) for part in parts]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                with suppress(Superseded):
                    task.result()  # a fault of any part is this one's
        finally:
            self._lines = None
            await self._stop(tasks)
            lines.close()
            self._buffers = {model: JobBuffer() for model in self._models}

    async def _follow(self, lines: JobLines) -> None:
        """Hear what became of batches, until cancelled; jobs may begin once it is known what waits."""
        await self._insist(self._refresh)
        self._lines = lines
        while True:
            change = await self._lifecycle.changes.get()
            if change.stopped:
                self._stop_jobs(change.batch)
            else:
                await self._insist(self._refresh)

    async def _insist(self, do: Callable[[], Awaitable[_T]]) -> _T:
        """Ask the store until it answers."""
        while True:
            try:
                return await do()
            except StoreError as error:
                _LOG.error("the batch queue cannot be read yet: %s", error.message)
                await asyncio.sleep(_AGAIN_S)

    async def _stop(self, tasks: "Sequence[asyncio.Task[Any]]") -> None:
        every = [*tasks, *self._tasks.values(), *self._reads]
        for task in every:
            task.cancel()
        await asyncio.gather(*every, return_exceptions=True)
        try:
            await self.writer.flush()
        except StoreError as error:
            _LOG.error("last results are not recorded, their jobs run again: %s", error.message)

    # --- jobs ---

    async def _run(self, job: Job, endpoint: int) -> None:
        buffer = self._buffers[job.model]
        try:
            body = job.body if job.body is not None else await self.store.call(self.store.store.body, job.key)
        except StoreError:
            self._rest(job, SECOND)
            return
        if body is None or self._lines is None:
            buffer.recorded(job.key, counted=False)
            return
        if not self.lead.may_begin():  # it stood still since it was taken: another may have it by now
            self._rest(job, SECOND)
            return
        self.writer.lease(Lease(job.key, job.attempts))
        said = await self._ask(self._lines, job, body, endpoint)
        match said:
            case Result():
                self.writer.record(said)
                self._ended(endpoint)
            case Retry(failed=True) if job.attempts + 1 >= self._settings.attempts:
                self.writer.record(said.last)
            case Retry():
                again = self._time.clock() + said.after
                if said.away:
                    self._away_until = again
                elif said.limited:
                    self._limited[job.owner] = again
                    asyncio.get_running_loop().call_later(said.after / SECOND, self._loaded)
                waits = 0 if said.away or said.limited else said.after
                self._rest(replace(job, attempts=job.attempts + said.failed), waits)

    async def _ask(self, lines: JobLines, job: Job, body: bytes, endpoint: int) -> Result | Retry:
        """Ask, whatever comes back: a fault in taking it in fails this line."""
        batch, line = job.key
        try:
            return await ask(lines, job, body, f"job-{batch}-{line}-{job.attempts + 1}", self._headers(job, endpoint))
        except Exception as fault:  # noqa: BLE001 # whatever it was, the line must not stay in hand for ever
            _LOG.exception("line %d of batch number %d", job.key[1], job.key[0])
            return Result(job.key, False, error=f"the answer could not be read: {type(fault).__name__}")

    def _rest(self, job: Job, after: int) -> None:
        asyncio.get_running_loop().call_later(after / SECOND, self._buffers[job.model].put_back, job)

    def _headers(self, job: Job, endpoint: int) -> str:
        fields = f"{self._fields}x-sageserve-key: {job.owner}\r\n" if job.owner else self._fields
        return fields if endpoint == ANYWHERE else f"{fields}x-sageserve-endpoint: {endpoint}\r\n"

    def _recorded(self, results: list[Result], done: Committed) -> None:
        taken = set(done.recorded)
        for result in results:
            for buffer in self._buffers.values():
                buffer.recorded(result.key, counted=result.key in taken)
        if taken:
            self._lifecycle.notify()
            self._loaded()
        if done.superseded:
            self._superseded.set()

    # --- what becomes of batches ---

    def _stop_jobs(self, batch: int) -> None:
        """No job of a batch runs any more."""
        for buffer in self._buffers.values():
            for key in buffer.let_go(batch):
                if (task := self._tasks.get(key)) is not None:
                    task.cancel()

    async def _refresh(self) -> None:
        """Batches came or went: count anew, and read anew what is due first.

        Raises:
            StoreError: the store cannot be asked.
        """
        counts = await self.store.call(self.store.store.unfinished_jobs)
        strange = frozenset(counts) - self._buffers.keys()
        for model in sorted(strange - self._strange):
            _LOG.error("%d jobs wait for the model %s, which this scenario does not have: nobody runs them", counts[model], model)
        self._strange = strange
        for model, buffer in self._buffers.items():
            buffer.unfinished = counts.get(model, 0)
            if buffer.waiting:
                await self._read(model)

    def _read_ahead(self, model: str) -> None:
        buffer = self._buffers[model]
        if not buffer.reading:
            buffer.reading = True
            task = asyncio.get_running_loop().create_task(self._read(model))
            self._reads.add(task)
            task.add_done_callback(self._reads.discard)

    async def _read(self, model: str) -> None:
        buffer = self._buffers[model]
        try:
            # Nothing that was taken before this call is forgotten by it: one thread answers in the order of the calls.
            buffer.fill(await self.store.call(self.store.store.queued, model, self._settings.ahead + self._settings.in_hand))
            self._loaded()
        except StoreError as error:
            _LOG.error("the batch queue cannot be read: %s", error.message)
            await asyncio.sleep(_AGAIN_S)
        finally:
            buffer.reading = False
