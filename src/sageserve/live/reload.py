"""New settings for a fleet that runs: what differs, what it cannot take on, and the order in which its processes get them.

    control    begins anew with the new settings, finds its engines again, and is ready when it listens to gateways
    gateway    a new one begins beside the old one, on the same sockets; the old one finishes what it has

All is tried before anything is touched, and whatever then fails is taken back: the file as it was, and the processes that had
been begun with the new one begun again. Knows no command line. Read next: `supervisor/messages.py`, Replace; `cli/reload.py`.
"""

import asyncio
import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Final, TypeAlias

from msgspec import Struct

from sageserve.base.config import KeySettings, LiveSettings, Scenario
from sageserve.base.errors import SageServeError
from sageserve.base.units import HOUR, SECOND, Micros
from sageserve.core.strategies import kind_of, layout_of
from sageserve.data.scenarios.load import dump, resolved_yaml
from sageserve.live.actuators.commands import check_commands
from sageserve.live.actuators.fixed import FixedActuator
from sageserve.live.actuators.followed import pool_of_service
from sageserve.live.control.rollout_file import rolled_out
from sageserve.live.engine_access import variables_of
from sageserve.live.gateway.context import GatewayContext, Options
from sageserve.live.link_port import LinkPort
from sageserve.live.private import write_private
from sageserve.live.simulated_only import refuse_simulated_only
from sageserve.live.supervisor.client import SupervisorClient
from sageserve.live.supervisor.messages import SupervisorError
from sageserve.live.supervisor.service import SOCKET

Plain: TypeAlias = bool | int | float | str | list["Plain"] | dict[str, "Plain"] | None
SETTINGS: Final = "scenario.yaml"
_SERVICES: Final = ("control", "gateway")
_READY_WITHIN: Final = 60 * SECOND
_CONTROL_GRACE: Final = 30 * SECOND
_GATEWAY_GRACE: Final[Micros] = HOUR  # an answer may be long; the old gateway takes nothing new
_DIGITS: Final = 8  # of a key's hash, to tell two of one name apart
_FIXED: Final[Mapping[str, str]] = {
    "name": "the fleet is known by it",
    "gpus": "engines that run hold GPUs by it",
    "regions": "engines that run stand in them",
    "models": "engines that run were started from it",
    "live.host": "the port is open",
    "live.port": "the port is open",
    "live.tls": "the port is open with it; the files themselves are read again when they change",
    "live.workers": "the port is open for so many",
    "live.store": "batches are in it",
    "live.actuator": "engines that run are in its hands",
    "live.engines": "engines that run were started by it",
    "live.inherit": "processes that run have it",
    "live.speed": "engines that run were started with it",
}
"""Settings that hold from `up` to `down`, and why; with everything below them."""
_PLACED: Final = re.compile(r"fleet\.endpoints\..+\.gpus")
_VARIABLE: Final = re.compile(r"live\.access\..+\.bearer_env")


class SettingChange(Struct, frozen=True):
    """One setting that differs; None: it is not there."""

    key: str
    before: Plain
    after: Plain


class RefusedChange(Struct, frozen=True):
    """A change that a running fleet cannot take on."""

    key: str
    why: str


def changes(before: Scenario, after: Scenario) -> tuple[SettingChange, ...]:
    """What differs, in the order of the settings; an API key is one setting."""
    old, new = dict(_leaves("", dump(before, defaults=True))), dict(_leaves("", dump(after, defaults=True)))
    keys = [*old, *(key for key in new if key not in old)]
    return tuple(SettingChange(key, old.get(key), new.get(key)) for key in keys if old.get(key) != new.get(key))


def refused(before: Scenario, found: tuple[SettingChange, ...], rolled_out: Collection[str] = ()) -> tuple[RefusedChange, ...]:
    """Those of the changes to what a fleet was started with that need `down` and `up`.

    Args:
        before: what it was started with.
        found: the changes.
        rolled_out: models whose engines run by the command that is new in the settings.
    """
    held = variables_of(before.live or LiveSettings())
    known = [f"live.engines.{model}" for model in rolled_out]
    new = [one for one in found if not any(one.key == key or one.key.startswith(f"{key}.") for key in known)]
    return tuple(RefusedChange(one.key, why) for one in new if (why := _why(one, held)))


