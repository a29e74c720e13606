"""The requests of a file as one table, before its names meet a scenario's.

Read next: `data/traces/read.py`, which takes it through the stages of this room.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from sageserve.base.records import Ints, PromptBlocks
from sageserve.base.units import Micros
from sageserve.data.traces.columns.convert import Codes, Converter, Lengths, Piece
from sageserve.data.traces.columns.fields import Field


@dataclass(frozen=True, slots=True)
class NamedColumn:
    """One column of names: codes into the names as the file writes them; UNSET where it says none."""

    codes: Codes
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Rows:
    """Requests in the order of the file, later of time; all columns have n rows.

    Args:
        time: int64[n], microseconds; NO_TIME for those without one; None: no request has one.
        prompt: tokens, or characters where nobody counted tokens.
        output: tokens.
        named: columns of names by field.
        numbers: int64[n] by field, UNSET where the file does not say.
        blocks: hashes of prompts.
        span: the time that they cover, microseconds from and to, where that is more than from the first to the last of them.
    """

    time: Ints | None
    prompt: Lengths
    output: Lengths
    named: Mapping[Field, NamedColumn]
    numbers: Mapping[Field, Ints]
    blocks: PromptBlocks | None = None
    span: tuple[Micros, Micros] | None = None

    def __len__(self) -> int:
        return len(self.prompt)

    def take(self, rows: Ints) -> "Rows":
        """These rows, in that order."""
        return Rows(
            None if self.time is None else self.time[rows],
            self.prompt[rows],
            self.output[rows],
            {part: NamedColumn(column.codes[rows], column.names) for part, column in self.named.items()},
            {part: column[rows] for part, column in self.numbers.items()},
            None if self.blocks is None else self.blocks.take(rows),
            self.span,
        )

    def without(self, *parts: Field) -> "Rows":
        """The rows without some of their columns."""
        return replace(
            self,
            named={part: column for part, column in self.named.items() if part not in parts},
            numbers={part: column for part, column in self.numbers.items() if part not in parts},
        )


def rows_of(pieces: Sequence[Piece], converter: Converter, block: int | None) -> Rows:
    """All pieces of a file as one table.

    Args:
        pieces: at least one.
        converter: that made them, for the names it met.
        block: tokens per block of its hashes, as the format says; None: not known.
    """
    first = pieces[0]
    time = None if first.time is None else np.concatenate([piece.time for piece in pieces if piece.time is not None])
    blocks = None
    if first.hashes is not None:
        counts = np.concatenate([piece.hashes.counts for piece in pieces if piece.hashes is not None])
        values: NDArray[np.uint64] = np.concatenate([piece.hashes.values for piece in pieces if piece.hashes is not None])
        blocks = PromptBlocks(np.cumsum(counts), values, block or 0)
    return Rows(
        time,
        np.concatenate([piece.prompt for piece in pieces]),
        np.concatenate([piece.output for piece in pieces]),
        {
            part: NamedColumn(np.concatenate([p.codes[part] for p in pieces]), tuple(converter.names[part]))
            for part in first.codes
        },
        {part: np.concatenate([piece.numbers[part] for piece in pieces]) for part in first.numbers},
        blocks,
    )
