"""Settings of the live control plane: where it listens, how engines are started, who may ask for what.

Everything has a default, so that `sageserve up` needs no file. Paths are plain strings: the live layer opens them.
Knows no process and no socket. Read next: `live/control/process.py` and `live/gateway/`, which obey them.
"""

import re
from typing import Annotated, Final, Literal, Self, get_args

from pydantic import Field, field_validator, model_validator

from sageserve.base.config.clusters import (
    BudgetSettings,
    ClusterSettings,
    PrioritySettings,
    ScalerSettings,
    ServiceSettings,
    ShareSettings,
    TargetSettings,
)
from sageserve.base.config.gates import GateSettings
from sageserve.base.config.link import LinkSettings
from sageserve.base.config.settings import Name, Settings
from sageserve.base.units import DAY, HOUR, MINUTE, SECOND, Duration, Share, Size
from sageserve.base.urls import is_store, is_url


class EngineCommand(Settings):
    """How instances of a model are run, by a template; words in braces are filled in.

    `{port}`, `{host}`, `{model}`, `{region}`, `{gpu}`, `{gpus}` (comma-separated numbers), `{instance}`, `{profile}` (a file).
    """

    command: tuple[str, ...] = Field(min_length=1, description="program and arguments; no shell is involved")
    environment: dict[str, str] = Field(default={}, description="variables beside PATH, HOME, LANG and those of live.inherit")
    ready: str = Field(default="/health", description="path that answers 200 once the engine serves")
    metrics: str = Field(default="/metrics", description="path of the engine's Prometheus metrics")
    served_model: str = Field(default="", description="name the engine knows the model by; empty: the scenario's name")
    start_within: Duration = Field(default=10 * MINUTE, gt=0, description="a start that takes longer has failed")
    stop_within: Duration = Field(default=30 * SECOND, gt=0, description="after SIGTERM, before SIGKILL")


_ENGINE_URL: Final = re.compile(r"^https?://(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+)(:[0-9]{1,5})?(/[^?#@\s]*)?$")


class EngineAccess(Settings):
    """How engines that someone else runs are spoken to, where an address alone does not do."""

    ca_file: str | None = Field(
        default=None, pattern="^/", description="PEM file: who may have signed an engine's certificate; none: the system's"
    )
    certificate: str | None = Field(
        default=None, pattern="^/", description="PEM file: our own, for engines that ask for one, then those that sign it"
    )
    key: str | None = Field(default=None, pattern="^/", description="of our own certificate, without a password")
    bearer_file: str | None = Field(default=None, pattern="^/", description="file with the API key that engines ask for")
    bearer_env: str | None = Field(
        default=None, pattern="^[A-Za-z_][A-Za-z0-9_]*$", description="or the variable of `sageserve up` that holds it"
    )

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("certificate and key belong together: give both, or neither")
        if self.bearer_file is not None and self.bearer_env is not None:
            raise ValueError("bearer_file and bearer_env exclude each other")
        return self

    @property
    def secured(self) -> bool:
        """Whether it says anything about TLS."""
        return self.ca_file is not None or self.certificate is not None


_ORIGIN: Final = r"^(\*|https?://(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(:[0-9]{1,5})?)$"  # as browsers write it


class FixedInstance(Settings):
    """An engine that someone else runs: it is routed to and scraped, never started or stopped."""

    region: Name = Field(description="where it is")
    model: Name = Field(description="what it serves")
    gpu: Name | None = Field(default=None, description="GPU type; none: the model's first engine in the region")
    url: str = Field(description="such as http://10.0.0.7:8000, or https://; a path is put before the API's")
    access: Name | None = Field(default=None, description="one of live.access; none: no key, and the system's authorities")
    served_model: str = Field(default="", description="name the engine knows the model by; empty: the scenario's name")

    @field_validator("url")
    @classmethod
    def _can_be_honoured(cls, url: str) -> str:
        if not url.startswith(("http://", "https://")):
            raise ValueError("engines are spoken to over HTTP: http://10.0.0.7:8000, or https://10.0.0.7:8443")
        if not _ENGINE_URL.match(url):
            raise ValueError("no user, password, query or fragment is sent to an engine: write it as http://10.0.0.7:8000")
        if not is_url(url):
            raise ValueError("a port is 1 to 65535: write it as http://10.0.0.7:8000")
        if url.rstrip("/").endswith("/v1"):
            raise ValueError("leave out /v1: the gateway puts it there")
        return url.rstrip("/")


