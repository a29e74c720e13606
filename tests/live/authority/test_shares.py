"""Shares of regions in objects of others: taken with leave, moved with care, given back as they were found.

Read next: `share_stage.py`; `tests/core/test_shares.py`.
"""

from pathlib import Path

import pytest

from sageserve.base.units import MINUTE
from sageserve.live.authority import share_hand, share_object
from sageserve.live.kubernetes.rights import share_rights
from tests.live.authority.share_stage import FLEET, ShareField, ShareHistory, route, sharing
from tests.live.authority.stage import USER, Process, played

KINDS = ["AIGatewayRoute", "ModelService"]
HISTORIES = 12


def test_every_law_holds_in_random_histories(tmp_path: Path) -> None:
    written = 0
    for seed in range(HISTORIES):
        history = ShareHistory(seed, tmp_path)
        history.play()
        written += history.writes
    assert written > HISTORIES


def broken(folder: Path, spoil: object) -> str:
    """The first law that is broken where a process is spoilt."""
    assert callable(spoil)
    for seed in range(HISTORIES):
        try:
            ShareHistory(seed, folder, spoil).play()
        except AssertionError as error:
            return str(error).splitlines()[0]
    return ""


def hurried(process: Process) -> None:
    ladder = process.hands.shares[0].ladder
    ladder._wrote_at, wrote = -(1 << 60), ladder.wrote
    ladder.wrote = lambda now: wrote(now - (1 << 60))  # type: ignore[method-assign] # a fault on purpose


def sightless(process: Process) -> None:
    hand = process.hands.shares[0]
    decide = hand.ladder.decide
    hand.ladder.decide = lambda now, shares, wanted, **more: decide(  # type: ignore[method-assign] # a fault on purpose
        now, shares, wanted or {"east": 100, "west": 0}, **more
    )


def thawed(process: Process) -> None:
    hand = process.hands.shares[0]
    decide = hand.ladder.decide
    hand.ladder.decide = lambda now, shares, wanted, **more: decide(  # type: ignore[method-assign] # a fault on purpose
        now, shares, wanted, **(more | {"frozen": False})
    )


def unguarded(process: Process) -> None:
    hand = process.hands.shares[0]
    decide = hand.ladder.decide

    def sure(*words: object, **more: object) -> object:
        hand.ladder.guard = "full"
        return decide(*words, **more)  # type: ignore[arg-type] # as it was called

    hand.ladder.decide = sure  # type: ignore[method-assign,assignment] # a fault on purpose


@pytest.mark.parametrize(
    ("spoil", "law"),
    [
        (hurried, "two moves within a minute"),
        (sightless, "written while blind"),
        (thawed, "written while frozen"),
        (unguarded, "written beyond the guard"),
    ],
)
def test_faults_made_on_purpose_are_seen(tmp_path: Path, spoil: object, law: str) -> None:
    assert law in broken(tmp_path, spoil)


def test_a_hand_that_does_not_look_who_wrote_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(share_hand, "foreign_writer", lambda *_: "")
    apply = share_object.apply_body
    monkeypatch.setattr(share_hand, "apply_body", lambda *words, **_: (apply(*words)[0], True))  # and takes it again by force
    assert "written over" in broken(tmp_path, lambda _: None)


def test_leaps_are_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sageserve.core.authority.shares.MOST", 100)
    assert "a share moved by" in broken(tmp_path, lambda _: None)


