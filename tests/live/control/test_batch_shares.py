"""Owners share the batch queue: by weight, each in order of its own deadlines, and nobody owes what was run while it was alone.

Read next: `src/sageserve/core/fair_share.py`; `test_batch_queue.py` for one owner.
"""

import pytest

from sageserve.base.units import HOUR
from sageserve.live.wire import Grant, Wait
from tests.live.control.test_batch_queue import NIW, Fed


def test_owners_take_turns_by_weight_and_each_ones_own_work_goes_by_deadline() -> None:
    weights = {"big": 3.0, "small": 1.0}
    keys = [{"name": name, "sha256": f"{k}" * 64, "weight": weight} for k, (name, weight) in enumerate(weights.items())]
    fed = Fed(live={"keys": keys})
    fed.use(0.9)
    for k in range(40):
        fed.jobs.add((20 + k) * HOUR, owner="small")
    for k in range(40):
        fed.jobs.add((100 + k) * HOUR, owner="big")
    fed.queue.run()
    fed.use(0.0)
    for _ in range(10):
        fed.scene.view.endpoints["fed_work"] = 0.0
        fed.queue.scraped()
    small = [deadline for _, deadline, _ in fed.jobs.launched if deadline < 100 * HOUR]
    assert len(fed.jobs.launched) == 20
    assert len(small) == 5, "a quarter, though all of it is due first"
    assert small == sorted(small)


@pytest.mark.parametrize("arrival", [0, -11 * HOUR], ids=["in its turn", "promoted"])
def test_who_was_alone_owes_nothing_to_who_comes(arrival: int) -> None:
    fed = Fed()
    fed.use(0.9)
    for k in range(40):
        fed.jobs.add((20 + k) * HOUR, arrival=arrival, owner="alone")
    fed.queue.run()
    fed.use(0.0)
    while fed.jobs.jobs[0]:
        fed.scene.view.endpoints["fed_work"] = 0.0
        fed.queue.scraped()
    fed.use(0.9)
    for k in range(40):
        fed.jobs.add((20 + k) * HOUR, owner="alone")
        fed.jobs.add((100 + k) * HOUR, owner="new")
    fed.queue.run()
    fed.use(0.0)
    for _ in range(10):
        fed.scene.view.endpoints["fed_work"] = 0.0
        fed.queue.scraped()
    later = [deadline for _, deadline, _ in fed.jobs.launched[40:]]
    assert len(later) == 20
    assert sum(deadline < 100 * HOUR for deadline in later) in {9, 10, 11}, "half of it, to a job"


def test_a_client_of_another_key_does_not_wait_behind_a_long_batch() -> None:
    fed = Fed()
    fed.use(0.9)
    for k in range(40):
        fed.jobs.add((20 + k) * HOUR, owner="long")
    fed.queue.run()
    fed.queue.hear(0, Wait(1, 0, 0, NIW, 400, 300 * HOUR, "short"))
    fed.use(0.0)
    fed.queue.scraped()
    assert fed.decided == [(0, Grant(1, 0))]
