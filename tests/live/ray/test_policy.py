"""Ray's rule and our floor: what the policy wants, whatever is heard and however late.

Read next: `src/sageserve/live/ray/policy.py`; `test_real.py`, where Ray runs it.
"""

import ast
import base64
import json
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
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
        (b'{"limit_s": 90, "targets": {"big": {"age_s": 1%s}}}' % (b"0" * 400), "numbers"),
        (b'{"limit_s": 90, "targets": {"big": {"count": 1%s}}}' % (b"0" * 400), "numbers"),
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


@contextmanager
def heard(body: bytes | None, **more: str) -> Iterator[tuple[AtLeast, list[Asked]]]:
    """A policy that has asked a leader once, which answered that; None: no HTTP."""

    def reply(one: Asked) -> None:
        if body is None:
            one._handler.wfile.write(b"SSH-2.0-OpenSSH\r\n")
            one._handler.close_connection = True
        else:
            one.answer(body)

    with stub(reply) as server:
        url = server.url.replace("//", "//me:SECRET%21@")
        found = AtLeast(url, {"Chat": "chat", "Other": "other", "Second": "other"}, 7200, **more)
        found.hear(0.0)
        yield found, server.asked


def told(fleet: str = "f", limit: str = "90", **targets: object) -> bytes:
    text = json.dumps({"fleet": fleet, "limit_s": 0, "targets": targets}, allow_nan=False)
    return text.replace('"limit_s": 0', f'"limit_s": {limit}').encode()


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (told(chat={"count": 3}), "tells nothing of target other: it is misspelt, or has no `keda: true`; told are chat"),
        (told(chat={"count": 3}, other={"why": "other: no server answers"}), "other is not known: other: no server answers"),
        (told(chat={"count": 3}, other={}), "other is not known: no reason was given"),
        (told(chat={"count": 3}, other={"count": 3, "age_s": 91}), "what was seen for target other is too old"),
        (told("another", chat={"count": 3}, other={"count": 3}), "answers for fleet another, and this is f"),
        (b"[]", "is not heard: it is no table of a leader"),
        (b"[" * 100_000, "is not heard: "),
        (None, "is not heard: SSH-2.0-OpenSSH"),
        (told(chat={"count": 3}, other={"count": 3}), ""),
    ],
)
def test_why_there_is_no_count_is_in_the_log_once_and_without_a_password(
    body: bytes | None, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    with heard(body, fleet="f") as (one, requests):
        one.hear(1.0)
        assert requests[0].headers["Authorization"] == "Basic " + base64.b64encode(b"me:SECRET!").decode()
    assert caplog.text.count(said) == 1 or not said, "once, and of two deployments of one target"
    assert "does not shrink, for 2 h at most" in caplog.text or not said
    assert len(caplog.records) == bool(said)
    assert "SECRET" not in caplog.text
    assert one.floor("chat", 1.0) == (3 if b'"f"' in (body or b"") else None)


def test_a_password_follows_no_redirect_and_an_error_without_words_has_a_name(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    asked_for: list[urllib.request.Request] = []

    def refuse(question: urllib.request.Request, timeout: float) -> None:
        asked_for.append(question)
        raise TimeoutError

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    AtLeast("http://me:SECRET@leader", {"Chat": "big"}).hear(0.0)
    assert "is not heard: TimeoutError;" in caplog.text
    assert "Authorization" in asked_for[0].unredirected_hdrs
    assert "Authorization" not in asked_for[0].headers


def test_another_age_is_no_other_reason_and_that_all_is_well_again_is_said(caplog: pytest.LogCaptureFixture) -> None:
    with heard(told(chat={"count": 3}, other={"why": "blind for 95 s"})) as (one, _):
        one._say("; ".join(one._troubles(0.0)).replace("95", "1097"))
        one._say("")
    assert [one.getMessage().partition(";")[0].rpartition(" ")[2] for one in caplog.records] == ["s", "heard"]


def test_a_table_of_another_fleet_ends_what_was_heard_before() -> None:
    with heard(told("another", chat={"count": 3})) as (one, _):
        assert one.floor("chat", 1.0) == 3, "no fleet is named"
        one._fleet = "f"
        one.hear(1.0)
        assert one.floor("chat", 1.0) is None


def test_no_table_is_believed_for_longer_than_an_hour() -> None:
    with heard(told(limit="1e999", chat={"count": 3})) as (one, _):
        assert (one.floor("chat", 3600.0), one.floor("chat", 3601.0)) == (3, None)


@pytest.mark.parametrize("url", ["http://me:SEC/RET@leader", "me:SECRET@leader", "ftp://me:SECRET@127.0.0.1:1"])
def test_a_leader_that_cannot_be_asked_is_said_without_its_password(url: str, caplog: pytest.LogCaptureFixture) -> None:
    one = AtLeast(url.replace("leader", "127.0.0.1:1"), {"Chat": "big"})
    one.hear(0.0)
    assert "is not heard" in caplog.text
    assert not any(part in caplog.text for part in ("SEC", "RET", "me:"))


def test_it_needs_nothing_but_the_standard_library_and_ray() -> None:
    tree = ast.parse(Path(policy.__file__).read_text("utf-8"))
    names = {each.name for one in ast.walk(tree) if isinstance(one, ast.Import) for each in one.names}
    names |= {str(one.module) for one in ast.walk(tree) if isinstance(one, ast.ImportFrom)}
    assert {name.split(".")[0] for name in names} - {"ray"} <= sys.stdlib_module_names
