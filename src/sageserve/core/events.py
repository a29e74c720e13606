"""What the controller is told. Every event is a frozen record; the shell stamps the instant and hands both over.

Knows no policy and no clock. Read next: `actions.py` (what it answers), `controller.py` (how).
"""

from typing import TypeAlias

from msgspec import Struct

from sageserve.base.units import Micros


class EndpointSeen(Struct, frozen=True):
    """What the last scrape said of one endpoint: shares of capacity."""

    seen: float  # by the signal the scenario chose
    kv: float
    busy: float


class Observed(Struct, frozen=True, tag="observed"):
    """The fleet was looked at: one entry per endpoint, and jobs waiting in the batch queue of each model."""

    scraped: Micros
    endpoints: tuple[EndpointSeen, ...]
    batch_waiting: tuple[int, ...]
    blind: tuple[int, ...] = ()  # endpoints whose numbers are too old to act on; a simulated fleet has none


class EnginesSeen(Struct, frozen=True, tag="engines"):
    """What engines said of their queues at the last scrape, summed over the open instances of every endpoint."""

    scraped: Micros
    running: tuple[int, ...]
    waiting: tuple[int, ...]


class DemandSeen(Struct, frozen=True, tag="demand"):
    """What arrived in a bin of time: one number per region x model x tier, in this order (tier changes fastest)."""

    start: Micros
    length: Micros
    prompt_tokens: tuple[int, ...]
    output_tokens: tuple[int, ...]  # of requests that finished in this bin
    requests: tuple[int, ...]
    work: tuple[float, ...]  # microseconds of the model's fastest engine that what arrived is expected to need
    mixes: tuple[tuple[float, ...], ...] = ()  # of interactive requests by model, columns as in `core/response.py`
    could: tuple[int, ...] = ()  # of those that arrived, interactive: an idle engine would have served them in time
    missed: tuple[int, ...] = ()  # answered too late or too slowly, or turned away, in this bin
    answers: tuple[tuple[float, ...], ...] = ()  # finished in this bin, by model x tier, as in `core/pace.py`; none: no `itl`


class DoorSeen(Struct, frozen=True, tag="door"):
    """Who waits for an instance, and where there was work; told only of fleets in which endpoints may have none.

    Held are requests that wait because nothing is open that may serve them, by region x model x tier. Worked are endpoints, in
    order: whether one was given work since it was told last, or has some.
    """

    held: tuple[int, ...]
    worked: tuple[bool, ...]


class RevisionsSeen(Struct, frozen=True, tag="revisions"):
    """Interactive requests since a rollout of a model began: one number per tier of the old revision, then of the new one.

    Asked counts those whose first token came, and those whose promise was broken without one.
    """

    model: int
    asked: tuple[int, ...]
    missed: tuple[int, ...]


class InstanceReady(Struct, frozen=True, tag="ready"):
    """An instance that was started or reclaimed now serves."""

    instance: int


class StartFailed(Struct, frozen=True, tag="start_failed"):
    """A start or reclaim came to nothing; its GPUs are free again."""

    instance: int
    why: str


class InstanceDrained(Struct, frozen=True, tag="drained"):
    """A draining instance has finished its last request."""

    instance: int


class SpotTaken(Struct, frozen=True, tag="spot_taken"):
    """The cloud took a donated instance away."""

    instance: int


class InstanceLost(Struct, frozen=True, tag="lost"):
    """An instance that served or drained is gone, with what it was doing: its process died, or its machine."""

    instance: int
    why: str


class InstanceComing(Struct, frozen=True, tag="coming"):
    """Others start an instance of a fleet that they run; it ends in InstanceReady or StartFailed, as one of ours does."""

    instance: int


class InstanceLeaving(Struct, frozen=True, tag="leaving"):
    """Others are ending an instance that serves: it receives nothing more, and ends in InstanceDrained or InstanceLost."""

    instance: int
    why: str


Looked: TypeAlias = Observed | EnginesSeen | DoorSeen | DemandSeen | RevisionsSeen
"""What is seen of the fleet again and again."""

Others: TypeAlias = InstanceComing | InstanceLeaving
"""What others do with instances of a fleet that they run."""

Event: TypeAlias = Looked | InstanceReady | StartFailed | InstanceDrained | SpotTaken | InstanceLost | Others
