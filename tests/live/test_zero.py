"""A fleet of real processes that sleeps: woken by requests and by a batch, whatever dies meanwhile, and left when idle.

A minute of real time, of which most is engines that start: behind SAGESERVE_LONG. Read next: `tests/live/gateway/test_held.py`,
`tests/live/control/test_sleeping.py` and `tests/parity`, which play the same without processes.
"""

import json
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import httpx
import msgspec
import openai
import pytest

from sageserve.live.control.status import Status
from tests.live.test_up import MODEL, Fleet, command, until

pytestmark = [
    pytest.mark.extended,
    pytest.mark.skipif("SAGESERVE_LONG" not in os.environ, reason="a minute: set SAGESERVE_LONG=1"),  # noqa: TID251 # by hand
]
BROKEN = "llama-3.1-70b"
SETTINGS = f"""
extends: local
fleet: {{start: 0, minimum: 0, maximum: 2, idle: 4s}}
strategy: {{check: 1s}}
live:
  workers: 2
  engines: {{{BROKEN}: {{command: [sh, -c, "echo no such weights; exit 1", "{{port}}"]}}}}
"""


class SleepingFleet(Fleet):
    """A fleet that begins asleep."""

    def __init__(self, state: Path, settings: Path) -> None:
        self.state = state
        done = command("up", str(settings), "--detach", "--state", str(state), "--port", "0", "--speed", "4")
        assert done.returncode == 0, done.stderr
        self.connect()

    def status(self) -> Status:
        """Asked for directly: a command takes as long as an engine."""
        while True:
            with suppress(httpx.HTTPError, msgspec.DecodeError):  # control is being started again
                return msgspec.json.decode(httpx.get(f"{self.url}/admin/status", trust_env=False).content, type=Status)
            time.sleep(0.05)

    def sleep(self) -> set[str]:
        return {end.sleep for end in self.status().endpoints if end.model == MODEL}

    def wakes_for(self) -> int:
        return sum(end.held for end in self.status().endpoints if end.sleep == "waking")


@pytest.fixture(scope="module")
def fleet(short_folder: Callable[[], Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[SleepingFleet]:
    settings = tmp_path_factory.mktemp("settings") / "asleep.yaml"
    settings.write_text(SETTINGS, "utf-8")
    made = SleepingFleet(short_folder(), settings)
    yield made
    done = command("down", "--state", str(made.state))
    assert done.returncode == 0, done.stderr


def asleep(fleet: SleepingFleet) -> None:
    until(lambda: fleet.sleep() == {"asleep"})


def test_requests_wake_an_endpoint_and_wait_for_it_over_the_death_of_control(fleet: SleepingFleet) -> None:
    asleep(fleet)
    with ThreadPoolExecutor(6) as threads:
        asking = [threads.submit(fleet.ask, f"wake up {k}", "priority") for k in range(6)]
        until(lambda: fleet.wakes_for() == 6, 20)
        fleet.kill("control")
        assert all(one.result() for one in asking)
    until(lambda: "awake" in fleet.sleep())
    asleep(fleet)
    journal = "".join(path.read_text("utf-8") for path in (fleet.state / "journal").iterdir())
    assert '"reason":"woken"' in journal
    assert '"reason":"idle"' in journal
    told = command("explain", str(fleet.state), f"east/{MODEL}", "--json")
    assert {one["reason"] for one in json.loads(told.stdout)["decisions"]} >= {"idle"}


def test_an_endpoint_is_not_left_while_a_stream_runs(fleet: SleepingFleet) -> None:
    asleep(fleet)
    stream = fleet.client.chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": "at length"}],
        max_tokens=6000,
        stream=True,
        extra_body={"ignore_eos": True},
    )
    began, finish = 0.0, ""
    for chunk in stream:
        began = began or time.monotonic()  # noqa: TID251 # real time is what is tried
        if chunk.choices and chunk.choices[0].finish_reason:
            finish = chunk.choices[0].finish_reason
    assert finish == "length"
    took = time.monotonic() - began  # noqa: TID251 # as above
    assert took > 5, "longer than fleet.idle, or nothing was tried"


def test_a_flex_request_and_a_batch_wake_too(fleet: SleepingFleet) -> None:
    asleep(fleet)
    assert fleet.ask("no hurry", "flex")
    asleep(fleet)
    body = {"model": MODEL, "max_tokens": 4, "messages": [{"role": "user", "content": "a job"}]}
    line = {"custom_id": "one", "method": "POST", "url": "/v1/chat/completions", "body": body}
    file = fleet.client.files.create(file=("jobs.jsonl", json.dumps(line).encode()), purpose="batch")
    batch = fleet.client.batches.create(input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h")
    until(lambda: fleet.client.batches.retrieve(batch.id).status == "completed")


def test_a_start_that_fails_is_told_to_who_waited(fleet: SleepingFleet) -> None:
    once = fleet.client.with_options(max_retries=0)
    with pytest.raises(openai.InternalServerError) as failed:
        once.chat.completions.create(model=BROKEN, messages=[{"role": "user", "content": "hello"}], max_tokens=4)
    assert failed.value.response.json()["error"]["code"] == "start_failed"
    assert "no such weights" not in failed.value.response.text
    assert "retry-after" in failed.value.response.headers
    assert any("no such weights" in note for note in fleet.status().notes)
