"""`sageserve diff`: what changed between two runs or comparisons, in settings and in results, and what of it is noise.

Knows options and the commands that make more seeds; the judging is done in `show/difference.py`. stdout is the result.
Read next: `render_diff.py`, docs/how-to/look-at-results.md.
"""

import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from sageserve.cli.streams import answer_json

if TYPE_CHECKING:
    from sageserve.show.difference import Difference
    from sageserve.show.sides import Side

EXAMPLES = """[bold]Examples[/bold]

sageserve diff runs/monday runs/tuesday

sageserve compare quickstart --strategies reactive --seeds 1..5 --out seeds/three

sageserve compare quickstart --strategies reactive --seeds 1..5 --set fleet.start=4 --out seeds/four

sageserve diff seeds/three seeds/four

sageserve diff a/seed1 a/seed2 a/seed3 --against b/seed1 b/seed2 b/seed3

sageserve diff ~/.local/state/sageserve --last 24h   [dim]# of a live fleet: with the 24 hours before[/dim]
"""
_SEEDS = "1..5"


class Sided(TyperCommand):
    """A command whose `--against` takes all folders up to the next option."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:  # noqa: ANN401 # click's Context; typer may bring its own click
        """Repeat `--against` before each of its folders, which is how click takes several."""
        return super().parse_args(ctx, list(_repeated(args)))


def _repeated(args: Sequence[str]) -> Iterator[str]:
    inside = False
    for index, word in enumerate(args):
        if word == "--against":
            inside = True
            if index + 1 == len(args) or args[index + 1].startswith("-"):
                yield word  # without a folder: click says so
        elif word.startswith("-"):
            inside = word.startswith("--against=")
            yield word
        else:
            if inside:
                yield "--against"
            yield word


def diff(
    folders: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN_A RUN_B", help="folders of `simulate --out` or `compare --out`, or live fleets' state folders"
        ),
    ],
    against: Annotated[
        list[Path] | None, typer.Option("--against", metavar="B1 B2 ...", help="the other side, when a side is several runs")
    ] = None,
    anyway: Annotated[bool, typer.Option("--anyway", help="also if the requests or the window differ")] = False,
    last: Annotated[
        str | None,
        typer.Option(
            "--last", metavar="DURATION", help="of live fleets: back from the newest minute; of one: and as long before"
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print the difference as JSON")] = False,
) -> None:
    """Say what changed between two results, in settings and numbers, with the spread over seeds deciding what is noise."""
    import msgspec

    from sageserve.base.errors import ConfigError
    from sageserve.cli.lived import refuse_last, state_folders
    from sageserve.cli.render_diff import draw, draw_offer
    from sageserve.cli.render_show import TerminalPage
    from sageserve.show.difference import difference
    from sageserve.show.sides import pairs_of, sides_of, unlike

    if live := state_folders([*folders, *(against or [])]):
        _diff_lived(live, last, as_json=as_json)
        return
    refuse_last(last)
    if not against and len(folders) != 2:
        raise ConfigError(
            f"diff takes two folders, not {len(folders)}", hint="for several runs on a side: sageserve diff A1 A2 --against B1 B2"
        )
    first, second = (folders, against) if against else (folders[:1], folders[1:])
    pairs = pairs_of(sides_of(first), sides_of(second))
    found = []
    for before, after in pairs:
        reasons = unlike(before, after)
        if reasons and not anyway:
            _refuse(before, after, reasons)
        found.append(difference(before, after, reasons))
    offers = {each.strategies: _offer(*pair) for each, pair in zip(found, pairs, strict=True) if each.how == "single"}
    if as_json:
        value = [msgspec.to_builtins(each) | {"more_seeds": offers.get(each.strategies, [])} for each in found]
        typer.echo(answer_json({"differences": value}))
        return
    page = TerminalPage()
    for number, each in enumerate(found):
        if number:
            page.print()
        draw(page, each)
        if each.strategies in offers and _open(each):
            draw_offer(page, offers[each.strategies])


def _diff_lived(folders: Sequence[Path], last: str | None, *, as_json: bool) -> None:
    """Two live fleets, or two stretches of one."""
    from sageserve.base.errors import ConfigError
    from sageserve.cli.lived import length
    from sageserve.cli.render_diff import draw
    from sageserve.cli.render_show import TerminalPage
    from sageserve.show.lived.compare import lived_difference
    from sageserve.show.lived.read import read_lived

    span = length(last)
    if len(folders) == 1:
        if span is None:
            raise ConfigError("one live fleet is compared with itself, before", hint="say how long: --last 24h")
        sides = read_lived(folders[0], span, before=span), read_lived(folders[0], span)
    elif len(folders) == 2:
        sides = read_lived(folders[0], span), read_lived(folders[1], span)
    else:
        raise ConfigError(f"diff takes one or two live fleets, not {len(folders)}", hint="sageserve diff STATE_A STATE_B")
    found = lived_difference(*sides)
    if as_json:
        typer.echo(answer_json({"differences": [found]}))
    else:
        draw(TerminalPage(), found)


def _refuse(before: "Side", after: "Side", reasons: Sequence[str]) -> None:
    """Say why two sides are not compared.

    Raises:
        ResultError: always.
    """
    from sageserve.base.errors import ResultError

    raise ResultError(
        f"{before.name} and {after.name} were not played with the same requests: {'; '.join(reasons)}",
        hint="play both with the same requests, or add --anyway: the numbers then differ for that reason too",
    )


def _open(found: "Difference") -> bool:
    """Whether more seeds would tell something."""
    from sageserve.show.difference import Word

    return any(number.word in {Word.UNKNOWN, Word.SAMPLING} for number in found.numbers)


def _offer(before: "Side", after: "Side") -> list[str]:
    """The commands that play both sides with several seeds and compare them."""
    from sageserve.show.sides import generated

    places = ("seeds/before", "seeds/after")
    made = []
    for side, place in zip((before, after), places, strict=True):
        requests = "" if generated(side.some) else " --trace FILE --map FROM=TO"
        scenario = shlex.quote(str(side.some.path / "scenario.yaml"))
        made.append(f"sageserve compare {scenario} --strategies {side.strategy} --seeds {_SEEDS}{requests} --out {place}")
    return [*made, f"sageserve diff {' '.join(places)}"]
