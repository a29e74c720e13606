"""Units: how people write durations, sizes, prices and shares, and the integers the code computes with.

Time inside the code is an integer number of microseconds (`Micros`); memory is bytes; money is the scenario's currency per
hour. A parser raises ValueError with a whole sentence, because that is what pydantic turns into a message.
Knows nothing of where a value was written; callers put the place into the error. Read next: `config/`.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Annotated, Final, TypeAlias

from pydantic import BeforeValidator, PlainSerializer, WithJsonSchema

Micros: TypeAlias = int
"""Microseconds: an instant counted from the start of the trace, or a duration."""

SECOND: Final = 1_000_000
MINUTE: Final = 60 * SECOND
HOUR: Final = 60 * MINUTE
DAY: Final = 24 * HOUR
WEEK: Final = 7 * DAY

_TIME_UNITS: Final = {
    "us": 1,
    "ms": 1_000,
    "s": SECOND,
    "min": MINUTE,
    "m": MINUTE,
    "h": HOUR,
    "d": DAY,
    "w": WEEK,
}
_SIZE_UNITS: Final = {
    "B": 1,
    "kB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
    "TiB": 2**40,
}
_PART: Final = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]+)\s*")
_PRICE: Final = re.compile(r"\$?\s*([0-9]+(?:\.[0-9]+)?)\s*/\s*h")
NEVER: Final[Micros] = 2**62
"""A time later than all others; fits an int64 with room to add a duration to it."""

_DURATION_MAX: Final = 5200 * WEEK  # a century: far below NEVER, so that sums of instants and durations fit an int64
_SIZE_MAX: Final = 2**60  # an exbibyte


def duration_us(text: object) -> Micros:
    """Microseconds of a duration such as `1s`, `90ms`, `1h30m` or `24h`; refuses a bare number other than 0.

    Raises:
        ValueError: no unit, an unknown unit, or a value that is not a duration at all.
    """
    if text == 0 and not isinstance(text, bool):
        return 0
    if not isinstance(text, str):
        raise ValueError(f"{text!r} has no unit: write a duration such as 1s, 250ms, 15m or 24h")
    total, end = 0.0, 0
    for match in _PART.finditer(text):
        if match.start() != end or match[2] not in _TIME_UNITS:
            break
        total += float(match[1]) * _TIME_UNITS[match[2]]
        end = match.end()
    if end != len(text) or not text.strip():
        raise ValueError(f"{text!r} is not a duration: write a number with one of {', '.join(_TIME_UNITS)}, as in 1h30m")
    if total > _DURATION_MAX:
        raise ValueError(f"{text!r} is longer than a century")
    return round(total)


def size_bytes(text: object) -> int:
    """Bytes of a size such as `80GiB`; refuses a bare number.

    Raises:
        ValueError: no unit or an unknown one.
    """
    match = _PART.fullmatch(text) if isinstance(text, str) else None
    if match is None or match[2] not in _SIZE_UNITS:
        raise ValueError(f"{text!r} is not a size: write a number with one of {', '.join(_SIZE_UNITS)}, as in 80GiB")
    size = _bytes(match[1], match[2])
    if size > _SIZE_MAX:
        raise ValueError(f"{text!r} is larger than an exbibyte")
    return size


def bytes_per_second(text: object) -> int:
    """Bytes per second of a rate such as `50GB/s`; refuses a bare number, and 0.

    Raises:
        ValueError: no unit or an unknown one, or nothing at all.
    """
    match = _PART.fullmatch(text.removesuffix("/s")) if isinstance(text, str) and text.endswith("/s") else None
    if match is None or match[2] not in _SIZE_UNITS:
        raise ValueError(f"{text!r} is not a rate: write bytes per second, as in 50GB/s (400 Gbit/s are 50GB/s)")
    rate = size_bytes(match[0])
    if not rate:
        raise ValueError(f"{text!r} moves nothing: write bytes per second, as in 50GB/s")
    return rate


def _bytes(number: str, unit: str) -> int:
    return round(Decimal(number) * _SIZE_UNITS[unit])  # exact: a float holds 53 bits only


def price_per_hour(text: object) -> float:
    """The amount per hour of a price such as `98.32/h`; refuses a bare number other than 0.

    Raises:
        ValueError: not a price per hour.
    """
    if text == 0 and not isinstance(text, bool):
        return 0.0
    match = _PRICE.fullmatch(text.strip()) if isinstance(text, str) else None
    if match is None:
        raise ValueError(f"{text!r} is not a price: write dollars per hour, as in 98.32/h")
    return float(match[1])


def share(text: object) -> float:
    """A fraction of one: `0.7` or `70%`.

    Raises:
        ValueError: not a number between 0 and 1 (or 0 % and 100 %).
    """
    try:
        if isinstance(text, str):
            value = float(text.removesuffix("%")) / 100 if text.endswith("%") else float(text)
        elif isinstance(text, int | float) and not isinstance(text, bool):
            value = float(text)
        else:
            raise TypeError(text)
    except (TypeError, ValueError):
        raise ValueError(f"{text!r} is not a share: write 0.7 or 70%") from None
    if not 0.0 <= value <= 1.0:
        raise ValueError(f"{text!r} is not a share: it must lie between 0 and 1 (0% and 100%)")
    return value


def show_duration(micros: Micros) -> str:
    """The exact text of a duration, which `duration_us` reads back: 90 s are `1m30s`, 1500 is `1.5ms`."""
    if micros < 0:
        return "-" + show_duration(-micros)
    if micros < SECOND:
        return f"{micros / 1000:g}ms" if micros else "0s"
    text, rest = "", micros
    for name, size in (("d", DAY), ("h", HOUR), ("m", MINUTE)):
        if rest >= size and (name != "d" or rest >= 2 * DAY):
            text += f"{rest // size}{name}"
            rest %= size
    return text + (f"{rest / SECOND:.6f}".rstrip("0").rstrip(".") + "s" if rest else "")


def show_size(size: int) -> str:
    """The shortest exact text of a size, which `size_bytes` reads back: 80 * 2**30 is `80GiB`."""
    texts = [f"{size}B"]
    for name, unit in _SIZE_UNITS.items():
        number = f"{Decimal(size) / unit:.3f}".rstrip("0").rstrip(".")
        if size >= unit and _bytes(number, name) == size:
            texts.append(number + name)
    return min(reversed(texts), key=len)  # of equal length, the larger unit


def show_price(price: float) -> str:
    """The text of a price, which `price_per_hour` reads back: `98.32/h`."""
    return f"{Decimal(repr(price)):f}".removesuffix(".0") + "/h"


def money_sign(currency: str) -> str:
    """What stands for a currency (ISO 4217) in headings: `$`, `EUR`."""
    return "$" if currency == "USD" else currency


def money_before(currency: str) -> str:
    """What stands before an amount: `$`, and `EUR ` with a blank."""
    sign = money_sign(currency)
    return sign if sign == "$" else f"{sign} "


def show_money(amount: float, currency: str, digits: int = 2) -> str:
    """An amount with its currency (ISO 4217): $9.80, -EUR 9.80."""
    return f"{'-' if amount < 0 else ''}{money_before(currency)}{abs(amount):,.{digits}f}"


@dataclass(frozen=True, slots=True)
class Parsed:
    """A value that is already in the code's unit, for settings built in code: `Parsed(1_500_000)`."""

    value: float


