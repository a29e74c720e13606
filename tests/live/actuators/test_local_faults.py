"""Whatever goes wrong on the way to an engine is heard as StartFailed, once, and its GPUs serve again.

Read next: `src/sageserve/live/actuators/local.py`; `test_contract.py` for what goes right.
"""

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from msgspec import structs

from sageserve.base.config import EngineCommand
from sageserve.base.units import SECOND
from sageserve.core.actions import Donate, Reclaim, Release, Source, Start
from sageserve.core.events import InstanceReady, StartFailed
from sageserve.live.actuators import local
from sageserve.live.actuators.base import EngineAddress
from sageserve.live.actuators.local import LocalActuator
from sageserve.live.actuators.start_failures import StartFailures
from sageserve.live.supervisor.client import SupervisorClient
from sageserve.live.supervisor.messages import Life, Process, SupervisorError
from sageserve.live.supervisor.service import SOCKET
from tests.live.actuators.test_contract import GPUS, LocalRig, connected, play_local, posts, stub
from tests.live.supervisor.supervising import kill, soon, supervisor

OTHERS = tuple(range(8, 16))
Break = Callable[[Path, pytest.MonkeyPatch], None]


@pytest.fixture
def state(tmp_path: Path) -> Iterator[Path]:
    """A state folder with a supervisor that runs."""
    with supervisor(tmp_path):
        yield tmp_path


def no_folder(state: Path, patch: pytest.MonkeyPatch) -> None:
    """There is a file where the folder of profiles should be."""
    (state / "profiles").write_text("in the way")


def no_question(state: Path, patch: pytest.MonkeyPatch) -> None:
    """Asking after an engine's health raises something that is no answer and no silence."""

    async def get(*_: object, **__: object) -> httpx.Response:
        raise httpx.InvalidURL("not a URL")

    patch.setattr(httpx.AsyncClient, "get", get)


def no_beginning(state: Path, patch: pytest.MonkeyPatch) -> None:
    """The order to begin is not even sent."""

    async def begin(*_: object) -> None:
        raise RuntimeError("a fault of ours")

    patch.setattr(SupervisorClient, "begin", begin)


def no_template(state: Path, patch: pytest.MonkeyPatch) -> None:
    """The command has a word that nobody checked."""

    def fill(*_: object) -> None:
        raise KeyError("nope")

    patch.setattr(local, "fill", fill)


BREAKS: dict[str, tuple[Break, str]] = {
    "no folder": (no_folder, "File exists"),
    "no template": (no_template, "nope"),
    "no beginning": (no_beginning, "a fault of ours"),
    "no question": (no_question, "not a URL"),
}


