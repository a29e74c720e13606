"""`sageserve swarm`: the live control code under seeded faults, in virtual time. Knows options and tables.

stdout is the result. Read next: `live/swarm/`, docs/reference/swarm.md.
"""

from typing import TYPE_CHECKING, Annotated

import typer

from sageserve.cli.streams import answer_json

if TYPE_CHECKING:
    from sageserve.live.swarm.story import Violation

EXAMPLES = """[bold]Examples[/bold]

sageserve swarm

sageserve swarm --seeds 10000

sageserve swarm --seed 4711 [dim]— what happens in that story, line by line[/dim]
"""
_SHOWN = 20


def swarm(
    seeds: Annotated[int, typer.Option(min=1, max=1_000_000, help="how many stories are played")] = 100,
    first: Annotated[int, typer.Option(min=0, help="the seed of the first one")] = 0,
    seed: Annotated[int | None, typer.Option(min=0, help="tell the story of this seed alone")] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="processes that play them", show_default="as many as there are cores")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print seeds and violations with their stories")] = False,
) -> None:
    """Let faults fall upon the live control code in virtual time, and check that its laws hold.

    Whole control processes, gateways' decisions, batches and clients on paper: nothing is served, and no fleet is touched. Equal
    seeds tell equal stories. The exit code is 1 when a law does not hold.
    """
    import os

    from sageserve.cli.extras import need
    from sageserve.cli.progress import Interruption, bar, compile_once

    need("live")
    compile_once()
    from sageserve.live.swarm.many import swarm as play

    if seed is not None:
        _tell(seed, as_json=as_json)
        return
    chosen = range(first, first + seeds)
    with Interruption().heard() as interruption, bar("stories") as told:
        played, found = play(chosen, workers or os.cpu_count() or 1, told, lambda: interruption.asked)
    _answer(played, first, found, as_json=as_json)
    if found:
        raise typer.Exit(1)


def _tell(seed: int, *, as_json: bool) -> None:
    """The story of one seed."""
    import tempfile
    from pathlib import Path

    from sageserve.live.swarm.laws import LAWS
    from sageserve.live.swarm.story import tell, violations

    with tempfile.TemporaryDirectory() as folder:
        told = tell(seed, Path(folder) / "story")
    if as_json:
        _print(1, violations(told))
    else:
        typer.echo("\n".join(told.story))
        said = [f"{law}: {LAWS[law]}\n    {what}" for law, what in told.broken.items()]
        typer.echo("\n" + ("\n".join(said) if said else f"seed {seed}: all {len(LAWS)} laws held"))
    if told.broken:
        raise typer.Exit(1)


def _answer(played: int, first: int, found: "list[Violation]", *, as_json: bool) -> None:
    from sageserve.live.swarm.laws import LAWS

    if as_json:
        _print(played, found)
        return
    by_law: dict[str, list[int]] = {}
    for one in found:
        by_law.setdefault(one.law, []).append(one.seed)
    seeds = f"{played:,} seeds from {first:,}"
    if not found:
        typer.echo(f"{seeds}: all {len(LAWS)} laws held")
        return
    typer.echo(f"{seeds}: {len({one.seed for one in found}):,} of them broke a law")
    for law, broke in sorted(by_law.items(), key=lambda item: -len(item[1])):
        more = f" and {len(broke) - _SHOWN:,} more" if len(broke) > _SHOWN else ""
        typer.echo(f"{law}: {LAWS[law]}\n    seeds {', '.join(map(str, broke[:_SHOWN]))}{more}")
    typer.echo(f"`sageserve swarm --seed {found[0].seed}` tells the first of these stories")


def _print(played: int, found: "list[Violation]") -> None:
    rows = [{"seed": one.seed, "law": one.law, "story": list(one.story)} for one in found]
    typer.echo(answer_json({"seeds": played, "violations": rows}))
