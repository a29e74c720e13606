"""`sageserve hub` and `sageserve agent`: from a reviewed plan to the minimum of an object in a cluster that the hub cannot reach.

Read next: `tests/live/agent/test_agent.py`; `test_apply.py`.
"""

import fcntl
import json
import os
import signal
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest
from msgspec import structs
from typer.testing import CliRunner

from sageserve.base.config.clusters import AgentSettings
from sageserve.base.errors import SageServeError
from sageserve.base.units import HOUR, SECOND
from sageserve.cli import agent as agent_command
from sageserve.cli import hub
from sageserve.cli.main import app
from sageserve.core.authority.records import LeaseTimes
from sageserve.core.plan.explain import solve
from sageserve.data.results.plans import PlanFile, scenario_hash, solved_as, write_plan
from sageserve.data.scenarios.load import resolved_yaml
from sageserve.live.agent import process, sink
from sageserve.live.agent import publish as publishing
from sageserve.live.agent.report import AgentReport, write_report
from sageserve.live.authority import hands
from sageserve.show.why import pool_lines
from tests.cli.kube_server import served
from tests.core.plan_cases import pool, problem
from tests.live.authority.stage import WALL, Field, acted_on

SETTINGS = acted_on(take_over=True, min=2)


@dataclass
class Hub:
    """A folder in which a user is."""

    folder: Path

    def say(self, *words: str, code: int = 0) -> str:
        """What a command answers; its error's message where it is refused."""
        ran = CliRunner().invoke(app, list(words))
        if isinstance(ran.exception, SageServeError):
            return f"error: {ran.exception}"
        assert ran.exit_code == code, ran.output + str(ran.exception)
        return ran.output

    def publish(self, *more: str, begin: float = 0.0, code: int = 0) -> str:
        at = datetime.fromtimestamp(WALL / SECOND - begin, UTC).isoformat()
        return self.say(
            "hub", "publish", "fleet.yaml", "plan.json", "--begin", at, "--key", "hub.key", "--to", "plans", *more, code=code
        )


def plan_of_two() -> PlanFile:
    """Two where four are, for an hour."""
    question = problem(demand=((1500.0,),), pools=(pool(0, 0, now=4),))
    made = solve(question)
    return PlanFile(
        made_at=2 * HOUR,
        expires_at=3 * HOUR,
        data_until=2 * HOUR,
        scenario=SETTINGS.name,
        scenario_hash=scenario_hash(SETTINGS),
        strategy=SETTINGS.strategy.name,
        demand="made up",
        solved=solved_as(question, made),
        pools=pool_lines(question, made),
        expected=(),
        thetas=(),
    )


@pytest.fixture
def at_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(hub, "wall_now", lambda: WALL)
    (tmp_path / "fleet.yaml").write_text(resolved_yaml(SETTINGS), "utf-8")
    write_plan(tmp_path / "plan.json", plan_of_two())
    found = Hub(tmp_path)
    found.say("hub", "key", "hub")
    return found


def test_reports_are_shown_whatever_is_in_them(at_hub: Hub) -> None:
    folder = at_hub.folder / "status"
    folder.mkdir()
    empty = {"version": "1.0", "fleet": "f", "agent": "a", "sequence": 1, "plan": "p", "age": 0, "heard": 0, "refused": ""}
    empty |= {"detail": "", "holder": "", "targets": {}, "at": WALL}
    late = empty | {"cluster": "east", "follows": "in-force", "notes": ["\x1b]0;title\x07\nwest: plan 9"]}
    (folder / "east.status.json").write_text(json.dumps(late | {"until": 9 * 10**30}), "utf-8")
    (folder / "west.status.json").write_text(json.dumps(late | {"until": WALL, "notes": []}), "utf-8")
    said = at_hub.say("hub", "status", "status")
    assert "holds until a day that no calendar has" in said
    assert "west.status.json speaks for another: east: plan p" in said
    assert "\x1b" not in said
    assert "\nwest: plan 9" not in said, "a note is one line"


def test_one_publisher_at_a_time(tmp_path: Path) -> None:
    with publishing.alone(tmp_path):
        held = os.open(tmp_path, os.O_RDONLY)
        with pytest.raises(BlockingIOError):
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.close(held)


