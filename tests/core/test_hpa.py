"""HPA, KEDA and fixed counts as strategies: which signals they read, what counts as a pod, and who is drained.

Read next: `src/sageserve/core/strategies/hpa.py`, `test_hpa_rules.py` for the arithmetic.
"""

import pytest

from sageserve.base.config import HpaMetricSettings, HpaSettings, Scenario
from sageserve.base.config.autoscalers import ScaledSignal
from sageserve.base.errors import ConfigError
from sageserve.base.units import MINUTE, SECOND, Micros
from sageserve.core.actions import Reason
from sageserve.core.events import EndpointSeen, EnginesSeen, Observed
from sageserve.core.strategies import STRATEGIES, strategy_kind
from sageserve.core.work import AnyAction
from tests.core.driven import Driven
from tests.core.small import scenario, starts_by_role


def strategy(name: str) -> Scenario:
    found = scenario()
    return found.model_copy(update={"strategy": found.strategy.model_copy(update={"name": name})})


def hpa(*metrics: HpaMetricSettings, sync: str = "15s") -> Scenario:
    """An HPA that shrinks at once."""
    found = strategy("hpa")
    rules = {"scale_down": {"stabilisation": "0s"}, "sync": sync, "metrics": metrics or (HpaMetricSettings(),)}
    return found.model_copy(update={"strategy": found.strategy.model_copy(update={"hpa": HpaSettings.model_validate(rules)})})


def sync(
    driven: Driven, now: Micros, *, running: int = 0, waiting: int = 0, kv: float = 0.0, busy: float = 0.0, blind: bool = False
) -> tuple[AnyAction, ...]:
    """A scrape: the first endpoint as given, the others exactly at four requests per instance."""
    rest = driven.layout.endpoints - 1
    calm = [4 * driven.fleet.serving(pool.number) for pool in driven.layout.pools]
    others = [sum(calm[p.number] for p in driven.layout.endpoint_pools(e)) for e in range(1, driven.layout.endpoints)]
    driven.controller.handle(now, EnginesSeen(now, (running, *others), (waiting, *[0] * rest)))
    seen = (EndpointSeen(busy, kv, busy), *[EndpointSeen(0.5, 0.5, 0.5)] * rest)
    jobs = (0,) * len(driven.layout.names.models)
    actions = driven.controller.handle(now, Observed(now, seen, jobs, (0,) if blind else ()))
    driven.decisions = tuple(one for one in driven.controller.decisions if one.pool == 0)
    return actions


def test_running_and_waiting_requests_are_divided_among_instances() -> None:
    driven = Driven(hpa(), serving=2)
    sync(driven, 0, running=8, waiting=5)
    (one,) = driven.decisions
    assert (one.change, one.done, one.reason, one.target) == (2, 2, Reason.METRIC_HIGH, 4), "ceil(2 x 13/8) = 4"
    assert driven.fleet.coming(0) == 2


def test_what_is_coming_counts_as_an_idle_pod() -> None:
    driven = Driven(hpa(), serving=2)
    sync(driven, 0, running=8, waiting=5)
    sync(driven, 15 * SECOND, running=8, waiting=9)
    assert not driven.decisions, "17/8 grows; over four pods 17/16 is within the tolerance"


@pytest.mark.parametrize(
    ("signal", "target", "shown", "change"),
    [
        ("kv", 0.5, {"kv": 0.9}, 2),  # ceil(2 x 1.8) = 4
        ("busy", 0.6, {"busy": 0.9}, 1),  # ceil(2 x 1.5) = 3
        ("waiting", 1.0, {"waiting": 3, "running": 50}, 1),  # ceil(3 / 1) = 3
        ("requests", 4.0, {"waiting": 3, "running": 5}, 0),
    ],
)
def test_each_signal(signal: ScaledSignal, target: float, shown: dict[str, float], change: int) -> None:
    driven = Driven(hpa(HpaMetricSettings(signal=signal, target=target)), serving=2)
    sync(driven, 0, **shown)  # type: ignore[arg-type]  # numbers by name
    assert sum(one.change for one in driven.decisions) == change


def test_it_looks_once_per_sync_period() -> None:
    driven = Driven(hpa(sync="30s"), serving=2)
    sync(driven, 0, running=8)
    sync(driven, 15 * SECOND, running=16)
    assert not driven.decisions
    sync(driven, 30 * SECOND, running=16)
    assert [one.change for one in driven.decisions] == [2]


def test_a_blind_endpoint_is_left_alone() -> None:
    driven = Driven(hpa(), serving=4)
    sync(driven, 0, blind=True)
    assert not driven.decisions


def test_it_shrinks_to_the_minimum_and_never_below() -> None:
    driven = Driven(hpa(), serving=4)
    driven.settle(0, sync(driven, 0))
    assert driven.fleet.serving(0) == driven.layout.pools[0].minimum
    assert [one.reason for one in driven.decisions] == [Reason.METRIC_LOW]
    sync(driven, MINUTE)
    assert not driven.decisions


def test_the_stabilisation_window_holds_what_was_wanted() -> None:
    driven = Driven(strategy("hpa"), serving=4)
    sync(driven, 0, running=16)
    sync(driven, MINUTE)
    assert not driven.decisions, "4 were wanted a minute ago"
    sync(driven, 5 * MINUTE + SECOND)
    assert [one.change for one in driven.decisions] == [-3], "down to the minimum of one"


def test_keda_scales_on_what_waits() -> None:
    driven = Driven(strategy("keda"), serving=2)
    sync(driven, 0, running=400, waiting=2)
    assert not driven.decisions, "two wait, two instances: exactly the target, whatever runs"
    sync(driven, 15 * SECOND, waiting=4)
    assert [(one.change, one.target) for one in driven.decisions] == [(2, 4)]


def test_a_fixed_count_is_restored_and_nothing_else() -> None:
    fixed = strategy("fixed:3")
    assert starts_by_role(strategy_kind("fixed:3"), fixed) == (3,)
    kind = strategy_kind("fixed:3")
    driven = Driven(fixed, serving=2)
    sync(driven, 0, running=1000, waiting=1000)
    assert {one.change for one in driven.decisions} == {1}
    assert {one.reason for one in driven.decisions} == {Reason.BELOW_MINIMUM}
    assert kind.minimum(fixed) == (fixed.fleet.minimum,), "what others could go down to"


@pytest.mark.parametrize(
    ("name", "hint"), [("hpaa", "did you mean hpa?"), ("fixed:0", "no strategy"), ("fixed:x", "no strategy")]
)
def test_an_unknown_name_is_explained(name: str, hint: str) -> None:
    with pytest.raises(ConfigError) as raised:
        strategy_kind(name)
    assert hint in raised.value.message
    assert "fixed:N" in (raised.value.hint or "")
    assert set(STRATEGIES) >= {"hpa", "keda", "reactive-tuned"}


def test_its_own_bounds_hold_within_those_of_the_fleet() -> None:
    found = hpa(HpaMetricSettings())
    rules = found.strategy.hpa.model_copy(update={"minimum": 2, "maximum": 3})
    driven = Driven(found.model_copy(update={"strategy": found.strategy.model_copy(update={"hpa": rules})}), serving=3)
    sync(driven, 0, running=100)
    assert not driven.decisions, "three are the most"
    driven.settle(15 * SECOND, sync(driven, 15 * SECOND))
    assert driven.fleet.serving(0) == 2
