"""A difference of two sides on a terminal: settings old and new, numbers with their interval and what to think of them.

Draws what it is given, in 100 columns. Read next: `show/difference.py` for the record.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from rich.markup import escape

from sageserve.cli.render_show import TerminalPage
from sageserve.show.difference import Difference, How, Number, Word
from sageserve.show.format import NONE, count, gpu_hours, listed, money, percent, seconds

_MARK: Final[Mapping[Word, str]] = {
    Word.CHANGED: "[bold]changed[/bold]",
    Word.NOISE: "[dim]noise[/dim]",
    Word.SAMPLING: "[dim]sampling[/dim]",
    Word.UNKNOWN: "[yellow]unknown[/yellow]",
    Word.TRAFFIC: "[yellow]differs[/yellow]",
    Word.EQUAL: "[dim]equal[/dim]",
}
_MEANING: Final[Mapping[Word, str]] = {
    Word.CHANGED: "changed: more than the seeds' spread explains",
    Word.NOISE: "noise: no difference beyond the seeds' spread",
    Word.SAMPLING: "sampling: no difference in attainment beyond what so many requests differ by, each taken on its own",
    Word.UNKNOWN: "unknown: one seed only (or a number one side lacks): cannot tell noise from change",
    Word.TRAFFIC: "differs: other requests came (or one side does not know it): cannot tell what they did from what was changed",
}
_FEW: Final = 10  # GPU-hours below which a second digit says something; and times, from which a change is told as a factor
_SHOW: Final[Mapping[str, Callable[[float], str]]] = {
    "GPU h": lambda value: gpu_hours(value) if abs(value) >= _FEW else f"{value:.2f}",
    "share": lambda value: percent(value) if value >= 0 else f"-{percent(-value)}",
    "s": seconds,
    "": lambda value: f"{value:,.1f}".removesuffix(".0"),  # a mean of counts
}


def draw(page: TerminalPage, found: Difference) -> None:
    """Print a difference."""
    page.print(f"[bold]{escape(found.sentence)}[/bold]")
    for name, strategy, seeds, word in zip(
        (found.before, found.after), found.strategies, found.seeds, ("before", "after"), strict=True
    ):
        played = f", {_seeds(seeds)}" if seeds else ""
        page.print(f"  {word:7}{escape(name)}: {escape(strategy)}{played}", whole=True)
    for caution in found.cautions:
        page.print(f"  [yellow]not alike[/yellow]: {escape(caution)}")
    page.title(
        "settings", "" if found.settings else "no difference" + (" but the seed" if found.seeds[0] != found.seeds[1] else "")
    )
    if found.settings:
        table = page.table("setting", "before", "after", left=3)
        for setting in found.settings:
            table.add_row(escape(setting.key), escape(setting.before), escape(setting.after))
        page.print(table)
    _draw_numbers(page, found.numbers, found.how)


def draw_offer(page: TerminalPage, commands: Sequence[str]) -> None:
    """Print the commands that make more seeds."""
    page.title("more seeds tell what is noise")
    for command in commands:
        page.print(f"  {escape(command)}", whole=True)


def _draw_numbers(page: TerminalPage, numbers: Sequence[Number], how: How) -> None:
    told = [number for number in numbers if number.word is not Word.EQUAL]
    page.title(
        "results",
        "with the 95% interval of the change" if how == "stretches" else "means over seeds, with the 95% interval of the change",
    )
    if told:
        table = page.table("number", "before", "after", "change", "relative", "interval", left=1)
        table.add_column("", no_wrap=True)
        for number in told:
            table.add_row(
                escape(number.key),
                _show(number, number.before),
                _show(number, number.after),
                *_change(number),
                _MARK[number.word],
            )
        page.print(table)
    equal = [number.key for number in numbers if number.word is Word.EQUAL]
    if equal:
        names = f": {escape(listed(equal))}" if told else ", GPU-hours, cost, attainment and latencies among them"
        page.print(f"[dim]{count(len(equal), 'number')} equal{names}[/dim]")
    for word, meaning in _MEANING.items():
        if any(number.word is word for number in told):
            page.print(f"[dim]{meaning}[/dim]")


def _show(number: Number, value: float | None) -> str:
    return NONE if value is None else _told(number, value)


def _told(number: Number, value: float) -> str:
    """A value in its unit; one that is none of those above is a currency."""
    show = _SHOW.get(number.unit)
    return money(value, "USD" if number.unit == "$" else number.unit) if show is None else show(value)


def _change(number: Number) -> tuple[str, str, str]:
    """The change in the number's unit, relative where that says something, and its interval."""
    if number.change is None:
        return NONE, "", ""
    relative = "" if not number.before or number.unit == "share" else _relative(number.change / number.before)
    if number.low is None or number.high is None:
        return _signed(number, number.change), relative, ""
    return _signed(number, number.change), relative, f"{_signed(number, number.low)} to {_signed(number, number.high)}"


def _relative(value: float) -> str:
    return f"{value * 100:+.1f}%" if abs(value) < _FEW else f"{value + 1:,.0f}×"


def _signed(number: Number, value: float) -> str:
    if number.unit == "share":
        return f"{value * 100:+.2f}"  # percentage points
    text = _told(number, value)
    return text if text.startswith("-") or value <= 0 else f"+{text}"


def _seeds(seeds: Sequence[int]) -> str:
    return f"{'seed' if len(seeds) == 1 else 'seeds'} {', '.join(map(str, seeds))}"
