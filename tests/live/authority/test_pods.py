"""Pods counted for what they are, and starts measured; what cannot come is not asked for again."""

import time

import msgspec
import pytest

from sageserve.base.units import MINUTE, SECOND
from sageserve.live.authority.pods import ColdStarts, PodList, PodSeen, PodTally, selected, tally
from sageserve.live.kubernetes.fake import Stored
from sageserve.live.kubernetes.objects import Json
from tests.live.authority.stage import NAME, SPACE, WALL, Field, acted_on, played, settled

MADE = "2026-09-21T14:13:20Z"  # where the wall clock of the stage begins


def pod(
    name: str, *, gates: tuple[str, ...] = (), phase: str = "Running", conditions: tuple[tuple[str, str, str, str], ...] = ()
) -> Stored:
    """A pod; conditions are type, status, reason and since when."""
    keys = ("type", "status", "reason", "lastTransitionTime")
    listed: Json = [dict(zip(keys, one, strict=True)) for one in conditions]
    metadata: Json = {"name": name, "namespace": SPACE, "uid": name, "labels": {"app": NAME}, "creationTimestamp": MADE}
    held: Json = {"schedulingGates": [{"name": gate} for gate in gates]} if gates else {}
    return {"kind": "Pod", "metadata": metadata, "spec": held, "status": {"phase": phase, "conditions": listed}}


def ready(name: str, after: int = 60, restarts: int = 0) -> Stored:
    at = f"2026-09-21T14:{13 + (20 + after) // 60:02}:{(20 + after) % 60:02}Z"
    found = pod(name, conditions=(("Ready", "True", "", at),))
    status = found["status"]
    assert isinstance(status, dict)
    return found | {"status": status | {"containerStatuses": [{"restartCount": restarts}]}}


def unschedulable(name: str) -> Stored:
    return pod(name, phase="Pending", conditions=(("PodScheduled", "False", "Unschedulable", MADE),))


def seen(*given: Stored) -> list[PodSeen]:
    return msgspec.json.decode(msgspec.json.encode({"items": list(given)}), type=PodList).items


def leaving() -> Stored:
    found = ready("leaving")
    metadata = found["metadata"]
    assert isinstance(metadata, dict)
    return found | {"metadata": metadata | {"deletionTimestamp": MADE}}


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (ready("a"), PodTally(ready=1)),
        (pod("a", phase="Pending"), PodTally(coming=1)),
        (pod("a", conditions=(("Ready", "False", "ContainersNotReady", MADE),)), PodTally(coming=1)),
        (unschedulable("a"), PodTally(stuck=1, why="unschedulable")),
        (pod("a", phase="Pending", gates=("kueue",)), PodTally(stuck=1, why="gated by kueue", gated=1)),
        (pod("a", phase="Failed"), PodTally()),
        (leaving(), PodTally(leaving=1)),
    ],
)
def test_each_pod_counts_for_what_it_is(given: Stored, told: PodTally) -> None:
    assert tally(seen(given), ColdStarts(), WALL) == told


def test_starts_are_measured_once_each_and_not_of_what_began_anew() -> None:
    starts = ColdStarts()
    starts.see(seen(pod("a"), pod("b")))
    starts.see(seen(ready("a", 60), ready("b", 120)))
    assert starts.quantile(0.5) is None  # two say nothing
    for _ in range(3):
        starts.see(seen(ready("a", 60), ready("b", 120), ready("c", 90), ready("again", 10, restarts=1)))
    assert [starts.quantile(share) for share in (0.0, 0.5, 0.95)] == [60 * SECOND, 90 * SECOND, 120 * SECOND]
    starts.see(seen(*(ready(f"n{n}", 30) for n in range(50))))
    assert starts.quantile(0.95) == 30 * SECOND  # the newest fifty


def lapsed(name: str, began: str, since: str) -> Stored:
    """A pod whose container began at an instant, and that is not ready since another."""
    found = pod(name, conditions=(("Ready", "False", "ContainersNotReady", since),))
    status = found["status"]
    assert isinstance(status, dict)
    running: Json = [{"restartCount": 0, "state": {"running": {"startedAt": began}}}]
    return found | {"status": status | {"containerStatuses": running}}


def test_pods_that_were_ready_before_anybody_looked_say_nothing_of_their_start_whatever_moment_they_were_not() -> None:
    again = pod("x", conditions=(("Ready", "True", "", "2026-09-28T14:13:20Z"),))["status"]
    old = [pod(name) | {"status": again} for name in "abc"]  # a week old, and ready again since now
    starts = ColdStarts()
    starts.see([])
    starts.see(seen(*old))
    starts.see(seen(*old, *(lapsed(name, "2026-09-21T14:14:00Z", "2026-09-28T14:13:00Z") for name in "def")))
    starts.see(seen(*old, *(pod(name) | {"status": again} for name in "def")))
    assert starts.quantile(0.5) is None, "no start took a week"
    coming = [lapsed(name, "2026-09-21T14:14:00Z", "2026-09-21T14:13:21Z") for name in "ghi"]  # new: its engine loads
    starts.see(seen(*old, *coming))
    starts.see(seen(*old, *(ready(name, 90) for name in "ghi")))
    assert starts.quantile(0.5) == 90 * SECOND
    starts.see(seen(*(ready(f"n{n}", 30) for n in range(50))))
    assert starts.quantile(0.5) == 30 * SECOND, "those that came between two looks"


def test_what_takes_more_than_twice_as_long_is_late() -> None:
    starts = ColdStarts()
    starts.see(seen(*(pod(name, phase="Pending") for name in "abc")))
    starts.see(seen(*(ready(name, 60) for name in "abc")))
    waiting = seen(pod("d", phase="Pending"))
    assert tally(waiting, starts, WALL + 2 * MINUTE).late == 0
    assert tally(waiting, starts, WALL + 2 * MINUTE + 1).late == 1


def test_two_thousand_pods_are_read_and_counted_in_little_time() -> None:
    text = msgspec.json.encode({"items": [ready(f"p{n}") | {"more": ["x" * 40] * 50} for n in range(2000)]})
    begun = time.process_time()
    pods = msgspec.json.decode(text, type=PodList).items
    starts = ColdStarts()
    starts.see(selected(pods, {"app": NAME}))
    assert tally(selected(pods, {"app": NAME}), starts, WALL).ready == 2000
    assert time.process_time() - begun < 0.3  # measured: a fifth of that
    assert selected(pods, {}) == []


def test_a_floor_is_not_raised_beyond_what_is_asked_for_while_pods_cannot_come() -> None:
    async def story() -> None:
        field = await Field().made(low=1, count=4)
        field.cluster.put(unschedulable("llama-3"))
        process = await settled(field, acted_on(take_over=True))
        field.wants = 9
        await process.turn()
        assert field.bounds()[0] == 4
        assert process.hands.hands[0].step.withheld == "no-stock"
        assert process.hands.notes() == ["big has 1 pods that cannot come (unschedulable): no more is asked for."]
        field.cluster.put(ready("llama-3"))
        field.now += MINUTE
        await process.turn()
        assert field.bounds()[0] == 6

    played(story)


def test_pods_that_cannot_be_read_stop_nothing_and_are_said() -> None:
    async def story() -> None:
        field = await Field().made(low=1, count=4)
        field.cluster.forbidden.add("Pod")
        process = await settled(field, acted_on(take_over=True))
        field.wants = 6
        await process.turn()
        assert field.bounds()[0] == 6
        assert "pods of serving cannot be read (HTTP 403)" in process.hands.notes()[0]

    played(story)
