"""An account of a run, and a sweep with its verdict, on a terminal: tables, bars and sentences in 100 columns.

Draws what it is given. Colours only where a terminal shows them and NO_COLOR is not set; other characters than ASCII only
where the output can carry them. Read next: `show/account.py` for the record, `show/spark.py`.
"""

import os
from collections.abc import Callable, Sequence

from rich.console import Console, RenderableType
from rich.markup import escape

from sageserve.base.units import MINUTE, SECOND, show_duration
from sageserve.cli.columns import WIDTH, StackedTable
from sageserve.cli.render import header, hours_tables, tiers_tables, totals
from sageserve.core.handover import DECODE
from sageserve.data.results.sweep_read import Sweep
from sageserve.show.account import Account
from sageserve.show.choices import Choices
from sageserve.show.format import NONE, count, percent, seconds
from sageserve.show.lines import BINS, EndpointLine, RegionFlow, RunLines
from sageserve.show.spark import PLAIN, bars
from sageserve.show.verdict import Verdict

_LABEL = 27  # columns of a name beside bars; a longer one takes several lines
_WIDE = _LABEL + BINS + 18  # columns of all bars with a name and two numbers; in less room two bins are one bar
_MOST = 12  # endpoints that are drawn; --json has all of them
_FLOWS = 8


class TerminalPage:
    """Standard output, 100 columns at most; more only for a path or a command."""

    def __init__(self) -> None:
        plain = "NO_COLOR" in os.environ
        self._console = Console(soft_wrap=False, highlight=False, emoji=False, color_system=None if plain else "auto")
        wide = self._console.width if self._console.is_terminal else WIDTH
        self._console.width = min(wide, WIDTH)
        self._ascii = not self._console.encoding.lower().startswith("utf")

    @property
    def width(self) -> int:
        """Columns."""
        return self._console.width

    def print(self, what: RenderableType = "", *, style: str | None = None, whole: bool = False) -> None:
        """Print markup or a table; `whole`: on one line however long, because a path or a command in it is there to be copied."""
        with self._console.capture() as captured:
            self._console.print(what, style=style, soft_wrap=whole)
        text = captured.get()
        self._console.file.write(text.translate(PLAIN).encode("ascii", "replace").decode() if self._ascii else text)

    def title(self, text: str, aside: str = "") -> None:
        """A blank line and a heading."""
        self.print()
        self.print(f"[bold]{escape(text)}[/bold]" + (f"  [dim]{escape(aside)}[/dim]" if aside else ""))

    def table(self, *titles: str, left: int) -> StackedTable:
        """A table without lines whose first `left` columns are text."""
        return StackedTable(*titles, left=left)


def draw(page: TerminalPage, found: Account) -> None:
    """Print the account of a run."""
    page.print(header(found.summary))
    page.print()
    draw_verdict(page, found.verdict)
    page.title("promises")
    for table in tiers_tables(found.summary, page.width):
        page.print(table)
    page.title("GPU-hours and cost")
    for table in hours_tables(found.summary, page.width):
        page.print(table)
    page.print()
    page.print(totals(found.summary))
    if found.lines is not None:
        _draw_lines(page, found.lines, found.summary.signal)
    if found.choices is not None:
        _draw_choices(page, found.choices)
    if found.lines is not None:
        _draw_flows(page, found.lines.flows)
    if found.summary.notes:
        page.title("notes")
        for note in found.summary.notes:
            page.print(f"  {escape(note)}")


def draw_verdict(page: TerminalPage, found: Verdict) -> None:
    """Print a verdict: the sentence, what it saves, what it risks, why not the others, and what to do next."""
    page.print(f"[bold]{escape(found.headline)}[/bold]")
    rows = [("saves", found.saves), *(("risk", risk) for risk in found.risks)]
    rows += [(f"not {name}", f"{why}.") for name, why in found.others.items()]
    table = page.table("", "", left=2)
    for word, text in (*rows, ("next", found.recommendation)):
        table.add_row(f"[dim]{escape(word)}[/dim]", escape(text))
    page.print(table)


def draw_left(page: TerminalPage, sweep: Sweep) -> None:
    """Say what of a sweep's folder is not in its tables."""
    if sweep.left:
        page.print(
            f"{count(sweep.left, 'result')} of other settings in this folder {'is' if sweep.left == 1 else 'are'} left out."
        )


def _draw_lines(page: TerminalPage, lines: RunLines, signal: str) -> None:
    width = f"one bar per {_span(lines.bin_s * _joined(page))}"
    ends = sorted(lines.endpoints, key=lambda one: -sum(one.serving))
    shown = [one for one in lines.endpoints if one in ends[:_MOST]]
    rows: list[tuple[str, str, Callable[[EndpointLine], Sequence[float | None]], float | None, Callable[[float], str]]] = [
        ("demand", "requests/s that arrived", lambda one: one.demand, None, "{:,.3g}".format),
        ("capacity", "instances serving", lambda one: one.serving, None, "{:,.3g}".format),
        ("utilisation", f"signal {signal}", lambda one: one.utilisation, 1.0, lambda value: percent(value, 0)),
    ]
    for name, what, value, top, show in rows:
        highest = max((number for one in lines.endpoints for number in value(one) if number is not None), default=0.0)
        scale = highest if top is None else max(top, highest)
        page.title(name, f"{what}, {width}; a full bar is {show(scale)}")
        drawn = [one for one in shown if name != "demand" or one.role != DECODE]  # what is decoded was prefilled, and counted
        _bars(page, lines, [(one.name, value(one)) for one in drawn], (scale, show, "mean"))
    if len(shown) < len(ends):
        page.print(f"and {count(len(ends) - len(shown), 'endpoint')} with less capacity: --json has them", style="dim")
    _draw_backlog(page, lines, width)


