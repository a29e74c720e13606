"""How `sageserve watch` looks: decisions on stdout as they change, JSON lines for machines, and one line of progress on stderr.

Knows terminals; asks nobody. Read next: `watch.py`.
"""

import re
import sys
import time
from typing import TYPE_CHECKING, Any, Final

import msgspec
import typer

from sageserve.core.fleet import State
from sageserve.data.results.journal import Stamped
from sageserve.data.watched.minutes import WatchedMinute

if TYPE_CHECKING:
    from collections.abc import Callable

    from sageserve.live.watch.process import FleetWatch

_AGAIN_S: Final = 900.0  # the same decision, or the same state, is said again after so long
_NUMBER: Final = re.compile(r"(?:\d[\d.,]*(?:us|ms|[smhd](?![a-z]))?)+")
_CLEAR: Final = "\r\x1b[K"


class WatchLines:
    """What a process that watches says.

    Args:
        words: the decisions of a journal line in sentences.
        as_json: JSON lines instead of text.
    """

    def __init__(self, words: "Callable[[Stamped], tuple[str, ...]]", *, as_json: bool) -> None:
        self._words = words
        self._json = as_json
        self._live = sys.stderr.isatty()
        self._said: dict[str, tuple[float, int, str]] = {}  # by pool: when, change, why
        self._notes: tuple[str, ...] = ()
        self._told_at = -_AGAIN_S

    def wrote(self, stamped: Stamped) -> None:
        """A line of the journal: its decisions, those that are new."""
        if not stamped.line.decisions:
            return
        for decided, words in zip(stamped.line.decisions, self._words(stamped), strict=True):
            one, at = decided.decision, stamped.wall / 1e6
            before = self._said.get(decided.pool)
            held = one.serving + one.coming
            if self._json:
                self._out(decision={"wall_s": at, "held": held, **_plain(decided)} | {"words": words})
            elif before is None or before[1:] != (one.change, one.reason) or at - before[0] >= _AGAIN_S:
                self._said[decided.pool] = at, one.change, one.reason
                self._print(f"{_clock(at)}  {decided.pool}  {held} -> {max(0, held + one.change)}  {one.reason}: {words}")

    def passed(self, minute: WatchedMinute) -> None:
        """A minute is over and counted."""
        if self._json:
            self._out(minute=msgspec.to_builtins(minute))

    def looked(self, watch: "FleetWatch") -> None:
        """A look was taken: how it goes, in one line, and what is new of what is not seen."""
        notes = watch.notes()
        said = {_without_numbers(one) for one in self._notes}
        for note in notes:
            if _without_numbers(note) not in said:
                self._remark(note)
                if self._json:
                    self._out(note=note)
        self._notes = notes
        line = progress_line(watch)
        if self._live:
            sys.stderr.write(f"{_CLEAR}{line}")
            sys.stderr.flush()
        elif time.monotonic() - self._told_at >= _AGAIN_S:
            self._told_at = time.monotonic()
            typer.echo(line, err=True)

    def ended(self) -> None:
        """No more follows."""
        if self._live:
            sys.stderr.write(_CLEAR)

    def _remark(self, text: str) -> None:
        typer.echo(f"{_CLEAR if self._live else ''}{text}", err=True)

    def _print(self, text: str) -> None:
        if self._live:
            sys.stderr.write(_CLEAR)
        typer.echo(text)
        sys.stdout.flush()

    def _out(self, **value: Any) -> None:  # noqa: ANN401 # JSON
        typer.echo(msgspec.json.encode(value).decode())
        sys.stdout.flush()


def progress_line(watch: "FleetWatch") -> str:
    """How it goes, in one line."""
    serving = watch.fleet.state.count(State.SERVING)
    would = sum(one.would for one in watch.pools())
    unseen = len(watch.view.unseen)
    there = len({pool.endpoint for pool in watch.layout.pools})
    rate = watch.rate()
    seen = f"{there - unseen} of {there} endpoints seen"
    return (
        f"{_clock(time.time())}  {seen}, {serving:,} instances, {rate:,.1f} requests/s; would hold {would:,};"
        f" {sum(watch.decided.values()):,} decisions"
    )


def _without_numbers(note: str) -> str:
    """A note as it is however long it lasts: ages and counts in it grow with every look."""
    return _NUMBER.sub("#", note)


def _plain(decided: object) -> dict[str, Any]:
    found = msgspec.to_builtins(decided)
    return {"pool": found["pool"], **{key: value for key, value in found["decision"].items() if key != "pool"}}


def _clock(at: float) -> str:
    return time.strftime("%H:%M:%S", time.localtime(at))
