"""Weeks from a server, chunk by chunk: chunks stay within bounds, what cannot be read is a named gap, gateways come along."""

import re
from typing import cast

import numpy as np
import pytest

from sageserve.base.config.clusters import prometheus_at
from sageserve.base.errors import MeasurementError
from sageserve.base.units import SECOND
from sageserve.data.history.raw import RawSeries, label_matches
from sageserve.live.prometheus import read
from sageserve.live.prometheus.queries import growth, histogram_names, matchers, plain_names, selector
from sageserve.live.prometheus.read import HistorySpan, PoolQuery, ServerHistory, first_sample, read_history
from sageserve.live.prometheus.server import NotSeen, NotSeenReason, PrometheusServer, RawAnswer
from tests.data.history.made import BEGIN, STEP, engine, matrix, series
from tests.live.prometheus.stub import Asked, Stub, stub

COUNT = 200
DONE = [2.0 * i for i in range(-8, COUNT + 8)]


def recorded() -> list[RawSeries]:
    shift = 8 * STEP
    return [RawSeries(one.labels, one.time - shift, one.value + 100) for one in engine(DONE, [1.0] * len(DONE))]


class Server:
    """Answers from what it holds; may fail in a stretch, or refuse long ones."""

    def __init__(self, found: list[RawSeries]) -> None:
        self.found = found
        self.fails: tuple[int, int] | None = None
        self.failures = 0
        self.samples_most = 0
        self.fronts: list[RawSeries] = []

    def reply(self, one: Asked) -> None:
        query = one.form.get("query", "")
        if one.path.endswith("/values"):
            one.answer(b'{"status":"success","data":[]}')
        elif query.startswith("count"):
            one.answer(b'{"status":"success","data":{"resultType":"vector","result":[{"metric":{},"value":[1,"5"]}]}}')
        elif one.path.endswith("query_range"):
            one.answer(matrix([]))
        else:
            self._raw(one, query)

    def _raw(self, one: Asked, query: str) -> None:
        length = re.search(r"\[(\d+)ms\]$", query)
        assert length is not None
        end = round(float(one.form["time"]) * SECOND) + 1000
        begin = end - int(length[1]) * 1000
        if self.fails and begin < self.fails[1] and end > self.fails[0] and self.failures > 0:
            self.failures -= 1
            one.answer(b"overloaded", 503)
            return
        held = self.fronts if "epp_request" in query else self.found
        parts = [part for each in held if len(part := each.between(begin, end))]
        self.samples_most = max(self.samples_most, sum(map(len, parts)))
        one.answer(matrix(parts))


def history(server: Server, **changes: object) -> tuple[ServerHistory, Stub]:
    span = HistorySpan(BEGIN, BEGIN + COUNT * STEP, pause=0.0, **changes)  # type: ignore[arg-type] # by name
    with stub(server.reply) as web, PrometheusServer(prometheus_at(web.url)) as client:
        return read_history(client, [PoolQuery("pool", 'model_name="m"')], span), web


def test_a_history_comes_in_chunks_and_is_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(read, "CHUNK_MOST", 30 * STEP)
    server = Server(recorded())
    found, web = history(server)
    pool = found.pools[0]
    assert pool.grid.interval == STEP
    assert pool.arrivals.tolist() == [2] * COUNT
    assert (pool.gaps, found.unread) == ((), [])
    assert server.samples_most <= 5 * 45
    assert len([one for one in web.asked if "ms]" in one.form.get("query", "")]) > 6


def test_a_chunk_that_is_too_large_is_asked_for_in_halves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sageserve.live.prometheus.server.PrometheusServer.raw.__defaults__", (300,))
    found, _ = history(Server(recorded()), interval=STEP)
    assert found.pools[0].arrivals.tolist() == [2] * COUNT
    assert found.unread == []


def test_a_server_that_recovers_costs_nothing_and_one_that_does_not_is_a_named_gap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(read, "CHUNK_MOST", 30 * STEP)
    server = Server(recorded())
    server.fails, server.failures = (BEGIN + 60 * STEP, BEGIN + 70 * STEP), 2
    assert history(server, interval=STEP)[0].unread == []
    server.failures = 1000
    found, _ = history(server, interval=STEP)
    pool = found.pools[0]
    assert "answers 503" in found.unread[0]
    assert len(pool.gaps) == 1
    dark = np.flatnonzero(np.isnan(pool.arrivals))
    assert 25 <= len(dark) <= 95
    assert pool.gaps[0].grown == pytest.approx(2 * len(dark), abs=4)
    assert (pool.arrivals[~np.isnan(pool.arrivals)] == 2).all(), "a gap was filled with something"


