"""Against a real Prometheus: what it scraped of our engines is what was sent, and a backfilled history comes back as it was."""

import asyncio
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import numpy as np
import pytest

from sageserve.base.config.clusters import prometheus_at
from sageserve.base.errors import MeasurementError, SageServeError
from sageserve.base.rng import stream
from sageserve.base.units import HOUR, SECOND
from sageserve.cli.running import ask_status, running
from sageserve.core.actions import Blocked
from sageserve.core.events import InstanceReady
from sageserve.data.history.collect import PoolCollector
from sageserve.data.history.records import Grid, PoolHistory
from sageserve.data.rebuild.places import watched_pools
from sageserve.data.rebuild.render import PlayedRequests, render, write_openmetrics
from sageserve.data.results.journal import read_stamped
from sageserve.data.scenarios.load import load_scenario
from sageserve.live.control.status import Status
from sageserve.live.prometheus.read import HistorySpan, PoolQuery, ServerHistory, read_history
from sageserve.live.prometheus.server import NotSeen, PrometheusServer
from sageserve.live.prometheus.sight import look
from sageserve.live.watch.looks import late_shares
from sageserve.live.watch.past import read_past
from tests.live.emulator.process import Running, engine
from tests.live.prometheus.real import backfill, free_port, prometheus
from tests.live.scaler.keda import Poll, poll
from tests.live.watch.command import FLEET, POOL, Watching, watching

SCRAPE = """
global: {{scrape_interval: {interval}, scrape_timeout: {interval}}}
scrape_configs:
  - job_name: engines
    static_configs: [{{targets: [{targets}]}}]
"""


@dataclass
class Log:
    """When requests were sent, and what came of them."""

    sent: list[float] = field(default_factory=list)
    prompt: int = 0
    output: int = 0


def send(running: Running, log: Log, client: httpx.Client) -> None:
    log.sent.append(time.time())  # noqa: TID251 # the log of a client
    usage = client.post(f"{running.url}/v1/completions", json={"prompt": "a " * 50, "max_tokens": 7, "ignore_eos": True}).json()[
        "usage"
    ]
    log.prompt += usage["prompt_tokens"]
    log.output += usage["completion_tokens"]


def history(url: str, begin: float, end: float, interval: float) -> ServerHistory:
    span = HistorySpan(round(begin * SECOND), round(end * SECOND), round(interval * SECOND))
    with PrometheusServer(prometheus_at(url)) as server:
        return read_history(server, [PoolQuery("engines", 'model_name="small"')], span)


def wait_until_scraped(url: str, count: int) -> None:
    with PrometheusServer(prometheus_at(url)) as server:
        for _ in range(600):
            time.sleep(0.1)
            up = server.vector("count(up == 1)", time.time())  # noqa: TID251 # the log of a client
            if not isinstance(up, NotSeen) and up and up[0].value == count:
                return
    pytest.fail("Prometheus does not scrape the engines")


def watched(
    tmp_path: Path,
    scrape: float,
    interval: float,
    rounds: int,
    beside: Callable[[str], AbstractContextManager[Callable[[], None]]] | None = None,
) -> tuple[PoolHistory, Log, float]:
    """Four engines under a load that comes and goes, and one of them is killed in between.

    Requests keep a scrape's distance from the edges of intervals: what falls between the two scrapes around an edge may be on
    either side of it, and no reader can tell.
    """
    log = Log()
    folders = [tmp_path / str(number) for number in range(5)]
    for folder in folders:
        folder.mkdir()
    with ExitStack() as stack:
        client = stack.enter_context(httpx.Client())
        engines = [stack.enter_context(engine(folder, "--speed", "50")) for folder in folders[:4]]
        targets = ", ".join(f"'{one.url.removeprefix('http://')}'" for one in engines)
        config = SCRAPE.format(interval=f"{scrape * 1000:.0f}ms", targets=targets)
        url = stack.enter_context(prometheus(folders[4], config))
        wait_until_scraped(url, 4)
        finish = stack.enter_context(beside(url)) if beside is not None else None
        time.sleep(2 * scrape)
        begin = time.time()  # noqa: TID251 # the log of a client
        number, whole = 0, True
        while (at := time.time() - begin) < rounds * interval:  # noqa: TID251 # the log of a client
            turn, place = divmod(at, interval)
            if whole and turn == rounds // 2:
                whole = False
                time.sleep(3 * scrape)  # so that all it counted is seen
                engines[3].process.kill()
                engines[3].process.wait()
                engines[3] = stack.enter_context(engine(folders[3], "--speed", "50", "--port", engines[3].url.rsplit(":", 1)[1]))
            near = min(place, interval - place) < 2 * scrape
            for _ in range(0 if near else 3 if turn % 2 else 1):
                send(engines[number % 4], log, client)
                number += 1
            time.sleep(interval / 24)
        time.sleep(5 * scrape)
        if finish is not None:
            finish()
        found = history(url, begin, begin + rounds * interval, interval)
    assert not found.unread
    return found.pools[0], log, begin