def test_keys_are_made_and_plans_are_numbered(at_hub: Hub) -> None:
    assert stat.S_IMODE(os.stat("hub.key").st_mode) == 0o600  # noqa: PTH116 # as a user looks
    assert "never written over" in at_hub.say("hub", "key", "hub")
    assert "is no name" in at_hub.say("hub", "key", "../hub")
    first = json.loads(at_hub.publish("--json"))
    [row] = first["clusters"]
    assert (row["cluster"], row["sequence"], row["targets"]) == ("east", WALL // SECOND, {"big": 2})
    assert "sequence 1790000001, big=2" in at_hub.publish()
    assert "sequence 1790000500" in at_hub.publish("--sequence", "1790000500")
    assert "sequence 1790000501" in at_hub.publish()
    assert "has 1790000501 already" in at_hub.publish("--sequence", "5")
    assert "is no name" in at_hub.say("hub", "key", "..")
    at_hub.say("hub", "key", "other")
    assert "which sequence comes next is not known" in at_hub.publish("--key", "other.key"), "a seal that is not ours"
    (at_hub.folder / "plans" / "east.plan").write_bytes(b"cut")
    assert "which sequence comes next is not known" in at_hub.publish()
    assert "sequence 1790000900" in at_hub.publish("--sequence", "1790000900")
    content = (at_hub.folder / "plans" / "east.plan").read_bytes().partition(b"\n")[2]
    held = json.loads(content)
    assert (held["not_before"], held["valid_until"]) == (WALL, WALL + HOUR)
    assert [path.name for path in (at_hub.folder / "plans").iterdir()] == ["east.plan"]


def test_where_a_cluster_has_an_agent_it_gets_a_plan_by_the_key_that_it_trusts(at_hub: Hub) -> None:
    live = SETTINGS.live
    assert live is not None
    plans = str(at_hub.folder / "plans")
    one = AgentSettings(plans="https://x/", report=plans, key=str(at_hub.folder / "hub.pub"))
    east = live.clusters["east"]
    for clusters, said in (
        ({"east": east.model_copy(update={"agent": one})}, "east.plan: sequence"),
        (
            {"east": east, "west": east.model_copy(update={"agent": one})},
            "no target in west, of which live.clusters names an agent",
        ),
    ):
        found = SETTINGS.model_copy(update={"live": live.model_copy(update={"clusters": clusters})})
        Path("fleet.yaml").write_text(resolved_yaml(found), "utf-8")
        write_plan(Path("plan.json"), structs.replace(plan_of_two(), scenario_hash=scenario_hash(found)))
        assert said in at_hub.publish()
        if "sequence" in said:
            at_hub.say("hub", "key", "other")
            assert "trusts another" in at_hub.publish("--key", "other.key")
            assert "east.status.json cannot be read" in at_hub.say("hub", "status", "fleet.yaml")


def test_what_cannot_be_published_is_refused(at_hub: Hub) -> None:
    assert "the plan expired at" in at_hub.publish(begin=3 * 3600, code=3)
    Path("hub.key").chmod(0o644)
    assert "chmod 600 hub.key" in at_hub.publish()
    Path("hub.key").chmod(0o600)
    write_plan(Path("plan.json"), structs.replace(plan_of_two(), scenario_hash="0" * 64))
    assert "made under other settings" in at_hub.publish()
    assert not Path("plans").exists()
    assert "cannot be read" in at_hub.say("hub", "status", "plans")
    Path("plans").mkdir()
    assert "no agent has written" in at_hub.say("hub", "status", "plans")


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """An agent whose seconds are hundredths."""
    monkeypatch.setattr(hands, "ROUND", SECOND // 20)
    monkeypatch.setattr(process, "ROUND", SECOND // 20)
    monkeypatch.setattr(agent_command, "wall_now", lambda: WALL)
    monkeypatch.setattr(hands, "LeaseTimes", lambda: structs.replace(LeaseTimes(), every=SECOND // 50))

    def told(folder: Path, said: AgentReport) -> None:
        write_report(folder, said)
        if said.targets["big"].low == 3:
            signal.raise_signal(signal.SIGTERM)  # that is all that was waited for

    monkeypatch.setattr(sink, "write_report", told)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[tuple[Field, Path]]:
    import asyncio  # noqa: PLC0415 # for the fixture alone

    field = asyncio.run(Field().made(low=1, count=4))
    with served(field.cluster, tmp_path) as kubeconfig:
        yield field, kubeconfig


def test_a_plan_travels_from_the_hub_to_a_minimum_and_back_as_a_report(
    at_hub: Hub, quick: None, cluster: tuple[Field, Path]
) -> None:
    field, kubeconfig = cluster
    at_hub.publish()
    words = ["agent", "fleet.yaml", "--cluster", "east", "--plans", "plans", "--key", "hub.pub", "--state", "state"]
    assert "has no guard" in at_hub.say(*words)
    Path("guard.yaml").write_text("default: {min: 3, max: 9, rung: floor}\n", "utf-8")
    Path("status").mkdir()
    said = at_hub.say(
        *words,
        "--guard",
        "guard.yaml",
        "--report",
        "status",
        "--kubeconfig",
        str(kubeconfig),
        "--for",
        "60s",
        "--every",
        "50ms",
    )
    assert "no Prometheus is named for this cluster, so nothing is lowered" in said
    assert field.bounds() == (3, 16)  # the plan says two, the guard no fewer than three
    assert field.found().annotations["sageserve.io/decision"].startswith("east/big/h100@")
    told = at_hub.say("hub", "status", "status")
    assert "east: plan " in told
    assert "big: plan 2 -> 3 (3 is the guard's min); 4 asked for, 4 ready, minimum 3, maximum 16" in told
    [row] = json.loads(at_hub.say("hub", "status", "status", "--json"))
    assert (row["report"]["follows"], row["report"]["version"], row["report"]["holder"] != "") == ("in-force", "1.0", True)
    assert "nothing of" not in at_hub.say("release", "big", "--state", "state", "--kubeconfig", str(kubeconfig))
    assert field.bounds() == (1, 16)  # as it was found


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("--cluster", "eats"), "there is no cluster 'eats'; did you mean"),
        (("--plans", "ftp://x/"), "a folder, or a server over https"),
        (("--plans", "http://x/", "--bearer-file", "t"), "not sent in the clear"),
        (("--plans", "https://user:secret@x/"), "a URL with a password would be shown"),
        (("--plans", "https://:99999/"), "is no URL"),
        (("--ca-file", "t"), "are of a server"),
        (("--report", "nowhere"), "is no folder"),
        (("--key", "hub.key"), "give its .pub"),
        (("--set", "live.targets.big.authority=observe"), "no target may be acted on"),
    ],
)
def test_an_agent_that_cannot_be_is_refused(more: tuple[str, ...], words: str, at_hub: Hub, cluster: tuple[Field, Path]) -> None:
    Path("guard.yaml").write_text("default: {min: 3, max: 9, rung: floor}\n", "utf-8")
    said = at_hub.say(
        "agent", "fleet.yaml", "--cluster", "east", "--plans", "plans", "--key", "hub.pub", "--state", "state", "--guard",
        "guard.yaml", "--kubeconfig", str(cluster[1]), "--for", "1s", *more,
    )  # fmt: skip
    assert words in said
