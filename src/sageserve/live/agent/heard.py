"""What a hub hears of clusters that only agents reach: their reports, read where `live.clusters.NAME.agent.report` says.

A report is as true as the way it came by, so nothing is decided on it: it becomes sentences of `status`, `explain` and `doctor`.
Knows no cluster. Read next: `report.py`, `source.py`; `cli/hub.py`.
"""

import asyncio
from collections.abc import Callable, Iterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from sageserve.base.config import Scenario
from sageserve.base.config.clusters import AgentSettings
from sageserve.base.errors import ConfigError
from sageserve.base.units import MINUTE, SECOND, Micros, show_duration
from sageserve.live.agent.plan_record import decoded
from sageserve.live.agent.report import ENDING, AgentReport, TargetReport
from sageserve.live.agent.source import FolderSource, NotFetched, PlanSource, ServerSource, server_client
from sageserve.live.private import write_private

EVERY_S: Final = 30.0
FETCH_S: Final = 20.0
LATE: Final[Micros] = 5 * MINUTE
"""An agent says something every 30 s at most."""
HEARD: Final = "agents.json"


@dataclass(frozen=True, slots=True)
class AgentTrouble:
    """What is wrong with an agent, in a sentence, what to do next, and whether nothing of the plan is done there."""

    said: str
    next: str
    grave: bool = True


def agent_clusters(scenario: Scenario) -> dict[str, AgentSettings]:
    """Clusters that only agents reach, by name."""
    clusters = {} if scenario.live is None else scenario.live.clusters
    return {name: one.agent for name, one in clusters.items() if one.agent is not None}


class ReportReader:
    """Reads what agents say of themselves.

    Args:
        scenario: with their clusters.
        stack: of clients.
    """

    def __init__(self, scenario: Scenario, stack: AsyncExitStack) -> None:
        self._fleet, self._stack = scenario.name, stack
        self._agents = agent_clusters(scenario)
        self._sources: dict[str, PlanSource] = {}

    async def read(self) -> dict[str, AgentReport | str]:
        """The newest report of each cluster, or why there is none."""
        answers = await asyncio.gather(*(self._read(name, one) for name, one in self._agents.items()))
        return dict(zip(self._agents, answers, strict=True))

    async def _read(self, cluster: str, one: AgentSettings) -> AgentReport | str:
        if one.report is None:
            return f"nothing says where its agent reports: live.clusters.{cluster}.agent.report"
        try:
            if cluster not in self._sources:
                self._sources[cluster] = await self._source(cluster, one, one.report)
            async with asyncio.timeout(FETCH_S):
                content = await self._sources[cluster].fetch()
        except NotFetched as error:
            return str(error)
        except ConfigError as error:
            return error.message
        except TimeoutError:
            return f"{one.report} did not answer within {FETCH_S:.0f} s"
        found = decoded(content, AgentReport, "the report")
        if isinstance(found, AgentReport) and (found.fleet, found.cluster) != (self._fleet, cluster):
            return f"the report is of cluster {found.cluster!r} of fleet {found.fleet!r}"
        return found

    async def _source(self, cluster: str, one: AgentSettings, place: str) -> PlanSource:
        if "://" not in place:
            return FolderSource(Path(place), cluster, ENDING)
        client = await self._stack.enter_async_context(server_client(None if one.ca_file is None else Path(one.ca_file)))
        return ServerSource(place, cluster, client, None if one.bearer_file is None else Path(one.bearer_file), ENDING)


def sentence(cluster: str, found: AgentReport | str, wall: Micros) -> str:
    """How it stands there."""
    if isinstance(found, str):
        return printable(f"{cluster} is acted on by its agent alone, which is not heard: {found}.")
    plan = {
        "none": "has followed no plan yet",
        "in-force": f"follows plan {found.plan} (sequence {found.sequence})",
        "expired": f"follows plan {found.plan} (sequence {found.sequence}), which has ended",
    }[found.follows]
    counts = ", ".join(target_words(name, one) for name, one in found.targets.items())
    said = f"{cluster} is acted on by its agent alone, which {plan}, heard {_ago(wall - found.at)} ago: {counts or 'no target'}."
    return printable(said)


