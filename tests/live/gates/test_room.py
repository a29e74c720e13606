"""Rates of gates: the feed rule's own answer, held against counting it job by job, on a process that watches.

Read next: `src/sageserve/live/gates/room.py`.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from sageserve.base.config import GateSettings, Scenario
from sageserve.base.errors import ConfigError
from sageserve.base.units import MINUTE, SECOND
from sageserve.core.columns import ENDPOINT
from sageserve.core.feed import FILL, STEPS, note_fed, share
from sageserve.core.signals import SIGNALS
from sageserve.live.gates.room import GateRoom, jobs_given
from tests.live.watch.stage import SCRAPE, Pod, WatchStage, one_pool

HALF_LIFE = 60.0 * SECOND


def one_by_one(rule: tuple[int, int, float], endpoint: NDArray[Any], work: float, tokens: float) -> int:
    """The slow reference: as the batch queue feeds, asking again after each job."""
    row, jobs = endpoint.copy()[0], 0
    while share(rule[0], rule[1], row, rule[2]) > 0:
        note_fed(row, work, tokens)
        jobs += 1
    return jobs


@given(
    rule=st.tuples(st.sampled_from([STEPS, FILL]), st.integers(0, len(SIGNALS) - 1), st.just(HALF_LIFE)),
    busy=st.floats(0, 1.5),
    kv=st.floats(0, 1),
    opened=st.integers(1, 4),
    work=st.floats(0.5, 50),
    tokens=st.floats(200, 9000),
)
def test_as_many_jobs_as_the_feed_rule_gives_one_by_one(
    rule: tuple[int, int, float], busy: float, kv: float, opened: int, work: float, tokens: float
) -> None:
    endpoint = np.zeros(1, ENDPOINT)
    row = endpoint[0]
    row["busy"], row["kv"], row["open"], row["kv_tokens"], row["one_below"], row["two_below"] = busy, kv, opened, 90_000, 0.6, 0.5
    before = endpoint.copy()
    jobs = jobs_given(rule, endpoint, work * SECOND, tokens)
    assert jobs == one_by_one(rule, endpoint, work * SECOND, tokens)
    assert endpoint == before
    assert jobs_given(rule, endpoint, 2 * work * SECOND, 2 * tokens) <= jobs
    endpoint[0]["busy"], endpoint[0]["kv"] = busy + 0.1, kv + 0.1
    assert jobs_given(rule, endpoint, work * SECOND, tokens) <= jobs


def gate(**changes: object) -> GateSettings:
    """Of the one pool."""
    settings = {"redis": "redis://r:6379", "control_key": "k", "pool_id": "p", "region": "east", "model": "big"}
    return GateSettings.model_validate({**settings, **changes})


def room_of(stage: WatchStage, settings: Scenario) -> GateRoom:
    """Behind a gate in front of what a process watches."""
    watch = stage.watch
    return GateRoom(settings, watch.layout, watch.view, watch.demand.request_of, SCRAPE)


def test_idle_engines_let_work_through_busy_ones_none_and_unseen_ones_none(tmp_path: Path) -> None:
    settings, pods = one_pool(), [Pod("a"), Pod("b")]
    stage = WatchStage(tmp_path, pods, settings)
    room = room_of(stage, settings)
    assert (room.of(gate()).rate, room.of(gate()).why) == (0.0, "no engine of big serves in east")
    stage.run(2 * MINUTE)
    idle = room.of(gate())
    assert idle.rate > 0
    assert not idle.blind
    assert room.of(gate(most=idle.rate / 2)).rate == idle.rate / 2
    for pod in pods:
        pod.memory = 0.9
    stage.run(SCRAPE)
    assert room.of(gate()).rate == 0
    assert not room.of(gate()).blind
    for pod in pods:
        pod.memory = 0.0
    stage.run(SCRAPE)
    assert room.of(gate()).rate == idle.rate
    stage.away = True
    stage.run(stage.watch.limit + 2 * SCRAPE)
    unseen = room.of(gate())
    assert (unseen.rate, unseen.blind, unseen.why) == (0.0, True, "east/big is not seen")


def test_where_nothing_holds_batch_work_back_there_is_no_rate(tmp_path: Path) -> None:
    settings = one_pool(batch={"feed": "direct"})
    with pytest.raises(ConfigError, match="nothing holds batch work back"):
        room_of(WatchStage(tmp_path, [], settings), settings)
