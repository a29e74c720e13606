"""HTTP clients of the control process: one for engines without anything special, one for each way others are spoken to.

Sends no key anywhere but to the engine it is for, and follows no redirect. Read next: `live/engine_access.py`, `cli/control.py`.
"""

from typing import Self

import httpx

from sageserve.live.engine_access import EngineDoors, OpenedAccess


class EngineClients:
    """Clients, made when they are needed.

    Args:
        doors: how each engine is spoken to.
        timeout_s: of a request.
    """

    def __init__(self, doors: EngineDoors, timeout_s: float) -> None:
        self._doors = doors
        self._timeout_s = timeout_s
        self._plain = httpx.AsyncClient(timeout=timeout_s, trust_env=False)
        self._special: dict[OpenedAccess, tuple[object, str, httpx.AsyncClient]] = {}
        self._all = [self._plain]

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for client in self._all:
            await client.aclose()

    def at(self, url: str) -> httpx.AsyncClient:
        """The client for an engine at an address; another one when its files have changed."""
        access = self._doors.at(url)
        if access is None:
            return self._plain
        access.look()
        known = self._special.get(access)
        if known is not None and known[:2] == (access.tls, access.key):
            return known[2]
        headers = {"authorization": f"Bearer {access.key}"} if access.key else {}
        client = httpx.AsyncClient(timeout=self._timeout_s, trust_env=False, verify=access.tls, headers=headers)
        self._special[access] = (access.tls, access.key, client)
        self._all.append(client)  # the one before may be in use
        return client
