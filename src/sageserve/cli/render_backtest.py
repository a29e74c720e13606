"""A backtest as lines and a table that fit 100 columns, and what its report says beside the figures.

AnswerChecks come first, then the error, then policies. Draws what it is given. Read next: `sim/backtest/answer.py`.
"""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from rich.markup import escape

from sageserve.base.units import SECOND, show_duration, show_money
from sageserve.cli.columns import Column, prose, tables, terminal
from sageserve.cli.render import NONE, hours
from sageserve.cli.render_compare import change, kept
from sageserve.data.results.comparison import held, owed
from sageserve.show.page import Preface, Value
from sageserve.show.sheets import Sheet, TableCell, TableRow
from sageserve.sim.backtest.answer import AnswerCheck
from sageserve.sim.backtest.replayed import WITHIN, as_numbers

if TYPE_CHECKING:
    from sageserve.cli.backtest_history import PlacedHistory
    from sageserve.data.results.summary import Summary
    from sageserve.sim.backtest.answer import BacktestAnswer, Saving
    from sageserve.sim.backtest.replayed import HourCheck

_COLOURS = {"ok": "green", "wrong": "bold red", "unknown": "yellow"}
_STATES = {"ok": "fits", "wrong": "does not fit", "unknown": "not known"}
NOISE = "noise"
HOURS_MOST = 12  # that are listed


def draw(answer: "BacktestAnswer", scenario: str) -> None:
    """Print it on stdout."""
    console = terminal()
    some = _some(answer)
    span = show_duration(round(some.window_s * SECOND))
    seeds = sorted({seed for runs in answer.comparison.runs.values() for seed in runs})
    made = "made once" if len(seeds) == 1 else f"made {len(seeds)} times; means over them"
    prose(console, f"[bold]{escape(scenario)}[/bold]: {some.requests.arrived:,} requests over {span}, {made}", under=2)
    for name, check in _checks(answer):
        said = f"{check.said} {check.next}".strip()
        prose(console, f"[{_COLOURS[check.state]}]{check.state:>7}[/] [bold]{name}[/] {escape(said)}", under=8)
    console.print()
    for table in tables(_columns(answer), console.width):
        console.print(table)
    console.print()
    for line in (answer.error_sentence(), *noise_words(answer)):
        prose(console, escape(line), under=2, style="dim")


def _checks(answer: "BacktestAnswer") -> Iterator[tuple[str, AnswerCheck]]:
    checks = answer.checks
    yield from (("profile", checks.profile), ("lengths", checks.lengths), ("counters", checks.counters))


def _some(answer: "BacktestAnswer") -> "Summary":
    return next(iter(next(iter(answer.comparison.runs.values())).values()))


def _columns(answer: "BacktestAnswer") -> list[Column]:
    comparison, savings = answer.comparison, answer.savings()
    names = list(comparison.runs)

    def mean(name: str, value: Value, show: Callable[[float], str]) -> str:
        found = comparison.of(name, value)
        return NONE if found is None else show(found.mean)

    columns = [
        Column("policy", names),
        Column("GPU\nhours", [mean(name, held, hours) for name in names]),
        Column("owed", [mean(name, owed, hours) for name in names]),
        Column("cost", [mean(name, _cost, lambda value: show_money(value, comparison.currency, 0)) for name in names]),
    ]
    if savings:
        columns.append(Column(f"vs {answer.base}\nwith owed", [saving_text(savings.get(name)) for name in names]))
    if answer.bounds:
        over = {name: comparison.over_bound(name) for name in names}
        columns.append(Column("×\nbound", [NONE if (one := over[name]) is None else f"{one.mean:.2f}" for name in names]))
    for tier, promised in _some(answer).tiers.items():
        word = "on time" if promised.promise == "deadline" else "kept"
        columns.append(Column(f"{tier}\n{word}", [mean(name, _attainment(tier), kept) for name in names]))
    for stock in _some(answer).stocks:
        cells = [mean(name, _gpus(stock), "{:,.1f}".format) for name in names]
        columns.append(Column(f"GPUs, {stock.split('/')[0]}\n{stock.split('/')[1]}", cells))
    return columns


def _cost(run: "Summary") -> float:
    return run.cost_usd.total


def _attainment(tier: str) -> Value:
    return lambda run: run.tiers[tier].attainment


def _gpus(stock: str) -> Value:
    """GPUs held on the mean."""
    return lambda run: run.stocks[stock] / run.window_s * 3600