@pytest.mark.parametrize("how", BREAKS)
def test_a_start_that_breaks_anywhere_is_heard_once_and_leaves_nothing(
    how: str, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken, why = BREAKS[how]

    async def play(rig: LocalRig) -> None:
        with monkeypatch.context() as patch:
            broken(state, patch)
            rig.perform(Start(0, Source.VM, GPUS))
            (failed,) = await rig.hears(1)
            assert isinstance(failed, StartFailed)
            assert why in failed.why
            await soon(lambda: not rig.actuator._all and not rig.actuator._tasks)
        assert not [process for process in await rig.processes() if process.life is not Life.ENDED]
        (state / "profiles").unlink() if how == "no folder" else None
        rig.perform(Start(0, Source.VM, GPUS))
        assert (await rig.hears(2))[-1] == InstanceReady(0)

    play_local(state, stub(), play)


def test_why_an_engine_does_not_start_is_heard_with_its_last_words_and_the_next_one_waits(
    state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[int] = []

    def pause(failures: StartFailures, pool: str, revision: int) -> int:
        pauses.append((pool, revision) in failures._failed)
        return 0

    monkeypatch.setattr(StartFailures, "pause", pause)
    command = EngineCommand(command=("/bin/sh", "-c", "echo no such model {port} >&2; exit 3"))

    async def play(rig: LocalRig) -> None:
        for count in range(1, 7):
            rig.perform(Start(0, Source.VM, GPUS))
            failed = (await rig.hears(count))[-1]
            assert isinstance(failed, StartFailed)
            assert "exited with code 3: no such model" in failed.why
            assert str(state / "logs" / f"engine-0-{count}.log") in failed.why
        assert pauses[-1] == 1, "the pool is known to fail when the next start begins"
        (said,) = rig.actuator.failing()
        assert "6 starts failed in a row" in said
        assert len(list((state / "logs").glob("engine-0-*.log"))) <= 5

    play_local(state, command, play)


def test_a_reclaim_that_breaks_is_heard_once(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def play(rig: LocalRig) -> None:
        rig.perform(Start(0, Source.VM, GPUS))
        await rig.hears(1)
        rig.perform(Donate(0))
        no_question(state, monkeypatch)
        rig.perform(Reclaim(0))
        assert isinstance((await rig.hears(2))[-1], StartFailed)
        await soon(lambda: not rig.actuator._all)

    play_local(state, stub(), play)


def test_an_adopted_start_that_breaks_is_heard_once(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def first(rig: LocalRig) -> None:
        rig.perform(Start(0, Source.VM, GPUS))
        await soon(lambda: rig.actuator._all)

    async def second() -> None:
        rig = LocalRig(state, posts(stub("never")))
        (adopted,) = await rig.actuator.connect()
        assert not adopted.serves
        no_question(state, monkeypatch)
        assert isinstance((await rig.hears(1))[0], StartFailed)
        await soon(lambda: not rig.actuator._all)
        await rig.actuator.close()

    play_local(state, stub("never"), first)
    asyncio.run(second())


def test_engines_that_still_run_are_asked_all_at_once(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def first(rig: LocalRig) -> None:
        for row in range(3):
            rig.perform(Start(row, Source.VM, tuple(range(8 * row, 8 * row + 8))))
        await rig.hears(3)

    async def second() -> None:
        everyone = asyncio.Barrier(3)  # each waits until all are asked

        async def get(*_: object, **__: object) -> httpx.Response:
            await everyone.wait()
            return httpx.Response(httpx.codes.OK)

        monkeypatch.setattr(httpx.AsyncClient, "get", get)
        rig = LocalRig(state, posts(stub()))
        adopted = await asyncio.wait_for(rig.actuator.connect(), 60)
        assert [(one.instance, one.serves) for one in adopted] == [(0, True), (1, True), (2, True)]
        await rig.actuator.close()

    play_local(state, stub(), first)
    asyncio.run(second())


def test_a_supervisor_that_is_gone_fails_every_start(tmp_path: Path) -> None:
    async def run(pid: int) -> None:
        async with connected(tmp_path, stub()) as rig:
            rig.perform(Start(0, Source.VM, GPUS))
            await rig.hears(1)
            kill(pid)
            with pytest.raises(SupervisorError, match="is lost"):  # which ends the control process
                await asyncio.wait_for(rig.actuator.watch(), 60)
            rig.perform(Release(0))
            rig.perform(Start(1, Source.VM, OTHERS))
            failed = (await rig.hears(2))[-1]
            assert isinstance(failed, StartFailed)
            assert "is gone" in failed.why

    with supervisor(tmp_path) as process:
        asyncio.run(run(process.pid))


def test_an_engine_whose_end_is_refused_is_told_again_until_it_goes(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    truly, refused = SupervisorClient.end, [0]

    async def end(self: SupervisorClient, name: str, grace: int) -> None:
        refused[0] += 1
        if refused[0] < 3:
            raise SupervisorError("the system refuses: not now")
        await truly(self, name, grace)

    async def play(rig: LocalRig) -> None:
        rig.perform(Start(0, Source.VM, GPUS))
        await rig.hears(1)
        monkeypatch.setattr(SupervisorClient, "end", end)
        rig.perform(Release(0))
        rig.perform(Start(1, Source.GPUS, GPUS))
        assert (await rig.hears(2))[-1] == InstanceReady(1)
        assert refused == [3]

    play_local(state, stub(), play)


def test_gpus_that_are_never_left_fail_the_next_start_instead_of_keeping_it_for_ever(
    state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def end(*_: object) -> None:
        raise SupervisorError("the system refuses: never")

    monkeypatch.setattr(local, "_BURIED_WITHIN", SECOND // 10)

    async def play(rig: LocalRig) -> None:
        rig.perform(Start(0, Source.VM, GPUS))
        await rig.hears(1)
        with monkeypatch.context() as patch:
            patch.setattr(SupervisorClient, "end", end)
            rig.perform(Release(0))
            rig.perform(Start(1, Source.GPUS, GPUS))
            failed = (await rig.hears(2))[-1]
            assert isinstance(failed, StartFailed)
            assert "are still held by engine-0-1" in failed.why

    play_local(state, stub(stop_within="100ms"), play)


def test_a_row_never_has_two_engines(state: Path) -> None:
    async def play(rig: LocalRig) -> None:
        rig.perform(Start(0, Source.VM, GPUS))
        await rig.hears(1)
        rig.perform(Start(0, Source.VM, OTHERS))
        assert (await rig.hears(2))[-1] == InstanceReady(0)
        await soon(lambda: list(rig.actuator._all) == ["engine-0-2"])
        assert {p.name for p in await rig.processes() if p.life is Life.RUNNING} == {"engine-0-2"}

    play_local(state, stub(), play)


def test_without_a_free_port_nothing_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rig = LocalRig(tmp_path, posts(stub()))
    monkeypatch.setattr(local, "_PORTS", 0)
    with pytest.raises(SupervisorError, match="ports"):
        rig.perform(Start(0, Source.VM, GPUS))


def test_the_words_of_a_supervisor_that_cannot_be_read_end_the_connection(tmp_path: Path) -> None:
    async def run() -> None:
        async def babble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read(100)
            writer.write((1).to_bytes(4, "big") + b"\xc1")
            await writer.drain()

        server = await asyncio.start_unix_server(babble, tmp_path / SOCKET)
        one = await SupervisorClient(tmp_path / SOCKET, lambda _: None).connect()
        with pytest.raises(SupervisorError, match="is gone"):
            await asyncio.wait_for(one.look(), 20)
        assert one.lost.is_set()
        await one.close()
        server.close()

    asyncio.run(run())


def test_hangs_are_counted_of_processes_that_are_there(tmp_path: Path) -> None:
    actuator = LocalActuator(lambda _: None, {}, tmp_path)
    gateway = Process("gateway", Life.RUNNING, 1, None, 1, "", hangs=2)
    for row in range(50):
        actuator._changed(Process(f"engine-{row}-1", Life.RUNNING, 2, None, 1, ""))
    actuator._changed(gateway)
    assert (actuator.hung(), len(actuator._hangs)) == ({"gateway": 2}, 1)
    actuator._changed(structs.replace(gateway, name="gateway.before-1", life=Life.STOPPING))
    actuator._changed(structs.replace(gateway, name="gateway.before-1", life=Life.ENDED))
    assert actuator.hung() == {"gateway": 2}
    actuator._changed(structs.replace(gateway, hangs=0))  # of the one in its place nothing is known
    assert actuator.hung() == {}


def test_fleets_that_start_at_once_want_other_ports_and_no_engine_that_of_one_that_is_loading(tmp_path: Path) -> None:
    def fleet(name: str) -> LocalActuator:
        return LocalActuator(lambda _: None, posts(stub()), tmp_path / name)

    def urls(fleet: LocalActuator, *rows: int) -> list[str]:
        return [fleet._new(Start(row, Source.VM, GPUS)).note.url for row in rows]

    here, there = urls(fleet("here"), 0, 1, 2), urls(fleet("there"), 0, 1, 2)
    assert len({*here, *there}) == 6, "nothing listens yet, and still no port is wanted twice"
    assert urls(fleet("here"), 0, 1, 2) == here
    again = fleet("here")  # control, begun again: it finds an engine that loads
    again._places[0] = EngineAddress(here[0], "big")
    assert urls(again, 1) == [here[1]]
