"""Windows of the week in which no decision is carried out: `Fri 22:00-Mon 06:00 Europe/Berlin`.

A window begins and ends by the clock of its zone, so an hour that is put back is in it twice.
Read next: `live/authority/hands.py`.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final
from zoneinfo import ZoneInfo, available_timezones

from sageserve.base.units import SECOND, Micros
from sageserve.data.documents import suggest

_DAYS: Final = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_FORM: Final = re.compile(r"(\w+) (\d{1,2}):(\d\d) ?- ?(\w+) (\d{1,2}):(\d\d) (\S+)")
_WEEK: Final = 7 * 24 * 60
EXAMPLE: Final = "Fri 22:00-Mon 06:00 Europe/Berlin"


@dataclass(frozen=True, slots=True)
class FreezeWindow:
    """A window.

    Args:
        begins: minutes since Monday, 0:00.
        ends: likewise; before `begins` it goes over the end of the week.
        zone: whose clock.
    """

    begins: int
    ends: int
    zone: ZoneInfo

    def open_at(self, wall: Micros) -> bool:
        """Whether an instant (microseconds since 1970) is in it."""
        here = datetime.fromtimestamp(wall // SECOND, UTC).astimezone(self.zone)
        minute = (here.weekday() * 24 + here.hour) * 60 + here.minute
        return (minute - self.begins) % _WEEK < (self.ends - self.begins) % _WEEK


def freeze_windows(texts: Sequence[str]) -> tuple[FreezeWindow, ...]:
    """Windows as settings write them.

    Raises:
        ValueError: one of them is none, with a whole sentence.
    """
    return tuple(_window(text) for text in texts)


def _window(text: str) -> FreezeWindow:
    match = _FORM.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is no window of the week: write {EXAMPLE!r}")
    first, last = _minute(text, *match.group(1, 2, 3)), _minute(text, *match.group(4, 5, 6))
    zone = match[7]
    known = available_timezones()
    if zone not in known:
        raise ValueError(f"{text!r}: {zone!r} is no time zone{suggest(zone, sorted(known))}")
    if first == last:
        raise ValueError(f"{text!r} begins when it ends")
    return FreezeWindow(first, last, ZoneInfo(zone))


def _minute(text: str, day: str, hour: str, minute: str) -> int:
    if day not in _DAYS:
        raise ValueError(f"{text!r}: {day!r} is no day{suggest(day, _DAYS)}; days are {', '.join(_DAYS)}")
    if int(hour) > 24 or int(minute) > 59 or (int(hour) == 24 and int(minute)):
        raise ValueError(f"{text!r}: {hour}:{minute} is no time of day")
    return ((_DAYS.index(day) * 24 + int(hour)) * 60 + int(minute)) % _WEEK
