"""What reading a file found: rows kept, rows left out and why, columns that mean nothing here.

Reads nothing. Read next: `read.py`.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from sageserve.base.errors import TraceError
from sageserve.data.traces.columns.convert import BLANK, FAILED, OTHER, REASONS
from sageserve.data.traces.columns.layout import Unused
from sageserve.data.traces.readers.batches import TraceFile

_LINES_KEPT: Final = 1000  # line numbers remembered per reason
_LINES_SHOWN: Final = 3
_UNUSED_SHOWN: Final = 8
STARTS: Final = "time starts at the first"
"""How the note on a trace's zero begins; several traces together have another."""

UNUSED: Final = "not used, because it means nothing here"
"""How the note on such columns begins."""


@dataclass(frozen=True, slots=True)
class BadRows:
    """Rows that are no requests, by reason; the first line numbers of them (row numbers where a file has no lines)."""

    reason: str
    count: int
    lines: tuple[int, ...]
    word: str = "line"

    def text(self, shown: int = _LINES_SHOWN) -> str:
        """One line for people: `12 rows: output length is below 1 (lines 3, 8, 9, …)`."""
        listed = ", ".join(f"{line:,}" for line in self.lines[:shown])
        more = ", …" if self.count > shown else ""
        rows, lines = ("row", self.word) if self.count == 1 else ("rows", f"{self.word}s")
        return f"{self.count:,} {rows}: {self.reason} ({lines} {listed}{more})"


@dataclass(frozen=True, slots=True)
class ReadReport:
    """What reading a file found; `rows == kept + bad_count` always holds.

    Args:
        source: the file.
        format: name of the format it was recognised as.
        rows: rows that are meant as requests.
        kept: rows that became requests.
        bad: the others, by reason.
        unused: columns that mean nothing here.
        notes: what the user should know, in sentences; the same as the trace's own.
        own: it is one of our archives, which says itself how long it is.
    """

    source: Path
    format: str
    rows: int
    kept: int
    bad: tuple[BadRows, ...]
    unused: tuple[Unused, ...] = ()
    notes: tuple[str, ...] = ()
    own: bool = False

    @property
    def bad_count(self) -> int:
        """Rows that did not become requests."""
        return sum(each.count for each in self.bad)

    def bad_lines(self) -> list[str]:
        """One line per kind of bad row, for people."""
        return [each.text() for each in self.bad]

    def refuse_too_many(self, most: float) -> None:
        """Refuse a file of which more than a share of rows was left out; requests that the source says failed do not count.

        Raises:
            TraceError: none is left, or too many are gone.
        """
        if self.kept == 0:
            raise self._nothing()
        dropped = sum(each.count for each in self.bad if each.reason != FAILED)
        if dropped <= most * self.rows:
            return
        share = dropped / self.rows
        early = "--from first keeps times before 0; " if any("negative" in each.reason for each in self.bad) else ""
        allow = next((percent for percent in (1, 2, 5, 10, 20, 50) if percent / 100 >= share), 100)
        raise TraceError(
            f"{self.source}: {dropped:,} of {self.rows:,} rows ({share:.1%}) are no requests, more than {most * 100:g} % that "
            "may be left out\n" + "\n".join(self.bad_lines()),
            hint=f"{early}repair them, name the right columns with --column, or leave them out: --max-dropped {allow}%",
        )

    def _nothing(self) -> TraceError:
        if self.rows == 0:
            return TraceError(f"{self.source} holds no requests", hint="give a file with at least one request")
        return TraceError(
            f"{self.source} was read as {self.format}, and none of its {self.rows:,} rows is a request:\n"
            + "\n".join(self.bad_lines()),
            hint="name the right columns with --column, for example --column prompt_tokens=ContextTokens",
        )


class BadCounter:
    """Counts the rows of batches that are no requests."""

    def __init__(self) -> None:
        self.rows = 0
        self._lines: dict[str, list[int]] = {}
        self._counts: Counter[str] = Counter()

    def add(self, why: NDArray[np.int8]) -> None:
        """Count a batch."""
        if why.any():
            for code in np.unique(why[why > 0]).tolist():
                rows = np.flatnonzero(why == code)
                self._counts[REASONS[code]] += len(rows)
                kept = self._lines.setdefault(REASONS[code], [])
                kept.extend((rows[: _LINES_KEPT - len(kept)] + self.rows).tolist())
        self.rows += len(why)

    def report(self, source: Path, opened: TraceFile) -> ReadReport:
        """What was found in all of the file."""
        counts = Counter(self._counts)
        blanks, others = counts.pop(REASONS[BLANK], 0), counts.pop(REASONS[OTHER], 0)
        kinds = [
            BadRows(reason, count, tuple(opened.lines.of(np.array(self._lines[reason], np.int64)).tolist()), opened.lines.word)
            for reason, count in counts.items()
        ]
        kinds += [
            BadRows(reason, len(lines), tuple(lines[:_LINES_KEPT]), opened.lines.word)
            for reason, lines in opened.lines.reasons.items()
        ]
        ordered = tuple(sorted(kinds, key=lambda each: (-each.count, each.reason)))
        wrong = sum(each.count for each in ordered)
        total = self.rows - blanks - others + len(opened.lines.skipped)
        notes = [*opened.layout.format.notes]
        if blanks:
            notes.append(f"{blanks:,} blank lines were skipped")
        if others:
            notes.append(f"records that ask for no answer of a model (spans, tools, embeddings) were passed over: {others:,}")
        if wrong:
            notes.append(f"{wrong:,} of {total:,} rows are left out: " + "; ".join(each.text() for each in ordered))
        notes += _unused_note(opened.layout.unused)
        return ReadReport(
            source,
            opened.layout.format.name,
            total,
            total - wrong,
            ordered,
            opened.layout.unused,
            tuple(notes),
            own=opened.metadata is not None,
        )


def _unused_note(unused: Sequence[Unused]) -> list[str]:
    if not unused:
        return []
    shown = [f"{each.name or '(no name)'} ({each.example})" if each.example else each.name or "(no name)" for each in unused]
    more = f" and {len(unused) - _UNUSED_SHOWN} more" if len(unused) > _UNUSED_SHOWN else ""
    return [f"{UNUSED}: {', '.join(shown[:_UNUSED_SHOWN])}{more}"]


def carried_note(carried: Mapping[str, int], rows: int) -> list[str]:
    """What requests carry that the engine model does not use, counted."""
    said = [f"{name} ({count:,} of {rows:,} requests)" for name, count in carried.items() if count]
    more = "; if prompts do not count the tokens of images, --image-tokens N adds them" if carried.get("images") else ""
    return [f"kept, and without effect on engines: {', '.join(said)}{more}"] if said else []
