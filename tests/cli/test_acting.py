"""Commands about targets that are acted on, against the fake API server on a port: evidence, orders, giving back, refusals.

Read next: `kube_server.py`; `tests/live/authority/`.
"""

import asyncio
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from typer.testing import CliRunner

from sageserve.base.config import Scenario
from sageserve.base.errors import SageServeError
from sageserve.base.units import MINUTE
from sageserve.cli import doctor
from sageserve.cli.acting import refuse_unwritten
from sageserve.cli.main import app
from sageserve.core.actions import Blocked
from sageserve.data.scenarios.load import resolved_yaml
from sageserve.live.audit import verify
from sageserve.live.authority.orders import FleetOrders, read_orders
from sageserve.live.doctor.checks import CheckResult
from sageserve.live.kubernetes.writer import NotWritten, ObjectPlace
from tests.cli.kube_server import served
from tests.live.authority.count_stage import CountField
from tests.live.authority.share_stage import ShareField, sharing
from tests.live.authority.stage import SPACE, Field, acted_on, settled
from tests.live.doctor.world import World
from tests.show.shadow.test_reckon import Row, decided, write

WEEK: list[Row | None] = [(4, 4, 4)] * (7 * 1440)


@dataclass
class Watched:
    """A folder that was watched, and the cluster behind it."""

    state: Path
    field: Field
    kubeconfig: Path

    def say(self, *words: str) -> str:
        """What a command answers; its error's message where it is refused."""
        more = ["--state", str(self.state), "--kubeconfig", str(self.kubeconfig)]
        result = CliRunner().invoke(app, [*words, *more])
        if isinstance(result.exception, SageServeError):
            return f"error: {result.exception}"
        assert result.exit_code == 0, result.output
        return result.output

    def orders(self) -> FleetOrders:
        read = asyncio.run(
            read_orders(Field(cluster=self.field.cluster).writer(), ObjectPlace("ConfigMap", SPACE, "sageserve-small-orders"))
        )
        assert not isinstance(read, NotWritten)
        return read[0]


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Watched]:
    field = asyncio.run(Field().made(low=2, count=4))
    state = tmp_path / "state"
    state.mkdir()
    settle(state, acted_on(take_over=True, gpus=4, safety={"budget": {"gpus": {"east/h100": 48}}}))
    with served(field.cluster, tmp_path) as kubeconfig:
        yield Watched(state, field, kubeconfig)


def settle(state: Path, scenario: Scenario) -> None:
    (state / "scenario.yaml").write_text(resolved_yaml(scenario), "utf-8")


def test_orders_are_kept_in_the_cluster_and_ended(watched: Watched) -> None:
    assert "frozen until" in watched.say("freeze", "east", "--for", "2h", "--why", "change freeze")
    assert "held to 9" in watched.say("override", "big=9", "--for", "2h", "--why", "launch")
    order = watched.orders().targets["big"]
    assert (order.count, order.why, order.freeze_why) == (9, "launch", "change freeze")
    assert order.until - order.frozen_until < MINUTE
    assert "big is acted on again" in watched.say("thaw", "all")
    assert (watched.orders().targets["big"].frozen_until, watched.orders().targets["big"].count) == (0, 9)
    assert watched.say("thaw", "all") == "big: no freeze and no plan is ordered, and it has its authority: nothing changed\n"
    assert verify(watched.state).lines == 4  # each is in the audit log


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("freeze", "bog", "--for", "1h"), "did you mean 'big'"),
        (("freeze", "big", "--for", "32d"), "is not between 0 and"),
        (("override", "big=9", "--for", "25h", "--why", "x"), "is not between 0 and"),
        (("override", "big=21", "--for", "1h", "--why", "x"), "0 to 20 instances, not 21"),
        (("override", "big=13", "--for", "1h", "--why", "x"), "leaves big 12 instances, not 13"),
        (("override", "big", "--for", "1h", "--why", "x"), "no target with a number"),
        (("release", "east"), "more than one target"),
        (("promote", "big", "fllor"), "did you mean 'floor'"),
        (("promote", "big", "floor"), "has floor already"),
        (("promote", "big", "full"), "the replicas of a ScaledObject are not written"),
    ],
)
def test_what_cannot_be_is_refused_with_what_can(watched: Watched, words: tuple[str, ...], said: str) -> None:
    assert said in watched.say(*words)
    assert watched.orders() == FleetOrders()


