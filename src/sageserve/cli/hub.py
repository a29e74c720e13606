"""`sageserve hub`: plans for clusters that nobody here can reach, sealed for their agents; and what the agents say of themselves.

Needs no right in any cluster and asks none. Read next: `agent.py`; `live/agent/publish.py`; docs/how-to/many-clusters.md.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sageserve.base.errors import ConfigError
from sageserve.cli.extras import need
from sageserve.cli.streams import answer_json
from sageserve.cli.wall import show_wall, wall_now

if TYPE_CHECKING:
    from sageserve.base.config import Scenario
    from sageserve.base.units import Micros
    from sageserve.live.agent.report import AgentReport

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="rich",
    help="Plans for clusters that nobody here can reach: keys, sealed plans, what agents say.",
)

EXAMPLES = """[bold]Examples[/bold]

sageserve hub key hub [dim]— hub.key stays here, hub.pub goes to the agents[/dim]

sageserve plan fleet.yaml --at 14h -o plan.json && sageserve plan show plan.json

sageserve hub publish fleet.yaml plan.json --begin 2026-11-30T14:00 --key hub.key --to plans/

sageserve hub status status/

sageserve hub status fleet.yaml [dim]— from wherever live.clusters.NAME.agent.report says[/dim]
"""


@app.command(epilog=EXAMPLES)
def key(
    name: Annotated[str, typer.Argument(metavar="NAME", help="of the two files, without an ending")],
    folder: Annotated[Path, typer.Option("--to", metavar="DIR", help="where they are put")] = Path(),
) -> None:
    """Make a pair of keys: NAME.key seals plans and stays here, NAME.pub is what agents trust."""
    need("agents")
    from sageserve.live.agent.sealed import make_key

    if not name or Path(name).name != name or name.startswith("."):
        raise ConfigError(f"{name!r} is no name of a file", hint="write a name such as hub, and the folder with --to")
    private, public, told = make_key(folder, name)
    typer.echo(
        f"{private}  seals plans; for this user alone\n{public}  for agents: sageserve agent … --key {public.name}\nkey {told}"
    )


@app.command(epilog=EXAMPLES)
def publish(  # noqa: PLR0913, PLR0917 # one argument per option
    scenario: Annotated[str, typer.Argument(metavar="SCENARIO", help="that the plan was made of, with clusters and targets")],
    path: Annotated[Path, typer.Argument(metavar="PLAN", help="a plan.json")],
    begin: Annotated[str, typer.Option("--begin", metavar="TIME", help="when the plan's instant is, such as 2026-11-30T14:00")],
    sealer: Annotated[Path, typer.Option("--key", metavar="FILE", help="the private key, of `sageserve hub key`")],
    to: Annotated[Path, typer.Option("--to", metavar="DIR", help="where CLUSTER.plan is written, for agents to fetch")],
    zone: Annotated[str, typer.Option("--timezone", metavar="ZONE", help="of --begin")] = "UTC",
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="as the plan was made with; may be repeated")
    ] = None,
    sequence: Annotated[
        int,
        typer.Option("--sequence", min=0, max=(1 << 53) - 1, help="of these plans, instead of one more", show_default="counted"),
    ] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="print the answer as JSON")] = False,
) -> None:
    """Seal a reviewed plan for the agent of each cluster: one file CLUSTER.plan each, with a sequence that grows."""
    need("agents")
    from sageserve.cli.apply import EXPIRED, end_with, refuse_other
    from sageserve.cli.render_plan_files import wall_clock
    from sageserve.data.scenarios.load import load_scenario
    from sageserve.live.agent import publish as hub
    from sageserve.live.agent.plan_record import ClusterPlan
    from sageserve.live.agent.sealed import key_name, private_key
    from sageserve.show.plan_file import solved_plan

    begins = wall_clock("publish", begin, zone)
    assert begins is not None
    settings = load_scenario(scenario, overrides=overrides or ())
    file, secret, wall = solved_plan(path), private_key(sealer), wall_now()
    refuse_other(file, settings)
    starts = round(begins.timestamp() * 1e6)
    ends = starts + file.expires_at - file.made_at
    if wall >= ends:
        end_with(EXPIRED, f"the plan expired at {show_wall(ends)}", "plan again, or say when its instant is: --begin TIME")
    _refuse_other_key(settings, found := hub.cluster_targets(settings, file), sealer)
    made = file.solved.plan.input_hash[:12]
    rows = []
    with hub.alone(to):
        numbers = {name: hub.next_sequence(to, name, wall, secret, sequence) for name in found}
        for name, targets in found.items():
            plan = ClusterPlan(
                fleet=settings.name,
                cluster=name,
                sequence=numbers[name],
                plan=made,
                not_before=starts,
                valid_until=ends,
                targets=targets,
            )
            written = hub.publish(to, plan, secret)
            counts = {target: one.count for target, one in targets.items()}
            rows.append(_Published(name, str(written), plan.sequence, counts))
    sealed_by = key_name(secret.public_key())
    if as_json:
        typer.echo(answer_json({"plan": made, "key": sealed_by, "until_us": ends, "clusters": [asdict(one) for one in rows]}))
        return
    for one in rows:
        typer.echo(f"{one.file}: sequence {one.sequence}, {', '.join(f'{name}={count}' for name, count in one.targets.items())}")
    typer.echo(f"sealed by key {sealed_by}; holds from {show_wall(starts)} until {show_wall(ends)}")


def _refuse_other_key(settings: "Scenario", clusters: "Iterable[str]", sealer: Path) -> None:
    """Refuse to seal by a key that an agent does not trust, where settings say which it trusts.

    Raises:
        ConfigError: it trusts another.
    """
    from sageserve.live.agent.heard import agent_clusters
    from sageserve.live.agent.sealed import key_name, private_key, trusted_keys

    name, agents = key_name(private_key(sealer).public_key()), agent_clusters(settings)
    for cluster in clusters:
        trusted = agents[cluster].key if cluster in agents else None
        if trusted is not None and name not in trusted_keys([Path(trusted)]):
            raise ConfigError(
                f"--key {sealer}: the agent of {cluster} trusts another, live.clusters.{cluster}.agent.key: {trusted}",
                hint="seal with the key of that pair",
            )


@dataclass(frozen=True, slots=True)
class _Published:
    """A plan that was written for a cluster: where, with which sequence, and what it wants of each target."""

    cluster: str
    file: str
    sequence: int
    targets: dict[str, int]


@app.command(epilog=EXAMPLES)
def status(
    place: Annotated[
        Path,
        typer.Argument(metavar="DIR|SCENARIO", help="with CLUSTER.status.json of agents; or whose agents say where theirs is"),
    ],
    as_json: Annotated[bool, typer.Option("--json", help="print the answer as JSON")] = False,
) -> None:
    """Say what agents have said: which plan each follows, what of it stands, what was cut and why."""
    found = _of_settings(place) if place.is_file() else _of_folder(place)
    wall = wall_now()
    if as_json:
        rows = [{"file": str(path), **({"error": one} if isinstance(one, str) else {"report": one})} for path, one in found]
        typer.echo(answer_json(rows))
        return
    for number, (path, one) in enumerate(found):
        if number:
            typer.echo("")
        lines = [f"{path.name}: {one}"] if isinstance(one, str) else lines_of(one, wall)
        if not isinstance(one, str) and path.name not in {f"{one.cluster}.status.json", one.cluster}:
            lines[0] = f"{path.name} speaks for another: {lines[0]}"
        typer.echo("\n".join("".join(sign if sign.isprintable() else "\ufffd" for sign in line) for line in lines))


def _of_folder(folder: Path) -> "Sequence[tuple[Path, AgentReport | str]]":
    """All reports of a folder."""
    from sageserve.live.agent.report import read_reports

    try:
        found = read_reports(folder)
    except OSError as error:
        raise ConfigError(f"{folder} cannot be read: {error.strerror}", hint="the folder of `sageserve agent --report`") from None
    if not found:
        raise ConfigError(f"no agent has written to {folder}", hint="the folder of `sageserve agent --report`")
    return found


def _of_settings(scenario: Path) -> "Sequence[tuple[Path, AgentReport | str]]":
    """Reports of the clusters that only agents reach, wherever settings say that these are."""
    import asyncio
    from contextlib import AsyncExitStack

    from sageserve.data.scenarios.load import load_scenario
    from sageserve.live.agent.heard import ReportReader, agent_clusters

    settings = load_scenario(scenario)
    if not agent_clusters(settings):
        raise ConfigError(
            f"{settings.name} has no cluster with an agent", hint="live.clusters.NAME.agent: {plans: URL, report: URL}"
        )

    async def read() -> "Mapping[str, AgentReport | str]":
        async with AsyncExitStack() as stack:
            return await ReportReader(settings, stack).read()

    return [(Path(name), one) for name, one in asyncio.run(read()).items()]


def lines_of(report: "AgentReport", wall: "Micros") -> list[str]:
    """A report in lines."""
    from sageserve.base.units import SECOND, show_duration

    def ago(since: int) -> str:
        return show_duration(max(0, since) // SECOND * SECOND)

    heard = f", heard {ago(wall - report.at)} ago"
    if report.follows == "none":
        head = f"{report.cluster}: follows no plan yet{heard}"
    else:
        held = (
            f"holds until {show_wall(report.until)}" if report.follows == "in-force" else f"ended {ago(wall - report.until)} ago"
        )
        head = f"{report.cluster}: plan {report.plan}, sequence {report.sequence}, {held}{heard}"
    found = [head]
    for name, one in report.targets.items():
        plan = "no plan" if one.planned is None else f"plan {one.planned}"
        if one.planned is not None and one.followed != one.planned:
            plan += f" -> {'not followed' if one.followed is None else one.followed} ({one.why})"
        bounds = "" if one.low is None else f", minimum {one.low}, maximum {one.high}"
        stands = "not read" if one.count is None else f"{one.count} asked for, {one.ready} ready{bounds}"
        late = "" if one.withheld == "not" else f", {one.withheld}"
        found.append(f"  {name}: {plan}; {stands}{late}")
    return found + [f"  {note}" for note in report.notes]
