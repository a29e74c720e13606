"""Ray's rule and our floor: what the policy wants, whatever is heard and however late.

Read next: `src/sageserve/live/ray/policy.py`; `test_real.py`, where Ray runs it.
"""

import ast
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sageserve.base.units import SECOND
from sageserve.live.ray import policy
from sageserve.live.ray.policy import AtLeast
from sageserve.live.scaler.answers import TargetCount
from sageserve.live.scaler.table import HeardTable, ScalerTable, ToldTarget
from tests.live.prometheus.stub import Asked, stub
from tests.live.scaler.test_answers import TARGETS, asked


class Played(AtLeast):
    """Ray's rule and the clock are the test's."""

    def __init__(self, hold_s: float = 100.0, url: str = "http://127.0.0.1:1") -> None:
        super().__init__(url, {"Chat": "big"}, hold_s)
        self.now, self.own = 0.0, 1.0
        self._asks_nobody = url.endswith(":1")

    def _own(self, context: object) -> float:
        return self.own

    def _now(self) -> float:
        return self.now

    def _ask(self, now: float) -> None:
        if not self._asks_nobody:
            super()._ask(now)

    def hears(self, table: ScalerTable) -> None:
        self._table, self._heard_at = policy._read(msgspec.json.encode(table)), self.now

    def wants(self, target: int = 1, deployment: str = "Chat") -> float:
        found, kept = self({"id": SimpleNamespace(deployment_name=deployment, target_num_replicas=target)})
        assert kept == {}
        return found["id"]


TOLD = st.builds(ToldTarget, st.none() | st.integers(0, 8), st.floats(0, 60), st.just("why"))


@given(st.lists(st.tuples(st.none() | TOLD, st.floats(0, 60), st.integers(0, 9), st.integers(1, 9)), max_size=12))
def test_never_less_than_rays_rule_nor_than_what_holds_and_nothing_shrinks_unseen(
    steps: list[tuple[ToldTarget | None, float, int, int]],
) -> None:
    one, heard = Played(), HeardTable("leader", "fleet")
    known_at = 0.0
    one.wants()
    for told, passed, own, target in steps:
        one.now, one.own = one.now + passed, own
        if told is not None:
            table = ScalerTable("fleet", 90.0, {"big": told})
            one.hears(table)
            heard.take(table, round(one.now * SECOND))
        wanted = one.wants(target)
        floor = one.floor("big", one.now)
        if floor is not None:
            known_at = one.now
            assert wanted == max(own, floor)
        elif one.now - known_at <= 100:
            assert wanted == max(own, target), "nothing shrinks"
        else:
            assert wanted == own
        follower = heard.told(TARGETS, asked(target="big"), round(one.now * SECOND))
        if floor is not None and isinstance(follower, TargetCount):
            assert follower.count == max(1, floor), "a follower says the same, within its own bounds"


def test_deployments_that_are_not_named_are_rays_alone() -> None:
    one = Played()
    one.hears(ScalerTable("fleet", 90.0, {"big": ToldTarget(5)}))
    assert (one.wants(deployment="Other"), one.wants()) == (1.0, 5.0)


@pytest.mark.parametrize(
    ("page", "said"),
    [
        (b"<html>", "Expecting value"),
        (b"[]", "no table"),
        (b'{"targets": {"big": 3}}', "no table"),
        (b'{"targets": {"big": {"count": 3}}}', "numbers"),
        (b'{"limit_s": 90, "targets": {"big": {"count": 3.5}}}', "numbers"),
        (b'{"limit_s": 90, "targets": {"big": {"count": true}}}', "numbers"),
        (b'{"limit_s": Infinity, "targets": {}}', "Infinity is no number"),
        (b" " * (policy.LARGEST + 1), "larger than 4 MiB"),
    ],
)
def test_what_is_no_table_is_not_believed(page: bytes, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        policy._read(page)


def test_it_asks_beside_and_goes_on_with_what_it_heard() -> None:
    def reply(one: Asked) -> None:
        assert one.path == "/scaler"
        one.answer(
            json.dumps({"fleet": "f", "limit_s": 90, "targets": {"big": {"count": 4, "age_s": 1}}}, allow_nan=False).encode()
        )

    with stub(reply) as server:
        one = Played(url=server.url)
        assert one.wants(2) == 2
        assert one._asks is not None
        one._asks.join(10)
        assert one.wants(2) == 4
        assert one._asks is not None
        first = one._asks
        one.wants()
        assert one._asks is first, "not ten times a second"
    one.now = 60.0
    assert one.wants(2) == 4
    assert one._asks is not first
    one._asks.join(10)
    one.now = 95.0
    assert one.wants(3) == 3, "too old: nothing shrinks"


def test_it_needs_nothing_but_the_standard_library_and_ray() -> None:
    tree = ast.parse(Path(policy.__file__).read_text("utf-8"))
    names = {each.name for one in ast.walk(tree) if isinstance(one, ast.Import) for each in one.names}
    names |= {str(one.module) for one in ast.walk(tree) if isinstance(one, ast.ImportFrom)}
    assert {name.split(".")[0] for name in names} - {"ray"} <= sys.stdlib_module_names
