"""Every order of answers that up to four engines may give to one request, against the rule in a few obvious lines.

Read next: `src/sageserve/live/gateway/exchange.py`; `test_faults.py` for single failures.
"""

import asyncio
import json
from dataclasses import dataclass, field
from itertools import product

import httpx
import pytest

from sageserve.live.gateway import meter as m
from sageserve.live.gateway.server import clock
from tests.live.gateway.stage import HELLO, STREAM_HEAD, USAGE, Engine, Got, chunk, event, play, staged

ENGINES = 5
OUTCOMES = ("well", "full", "fault", "dies", "wrong")
STATUS = {"well": 200, "full": 503, "fault": 500, "wrong": 400}


def expected(outcomes: tuple[str, ...]) -> tuple[int, int]:
    """Status the client gets, and how many engines were asked.

    A request goes on when it was refused, or broke something, and no further than four engines; what breaks two may be the
    request's own fault.
    """
    broke = 0
    for sent, outcome in enumerate(outcomes, 1):
        broke += outcome in {"fault", "dies"}
        goes_on = outcome in {"full", "fault", "dies"} and broke < 2 and sent < 4
        if not goes_on:
            return (502 if outcome == "dies" else STATUS[outcome]), sent
    raise AssertionError(outcomes)


@dataclass
class Course:
    """Answers in the order they are to be given, whichever engine is asked; each connection serves one request."""

    outcomes: list[str] = field(default_factory=list)
    given: int = 0

    async def answer(self, got: Got, writer: asyncio.StreamWriter) -> None:
        outcome = self.outcomes[self.given]
        self.given += 1
        if outcome == "dies":
            writer.transport.abort()
            return
        if outcome == "well" and got.json.get("stream"):
            last = chunk(event({"content": "one"}, "stop", usage=USAGE)) + chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n"
            writer.write(STREAM_HEAD.replace(b"x-engine: fake", b"connection: close") + last)
            return
        body = json.dumps({"id": "c", "choices": [], "usage": USAGE} if outcome == "well" else {"detail": outcome}).encode()
        head = f"HTTP/1.1 {STATUS[outcome]} Whatever\r\ncontent-type: application/json\r\nconnection: close\r\n"
        writer.write(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("first", OUTCOMES)
def test_every_order_of_answers(first: str, stream: bool) -> None:
    courses = {tuple(one[: expected(one)[1]]) for one in product((first,), OUTCOMES, OUTCOMES, OUTCOMES)}

    async def story() -> None:
        course = Course()
        engines = [Engine(script=course.answer) for _ in range(ENGINES)]
        regions = ("east", "east", "east", "west", "west")  # the fourth is asked far away
        async with staged(*engines, regions=regions) as stage, httpx.AsyncClient(base_url=stage.url) as client:
            routing = stage.worker.context.routing
            for outcomes in sorted(courses):
                course.outcomes, course.given = list(outcomes), 0
                retries = dict(stage.worker.context.meter.counters)
                for engine in engines:
                    engine.got.clear()
                got = await client.post("/v1/chat/completions", json={**HELLO, "stream": stream})
                assert (got.status_code, course.given) == expected(outcomes), outcomes
                assert max(len(engine.got) for engine in engines) == 1, "no engine is asked twice"
                assert len({engine.got[0].header("x-request-id") for engine in engines if engine.got}) == 1
                assert sum(load.in_flight for load in routing.loads) == 0
                assert sum(target.in_flight for target in routing.targets.values()) == 0
                sent_on = sum(
                    count - retries.get(key, 0)
                    for key, count in stage.worker.context.meter.counters.items()
                    if key[0] == m.RETRIES
                )
                assert sent_on == course.given - 1, outcomes
                for target in routing.targets.values():
                    target.trouble = 0
                routing.refresh(clock())

    play(story())


def test_the_courses_are_all_there_are() -> None:
    assert expected(("full", "full", "full", "full")) == (503, 4)
    assert expected(("fault", "fault")) == (500, 2)
    assert expected(("dies", "full", "dies")) == (502, 3)
    assert expected(("fault", "wrong")) == (400, 2)
