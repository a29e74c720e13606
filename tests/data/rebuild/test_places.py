"""Whose series are whose, and how many instances a history shows: targets, gateways' labels, dips and gaps.

Read next: `src/sageserve/data/rebuild/places.py`, `fleet.py`.
"""

import numpy as np
import pytest

from sageserve.base.config import Scenario
from sageserve.base.errors import ConfigError
from sageserve.base.units import MINUTE
from sageserve.data.history.records import NO_INSTANCE, NOT_SCRAPED, FrontHistory, Gap, Grid, PoolHistory
from sageserve.data.rebuild.demand import UNKNOWN
from sageserve.data.rebuild.fleet import counts_of, settings_of
from sageserve.data.rebuild.places import place_fronts, watched_pools
from sageserve.data.scenarios.load import load_scenario
from tests.core.small import ENGINE, PRICE, scenario
from tests.worlds import SMALL_FLEET

ONE_MODEL = ["models.llama-3.1-8b=null", "workload.assign.model.llama-3.1-8b=null", "workload.generate.shapes.llama-3.1-8b=null"]
EAST, CENTRAL = (f"{region}/llama-2-70b/h100-80gb" for region in ("eastus", "centralus"))


def fleet(*targets: str, tiers: str = "{}") -> Scenario:
    live = ["live.clusters={a: {}}", f"live.targets={{{', '.join(targets)}}}", f"live.tiers={tiers}"]
    return load_scenario(SMALL_FLEET, overrides=[*ONE_MODEL, *live])


def target(name: str, pool: str, series: str = "{}") -> str:
    return f"{name}: {{cluster: a, pool: {pool}, kind: Deployment, name: s/{name}, max: 4, series: {series}}}"


BOTH = (target("east", EAST, "{region: east}"), target("central", CENTRAL, "{region: central}"))


def history(counts: list[float], *gaps: Gap) -> PoolHistory:
    none = np.zeros(len(counts))
    seen = np.array(counts, np.float64)
    return PoolHistory("p", Grid(0, MINUTE, len(counts)), none, none, none, none, none, none, seen, gaps)


def test_targets_say_whose_series_are_whose() -> None:
    found = watched_pools(fleet(target("east", EAST), target("central", CENTRAL, "{namespace: =~c.*}")))
    assert [(one.pool, dict(one.labels)) for one in found] == [
        (EAST, {"model_name": "llama-2-70b"}),
        (CENTRAL, {"namespace": "=~c.*"}),
    ]


def test_a_model_may_have_slashes_in_its_name() -> None:
    at = {"gpus": {"h100": {"gpus": 80, "price": PRICE}}}
    models = {"org/big": {"context": 8_000, "engines": {"h100": ENGINE}}}
    found = scenario(regions={"east": at}, models=models, tiers={"chat": {"ttft": "1s"}})
    (one,) = watched_pools(found)
    assert (one.pool, one.region, one.model, dict(one.labels)) == (
        "east/org/big/h100",
        "east",
        "org/big",
        {"model_name": "org/big"},
    )
    settings_of({one.pool: ((0, 10),)}, found)
    with pytest.raises(ConfigError, match="88 GPUs of h100 in east"):
        settings_of({one.pool: ((0, 11),)}, found)


@pytest.mark.parametrize(
    ("scenario", "said"),
    [
        (lambda: fleet(target("east", EAST)), "nobody watches centralus/llama-2-70b"),
        (lambda: fleet(target("a", EAST), target("b", EAST), target("c", CENTRAL)), "two targets are of eastus"),
        (lambda: load_scenario(SMALL_FLEET, overrides=ONE_MODEL), "in 2 regions"),
    ],
)
def test_what_would_be_counted_wrongly_is_refused(scenario: object, said: str) -> None:
    assert callable(scenario)
    with pytest.raises(ConfigError, match=said):
        watched_pools(scenario())


def test_an_agent_watches_its_own_cluster_of_a_larger_fleet() -> None:
    (one,) = watched_pools(fleet(target("east", EAST)), whole=False)
    assert one.region == "eastus"


def test_gateways_labels_become_tiers() -> None:
    scenario = fleet(*BOTH, tiers="{iw-f: {priority: 100}, niw: {priority: -10}}")
    watched, grid, notes = watched_pools(scenario), Grid(0, MINUTE, 1), list[str]()
    fronts = [FrontHistory("llama-2-70b", tier, grid, np.ones(1), ()) for tier in ("100", "-10", "iw-n", "7", "")]
    east = [one for one in watched if one.pool == EAST]
    placed = place_fronts(scenario, east, fronts, notes)
    assert [one.tier for one in placed] == ["iw-f", "niw", "iw-n", UNKNOWN, UNKNOWN]
    assert {one.region for one in placed} == {"eastus"}
    assert len(notes) == 1
    assert "priority 7" in notes[0]
    assert not place_fronts(scenario, watched, fronts, notes), "which region they came to is not known"
    assert not place_fronts(scenario, east, [FrontHistory("other", "", grid, np.ones(1), ())], notes)


@pytest.mark.parametrize(
    ("counts", "gaps", "steps"),
    [
        ([2, 2, 3, 3], (), ((0, 2), (2, 3))),
        ([3, 2, 3, 3], (), ((0, 3),)),  # one was not scraped for a minute
        ([3, 2, 2, 2, 2, 3], (), ((0, 3), (1, 2), (5, 3))),  # it was gone
        ([1, np.nan, np.nan, np.nan, np.nan, 2], (Gap(1, 5, NOT_SCRAPED),), ((0, 1), (5, 2))),
        ([np.nan, 1], (Gap(0, 1, NO_INSTANCE),), ((0, 0), (1, 1))),
        ([np.nan, np.nan], (Gap(0, 2, NOT_SCRAPED),), ((0, 0),)),
    ],
)
def test_counts_of_a_history(counts: list[float], gaps: tuple[Gap, ...], steps: tuple[tuple[int, int], ...]) -> None:
    assert counts_of(history(counts, *gaps)) == tuple((at * MINUTE, count) for at, count in steps)


def test_settings_let_recorded_play_and_others_begin_there() -> None:
    plain = fleet(*BOTH)
    steps = {EAST: ((0, 2), (30 * MINUTE, 9)), CENTRAL: ((0, 1),)}
    live = [f"live={{clusters: {{a: {{}}}}, targets: {{{', '.join(BOTH)}}}}}"]
    found = load_scenario(SMALL_FLEET, overrides=[*ONE_MODEL, *live, *settings_of(steps, plain)])
    assert found.strategy.recorded.counts == steps
    assert found.fleet.starts == {EAST: 2, CENTRAL: 1}
    assert found.fleet.maximum == 18
    assert not found.spot.donate
    with pytest.raises(ConfigError, match="the history shows 136 GPUs of h100-80gb in eastus at once, the scenario has 128"):
        settings_of({EAST: ((0, 17),)}, plain)
