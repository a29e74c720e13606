"""Whatever a server answers, a look at a pool ends in one sentence and a reason; credentials stay where they belong."""

import itertools
import ssl
import subprocess
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from sageserve.base.config.clusters import BasicSettings, PrometheusSettings
from sageserve.base.errors import ConfigError
from sageserve.base.units import MINUTE, SECOND
from sageserve.data.history.raw import RawSeries
from sageserve.live.prometheus.server import NotSeen, NotSeenReason, PrometheusServer, RawAnswer
from sageserve.live.prometheus.sight import PoolSight, blind_after, look
from tests.data.history.made import BEGIN, STEP, engine, matrix, series
from tests.live.prometheus.stub import Asked, stub

NOW = BEGIN + 8 * STEP + SECOND
DONE = [10.0] * 9
HEALTHY = engine(DONE, [2.0] * 9)
LIMIT = 90 * SECOND


def seen(body: bytes, status: int = 200, ready: set[str] | None = None) -> PoolSight:
    return answered(lambda one: one.answer(body, status), ready)


def answered(reply: Callable[[Asked], None], ready: set[str] | None = None, **settings: object) -> PoolSight:
    with stub(reply) as server, PrometheusServer(PrometheusSettings.model_validate({"url": server.url} | settings)) as client:
        return look(client.raw("{a=~'b'}", 120, NOW / SECOND, 10_000), NOW, LIMIT, ready)


def at(pool: list[RawSeries], offset: int) -> list[RawSeries]:
    return [RawSeries(one.labels, one.time + offset, one.value) for one in pool]


def values(name: str, value: float) -> list[RawSeries]:
    return [RawSeries(one.labels, one.time, one.value * 0 + value) if name in one.name else one for one in HEALTHY]


def test_what_is_healthy_is_seen() -> None:
    found = seen(matrix(HEALTHY))
    assert (found.state, found.idle, found.why, found.detail) == ("seen", False, None, "")
    assert found.pods[0].running == 2
    assert found.pods[0].matched["running"] == "vllm:num_requests_running"


def test_zeros_are_idle_and_nothing_is_blind() -> None:
    idle = seen(matrix(engine(DONE, [0.0] * 9)))
    assert (idle.state, idle.idle) == ("seen", True)
    nothing = seen(matrix([]), ready={"a", "b"})
    assert (nothing.state, nothing.idle, nothing.why) == ("blind", False, NotSeenReason.NO_SERIES)
    assert "while 2 pods are Ready" in nothing.detail


@pytest.mark.parametrize(
    ("body", "status", "why", "said"),
    [
        (matrix([]), 200, NotSeenReason.NO_SERIES, "no series"),
        (matrix(values("running", float("nan"))), 200, NotSeenReason.NOT_A_NUMBER, "in numbers"),
        (matrix(values("waiting", float("inf"))), 200, NotSeenReason.NOT_A_NUMBER, "in numbers"),
        (matrix([one for one in HEALTHY if "waiting" not in one.name]), 200, NotSeenReason.NOT_A_NUMBER, "in numbers"),
        (matrix(HEALTHY, ["store east is not there"]), 200, NotSeenReason.PARTIAL, "store east is not there"),
        (b"no healthy upstream", 503, NotSeenReason.STATUS, "answers 503"),
        (b"<html>sign in</html>", 200, NotSeenReason.NOT_JSON, "no JSON"),
        (b"who are you", 401, NotSeenReason.UNAUTHORIZED, "401"),
        (b"not you", 403, NotSeenReason.FORBIDDEN, "403"),
        (b'{"status":"error","error":"query timed out"}', 422, NotSeenReason.REFUSED, "query timed out"),
        (matrix([series("vllm:num_requests_running", [1, 2], BEGIN, -STEP)]), 200, NotSeenReason.ORDER, "out of order"),
        (matrix(at(HEALTHY, 10 * MINUTE)), 200, NotSeenReason.AHEAD, "ahead of this clock"),
        (matrix(at(HEALTHY, -10 * MINUTE)), 200, NotSeenReason.STALE, "old, more than 1m30s"),
        (matrix(HEALTHY)[:-200], 200, NotSeenReason.CUT, "in the middle"),
        (matrix([*HEALTHY, *engine(DONE, [2.0] * 9, replica="b")]), 200, NotSeenReason.DOUBLE, "told apart by replica"),
    ],
)
def test_hostile_answers_end_in_a_sentence(body: bytes, status: int, why: NotSeenReason, said: str) -> None:
    found = seen(body, status)
    assert found.state != "seen"
    assert not found.idle
    assert found.why is why
    assert said in found.detail
    assert "\n" not in found.detail


