"""The fake API server over HTTP (ASGI), and a transport for lightkube that streams, so that watches can be watched.

    client = AsyncClient(config=fake_config(), transport=FakeTransport(FakeCluster()))

Get, list (labels, fields, pages), watch (from a version, bookmarks, timeouts, 410 Gone), SelfSubjectAccessReview, /version. Where
a real server differs, this one is wrong. Read next: `fake.py` for what it holds.
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
from sageserve.live.kubernetes.kinds import KubeKind
from sageserve.live.kubernetes.objects import KubeObject
from sageserve.live.kubernetes.reader import Right

if TYPE_CHECKING:
    from collections.abc import Mapping

BOOKMARK_S: Final = 0.05  # a quiet watch gets a bookmark this often; a real server waits a minute
Scope: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send: TypeAlias = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class _Refused(Exception):
    def __init__(self, code: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.code, self.reason = code, reason


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
        try:
            if query.get("watch") in ("true", "1"):
                await self._watch(self._place(path), query, send)
                return
            body = await _body(receive) if method == "POST" else b""
            await _json(send, 200 if method == "GET" else 201, self._answer(method, path, query, body))
        except _Refused as refused:
            await _json(send, refused.code, _status(refused))

    def _answer(self, method: str, path: str, query: "Mapping[str, str]", body: bytes) -> Stored:
        if path == "/version":
            major, minor = self.cluster.version.lstrip("v").split(".")[:2]
            return {"major": major, "minor": minor, "gitVersion": self.cluster.version}
        kind, namespace, name = self._place(path)
        if kind.kind == "SelfSubjectAccessReview" and method == "POST":
            return self._review(KubeObject(msgspec.json.decode(body)))
        if method != "GET":
            raise _Refused(405, "MethodNotAllowed", "this server is only read")
        if not name:
            return self._list(kind, namespace, query)
        found = self.cluster.get(kind.kind, namespace, name)
        if found is None:
            raise _Refused(404, "NotFound", f'{kind.resource} "{name}" not found')
        return found

    def _place(self, path: str) -> tuple[KubeKind, str, str]:
        """Kind, namespace and name of a path; a name only where it has one."""
        parts = path.strip("/").split("/")
        group, rest = ("", parts[2:]) if parts[0] == "api" else (parts[1], parts[3:])
        namespace = ""
        if len(rest) > 2 and rest[0] == "namespaces":
            namespace, rest = rest[1], rest[2:]
        kind = self.cluster.installed(group, rest[0]) if rest else None
        if kind is None:
            raise _Refused(404, "NotFound", "the server could not find the requested resource")
        if kind.kind in self.cluster.forbidden:
            raise _Refused(403, "Forbidden", f'{kind.resource} is forbidden: User "fake" cannot list resource "{kind.plural}"')
        return kind, namespace, rest[1] if len(rest) > 1 else ""

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
                gone = _Refused(410, "Expired", f"too old resource version: {at}")
                await _line(send, "ERROR", _status(gone))
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
            raise _Refused(400, "BadRequest", f"field label not supported: {key}")
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


def _status(refused: _Refused) -> Stored:
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": str(refused),
        "reason": refused.reason,
        "code": refused.code,
    }


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
    """How lightkube is told to connect; the transport decides where to."""
    found = KubeConfig.from_one(cluster=Cluster(server=server), user=User(token="fake")).get()  # noqa: S106 # of nobody
    assert found is not None
    return found