def assert_watched(pool: PoolHistory, log: Log, begin: float, interval: float) -> None:
    rounds = pool.grid.count
    sent = np.histogram(np.array(log.sent) - begin, bins=np.arange(rounds + 1) * interval)[0]
    assert pool.gaps == ()
    assert np.abs(pool.arrivals - sent).max() <= 1.0, (pool.arrivals.round(2).tolist(), sent.tolist())
    assert pool.resets == 1
    assert float(pool.prompt_tokens.sum()) == pytest.approx(log.prompt, rel=1e-3)
    assert float(pool.output_tokens.sum()) == pytest.approx(log.output, rel=1e-3)


def test_what_was_scraped_is_what_was_sent_and_a_process_that_watches_sees_it(tmp_path: Path) -> None:
    folder = tmp_path / "watch"
    folder.mkdir()
    seen: list[Status] = []
    pages: list[str] = []
    processes: list[Watching] = []
    polls: list[Poll] = []
    scaler = f"127.0.0.1:{free_port()}"

    @contextmanager
    def beside(url: str) -> Iterator[Callable[[], None]]:
        def finish() -> None:
            found = running(one.state)
            for _ in range(100):
                seen.append(ask_status(found))
                if seen[-1].tiers[0].requests > 0:
                    break
                time.sleep(0.1)
            polls.append(asyncio.run(poll(scaler, "serving/small")))
            pages.append(httpx.get(f"{found.control_url}/metrics").text)
            assert one.end() == 0, one.stderr

        with watching(folder, url, "--json", "--set", f"live.scaler.listen={scaler}") as one:
            processes.append(one)
            yield finish

    pool, log, begin = watched(tmp_path, 0.2, 3.0, 5, beside)
    assert_watched(pool, log, begin, 3.0)
    status, (one,) = seen[-1], processes
    assert (status.acting, status.notes, [endpoint.blind for endpoint in status.endpoints]) == (False, (), [False])
    assert len(status.instances) == 4
    wanted = float(pages[0].split(f'sageserve_wanted_instances{{pool="{POOL}"}}')[1].split()[0])
    assert polls == [Poll(("desired", 1.0), wanted, active=True)]
    assert 'sageserve_scaler_answers_total{call="GetMetrics",code="ok"} 1.0' in pages[0]
    assert f"scaler     {scaler}" in one.stderr
    assert 0 < status.tiers[0].requests <= len(log.sent)
    assert f'sageserve_instances{{pool="{POOL}",state="serving"}} 4.0' in pages[0]
    assert f'sageserve_wanted_instances{{pool="{POOL}"}}' in pages[0]
    assert all(json.loads(line).keys() <= {"minute", "decision", "note"} for line in one.stdout.splitlines())
    assert "sum it up: sageserve shadow-report" in one.stderr
    journal = [line.line for line in read_stamped(one.state / "journal")]
    assert sum(isinstance(line.event, InstanceReady) for line in journal) == 4
    blocked = {decided.decision.blocked for line in journal for decided in line.decisions}
    assert blocked <= {Blocked.SHADOW, Blocked.BLIND, Blocked.NO_HEADROOM}
    assert not any(line.actions for line in journal)
    with pytest.raises(SageServeError, match="nobody watches"):
        running(one.state)


