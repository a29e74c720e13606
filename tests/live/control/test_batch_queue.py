"""The batch queue: due first goes first, endpoints get what the feed rule allows, and clients that wait are part of the queue.

Read next: `src/sageserve/live/control/batch_queue.py`; `test_batch_shares.py`; `tests/parity/test_front_door.py`, likewise.
"""

from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from sageserve.base.units import HOUR, SECOND
from sageserve.live.control.batch_queue import BatchQueue, QueueHead
from sageserve.live.wire import ANYWHERE, EndpointCount, Gone, Grant, Refusal, Wait
from tests.live.control.fleet_view_stage import Scene

NIW = 2
WEST = 2  # the first endpoint of the second region: there are two models


class Listed:
    """Jobs in memory, by model."""

    def __init__(self) -> None:
        self.jobs: list[list[QueueHead]] = [[], []]
        self.launched: list[tuple[int, int, int]] = []  # model, deadline, endpoint
        self.loaded = True

    def add(self, deadline: int, *, model: int = 0, arrival: int = 0, region: int = 0, owner: str = "") -> None:
        self.jobs[model].append(QueueHead(deadline, arrival, region, NIW, 500, owner))
        self.jobs[model].sort(key=lambda job: job.deadline)

    def waiting(self, model: int) -> int:
        return len(self.jobs[model])

    def heads(self, model: int) -> list[QueueHead]:
        firsts: dict[str, QueueHead] = {}
        for job in self.jobs[model] if self.loaded else ():
            firsts.setdefault(job.owner, job)
        return list(firsts.values())

    def launch(self, model: int, endpoint: int, owner: str) -> None:
        job = next(job for job in self.jobs[model] if job.owner == owner)
        self.jobs[model].remove(job)
        self.launched.append((model, job.deadline, endpoint))

    def tell(self, ended: Callable[[int], None], loaded: Callable[[], None]) -> None:
        self.ended, self.told = ended, loaded


class Fed:
    """A scene with a batch queue, and an open instance of the first model in the first region."""

    def __init__(self, **changes: object) -> None:
        self.scene = Scene(**changes)
        self.jobs = Listed()
        self.decided: list[tuple[int, Grant | Refusal]] = []
        self.queue = BatchQueue(self.scene.settings, self.scene.view, self.jobs, self.decide, lambda: self.scene.now)
        self.scene.hello()
        self.scene.view.open(0)

    def decide(self, gateway: int, decision: Grant | Refusal) -> bool:
        self.decided.append((gateway, decision))
        return True

    def wait(self, ticket: int, patience: int, *, gateway: int = 0, model: int = 0, region: int = 0) -> None:
        self.queue.hear(gateway, Wait(ticket, region, model, NIW, 400, patience))

    def use(self, busy: float, endpoint: int = 0) -> None:
        self.scene.view.endpoints[endpoint]["busy"] = busy

    def free(self, places: int, endpoint: int = 0) -> None:
        self.scene.report(endpoints=(EndpointCount(endpoint, 0.0, 0.0, places, places),))


def test_a_scrape_gives_an_idle_endpoint_two_jobs_and_a_full_one_none() -> None:
    fed = Fed()
    fed.use(0.9)
    for deadline in (30 * HOUR, 20 * HOUR, 25 * HOUR):
        fed.jobs.add(deadline)
    fed.queue.run()
    fed.use(0.0)
    fed.queue.scraped()
    assert fed.jobs.launched == [(0, 20 * HOUR, 0), (0, 25 * HOUR, 0)]
    fed.use(0.61)
    fed.queue.scraped()
    assert len(fed.jobs.launched) == 2
    fed.use(0.55)
    fed.queue.scraped()
    assert len(fed.jobs.launched) == 3