def _draw_backlog(page: TerminalPage, lines: RunLines, width: str) -> None:
    if not lines.backlog:
        return
    most = float(max(max(one.waiting) for one in lines.backlog))
    oldest = max(max(one.oldest_s) for one in lines.backlog)
    if not most and not oldest:
        page.title("batch queue", "always empty")
        return
    if most:
        page.title("batch queue", f"jobs waiting in all regions, {width}; a full bar is {most:,.0f}")
        _bars(page, lines, [(one.model, one.waiting) for one in lines.backlog], (most, "{:,.0f}".format, ""))
    else:
        page.title("batch queue", f"jobs waiting in all regions, {width}: always empty")
    page.title("oldest job", f"batch work: time without a first token; a full bar is {seconds(oldest)}")
    _bars(page, lines, [(one.model, one.oldest_s) for one in lines.backlog], (oldest, seconds, ""))


def _bars(
    page: TerminalPage,
    lines: RunLines,
    rows: Sequence[tuple[str, Sequence[float | None]]],
    scale: tuple[float, Callable[[float], str], str],
) -> None:
    """Rows of bars on one scale, the window below them, mean and highest beside them."""
    top, show, mean = scale
    table = page.table("", left=1)
    table.show_header = True
    table.add_column("", no_wrap=True)
    for title in (mean, "most"):
        table.add_column(title, justify="right")
    many = _joined(page)
    for name, values in rows:
        known = [value for value in values if value is not None]
        middle = show(sum(known) / len(known)) if known and mean else ""
        drawn = bars(_merged(values, many, highest=not mean), top)
        table.add_row(escape(name.ljust(_LABEL)), drawn, middle, show(max(known)) if known else NONE)
    bins, end = -(-len(rows[0][1]) // many), _span(lines.bin_s * len(rows[0][1]))
    if bins > len(end) + 2:
        table.add_row("", f"[dim]0h{end:>{bins - 2}}[/dim]", "", "")
    page.print(table)


def _joined(page: TerminalPage) -> int:
    """Bins that are one bar."""
    return 1 if page.width >= _WIDE else 2


def _merged(values: Sequence[float | None], many: int, *, highest: bool) -> list[float | None]:
    """The mean, or the highest, of so many neighbours each; of those there are."""
    parts = [[value for value in values[low : low + many] if value is not None] for low in range(0, len(values), many)]
    return [(max(part) if highest else sum(part) / len(part)) if part else None for part in parts]


def _draw_choices(page: TerminalPage, found: Choices) -> None:
    plans = f"; {count(found.plans, 'plan')} solved" if found.plans else ""
    failed = f", {found.plans_failed:,} without an answer" if found.plans_failed else ""
    page.title("scale decisions", f"{found.decisions:,} of them{plans}{failed}")
    if not found.decisions:
        page.print("none: the fleet stayed as it started")
        return
    table = page.table("reason", "decisions", "instances wanted", "done", left=1)
    for one in found.reasons:
        table.add_row(one.reason, f"{one.decisions:,}", f"{one.wanted:+,}", f"{one.done:+,}")
    page.print(table)
    for each in found.blocked:
        what = f"{count(each.decisions, 'decision')}, {count(each.missing, 'instance')} short"
        page.print(f"[yellow]blocked[/yellow] {what}: {escape(each.words)}")
    page.print("largest", style="dim")
    table = page.table("when", "change", left=0)
    for title in ("pool", "why"):
        table.add_column(title)
    for told in found.largest:
        table.add_row(show_duration(told.at // SECOND * SECOND), f"{told.wanted:+d}", escape(told.pool), escape(told.words))
    page.print(table)


def _draw_flows(page: TerminalPage, flows: Sequence[RegionFlow]) -> None:
    moved = [flow for flow in flows if flow.origin != flow.served]
    here = sum(flow.requests for flow in flows)
    if not here:
        return
    away = sum(flow.requests for flow in moved)
    page.title("region flows", f"{percent(away / here, 1)} of the requests were served in another region than they came from")
    table = page.table("from", "to", "requests", "of the origin's", left=2)
    largest = sorted(moved, key=lambda flow: -flow.requests)[:_FLOWS]
    for flow in largest:
        table.add_row(escape(flow.origin), escape(flow.served), f"{flow.requests:,}", percent(flow.share, 1))
    if largest:
        page.print(table)
    if len(moved) > len(largest):
        page.print(f"and {count(len(moved) - len(largest), 'smaller flow')}: --json has them", style="dim")


def _span(length_s: float) -> str:
    micros = round(length_s * SECOND)
    return show_duration(micros if micros < MINUTE else round(micros / SECOND) * SECOND)
