"""The end of a fleet: whoever still has answers to finish is waited for, and no socket is left that nobody takes in from.

The services here are scripts, under a real supervisor; whole fleets end in `test_up.py`.
"""

import asyncio
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from typer.testing import CliRunner

from sageserve.base.errors import ConfigError
from sageserve.cli.main import app
from sageserve.cli.running import FLEET, Running
from sageserve.cli.up import _environment, _services
from sageserve.data.scenarios.load import load_scenario, resolved_yaml
from sageserve.live.gateway.server import GatewayBinding, GatewayProcess
from sageserve.live.supervisor.messages import Begin, Restart
from tests.core.small import scenario
from tests.live.supervisor.supervising import first_line, supervisor

SERVICE = r"""
import os, signal, sys, time
def end(*_):
    time.sleep(0.3 if 'gateway' in sys.argv[2] else 0)
    os.write(1, f'ended {sorted(os.listdir(sys.argv[1]))}\n'.encode())
    open(os.path.join(sys.argv[1], sys.argv[2]), 'x')
    os._exit(0)
signal.signal(signal.SIGTERM, end)
os.write(1, b'begun\n')
while True:
    time.sleep(0.05)
"""
FORKS = r"""
import os, signal, sys, time
from sageserve.live.gateway.prefork import run_many
def one(number, _folder):
    os.close(int(sys.argv[1]))
    signal.signal(signal.SIGTERM, lambda *_: os.write(1, b'told\n'))
    os.write(1, b'begun\n')
    while True:
        time.sleep(0.05)
run_many(one, 2, (int(sys.argv[1]),))
"""


@pytest.mark.parametrize("how", [(), ("--within", "1m")])
def test_a_drain_ends_every_gateway_before_anything_else(tmp_path: Path, how: tuple[str, ...]) -> None:
    done, names = tmp_path / "done", ("gateway", "gateway.before-17", "control")
    done.mkdir()
    services = [Begin(0, name, (sys.executable, "-S", "-c", SERVICE, str(done), name), restart=Restart()) for name in names]
    with supervisor(tmp_path, *services) as process:
        for name in names:
            first_line(tmp_path / "logs" / f"{name}.log")
        (tmp_path / FLEET).write_bytes(msgspec.json.encode(Running(process.pid, "", "", "test", "")))
        ended = CliRunner().invoke(app, ["down", "--drain", *how, "--state", str(tmp_path)])
        assert ended.exit_code == 0, ended.output
    assert (tmp_path / "logs" / "control.log").read_text("utf-8").splitlines() == [
        "begun",
        "ended ['gateway', 'gateway.before-17']",
    ]


def test_gateways_that_end_hold_no_socket_open_in_the_process_that_waits_for_them() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        address = listening.getsockname()
        argv = [sys.executable, "-c", FORKS, str(listening.fileno())]
        with subprocess.Popen(argv, pass_fds=[listening.fileno()], stdout=subprocess.PIPE, start_new_session=True) as process:
            assert process.stdout is not None
            assert [process.stdout.readline() for _ in range(2)] == [b"begun\n"] * 2
            listening.close()
            socket.create_connection(address).close()  # a gateway that dies now is started again on it
            process.send_signal(signal.SIGTERM)
            assert [process.stdout.readline() for _ in range(2)] == [b"told\n"] * 2
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(address)
            os.killpg(process.pid, signal.SIGKILL)


def test_a_gateway_holds_no_socket_that_another_one_takes_in_from() -> None:
    async def run() -> None:
        with socket.create_server(("127.0.0.1", 0)) as own:
            other = socket.create_server(("127.0.0.1", 0))
            address, descriptors = other.getsockname(), (own.detach(), other.detach())
            worker = GatewayProcess(scenario(), GatewayBinding("127.0.0.1", 0, sockets=descriptors))
            await worker.start()
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection(*address)
            await worker.close()

    asyncio.run(run())


def test_keys_of_engines_are_told_to_control_and_gateway_and_kept_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = load_scenario("local", overrides=["live.port=0", "live.access={a: {bearer_env: ENGINE_KEY}}"])
    with pytest.raises(ConfigError, match=r"live\.access\.a: there is no API key in the variable ENGINE_KEY"):
        _services(tmp_path, settings)
    monkeypatch.setenv("ENGINE_KEY", "sk-engines")
    services, found = _services(tmp_path, settings)
    for descriptor in services[1].descriptors:
        os.close(descriptor)
    assert [one.environment["ENGINE_KEY"] for one in services] == ["sk-engines"] * 2
    assert "sk-engines" not in f"{found} {[one.argv for one in services]} {resolved_yaml(settings)} {_environment(settings)}"


@pytest.mark.parametrize(("host", "shown"), [("::", "[::1]"), ("::1", "[::1]"), ("0.0.0.0", "127.0.0.1")])  # noqa: S104 # any address is meant
def test_an_address_of_either_kind_has_a_url_that_reaches_it(tmp_path: Path, host: str, shown: str) -> None:
    settings = load_scenario("local", overrides=["live.port=0", f"live.host='{host}'"])
    try:
        (_, gateway), found = _services(tmp_path, settings)
    except OSError:
        pytest.skip("this machine has no IPv6")
    for descriptor in gateway.descriptors:
        os.close(descriptor)
    assert found.url == f"http://{shown}:{gateway.argv[gateway.argv.index('--port') + 1]}"
