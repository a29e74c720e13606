"""A store that is away for a moment: what had been begun goes on, and no batch waits for the next one to come.

Read next: `src/sageserve/live/batches/runner.py`; `test_kill.py` for processes that are killed.
"""

import asyncio
import json
from collections.abc import Callable

import pytest

from sageserve.base.config import LiveSettings
from sageserve.base.units import HOUR
from sageserve.live.batches import queue_lead, runner
from sageserve.live.store.memory import MemoryStore
from sageserve.live.store.models import Batch, BatchState, File, StoreError
from tests.live.batches.plane import Plane

CHAT = "/v1/chat/completions"
JOBS = 3


class Away(MemoryStore):
    """A store that cannot be asked at the calls of one method that `numbers` names, the first being 0."""

    def __init__(self, method: str, *numbers: int) -> None:
        super().__init__()
        self.calls = 0
        asked = getattr(self, method)

        def answer(*args: object) -> object:
            self.calls += 1
            if self.calls - 1 in numbers:
                raise StoreError("away for a moment")
            return asked(*args)

        setattr(self, method, answer)


def hand_in(store: MemoryStore, plane: Plane) -> Batch:
    """A batch of a few jobs, as the API leaves it."""
    line = {"method": "POST", "url": CHAT, "body": {"model": plane.models[0], "messages": []}}
    text = b"\n".join(json.dumps({"custom_id": str(k), **line}).encode() for k in range(JOBS))
    now = plane.time.now()
    store.begin_file(File("file-1", "anyone", "in.jsonl", "batch", now, None))
    store.append("file-1", 0, text)
    store.finish_file("file-1", len(text))
    return store.add_batch(Batch("batch-1", "anyone", CHAT, "file-1", "24h", None, 3600, now, now + HOUR))


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 # what is waited for is inside objects that know no events
            await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    ("method", "calls"),
    [
        ("begin_epoch", (0, 1)),
        ("unfinished_jobs", (0,)),
        ("unfinished_jobs", (1, 2)),  # after the batch was accepted
        ("queued", (0,)),
        ("accept", (0,)),
        ("hold", (0,)),
        ("unfinished", (0, 1)),
    ],
)
def test_jobs_wait_to_be_run_whenever_the_store_was_away(
    method: str, calls: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    for part in (runner, queue_lead):
        monkeypatch.setattr(part, "_AGAIN_S", 0.01)
    store = Away(method, *calls)

    async def play() -> None:
        plane = Plane(store, "http://127.0.0.1:9", LiveSettings())
        plane.fed = False
        batch = hand_in(store, plane)
        task = asyncio.create_task(plane.runner.run())
        try:
            await until(lambda: plane.runner.waiting(0) == JOBS and bool(plane.runner.heads(0)))
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await plane.threaded.close()
        assert store.batch("anyone", batch.id).state is BatchState.IN_PROGRESS
        assert store.calls > max(calls), "it was away"

    asyncio.run(play())
