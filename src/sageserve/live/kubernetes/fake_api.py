"""The fake API server over HTTP (ASGI), and a transport for lightkube that streams, so that watches can be watched.

    client = AsyncClient(config=fake_config(), transport=FakeTransport(FakeCluster()))

Get, list (labels, fields, pages), watch (from a version, bookmarks, timeouts, 410 Gone), SelfSubjectAccessReview, /version, and
all writes. Where a real server differs, this one is wrong. Read next: `fake.py` for what it holds, `fake_writes.py`.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from typing import TYPE_CHECKING, Any, Final, TypeAlias
from urllib.parse import parse_qsl

import httpx2
import msgspec
from lightkube.config.kubeconfig import KubeConfig, SingleConfig
from lightkube.config.models import Cluster, User

from sageserve.live.kubernetes.fake import SELECTABLE, FakeCluster, Stored
from sageserve.live.kubernetes.fake_writes import ServerRefusal, WriteRequest, scale_of, write
from sageserve.live.kubernetes.kinds import KubeKind
from sageserve.live.kubernetes.objects import KubeObject
from sageserve.live.kubernetes.reader import Right

if TYPE_CHECKING:
    from collections.abc import Mapping

BOOKMARK_S: Final = 0.05  # a quiet watch gets a bookmark this often; a real server waits a minute
Scope: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send: TypeAlias = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class FakeApi:
    """The ASGI application."""

    def __init__(self, cluster: FakeCluster) -> None:
        self.cluster = cluster
        self.requests: list[tuple[str, str]] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        method, path = scope["method"], scope["path"]
        query = dict(parse_qsl(scope["query_string"].decode()))
        self.requests.append((method, path))
        headers = {key.decode().lower(): value.decode() for key, value in scope["headers"]}
        try:
            if code := self.cluster.failing(method, path):
                raise ServerRefusal(code, "InternalError", "this server was told to fail")
            if query.get("watch") in ("true", "1"):
                await self._watch(self._place(path)[:3], query, send)
                return
            body = await _body(receive) if method != "GET" else b""
            await _json(send, *self._answer(method, path, query, (headers, body)))
        except ServerRefusal as refused:
            await _json(send, refused.code, refused.status())

    def _answer(
        self, method: str, path: str, query: "Mapping[str, str]", told: tuple["Mapping[str, str]", bytes]
    ) -> tuple[int, Stored]:
        if path == "/version":
            major, minor = self.cluster.version.lstrip("v").split(".")[:2]
            return 200, {"major": major, "minor": minor, "gitVersion": self.cluster.version}
        kind, namespace, name, sub = self._place(path)
        headers, body = told
        if kind.kind == "SelfSubjectAccessReview" and method == "POST":
            return 201, self._review(KubeObject(msgspec.json.decode(body)))
        if method != "GET":
            how = headers.get("content-type", "").split(";")[0]
            agent = headers.get("user-agent", "")
            return write(self.cluster, WriteRequest(method, kind, namespace, name, sub, query, how, body, agent))
        if not name:
            return 200, self._list(kind, namespace, query)
        found = self.cluster.get(kind.kind, namespace, name)
        if found is None:
            raise ServerRefusal(404, "NotFound", f'{kind.resource} "{name}" not found')
        if sub == "scale" and not kind.scale:
            raise ServerRefusal(404, "NotFound", "the server could not find the requested resource")
        return 200, scale_of(kind, found) if sub == "scale" else found

    def _place(self, path: str) -> tuple[KubeKind, str, str, str]:
        """Kind, namespace, name and subresource of a path; the last ones only where it has them."""
        parts = path.strip("/").split("/")
        group, rest = ("", parts[2:]) if parts[0] == "api" else (parts[1], parts[3:])
        namespace = ""
        if len(rest) > 2 and rest[0] == "namespaces":
            namespace, rest = rest[1], rest[2:]
        kind = self.cluster.installed(group, rest[0]) if rest else None
        if kind is None:
            raise ServerRefusal(404, "NotFound", "the server could not find the requested resource")
        if kind.kind in self.cluster.forbidden:
            raise ServerRefusal(
                403, "Forbidden", f'{kind.resource} is forbidden: User "fake" cannot list resource "{kind.plural}"'
            )
        return kind, namespace, rest[1] if len(rest) > 1 else "", rest[2] if len(rest) > 2 else ""

    def _review(self, review: KubeObject) -> Stored:
        asked = review.labels("spec", "resourceAttributes")
        plural = asked.get("resource", "") + (f"/{asked['subresource']}" if asked.get("subresource") else "")
        right = Right(asked.get("verb", ""), asked.get("group", ""), plural, asked.get("namespace", ""))
        return {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "metadata": {},
            "status": {"allowed": self.cluster.allowed(right)},
        }

    def _list(self, kind: KubeKind, namespace: str, query: "Mapping[str, str]") -> Stored:
        found = [one for one in self.cluster.of(kind.kind, namespace) if _selected(one, query)]
        limit, start = int(query.get("limit", "0") or 0), int(query.get("continue", "0") or 0)
        last = start + limit if limit else len(found)
        metadata: Stored = {"resourceVersion": str(self.cluster.resource_version)}
        if last < len(found):
            metadata |= {"continue": str(last), "remainingItemCount": len(found) - last}
        return {"apiVersion": kind.api_version, "kind": f"{kind.kind}List", "metadata": metadata, "items": found[start:last]}

    async def _watch(self, place: tuple[KubeKind, str, str], query: "Mapping[str, str]", send: Send) -> None:
        kind, namespace, _ = place
        at = int(query.get("resourceVersion", "0") or 0)
        loop = asyncio.get_running_loop()
        end = loop.time() + float(query.get("timeoutSeconds", "300"))
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
        if at == 0:  # "any": what is there first, as a real server does
            at = self.cluster.resource_version
            for one in self.cluster.of(kind.kind, namespace):
                if _selected(one, query):
                    await _line(send, "ADDED", one)
        while loop.time() < end:
            changes = self.cluster.since(at)
            if changes is None:
                gone = ServerRefusal(410, "Expired", f"too old resource version: {at}")
                await _line(send, "ERROR", gone.status())
                break
            for change in changes:
                at = change.version
                mine = change.kind == kind.kind and namespace in ("", KubeObject(change.data).namespace)
                if mine and _selected(change.data, query):
                    await _line(send, change.what, change.data)
            changed = await self.cluster.wait(min(BOOKMARK_S, max(0.0, end - loop.time())))
            if not changed and query.get("allowWatchBookmarks") == "true":
                metadata: Stored = {"resourceVersion": str(at), "name": "", "namespace": ""}
                await _line(send, "BOOKMARK", {"kind": kind.kind, "metadata": metadata})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def _selected(data: Stored, query: "Mapping[str, str]") -> bool:
    one = KubeObject(data)
    labels = one.labels("metadata", "labels")
    fields = [part for part in query.get("fieldSelector", "").split(",") if part]
    for part in fields:
        key, wrong, value = part.partition("!=") if "!=" in part else part.replace("==", "=").partition("=")
        if key not in SELECTABLE:
            raise ServerRefusal(400, "BadRequest", f"field label not supported: {key}")
        if (one.text(*SELECTABLE[key]) == value) == (wrong == "!="):
            return False
    return all(_labelled(part, labels) for part in _requirements(query.get("labelSelector", "")))


def _requirements(text: str) -> list[str]:
    """Parts of a selector: commas inside brackets do not part it."""
    parts, depth, start = [], 0, 0
    for i, sign in enumerate(text):
        depth += (sign == "(") - (sign == ")")
        if sign == "," and depth == 0:
            parts.append(text[start:i])
            start = i + 1
    return [part.strip() for part in (*parts, text[start:]) if part.strip()]


def _labelled(part: str, labels: "Mapping[str, str]") -> bool:
    for word, wanted in ((" notin ", False), (" in ", True)):
        if word in part:
            key, _, values = part.partition(word)
            return (labels.get(key.strip()) in [value.strip() for value in values.strip(" ()").split(",")]) is wanted
    if "!=" in part:
        key, _, value = part.partition("!=")
        return labels.get(key.strip()) != value.strip()
    if "=" in part:
        key, _, value = part.replace("==", "=").partition("=")
        return labels.get(key.strip()) == value.strip()
    return part[1:].strip() not in labels if part.startswith("!") else part in labels


async def _body(receive: Receive) -> bytes:
    body = b""
    while True:
        part = await receive()
        body += bytes(part.get("body", b""))
        if not part.get("more_body"):
            return body


async def _json(send: Send, code: int, data: Stored) -> None:
    await send({"type": "http.response.start", "status": code, "headers": [(b"content-type", b"application/json")]})
    await send({"type": "http.response.body", "body": msgspec.json.encode(data), "more_body": False})


async def _line(send: Send, what: str, data: Stored) -> None:
    line = msgspec.json.encode({"type": what, "object": data}) + b"\n"
    await send({"type": "http.response.body", "body": line, "more_body": True})


class _Stream(httpx2.AsyncByteStream):
    """The body of an answer, as the application sends it."""

    def __init__(self, parts: "asyncio.Queue[bytes | None]", task: "asyncio.Task[None]") -> None:
        self._parts, self._task = parts, task

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while (part := await self._parts.get()) is not None:
            yield part

    async def aclose(self) -> None:
        self._task.cancel()


class FakeTransport(httpx2.AsyncBaseTransport):
    """Carries lightkube's requests to the application; answers begin when their first bytes do."""

    def __init__(self, cluster: FakeCluster) -> None:
        self.api = FakeApi(cluster)

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send a request, and hand back its answer while it still streams."""
        started: asyncio.Future[tuple[int, list[tuple[bytes, bytes]]]] = asyncio.get_running_loop().create_future()
        parts: asyncio.Queue[bytes | None] = asyncio.Queue()
        body = await request.aread()

        async def receive() -> MutableMapping[str, Any]:
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                started.set_result((message["status"], list(message["headers"])))
                return
            if message.get("body"):
                await parts.put(message["body"])
            if not message.get("more_body"):
                await parts.put(None)

        scope: Scope = {
            "type": "http",
            "method": request.method,
            "path": request.url.path,
            "query_string": request.url.query,
            "headers": list(request.headers.raw),
        }
        task = asyncio.create_task(self.api(scope, receive, send))
        task.add_done_callback(lambda done: _fail(started, done))
        status, headers = await started
        return httpx2.Response(status, headers=headers, stream=_Stream(parts, task))


def _fail(started: "asyncio.Future[tuple[int, list[tuple[bytes, bytes]]]]", task: "asyncio.Task[None]") -> None:
    """The application ended, perhaps without an answer."""
    if started.done():
        return
    error = None if task.cancelled() else task.exception()
    started.set_exception(error or httpx2.ReadError("the fake gave no answer"))


def fake_config(server: str = "http://fake") -> SingleConfig:
    """How lightkube is told to connect; the transport decides where to. No certificates are read, which takes a while."""
    found = KubeConfig.from_one(cluster=Cluster(server=server, insecure=True), user=User(token="fake")).get()  # noqa: S106 # of nobody
    assert found is not None
    return found