def _once(parse: Callable[[object], float]) -> Callable[[object], float]:
    """A validator that lets values pass which are in the code's unit already."""

    def accept(value: object) -> float:
        return value.value if isinstance(value, Parsed) else parse(value)

    return accept


Duration = Annotated[
    int,
    BeforeValidator(_once(duration_us)),
    PlainSerializer(show_duration, return_type=str),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "pattern": r"^(\s*[0-9.]+\s*(us|ms|s|min|m|h|d|w)\s*)+$"},
                {"const": 0},
            ],
            "examples": ["1s", "24h"],
        }
    ),
]
Size = Annotated[
    int,
    BeforeValidator(_once(size_bytes)),
    PlainSerializer(show_size, return_type=str),
    WithJsonSchema({"type": "string", "pattern": r"^[0-9.]+\s*[kKMGT]?i?B$", "examples": ["80GiB"]}),
]
Rate = Annotated[
    int,
    BeforeValidator(_once(bytes_per_second)),
    PlainSerializer(lambda rate: f"{show_size(rate)}/s", return_type=str),
    WithJsonSchema({"type": "string", "pattern": r"^[0-9.]+\s*[kKMGT]?i?B\s*/s$", "examples": ["50GB/s"]}),
]
Price = Annotated[
    float,
    BeforeValidator(_once(price_per_hour)),
    PlainSerializer(show_price, return_type=str),
    WithJsonSchema(
        {
            "anyOf": [{"type": "string", "pattern": r"^\$?\s*[0-9.]+\s*/\s*h$"}, {"const": 0}],
            "examples": ["98.32/h"],
        }
    ),
]
Share = Annotated[
    float,
    BeforeValidator(_once(share)),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "number", "minimum": 0, "maximum": 1},
                {"type": "string", "pattern": r"^[0-9.]+%$"},
            ]
        }
    ),
]
