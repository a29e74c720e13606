"""Addresses that processes listen on, of both kinds of IP: how a URL and a socket have them.

Opens nothing. Read next: `gateway/server.py`, `cli/up.py`.
"""

import socket
from typing import Final

_ANYWHERE: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 # looked up, not bound


def family_of(host: str) -> socket.AddressFamily:
    """What a socket is made of for an address."""
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def url_of(host: str, port: int, scheme: str = "http") -> str:
    """Where this machine reaches what listens on an address; one that stands for all of them is reached on the loopback."""
    host = _ANYWHERE.get(host, host)
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"
