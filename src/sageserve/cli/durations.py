"""Durations that options give.

Knows no option. Read next: `base/units.py`, which reads them.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sageserve.base.units import Micros


def time_of(option: str, text: str) -> "Micros":
    """Microseconds of an option's duration.

    Raises:
        ConfigError: it is none.
    """
    from sageserve.base.errors import ConfigError
    from sageserve.base.units import duration_us

    try:
        return duration_us(text)
    except ValueError as error:
        raise ConfigError(f"{option}: {error}", hint=f"for example {option} 10h") from None
