"""From samples of engines to the minimum of an object: a process that watches, and acts on what it decides.

Read next: `tests/live/watch/stage.py`.
"""

from pathlib import Path

from sageserve.base.units import MINUTE, SECOND
from sageserve.live.authority.hands import ClusterHands, HandsParts
from tests.live.authority.stage import Field, acted_on, played
from tests.live.watch.stage import SCRAPE, Pod, WatchStage


def test_a_busy_fleet_has_its_floor_raised_and_keeps_it_while_nothing_is_seen(tmp_path: Path) -> None:
    async def story() -> None:
        scenario = acted_on(take_over=True)
        field = await Field().made(low=1, count=2)
        pods = [Pod(name, per_s=2.0, running=40.0, memory=0.95) for name in ("a", "b")]
        stage = WatchStage(tmp_path, pods, scenario)
        clock = stage.clock
        parts = HandsParts({"east": field.writer()}, stage.watch.asked, clock.now, lambda: stage.at, "one", lambda *_: None)
        hands = ClusterHands(scenario, "east", parts)

        async def watch(length: int) -> None:
            for _ in range(length // SCRAPE):
                stage.run(SCRAPE)
                await hands.keeper.keep()
                await hands.round()

        await watch(5 * MINUTE)
        raised = field.bounds()[0]
        assert raised is not None
        assert raised >= 3  # the reactive rule wants one more than the two that run
        assert stage.watch.asked("east/big/h100").busy == {"a": 40, "b": 40}  # who has the least to do goes first
        stage.away = True
        await watch(5 * MINUTE)
        assert field.bounds()[0] == raised
        assert stage.watch.asked("east/big/h100").blind
        assert stage.watch.asked("east/big/h100").count is None
        assert clock.at > 10 * 60 * SECOND

    played(story)
