"""A hub and clusters that only agents reach: what it hears of them becomes sentences, and nothing here ever writes there.

Read next: `test_agent.py`; `tests/cli/test_hub.py`.
"""

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from msgspec import structs

from sageserve.base.config import Scenario
from sageserve.base.config.clusters import AgentSettings
from sageserve.base.errors import ConfigError
from sageserve.base.units import MINUTE, SECOND
from sageserve.cli.acting import refuse_unwritten
from sageserve.cli.kube import ours_of, writer_of
from sageserve.live.agent.heard import AgentsHeard, ReportReader, heard_of, sentence, troubles
from sageserve.live.agent.plan_record import encoded
from sageserve.live.agent.report import AgentReport, TargetReport, write_report
from tests.live.authority.stage import WALL, acted_on
from tests.live.watch.stage import POOL

TARGET = TargetReport(pool=POOL, object="o", planned=4, followed=4, ready=3, coming=1, blind=False)
REPORT = AgentReport(
    fleet="small",
    cluster="east",
    agent="one",
    at=WALL - 9 * SECOND,
    follows="in-force",
    sequence=7,
    plan="hash7",
    age=0,
    until=WALL + MINUTE,
    heard=WALL,
    refused="",
    detail="",
    holder="one",
    targets={"big": TARGET},
    notes=(),
)


def settings(report: str | None, *, agent: bool = True) -> Scenario:
    """The stage's fleet, whose one cluster only an agent reaches."""
    found = acted_on("ScaledObject")
    assert found.live is not None
    one = AgentSettings(plans="https://plans.example/", report=report) if agent else None
    clusters = {"east": found.live.clusters["east"].model_copy(update={"agent": one})}
    return found.model_copy(update={"live": found.live.model_copy(update={"clusters": clusters})})


def read(found: Scenario) -> AgentReport | str:
    async def story() -> AgentReport | str:
        async with AsyncExitStack() as stack:
            return (await ReportReader(found, stack).read())["east"]

    return asyncio.run(story())


def test_a_report_is_read_from_where_settings_say(tmp_path: Path) -> None:
    assert "nothing says where its agent reports" in str(read(settings(None)))
    assert "No such file" in str(read(settings(str(tmp_path))))
    write_report(tmp_path, REPORT)
    assert read(settings(str(tmp_path))) == REPORT
    (tmp_path / "east.status.json").write_bytes(encoded(structs.replace(REPORT, fleet="large")))
    assert read(settings(str(tmp_path))) == "the report is of cluster 'east' of fleet 'large'"
    (tmp_path / "east.status.json").write_bytes(b"[" * 10_000)
    assert "cannot be read" in str(read(settings(str(tmp_path))))


@pytest.mark.parametrize(
    ("changes", "said", "grave"),
    [
        ({}, "", False),
        ({"at": WALL - 6 * MINUTE}, "last heard 6m ago", True),
        ({"refused": "expired", "detail": "plan 7 ended"}, "does not follow the newest plan (expired): plan 7 ended", True),
        ({"follows": "expired"}, "a plan that has ended", False),
        ({"follows": "none"}, "has no plan", False),
        ({"targets": {"big": structs.replace(TARGET, stuck=2, note="no GPU")}}, "2 instances that cannot come: no GPU", False),
        ({"targets": {"big": structs.replace(TARGET, followed=None, why="observed")}}, "big is not followed: observed", False),
    ],
)
def test_what_is_wrong_with_an_agent_is_said(changes: dict[str, object], said: str, *, grave: bool) -> None:
    found = list(troubles("east", structs.replace(REPORT, **changes), WALL))
    assert [one.grave for one in found] == ([grave] if said else [])
    assert all(said in one.said and one.next for one in found)


def test_counts_of_a_cluster_that_nobody_here_sees_are_told(tmp_path: Path) -> None:
    told = sentence("east", REPORT, WALL)
    assert told == (
        "east is acted on by its agent alone, which follows plan hash7 (sequence 7), heard 9s ago: big 3 ready and 1 coming."
    )
    blind = structs.replace(REPORT, targets={"big\x1b[2J": structs.replace(TARGET, blind=True)}, plan="\n")
    assert sentence("east", blind, WALL).isprintable()
    write_report(tmp_path, structs.replace(REPORT, follows="expired"))
    heard = AgentsHeard(settings(str(tmp_path)), tmp_path, lambda: WALL)

    async def story() -> None:
        async with AsyncExitStack() as stack:
            await heard.look(ReportReader(settings(str(tmp_path)), stack))

    asyncio.run(story())
    first, second = heard.notes()
    assert "which has ended" in first
    assert second == "east: its agent has a plan that has ended."
    assert (heard_of(tmp_path, POOL), heard_of(tmp_path, "other")) == (first, "")
    assert AgentsHeard(settings("", agent=False), tmp_path, lambda: WALL).notes() == ()


def test_nothing_here_writes_where_an_agent_acts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = settings(str(tmp_path))
    assert found.live is not None
    live = found.live

    async def writes() -> None:
        async with AsyncExitStack() as stack:
            await writer_of(stack, live, "east", None, tmp_path)

    for refused in (lambda: asyncio.run(writes()), lambda: refuse_unwritten(found), lambda: ours_of(live, ("big",))):
        with pytest.raises(ConfigError, match="nothing here can write there"):
            refused()
    here = live.clusters | {"west": live.clusters["east"].model_copy(update={"agent": None})}
    both = live.model_copy(
        update={"clusters": here, "targets": live.targets | {"mine": live.targets["big"].model_copy(update={"cluster": "west"})}}
    )
    assert ours_of(both, ("big", "mine")) == ("mine",)
    assert "left to the agent of east: big" in capsys.readouterr().err