def test_a_job_that_comes_is_offered_at_once_and_only_then() -> None:
    fed = Fed()
    fed.use(0.55)
    fed.jobs.add(20 * HOUR)
    fed.queue.run()
    assert fed.jobs.launched == [(0, 20 * HOUR, 0)]
    fed.use(0.9)
    fed.jobs.add(21 * HOUR)
    fed.queue.run()
    fed.use(0.0)
    fed.queue.run()
    assert len(fed.jobs.launched) == 1, "nothing came, and no place came free"
    fed.jobs.add(22 * HOUR)
    fed.queue.run()
    assert fed.jobs.launched[1:] == [(0, 21 * HOUR, 0)], "one came, so one goes: the one that is due first"


def test_jobs_that_are_not_loaded_yet_are_offered_once_they_are() -> None:
    fed = Fed()
    fed.jobs.loaded = False
    fed.jobs.add(20 * HOUR)
    fed.jobs.add(21 * HOUR)
    fed.queue.run()
    fed.jobs.loaded = True
    fed.queue.run()
    assert [deadline for _, deadline, _ in fed.jobs.launched] == [20 * HOUR, 21 * HOUR]


def test_what_comes_is_offered_to_the_least_utilised_endpoint_of_its_walk() -> None:
    fed = Fed()
    fed.scene.view.open(WEST * fed.scene.layout.slots)
    fed.use(0.3)
    fed.use(0.2, WEST)
    fed.jobs.add(20 * HOUR)
    fed.queue.run()
    fed.use(0.3, WEST)
    fed.scene.view.endpoints["fed_work"] = 0.0
    fed.wait(1, 600 * SECOND, region=1)
    assert [endpoint for _, _, endpoint in fed.jobs.launched] == [WEST]
    assert fed.decided == [(0, Grant(1, WEST))], "of equals the nearest: it came in the west"


def test_a_place_that_came_free_is_given_jobs() -> None:
    fed = Fed()
    fed.scene.report()
    fed.use(0.9)
    for hours in range(20, 28):
        fed.jobs.add(hours * HOUR)
    fed.queue.run()
    fed.use(0.0)
    fed.free(2)
    fed.queue.run()
    assert len(fed.jobs.launched) == 4, "twice two"
    fed.use(0.55)
    fed.free(3)
    fed.queue.run()
    fed.queue.run()
    assert len(fed.jobs.launched) == 5


def test_urgent_work_goes_whoevers_turn_it_is() -> None:
    fed = Fed()
    fed.use(0.9)
    fed.jobs.add(20 * HOUR, owner="first")
    fed.jobs.add(21 * HOUR, arrival=-11 * HOUR, owner="old")
    fed.queue.run()
    fed.queue.scraped()
    assert fed.jobs.launched == [(0, 21 * HOUR, ANYWHERE)], "it came eleven hours ago"


def test_a_place_that_came_free_while_no_job_was_loaded_is_used_once_one_is() -> None:
    fed = Fed()
    fed.scene.report()
    fed.use(0.9)
    for hours in range(20, 28):
        fed.jobs.add(hours * HOUR)
    fed.queue.run()
    fed.use(0.0)
    fed.jobs.loaded = False
    fed.free(3)
    fed.queue.run()
    assert fed.jobs.launched == []
    fed.queue.news.clear()
    fed.jobs.loaded = True
    fed.jobs.told()
    assert fed.queue.news.is_set(), "nobody waits for the next turn"
    fed.queue.run()
    fed.queue.run()
    assert len(fed.jobs.launched) == 6, "thrice two, once"


def test_a_job_that_is_over_makes_room_for_the_next_before_gateways_report_it_and_once() -> None:
    fed = Fed()
    fed.scene.report()
    fed.use(0.9)
    for hours in range(20, 40):
        fed.jobs.add(hours * HOUR)
    fed.queue.run()
    fed.use(0.0)
    for _ in range(3):
        fed.jobs.ended(0)  # of one iteration
    assert fed.queue.news.is_set()
    fed.queue.run()
    assert len(fed.jobs.launched) == 2
    fed.scene.now += 2000
    fed.jobs.ended(0)
    fed.queue.run()
    assert len(fed.jobs.launched) == 4
    fed.free(3)
    fed.queue.run()
    assert len(fed.jobs.launched) == 6, "two of the three that are reported were asked for"
    fed.jobs.ended(ANYWHERE)
    fed.queue.run()
    assert len(fed.jobs.launched) == 6