KeyRole = Literal["tenant", "operator", "read-only"]
ROLES: Final[tuple[KeyRole, ...]] = get_args(KeyRole)
RESERVED_NAMES: Final = frozenset(["internal", "anyone", "local"])
"""Of keys: the deployment's own processes, whoever asks without keys, and this machine's browser."""


class KeySettings(Settings):
    """One API key; only its hash is kept."""

    name: Name = Field(description="whose it is, as it appears in logs and metrics")
    sha256: str = Field(pattern="^[0-9a-f]{64}$", description="of the key; `sageserve key new` makes both")
    tiers: tuple[Name, ...] = Field(default=(), description="service classes it may ask for; none: all")
    tier: Name | None = Field(default=None, description="its service class when a request names none")
    expires: str | None = Field(
        default=None,
        pattern=r"^\d{4}-\d\d-\d\d(T\d\d:\d\d(:\d\d)?Z)?$",
        description="when it ends, UTC: 2027-03-31 (its beginning) or 2027-03-31T18:00Z; none: never",
    )
    requests_per_minute: int | None = Field(default=None, ge=1, description="none: no limit")
    tokens_per_minute: int | None = Field(default=None, ge=1, description="prompt and answer; none: no limit")
    tokens_per_day: int | None = Field(default=None, ge=1, description="a budget, UTC's days; none: no limit")
    dollars_per_day: float | None = Field(default=None, gt=0, description="likewise, by live.prices; none: no limit")
    weight: float | None = Field(
        default=None,
        gt=0,
        le=1000,
        description="share of a tier under load, beside those of other keys; none: what tenants says, else 1",
    )
    keep: Duration | None = Field(
        default=None,
        ge=HOUR,
        description="batch files, answers and batches that are over, for no longer than this; none: live.jobs.keep",
    )
    role: KeyRole = Field(
        default="tenant", description="tenant: asks; operator: asks and sees the fleet's pages; read-only: sees them and no more"
    )

    @field_validator("name")
    @classmethod
    def _not_reserved(cls, name: str) -> str:
        if name in RESERVED_NAMES:
            raise ValueError(f"{name!r} is a name of SageServe's own; choose another for a key")
        return name


class TenantSettings(Settings):
    """Somebody whose requests share capacity with others': of the keys of that name live, of a trace's column simulated."""

    weight: float = Field(default=1.0, gt=0, le=1000, description="share of a tier under load, beside those of others")


class TokenPrice(Settings):
    """What a model's tokens cost whoever asks."""

    input: float = Field(ge=0, description="dollars a million tokens of prompts")
    output: float = Field(ge=0, description="dollars a million tokens of answers")


class TlsSettings(Settings):
    """What the public port is opened with."""

    certificate: str = Field(pattern="^/", description="absolute path of a PEM file: the certificate, then those that sign it")
    key: str = Field(pattern="^/", description="absolute path of its key, without a password; for its user alone")


class LimitSettings(Settings):
    """What a client may send."""

    body: Size = Field(default=64 << 20, gt=0, description="a request body; images in prompts are large")
    bodies: Size = Field(default=512 << 20, gt=0, description="bodies of all requests that a gateway process holds together")
    file: Size = Field(default=200_000_000, gt=0, description="an uploaded batch file, as OpenAI's 200 MB")
    lines: int = Field(default=50_000, ge=1, description="jobs of one batch, as OpenAI's")
    headers: Size = Field(default=64 << 10, gt=0, description="all header lines of a request together")
    header_wait: Duration = Field(default=10 * SECOND, gt=0, description="for the whole header; slow ones are cut off")
    body_wait: Duration = Field(default=30 * SECOND, gt=0, description="without a byte of the body arriving")
    idle: Duration = Field(default=75 * SECOND, gt=0, description="a kept connection without a request")
    held: int = Field(default=1000, ge=0, description="requests that a gateway process holds while an endpoint is woken for them")
    held_bodies: Size = Field(default=128 << 20, ge=0, description="of them, bodies together")
    held_for: Duration = Field(
        default=10 * MINUTE,
        ge=0,
        description="how long each is held, its promised wait at least and ten minutes at most; 0: its promised wait",
    )
    stream_idle: Duration = Field(default=60 * SECOND, gt=0, description="an engine that sends nothing in mid-answer has hung")


