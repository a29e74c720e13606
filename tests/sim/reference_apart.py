"""Endpoints of the naive reference, and prefill and decode apart: derived again from docs/reference/kernel.md.

Read next: `reference.py` and `reference_fleet.py`, which call it.
"""

from typing import TYPE_CHECKING

from sageserve.sim.kernel.state import RUNNING, SENDING, WAITING
from tests.sim.reference_engine import Engine, Job, Outcome
from tests.sim.reference_ranks import Instance

if TYPE_CHECKING:
    from tests.sim.reference import Reference
    from tests.sim.reference_fleet import ReferenceFleet


class Endpoint:
    """What is counted and seen of one endpoint."""

    def __init__(self, model: int, first: int, slots: int, feeds: bool) -> None:
        self.model = model
        self.instances = range(first, first + slots)
        self.feeds = feeds
        self.seen = self.kv = self.busy = self.rate = 0.0
        self.offered = self.fed_work = self.fed_tokens = 0.0
        self.finished = self.preempted = self.made = self.placed = 0
        self.unfinished: dict[int, float] = {}  # row: prefill work of a prompt that is not finished


def links(fleet: "ReferenceFleet") -> tuple[list[list[tuple[int, Job]]], list[int]]:
    """What is on the way, by rank, with the time it lands; and when the rank's link is free."""
    ranks = all_ranks(fleet)
    return [[] for _ in ranks], [0] * len(ranks)


def is_apart(fleet: "ReferenceFleet", model: int) -> bool:
    """Whether a model is prefilled and decoded in different places."""
    return fleet.setup.handover is not None and fleet.setup.handover.apart[model]