def test_an_override_cannot_be_without_an_end_and_a_reason(watched: Watched) -> None:
    for words in (("override", "big=9", "--why", "x"), ("override", "big=9", "--for", "1h"), ("freeze", "big")):
        assert CliRunner().invoke(app, [*words, "--state", str(watched.state)]).exit_code == 2


def test_what_is_only_observed_takes_no_orders(watched: Watched) -> None:
    settle(watched.state, acted_on())
    settle(watched.state, acted_on(authority="observe"))
    assert "only observed" in watched.say("freeze", "big", "--for", "1h")
    assert "one rung at a time" in watched.say("promote", "big", "bounds")
    for kind, authority, said, next_step in (
        ("Deployment", "observe", "big: only observed", "sageserve promote big full"),
        ("Deployment", "floor", "the bounds of a Deployment are not written", "authority: full"),
        ("ModelDeployment", "observe", "big: only observed", "name the HPA or ScaledObject"),
    ):
        settle(watched.state, acted_on(kind, authority=authority))
        for words in (("freeze", "all", "--for", "1h"), ("override", "big=9", "--for", "1h", "--why", "x"), ("thaw", "big")):
            answer = watched.say(*words)
            assert said in answer
            assert next_step in answer


def test_a_target_is_given_back_and_only_observed_from_then_on(watched: Watched) -> None:
    before = watched.field.bare()

    async def act() -> None:
        process = await settled(watched.field, acted_on(take_over=True))
        watched.field.wants = 6
        await process.turn()
        assert watched.field.bounds()[0] == 6

    async def goes_on() -> None:
        process = await settled(watched.field, acted_on(take_over=True))
        await process.turn()
        assert "given back by a person" in process.hands.notes()[0]

    asyncio.run(act())
    said = watched.say("release", "big")
    assert "spec.minReplicaCount: 6 -> 2 of kubectl-client-side-apply" in said
    assert watched.field.bare() == before
    asyncio.run(goes_on())
    assert watched.field.bare() == before
    assert "nothing of ScaledObject serving/llama is ours" in watched.say("release", "big")
    assert "it was demoted, released" in watched.say("thaw", "big")


def test_a_count_is_given_back_and_begins_anew_after_a_thaw(tmp_path: Path) -> None:
    field = asyncio.run(CountField().made(count=4))
    scenario = acted_on("Deployment", authority="full", take_over=True)
    (tmp_path / "state").mkdir()
    settle(tmp_path / "state", scenario)

    async def act(wants: int) -> None:
        process = await settled(field, scenario)
        field.wants = wants
        await process.turn()
        field.scaled()

    with served(field.cluster, tmp_path) as kubeconfig:
        watched = Watched(tmp_path / "state", field, kubeconfig)
        asyncio.run(act(6))
        assert watched.orders().held["big"].found == 4
        assert "spec.replicas stays 6, and is kubectl-client-side-apply's again" in watched.say("release", "big")
        assert watched.orders().held == {}
        asyncio.run(act(9))
        assert field.count == 6
        assert "it was demoted, released" in watched.say("thaw", "big")
        asyncio.run(act(9))
        assert (field.count, watched.orders().held["big"].found) == (9, 6)
        assert "has full already" in watched.say("promote", "big", "full")
        settle(tmp_path / "state", acted_on("Deployment", authority="observe"))
        assert "the bounds of a Deployment are not written" in watched.say("promote", "big", "floor")
        assert "may not be raised to full" in watched.say("promote", "big", "full")


# --- promote ---


@pytest.fixture
def sound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """Whatever doctor is asked about, it looks at this world."""
    folder = tmp_path / "world"
    folder.mkdir()
    world = World(folder)
    monkeypatch.setattr(doctor, "examined", lambda *_: looked_at(world))
    return world


async def looked_at(world: World) -> tuple[CheckResult, ...]:
    return await asyncio.to_thread(world.examine)


def evidence(state: Path, rows: list[Row | None], decisions: int = 50) -> None:
    write(state, rows)
    for number in range(decisions):
        decided(state, number * MINUTE, Blocked.SHADOW)
    settle(state, acted_on(authority="observe"))


def promoted(state: Path, *more: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["promote", "big", "floor", "--state", str(state), *more])
    error = result.exception
    return (2, str(error)) if isinstance(error, SageServeError) else (result.exit_code, result.output)


