"""HTTP clients of the control process: one for engines without anything special, one for each way others are spoken to.

Sends no key anywhere but to the engine it is for, and follows no redirect. Read next: `live/engine_access.py`, `cli/control.py`.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Self

import httpx

from sageserve.live.engine_access import EngineDoors, OpenedAccess


class _SpecialClient:
    """A client for one way, with the files it was made from; closed when the last one who holds it leaves it."""

    def __init__(self, access: OpenedAccess, timeout_s: float) -> None:
        self.made_from = access.tls, access.key
        headers = {"authorization": f"Bearer {access.key}"} if access.key else {}
        self.http = httpx.AsyncClient(timeout=timeout_s, trust_env=False, verify=access.tls, headers=headers)
        self.holders = 1  # those below, until its files change

    async def leave(self) -> None:
        self.holders -= 1
        if not self.holders:
            await self.http.aclose()


class EngineClients:
    """Clients, made when they are needed, and closed when their files have changed and nobody uses them any more.

    Args:
        doors: how each engine is spoken to.
        timeout_s: of a request.
    """

    def __init__(self, doors: EngineDoors, timeout_s: float) -> None:
        self._doors = doors
        self._timeout_s = timeout_s
        self._plain = httpx.AsyncClient(timeout=timeout_s, trust_env=False)
        self._special: dict[OpenedAccess, _SpecialClient] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._plain.aclose()
        for one in self._special.values():
            await one.leave()

    @asynccontextmanager
    async def at(self, url: str) -> AsyncIterator[httpx.AsyncClient]:
        """The client for an engine at an address; another one when its files have changed."""
        access = self._doors.at(url)
        if access is None:
            yield self._plain
            return
        access.look()
        one = before = self._special.get(access)
        if one is None or one.made_from != (access.tls, access.key):
            one = self._special[access] = _SpecialClient(access, self._timeout_s)
        one.holders += 1
        try:
            if before is not None and before is not one:
                await before.leave()
            yield one.http
        finally:
            await one.leave()
