"""A plan may come before the lease does, and a report may not arrive. Read next: `test_agent.py`."""

from pathlib import Path

import pytest

from sageserve.base.units import HOUR, MINUTE
from sageserve.live.agent import sink
from sageserve.live.authority.orders import read_orders
from sageserve.live.kubernetes.writer import NotWritten
from tests.live.agent.stage import Here, guarded, plan, sealed
from tests.live.authority.stage import WALL, Field, played


async def follows(one: Here) -> bool:
    """Whether the orders name a plan of the hub."""
    read = await read_orders(one.field.outside(), one.agent.hands._orders)
    assert not isinstance(read, NotWritten)
    return read[0].hub is not None


def test_a_plan_that_comes_before_the_lease_is_followed_when_the_lease_is_there(tmp_path: Path) -> None:
    async def story() -> None:
        one = Here(tmp_path, guarded(tmp_path, "default: {min: 0, max: 16, rung: bounds}\n"), await Field().made(low=2, count=4))
        one.source.file = sealed(plan(5, begins=WALL - HOUR, length=3 * HOUR))
        await one.agent.turn()  # asks, and has no lease
        assert not await follows(one)
        one.source.file = None  # and the hub is away from now on
        await one.settle()
        await one.agent.turn()
        assert await follows(one)

    played(story)


def test_a_report_that_is_not_taken_is_told_once_as_it_cannot_say_so_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    async def story() -> None:
        one = Here(tmp_path, guarded(tmp_path, "default: {min: 0, max: 16, rung: bounds}\n"), await Field().made(low=2, count=4))
        monkeypatch.setattr(sink, "write_report", full)
        await one.run(2 * MINUTE)
        assert [facts["detail"] for act, facts in one.field.told if act == "unreported"] == [one.agent.unreported]
        assert "No space left on device" in one.agent.unreported
        monkeypatch.undo()
        await one.run(MINUTE)
        assert one.agent.unreported == ""

    played(story)
