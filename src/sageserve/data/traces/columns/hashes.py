"""Block hashes of prompts: lists of numbers or texts of any width, or JSON in a cell, become unsigned 64-bit numbers.

Only whether two are equal counts. Read next: `convert.py`, `data/traces/assembly/prefixes.py` for what they are good for.
"""

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from sageserve.base.records import Bools, Ints
from sageserve.data.traces.columns.numbers import values_of

Hashes: TypeAlias = NDArray[np.uint64]


@dataclass(frozen=True, slots=True)
class RaggedHashes:
    """Hashes of rows of any number: `counts` int64[n], and the hashes of all rows one after the other."""

    counts: Ints
    values: Hashes

    def only(self, rows: Bools) -> "RaggedHashes":
        """The hashes of the rows at which `rows` is true."""
        return RaggedHashes(self.counts[rows], self.values[np.repeat(rows, self.counts)])


class HashReader:
    """Reads columns of hashes; equal texts get equal numbers in all batches of a file."""

    def __init__(self) -> None:
        self._texts: dict[str, int] = {}

    def read(self, column: pa.Array) -> RaggedHashes:
        """The hashes of a batch; rows without any have none."""
        kind = column.type
        if pa.types.is_string(kind):
            column = _parsed(column)
            kind = column.type
        if not (pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)):
            return RaggedHashes(np.zeros(len(column), np.int64), np.zeros(0, np.uint64))
        counts = pc.fill_null(pc.list_value_length(column), 0).cast(pa.int64()).to_numpy(zero_copy_only=False)
        return RaggedHashes(counts, self._numbers(pc.list_flatten(column)))

    def _numbers(self, values: pa.Array) -> Hashes:
        if pa.types.is_integer(values.type):
            whole = values.fill_null(0)
            if not pa.types.is_uint64(whole.type):
                whole = whole.cast(pa.int64())
            found: Hashes = whole.to_numpy(zero_copy_only=False).view(np.uint64)
            return found
        texts = [str(value) for value in values_of(values)]
        return np.array([self._texts.setdefault(text, len(self._texts)) for text in texts], dtype=np.uint64)


def _parsed(column: pa.Array) -> pa.Array:
    """Cells such as `[12, 13]` or `12 13` as lists of texts."""
    plain = pc.replace_substring_regex(column, r"[\[\](),'\"\s]+", " ")
    cells: list[str | None] = plain.to_pylist()
    return pa.array([None if cell is None else cell.split() for cell in cells], pa.list_(pa.string()))
