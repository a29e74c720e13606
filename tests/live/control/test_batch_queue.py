"""The batch queue: due first goes first, endpoints get what the feed rule allows, and clients that wait are part of the queue.

Read next: `src/sageserve/live/control/batch_queue.py`.
"""

from hypothesis import given
from hypothesis import strategies as st

from sageserve.base.units import HOUR, SECOND
from sageserve.live.control.batch_queue import ANYWHERE, BatchQueue, QueueHead
from sageserve.live.wire import Gone, Grant, Wait
from tests.live.control.test_fleet_view import Scene

NIW = 2


class Listed:
    """Jobs in memory, by model."""

    def __init__(self) -> None:
        self.jobs: list[list[QueueHead]] = [[], []]
        self.launched: list[tuple[int, int, int]] = []  # model, deadline, endpoint

    def add(self, deadline: int, *, model: int = 0, arrival: int = 0) -> None:
        self.jobs[model].append(QueueHead(deadline, arrival, NIW, 500))
        self.jobs[model].sort(key=lambda job: job.deadline)

    def waiting(self, model: int) -> int:
        return len(self.jobs[model])

    def head(self, model: int) -> QueueHead | None:
        return self.jobs[model][0] if self.jobs[model] else None

    def launch(self, model: int, endpoint: int) -> None:
        self.launched.append((model, self.jobs[model].pop(0).deadline, endpoint))


class Fed:
    """A scene with a feeder, an open instance of the first model in the first region."""

    def __init__(self) -> None:
        self.scene = Scene()
        self.jobs = Listed()
        self.grants: list[tuple[int, Grant]] = []
        self.queue = BatchQueue(self.scene.settings, self.scene.view, self.jobs, self.grant, lambda: self.scene.now)
        self.scene.hello()
        self.scene.view.open(0)

    def grant(self, gateway: int, grant: Grant) -> bool:
        self.grants.append((gateway, grant))
        return True

    def wait(self, ticket: int, patience: int, *, gateway: int = 0, model: int = 0) -> None:
        self.queue.hear(gateway, Wait(ticket, 0, model, NIW, 400, patience))


def test_an_idle_endpoint_is_given_two_jobs_a_full_one_none() -> None:
    fed = Fed()
    for deadline in (30 * HOUR, 20 * HOUR, 25 * HOUR):
        fed.jobs.add(deadline)
    fed.queue.run()
    assert fed.jobs.launched == [(0, 20 * HOUR, 0), (0, 25 * HOUR, 0)]
    fed.scene.view.endpoints[0]["busy"] = 0.61
    fed.queue.run()
    assert len(fed.jobs.launched) == 2
    fed.scene.view.endpoints[0]["busy"] = 0.55
    fed.queue.run()
    assert len(fed.jobs.launched) == 3


def test_jobs_wait_while_nothing_is_open() -> None:
    fed = Fed()
    fed.jobs.add(20 * HOUR, model=1)
    fed.queue.run()
    assert fed.jobs.launched == []
    assert fed.queue.waiting() == (0, 1)


def test_clients_and_jobs_go_in_order_of_their_deadlines() -> None:
    fed = Fed()
    fed.jobs.add(24 * HOUR)
    fed.wait(5, 600 * SECOND)
    assert fed.queue.waiting() == (2, 0)
    fed.queue.run()
    assert [(gateway, grant.ticket, grant.endpoint) for gateway, grant in fed.grants] == [(0, 5, 0)]
    assert fed.jobs.launched == [(0, 24 * HOUR, 0)]


def test_a_client_that_left_is_not_granted_and_not_counted() -> None:
    fed = Fed()
    fed.scene.view.endpoints[0]["busy"] = 0.9
    fed.wait(1, 600 * SECOND)
    fed.wait(2, 600 * SECOND, gateway=1)
    fed.wait(3, 600 * SECOND)
    fed.queue.hear(0, Gone(1))
    fed.queue.left(1)
    assert fed.queue.waiting() == (1, 0)
    fed.scene.view.endpoints[0]["busy"] = 0.0
    fed.queue.run()
    assert [grant.ticket for _, grant in fed.grants] == [3]


def test_a_client_that_waited_as_long_as_it_may_is_told_when_to_come_again() -> None:
    fed = Fed()
    fed.scene.view.endpoints[0]["busy"] = 0.9
    fed.wait(1, 60 * SECOND)
    fed.scene.now = 60 * SECOND
    fed.queue.run()
    assert fed.grants == [(0, Grant(1, ANYWHERE, retry_after=30 * SECOND))]
    assert fed.queue.waiting() == (0, 0)


def test_what_is_about_to_be_late_goes_even_into_a_full_fleet() -> None:
    fed = Fed()
    fed.scene.view.endpoints[0]["busy"] = 0.95
    fed.jobs.add(SECOND // 50)
    fed.jobs.add(20 * HOUR)
    fed.queue.run()
    assert fed.jobs.launched == [(0, SECOND // 50, ANYWHERE)]


def test_old_work_is_promoted() -> None:
    fed = Fed()
    fed.scene.view.endpoints[0]["busy"] = 0.95
    fed.scene.now = 11 * HOUR
    fed.jobs.add(24 * HOUR, arrival=0)
    fed.queue.run()
    assert fed.jobs.launched == [(0, 24 * HOUR, ANYWHERE)]


@given(deadlines=st.lists(st.integers(1, 10**6), max_size=20), clients=st.lists(st.integers(1, 10**6), max_size=20))
def test_whatever_comes_goes_once_in_order_of_deadline(deadlines: list[int], clients: list[int]) -> None:
    fed = Fed()
    for deadline in deadlines:
        fed.jobs.add(deadline * SECOND + HOUR)
    for ticket, patience in enumerate(clients):
        fed.wait(ticket, patience * SECOND + HOUR)
    for _ in range(30):
        fed.queue.run()
        fed.scene.view.refresh()
    assert [deadline for _, deadline, _ in fed.jobs.launched] == sorted(deadline * SECOND + HOUR for deadline in deadlines)
    assert sorted(grant.ticket for _, grant in fed.grants) == list(range(len(clients)))
    granted = [clients[grant.ticket] for _, grant in fed.grants]
    assert granted == sorted(granted)
    assert fed.queue.waiting() == (0, 0)
