"""The systemd unit of a fleet: what `sageserve up --unit` prints in the place of starting it.

Knows options of `up`, and nothing that runs. Read next: `up.py`, docs/how-to/operate.md.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

_UNIT: Final = """[Unit]
Description=SageServe fleet {name}
Wants=network-online.target
After=network-online.target

[Service]
ExecStart={start}
ExecReload={reload}
Environment="PATH={path}"
{inherited}KillMode=mixed
KillSignal=SIGTERM
TimeoutStopSec=120
Restart=on-failure
RestartSec=5
LimitNOFILE=1048576
UMask=0077
NoNewPrivileges=yes
ProtectSystem=full
PrivateTmp=no

[Install]
WantedBy={target}
"""
# KillMode=mixed: SIGTERM goes to the supervisor alone, which ends the gateway before the engines; what is left after
# TimeoutStopSec, its own patience of a minute and a reserve, is killed. PrivateTmp would hide profiles that engines read.


_INHERITED: Final = """# NAME=value for each, in a file of mode 0600 (%E is {folder}); or in the environment of systemd itself
PassEnvironment={names}
EnvironmentFile=-%E/sageserve/{name}.env
"""


class UnitFleet(NamedTuple):
    """What a unit runs.

    Args:
        name: of the scenario.
        state: folder of the fleet.
        inherit: variables that its processes get from where it is started.
    """

    name: str
    state: Path
    inherit: Sequence[str] = ()


def unit(fleet: UnitFleet, arguments: Sequence[str], *, root: bool, path: str) -> str:
    """The text of a unit file.

    Args:
        fleet: what it runs.
        arguments: of `sageserve`, with absolute paths.
        root: for the system; otherwise for one user's own systemd.
        path: PATH of its processes.
    """
    me = [sys.executable, "-m", "sageserve.cli.main"]
    inherited = _INHERITED.format(
        folder="/etc" if root else "~/.config", names=" ".join(fleet.inherit), name=fleet.name.replace("/", "-")
    )
    return _UNIT.format(
        name=fleet.name,
        start=" ".join(map(_quoted, [*me, *arguments, "--state", str(fleet.state)])),
        reload=" ".join(map(_quoted, [*me, "reload", "--state", str(fleet.state)])),
        path=_escaped(path),
        inherited=inherited if fleet.inherit else "",
        target="multi-user.target" if root else "default.target",
    )


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("%", "%%")


def _quoted(word: str) -> str:
    """One word as systemd reads it: `%` and `$` stand for themselves, quotes and blanks hold together."""
    safe = _escaped(word).replace("$", "$$").replace('"', '\\"')
    return safe if safe and not set(safe) & set(" \t\"'\\;") else f'"{safe}"'
