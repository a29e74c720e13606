"""A cluster's API server, asked: objects, its version, and what we may do. Errors become `NotRead`, with one sentence.

Whatever lightkube can connect with (kubeconfig, tokens, exec plug-ins, service accounts) does. Writes nothing but access reviews,
which change nothing. Read next: `objects.py` for what comes back, `fake.py` for the server of tests.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self, TypeVar, cast

import msgspec

from sageserve.base.errors import ConfigError
from sageserve.live.kubernetes.kinds import KINDS, KubeKind
from sageserve.live.kubernetes.objects import Json, KubeObject

if TYPE_CHECKING:
    import httpx2
    from lightkube.config.kubeconfig import SingleConfig
    from lightkube.generic_resource import GenericNamespacedResource

Page = TypeVar("Page")
TIMEOUT: Final = 10.0  # seconds for one answer
SILENCE: Final = 100.0  # seconds without a line of a watch: a server sends a bookmark a minute, so that nobody is there any more
LINE_MOST: Final = 16 << 20  # bytes of one line: an object is 1.5 MB at most where it is kept
PAGE: Final = 500  # objects of one answer, as kubectl asks
AT_ONCE: Final = 16  # questions to one server


@dataclass(frozen=True, slots=True)
class NotRead:
    """No answer.

    Args:
        status: of HTTP; 0: none came.
        detail: why, in one sentence.
    """

    status: int
    detail: str


@dataclass(frozen=True, slots=True)
class Right:
    """Something that may be allowed or not: a verb on a resource, `plural/sub` for a subresource, in a namespace."""

    verb: str
    group: str
    plural: str
    namespace: str


def cluster_config(context: str | None, kubeconfig: Path | None) -> "SingleConfig":
    """How to connect.

    Args:
        context: of the file; None: its current one.
        kubeconfig: file; None: the service account of the pod we run in.

    Raises:
        ConfigError: no such file or context, or no service account.
    """
    try:
        from lightkube.config.kubeconfig import KubeConfig
        from lightkube.core.exceptions import ConfigError as LightkubeError
    except ImportError:
        raise ConfigError("reading a cluster needs lightkube", hint="pip install 'sageserve[kubernetes]'") from None
    try:
        found = KubeConfig.from_service_account() if kubeconfig is None else KubeConfig.from_file(str(kubeconfig))
        single = found.get(context)
    except (LightkubeError, OSError, ValueError) as error:
        raise ConfigError(f"cannot use {kubeconfig or 'the service account'}: {error}", hint="kubectl config view") from None
    if single is None:
        raise ConfigError(
            f"{kubeconfig or 'the service account'} has no context {context or ''}", hint="kubectl config get-contexts"
        )
    return single


class ClusterReader:
    """One cluster.

    Args:
        config: how to connect.
        transport: for tests; none: the network.
    """

    def __init__(self, config: "SingleConfig", transport: "httpx2.AsyncBaseTransport | None" = None) -> None:
        import httpx2
        from lightkube import AsyncClient
        from lightkube.config import client_adapter

        from sageserve.live.kubernetes.credentials import signed_by

        timeout = httpx2.Timeout(TIMEOUT)
        self._client: AsyncClient = AsyncClient(config=config, timeout=timeout, transport=transport, trust_env=False)
        self._plain = client_adapter.AsyncClient(
            config,
            client_adapter.ConnectionParams(timeout=timeout, transport=transport, trust_env=False),  # type: ignore[arg-type] # of both kinds
        )
        if (signs := signed_by(config, self._plain.auth)) is not None:
            both = (self._plain, self._client._client._client)  # noqa: SLF001 # lightkube has no other way to its own
            both[0].auth = both[1].auth = signs  # one: a plug-in is asked once
        self._few = asyncio.Semaphore(AT_ONCE)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        await self._client.close()
        await self._plain.aclose()

    async def version(self) -> str | NotRead:
        """Such as `v1.36.2`."""
        import httpx2

        try:
            async with self._few:
                answer = await self._plain.get("/version")
            answer.raise_for_status()
            return str(answer.json().get("gitVersion", ""))
        except (httpx2.HTTPError, ValueError, RecursionError) as error:
            return _not_read(error)

    async def get(self, kind: str, name: str, namespace: str = "") -> KubeObject | NotRead:
        """One object."""
        import httpx2
        from lightkube.core.exceptions import ConfigError as LightkubeError

        try:
            async with self._few:
                found = await self._client.get(_resource(KINDS[kind]), name=name, namespace=namespace or None)
            return KubeObject(_plain(found))
        except (httpx2.HTTPError, LightkubeError, ValueError, RecursionError) as error:
            return _not_read(error)

    async def list(self, kind: str, namespace: str = "*") -> list[KubeObject] | NotRead:
        """All objects of a kind in a namespace, or in all."""
        import httpx2
        from lightkube.core.exceptions import ConfigError as LightkubeError

        one = KINDS[kind]
        try:
            async with self._few:
                found = self._client.list(_resource(one), namespace=namespace if one.namespaced else None, chunk_size=PAGE)
                return [KubeObject({"kind": kind, **_plain(item)}) async for item in found]
        except (httpx2.HTTPError, LightkubeError, ValueError, RecursionError) as error:
            return _not_read(error)

    async def page(self, path: str, query: Mapping[str, str], kind: type[Page]) -> Page | NotRead:
        """An answer whose parts of a type alone are read."""
        import httpx2

        try:
            async with self._few:
                answer = await self._plain.get(path, params=dict(query))
            if answer.is_success:
                return msgspec.json.decode(answer.content, type=kind)
            return NotRead(answer.status_code, f"HTTP {answer.status_code}")
        except (httpx2.HTTPError, ValueError, RecursionError) as error:
            return _not_read(error)

    async def follow(self, path: str, query: Mapping[str, str], heard: Callable[[bytes], str]) -> NotRead | None:
        """Hear the lines of a watch until it ends; None where the server ended it in order.

        Args:
            path: of the list.
            query: with `watch`.
            heard: told every line; says why no more is wanted, or nothing.
        """
        import httpx2

        rest = bytearray()
        try:
            timeout = httpx2.Timeout(TIMEOUT, read=SILENCE)
            async with self._plain.stream("GET", path, params=dict(query), timeout=timeout) as answer:
                if not answer.is_success:
                    return NotRead(answer.status_code, f"HTTP {answer.status_code}")
                async for part in answer.aiter_bytes():
                    rest += part
                    *lines, left = rest.split(b"\n")
                    for line in lines:
                        if line and (why := heard(bytes(line))):
                            return NotRead(0, why)
                    if len(left) > LINE_MOST:
                        return NotRead(0, f"a line of the watch is longer than {LINE_MOST >> 20} MiB")
                    rest = left
        except httpx2.HTTPError as error:
            return _not_read(error)
        return None

    async def allowed(self, right: Right) -> bool | NotRead:
        """Whether we have a right."""
        import httpx2
        from lightkube.core.exceptions import ConfigError as LightkubeError

        plural, _, sub = right.plural.partition("/")
        attributes = {"verb": right.verb, "group": right.group, "resource": plural, "namespace": right.namespace}
        kind = _resource(KINDS["SelfSubjectAccessReview"])
        spec = {"resourceAttributes": attributes | ({"subresource": sub} if sub else {})}
        review = kind(metadata={}, spec=spec)  # type: ignore[call-overload] # any keys, as JSON has them
        try:
            async with self._few:
                answer = await self._client.create(review)
            return KubeObject(_plain(answer)).at("status", "allowed") is True
        except (httpx2.HTTPError, LightkubeError, ValueError, RecursionError) as error:
            return _not_read(error)

    async def all_allowed(self, rights: Iterable[Right]) -> dict[Right, bool | NotRead]:
        """Many of them at once."""
        wanted = list(dict.fromkeys(rights))
        answers = await asyncio.gather(*(self.allowed(right) for right in wanted))
        return dict(zip(wanted, answers, strict=True))


def _resource(kind: KubeKind) -> "type[GenericNamespacedResource]":
    """Lightkube's class for a kind; both kinds of classes are used alike."""
    from lightkube.generic_resource import create_global_resource, create_namespaced_resource, get_generic_resource

    found = get_generic_resource(kind.api_version, kind.kind)  # type: ignore[no-untyped-call] # lightkube's own
    if found is None:
        make = create_namespaced_resource if kind.namespaced else create_global_resource
        found = make(kind.group, kind.version, kind.kind, kind.plural)
    return cast("type[GenericNamespacedResource]", found)


def _plain(found: Mapping[str, Json]) -> Mapping[str, Json]:
    return cast("Mapping[str, Json]", dict(found))


def _not_read(error: Exception) -> NotRead:
    response = getattr(error, "response", None)
    status = int(response.status_code) if response is not None else 0
    told = getattr(getattr(error, "status", None), "message", None) or str(error) or type(error).__name__
    return NotRead(status, str(told).splitlines()[0])
