"""One Prometheus server: each question ends in an answer or in one sentence about why there is none.

Answers have bounds in bytes, samples and time, whatever is sent. Tokens are read from their file for each request, are never in a
message, and never leave for another host: a redirect there is not followed. Knows no metric. Read next: `sight.py`, `read.py`.
"""

import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final, Self, TypeAlias, TypeVar
from urllib.parse import urlsplit

import httpx
import msgspec

from sageserve.base.config.clusters import PrometheusSettings
from sageserve.base.errors import ConfigError, in_words
from sageserve.base.units import SECOND
from sageserve.base.urls import shown_url
from sageserve.data.history.matrix import MatrixReader, NotMatrix
from sageserve.data.history.raw import RawSeries

SAMPLES_MAX: Final = 5_000_000  # of one answer: 80 MB of numbers
BYTES_MAX: Final = 64 << 20  # of an answer that is no stream of samples
SAMPLE_BYTES: Final = 64  # a sample is some 25 bytes of text
HOPS_MAX: Final = 3
LOOPBACK: Final = ("localhost", "127.0.0.1", "::1")  # packing what crosses no network wins nothing and costs both sides
LONG: Final = 2_000  # characters of a query beyond which it is posted: proxies cut long addresses
PATIENCE: Final = 10  # timeouts that a whole answer may take

Answered = TypeVar("Answered")


class NotSeenReason(StrEnum):
    """Why there is no answer, or none that may be acted on: a closed list."""

    UNREACHABLE = "unreachable"
    TLS = "tls"
    TIMEOUT = "timeout"
    NO_TOKEN = "no-token"  # noqa: S105 # the file cannot be read
    UNAUTHORIZED = "unauthorized"  # 401
    FORBIDDEN = "forbidden"  # 403
    REDIRECT = "redirect"
    STATUS = "status"
    NOT_JSON = "not-json"
    REFUSED = "refused"  # the server's own error
    NOT_RAW = "not-raw"
    TOO_LARGE = "too-large"
    CUT = "cut"
    ORDER = "order"
    NOT_SAMPLES = "not-samples"
    PARTIAL = "partial"  # answered with warnings
    NO_SERIES = "no-series"
    STALE = "stale"
    AHEAD = "ahead"  # samples from the future
    NOT_A_NUMBER = "not-a-number"
    FEW = "few"  # of the instances
    DOUBLE = "double"


@dataclass(frozen=True, slots=True)
class NotSeen:
    """No answer."""

    why: NotSeenReason
    detail: str


@dataclass(frozen=True, slots=True)
class RawAnswer:
    """Raw series, and what the server warned of."""

    series: tuple[RawSeries, ...]
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class VectorSample:
    """One element of an instant vector."""

    labels: Mapping[str, str]
    value: float


Vector: TypeAlias = tuple[VectorSample, ...]


class _Element(msgspec.Struct):
    metric: dict[str, str] = {}
    value: tuple[float, str] = (0.0, "NaN")


class _Data(msgspec.Struct):
    resultType: str = ""  # noqa: N815 # Prometheus' spelling
    result: msgspec.Raw = msgspec.Raw(b"[]")


class _Answer(msgspec.Struct):
    status: str = ""
    data: msgspec.Raw = msgspec.Raw(b"null")
    error: str = ""
    warnings: list[str] = []