def test_nothing_at_all_is_an_error_with_the_reason() -> None:
    with pytest.raises(MeasurementError, match="no such series"):
        history(Server([]))
    with stub(lambda one: one.answer(b"", 401)) as web, PrometheusServer(prometheus_at(web.url)) as client:
        span = HistorySpan(BEGIN, BEGIN + COUNT * STEP, pause=0.0)
        with pytest.raises(MeasurementError, match="401"):
            read_history(client, [PoolQuery("pool", "")], span)


def test_gateways_are_read_beside_engines() -> None:
    server = Server(recorded())
    offered = series("llm_d_epp_request_total", [3.0 * i for i in range(COUNT + 16)], priority="100")
    server.fronts = [RawSeries(offered.labels, offered.time - 8 * STEP, offered.value)]
    found, _ = history(server)
    front = found.fronts[0]
    assert (front.model, front.tier, front.metric) == ("m", "100", "llm_d_epp_request_total")
    assert front.arrivals.tolist() == [3] * COUNT


# --- queries ---


def test_values_of_labels_are_quoted_and_regular_expressions_are_told_apart() -> None:
    assert matchers({"model_name": 'a"b\\c', "pod": "=~x-.*"}) == 'model_name="a\\"b\\\\c",pod=~"x-.*"'
    assert selector("a|b", 'c="d"') == '{__name__=~"a|b",c="d"}'
    with pytest.raises(ValueError, match="not the name of a label"):
        matchers({'a="b",c': "d"})
    assert label_matches("x-1", "=~x-.*")
    assert not label_matches("xx-1", "=~x-.*")
    assert not label_matches("x", "=~(")
    assert label_matches("m", "m")


def test_every_plain_name_of_every_engine_is_asked_for() -> None:
    pattern = re.compile(plain_names())
    names = [
        *(
            "vllm:num_requests_running",
            "kserve_vllm:request_success_total",
            "ray_vllm_prompt_tokens_total",
            "sglang:num_queue_reqs",
        ),
        *("trtllm_num_requests_waiting", "trtllm:num_requests_running", "llamacpp:requests_processing", "tgi_queue_size"),
        "sglang:num_queue_reqs",
    ]
    for name in names:
        assert pattern.fullmatch(name), name
    for name in ("vllm:request_prompt_tokens_bucket", "vllm:kv_cache_usage_perc", "up"):
        assert not pattern.fullmatch(name), name


def test_histograms_are_new_or_old_and_never_both() -> None:
    names = histogram_names(["kserve_vllm:request_prompt_tokens_bucket", "vllm:request_prompt_tokens_bucket", "up"])
    assert names == {"prompt_size": ("vllm:request_prompt_tokens", "kserve_vllm:request_prompt_tokens")}
    query = growth(names["prompt_size"], "_bucket", 'a="b"', 300, ("le",))
    assert query.count(" or ") == 1
    assert query.count("sum by (le)") == 2
    assert 'increase(vllm:request_prompt_tokens_bucket{a="b"}[300s])' in query


class Since:
    """Counts series that are there from an instant on, by pool; answers at equal steps, as query_range does."""

    def __init__(self, first: dict[str, float]) -> None:
        self.first = first
        self.asked = 0

    def over(self, query: str, begin: float, end: float, step: float) -> RawAnswer | NotSeen:
        self.asked += 1
        assert (end - begin) / step <= 11_000
        pool = next((name for name in self.first if name in query), "")
        if not pool:
            return NotSeen(NotSeenReason.TIMEOUT, "late")
        points = np.arange(begin, end + 1e-6, step)
        times = np.round(points[points >= self.first[pool]] * SECOND).astype(np.int64)
        return RawAnswer((RawSeries({}, times, np.ones(len(times))),) if len(times) else ())


@pytest.mark.parametrize("first", [-5.0, 0.0, 1.0, 86_399.0, 86_400.0, 1_000_000.5, 2_591_000.0])
def test_where_samples_begin_is_found_in_a_month_by_four_questions(first: float) -> None:
    server = Since({'pool="late"': first + 3_000_000, 'pool="early"': first})
    pools = [PoolQuery(name, f'pool="{name}"') for name in ("late", "early", "mute")]
    found = first_sample(cast("PrometheusServer", server), pools, 0, 30 * 86_400 * SECOND)
    assert found is not None
    assert max(first, 0.0) <= found / SECOND <= max(first, 0.0) + 12
    assert server.asked <= 5
    assert first_sample(cast("PrometheusServer", server), [PoolQuery("mute", "mute")], 0, SECOND) is None