@pytest.mark.parametrize("kind", KINDS)
def test_shares_are_moved_step_by_step_and_given_back(kind: str) -> None:
    async def story() -> None:
        scenario = sharing(kind)
        field = await ShareField(kind=kind, wanted={"east": 10, "west": 90}).made()
        before, process = field.bare(), field.hands(scenario)
        await field.step(process, 2 * MINUTE)
        assert field.shares(scenario) == {"east": 45, "west": 55}
        await field.step(process)
        await field.step(process)
        assert field.shares(scenario) == {"east": 10, "west": 90}
        field.wanted = {"west": 100}  # nothing of east is open any more
        await field.step(process, 2_000_000)
        assert field.shares(scenario) == {"east": 0, "west": 100}
        spec = field.found().part("spec")
        if kind == "ModelService":
            first, second, other = spec.parts("endpoints")
            assert [(one.number("weight"), one.number("priority")) for one in (first, second)] == [(1, 1), (100, 0)]
            assert other.data == route(kind)["spec"]["endpoints"][2]  # type: ignore[call-overload,index] # a list
        assert [act for act, _ in field.told] == ["shares"] * 4
        assert await field.release(scenario)
        assert field.bare() == before
        assert field.found().parts("metadata", "managedFields")[0].text("manager") == USER.manager
        assert await field.release(scenario) == ()

    played(story)


@pytest.mark.parametrize("kind", KINDS)
def test_a_list_of_another_is_not_taken_unless_settings_say_so(kind: str) -> None:
    async def story() -> None:
        scenario = sharing(kind, take_over=False)
        field = await ShareField(kind=kind).made()
        before, process = field.bare(), field.hands(scenario)
        await field.step(process, 2 * MINUTE)
        assert field.bare() == before
        (note,) = process.hands.notes()
        assert f"belongs to {USER.manager}" in note
        assert "live.shares.split.take_over: true" in note

    played(story)


def test_what_its_user_writes_again_is_theirs_until_a_person_thaws_it() -> None:
    async def story() -> None:
        scenario = sharing("AIGatewayRoute")
        field = await ShareField().made()
        process = field.hands(scenario)
        await field.step(process, 2 * MINUTE)
        assert field.shares(scenario) == {"east": 50, "west": 50}
        await field.user_writes(route("AIGatewayRoute"))
        await field.step(process, 2 * MINUTE)
        (note,) = process.hands.notes()
        assert "foreign-write" in note
        assert field.shares(scenario) == {"east": 70, "west": 30}
        other = field.hands(scenario, "two")  # demotions outlive whoever made them
        await process.hands.keeper.let_go()
        await field.step(other, 2 * MINUTE)
        assert field.shares(scenario) == {"east": 70, "west": 30}
        assert "has taken it" in str(await field.release(scenario))
        assert FLEET not in {one.text("manager") for one in field.found().parts("metadata", "managedFields")}

    played(story)


def test_what_is_not_there_is_said_and_nothing_is_written() -> None:
    async def story() -> None:
        scenario = sharing("AIGatewayRoute", backends={"east": "pool-e", "west": "pool-x"})
        field = await ShareField().made()
        process = field.hands(scenario)
        await field.step(process, 2 * MINUTE)
        assert "has no pool-x beside pool-e" in process.hands.notes()[0]
        field.cluster.delete("AIGatewayRoute", "serving", "llama")
        await field.step(process)
        assert "cannot be read" in process.hands.notes()[0]
        assert not any("PATCH" in one for one in field.writes())

    played(story)


def test_a_dry_run_is_told_once_and_keeps_nothing() -> None:
    async def story() -> None:
        scenario = sharing("ModelService")
        field = await ShareField(kind="ModelService", dry_run=True).made()
        before, process = field.bare(), field.hands(scenario)
        for _ in range(3):
            await field.step(process, 2 * MINUTE)
        assert field.bare() == before
        assert [act for act, _ in field.told] == ["dry-run"]

    played(story)


def test_rights_are_those_of_its_rung() -> None:
    live = sharing("AIGatewayRoute").live
    assert live is not None
    one = live.shares["split"]
    writes = {(right.plural, right.verb) for right in share_rights(one, "serving") if right.verb == "patch"}
    assert writes == {("aigatewayroutes", "patch")}
    seen = share_rights(one.model_copy(update={"authority": "observe"}), "serving")
    assert {right.verb for right in seen} == {"get", "list", "watch"}
