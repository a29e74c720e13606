"""Stories of the swarm: laws hold, equal seeds tell equal stories, and what kills and freezes really does.

More seeds are played by `sageserve swarm --seeds 10000`. Read next: `test_planted.py`, `src/sageserve/live/swarm/story.py`.
"""

import asyncio
from pathlib import Path

import pytest
from typer.testing import CliRunner

from sageserve.base.units import SECOND
from sageserve.cli.main import app
from sageserve.live.swarm.faults import KINDS
from sageserve.live.swarm.laws import LAWS
from sageserve.live.swarm.story import tell
from sageserve.live.swarm.virtual_time import VirtualLoop, VirtualProcess
from tests.live.swarm.planted import PLANTED

SEEDS = (*range(4), 9568, 20084)  # both strategies, much and little room; control or a gateway stands still at a bad moment


def test_laws_hold_stories_differ_and_a_seed_tells_the_same_whatever_was_played_before(tmp_path: Path) -> None:
    told = [tell(seed, tmp_path / str(seed)) for seed in SEEDS]
    assert [one.broken for one in told] == [{}] * len(SEEDS)
    assert len({one.story for one in told}) == len(SEEDS)
    assert tell(0, tmp_path / "again") == told[0]
    assert not list(tmp_path.iterdir())


def test_a_broken_law_is_told_with_its_story_and_ends_in_1(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sageserve.core.controller.Controller._take_in", lambda *_: ())  # nothing is taken into the fleet
    ran = CliRunner().invoke(app, ["swarm", "--seed", "3"])
    assert ran.exit_code == 1
    assert "BROKEN fleet-is-real" in ran.stdout
    assert LAWS["fleet-is-real"] in ran.stdout
    many = CliRunner().invoke(app, ["swarm", "--first", "3", "--seeds", "1", "--workers", "1"])
    assert many.exit_code == 1
    assert "`sageserve swarm --seed 3`" in many.stdout


def test_every_kind_of_fault_and_every_planted_one_has_its_place() -> None:
    assert len(KINDS) >= 20
    assert len(PLANTED) >= 6
    source = Path(__file__).resolve().parents[3] / "src" / "sageserve"
    for one in PLANTED:
        assert (source / one.module).read_text("utf-8").count(one.old) == 1, one.name


def test_a_killed_process_does_nothing_more_and_a_frozen_one_is_late() -> None:
    loop = VirtualLoop()  # type: ignore[abstract] # what needs sockets is not there
    heard: list[tuple[str, float]] = []

    async def work(name: str) -> None:
        try:
            while True:
                heard.append((name, loop.time()))
                await asyncio.sleep(1)
        finally:
            heard.append((f"{name} ends", loop.time()))

    killed, frozen = VirtualProcess("killed"), VirtualProcess("frozen")
    for process in (killed, frozen):
        loop.start(process, work(process.name))
    loop.run_until(SECOND // 2)
    killed.killed = frozen.frozen = True
    loop.run_until(5 * SECOND)
    loop.thaw(frozen)
    loop.run_until(6 * SECOND)
    assert heard == [("killed", 0.0), ("frozen", 0.0), ("frozen", 5.0), ("frozen", 6.0)]
    loop.wind_up()
    assert {name for name, _ in heard[4:]} == {"killed ends", "frozen ends"}


def test_the_page_lists_every_law_and_every_kind_of_fault() -> None:
    page = (Path(__file__).resolve().parents[3] / "docs" / "reference" / "swarm.md").read_text("utf-8")
    assert [f"| `{name}` | {said} |" for name, said in LAWS.items() if f"| `{name}` | {said} |" not in page] == []
    assert [name for name in KINDS if f"`{name}`" not in page] == []
