"""Rows of numbers as bars of text on a scale that is given, so that rows below each other can be compared.

Pure. Read next: `lines.py` for the numbers.
"""

from collections.abc import Sequence
from typing import Final

BARS: Final = " ▁▂▃▄▅▆▇█"
MISSING: Final = "·"
PLAIN: Final = str.maketrans(
    {**dict(zip(BARS[1:], "_.-:=+*#", strict=True)), MISSING: " ", "–": "-", "−": "-", "×": "x", "±": "+/-", "→": "->"}
    | {"✓": "ok", "✗": "MISSED", "…": "..."}
)
"""For outputs that cannot show the characters: `text.translate(PLAIN)`."""


def bars(values: Sequence[float | None], top: float) -> str:
    """One character per value: blank is exactly nothing, the full bar is `top` or more, a dot stands where there is no value."""
    return "".join(MISSING if value is None else _bar(value, top) for value in values)


def _bar(value: float, top: float) -> str:
    if value <= 0 or top <= 0:
        return BARS[0]
    return BARS[min(len(BARS) - 1, max(1, round(value / top * (len(BARS) - 1))))]
