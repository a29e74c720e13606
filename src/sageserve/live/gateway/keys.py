"""Who may ask, for which tiers, and how much a minute.

Keys are kept as hashes and compared in constant time; a key itself is never stored or logged. Limits are token buckets that
hold a minute's worth; with several gateways each holds its share. Keys of one name are one account with one set of limits.
Knows no request and no clock. Read next: `request.py`.
"""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from sageserve.base.config import KeySettings
from sageserve.base.errors import ConfigError
from sageserve.base.units import MINUTE, SECOND, Micros
from sageserve.live.gateway.api_error import expired_key, forbidden, no_key, rate_limited

INTERNAL: Final = "internal"
_BASIC: Final = b"basic "
_SHARED: Final = ("requests_per_minute", "tokens_per_minute", "tokens_per_day", "dollars_per_day", "weight", "keep")


class KeyRight(StrEnum):
    """What a key is for; `rights.py` says what each may."""

    TENANT = "tenant"
    OPERATOR = "operator"
    READ_ONLY = "read-only"


class Bucket:
    """So many units a minute, at most a minute's worth at once.

    Args:
        limit: units per minute.
        what: they are, as header lines name them.
    """

    __slots__ = ("_at", "_level", "_lines", "limit", "shares")

    def __init__(self, limit: int, what: str = "requests") -> None:
        self.limit = limit
        lines = f"x-ratelimit-limit-{what}: {limit}\r\nx-ratelimit-remaining-{what}: %d\r\nx-ratelimit-reset-{what}: %b\r\n"
        self._lines = lines.encode()
        self.shares = 1  # gateways among which the limit is divided
        self._level = float(limit)
        self._at: Micros = -1

    def fill(self, now: Micros) -> float:
        """Units that may be taken now."""
        most = self.limit / self.shares
        level = self._level + (now - self._at) * most / MINUTE if self._at >= 0 else most
        self._level = level = min(most, level)
        self._at = now
        return level

    def wait(self, amount: float, now: Micros) -> Micros:
        """Microseconds until `amount` may be taken; 0: now. More than the bucket holds may be taken when it is full."""
        most = self.limit / self.shares
        lacking = min(amount, most) - self.fill(now)
        return 0 if lacking <= 1e-9 else max(1, int(lacking * MINUTE / most))

    def take(self, amount: float) -> None:
        """Take, also below zero: what was really used may exceed what was expected."""
        self._level -= amount

    def fields(self) -> bytes:
        """Header lines about it, as OpenAI has them."""
        most = self.limit / self.shares
        lacking = most - self._level
        left = int(self._level * self.shares) if lacking > 0 else self.limit
        return self._lines % (max(0, left), show_reset(int(lacking * MINUTE / most)))


