"""`sageserve watch` with `live.gates`: leases for somebody else's batch processor, from the process that watches.

Read next: `watch.py`; `live/gates/`; docs/how-to/llm-d-async.md.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from sageserve.cli.acting import process_name
from sageserve.cli.wall import wall_now

if TYPE_CHECKING:
    from sageserve.base.config import Scenario
    from sageserve.base.units import Micros
    from sageserve.data.watched.leases import LeaseLine
    from sageserve.live.gates.keeper import GateKeeper
    from sageserve.live.watch.process import FleetWatch


def gates_of(settings: "Scenario", folder: Path, watching: "FleetWatch", every: "Micros", *, acts: bool) -> "list[GateKeeper]":
    """What tells gates; nothing, where settings have none.

    Args:
        settings: with them.
        folder: of the state, where leases are written down.
        watching: sees the engines.
        every: microseconds between two looks.
        acts: whether leases are written where authority says so.
    """
    gates = {} if settings.live is None else settings.live.gates
    if not gates:
        return []
    from sageserve.data.watched.leases import LeaseFiles
    from sageserve.live.gates.keeper import GateKeeper, GateParts
    from sageserve.live.gates.room import GateRoom

    room = GateRoom(settings, watching.layout, watching.view, watching.demand.request_of, every)
    files = LeaseFiles(folder)
    told: dict[str, str] = {}

    def keep(line: "LeaseLine") -> None:
        files.add(line)
        if told.get(line.gate) != (state := _state(line)):
            told[line.gate] = state
            typer.echo(f"gate       {_words(line)}", err=True)

    return [GateKeeper(gates, GateParts(room.of, wall_now, process_name(), acts, keep))]


def _state(line: "LeaseLine") -> str:
    """What is worth a line when it changes: rates do at every look."""
    return f"{line.written} {line.rate == '0'} {line.why} {line.trouble}"


def _words(line: "LeaseLine") -> str:
    if line.trouble:
        return f"{line.gate}: no lease, {line.trouble}"
    rate = f"{line.gate}: {line.rate} requests/s{f', {line.why}' if line.why else ''}"
    return rate if line.written else f"{rate} (only written down)"
