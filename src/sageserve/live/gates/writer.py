"""One gate's leases in Redis: who holds the key is looked at, the time is asked, and both are written in one transaction.

The key is watched from before it is read, so what somebody else writes meanwhile undoes ours; and a write that was under way when
we ended comes to nothing once the last lease stands. An end is counted from Redis' own clock: a write that is held up is late by
as much, and may be over when it arrives. Read next: `lease.py`; `keeper.py`, which says when.
"""

from pathlib import Path
from typing import Any, Final

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.credentials import CredentialProvider
from redis.exceptions import RedisError, WatchError

from sageserve.base.config import GateSettings
from sageserve.base.units import SECOND
from sageserve.live.gates.lease import decision_name, foreign_holder, lease_of

_TRIES: Final = 3
_PATIENCE_S: Final = 2.0


class GateWriter:
    """The leases of one gate.

    Args:
        gate: its settings.
        me: name of this process; no two have the same, and it has no slash.
    """

    def __init__(self, gate: GateSettings, me: str) -> None:
        self._gate, self._me, self._number = gate, me, 0
        self._redis = redis_of(gate)

    async def write(self, rate: float, *, last: bool = False) -> str:
        """Lease a rate.

        Args:
            rate: requests a second.
            last: it is the last lease of this process: the next one need not wait for its end.

        Returns:
            Why it is not written; empty: it is.
        """
        for _ in range(_TRIES):
            try:
                return await self._try(rate, last=last)
            except WatchError:
                continue
            except (RedisError, OSError, UnicodeError) as error:
                return f"{self._gate.redis} {in_words(error)}"
        return f"somebody else writes {self._gate.control_key}, again and again"

    async def _try(self, rate: float, *, last: bool) -> str:
        gate = self._gate
        async with self._redis.pipeline(transaction=True) as pipe:
            await pipe.watch(gate.control_key)
            found, now_ms = await key_now(pipe, gate.control_key)
            if holder := foreign_holder(found, self._me, now_ms):
                return f"{gate.control_key} is held by {holder}"
            self._number += 1
            decision = decision_name(self._me, None if last else self._number)
            lease = lease_of(gate.pool_id, rate, now_ms, gate.every, decision)
            pipe.multi()  # type: ignore[no-untyped-call] # it has no annotations
            pipe.hset(gate.control_key, mapping=lease.fields())  # type: ignore[arg-type] # of a wider type than str, and invariant
            pipe.pexpireat(gate.control_key, lease.valid_until_ms)
            await pipe.execute()
        return ""

    async def close(self) -> None:
        """Close connections."""
        await self._redis.aclose()


async def key_now(redis: Any, key: str) -> tuple[dict[str, str], int]:  # noqa: ANN401 # a client, or a pipeline that watches
    """A hash, and Redis' time in milliseconds since 1970; asked in this order, so that what is over by then is over."""
    found: dict[str, str] = await redis.hgetall(key)
    seconds, micros = await redis.time()
    return found, (int(seconds) * SECOND + int(micros)) // 1000


def redis_of(gate: GateSettings) -> "Redis":
    """A client that fails soon, and is not asked again behind our back."""
    patience = min(_PATIENCE_S, gate.every / SECOND)
    more: dict[str, Any] = {}
    if gate.password_file is not None:
        more["credential_provider"] = _PasswordFile(gate.user, Path(gate.password_file))
    if gate.redis.startswith("rediss://"):
        more |= {"ssl_ca_certs": gate.ca_file, "ssl_check_hostname": True}
    made: Redis = Redis.from_url(
        gate.redis,
        decode_responses=True,
        socket_timeout=patience,
        socket_connect_timeout=patience,
        retry=Retry(NoBackoff(), 0),
        **more,
    )
    return made


def in_words(error: Exception) -> str:
    """What went wrong, as one sentence without its subject."""
    return f"gives no answer: {' '.join(str(error).split()).rstrip('.') or type(error).__name__}"


class _PasswordFile(CredentialProvider):
    """A password that may be written anew."""

    def __init__(self, user: str | None, file: Path) -> None:
        self._user, self._file = user, file

    def get_credentials(self) -> tuple[str] | tuple[str, str]:
        try:
            password = self._file.read_text("utf-8").strip()
        except OSError as error:  # of which the client would say that the server has no such file
            raise RedisError(f"nothing was asked: cannot read {self._file}: {error.strerror}") from None
        return (password,) if self._user is None else (self._user, password)

    async def get_credentials_async(self) -> tuple[str] | tuple[str, str]:
        return self.get_credentials()
