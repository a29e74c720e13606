"""Numbers as files write them: arrow columns of any numeric type, or texts with signs, exponents and separators of thousands.

Knows no field. Read next: `convert.py`.
"""

from typing import Final, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from sageserve.base.records import Bools

Numbers: TypeAlias = NDArray[np.int64] | NDArray[np.float64]

_NUMBER: Final = r"^\s*[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]{1,3})?\s*$"
_THOUSANDS: Final = r"^\s*[+-]?[0-9]{1,3}(,[0-9]{3})+(\.[0-9]*)?\s*$"
_COMMA: Final = r"^\s*[+-]?[0-9]+,[0-9]+\s*$"
EXACT: Final = 2**53  # whole numbers up to this are exact as float64


def is_number_text(column: pa.Array) -> Bools:
    """bool[n]: texts that are numbers."""
    found: Bools = pc.fill_null(
        pc.or_(pc.match_substring_regex(column, _NUMBER), pc.match_substring_regex(column, _COMMA)), False
    ).to_numpy(zero_copy_only=False)
    return found


def values_of(column: pa.Array) -> list[object]:
    """The values of a column; of an instant that Python has no date for, the number that Arrow keeps."""
    try:
        found: list[object] = column.to_pylist()
    except (OverflowError, ValueError):  # years before 1 and after 9999, and nanoseconds without pandas
        return [_value_of(one) for one in column]
    return found


def _value_of(one: pa.Scalar) -> object:
    try:
        return one.as_py()
    except (OverflowError, ValueError):
        return getattr(one, "value", str(one.type))


def numbers_of(column: pa.Array) -> tuple[Numbers, Bools, Bools]:
    """Numbers of a column (int64 when all are whole and fit, else float64), the missing, and the unreadable."""
    missing: Bools = column.is_null().to_numpy(zero_copy_only=False)
    wrong: Bools = np.zeros(len(column), dtype=np.bool_)
    kind = column.type
    if pa.types.is_string(kind):
        try:
            column = pc.cast(column, pa.int64())
        except pa.ArrowInvalid:
            column, wrong = _parsed(column, missing)
        kind = column.type
    if pa.types.is_boolean(kind):
        return np.zeros(len(column)), missing, ~missing
    if pa.types.is_uint64(kind) and len(column) and (pc.max(column).as_py() or 0) > 2**63 - 1:
        column = column.cast(pa.float64())
        kind = column.type
    if pa.types.is_integer(kind):
        return column.cast(pa.int64(), safe=False).fill_null(0).to_numpy(zero_copy_only=False), missing, wrong
    if not pa.types.is_floating(kind) and not pa.types.is_decimal(kind):
        return np.zeros(len(column)), missing, ~missing
    values = column.cast(pa.float64()).fill_null(0.0).to_numpy(zero_copy_only=False)
    return np.nan_to_num(values, nan=0.0), missing | np.isnan(values), wrong | np.isinf(values)


def _parsed(column: pa.Array, missing: Bools) -> tuple[pa.Array, Bools]:
    """float64 of texts that are not all whole numbers, and which are no numbers at all."""
    if bool(pc.any(pc.match_substring(column, ",")).as_py()):
        column = _without_commas(column)
    fits = pc.fill_null(pc.match_substring_regex(column, _NUMBER), False)
    wrong = ~fits.to_numpy(zero_copy_only=False) & ~missing
    trimmed = pc.utf8_trim_whitespace(pc.if_else(fits, column, pa.scalar(None, pa.string())))
    plain = pc.replace_substring_regex(trimmed, r"^\+", "")
    try:
        return pc.cast(plain, pa.int64()), wrong
    except pa.ArrowInvalid:
        return pc.cast(plain, pa.float64()), wrong


def _without_commas(column: pa.Array) -> pa.Array:
    """Texts with a point: 1,234 is a thousand, unless other numbers of the column show that a comma is their point."""
    thousands = pc.fill_null(pc.match_substring_regex(column, _THOUSANDS), False)
    decimals = pc.fill_null(pc.match_substring_regex(column, _COMMA), False)
    only = pc.and_(decimals, pc.invert(thousands))
    if bool(pc.any(only).as_py()):
        return pc.if_else(decimals, pc.replace_substring(column, ",", "."), column)
    return pc.if_else(thousands, pc.replace_substring(column, ",", ""), column)
