"""What every actuator is: it begins to do what the controller asks, and says later what came of it.

    Start   -> InstanceReady | StartFailed                     Donate  -> nothing, or later SpotTaken
    Reclaim -> InstanceReady | StartFailed                     Release -> nothing
    and InstanceLost at any time after InstanceReady, when the instance is gone unasked
    InstanceComing, InstanceLeaving: others start or end it, see `followed.py`

What cannot be done is heard of too: `ending` turns any exception into the event that ends the action. Knows no process.
Read next: `fake.py`, `local.py`, `live/control/loop.py`.
"""

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, Protocol, TypeAlias

from sageserve.base.config import EngineCommand, LiveSettings, ProfileSettings, Scenario
from sageserve.base.errors import SageServeError
from sageserve.base.units import Micros
from sageserve.core.actions import Donate, Reclaim, Release, Source, Start
from sageserve.core.events import InstanceComing, InstanceLeaving, InstanceLost, InstanceReady, SpotTaken, StartFailed
from sageserve.core.layout import Layout
from sageserve.core.work import AnyAction, AnyEvent, came_to_nothing

_LOG: Final = logging.getLogger(__name__)
Order: TypeAlias = Start | Reclaim | Donate | Release
Heard: TypeAlias = InstanceReady | StartFailed | InstanceLost | SpotTaken | InstanceComing | InstanceLeaving
Hear: TypeAlias = Callable[[Heard], None]


@dataclass(frozen=True, slots=True)
class EngineAddress:
    """Where an instance answers: `http://host:port` without a path, and the name its engine knows the model by."""

    url: str
    served_model: str
    metrics: str = "/metrics"  # path of its metrics


@dataclass(frozen=True, slots=True)
class Adopted:
    """An engine that was there before this control process."""

    instance: int
    gpus: tuple[int, ...]
    serves: bool  # false: it still starts; InstanceReady or StartFailed follows
    place: EngineAddress
    revision: int = 0  # that it was started in


@dataclass(frozen=True, slots=True)
class Post:
    """What an instance row stands for.

    Args:
        row: the instance.
        pool: name of its pool.
        region: where it runs.
        model: what it serves.
        gpu: type of its GPUs.
        stock: number of the stock its GPUs come from.
        number: of its profile in the layout.
        profile: how fast it is.
        context: tokens of prompt and answer.
        hits: share of a prompt that the emulated engine finds in its prefix cache.
        command: how it is run; none: the emulated engine.
        loading: how long it takes until it serves, by where it comes from; the emulated engine takes as long.
        reclaim: the same for one that was donated.
        revision: of the engine; 0: as the settings have it.
        engine_time: of an iteration of the emulated engine, in units of what its profile says.
    """

    row: int
    pool: str
    region: str
    model: str
    gpu: str
    stock: int
    number: int
    profile: ProfileSettings
    context: int
    hits: float
    command: EngineCommand | None
    loading: Mapping[Source, Micros]
    reclaim: Micros
    revision: int = 0
    engine_time: float = 1.0


class Actuator(Protocol):
    """Brings instances up and takes them away."""

    def perform(self, now: Micros, action: Order) -> None:
        """Begin to do it; returns at once."""
        ...

    def place(self, instance: int) -> EngineAddress:
        """Where an instance answers, or did last, that was heard to be ready."""
        ...


@contextmanager
def ending(action: AnyAction, hear: Callable[[AnyEvent], None]) -> Iterator[None]:
    """Around all that an action takes: whatever goes wrong is logged, and heard as the event that ends the action.

    The one place where the live plane catches everything: an action without its event would hold its GPUs, or keep a
    strategy waiting, until the process ends. A cancelled task says nothing: who cancels it is going away.
    """
    try:
        yield
    except Exception as error:  # noqa: BLE001 # see above
        expected = isinstance(error, SageServeError | OSError)
        why = error.message if isinstance(error, SageServeError) else f"{type(error).__name__}: {error}"
        _LOG.error("%s came to nothing: %s", type(action).__name__, why, exc_info=None if expected else error)
        if (event := came_to_nothing(action, why)) is not None:
            hear(event)


def posts_of(scenario: Scenario, layout: Layout) -> dict[int, Post]:
    """What each instance row stands for."""
    live = scenario.live or LiveSettings()
    found: dict[int, Post] = {}
    for pool in layout.pools:
        model, stock = layout.names.models[pool.model], layout.stocks[pool.stock]
        settings = scenario.models[model]
        load = settings.load
        loading = {
            Source.INITIAL: 0,
            Source.VM: scenario.gpus[stock.gpu].start + load.fresh,
            Source.GPUS: load.local,
            Source.SPOT: load.reclaim,
        }
        for row in range(pool.begin, pool.end):
            found[row] = Post(
                row=row,
                pool=pool.name,
                region=layout.names.regions[pool.region],
                model=model,
                gpu=stock.gpu,
                stock=pool.stock,
                number=pool.profile,
                profile=settings.engines[stock.gpu],
                context=settings.context,
                hits=settings.prefix_hits,
                command=live.engines.get(model),
                loading=loading,
                reclaim=load.reclaim,
            )
    return found
