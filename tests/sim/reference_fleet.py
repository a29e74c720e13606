"""Everything there is in the naive world of `reference.py`: engines, endpoints, and what is counted and seen of them.

Derived from docs/reference/kernel.md ("The fleet", "Signals"), not from the kernel. Decides nothing: where requests go is in
`reference.py`. Read next: `reference_engine.py` for one instance.
"""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sageserve.base.records import CACHE_BLOCK, UNSET
from sageserve.base.sessions import Turns
from sageserve.core.columns import ENDPOINT
from sageserve.core.feed import DIRECT
from sageserve.core.order import EDF, FCFS, PF
from sageserve.core.route import AFFINITY
from sageserve.core.signals import BUSY, KV, LOAD
from sageserve.sim.kernel.prefixes.tree import Prefixes
from sageserve.sim.kernel.rows.adapters import Adapters
from sageserve.sim.kernel.rows.shares import Sharers
from sageserve.sim.kernel.state import DONE, PREFILLING, PROMOTED, REFUSED, RUNNING, SHED, WAITING, Setup
from tests.sim.reference_adapters import ReferenceSlots, ask, has_loaded
from tests.sim.reference_apart import Endpoint, links, prefills, settle, way_of, work_of
from tests.sim.reference_cache import ReferenceCache, paths_of
from tests.sim.reference_engine import Job, Outcome, job_of
from tests.sim.reference_profile import Profile
from tests.sim.reference_promises import Tier, answers_of, missed_of, mix_of
from tests.sim.reference_ranks import Instance
from tests.sim.reference_shares import Shares


