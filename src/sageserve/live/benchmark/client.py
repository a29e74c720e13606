"""One streamed request, measured: when it was sent, when its first and last token came, how many tokens there were.

The clock is read when bytes arrive, before they are looked at. Tokens are counted by the engine (`usage`), never by chunks: a
chunk may hold several tokens or none. Knows no load and no plan. The key goes into one header and into no message.
Read next: `shape.py` for how an engine wants to be asked; docs/reference/latency.md for the definitions.
"""

import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlsplit

import httpx
import msgspec
from msgspec import Struct

from sageserve.base.errors import MeasurementError
from sageserve.base.units import Micros
from sageserve.base.urls import is_url

CONNECT_S: Final = 10.0
SILENCE_S: Final = 300.0  # without a byte: a request that waits longer in the queue is counted as failed
LINE_MAX: Final = 1 << 20  # bytes of one event
REPLY_MAX: Final = 4 << 20  # bytes of any other answer
_SHOWN: Final = 200  # characters of an engine's error message

Prompt = list[int] | str


def now_us() -> Micros:
    """Microseconds of a clock that never goes back."""
    return time.monotonic_ns() // 1000  # noqa: TID251  # the shell's one clock: the benchmark measures a real engine


class RequestFailed(Exception):
    """One request came to nothing; `status` is 0 where there was no answer at all."""

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True)
class Body:
    """What is sent.

    Args:
        path: below the API's root, such as /completions.
        fields: of the JSON object.
    """

    path: str
    fields: dict[str, object]


@dataclass(frozen=True, slots=True)
class RequestSample:
    """One finished request; times by `now_us`.

    Args:
        sent: right before the request left.
        stamps: arrival of every chunk that carried output, never empty.
        prompt: prompt tokens, by the engine's count.
        output: output tokens, by the engine's count.
        cached: prompt tokens that a prefix cache held; None when the engine does not say.
    """

    sent: Micros
    stamps: tuple[Micros, ...]
    prompt: int
    output: int
    cached: int | None

    @property
    def ttft(self) -> Micros:
        """From sending to the first chunk with output."""
        return self.stamps[0] - self.sent

    @property
    def e2e(self) -> Micros:
        """From sending to the last chunk with output."""
        return self.stamps[-1] - self.sent

    @property
    def tpot(self) -> float | None:
        """Microseconds per token after the first; None for a single token."""
        return (self.e2e - self.ttft) / (self.output - 1) if self.output > 1 else None


_ABSENT: Final = msgspec.Raw()


def _present(value: msgspec.Raw) -> bool:
    return bytes(value) not in {b"", b"null"}


class _Delta(Struct):
    role: str | None = None
    content: str | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None
    tool_calls: msgspec.Raw = _ABSENT

    def says_something(self) -> bool:
        words = self.content or self.reasoning or self.reasoning_content
        return bool(words) or _present(self.tool_calls) or self.role is None


class _Choice(Struct):
    text: str | None = None
    delta: _Delta | None = None

    def says_something(self) -> bool:
        return self.text is not None if self.delta is None else self.delta.says_something()


class _Details(Struct):
    cached_tokens: int | None = None


class _Usage(Struct):
    prompt_tokens: int = 0
    completion_tokens: int = 0
    prompt_tokens_details: _Details | None = None


class _Chunk(Struct):
    choices: list[_Choice] = []
    usage: _Usage | None = None
    error: msgspec.Raw = _ABSENT


class _Events:
    """Bytes into the JSON texts of `data:` lines; a line may be cut anywhere."""

    def __init__(self) -> None:
        self.rest = b""

    def feed(self, data: bytes) -> Iterator[bytes]:
        *lines, self.rest = (self.rest + data).split(b"\n")
        if len(self.rest) > LINE_MAX:
            raise RequestFailed(f"the engine sent an event of more than {LINE_MAX} bytes")
        for line in lines:
            if line.startswith(b"data:"):
                yield line[5:].strip()


@dataclass(slots=True)
class _Heard:
    """What has been heard of one answer so far."""

    stamps: list[Micros] = field(default_factory=list)
    usage: _Usage | None = None
    done: bool = False

    def take(self, event: bytes, stamp: Micros) -> None:
        if event == b"[DONE]":
            self.done = True
            return
        chunk = _CHUNK.decode(event)
        if _present(chunk.error):
            raise RequestFailed(f"the engine broke the answer off: {bytes(chunk.error).decode(errors='replace')[:_SHOWN]}")
        if any(choice.says_something() for choice in chunk.choices):
            self.stamps.append(stamp)
        if chunk.usage is not None:
            self.usage = chunk.usage


_CHUNK: Final = msgspec.json.Decoder(_Chunk)
_JSON: Final = msgspec.json.Encoder()


