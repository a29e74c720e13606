"""`sageserve top`: a running fleet in the terminal, once a second; and the same picture once, for `sageserve status`.

Draws `live/control/status.py`'s value and asks for nothing else. Read next: `up.py`.
"""

import time
from typing import TYPE_CHECKING, Annotated, Final

import typer
from rich.console import Console, Group
from rich.text import Text

from sageserve.base.errors import SageServeError
from sageserve.cli.columns import StackedTable
from sageserve.cli.extras import need
from sageserve.cli.running import State, ask_status, running

if TYPE_CHECKING:
    from sageserve.live.control.status import EndpointStatus, Status

_DECISIONS: Final = 8
_BLOCKS: Final = 10  # of a bar


def top(
    state: State = None,
    every: Annotated[float, typer.Option(min=0.2, metavar="SECONDS", help="between two looks")] = 1.0,
) -> None:
    """Watch the running fleet; Ctrl-C leaves it running."""
    need("live")
    from rich.live import Live

    found = running(state)
    console = Console(emoji=False)
    try:
        with Live(picture(ask_status(found)), console=console, screen=console.is_terminal, auto_refresh=False) as view:
            while True:
                time.sleep(every)
                try:
                    view.update(picture(ask_status(running(state))), refresh=True)
                except SageServeError as error:
                    view.update(Text(f"{error.message}; {error.hint}", style="red"), refresh=True)
    except KeyboardInterrupt:
        return


def draw_status(status: "Status") -> None:
    """Print a status once."""
    Console(highlight=False, emoji=False).print(picture(status))


def picture(status: "Status") -> Group:
    """A status as tables that fit the terminal."""
    return Group(
        _head(status), "", _endpoints(status), "", _since(status), _tiers(status), "", _decisions(status), *_notes(status)
    )


def _head(status: "Status") -> Text:
    mode = "" if status.acting and not status.watched else ", acting on targets" if status.acting else ", only watching"
    ours = f"{status.gateway.url}/v1  ({status.gateway.processes} gateway{'s' if status.gateway.processes != 1 else ''})"
    return Text.assemble(
        (status.fleet, "bold"),
        f"  {status.strategy}{mode}  {status.gpus_held} GPUs held  control up {_span(status.up_s)}",
        f"  seen {_span(status.scraped_s)} ago\n",
        f"seen through {', '.join(status.watched)}" if status.watched else ours,
    )


def _endpoints(status: "Status") -> StackedTable:
    table = StackedTable("region/model")
    table.add_column("utilised", no_wrap=True)
    for name in ("memory", "in_flight", "serve", "come", "drain", "batch"):
        table.add_column(name, justify="right")
    for endpoint in status.endpoints:
        pools = {pool.pool for pool in endpoint.pools}
        in_flight = sum(one.in_flight for one in status.instances if one.pool in pools)
        sums = [sum(getattr(pool, name) for pool in endpoint.pools) for name in ("serving", "coming", "draining")]
        table.add_row(
            endpoint.endpoint,
            _bar(endpoint),
            f"{endpoint.kv:.0%}",
            str(in_flight),
            *map(str, sums),
            f"{endpoint.waiting_batch:,}",
        )
    return table


def _bar(endpoint: "EndpointStatus") -> Text:
    if endpoint.sleep in {"asleep", "waking"}:
        return Text(
            endpoint.sleep + (f", {endpoint.held:,} wait" if endpoint.held else ""), style="yellow" if endpoint.held else "dim"
        )
    if endpoint.blind:
        return Text("not seen", style="bold red")
    full = round(endpoint.utilisation * _BLOCKS)
    more = f" +{endpoint.pressure:.0%}" if endpoint.pressure >= 0.005 else ""  # asked for beyond all there is
    style = "red" if endpoint.utilisation > 0.9 else "yellow" if endpoint.utilisation > 0.7 else "green"
    return Text.assemble(("█" * full, style), ("░" * (_BLOCKS - full), "dim"), f" {endpoint.utilisation:4.0%}", (more, "red"))


def _since(status: "Status") -> Text:
    """Counts begin anew with control; `report` reads what was before."""
    return Text(f"requests since control began {_span(status.up_s)} ago", style="bold")


def _tiers(status: "Status") -> StackedTable:
    if status.watched:  # whose engines do not say which class a request was of
        table = StackedTable("tier", "requests")
        for tier in status.tiers:
            table.add_row(tier.tier, f"{tier.requests:,}")
        return table
    table = StackedTable("tier", "requests", "answered", "turned away", "on time")
    for tier in status.tiers:
        share = f"{tier.on_time / tier.finished:.1%}" if tier.finished else "-"
        table.add_row(tier.tier, f"{tier.requests:,}", f"{tier.finished:,}", f"{tier.refused:,}", share)
    return table


def _decisions(status: "Status") -> StackedTable:
    table = StackedTable("when", "pool", left=2, keys=2, title="decisions, latest first")
    table.add_column("change", justify="right")
    table.add_column("why")
    for one in status.decisions[:_DECISIONS]:
        change = f"{one.done:+d}" if one.done == one.change else f"{one.done:+d} of {one.change:+d}"
        table.add_row(time.strftime("%H:%M:%S", time.localtime(one.wall_s)), one.pool, change, one.words)
    if not status.decisions:
        table.add_row("", "", "", "none since control began")
    return table


def _notes(status: "Status") -> list[Text]:
    return [Text(note, style="yellow") for note in status.notes]


def _span(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