class JobSettings(Settings):
    """How jobs of batches are run."""

    attempts: int = Field(default=4, ge=1, description="of a job that engines fail; being turned away is no attempt")
    in_hand: int = Field(default=512, ge=1, description="jobs per model that run, rest or wait to be recorded; bounds memory")
    ahead: int = Field(default=512, ge=1, description="jobs per model read ahead of their turn")
    answer_within: Duration = Field(default=15 * MINUTE, gt=0, description="a full engine may take minutes over a long answer")
    keep: Duration = Field(default=30 * DAY, gt=0, description="files without expires_after, as OpenAI's batch files")


class SafetySettings(Settings):
    """What keeps a fleet standing when something is wrong; each line is a promise with a test."""

    act: bool = Field(default=True, description="false: decide and write down, change nothing (shadow)")
    blind_after: Duration = Field(default=30 * SECOND, gt=0, description="older signals are no signals: nothing is scaled in")
    hung_after: Duration = Field(
        default=60 * SECOND, gt=0, description="an instance of ours that makes no token for so long while it has work is replaced"
    )
    change_per_hour: float = Field(
        default=0.5, gt=0, description="share of an endpoint's instances that may be drained within an hour, one at least"
    )
    headroom: Share = Field(default=0.85, description="utilisation the others may reach when one is drained")
    ramp_up: Share = Field(
        default=0.5, description="of what runs, that a bound of a target may be raised above it within a minute; two always may"
    )
    hold_for: Duration = Field(
        default=6 * HOUR,
        gt=0,
        description="a bound of a target stays so long after the last look that could decide, then it falls",
    )
    freeze: tuple[str, ...] = Field(
        default=(), description="windows of the week in which no target is changed, such as Fri 22:00-Mon 06:00 Europe/Berlin"
    )
    budget: BudgetSettings = Field(default=BudgetSettings(), description="what targets may hold together; none: stock decides")