def test_with_all_evidence_a_target_may_be_raised_by_one_line(tmp_path: Path, sound: World) -> None:
    evidence(tmp_path, WEEK)
    code, said = promoted(tmp_path)
    assert (code, "live.targets.big.authority: floor" in said) == (0, True)
    assert json.loads(promoted(tmp_path, "--json")[1])["allowed"] is True


@pytest.mark.parametrize(
    ("rows", "decisions", "said"),
    [
        (WEEK[1440:], 50, "watched for 6.0 of 7 days"),
        (WEEK, 49, "49 of 50 decisions"),
        ([(4, 3, 4), *WEEK], 50, "harm in 1 minutes"),
        ([*WEEK, *[None] * 60], 50, "unseen for 60 minutes of the last day"),
    ],
)
def test_each_missing_piece_of_evidence_refuses(
    tmp_path: Path, sound: World, rows: list[Row | None], decisions: int, said: str
) -> None:
    evidence(tmp_path, rows, decisions)
    code, told = promoted(tmp_path)
    assert code == 2
    assert said in told
    assert told.count(";") == 1  # that, and in the hint: nothing else is missing
    assert json.loads(promoted(tmp_path, "--json")[1])["missing"] == [said]


def test_an_error_of_doctor_refuses_and_so_does_what_it_could_not_look_at(tmp_path: Path, sound: World) -> None:
    evidence(tmp_path, WEEK)
    sound.denied = {"patch"}
    assert "doctor: rbac-rung" in promoted(tmp_path)[1]
    sound.denied, sound.unreachable = set(), True
    assert "doctor could not look" in promoted(tmp_path)[1]


def test_who_accepts_the_risk_is_written_down_with_what_was_missing(tmp_path: Path, sound: World) -> None:
    evidence(tmp_path, WEEK[:60], 3)
    code, said = promoted(tmp_path, "--accept-risk", "staging")
    assert (code, "authority: floor" in said) == (0, True)
    [audit] = (tmp_path / "audit").glob("*.jsonl")
    facts = json.loads(audit.read_text("utf-8"))["facts"]
    assert (facts["risk"], "3 of 50 decisions" in facts["missing"]) == ("staging", True)


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ({"authority": "observe"}, "all are only observed"),
        ({"kind": "LLMInferenceService"}, "the bounds of a LLMInferenceService are not written"),
        ({"authority": "full"}, "the replicas of a ScaledObject are not written"),
        ({"kind": "VLLMRuntime", "authority": "full"}, "those of Deployment, StatefulSet and LeaderWorkerSet are"),
        ({"kind": "Deployment", "authority": "floor"}, "the bounds of a Deployment are not written"),
    ],
)
def test_what_cannot_be_carried_out_is_refused_before_anything_begins(target: dict[str, object], said: str) -> None:
    with pytest.raises(SageServeError, match=said):
        refuse_unwritten(acted_on(**{"kind": "ScaledObject", **target}))  # type: ignore[arg-type] # of the kinds there are


def test_an_object_with_shares_is_frozen_thawed_and_given_back_by_its_name(tmp_path: Path) -> None:
    field = asyncio.run(ShareField().made())
    state = tmp_path / "state"
    state.mkdir()
    one = sharing("AIGatewayRoute")
    east = one.regions["east"]
    both = {"east": east.model_copy(update={"rtt": {"west": 70_000}}), "west": east}
    assert one.live is not None
    far = one.live.targets["big"].model_copy(update={"pool": "west/big/h100", "name": "serving/far"})
    live = one.live.model_copy(update={"targets": one.live.targets | {"far": far}})
    scenario = one.model_copy(update={"regions": both, "live": live})
    settle(state, scenario)
    before = field.bare()

    async def moved() -> None:
        await field.step(field.hands(scenario), 2 * MINUTE)

    asyncio.run(moved())
    assert field.bare() != before
    with served(field.cluster, tmp_path) as kubeconfig:
        here = Watched(state, field, kubeconfig)
        assert "frozen until" in here.say("freeze", "split", "--for", "2h")
        assert here.orders().targets["split"].frozen_until > 0
        assert "split is acted on again" in here.say("thaw", "split")
        said = here.say("freeze", "all", "--for", "2h")  # its targets are only observed, which bars nothing here
        assert "of shares alone: big, far: only observed" in said
        assert ": split" in said
        assert "split is acted on again" in here.say("thaw", "all")
        assert "weights are as they were found" in here.say("release", "split")
        assert here.orders().demoted["split"].cause == "released"
    assert field.bare() == before
