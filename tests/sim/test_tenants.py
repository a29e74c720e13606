"""Tenants share in a simulation as keys do live: by weight under load, what others leave is anybody's, and nobody is starved.

One engine that prefills a hundred prompts a second at most, in one region. The same promises are kept live
(`tests/live/gateway/test_shares.py`). Read next: docs/reference/kernel.md, "Tenants that share"; `case_tenants.py`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import pytest
from msgspec import UNSET, structs

from sageserve.base.config import Scenario
from sageserve.base.records import Labels
from sageserve.base.units import HOUR, MINUTE, SECOND
from sageserve.sim.kernel.state import DONE, PLACE, SHED
from sageserve.sim.results.meter import tenants_of
from sageserve.sim.run import Run, simulate
from tests.core.small import ENGINE, PRICE, row, scenario, trace

FULL = 60.0  # requests of 500 and 10 tokens that the engine is offered a second, and just about keeps its promise for
LENGTH = MINUTE


@dataclass(frozen=True)
class Got:
    """What a tenant got."""

    asked: int
    tokens: int  # of what was finished in the window
    kept: float


def settings(weights: Mapping[str, float] | None, *, feed: str = "steps", wait: float = 1.0) -> Scenario:
    """One instance of one model; tenants share by these weights, or nobody does."""
    return scenario(
        models={"big": {"context": 8_000, "engines": {"h100": ENGINE | {"max_sequences": 32}}}},
        regions={"east": {"gpus": {"h100": {"gpus": 8, "price": PRICE}}}},
        fleet={"start": 1, "minimum": 1, "maximum": 1},
        batch={"feed": feed},
        admission={"wait": wait, "queued": 4},
        tenants={} if weights is None else {name: {"weight": weight} for name, weight in weights.items()},
    )


def played(offered: Mapping[str, float], world: Scenario, *, tier: str = "iw-f") -> tuple[dict[str, Got], Run]:
    """Poisson arrivals of each tenant, in parts of `FULL`; batch work comes in the same order, all at once."""
    draw = np.random.Generator(np.random.PCG64(5))
    came = []
    for number, load in enumerate(offered.values()):
        at = np.cumsum(draw.exponential(SECOND / (load * FULL), int(load * FULL * LENGTH / SECOND)))
        came += [(int(time), number) for time in at if time < LENGTH]
    came.sort()
    asked = trace(world, [row(at if tier == "iw-f" else 0, tier=tier) for at, _ in came], window=LENGTH)
    owner = np.array([number for _, number in came], np.int32)
    run = simulate(world, replace(asked, labels={"tenant": Labels(owner, tuple(offered))}))
    rows, found = run.requests, {}
    done = ((rows["state"] & PLACE) == DONE) & (rows["finish"] <= LENGTH)
    for number, name in enumerate(offered):
        mine = owner == number
        kept = tenants_of(run)[name].attainment[tier]
        assert kept is not None
        found[name] = Got(int(mine.sum()), int((rows["prompt"] + rows["output"])[mine & done].sum()), kept)
    return found, run


def share(got: Mapping[str, Got], name: str) -> float:
    return got[name].tokens / sum(one.tokens for one in got.values())


@pytest.mark.parametrize(
    ("offered", "weights", "wanted"),
    [
        ({"a": 2.0, "b": 6.0}, {"a": 1.0}, 1 / 2),
        ({"a": 4.0, "b": 4.0}, {"a": 3.0}, 3 / 4),
        ({"a": 3.0, "b": 3.0, "c": 30.0}, {"a": 2.0}, 1 / 2),
    ],
)
def test_under_saturation_each_gets_its_share(offered: dict[str, float], weights: dict[str, float], wanted: float) -> None:
    got, run = played(offered, settings(weights))
    assert share(got, "a") == pytest.approx(wanted, abs=0.05)
    assert (run.requests["state"] & PLACE == SHED).any(), "there was more than the engine can do"


def test_who_asks_for_ten_times_its_share_costs_another_no_promise_and_would_without_weights() -> None:
    weights = {"quiet": 1.0}
    calm, _ = played({"quiet": 0.3, "loud": 0.5}, settings(weights))
    storm, _ = played({"quiet": 0.3, "loud": 5.0}, settings(weights))
    unshared, _ = played({"quiet": 0.3, "loud": 5.0}, settings(None))
    assert storm["quiet"].kept >= calm["quiet"].kept - 0.005
    assert unshared["quiet"].kept < calm["quiet"].kept - 0.3


def test_what_one_leaves_is_used_by_the_others() -> None:
    offered = {"idle": 0.05, "busy": 5.0}
    shared, _ = played(offered, settings({"idle": 9.0}))
    unshared, _ = played(offered, settings(None))
    assert sum(one.tokens for one in shared.values()) >= 0.95 * sum(one.tokens for one in unshared.values())
    alone, _ = played({"busy": 5.0}, settings({"idle": 9.0}))
    nobody, _ = played({"busy": 5.0}, settings(None))
    assert alone == nobody, "who is alone is ahead of nobody"


def test_those_who_ask_for_little_do_not_stand_in_each_others_way() -> None:
    weights = {"a": 1.0, "b": 1.0, "c": 1.0, "loud": 1.0}
    calm, _ = played({"a": 0.1, "b": 0.1, "c": 0.1, "loud": 0.3}, settings(weights))
    storm, _ = played({"a": 0.1, "b": 0.1, "c": 0.1, "loud": 5.0}, settings(weights))
    assert all(storm[name].kept >= calm[name].kept - 0.01 for name in "abc")


def test_who_asked_last_ten_seconds_ago_holds_nobody_back() -> None:
    world = settings({"once": 1.0})
    late = [row(12 * SECOND + 2_000 * k, prompt=700) for k in range(400)]
    kept = []
    for names in (("once", "busy"), ("busy", "busy")):  # both times somebody asks at first
        owner = np.array([0, *([1] * len(late))], np.int32)
        asked = replace(
            trace(world, [row(0), *late]), labels={"tenant": Labels(owner if names[0] == "once" else owner | 1, ("once", "busy"))}
        )
        kept.append(simulate(world, asked).requests["state"].tolist())
    assert kept[0] == kept[1]
    assert SHED in kept[0]


def test_nobody_is_starved_however_light() -> None:
    got, _ = played({"light": 1.0, "heavy": 8.0}, settings({"light": 1.0, "heavy": 50.0}))
    assert share(got, "light") >= 0.8 / 51


@pytest.mark.parametrize("feed", ["steps", "fill", "direct"])
def test_batch_work_that_waits_goes_by_weight(feed: str) -> None:
    world = settings({"a": 3.0}, feed=feed, wait=0.001)
    got, _ = played({"b": 3.0, "a": 3.0}, world, tier="niw")
    assert share(got, "a") == pytest.approx(3 / 4, abs=0.05)


def test_summaries_tell_weights_and_tokens_only_where_somebody_shares() -> None:
    _, shared = played({"a": 0.5, "b": 0.5}, settings({"a": 3.0}))
    _, plain = played({"a": 0.5, "b": 0.5}, settings(None))
    found, before = tenants_of(shared), tenants_of(plain)
    assert [found[name].weight for name in ("a", "b")] == [3.0, 1.0]
    assert found["a"].tokens == {"iw-f": 510 * found["a"].finished}
    assert before["a"] == structs.replace(found["a"], weight=UNSET, tokens=UNSET)
    assert (shared.requests == plain.requests).all(), "there was room for all"


def test_a_tenant_that_the_trace_does_not_have_is_told() -> None:
    _, run = played({"search": 0.2}, settings({"serch": 2.0}))
    assert any("serch asked for nothing; the trace has search" in note for note in run.notes)
    run = simulate(settings({"a": 1.0}), trace(settings({"a": 1.0}), [row(0)], window=HOUR))
    assert any("names no tenants" in note for note in run.notes)
