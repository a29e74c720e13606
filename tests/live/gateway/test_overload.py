"""A refusal says the numbers that it was reckoned from. Nothing is served; read next: `GatewayContext.overload`."""

from types import SimpleNamespace
from typing import Any, cast

import pytest

from sageserve.base.units import SECOND
from sageserve.live.gateway.context import GatewayContext


@pytest.mark.parametrize(
    ("wait", "admits", "words"),
    [
        (4.26, False, "The queue is 4.3 s long, chat allows 2.5 s."),
        (1.0, False, "As many requests as may be are in flight."),
        (1.0, True, "chat is full, and this key has had more than its share: others go first."),
    ],
)
def test_why_a_request_is_not_let_in_is_said_with_its_numbers(wait: float, admits: bool, words: str) -> None:
    limit = 2.5 * SECOND
    routing = SimpleNamespace(limit=lambda _: limit, admits=lambda _: admits)
    gateway = cast("Any", SimpleNamespace(names=SimpleNamespace(tiers=["chat"]), routing=routing))
    problem = GatewayContext.overload(gateway, cast("Any", SimpleNamespace(tier=0, wait=wait * SECOND)))
    assert problem.message == words
    assert problem.status == 429
    assert b"retry-after" in problem.fields().lower()