def test_an_answer_that_is_nested_without_end_is_no_answer() -> None:
    body = b'{"x":' + b"[" * 100_000
    with stub(lambda one: one.answer(body)) as server, PrometheusServer(PrometheusSettings(url=server.url)) as client:
        found = client.clock(), client.raw("up", 60, NOW / SECOND, 10)
    assert [isinstance(one, NotSeen) and one.why for one in found] == [NotSeenReason.NOT_JSON] * 2


def test_too_few_instances_are_partly_seen() -> None:
    found = seen(matrix(HEALTHY), ready={"a", "b"})
    assert (found.state, found.why, found.detail) == ("partial", NotSeenReason.FEW, "1 of 2 instances are seen")
    old = at(engine(DONE, [1.0] * 9, pod="b"), -10 * MINUTE)
    assert seen(matrix([*HEALTHY, *old])).why is NotSeenReason.FEW


def test_a_large_body_and_one_without_end_take_bounded_memory() -> None:
    head = matrix([]).split(b"]}")[0] + b'{"metric":{"__name__":"vllm:num_requests_running","pod":"a"},"values":['
    endless = (head if i == 0 else b'[%d,"1"],' % i * 100 for i in itertools.count())
    tracemalloc.start()
    found = answered(lambda one: one.stream(endless))
    large = answered(lambda one: one.stream(b'{"status":"success" ' if i == 0 else b" " * (1 << 20) for i in range(70)))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found.why is NotSeenReason.TOO_LARGE
    assert large.why is NotSeenReason.TOO_LARGE
    assert peak < 40 << 20


def test_an_answer_that_drips_is_left() -> None:
    def drip(one: Asked) -> None:
        one.stream(_slowly(b" ", 0.05))

    assert answered(drip, timeout="100ms").why is NotSeenReason.TIMEOUT


def _slowly(part: bytes, seconds: float) -> Iterator[bytes]:
    while True:
        time.sleep(seconds)
        yield part