def prefills(fleet: "ReferenceFleet", i: int) -> bool:
    """Whether an instance prefills for others."""
    e = i // fleet.setup.slots
    return is_apart(fleet, e // fleet.setup.roles % fleet.setup.models) and e % fleet.setup.roles == 0


def decodes(fleet: "ReferenceFleet", e: int) -> bool:
    """Whether an endpoint decodes what others have prefilled."""
    return is_apart(fleet, e // fleet.setup.roles % fleet.setup.models) and e % fleet.setup.roles != 0


def ready(fleet: "ReferenceFleet", choice: list[int]) -> list[int]:
    """Open endpoints whose prompts have somewhere to go; all of them where none has."""
    found = [e for e in choice if not prefills(fleet, e * fleet.setup.slots) or fleet._opened(fleet._endpoints[e + 1])]
    fleet.counts["passed over, for nobody decodes there"] += 0 < len(found) < len(choice)
    return found or choice


def fuller(fleet: "Reference", e: int) -> float:
    """Expected utilisation of an endpoint, or of the one that decodes for it."""
    own = fleet._expected(e)
    if not prefills(fleet, e * fleet.setup.slots) or not fleet._opened(fleet._endpoints[e + 1]):
        return own
    then = fleet._expected(e + 1)
    fleet.counts["fuller where it is decoded"] += then > own
    return max(own, then)


def all_ranks(fleet: "ReferenceFleet") -> list[tuple[int, int]]:
    """Instance and number of every rank: first ranks by instance, then the others of each."""
    first = [(i, 0) for i in range(len(fleet._engines))]
    return first + [(i, k) for i, engine in enumerate(fleet._engines) for k in range(1, len(engine.ranks))]


def way_of(fleet: "ReferenceFleet", job: Job) -> float:
    """Microseconds that the KV cache of a job takes over a free link; 0 where it stays."""
    told, model = fleet.setup.handover, fleet._model[job.row]
    return job.prompt * told.token_us[model] + told.latency[model] if told and told.apart[model] else 0.0


def work_of(fleet: "ReferenceFleet", job: Job, i: int) -> float:
    """Engine time that a job brings to instance i, which may do a part of it."""
    profile, mean = fleet._engines[i].profile, fleet._mean[fleet._model[job.row]][job.tier]
    if prefills(fleet, i):
        return profile.prefill_work(job.prompt, job.cached)
    if decodes(fleet, i // fleet.setup.slots):
        return profile.decode_work(job.prompt, mean)
    return profile.work(job.prompt, job.cached, mean)


def settle(fleet: "ReferenceFleet", outcome: Outcome, engine: Instance, endpoint: Endpoint) -> None:
    """A block has ended: who leaves is sent off, and whose KV cache was let in decodes."""
    sent = {job.row for job in outcome.sent}
    for rank in engine.ranks:
        for job in [one for one in rank.kept if one.row in sent]:
            del endpoint.unfinished[job.row]
            send_off(fleet, job, rank)
    for job in outcome.joined:
        fleet._put(job, RUNNING)
        fleet.requests[job.row]["first"] = fleet.now + engine.profile.entry
        let_source_go(fleet, job)


def send_off(fleet: "ReferenceFleet", job: Job, rank: Engine) -> None:
    """The prompt of a job is filled: its KV cache takes its turn on the link."""
    told, model = fleet.setup.handover, fleet._model[job.row]
    assert told is not None
    u = next(u for u, (i, k) in enumerate(all_ranks(fleet)) if fleet._engines[i].ranks[k] is rank)
    fleet._link[u] = max(fleet.now, fleet._link[u]) + int(job.prompt * told.token_us[model] + 0.5)
    fleet.counts["waited for the link"] += bool(fleet._sent[u])
    fleet._sent[u].append((fleet._link[u] + told.latency[model], job))
    fleet._put(job, SENDING)
    job.source = rank


def land(fleet: "ReferenceFleet", u: int) -> None:
    """What rank u has sent first is there: it goes where it is decoded, or waits for the next scrape."""
    e = all_ranks(fleet)[u][0] // fleet.setup.slots + 1
    endpoint, (_, job) = fleet._endpoints[e], fleet._sent[u][0]
    if not fleet._opened(endpoint):
        fleet.counts["nowhere to land"] += 1
        fleet._sent[u][0] = (fleet._next_scrape, job)
        return
    del fleet._sent[u][0]
    if fleet._sent[u]:
        at, following = fleet._sent[u][0]
        fleet._sent[u][0] = (max(at, fleet.now), following)
    i = fleet._emptiest(e, job)
    endpoint.offered += work_of(fleet, job, i)
    endpoint.placed += 1
    fleet.requests[job.row]["instance"] = i
    fleet._put(job, WAITING)
    fleet.counts["cut"] += fleet._engines[i].place(job, fleet.now)


def let_source_go(fleet: "ReferenceFleet", job: Job) -> None:
    """Whoever prefilled a job is done with it."""
    source = job.source
    assert source is not None
    job.source = None
    source.kept = [one for one in source.kept if one is not job]
    i = next(i for i, engine in enumerate(fleet._engines) if source in engine.ranks)
    fleet._endpoints[i // fleet.setup.slots].finished += 1
    fleet.counts["handed over"] += 1
    stir(fleet, i, source)


def stir(fleet: "ReferenceFleet", i: int, rank: Engine) -> None:
    """A rank of instance i has more room, or the instance has nothing left."""
    over = fleet._draining[i] and fleet._engines[i].inside == 0
    fleet.counts["drained by handing over"] += over
    fleet._engines[i].stir(rank, fleet.now, over=over)


def lose_kept(fleet: "ReferenceFleet", engine: Instance, endpoint: Endpoint) -> list[Job]:
    """What an instance that is lost had prefilled, and was not let in elsewhere: on the way, or in a queue there."""
    lost: list[Job] = []
    for job in [job for rank in engine.ranks for job in rank.kept]:
        lost.append(job)
        fleet.counts["lost when prefilled"] += 1
        if int(fleet.requests[job.row]["state"]) & 63 == SENDING:
            endpoint.placed -= 1
            job.source = None
            continue
        fleet.counts["lost while it waited to decode"] += 1
        i = int(fleet.requests[job.row]["instance"])
        rank = next(rank for rank in fleet._engines[i].ranks if job in rank.queues[job.queue])
        rank.queues[job.queue].remove(job)
        fleet._endpoints[i // fleet.setup.slots].placed -= 1
        stir(fleet, i, rank)
        let_source_go(fleet, job)
    return lost


def forget_sent(fleet: "ReferenceFleet", i: int) -> None:
    """Nothing of instance i is on the way."""
    for u, (instance, _) in enumerate(all_ranks(fleet)):
        if instance == i:
            fleet._sent[u], fleet._link[u] = [], 0
