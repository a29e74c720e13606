"""Services of a fleet that die are told of where the fleet was started: with their last words, and not each time."""

import asyncio
import sys
from pathlib import Path

import pytest

from sageserve.base.units import SECOND
from sageserve.cli.running import how_it_died, say_deaths
from sageserve.live.supervisor.messages import Begin, Life, Process, Restart
from sageserve.live.supervisor.service import Supervisor

ENDING = "import sys; print('error: no database', file=sys.stderr); sys.exit(2)"
QUICK = Restart(SECOND // 50, SECOND // 50)


def test_who_started_the_fleet_sees_what_dies_and_why(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of five deaths the first, the second and the fourth."""
    say = say_deaths(tmp_path)

    async def run() -> None:
        enough = asyncio.Event()

        def told(process: Process) -> None:
            say(process)
            if process.runs == 5:
                enough.set()

        supervisor = Supervisor(tmp_path, {"PATH": "/usr/bin:/bin"}, told)
        await supervisor.children.begin(Begin(0, "control", (sys.executable, "-S", "-c", ENDING), restart=QUICK))
        async with asyncio.timeout(60):
            await enough.wait()
        await supervisor.children.end_all(0)

    asyncio.run(run())
    assert capsys.readouterr().err.splitlines() == [
        "control has died once: it exited with code 2: no database. It is begun again.",
        "control has died 2 times; it exited with code 2: no database. It is begun again.",
        "control has died 4 times; it exited with code 2: no database. It is begun again.",
    ]


def test_who_was_killed_left_no_words(tmp_path: Path) -> None:
    killed = Process("gateway", Life.RESTING, 7, -9, 3, "")
    assert how_it_died(tmp_path, killed) == "gateway has died 3 times; it was killed by signal 9"