def test_a_redirect_to_another_host_is_not_followed(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("sesame\n")
    with stub(lambda one: one.answer(matrix(HEALTHY))) as other:
        elsewhere = other.url.replace("127.0.0.1", "localhost") + "/api/v1/query"
        found = answered(
            lambda one: one.answer(b"", 307, Location=elsewhere), bearer_file=str(token), headers={"X-Scope-OrgID": "llm"}
        )
        assert other.asked == [], "the request, and its token, went to another host"
    assert found.why is NotSeenReason.REDIRECT
    assert "sesame" not in found.detail


def test_a_redirect_on_the_same_host_is_followed_but_not_for_ever() -> None:
    def moved(one: Asked) -> None:
        if one.path.startswith("/prom"):
            one.answer(matrix(HEALTHY))
        else:
            one.answer(b"", 301, Location=f"/prom{one.path}")

    assert answered(moved).state == "seen"
    assert answered(lambda one: one.answer(b"", 302, Location=one.path)).why is NotSeenReason.REDIRECT


def test_tokens_passwords_and_headers_are_sent_and_read_again(tmp_path: Path) -> None:
    token, password = tmp_path / "token", tmp_path / "password"
    token.write_text("first\n")
    password.write_text("sesame\n")
    with stub(lambda one: one.answer(matrix(HEALTHY))) as server:
        settings = PrometheusSettings(url=server.url, bearer_file=str(token), headers={"X-Scope-OrgID": "llm"})
        with PrometheusServer(settings) as client:
            client.raw("{a='b'}", 60, 1)
            token.write_text("second\n")
            client.raw("{a='b'}", 60, 1)
            token.unlink()
            assert isinstance(gone := client.raw("{a='b'}", 60, 1), NotSeen)
        basic = PrometheusSettings(url=server.url, basic=BasicSettings(user="me", password_file=str(password)))
        with PrometheusServer(basic) as client:
            client.raw("{a='b'}", 60, 1)
    assert [one.headers.get("Authorization") for one in server.asked] == ["Bearer first", "Bearer second", "Basic bWU6c2VzYW1l"]
    assert server.asked[0].headers["X-Scope-OrgID"] == "llm"
    assert gone.why is NotSeenReason.NO_TOKEN


def test_a_long_query_is_posted_and_a_short_one_is_not() -> None:
    with stub(lambda one: one.answer(matrix(HEALTHY))) as server, PrometheusServer(PrometheusSettings(url=server.url)) as client:
        long = "{pod=~'" + "|".join(map(str, range(2000))) + "'}"
        assert isinstance(client.raw("{a='b'}", 60, 1), RawAnswer)
        assert isinstance(client.raw(long, 60, 1), RawAnswer)
    assert [bool(one.headers.get("Content-Length")) for one in server.asked] == [False, True]
    assert server.asked[1].form["query"] == long + "[60000ms]"


def test_nobody_there_and_certificates(tmp_path: Path) -> None:
    with PrometheusServer(PrometheusSettings(url="http://127.0.0.1:1")) as client:
        assert look(client.raw("{a='b'}", 60, 1), NOW, LIMIT).why is NotSeenReason.UNREACHABLE
    with pytest.raises(ConfigError, match="ca_file"):
        PrometheusServer(PrometheusSettings(url="https://127.0.0.1:1", ca_file=str(tmp_path / "none.pem")))


def test_tls_is_checked_against_the_file_that_was_given(tmp_path: Path) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    made = ("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2")
    subject = ("-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate))
    subprocess.run([*made, *subject], check=True, capture_output=True)
    with stub(lambda one: one.answer(matrix(HEALTHY))) as server:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        server.http.socket = context.wrap_socket(server.http.socket, server_side=True)
        url = server.url.replace("http:", "https:")
        for ca_file, why in ((str(certificate), None), (None, NotSeenReason.TLS)):
            with PrometheusServer(PrometheusSettings(url=url, ca_file=ca_file)) as client:
                assert look(client.raw("{a='b'}", 60, 1), NOW, LIMIT).why is why


def test_blindness_waits_for_three_scrapes() -> None:
    assert blind_after(30 * SECOND, 15 * SECOND) == 90 * SECOND
    assert blind_after(30 * SECOND, 60 * SECOND) == 180 * SECOND
    assert blind_after(5 * MINUTE, 15 * SECOND) == 5 * MINUTE


@pytest.mark.parametrize(
    ("url", "packed"), [("http://prom.east:9090", True), ("http://localhost:9090", False), ("http://[::1]", False)]
)
def test_answers_are_packed_for_a_network_alone(url: str, packed: bool) -> None:
    asked: list[str] = []

    def reply(request: httpx.Request) -> httpx.Response:
        asked.append(request.headers["Accept-Encoding"])
        return httpx.Response(200, content=matrix(HEALTHY))

    for headers in ({}, {"Accept-Encoding": "br"}):
        settings = PrometheusSettings.model_validate({"url": url, "headers": headers})
        with PrometheusServer(settings, httpx.MockTransport(reply)) as client:
            client.raw("up", 60, NOW / SECOND)
    assert ["gzip" in one for one in asked] == [packed, False]
    assert asked[1] == "br", "what settings say goes first"