def api_root(url: str) -> str:
    """The URL below which /completions lives, from what a user may write: with /v1, without it, with a slash at the end.

    Raises:
        MeasurementError: it is not an http(s) URL, or it holds a password.
    """
    whole = url if "//" in url else f"http://{url}"
    if not is_url(whole):
        said = "the URL of an engine begins with http:// or https:// and a host"
        raise MeasurementError(said, hint="such as http://127.0.0.1:8000/v1")
    parts = urlsplit(whole)
    if parts.username or parts.password or parts.query:
        raise MeasurementError(
            "the URL must hold no user, password or query", hint="put the key into a variable and name it with --key-env"
        )
    path = parts.path.rstrip("/")
    return f"{parts.scheme}://{parts.netloc}{path if path.endswith('/v1') else path + '/v1'}"


class EngineClient:
    """Asks one engine. Use inside `connect`.

    Args:
        http: the connection pool.
        root: as from `api_root`.
        key: for scrubbing it out of what the engine says.
    """

    def __init__(self, http: httpx.AsyncClient, root: str, key: str | None) -> None:
        self._http = http
        self._key = key
        self.root = root

    async def get(self, url: str) -> bytes:
        """The body of a small page.

        Raises:
            RequestFailed: no answer, an error status, or more than 4 MiB.
        """
        try:
            async with self._http.stream("GET", url) as response:
                body = await self._whole(response)
        except httpx.HTTPError as error:
            raise RequestFailed(self.scrub(_words(error))) from None
        if response.status_code != httpx.codes.OK:
            raise RequestFailed(self._refusal(response.status_code, body), response.status_code)
        return body

    async def ask(self, body: Body) -> RequestSample:
        """Send one request and follow its answer to the end.

        Raises:
            RequestFailed: it was refused, broke off, did not stream, or came without `usage`.
        """
        content = _JSON.encode(body.fields)
        heard = _Heard()
        sent = now_us()
        try:
            headers = {"content-type": "application/json", "accept": "text/event-stream"}
            async with self._http.stream("POST", self.root + body.path, content=content, headers=headers) as response:
                await self._follow(response, heard)
        except httpx.HTTPError as error:
            raise RequestFailed(self.scrub(_words(error))) from None
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise RequestFailed(self.scrub(f"the engine sent an event that is no completion chunk: {error}")) from None
        return _sample(sent, heard)

    async def _follow(self, response: httpx.Response, heard: _Heard) -> None:
        if response.status_code != httpx.codes.OK:
            raise RequestFailed(self._refusal(response.status_code, await self._whole(response)), response.status_code)
        if not response.headers.get("content-type", "").startswith("text/event-stream"):
            raise RequestFailed("the engine does not stream: it ignores `stream: true`", response.status_code)
        events = _Events()
        async for data in response.aiter_bytes():
            stamp = now_us()
            for event in events.feed(data):
                heard.take(event, stamp)
            if heard.done:  # an engine may keep the connection open after its last event
                return

    async def _whole(self, response: httpx.Response) -> bytes:
        body = b""
        async for data in response.aiter_bytes():
            body += data
            if len(body) > REPLY_MAX:
                raise RequestFailed(f"the engine answered with more than {REPLY_MAX} bytes", response.status_code)
        return body

    def _refusal(self, status: int, body: bytes) -> str:
        text = " ".join(body.decode(errors="replace").split())
        return self.scrub(f"HTTP {status}: {text[:_SHOWN]}")

    def scrub(self, text: str) -> str:
        """The text without the key, should an engine echo it."""
        return text.replace(self._key, "***") if self._key else text


@asynccontextmanager
async def connect(url: str, key: str | None, timeout_s: float = SILENCE_S) -> AsyncIterator[EngineClient]:
    """A client of the engine at `url`; `key` is sent as a bearer token.

    Raises:
        MeasurementError: the URL or the key cannot be used.
    """
    root = api_root(url)
    if key is not None and not (key.isascii() and key.isprintable() and " " not in key):
        raise MeasurementError("the key holds characters that cannot be sent", hint="a line end at its end, perhaps")
    async with httpx.AsyncClient(
        headers={"authorization": f"Bearer {key}"} if key else {},
        timeout=httpx.Timeout(timeout_s, connect=CONNECT_S),
        limits=httpx.Limits(max_connections=None, max_keepalive_connections=None),
        trust_env=False,  # no proxy between the clock and the engine, no password from ~/.netrc
    ) as http:
        yield EngineClient(http, root, key)


def _sample(sent: Micros, heard: _Heard) -> RequestSample:
    if heard.usage is None:
        why = "without `usage`: it ignores stream_options.include_usage" if heard.done else "before it was complete"
        raise RequestFailed(f"the engine ended the stream {why}")
    if not heard.stamps or heard.usage.completion_tokens < 1:
        raise RequestFailed("the engine answered with no token at all")
    details = heard.usage.prompt_tokens_details
    return RequestSample(
        sent=sent,
        stamps=tuple(heard.stamps),
        prompt=heard.usage.prompt_tokens,
        output=heard.usage.completion_tokens,
        cached=None if details is None else details.cached_tokens,
    )


def _words(error: httpx.HTTPError) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