def show_reset(after: Micros) -> bytes:
    """A duration as OpenAI writes it: 20ms, 1.5s, 6m0s."""
    if after < SECOND:
        return b"%dms" % -(-max(0, after) // 1000)
    minutes, seconds = divmod(after / SECOND, 60)
    text = f"{int(minutes)}m{seconds:.0f}s" if minutes else f"{seconds:.2f}".rstrip("0").rstrip(".") + "s"
    return text.encode()


class KeyAccount:
    """What the keys of one name share: limits and a weight.

    Args:
        name: of the keys.
        requests: limit per minute, or None.
        tokens: limit per minute, or None.
        weight: its share of a tier, beside those of other accounts.

    `counted` says that what it uses is, exactly: it has limits, or a budget a day (`budgets.py`).
    """

    __slots__ = ("counted", "limited", "name", "requests", "tokens", "weight")

    def __init__(self, name: str, *, requests: int | None = None, tokens: int | None = None, weight: float = 1.0) -> None:
        self.name = name
        self.requests = Bucket(requests) if requests else None
        self.tokens = Bucket(tokens, "tokens") if tokens else None
        self.limited = self.requests is not None or self.tokens is not None
        self.counted = self.limited
        self.weight = weight

    def charge(self, tokens: int, now: Micros) -> None:
        """Count one request of so many tokens.

        Raises:
            ApiError: a limit is reached; nothing was counted.
        """
        requests, budget = self.requests, self.tokens
        if requests is not None and (wait := requests.wait(1.0, now)):
            raise rate_limited("requests", requests.limit, wait)
        if budget is not None and (wait := budget.wait(tokens, now)):
            raise rate_limited("tokens", budget.limit, wait)
        if requests is not None:
            requests.take(1.0)
        if budget is not None:
            budget.take(tokens)

    def settle(self, expected: int, used: int, now: Micros) -> None:
        """Correct an expectation by what was used: what has come since is counted first, as nothing above the limit is kept."""
        if self.tokens is not None:
            self.tokens.fill(now)
            self.tokens.take(used - expected)

    def share(self, gateways: int) -> None:
        """Divide limits among so many gateways."""
        for bucket in (self.requests, self.tokens):
            if bucket is not None:
                bucket.shares = gateways

    def fields(self) -> bytes:
        """Header lines about its limits."""
        requests = self.requests.fields() if self.requests is not None else b""
        return requests + (self.tokens.fields() if self.tokens is not None else b"")


class Holder:
    """Someone who may ask.

    Args:
        name: for logs and metrics.
        tiers: codes of those allowed; None: all.
        tier: code of the one meant when a request names none; None: as everyone's.
        account: what is charged; None: one without limits.
        role: what it is for.
    """

    __slots__ = ("account", "expires", "internal", "name", "role", "tier", "tiers", "uses")

    def __init__(
        self,
        name: str,
        *,
        tiers: frozenset[int] | None = None,
        tier: int | None = None,
        account: KeyAccount | None = None,
        role: KeyRight = KeyRight.TENANT,
    ) -> None:
        self.name = name
        self.role = role
        self.tiers = tiers
        self.tier = tier
        self.expires: Micros | None = None  # since 1970; from then on it is no key any more
        self.account = account or KeyAccount(name)
        self.internal = name == INTERNAL
        self.uses = 0  # since the audit log was last told

    def check_tier(self, tier: int, names: Sequence[str]) -> None:
        """Whether it may use a tier.

        Raises:
            ApiError: it may not.
        """
        if self.tiers is not None and tier not in self.tiers:
            raise forbidden(f"This key may not use the service class {names[tier]}.")


class KeyRing:
    """Everyone who may ask.

    Args:
        keys: of the scenario; none: whoever comes from the loopback address may ask.
        tiers: names of the tiers in order of their codes.
        internal: the key of this deployment's own processes; empty: there is none.
        wall: microseconds since 1970, for keys that expire.
        weights: by name, of keys that state none.

    Raises:
        ConfigError: a key names a tier that is not there, or a day that no calendar has; or keys of one name differ in limits.
    """

    def __init__(
        self,
        keys: Sequence[KeySettings],
        tiers: Sequence[str],
        internal: str = "",
        wall: Callable[[], Micros] = lambda: 0,
        weights: Mapping[str, float] = MappingProxyType({}),
    ) -> None:
        self._wall = wall
        self._strangers = 0  # that came with a wrong key since the audit log was last told
        self._holders: dict[str, Holder] = {}
        self.accounts = _accounts(keys, weights)
        for key in keys:
            if unknown := sorted({*key.tiers, *([key.tier] if key.tier else [])} - set(tiers)):
                raise ConfigError(f"live.keys: {key.name} names the tier {unknown[0]!r}", hint=f"tiers are {', '.join(tiers)}")
            holder = self._holders[key.sha256] = Holder(
                key.name,
                tiers=frozenset(tiers.index(name) for name in key.tiers) if key.tiers else None,
                tier=tiers.index(key.tier) if key.tier else None,
                account=self.accounts[key.name],
                role=KeyRight(key.role),
            )
            holder.expires = end_of(key)
        self.open = not self._holders
        self.anyone = Holder("anyone")
        self._near: dict[str, list[tuple[str, Holder]]] = {}
        self.believe(internal)

    def believe(self, internal: str) -> None:
        """From now on this is the key of the deployment's own processes, and no other; empty: there is none."""
        for digest in [digest for digest, one in self._holders.items() if one.internal]:
            del self._holders[digest]
        if internal:
            self._holders[hash_of(internal.encode())] = Holder(INTERNAL, role=KeyRight.OPERATOR)
        self._near.clear()
        for digest, holder in self._holders.items():
            self._near.setdefault(digest[:8], []).append((digest, holder))

    def find(self, authorization: bytes | None, *, loopback: bool, password: bool = False) -> Holder:
        """Who sends this Authorization header.

        Args:
            authorization: the header.
            loopback: the connection comes from this machine.
            password: a key may also come as the password of a browser's form, whatever the name beside it.

        Raises:
            ApiError: nobody we know.
        """
        key = _key_of(authorization, password=password) if authorization is not None and self._holders else None
        if key is not None:
            digest = hash_of(key)
            # Found by the first eight digits, so that how long it takes says nothing about the rest.
            for known, holder in self._near.get(digest[:8], ()):
                if hmac.compare_digest(digest, known):
                    holder.uses += 1
                    if holder.expires is not None and self._wall() >= holder.expires:
                        raise expired_key("This API key has expired: ask whoever runs this fleet for a new one.")
                    return holder
        if self.open and loopback:
            return self.anyone
        if authorization is None:
            raise no_key("You did not provide an API key: send it as `Authorization: Bearer KEY`.")
        self._strangers += 1
        raise no_key("Incorrect API key provided.")

    def take_use(self) -> dict[str, str | int]:
        """How many requests came with each key since this was last asked, by name and hash; `unknown`: with none of them."""
        if self.open:
            return {}
        holders = [(digest, one) for digest, one in self._holders.items() if one.uses and not one.internal]
        used: dict[str, str | int] = {f"{one.name} {digest[:8]}": one.uses for digest, one in holders}
        if self._strangers:
            used["unknown"] = self._strangers
        self._strangers = 0
        for _, one in holders:
            one.uses = 0
        return used

    def share(self, gateways: int) -> None:
        """Divide all limits among so many gateways."""
        for account in self.accounts.values():
            account.share(gateways)

    def account(self, name: str) -> KeyAccount:
        """What is charged for a job of somebody; one without limits for who has no key (any more)."""
        return self.accounts.get(name) or KeyAccount(name)


def _accounts(keys: Sequence[KeySettings], weights: Mapping[str, float]) -> dict[str, KeyAccount]:
    """One of each name.

    Raises:
        ConfigError: keys of one name differ in what they may use.
    """
    first: dict[str, KeySettings] = {}
    for key in keys:
        other = first.setdefault(key.name, key)
        if unlike := [name for name in _SHARED if getattr(key, name) != getattr(other, name)]:
            raise ConfigError(
                f"live.keys: the keys of {key.name} differ in {unlike[0]}",
                hint="keys of one name, as in a rotation, share one account: give them the same limits and keep, or other names",
            )
    return {name: _account(key, weights.get(name, 1.0)) for name, key in first.items()}


def _account(key: KeySettings, weight: float) -> KeyAccount:
    weight = weight if key.weight is None else key.weight
    account = KeyAccount(key.name, requests=key.requests_per_minute, tokens=key.tokens_per_minute, weight=weight)
    account.counted |= key.tokens_per_day is not None or key.dollars_per_day is not None
    return account


def _key_of(authorization: bytes, *, password: bool) -> bytes | None:
    if authorization[:7].lower() == b"bearer ":
        return authorization[7:].strip()
    if password and authorization[:6].lower() == _BASIC:
        try:
            return base64.b64decode(authorization[6:].strip(), validate=True).partition(b":")[2]
        except binascii.Error:
            return None
    return None


def end_of(key: KeySettings) -> Micros | None:
    """When a key expires, microseconds since 1970.

    Raises:
        ConfigError: no calendar has that day.
    """
    if key.expires is None:
        return None
    try:
        end = datetime.fromisoformat(key.expires)
    except ValueError as error:
        raise ConfigError(f"live.keys: {key.name} expires at {key.expires!r}: {error}", hint="write it as 2027-03-31") from None
    return int(end.replace(tzinfo=UTC).timestamp()) * SECOND


def hash_of(key: bytes) -> str:
    """What is kept of a key. A key has 256 random bits, so that a slow hash would protect nothing."""
    return hashlib.sha256(key).hexdigest()
