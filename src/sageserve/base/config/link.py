"""Settings of the port at which control hears gateways that run on other machines.

Gateways on control's own machine use a Unix socket in the state folder, and need none of this. Paths are plain strings: the live
layer opens them. Knows no socket. Read next: `live/link_port.py`; docs/how-to/gateways-elsewhere.md.
"""

from typing import Final, Self

from pydantic import Field, field_validator, model_validator

from sageserve.base.config.settings import Settings, port_to_open

LOOPBACK: Final = frozenset(["127.0.0.1", "localhost", "[::1]"])
"""Hosts that nobody on another machine reaches."""


class LinkTlsSettings(Settings):
    """How control and gateways know each other: both show a certificate."""

    certificate: str = Field(pattern="^/", description="absolute path of a PEM file: control's, then those that sign it")
    key: str = Field(pattern="^/", description="absolute path of its key, without a password; for its user alone")
    client_ca: str = Field(pattern="^/", description="PEM file: who may have signed the certificates that gateways show")


class LinkSettings(Settings):
    """The port at which control hears gateways on other machines, and hands on their requests for files, batches and pages."""

    listen: str = Field(default="127.0.0.1:7002", description="HOST:PORT; port 0: any")
    tls: LinkTlsSettings | None = Field(default=None, description="none: in the clear, on the loopback address alone")

    @field_validator("listen")
    @classmethod
    def _is_a_port(cls, listen: str) -> str:
        return port_to_open(listen, "0.0.0.0:7002")

    @model_validator(mode="after")
    def _is_not_open_to_all(self) -> Self:
        if self.tls is None and self.listen.rpartition(":")[0] not in LOOPBACK:
            raise ValueError(
                f"{self.listen} is reached from other machines, and whoever connects in the clear is taken for a gateway:"
                " give tls {certificate, key, client_ca}, or listen on 127.0.0.1"
            )
        return self
