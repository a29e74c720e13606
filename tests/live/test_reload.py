"""New settings: what differs, what is refused, who begins when, and that whatever fails leaves everything as it was.

The services here are scripts, under a real supervisor; a whole fleet is reloaded under load in `test_up.py`.
"""

import asyncio
import os
import pty
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sageserve.base.config import RolloutSettings, Scenario
from sageserve.base.errors import ConfigError, SageServeError
from sageserve.base.units import SECOND
from sageserve.cli.reload import _tell
from sageserve.core.actions import RolloutStep
from sageserve.core.rollout_plan import RolloutMemory
from sageserve.data.scenarios.load import load_scenario, resolved_yaml
from sageserve.live.control.rollout_file import KeptRollout, RolloutFile
from sageserve.live.reload import SETTINGS, apply, changes, check, refused, settled
from sageserve.live.supervisor.messages import Begin, Life, Restart
from tests.live.supervisor.supervising import client, first_line, supervisor, until

SERVICE = """
import os, signal, socket, sys, time
from pathlib import Path
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
settings, sockets = Path(sys.argv[1]).read_text(), sys.argv[2:]
if '3MB' in settings and 'gateway' in sys.argv:
    sys.exit('no gateway with this one')
print(len(settings), flush=True)
os.write(int(os.environ['SAGESERVE_READY']), b'.')
while True:
    time.sleep(0.05)
"""


def settings(*overrides: str) -> Scenario:
    return load_scenario("local", overrides=overrides)


def test_what_differs_is_named_and_a_key_is_one_setting() -> None:
    key = "live.keys=[{name: a, sha256: '" + "0" * 64 + "'}, {name: a, sha256: '" + "1" * 64 + "', tokens_per_minute: 5}]"
    found = changes(settings(), settings(key, "live.limits.body=1MB", "strategy.name=reactive"))
    assert {one.key for one in found} >= {"live.limits.body", "live.keys.a.00000000", "live.keys.a.11111111"}
    assert next(one.after for one in found if one.key.endswith("1111")) == {
        "name": "a", "sha256": "1" * 64, "tokens_per_minute": 5,
    }  # fmt: skip
    assert refused(settings(), found) == ()
    assert changes(settings(key), settings(key)) == ()


def test_the_manual_shows_what_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    digest = "8c3a1f02" + "0" * 56
    keys = f"live.keys=[{{name: bob, sha256: '{digest}', requests_per_minute: 600}}]"
    _tell(changes(settings(), settings("live.limits.body=1MB", keys)), (), applied=True, as_json=False)
    shown = capsys.readouterr().out
    manual = (Path(__file__).parents[2] / "docs" / "how-to" / "operate.md").read_text("utf-8")
    assert f"```\n{shown}```\n" in manual


@pytest.mark.parametrize("setting", ["live.port=1", "live.store=memory", "live.workers=2", "models.llama-3.1-70b=null"])
def test_what_holds_until_down_is_refused_by_name(setting: str) -> None:
    barred = refused(settings(), changes(settings(), settings(setting)))
    assert barred
    assert all(one.why and one.key.startswith(setting.partition("=")[0].partition(".llama")[0]) for one in barred)


def test_a_variable_that_the_fleet_was_started_without_is_refused_by_name() -> None:
    held = settings("live.access={a: {bearer_env: HELD}, 'b.c': {bearer_env: HELD}}")
    for given, new in (
        ("{a: {bearer_env: OTHER}}", ["live.access.a.bearer_env"]),
        ("{a: {bearer_env: HELD}, d: {bearer_env: OTHER}}", ["live.access.d.bearer_env"]),
        ("{a: {bearer_env: HELD}, d: {bearer_env: HELD}}", []),
        ("{a: {bearer_env: HELD}, 'b.c': {bearer_env: OTHER}}", ["live.access.b.c.bearer_env"]),
        ("{a: {bearer_file: /key}}", []),
        ("{}", []),
    ):
        barred = refused(held, changes(held, settings(f"live.access={given}")))
        assert [one.key for one in barred] == new, given
        assert all("to have OTHER read, sageserve down, then up" in one.why for one in barred)


def test_settings_that_no_process_would_start_with_are_refused_before_anything_is_touched() -> None:
    check(settings())
    with pytest.raises(ConfigError, match="names the tier"):
        check(settings("live.keys=[{name: a, sha256: '" + "0" * 64 + "', tier: nosuch}]"))


