"""A follower: answers KEDA in the place of a leader, from the table that it hears from it every few seconds.

The leader watches, decides and has a disk; there is one. Followers have nothing, and there may be many: while the leader is
started anew, they answer on. Whatever a leader's page answers that is no table changes nothing but the reason that KEDA is given
once the last one is too old; a table of another fleet ends what was heard before.
Read next: `table.py`; `live/watch/serve.py`, the page.
"""

import asyncio
from collections.abc import Callable, Mapping
from typing import Final

import httpx
import msgspec

from sageserve.base.config import TargetSettings
from sageserve.base.errors import in_words
from sageserve.base.units import Micros
from sageserve.base.urls import shown_url
from sageserve.live.scaler.answers import NoCount, PoolWish, TargetCount
from sageserve.live.scaler.messages import KedaTrigger
from sageserve.live.scaler.service import Scaler
from sageserve.live.scaler.table import HeardTable, ScalerTable

PAGE: Final = "/scaler"
EVERY_S: Final = 2.0
_PATIENCE_S: Final = 5.0
_LARGEST: Final = 4 << 20  # bytes; a thousand targets are some 100 KB


class FollowingScaler(Scaler):
    """Answers KEDA with what a leader said last.

    Args:
        targets: by name.
        heard: what that was.
        now: the clock.
    """

    def __init__(self, targets: Mapping[str, TargetSettings], heard: HeardTable, now: Callable[[], Micros]) -> None:
        super().__init__(targets, lambda _: PoolWish(0, "a follower has no wishes"))
        self.heard: Final = heard
        self._now = now

    def answer(self, asked: KedaTrigger) -> TargetCount | NoCount:
        """As the leader would, as long as that holds."""
        return self.heard.told(self._targets, asked, self._now())

    def age_s(self, target: str) -> float | None:
        """Of what is told of a target."""
        return self.heard.age_s(target, self._now())


async def follow(url: str, scaler: FollowingScaler, now: Callable[[], Micros], told: Callable[[str], None]) -> None:
    """Ask the leader again and again, until cancelled.

    Args:
        url: of the process that watches, such as http://sageserve-fleet:8110.
        scaler: told each table, and each time that none came: streams end when the last one is too old.
        now: the clock.
        told: a sentence when it cannot be heard, and when it can again.
    """
    before = scaler.heard.why
    limits = httpx.Limits(max_connections=1, max_keepalive_connections=0)  # a Service may lead elsewhere the next time
    async with httpx.AsyncClient(timeout=_PATIENCE_S, limits=limits) as client:
        while True:
            asked_at = now()
            try:
                scaler.heard.take(await _table(client, url.rstrip("/") + PAGE), asked_at)
            except (httpx.HTTPError, httpx.InvalidURL, TimeoutError, ValueError) as error:
                scaler.heard.why = in_words(error)
            if scaler.heard.why != before:
                told(f"the leader is not heard: {scaler.heard.why}" if scaler.heard.why else "the leader is heard")
                before = scaler.heard.why
            scaler.look()
            await asyncio.sleep(EVERY_S)


async def _table(client: httpx.AsyncClient, url: str) -> ScalerTable:
    """The page.

    Raises:
        ValueError: it is none.
    """
    page, shown = bytearray(), shown_url(url)
    async with asyncio.timeout(_PATIENCE_S), client.stream("GET", url) as answer:
        if answer.status_code != httpx.codes.OK:
            hint = ": its settings have no live.scaler" if answer.status_code == httpx.codes.NOT_FOUND else ""
            raise ValueError(f"{shown} answers {answer.status_code}{hint}")
        async for part in answer.aiter_bytes():
            page += part
            if len(page) > _LARGEST:
                raise ValueError(f"{shown} is larger than {_LARGEST >> 20} MiB")
    try:
        return msgspec.json.decode(bytes(page), type=ScalerTable)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{shown} is no table of a leader: {error}") from None