def saving_text(saving: "Saving | None") -> str:
    """A difference with what it may be off by, where that is known: `-12.3% ±1.4`, or the word noise."""
    if saving is None:
        return NONE
    if saving.noise:
        return f"{change(saving.gpu_hours)} {NOISE}"
    if saving.error is None:
        return change(saving.gpu_hours)
    return f"{change(saving.gpu_hours)} ±{100 * saving.error:.1f}"


def noise_words(answer: "BacktestAnswer") -> Iterator[str]:
    """A line, or none where nothing is known of any error."""
    savings = answer.savings().values()
    known = any(saving.error is not None for saving in savings)
    words = ["± is the error of the reconstruction, in points."] if known else []
    if noise := [name for name, saving in answer.savings().items() if saving.noise]:
        words.append(f"Within {'it or ' if known else ''}twice the spread of the seeds, so noise: {', '.join(noise)}.")
    elif known and all(saving.noise is False for saving in savings):
        words.append("No difference is within it.")
    if words:
        yield " ".join(words)


def preface(answer: "BacktestAnswer", history: "PlacedHistory") -> Preface:
    """What the report says beside its figures; what is wrong opens it."""
    profile = answer.checks.profile
    warnings = [("Read this first.", text) for text in answer.warnings()]
    if profile.state == "unknown":
        warnings.append(("Not checked.", f"{profile.said} {profile.next}"))
    grid = history.grid
    source = sorted({one.source for one in history.streams})
    notes = (
        f"The history: a sample every {show_duration(grid.interval)}, arrivals counted by {' and '.join(source)}.",
        answer.error_sentence(),
        *noise_words(answer),
        *answer.notes,
    )
    return Preface("Backtest report", tuple(warnings), (_check_sheet(answer), _error_sheet(answer), _gpu_sheet(answer)), notes)


def _check_sheet(answer: "BacktestAnswer") -> Sheet:
    marks = {"ok": "good", "wrong": "bad", "unknown": ""}
    rows = tuple(
        TableRow(name, (TableCell(_STATES[one.state], mark=marks[one.state]), TableCell(one.said)))
        for name, one in _checks(answer)
    )
    off = [line for one in answer.checks.hours.hours if (line := _hour_off(one))]
    more = (f"And {len(off) - HOURS_MOST} more hours.",) if len(off) > HOURS_MOST else ()
    return Sheet("Can this be believed?", ("check", "what was found"), rows, (*off[:HOURS_MOST], *more))


def _hour_off(one: "HourCheck") -> str:
    """What is off in an hour; empty: nothing is."""
    apart = {measure: value for measure, value in one.apart.items() if value is not None and abs(value) > WITHIN}
    return f"{one.endpoint}, hour {one.hour}: {', '.join(as_numbers(apart))}" if apart else ""


def _error_sheet(answer: "BacktestAnswer") -> Sheet:
    savings, tiers = answer.savings(), list(_some(answer).tiers)
    columns = (f"against {answer.base}", "spread", "GPU-hours off by", "dollars off by", *(f"{tier} off by" for tier in tiers))
    rows = []
    for name in answer.comparison.runs:
        saving, error = savings.get(name), answer.errors.get(name)
        spread = NONE if saving is None or saving.spread is None else f"±{saving.spread:.1%}"
        cells = [TableCell(saving_text(saving)), TableCell(spread)]
        if error is None:
            cells += [TableCell(NONE)] * (2 + len(tiers))
        else:
            cells += [TableCell(f"{error.gpu_hours:+.1%}"), TableCell(f"{error.cost:+.1%}")]
            cells += [
                TableCell(NONE if (points := error.promise_points.get(tier)) is None else f"{points:+.1f} points")
                for tier in tiers
            ]
        rows.append(TableRow(name, tuple(cells)))
    return Sheet("How sure is it?", columns, tuple(rows), ())


def _gpu_sheet(answer: "BacktestAnswer") -> Sheet:
    stocks = list(_some(answer).stocks)
    rows = []
    for name in answer.comparison.runs:
        cells = []
        for stock in stocks:
            found = answer.comparison.of(name, _gpus(stock))
            cells.append(TableCell(NONE if found is None else f"{found.mean:,.1f}"))
        rows.append(TableRow(name, tuple(cells)))
    return Sheet("GPUs held on the mean, by region and type", tuple(stocks), tuple(rows), ())