def _services(folder: Path, listening: socket.socket) -> list[Begin]:
    argv = (sys.executable, "-S", "-c", SERVICE, str(folder / SETTINGS))
    restart = Restart(first=SECOND // 20)
    return [
        Begin(0, "control", argv, restart=restart, signs=1),
        Begin(0, "gateway", (*argv, "gateway"), restart=restart, descriptors=(listening.fileno(),), signs=1),
    ]


async def _pids(folder: Path) -> dict[str, int]:
    async with client(folder) as one:
        return {process.name: process.pid for process in await one.look() if process.life is Life.RUNNING}


def test_both_services_begin_anew_or_all_is_as_it_was(tmp_path: Path) -> None:
    before, after, poison = settings(), settings("live.limits.body=1MB"), settings("live.limits.body=3MB")
    (tmp_path / SETTINGS).write_bytes(resolved_yaml(before).encode())
    with socket.create_server(("127.0.0.1", 0)) as listening:
        os.set_inheritable(listening.fileno(), True)
        with supervisor(tmp_path, *_services(tmp_path, listening), passed=(listening.fileno(),)):
            first_line(tmp_path / "logs" / "gateway.log")
            old = asyncio.run(_pids(tmp_path))
            asyncio.run(apply(tmp_path, after))
            new = asyncio.run(_pids(tmp_path))
            assert all(new[name] != old[name] for name in ("control", "gateway"))
            assert (tmp_path / SETTINGS).read_bytes() == resolved_yaml(after).encode()
            with pytest.raises(SageServeError, match="no gateway with this one"):
                asyncio.run(apply(tmp_path, poison))
            assert (tmp_path / SETTINGS).read_bytes() == resolved_yaml(after).encode()
            last = asyncio.run(_pids(tmp_path))
            assert last["gateway"] == new["gateway"], "the old gateway goes on"
            size = str(len(resolved_yaml(after)))
            until(lambda: (tmp_path / "logs" / "control.log").read_text("utf-8").splitlines()[-1] == size)


def test_a_hang_up_runs_the_command_that_was_given_for_it_or_nothing(tmp_path: Path) -> None:
    with supervisor(tmp_path) as process:
        process.send_signal(signal.SIGHUP)
        touch = Begin(0, "touch", (sys.executable, "-S", "-c", f"open({str(tmp_path / 'heard')!r}, 'x')"))
        with supervisor(tmp_path / "other", on_hang_up=touch) as other:
            other.send_signal(signal.SIGHUP)
            until((tmp_path / "heard").exists)
            assert other.poll() is None
        assert process.poll() is None


def test_only_a_supervisor_without_a_terminal_takes_a_hang_up_for_an_order() -> None:
    argv = [sys.executable, "-c", "from sageserve.cli.up import _has_terminal; print(_has_terminal())"]
    done = subprocess.run(argv, capture_output=True, text=True, check=True, start_new_session=True)
    assert done.stdout == "False\n"
    pid, terminal = pty.fork()
    if pid == 0:
        os.execv(argv[0], argv)  # noqa: S606 # no shell is wanted
    said = b""
    deadline = time.perf_counter() + 60
    while b"\n" not in said and time.perf_counter() < deadline:
        said += os.read(terminal, 100)
    os.waitpid(pid, 0)
    os.close(terminal)
    assert said.strip() == b"True"


@pytest.mark.parametrize(("step", "barred"), [(RolloutStep.DONE, False), (RolloutStep.ROLLING, True), (RolloutStep.UNDONE, True)])
def test_the_command_that_a_model_was_rolled_out_to_may_be_put_into_the_settings(
    tmp_path: Path, step: RolloutStep, barred: bool
) -> None:
    old, new = (
        "live.engines={llama-3.1-8b: {command: [old, '{port}']}}",
        "live.engines={llama-3.1-8b: {command: [new, '{port}']}}",
    )
    engine = {"command": ["new", "{port}"]}
    one = RolloutSettings.model_validate({"model": "llama-3.1-8b", "engine": engine})
    memory = RolloutMemory(step, 0, 0, (), 0, 0, {}, {}, {}, {}, 0, 0, (), None)
    RolloutFile(tmp_path, "secret", "layout", 0, 3).save([KeptRollout(1, one, 0, memory)], 0)
    before, after = settings(old), settings(new)
    assert bool(refused(before, changes(before, after), settled(tmp_path, "secret", after))) is barred
    other = settings(new.replace("new", "newer"))
    assert refused(before, changes(before, other), settled(tmp_path, "secret", other)), "no other command than that"
    assert settled(tmp_path, "of another run", after) == (), "engines of that run are gone"
