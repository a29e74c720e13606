"""A whole fleet when things go wrong around it: no metrics, a region that is cut off, a disk that takes no more.

Real processes under load. A dead process is `test_up.py`'s; slow clients are `gateway/test_hostile.py`'s; clocks that step are
`tests/live/control/test_loop.py`'s. Read next: `src/sageserve/live/control/fleet_view.py`.
"""

import os
import resource
import signal
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import openai
import pytest

from tests.live.test_up import MODEL, Fleet, command, until

pytestmark = pytest.mark.slow

ENGINE = "engine --port {port} --host {host} --profile {profile} --model {model} --region {region} --speed 4 --faults"
SCENARIO = f"""
extends: local
gpus: {{h100-80gb: {{start: 0s}}}}
fleet: {{start: 2, minimum: 1, maximum: 3}}
strategy: {{check: 2s}}
live:
  port: 0
  scrape_timeout: 0.5s
  safety: {{blind_after: 3s}}
  engines:
    {MODEL}:
      command: {[sys.executable, "-m", "sageserve.cli.main", *ENGINE.split(), "--fault", "metrics=gone"]}
"""


class Broken(Fleet):
    """One model in two regions, two instances each; nobody can read how its engines are."""

    def __init__(self, folder: Path) -> None:
        self.state = folder / "state"
        file = folder / "broken.yaml"
        file.write_text(SCENARIO, "utf-8")
        done = command("up", str(file), "--detach", "--state", str(self.state), "--set", "models.llama-3.1-70b=null")
        assert done.returncode == 0, done.stderr
        self.connect()

    def engines(self, region: str) -> list[int]:
        """Process numbers of a region's engines."""
        words = f"--region\0{region}\0".encode()
        return [pid for pid in self.processes().values() if words in Path(f"/proc/{pid}/cmdline").read_bytes()]

    def served_from(self, text: str, region: str) -> str:
        """Ask as a client of a region; where the answer came from."""
        answer = self.client.chat.completions.with_raw_response.create(
            model=MODEL,
            messages=[{"role": "user", "content": text}],
            max_tokens=8,
            extra_headers={"x-sageserve-region": region},
        )
        assert answer.parse().choices[0].message.content
        return answer.headers["x-sageserve-region"]

    def serving(self) -> int:
        return sum(pool.serving for endpoint in self.status().endpoints for pool in endpoint.pools)

    def all_metrics(self, how: str) -> None:
        for one in self.status().instances:
            if one.url:
                httpx.post(f"{one.url}/_fault", json={"metrics": how}, trust_env=False).raise_for_status()


@pytest.fixture(scope="module")
def fleet(short_folder: Callable[[], Path]) -> Iterator[Broken]:
    made = Broken(short_folder())
    yield made
    done = command("down", "--now", "--state", str(made.state))
    assert done.returncode == 0, done.stderr
    until(lambda: made.processes() == {}, 10)


@contextmanager
def stopped(processes: list[int]) -> Iterator[None]:
    """They stand still, as behind a cut cable: connections open, nothing answers."""
    assert processes
    for pid in processes:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in processes:
            os.kill(pid, signal.SIGCONT)


@contextmanager
def full_disk(pid: int) -> Iterator[None]:
    """The process can make no file longer."""
    before = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, before)


def test_without_metrics_requests_go_on_and_nothing_is_drained(fleet: Broken) -> None:
    until(lambda: fleet.serving() == 4, 30)  # it is up with one of each
    until(lambda: all(endpoint.blind for endpoint in fleet.status().endpoints), 20)
    assert all(fleet.ask(f"dark {k}") for k in range(5))

    def held_back() -> list[str]:
        return [one.blocked for one in fleet.status().decisions if one.change < 0]

    until(lambda: len(held_back()) >= 4, 30)
    assert set(held_back()) == {"blind"}, "an idle fleet of two each would lose one each"
    assert fleet.serving() == 4
    fleet.all_metrics("ok")
    until(lambda: not any(endpoint.blind for endpoint in fleet.status().endpoints), 20)
    until(lambda: fleet.serving() == 2, 30)
    assert "not" in held_back(), "seen again, one each is enough"


def test_a_region_that_is_cut_off_loses_no_request(fleet: Broken) -> None:
    assert fleet.served_from("before", "east") == "east"
    with ThreadPoolExecutor(6) as threads:
        with stopped(fleet.engines("east")):
            caught = [threads.submit(fleet.served_from, f"caught {k}", "east") for k in range(3)]
            until(lambda: any("Nothing answers" in note for note in fleet.status().notes), 20)
            elsewhere = list(threads.map(lambda k: fleet.served_from(f"meanwhile {k}", "east"), range(20)))
            assert set(elsewhere) == {"west"}
        assert {one.result(timeout=60) for one in caught} <= {"east", "west"}
    until(lambda: fleet.status().notes == (), 20)
    until(lambda: fleet.served_from("after", "east") == "east", 20)


def test_a_full_disk_stops_no_request_and_is_told(fleet: Broken) -> None:
    control = next(pid for name, pid in fleet.processes().items() if name.startswith("control"))
    with full_disk(control):
        fleet.kill("engine")  # something to write down
        assert all(fleet.ask(f"full {k}") for k in range(10))
        until(lambda: any("disk full" in note for note in fleet.status().notes), 30)
        with pytest.raises(openai.APIStatusError) as refused:
            fleet.client.with_options(max_retries=0).files.create(file=("jobs.jsonl", b"{}\n" * 10), purpose="batch")
        assert refused.value.status_code >= 500
        assert refused.value.body is not None, "the client is told in words"
        assert fleet.ask("still")
    assert control in fleet.processes().values(), "control did not die of it"
    line = b'{"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": {"model": "llama-3.1-8b"}}\n'
    assert fleet.client.files.create(file=("jobs.jsonl", line), purpose="batch").id
