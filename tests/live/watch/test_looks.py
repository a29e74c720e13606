"""Looks at a server that answers over HTTP: what is asked, and what of the answers is written down.

Read next: `test_watching.py`, where looks are made up; `stage.py`.
"""

import asyncio
from pathlib import Path
from urllib.parse import parse_qsl

import httpx
import pytest

from sageserve.base.config.clusters import PrometheusSettings
from sageserve.base.units import MINUTE, SECOND
from sageserve.data.rebuild.places import WatchedPool
from sageserve.live.prometheus.server import NotSeen, PrometheusServer
from sageserve.live.watch.looks import late_shares, look_at
from tests.live.watch.stage import SCRAPE, Pod, WatchStage

BUCKETS = "vllm:time_to_first_token_seconds_bucket"


def told(data: object) -> httpx.Response:
    return httpx.Response(200, json={"status": "success", "data": data})


def vector(counts: dict[str, int]) -> httpx.Response:
    result = [{"metric": {"le": le}, "value": [0, str(count)]} for le, count in counts.items()]
    return told({"resultType": "vector", "result": result})


def server(reply: httpx.MockTransport) -> PrometheusServer:
    return PrometheusServer(PrometheusSettings(url="http://prom"), reply)


def test_requests_that_engines_measured_late_are_in_the_minutes_line(tmp_path: Path) -> None:
    stage = WatchStage(tmp_path, [Pod("a", per_s=2.0), Pod("b", last=10 * MINUTE)])

    def answers(request: httpx.Request) -> httpx.Response:
        form = dict(parse_qsl(request.url.query.decode() or request.content.decode()))
        if "label" in request.url.path:
            return told([BUCKETS])
        if BUCKETS in form["query"]:
            return vector({"0.5": 70, "1.0": 90, "+Inf": 100})
        if form["query"] == "up == 0":
            down = [{"metric": {"__name__": "up", "pod": "b"}, "value": [0, "0"]}]
            return told({"resultType": "vector", "result": down})
        begin = stage.at - 10 * MINUTE
        asked = stage.pods if 'model_name="big"' in form["query"] else []
        series = [one for pod in asked for one in pod.series(begin, stage.at)]
        matrix = [
            {"metric": one.labels, "values": [[at / SECOND, str(value)] for at, value in zip(one.time, one.value, strict=True)]}
            for one in series
        ]
        return told({"resultType": "matrix", "result": matrix})

    with server(httpx.MockTransport(answers)) as stage.servers[""]:
        for _ in range(9):
            asyncio.run(stage.watch.look())
            stage.watch.loop.step(stage.clock.at)
            stage.clock.at += SCRAPE
    assert [minute.endpoints[0].late for minute in stage.minutes] == [0.1]
    assert "1 of 2 instances are seen" in stage.watch.notes()[0], "what `up` says of b: it is unseen, and not gone"


def test_a_server_that_lets_everyone_wait_is_asked_one_question_a_look() -> None:
    asked: list[str] = []

    def hangs(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.path)
        raise httpx.ReadTimeout("", request=request)

    watched = [WatchedPool(f"east/big/{number}", "east", {}) for number in range(5)]
    with server(httpx.MockTransport(hangs)) as prom:
        found = look_at(prom, watched, 0, MINUTE)
    assert len(asked) == 1  # a process that is told to stop waits for this one alone
    assert not found.answered
    assert len(found.pools) == 5
    assert all(isinstance(one, NotSeen) and "in time" in one.detail for one in found.pools.values())


def test_bounds_that_two_versions_of_an_engine_write_in_two_ways_are_one() -> None:
    counts = {"0.5": 10, "1": 20, "1.0": 60, "2.0": 100, "+Inf": 120}  # an older engine has 1, a newer one 1.0
    reply = httpx.MockTransport(lambda request: told([BUCKETS]) if "label" in request.url.path else vector(counts))
    with server(reply) as prom:
        late = late_shares(prom, [WatchedPool("east/big/h100", "east", {})], 0, 1.0)["east/big/h100"]
    assert late.requests == 120
    assert late.late == pytest.approx(120 - 20 - 60)