@pytest.mark.extended
@pytest.mark.skipif("SAGESERVE_LONG" not in os.environ, reason="three minutes: set SAGESERVE_LONG to run it")  # noqa: TID251 # as for the others
def test_what_was_scraped_in_three_minutes_is_what_was_sent(tmp_path: Path) -> None:
    pool, log, begin = watched(tmp_path, 1.0, 15.0, 12)
    assert_watched(pool, log, begin, 15.0)


def played(n: int, window: int) -> PlayedRequests:
    rng = stream(3, "played")
    arrival = np.sort(rng.integers(0, window, n))
    first = arrival + rng.integers(50_000, 2 * SECOND, n)
    return PlayedRequests(
        arrival=arrival,
        first=first,
        finish=first + rng.integers(SECOND, 20 * SECOND, n),
        prompt=np.ceil(np.exp(rng.normal(6.5, 0.9, n))).astype(np.int32),
        output=np.ceil(np.exp(rng.normal(5.0, 0.7, n))).astype(np.int32),
        instance=rng.integers(0, 3, n).astype(np.int32),
        model=np.zeros(n, np.uint8),
        models=("small",),
    )


def test_a_backfilled_history_comes_back_as_it_was(tmp_path: Path) -> None:
    begin = 1_699_920_000 * SECOND
    requests = played(6000, HOUR)
    series = list(render(requests, begin, HOUR + 60 * SECOND, 15 * SECOND))
    text = tmp_path / "history.om"
    write_openmetrics(text, iter(series))
    backfill(tmp_path, text)
    fleet = tmp_path / "fleet.yaml"
    fleet.write_text(FLEET, "utf-8")
    tiny = load_scenario(str(fleet))
    direct = PoolCollector("engines", Grid(begin, 15 * SECOND, 240))
    direct.add(series)
    wanted = direct.finish()
    with prometheus(tmp_path, "", "--storage.tsdb.retention.time=100y") as url:
        found = history(url, begin / SECOND, (begin + HOUR) / SECOND, 15)
        with pytest.raises(MeasurementError, match="no such series"):
            history(url, begin / SECOND - 9000, begin / SECOND - 5000, 15)
        with PrometheusServer(prometheus_at(url)) as server:
            span = begin - 5 * HOUR, begin + HOUR  # of which five hours hold nothing
            past = read_past({"here": server}, tiny, watched_pools(tiny), span, lambda *_: None)
            late = late_shares(server, watched_pools(tiny), begin + HOUR, 1.0)
            nobody = late_shares(server, watched_pools(tiny), begin - HOUR, 1.0)
            now = begin + HOUR
            sight = look(server.raw('{__name__=~"vllm:num_requests_.+"}', 60, now / SECOND), now, 90 * SECOND)
    pool = found.pools[0]
    for name in ("arrivals", "completed", "prompt_tokens", "running"):
        np.testing.assert_allclose(getattr(pool, name), getattr(wanted, name), atol=1e-6)
    assert float(np.nansum(pool.arrivals)) == pytest.approx(6000, abs=60)
    assert sum(seen.requests[0] for _, seen in past.minutes) == pytest.approx(6000, abs=60)
    assert sum(seen.prompt_tokens[0] for _, seen in past.minutes) == pytest.approx(np.nansum(wanted.prompt_tokens), rel=0.01)
    assert late[POOL].late / late[POOL].requests == pytest.approx(1 / 1.95, abs=0.06), "uniform from 0.05 s to 2 s"
    assert late[POOL].requests == pytest.approx(500, rel=0.1)
    assert nobody == {}
    assert [wall for wall, _ in past.minutes] == [begin + k * 60 * SECOND for k in range(60)]
    assert (sight.state, len(sight.pods)) == ("seen", 3)
    served, made = pool.histograms["prompt_size"], wanted.histograms["prompt_size"]
    assert served.bounds.tolist() == made.bounds.tolist()
    np.testing.assert_allclose(served.counts.sum(axis=0), made.counts.sum(axis=0), rtol=0.03, atol=8)
    assert served.total.sum() / served.counts.sum() == pytest.approx(made.total.sum() / made.counts.sum(), rel=0.01)
    assert pool.histograms["ttft"].quantile(0.5) == pytest.approx(wanted.histograms["ttft"].quantile(0.5), rel=0.05)