def test_a_client_that_was_let_go_and_is_done_makes_room_for_the_next() -> None:
    fed = Fed()
    fed.scene.report()
    fed.use(0.9)
    for ticket in range(1, 7):
        fed.wait(ticket, 600 * SECOND)
    fed.use(0.0)
    fed.queue.scraped()
    fed.queue.run()
    assert [decision.ticket for _, decision in fed.decided] == [1, 2]
    fed.queue.hear(0, Gone(1))
    fed.queue.run()
    assert [decision.ticket for _, decision in fed.decided] == [1, 2, 3, 4]
    fed.scene.now += 2000
    fed.queue.hear(0, Gone(1))
    fed.queue.run()
    assert len(fed.decided) == 4, "it was done already"


def test_what_is_over_where_an_instance_drains_is_a_place_only_if_gateways_say_so() -> None:
    fed = Fed()
    fed.scene.report()
    fed.use(0.9)
    for hours in range(20, 30):
        fed.jobs.add(hours * HOUR)
    fed.queue.run()
    fed.use(0.0)
    fed.scene.view.open(1)
    fed.scene.view.close(0)
    fed.jobs.ended(0)
    fed.queue.run()
    assert not fed.jobs.launched, "it may have run where nothing is to run any more"
    fed.free(1)
    fed.queue.run()
    assert len(fed.jobs.launched) == 2


def test_jobs_that_went_with_their_batch_are_not_taken_for_some_that_were_offered() -> None:
    fed = Fed()
    fed.use(0.9)
    for hours in (20, 21):
        fed.jobs.add(hours * HOUR)
    fed.queue.run()
    fed.jobs.jobs[0].clear()
    fed.queue.scraped()
    fed.use(0.0)
    fed.jobs.add(22 * HOUR)
    fed.queue.run()
    assert fed.jobs.launched == [(0, 22 * HOUR, 0)]


def test_jobs_wait_while_nothing_is_open() -> None:
    fed = Fed()
    fed.jobs.add(20 * HOUR, model=1)
    fed.queue.run()
    fed.queue.scraped()
    assert fed.jobs.launched == []
    assert fed.queue.waiting() == (0, 1)


def test_without_a_queue_everything_is_routed_when_it_comes() -> None:
    for changes in ({"batch": {"feed": "direct"}}, {"strategy": {"name": "siloed"}}):
        fed = Fed(**changes)
        fed.use(0.95)
        fed.jobs.add(20 * HOUR)
        fed.jobs.add(21 * HOUR)
        fed.queue.run()
        assert fed.jobs.launched == [(0, 20 * HOUR, ANYWHERE), (0, 21 * HOUR, ANYWHERE)]
        fed.wait(1, 600 * SECOND)
        assert fed.decided == [(0, Grant(1, ANYWHERE))]


def test_clients_and_jobs_go_in_order_of_their_deadlines() -> None:
    fed = Fed()
    fed.use(0.9)
    fed.jobs.add(24 * HOUR)
    fed.wait(5, 600 * SECOND)
    fed.queue.run()
    assert fed.queue.waiting() == (2, 0)
    fed.use(0.0)
    fed.queue.scraped()
    assert fed.decided == [(0, Grant(5, 0))]
    assert fed.jobs.launched == [(0, 24 * HOUR, 0)]


def test_a_client_that_left_is_not_granted_and_not_counted() -> None:
    fed = Fed()
    fed.use(0.9)
    fed.wait(1, 600 * SECOND)
    fed.wait(2, 600 * SECOND, gateway=1)
    fed.wait(3, 600 * SECOND)
    fed.queue.hear(0, Gone(1))
    fed.queue.left(1)
    assert fed.queue.waiting() == (1, 0)
    fed.use(0.0)
    fed.queue.scraped()
    assert fed.decided == [(0, Grant(3, 0))]


