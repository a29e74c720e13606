"""Settings of gates: how much batch work somebody else's async processor may let through in front of engines we watch.

Read next: `live/gates/`, which writes the leases; docs/how-to/llm-d-async.md.
"""

import re
from typing import Final, Literal, Self

from pydantic import Field, field_validator, model_validator

from sageserve.base.config.settings import Name, Settings
from sageserve.base.units import SECOND, Duration
from sageserve.base.urls import shown_url

_REDIS: Final = re.compile(r"rediss?://(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(:[0-9]{1,5})?(/[0-9]{0,4})?|unix:///[^?#@]+")


class GateSettings(Settings):
    """A gate of llm-d-async, of the kind redis-leased-rate."""

    redis: str = Field(description="such as redis://redis:6379, rediss:// for TLS, or unix:///run/redis.sock; /1: database 1")
    control_key: str = Field(min_length=1, max_length=512, description="of the gate, as the processor is told it")
    pool_id: str = Field(min_length=1, max_length=253, description="of the gate, likewise")
    region: Name = Field(description="of the engines behind it")
    model: Name = Field(description="that they serve")
    authority: Literal["observe", "full"] = Field(
        default="observe", description="full: leases are written, under watch --act; observe: only written down"
    )
    every: Duration = Field(default=5 * SECOND, ge=SECOND // 10, description="between two leases; each holds three times as long")
    most: float | None = Field(default=None, gt=0, description="requests a second, never more; none: what engines have room for")
    user: str | None = Field(default=None, description="of Redis; none: its default user")
    password_file: str | None = Field(default=None, pattern="^/", description="one line; read again for each connection")
    ca_file: str | None = Field(
        default=None, pattern="^/", description="who may have signed Redis' certificate; none: the system's"
    )

    @field_validator("redis")
    @classmethod
    def _can_be_shown(cls, redis: str) -> str:
        if "@" in redis:
            raise ValueError(f"no user or password in an address: write {shown_url(redis)}, user and password_file")
        if not _REDIS.fullmatch(redis):
            raise ValueError("no address of a Redis: write redis://HOST:PORT, rediss://HOST:PORT or unix:///PATH")
        return redis

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        if self.user is not None and self.password_file is None:
            raise ValueError("a user has a password: give password_file, too")
        if self.ca_file is not None and not self.redis.startswith("rediss://"):
            raise ValueError("ca_file is of TLS: write rediss://")
        return self
