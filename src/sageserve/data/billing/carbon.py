"""The carbon of a region's grid by the hour, from a CSV file: how much CO2 a kilowatt-hour stands for.

Knows one format: a header and a row for each hour. Read next: `sim/results/energy.py`, docs/reference/money.md.
"""

import csv
from pathlib import Path
from typing import Final

from sageserve.base.errors import ConfigError

COLUMN: Final = "g_per_kwh"
MOST_HOURS: Final = 8_784  # of a leap year: what comes after would be another year's
_HINT: Final = f"a header with the column {COLUMN}, and below it a number for each hour"


def hourly_carbon(path: Path) -> list[float]:
    """Grams of CO2 equivalents per kilowatt-hour, hour by hour.

    Raises:
        ConfigError: the file cannot be read, has no such column, or holds something else than numbers.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.reader(file)
            header = next(rows, [])
            if COLUMN not in header:
                raise ConfigError(f"{path} has no column {COLUMN}", hint=_HINT)
            lines = [(rows.line_num, row) for row in rows]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(f"cannot read {path}: {why}", hint=_HINT) from None
    while lines and not lines[-1][1]:
        lines.pop()  # empty lines at the end
    for line, row in lines:  # an hour that is passed over would move all later ones
        if len(row) != len(header):
            raise ConfigError(f"{path}:{line}: {len(row)} cells under a header of {len(header)}", hint=_HINT)
    found = [_number(path, line, row[header.index(COLUMN)]) for line, row in lines]
    if not 0 < len(found) <= MOST_HOURS:
        raise ConfigError(f"{path} has {len(found):,} hours; a year has at most {MOST_HOURS:,}", hint=_HINT)
    return found


def _number(path: Path, line: int, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < 1e6:  # also where it is no number
        raise ConfigError(f"{path}:{line}: {text!r} is no amount of grams per kWh", hint=_HINT)
    return value