class PrometheusServer:
    """One server, with connections that are kept.

    Args:
        settings: where it is and how to be let in.
        transport: for tests; none: the network.

    Raises:
        ConfigError: its certificate file cannot be read.
    """

    def __init__(self, settings: PrometheusSettings, transport: httpx.BaseTransport | None = None) -> None:
        self._root = settings.url.rstrip("/")
        self.url: Final = shown_url(self._root)
        """For sentences and pages, which say no user and no password."""
        self._settings = settings
        self._patience = PATIENCE * settings.timeout / SECOND
        headers = ({"Accept-Encoding": "identity"} if _is_here(self.url) else {}) | settings.headers
        self._client = httpx.Client(
            timeout=settings.timeout / SECOND, verify=_trusted(settings.ca_file), transport=transport, headers=headers
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of its connections."""
        self._client.close()

    def raw(self, selector: str, seconds: float, end: float, samples_max: int = SAMPLES_MAX) -> RawAnswer | NotSeen:
        """Samples as they were recorded.

        Args:
            selector: of series, without a range.
            seconds: how far back from `end`.
            end: seconds since 1970; samples of that very instant are not among them.
            samples_max: more are refused.
        """
        reader = MatrixReader(samples_max)
        form = {"query": f"{selector}[{max(1, round(seconds * 1000))}ms]", "time": f"{end - 0.001:.3f}"}

        def take(parts: Iterator[bytes]) -> RawAnswer | NotSeen:
            found: list[RawSeries] = []
            for part in parts:
                found += reader.feed(part)
            reader.close()
            return RawAnswer(tuple(found), reader.warnings)

        try:
            return self._ask("query", form, samples_max * SAMPLE_BYTES + BYTES_MAX, take)
        except NotMatrix as error:
            return NotSeen(NotSeenReason(error.why), f"{self.url}: {error}")

    def over(self, query: str, begin: float, end: float, step: float) -> RawAnswer | NotSeen:
        """A query at equal steps (`query_range`), from `begin` to `end`, both included; at most 11,000 of them."""
        reader = MatrixReader(SAMPLES_MAX)
        form = {"query": query, "start": f"{begin:.3f}", "end": f"{end:.3f}", "step": f"{step:g}"}

        def take(parts: Iterator[bytes]) -> RawAnswer | NotSeen:
            found = [one for part in parts for one in reader.feed(part)]
            reader.close()
            return RawAnswer(tuple(found), reader.warnings)

        try:
            return self._ask("query_range", form, SAMPLES_MAX * SAMPLE_BYTES, take)
        except NotMatrix as error:
            return NotSeen(NotSeenReason(error.why), f"{self.url}: {error}")

    def vector(self, query: str, at: float) -> Vector | NotSeen:
        """A query's value at one instant; a scalar is one sample without labels."""
        data = self._data("query", {"query": query, "time": f"{at:.3f}"}, _Data)
        if isinstance(data, NotSeen):
            return data
        try:
            if data.resultType == "scalar":
                _, text = msgspec.json.decode(data.result, type=tuple[float, str])
                return (VectorSample({}, float(text)),)
            found = msgspec.json.decode(data.result, type=list[_Element])
            return tuple(VectorSample(one.metric, float(one.value[1])) for one in found)
        except ValueError:
            return NotSeen(NotSeenReason.NOT_RAW, f"{self.url} answers {query} with something that is no vector")

    def clock(self) -> float | NotSeen:
        """Seconds since 1970 by the server's own clock."""
        data = self._data("query", {"query": "time()"}, _Data)
        if isinstance(data, NotSeen):
            return data
        try:
            return float(msgspec.json.decode(data.result, type=tuple[float, str])[1])
        except ValueError:
            return NotSeen(NotSeenReason.NOT_RAW, f"{self.url} does not say what time it is")

    def values(self, label: str, selector: str, begin: float, end: float) -> tuple[str, ...] | NotSeen:
        """All values of a label among these series."""
        form = {"match[]": selector, "start": f"{begin:.3f}", "end": f"{end:.3f}"}
        found = self._data(f"label/{label}/values", form, list[str])
        return found if isinstance(found, NotSeen) else tuple(found)

    def version(self) -> str | NotSeen:
        """What the server says it is, such as `2.42.0`; empty where it has no such page but answers queries."""
        found = self._data("status/buildinfo", {}, dict[str, object])
        if isinstance(found, NotSeen):
            if found.why in (NotSeenReason.STATUS, NotSeenReason.NOT_JSON, NotSeenReason.REFUSED):
                asked = self.vector("vector(1)", 0)
                return asked if isinstance(asked, NotSeen) else ""
            return found
        return str(found.get("version", ""))

    def _data(self, path: str, form: Mapping[str, str], kind: type[Answered]) -> Answered | NotSeen:
        def take(parts: Iterator[bytes]) -> Answered | NotSeen:
            try:
                answer = msgspec.json.decode(b"".join(parts), type=_Answer)
                if answer.status != "success":
                    return NotSeen(NotSeenReason.REFUSED, f"{self.url} refuses: {answer.error or 'no reason given'}")
                if answer.warnings:
                    return NotSeen(NotSeenReason.PARTIAL, f"{self.url} answers in part: {answer.warnings[0]}")
                return msgspec.json.decode(answer.data, type=kind)
            except (ValueError, RecursionError):
                return NotSeen(NotSeenReason.NOT_JSON, f"{self.url}/api/v1/{path} answers with no JSON of Prometheus")

        return self._ask(path, form, BYTES_MAX, take)

    def _ask(
        self, path: str, form: Mapping[str, str], bytes_max: int, take: Callable[[Iterator[bytes]], Answered | NotSeen]
    ) -> Answered | NotSeen:
        """Send, follow redirects on the same host, and hand over the answer's bytes."""
        url = f"{self._root}/api/v1/{path}"
        try:
            for _ in range(HOPS_MAX + 1):
                posted = sum(map(len, form.values())) > LONG
                asked = {"data": dict(form)} if posted else {"params": dict(form)}
                with self._client.stream("POST" if posted else "GET", url, auth=self._auth(), **asked) as answer:  # type: ignore[arg-type] # one of two keywords
                    if answer.is_redirect:
                        target = answer.next_request.url if answer.next_request else answer.url
                        if _origin(target) != _origin(answer.url):
                            return NotSeen(
                                NotSeenReason.REDIRECT,
                                f"{self.url} redirects to {target.host}: not followed, for credentials would go there",
                            )
                        url = str(target.copy_with(query=None))
                        continue
                    if refused := self._refusal(answer):
                        return refused
                    return take(_bounded(answer, bytes_max, self._patience))
            return NotSeen(NotSeenReason.REDIRECT, f"{self.url} redirects in a circle")
        except (OSError, UnicodeError) as error:
            unsendable = f"{self.url} is not asked: the token, the password or a header is no plain text"
            unread = f"cannot read {error.filename}: {error.strerror}" if isinstance(error, OSError) else unsendable
            return NotSeen(NotSeenReason.NO_TOKEN, unread)
        except _TooMuch as error:
            return NotSeen(error.why, f"{self.url}: {error}")
        except httpx.TimeoutException:
            return NotSeen(NotSeenReason.TIMEOUT, f"{self.url} does not answer in time")
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            said = "it is no URL" if isinstance(error, httpx.InvalidURL) and "@" in self._root else in_words(error)
            return NotSeen(_broken(error), f"{self.url} cannot be asked: {said}")

    def _auth(self) -> httpx.Auth | None:
        settings = self._settings
        if settings.bearer_file is not None:
            return _Bearer(Path(settings.bearer_file).read_text("utf-8").strip())
        if settings.basic is not None:
            return httpx.BasicAuth(settings.basic.user, Path(settings.basic.password_file).read_text("utf-8").strip())
        return None

    def _refusal(self, answer: httpx.Response) -> NotSeen | None:
        match answer.status_code:
            case 401:
                return NotSeen(
                    NotSeenReason.UNAUTHORIZED, f"{self.url} answers 401: the token or password is missing or not valid"
                )
            case 403:
                return NotSeen(NotSeenReason.FORBIDDEN, f"{self.url} answers 403: these credentials may not query")
            case 200 | 400 | 422:  # errors of queries are JSON with a reason
                return None
            case code:
                return NotSeen(NotSeenReason.STATUS, f"{self.url} answers {code}")


class _Bearer(httpx.Auth):
    def __init__(self, token: str) -> None:
        self._token = token

    def auth_flow(self, request: httpx.Request) -> Iterator[httpx.Request]:  # type: ignore[override] # a generator without answers
        request.headers["Authorization"] = f"Bearer {self._token}"
        yield request


class _TooMuch(Exception):
    def __init__(self, why: NotSeenReason, text: str) -> None:
        super().__init__(text)
        self.why = why


def _bounded(answer: httpx.Response, bytes_max: int, patience: float) -> Iterator[bytes]:
    began = time.monotonic()  # noqa: TID251 # an answer that never ends is bounded by the wall, as nobody steps this clock
    size = 0
    for part in answer.iter_bytes():
        size += len(part)
        if size > bytes_max:
            raise _TooMuch(NotSeenReason.TOO_LARGE, f"the answer is larger than {bytes_max >> 20} MiB")
        if time.monotonic() - began > patience:  # noqa: TID251 # as above
            raise _TooMuch(NotSeenReason.TIMEOUT, f"the answer has no end after {patience:g} s")
        yield part


def _origin(url: httpx.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port


def _is_here(url: str) -> bool:
    try:
        return urlsplit(url).hostname in LOOPBACK
    except ValueError:
        return False


def _trusted(ca_file: str | None) -> ssl.SSLContext | bool:
    if ca_file is None:
        return True
    try:
        return ssl.create_default_context(cafile=ca_file)
    except OSError as error:
        raise ConfigError(
            f"cannot use the certificates of {ca_file}: {in_words(error)}", hint="ca_file is a file in PEM format"
        ) from None


def _broken(error: Exception) -> NotSeenReason:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLError):
            return NotSeenReason.TLS
        cause = cause.__cause__ or cause.__context__
    return NotSeenReason.TLS if "certificate" in str(error).lower() else NotSeenReason.UNREACHABLE
