"""Ports of a fleet on this machine: the gateway's, open as long as the fleet runs, and one that is held for control.

Read next: `up.py`, which hands them on.
"""

import socket
from typing import TYPE_CHECKING

from sageserve.base.errors import ConfigError

if TYPE_CHECKING:
    from sageserve.base.config import LiveSettings


def held_port() -> int:
    """A port of this machine's own for control, held as long as this process lives.

    Control comes and goes. While nothing is bound to its port the system may give it to an outgoing connection, and the next
    control process could not listen. What is bound here does not listen, and keeps nobody from it who reuses addresses.
    """
    held = socket.socket()
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    held.bind(("127.0.0.1", 0))
    port = int(held.getsockname()[1])
    held.detach()
    return port


def public_sockets(live: "LiveSettings", backlog: int) -> "list[socket.socket]":
    """The gateway's port, open as long as the fleet runs, once for each of its processes, which come and go.

    Raises:
        ConfigError: it cannot be opened.
    """
    from sageserve.live.gateway.server import listen

    port, found = live.port, []
    try:
        if port:  # the sockets below share it with each other, and would with another fleet of this user
            _probe(live.host, port)
        for _ in range(live.workers):
            found.append(listen(live.host, port))
            found[-1].listen(backlog)
            port = int(found[0].getsockname()[1])
    except OSError as error:
        raise ConfigError(
            f"the gateway cannot listen on {live.host}:{port}: {error.strerror}", hint="another --port, or 0 for any free one"
        ) from None
    return found


def _probe(host: str, port: int) -> None:
    from sageserve.live.address import family_of

    with socket.socket(family_of(host)) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((host, port))
