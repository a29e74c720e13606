"""Numbers as the reports say them: shares, GPU-hours, dollars, changes, names in a row.

Pure functions from a number to its text, used by every report so that a number reads the same everywhere.
Read next: `verdict.py`.
"""

from collections.abc import Sequence

from sageserve.base.units import show_money

NONE = "–"


def percent(value: float | None, digits: int = 2) -> str:
    """A share, rounded down so that 100% means all: 85.52%, 100%."""
    if value is None:
        return NONE
    if value >= 1:
        return "100%"
    scale = 10**digits
    return f"{int(value * 100 * scale + 1e-6) / scale:.{digits}f}%"


def gpu_hours(value: float) -> str:
    """GPU-hours with as many digits as say something: 192.1, 12,345."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:,.1f}"


def money(value: float, currency: str) -> str:
    """An amount without cents from a hundred on: $2,361, EUR 9.80."""
    return show_money(value, currency, 0 if abs(value) >= 100 else 2)


def change(value: float) -> str:
    """A relative change: -11.3%, +0.2%."""
    return f"{value * 100:+.1f}%"


def points(value: float) -> str:
    """A difference of two shares in percentage points: 0.31 points."""
    return f"{value * 100:.2f} points"


def seconds(value: float | None) -> str:
    """Three digits and a unit: 85ms, 2.49s, 1.5m, 3.2h."""
    if value is None:
        return NONE
    if abs(value) < 0.9995:
        return f"{value * 1000:.0f}ms"
    for size, divisor, unit in ((60.0, 1, "s"), (3600.0, 60, "m"), (48 * 3600.0, 3600, "h"), (float("inf"), 86400, "d")):
        if abs(value) < size:
            amount = value / divisor
            return f"{amount:.2f}{unit}" if abs(amount) < 9.995 else f"{amount:.1f}{unit}"
    return NONE  # not a number


def count(number: int, word: str) -> str:
    """A number with its noun: 1 seed, 3 seeds."""
    return f"{number:,} {word}" if number == 1 else f"{number:,} {word}s"


def listed(names: Sequence[str]) -> str:
    """Names in a sentence: a, b and c."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}" if names else "none"
