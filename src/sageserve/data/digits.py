"""Pairs of time and value as Prometheus writes them, read by a compiled function: `[1700000000.123,"42"],[1700000015.123,"43"]`.

Reads what is plain: times in milliseconds, values of at most 15 digits, nothing between them. Such numbers are whole numbers
below 2^53 over a power of ten below 10^22, so one division gives the nearest double, as a slow reader would. Whatever else is
there (NaN, more digits, exponents, room between) is left to `history/matrix.py`, whose slow way is the reference. Knows no JSON.
"""

import numpy as np
from numpy.typing import NDArray

from sageserve.base.kernel import kernel
from sageserve.base.records import Floats, Ints

DIGITS_MOST = 15
MILLI_DIGITS = 3
NOT_PLAIN = -1
COMMA, OPEN, CLOSE, QUOTE, MINUS, POINT, ZERO, NINE = (ord(one) for one in ',[]"-.09')


@kernel
def read_pairs(text: NDArray[np.uint8], time: Ints, value: Floats) -> int:
    """Fill times (microseconds) and values; how many pairs there are, or NOT_PLAIN.

    Args:
        text: uint8[n], from a bracket or a comma before the first pair to the bracket after the last.
        time: int64[m], to be filled; m is at least the number of closing brackets in the text.
        value: float64[m], to be filled.
    """
    at, end, row = 0, len(text), 0
    while True:
        if at == end:
            return row
        at += text[at] == COMMA
        if at == end or text[at] != OPEN:
            return NOT_PLAIN
        while at < end and text[at] == OPEN:
            at += 1
        whole, digits, after, at = _decimal(text, at)
        if digits == 0 or digits > DIGITS_MOST or after > MILLI_DIGITS or at + 1 >= end:
            return NOT_PLAIN
        if text[at] != COMMA or text[at + 1] != QUOTE:
            return NOT_PLAIN
        for _ in range(2 * MILLI_DIGITS - after):
            whole *= 10
        time[row] = whole
        at += 2
        below = at < end and text[at] == MINUS
        at += below
        whole, digits, after, at = _decimal(text, at)
        if digits == 0 or digits > DIGITS_MOST or at + 1 >= end or text[at] != QUOTE or text[at + 1] != CLOSE:
            return NOT_PLAIN
        scale = 1.0
        for _ in range(after):
            scale *= 10.0
        value[row] = -(whole / scale) if below else whole / scale
        at += 2
        row += 1


@kernel
def _decimal(text: NDArray[np.uint8], at: int) -> tuple[int, int, int, int]:
    """Digits with at most one point among them, as (whole number, how many, how many after the point, where they end)."""
    whole, digits, after, point = 0, 0, 0, False
    while at < len(text):
        if ZERO <= text[at] <= NINE:
            whole = whole * 10 + (text[at] - ZERO)
            digits += 1
            after += point
        elif text[at] == POINT and not point and digits > 0:
            point = True
        else:
            break
        at += 1
        if digits > DIGITS_MOST:
            break
    return whole, digits, after, at