def test_a_client_that_waited_as_long_as_it_may_is_told_when_to_come_again() -> None:
    fed = Fed()
    fed.use(0.9)
    fed.wait(1, 60 * SECOND)
    fed.scene.now = 60 * SECOND - 1
    fed.queue.run()
    assert fed.decided == []
    fed.scene.now = 60 * SECOND
    fed.queue.run()
    assert fed.decided == [(0, Refusal(1, 30 * SECOND))]
    assert fed.queue.waiting() == (0, 0)


def test_a_place_is_not_wasted_on_a_client_that_is_over() -> None:
    fed = Fed()
    fed.use(0.9)
    fed.wait(1, 60 * SECOND)
    fed.wait(2, 600 * SECOND)
    fed.use(0.55)
    fed.scene.now = 61 * SECOND
    fed.queue.scraped()
    assert fed.decided == [(0, Refusal(1, 30 * SECOND)), (0, Grant(2, 0))]


def test_what_is_about_to_be_late_goes_even_into_a_full_fleet() -> None:
    fed = Fed()
    fed.use(0.95)
    fed.jobs.add(SECOND // 50)
    fed.jobs.add(20 * HOUR)
    fed.queue.scraped()
    assert fed.jobs.launched == [(0, SECOND // 50, ANYWHERE)]


def test_old_work_is_promoted_and_routed_like_interactive_work() -> None:
    fed = Fed()
    fed.use(0.95)
    fed.jobs.add(24 * HOUR, arrival=0)
    fed.wait(7, 23 * HOUR)
    fed.scene.now = 11 * HOUR
    fed.queue.scraped()
    assert fed.jobs.launched == [(0, 24 * HOUR, ANYWHERE)]
    assert fed.decided == [(0, Grant(7, ANYWHERE))], "the gateway routes it: the first open endpoint may be the fullest"


def test_nothing_is_promoted_while_nothing_of_its_walk_is_open() -> None:
    fed = Fed(strategy={"name": "chiron"})  # roles: interactive, batch, mixed; the first serves no batch work
    mixed = 2
    fed.jobs.add(24 * HOUR)
    fed.scene.now = 11 * HOUR
    fed.queue.scraped()
    assert fed.jobs.launched == []
    fed.scene.view.open(mixed * fed.scene.layout.slots)
    fed.use(0.95, mixed)
    fed.queue.scraped()
    assert fed.jobs.launched == [(0, 24 * HOUR, ANYWHERE)]


@given(deadlines=st.lists(st.integers(1, 10**6), max_size=20), clients=st.lists(st.integers(1, 10**6), max_size=20))
def test_whatever_comes_goes_once_in_order_of_deadline(deadlines: list[int], clients: list[int]) -> None:
    fed = Fed()
    fed.use(0.9)
    for deadline in deadlines:
        fed.jobs.add(deadline * SECOND + HOUR)
    for ticket, patience in enumerate(clients):
        fed.wait(ticket, patience * SECOND + HOUR)
    fed.queue.run()
    assert fed.queue.waiting() == (len(deadlines) + len(clients), 0)
    for _ in range(30):
        fed.scene.view.refresh()
        fed.queue.scraped()
    assert [deadline for _, deadline, _ in fed.jobs.launched] == sorted(deadline * SECOND + HOUR for deadline in deadlines)
    granted = [decision.ticket for _, decision in fed.decided]
    assert sorted(granted) == list(range(len(clients)))
    assert [clients[ticket] for ticket in granted] == sorted(clients)
    assert fed.queue.waiting() == (0, 0)


def test_slack_is_the_time_to_the_first_deadline_of_jobs_and_clients() -> None:
    fed = Fed()
    fed.use(0.9)
    assert fed.queue.slack() == (None, None)
    fed.jobs.add(fed.scene.now + 30 * HOUR)
    fed.jobs.add(fed.scene.now + 20 * HOUR, owner="b")
    assert fed.queue.slack() == (20 * HOUR, None)
    fed.wait(1, HOUR)
    assert fed.queue.slack() == (HOUR, None)
    fed.jobs.loaded = False
    fed.queue.hear(0, Gone(1))
    assert fed.queue.slack() == (None, None), "nothing of it may begin now"