class ReferenceFleet:
    """What there is, before anything is decided.

    Args:
        setup: what to simulate.
        requests: REQUEST rows, sorted by arrival; first, finish, instance, state and cached are written, arrivals of turns too.
        turns: which of them wait for answers.
        prefixes: hashes of their prompts.
        sharers: tenants that share.
        adapters: that requests ask for.
    """

    def __init__(
        self,
        setup: Setup,
        requests: NDArray[Any],
        turns: Turns | None = None,
        prefixes: Prefixes | None = None,
        sharers: Sharers | None = None,
        adapters: Adapters | None = None,
    ) -> None:
        self.setup, self.requests = setup, requests
        self.now, self.asked = 0, False
        self.drained: list[int] = []
        self.counts: Counter[str] = Counter()
        self._tiers = [
            Tier(int(r["urgent"]), int(r["expired"]), int(r["rank"]), int(r["patience"]), int(r["growth"]), bool(r["batch"]))
            for r in setup.tiers
        ]
        tiers = len(self._tiers)
        profiles = [Profile.of(row) for row in setup.profiles]
        self._engines = [
            Instance(profiles[p], tiers + 1, self._key, prefills=prefills(self, i)) for i, p in enumerate(setup.slot_profile)
        ]
        self._sent, self._link = links(self)
        self._endpoints = [
            Endpoint(e // setup.roles % setup.models, e * setup.slots, setup.slots, bool(setup.feeds[e]))
            for e in range(setup.endpoints)
        ]
        self._open, self._draining = ([False] * len(self._engines) for _ in range(2))
        self._jobs = [job_of(row, r) for row, r in enumerate(requests)]
        self._region, self._model = (list(map(int, requests[name])) for name in ("region", "model"))
        self._size = 0  # tokens of a hashed block
        self._caches = prefixes is not None or turns is not None
        self._adapted = ask(self._jobs, adapters, profiles)
        if prefixes is not None:
            self._hash(prefixes)
        self._talk: dict[int, list[int]] = {}  # row: the turns of its conversation up to it
        self._pause: dict[int, int] = {}
        self._stated = [job.cached for job in self._jobs]
        self._kept: list[dict[int, int]] = [{} for _ in self._engines]  # of each instance, row: tokens of prompt and answer
        self._coming: list[int] = []  # turns that will arrive, their time known
        self._never: set[int] = set()  # turns that will not
        self._shares, self._alone = Shares(sharers), len(self._jobs)
        if turns is not None:
            self._alone = turns.first
            self._pause = dict(enumerate(turns.pause.tolist()))
            for row in range(len(self._jobs)):
                self._talk[row] = [row]
                while (earlier := int(turns.before[self._talk[row][0]])) != UNSET:
                    self._talk[row].insert(0, earlier)
        self._next_row = self._next_scrape = self._last_scrape = 0
        self._batch: list[list[Job]] = [[] for _ in range(setup.models)]
        self._doors: list[list[Job]] = [[] for _ in range(setup.models)]
        self._rooms: list[list[Job]] = [[] for _ in range(setup.models)]  # where those are held that wait for who sleeps
        self._mean = [[float(setup.output_guess)] * tiers for _ in range(setup.models)]
        counts = np.zeros((4, setup.regions * setup.models * tiers), np.int64)
        self.demand_requests, self.demand_tokens, self.made_tokens, self.could = counts
        self.demand_work = np.zeros(counts.shape[1])
        self._asked: list[list[tuple[float, float, float]]] = [[] for _ in range(setup.models)]
        self._fastest = [self._fastest_profile(model, profiles) for model in range(setup.models)]
        self._guess = [int(setup.output_guess + 0.5)] * setup.models

    # ---- control

    def open(self, i: int) -> None:
        """Instance i may receive work from now on."""
        self.counts["reopened while draining"] += self._draining[i]
        if not self._open[i] and not self._draining[i]:
            self.counts["opened with a past"] += bool(self._kept[i])
            self._kept[i] = {}
            for rank in self._engines[i].ranks:
                rank.decoded = 0
                rank.slots = ReferenceSlots(rank.profile, self.counts)
                rank.cache = ReferenceCache(self._size, self.counts) if self._size else None
        self._open[i], self._draining[i] = True, False

    def drain(self, i: int) -> bool:
        """Instance i receives nothing any more; True if it was empty and is closed at once."""
        empty = self._engines[i].inside == 0
        self._open[i], self._draining[i] = False, not empty
        self.counts["drained while busy"] += not empty
        return empty

    def finished(self) -> bool:
        """Whether every request is done, refused, shed or will never arrive."""
        over = (DONE, REFUSED, SHED)
        return all(int(state) & 63 in over or row in self._never for row, state in enumerate(self.requests["state"]))

    @property
    def mixes(self) -> NDArray[np.float64]:
        """Requests, prefill, its squares, decoding, and requests by slack; by model."""
        return np.array([mix_of(asked) for asked in self._asked])

    @property
    def missed(self) -> NDArray[np.int64]:
        """As `missed_of` says."""
        return missed_of(self.requests, self.setup)

    @property
    def answers(self) -> NDArray[np.float64]:
        """As `answers_of` says."""
        return answers_of(self.requests, self.setup)

    @property
    def slot_wait(self) -> NDArray[np.int64]:
        return np.array([job.slot_wait for job in self._jobs] if self._adapted else [0], np.int64)

    @property
    def batch_waiting(self) -> NDArray[np.int64]:
        """Jobs in the batch queue, by model."""
        return np.array([len(queue) for queue in self._batch], np.int64)

    @property
    def held(self) -> NDArray[np.int64]:
        """Requests that wait at a door, by (region, model, tier)."""
        found = np.zeros(self.setup.regions * self.setup.models * len(self._tiers), np.int64)
        for job in (job for door in (*self._doors, *self._rooms) for job in door):
            found[self._cell(job)] += 1
        return found

    @property
    def endpoints(self) -> NDArray[Any]:
        """ENDPOINT rows as counted now."""
        rows = np.zeros(len(self._endpoints), ENDPOINT)
        for row, one in zip(rows, self._endpoints, strict=True):
            for name in ("seen", "kv", "busy", "finished", "preempted", "made", "placed", "model", "feeds"):
                row[name] = getattr(one, name)
            row["open"] = len(self._opened(one))
        return rows

    def _hash(self, prefixes: Prefixes) -> None:
        """Say what prompts and answers begin with; engines without a cache are given nothing."""
        self._size = prefixes.blocks.size
        lengths = [(job.prompt, job.output) for job in self._jobs]
        for job, (path, answer) in zip(self._jobs, paths_of(prefixes, lengths), strict=True):
            if path is not None and self.setup.caches and not self.setup.caches[self._model[job.row]]:
                job.cached = self._stated_as(job, 0)
            else:
                job.path, job.answer = path, answer

    def _stated_as(self, job: Job, tokens: int) -> int:
        self.requests[job.row]["cached"] = tokens
        return tokens

    # ---- what a request is

    def _key(self, job: Job, now: int) -> tuple[int, ...]:
        """Sort key by the order of the setup; the DPA classes are those tabled in core/order.py."""
        tier, promoted = self._tiers[job.tier], job.queue == len(self._tiers)
        rank = 0 if promoted else tier.rank
        if self.setup.order == FCFS:
            return (job.arrival,)
        if self.setup.order == EDF:
            return (job.deadline,)
        if self.setup.order == PF:
            return (rank, job.arrival)
        slack = job.deadline - now
        if slack < -tier.expired:
            return (0, job.deadline)
        if slack < 0:
            return (201, job.deadline)
        if tier.batch and not promoted:
            return (202, job.deadline)
        return ((1 if slack < tier.urgent else 101) + rank, job.deadline)

    def _cell(self, job: Job) -> int:
        """Position of the job's (region, model, tier) in the columns of demand."""
        place = self._region[job.row] * self.setup.models + self._model[job.row]
        return place * len(self._tiers) + job.tier

    def _fastest_profile(self, model: int, profiles: list[Profile]) -> Profile:
        """The profile of the model's slots that weighs least, lowest number of equals."""
        mine = [i for one in self._endpoints if one.model == model for i in one.instances]
        return profiles[min((int(self.setup.slot_profile[i]) for i in mine), key=lambda p: (profiles[p].weight, p))]

    def _walk(self, job: Job) -> Iterator[int]:
        for e in self.setup.walk[self._region[job.row], self._model[job.row], job.tier]:
            if e < 0:
                return
            yield int(e)

    def _count_demand(self, job: Job) -> None:
        """Count an arrival where it entered, and what it asks of the model's fastest engine."""
        model = self._model[job.row]
        fastest, mean = self._fastest[model], self._mean[model][job.tier]
        self.demand_requests[self._cell(job)] += 1
        self.demand_tokens[self._cell(job)] += job.prompt
        work = fastest.work(job.prompt, job.cached, mean)
        self.demand_work[self._cell(job)] += work
        way = way_of(self, job)
        tier = self._tiers[job.tier]
        if not tier.batch or self.setup.feed == DIRECT:
            near = int(self.setup.rtt[(self._region[job.row],) * 2]) if self.setup.rtt.size else 0
            prefill = fastest.prefill_work(job.prompt, job.cached)
            slack = tier.promised(job.prompt) - near - fastest.alone(job.prompt, job.cached) - way
            self._asked[model].append((prefill, work - prefill, slack))
            self.could[self._cell(job)] += slack > 0

    # ---- placement

    def _opened(self, endpoint: Endpoint) -> list[int]:
        return [i for i in endpoint.instances if self._open[i]]

    def _emptiest(self, e: int, job: Job) -> int:
        """The instance that a job for endpoint e goes to."""
        return min(self._opened(self._endpoints[e]), key=lambda one: (self._outstanding(one) + self._left(job, one), one))

    def _left(self, job: Job, i: int) -> int:
        """What is left of the job's prompt where caches count, or adapters."""
        if self.setup.instance != AFFINITY or not (self._caches or self._adapted):
            return 0
        found = self._would_find(job, i)
        self.counts["chosen by what caches have"] += found > 0
        loaded = self.setup.adapter_tokens if has_loaded(self._engines[i], job) else 0
        self.counts["chosen by what is loaded"] += loaded > 0
        return (job.prompt - int(self.setup.overlap * found) - loaded) * self._engines[i].profile.weight

    def _outstanding(self, i: int) -> int:
        engine = self._engines[i]
        guess = 0 if prefills(self, i) else self._guess[self._endpoints[i // self.setup.slots].model]
        return (engine.unprefilled + guess * engine.inside) * engine.profile.weight

    def _place(self, job: Job, e: int) -> float:
        """Give the job to an instance of endpoint e; the work it offers, in microseconds of engine time."""
        endpoint, i = self._endpoints[e], self._emptiest(e, job)
        engine = self._engines[i]
        self._remember(job, i)
        work = work_of(self, job, i)
        endpoint.offered += work
        endpoint.unfinished[job.row] = engine.profile.prefill_work(job.prompt, job.cached)
        endpoint.placed += 1
        self.requests[job.row]["instance"] = i
        self._put(job, WAITING)
        self.counts["cut"] += engine.place(job, self.now)
        return work

    def _put(self, job: Job, state: int) -> None:
        promoted = PROMOTED if job.queue == len(self._tiers) else 0
        self.requests[job.row]["state"] = state | promoted

    def _note_admitted(self, engine: Instance, endpoint: Endpoint) -> None:
        self.counts["found again after preemption"] += sum(rank.recovered for rank in engine.ranks)
        self.counts["accepted after the last token"] += sum(rank.beyond for rank in engine.ranks)
        for rank in engine.ranks:
            rank.recovered = rank.beyond = 0
        for rank, job in ((one, job) for one in engine.ranks for job in one.prefilling):
            self._put(job, PREFILLING)
            if job.path is not None and job.made == 0:
                self.counts["more in the cache than expected"] += job.cached > self.requests[job.row]["cached"]
                self.counts["less in the cache than expected"] += job.cached < self.requests[job.row]["cached"]
                endpoint.unfinished[job.row] = engine.profile.prefill_work(job.prompt, job.cached)
                self.requests[job.row]["cached"] = job.cached
            partly = rank.done == 0 and job.filled + job.piece < job.context
            self.counts["partly prefilled"] += partly
            self.counts["partly prefilled after a cached part"] += partly and job.filled == job.cached > 0
            self.counts["cached"] += job.filled == job.cached > 0

    # ---- conversations

    def _followers(self, job: Job) -> list[int]:
        """Turns that wait for an answer of this job or of one that waits for it, in their order."""
        found: list[int] = []
        for row in range(self._alone, len(self._jobs)):
            if self._talk[row][-2] in (job.row, *found):
                found.append(row)
        return found

    def _answer(self, job: Job) -> None:
        """A job is done: its instance keeps what was said, and whoever has the next turn thinks about it."""
        i = int(self.requests[job.row]["instance"])
        self._kept[i][job.row] = job.prompt + job.output - 1  # the last token is never read by the engine
        served = i // self.setup.slots // self.setup.models // self.setup.roles
        for row in self._followers(job)[:1]:
            away = int(self.setup.rtt[self._region[job.row], served]) if self.setup.rtt.size else 0
            later = self._jobs[row]
            later.arrival = int(self.requests[job.row]["finish"]) + away + self._pause[row]
            later.deadline += later.arrival
            self.requests[row]["arrival"], self.requests[row]["deadline"] = later.arrival, later.deadline
            self._coming.append(row)
            self.counts["turns that followed"] += 1

    def _break_off(self, job: Job) -> None:
        """Nobody answers: what would have followed never arrives."""
        never = self._followers(job)
        self._never.update(never)
        self.counts["turns that never came"] += len(never)

    def _remember(self, job: Job, i: int) -> None:
        """Instance i has the blocks it has, or of the conversation what it kept of its latest turn there."""
        job.cached = self._stated_as(job, self._would_find(job, i))
        self.counts["blocks in the cache"] += job.path is not None and job.cached > 0

    def _would_find(self, job: Job, i: int) -> int:
        if job.path is not None:
            return self._engines[i].cached(job)
        kept = [self._kept[i][row] for row in self._talk.get(job.row, [])[:-1] if row in self._kept[i]]
        found = min(kept[-1], job.prompt - 1) // CACHE_BLOCK * CACHE_BLOCK if kept else 0
        if self.setup.caches and not self.setup.caches[self._model[job.row]]:
            found = 0
        self.counts["conversation in the cache"] += found > self._stated[job.row]
        return max(self._stated[job.row], found)

    # ---- an iteration ended

    def _settle(self, outcome: Outcome, engine: Instance, endpoint: Endpoint) -> None:
        settle(self, outcome, engine, endpoint)
        for job in outcome.prompts:
            del endpoint.unfinished[job.row]
            self._put(job, RUNNING)
            if job.made == 1:
                self.requests[job.row]["first"] = self.now + engine.profile.entry
        for job in outcome.finished:
            self._put(job, DONE)
            self.requests[job.row]["finish"] = self.now + engine.profile.entry
            endpoint.finished += 1
            endpoint.made += job.output
            self.made_tokens[self._cell(job)] += job.output
            self._answer(job)
            means = self._mean[endpoint.model]
            means[job.tier] += (job.output - means[job.tier]) / 256
        for job in outcome.preempted:
            self._put(job, WAITING)
            endpoint.unfinished[job.row] = engine.profile.prefill_work(job.context, job.cached)
            endpoint.preempted += 1
            self.counts["preempted"] += 1
            self.counts["preempted with a cached prompt"] += job.cached > 0

    # ---- signals

    def _refresh(self, endpoint: Endpoint, dt: int) -> None:
        half_life = self.setup.half_life
        if dt > 0:
            endpoint.rate += (1 - 2 ** (-dt / half_life)) * (endpoint.offered / dt - endpoint.rate)
        endpoint.offered = endpoint.fed_work = endpoint.fed_tokens = 0.0
        opened = self._opened(endpoint)
        endpoint.kv = endpoint.busy = 0.0
        if opened:
            used = sum(self._engines[i].used_at_start for i in opened)
            endpoint.kv = used / self._capacity(endpoint)
            endpoint.busy = (endpoint.rate + sum(endpoint.unfinished.values()) / half_life) / len(opened)
        endpoint.seen = self._signal(endpoint.kv, endpoint.busy)

    def _capacity(self, endpoint: Endpoint) -> int:
        return sum(self._engines[i].kv_tokens for i in self._opened(endpoint))

    def _signal(self, kv: float, busy: float) -> float:
        return {LOAD: max(kv, busy), KV: kv, BUSY: busy}[self.setup.signal]

    def _predicted(self, e: int) -> float:
        one = self._endpoints[e]
        busy = one.busy + one.fed_work / (self.setup.half_life * len(self._opened(one)))
        return self._signal(one.kv + one.fed_tokens / self._capacity(one), busy)