class LiveSettings(Settings):
    """The live control plane."""

    host: str = Field(default="127.0.0.1", description="address of the gateway; loopback unless told otherwise")
    port: int = Field(default=8100, ge=0, le=65535, description="of the gateway; 0: any free one")
    tls: TlsSettings | None = Field(default=None, description="certificate of the gateway; none: plain HTTP")
    workers: int = Field(default=1, ge=1, le=64, description="gateway processes that share the port")
    link: LinkSettings | None = Field(
        default=None, description="port of control for gateways on other machines; none: those of this machine alone"
    )
    store: str = Field(default="sqlite", description="of batches and files: sqlite, memory, or postgresql://user@host/name")
    scrape_timeout: Duration = Field(default=2 * SECOND, gt=0, description="an engine that takes longer was not seen")
    actuator: Literal["local", "fixed", "kubernetes"] = Field(
        default="local",
        description="local: start processes; fixed: only `instances`; kubernetes: engines of `services`, which others run",
    )
    engines: dict[Name, EngineCommand] = Field(default={}, description="by model; none: the emulated engine")
    inherit: tuple[Annotated[str, Field(pattern="^[A-Za-z_][A-Za-z0-9_]*$")], ...] = Field(
        default=(), description="variables of `sageserve up` that engines get, such as HF_TOKEN; only their names are kept"
    )
    speed: float = Field(default=1.0, gt=0, le=1000, description="of the emulated engine: 10 is ten times as fast as real")
    instances: tuple[FixedInstance, ...] = Field(default=(), description="engines that already run")
    services: tuple[ServiceSettings, ...] = Field(default=(), description="engines in clusters, followed as they come and go")
    access: dict[Name, EngineAccess] = Field(default={}, description="how they are spoken to, by a name that they give")
    service_tiers: dict[str, Name] = Field(
        default={},
        description="OpenAI's service_tier to ours; unless said, priority and fast: tightest, flex: batch, others: laxest",
    )
    keys: tuple[KeySettings, ...] = Field(default=(), description="API keys; none: everyone on the loopback address may ask")
    prices: dict[Name, TokenPrice] = Field(
        default={}, description="by model, for keys with dollars_per_day; none: tokens are free"
    )
    cors: tuple[Annotated[str, Field(pattern=_ORIGIN)], ...] = Field(
        default=(), description="origins of web pages that may ask, such as https://chat.example; '*': all, where there are keys"
    )
    limits: LimitSettings = Field(default=LimitSettings(), description="what a client may send")
    jobs: JobSettings = Field(default=JobSettings(), description="how jobs of batches are run")
    safety: SafetySettings = Field(default=SafetySettings(), description="what is never done")
    clusters: dict[Name, ClusterSettings] = Field(default={}, description="clusters that others run, by name; none: only ours")
    targets: dict[Name, TargetSettings] = Field(
        default={}, description="objects in them that decide how many instances pools have"
    )
    shares: dict[Name, ShareSettings] = Field(
        default={}, description="objects in them that share a model's requests among regions, by a name that no target has"
    )
    gates: dict[Name, GateSettings] = Field(
        default={}, description="gates of batch work that others run, beside `sageserve watch`; none: nobody is told"
    )
    scaler: ScalerSettings | None = Field(
        default=None, description="KEDA's external scaler, beside `sageserve watch`; none: nobody is answered"
    )
    tiers: dict[Name, PrioritySettings] = Field(default={}, description="how routers and histories name tiers; none: they do not")
    records: bool = Field(
        default=False,
        description="keep a line for each request in the state folder: times, tokens and names, no prompt or answer",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(default="info", description="of the structured log")

    @field_validator("store")
    @classmethod
    def _is_a_store(cls, store: str) -> str:
        if not is_store(store):
            raise ValueError("it names no store: write sqlite, memory, or postgresql://user@host/name")
        return store

    @model_validator(mode="after")
    def _is_not_for_every_page(self) -> Self:
        if "*" in self.cors and not self.keys:
            raise ValueError(
                "cors: '*' without keys lets every web page that somebody here opens ask: give keys, or name origins"
            )
        return self

    @property
    def ours(self) -> bool:
        """Whether engines are ours to start and stop."""
        return self.actuator == "local"

    @model_validator(mode="after")
    def _has_services(self) -> Self:
        if bool(self.services) != (self.actuator == "kubernetes"):
            raise ValueError("services and actuator: kubernetes belong together: give both, or neither")
        if len({one.access for one in self.services}) > 1:
            raise ValueError("services: all of them have one access, or none: addresses are not known beforehand")
        for number, one in enumerate(self.services):
            access = None if one.access is None else self.access.get(one.access)
            where = f"services[{number}] ({one.name})"
            if one.access is not None and access is None:
                raise ValueError(f"{where}: live.access has no {one.access!r}; it has {', '.join(self.access) or 'none'}")
            if access is not None and access.secured and one.scheme != "https":
                raise ValueError(f"{where}: access {one.access!r} has certificates, and the scheme is not https")
        return self

    @model_validator(mode="after")
    def _has_access(self) -> Self:
        ways: dict[str, str | None] = {}
        for number, one in enumerate(self.instances):
            where = f"instances[{number}] ({one.url})"
            if ways.setdefault(one.url, one.access) != one.access:
                raise ValueError(f"{where} has another access than an instance before it at the same address")
            if one.access is None:
                continue
            access = self.access.get(one.access)
            if access is None:
                raise ValueError(f"{where}: live.access has no {one.access!r}; it has {', '.join(self.access) or 'none'}")
            if access.secured and not one.url.startswith("https://"):
                raise ValueError(f"{where}: access {one.access!r} has certificates, and the address is not https://")
        return self