def target_words(name: str, one: TargetReport) -> str:
    """Counts of a target."""
    parts = [f"{one.ready} ready"]
    parts += [f"{count} {word}" for word, count in (("coming", one.coming), ("stuck", one.stuck)) if count]
    parts += ["not seen"] if one.blind else []
    return f"{name} {' and '.join(parts)}"


def troubles(cluster: str, found: AgentReport | str, wall: Micros) -> Iterator[AgentTrouble]:
    """What a person should mend, worst first."""
    if isinstance(found, str):
        yield AgentTrouble(f"its agent is not heard: {found}", f"sageserve agent FLEET --cluster {cluster} … --report URL")
        return
    if (since := wall - found.at) > LATE:
        yield AgentTrouble(
            f"its agent was last heard {_ago(since)} ago", f"is it running? kubectl logs deploy/…-agent in {cluster}"
        )
    if found.refused:
        yield AgentTrouble(
            f"its agent does not follow the newest plan ({found.refused}): {found.detail}",
            "sageserve hub publish FLEET PLAN --begin TIME --key hub.key --to DIR",
        )
    elif found.follows != "in-force":
        said = "has no plan" if found.follows == "none" else "has a plan that has ended"
        yield AgentTrouble(
            f"its agent {said}", "sageserve hub publish FLEET PLAN --begin TIME --key hub.key --to DIR", grave=False
        )
    for name, one in found.targets.items():
        if one.stuck:
            yield AgentTrouble(
                f"{name} has {one.stuck} instances that cannot come: {one.note}", "more quota, or a lower max", grave=False
            )
        elif one.planned is not None and one.followed is None:
            yield AgentTrouble(f"{name} is not followed: {one.why}", f"sageserve hub status says more of {cluster}", grave=False)


def printable(text: str) -> str:
    """Text as it can be shown: whoever can write where reports are could put anything there."""
    return "".join(sign if sign.isprintable() else "\ufffd" for sign in text)


def _ago(since: Micros) -> str:
    return show_duration(max(0, since) // SECOND * SECOND)


class AgentsHeard:
    """A process beside the one that watches: reports become notes, and a file for `explain`.

    Args:
        scenario: with clusters.
        state: folder of the state.
        wall: microseconds since 1970.
    """

    def __init__(self, scenario: Scenario, state: Path, wall: Callable[[], Micros]) -> None:
        self._scenario, self._path, self._wall = scenario, state / HEARD, wall
        self._unwritten = ""
        self.found: Mapping[str, AgentReport | str] = dict.fromkeys(agent_clusters(scenario), "nothing was read yet")

    async def run(self) -> None:
        """Until cancelled."""
        async with AsyncExitStack() as stack:
            reader = ReportReader(self._scenario, stack)
            while True:
                await self.look(reader)
                await asyncio.sleep(EVERY_S)

    async def look(self, reader: ReportReader) -> None:
        """Once."""
        self.found = await reader.read()
        await asyncio.to_thread(self._write)

    def _write(self) -> None:
        try:
            write_private(self._path, msgspec.json.encode(self._by_pool()))
            self._unwritten = ""
        except OSError as error:
            self._unwritten = f"{self._path}, which explain reads, cannot be written: {error.strerror}."

    def notes(self) -> tuple[str, ...]:
        """A sentence about each cluster, and one about each trouble."""
        wall = self._wall()
        told = [
            f"{cluster}: {one.said}."
            for cluster, found in self.found.items()
            if not isinstance(found, str)
            for one in troubles(cluster, found, wall)
        ]
        unwritten = [self._unwritten] if self._unwritten else []
        return *(sentence(cluster, found, wall) for cluster, found in self.found.items()), *map(printable, told), *unwritten

    def _by_pool(self) -> dict[str, str]:
        live, wall = self._scenario.live, self._wall()
        targets = {} if live is None else live.targets
        return {
            one.pool: sentence(one.cluster, self.found[one.cluster], wall)
            for one in targets.values()
            if one.cluster in self.found
        }


def heard_of(state: Path, pool: str) -> str:
    """What was heard last of a pool that an agent acts on; empty: nothing, or none does."""
    try:
        return msgspec.json.decode((state / HEARD).read_bytes(), type=dict[str, str]).get(pool, "")
    except (OSError, msgspec.DecodeError):
        return ""