def settled(folder: Path, secret: str, after: Scenario) -> tuple[str, ...]:
    """Models that a rollout gave the command which new settings have for them."""
    engines = (after.live or LiveSettings()).engines
    return tuple(model for model, engine in rolled_out(folder, secret).items() if engines.get(model) == engine)


def _why(one: SettingChange, held: tuple[str, ...]) -> str:
    """Why a running fleet cannot take a change on; empty: it can."""
    if _VARIABLE.fullmatch(one.key) and one.after is not None and one.after not in held:
        return f"variables are read at `up`; to have {one.after} read, sageserve down, then up"
    if _PLACED.fullmatch(one.key):
        return _FIXED["gpus"]
    return next((why for key, why in _FIXED.items() if one.key == key or one.key.startswith(f"{key}.")), "")


def _leaves(key: str, value: Plain) -> Iterator[tuple[str, Plain]]:
    if key == "live.keys" and isinstance(value, list):
        for one in value:
            assert isinstance(one, dict)
            digest = str(one["sha256"])
            yield (
                f"{key}.{one['name']}.{digest[:_DIGITS]}",
                {k: v for k, v in one.items() if v not in (None, []) and v != KeySettings.model_fields[k].default},
            )
    elif isinstance(value, dict) and value:
        for name, inner in value.items():
            yield from _leaves(f"{key}.{name}" if key else name, inner)
    else:
        yield key, value


def check(after: Scenario) -> None:
    """Make all that its processes would make of new settings, as far as no process is needed for it.

    Raises:
        SageServeError: they would not start.
    """
    refuse_simulated_only(after)
    check_commands(after)
    layout = layout_of(after)
    live = after.live or LiveSettings()
    held = dict.fromkeys(variables_of(live), "what-the-fleet-holds")
    GatewayContext(after, layout, options=Options(engine_keys=held), clock=lambda: 0).close()
    if live.actuator == "fixed":
        FixedActuator(layout, live.instances)
    for one in live.services:
        pool_of_service(layout, one)
    if live.link is not None:
        LinkPort(live.link, ("127.0.0.1", 0), "")
    kind_of(after)(after, layout, None)


async def apply(folder: Path, after: Scenario) -> None:
    """Give a fleet new settings, or leave it as it is.

    Args:
        folder: of state.
        after: the settings, checked.

    Raises:
        SageServeError: its processes do not start with them; they have the old ones again.
    """
    path = folder / SETTINGS
    before = path.read_bytes()
    supervisor = await SupervisorClient(folder / SOCKET, lambda _: None).connect()
    begun: list[str] = []
    try:
        write_private(path, resolved_yaml(after).encode())
        for service in _SERVICES:
            begun.append(service)
            await _replace(supervisor, service)
    except BaseException as error:
        write_private(path, before)
        failures = await asyncio.shield(_take_back(supervisor, begun))
        if not isinstance(error, SupervisorError):
            raise
        also = f"; and with the old ones, too: {'; '.join(failures)}" if failures else ""
        raise SageServeError(
            f"with the new settings, which are taken back, {error.message}{also}",
            hint=f"see {folder / 'logs'}; `sageserve status` says how the fleet is",
        ) from None
    finally:
        await supervisor.close()


async def _replace(supervisor: SupervisorClient, service: str) -> None:
    grace = _CONTROL_GRACE if service == "control" else _GATEWAY_GRACE
    await supervisor.replace(service, within=_READY_WITHIN, grace=grace)


async def _take_back(supervisor: SupervisorClient, begun: list[str]) -> list[str]:
    """Begin them again with the file as it was; what failed. A gateway that did not get ready left the old one in its place."""
    failures = []
    for service in begun:
        if service == "gateway":
            continue
        try:
            await _replace(supervisor, service)
        except SupervisorError as error:
            failures.append(error.message)
    return failures
