"""The decision functions of the core as plain Python, from the same source that the simulator compiles.

Handing one request's few numbers to a compiled function costs more than computing with them: measured per call, compiled and
plain, pick_endpoint 6.0 and 3.8 us, pick_instance over six 1.4 and 1.7.
Rows become dictionaries and arrays become lists; results are the same, because both are IEEE doubles. Besides, a process that
loads no compiler holds 70 MB less. What an engine takes is plain Python in the first place (`core/engine/timing.py`). Knows no
decision. Read next: `routing_state.py`, the caller.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeAlias, cast

from numpy.typing import NDArray

from sageserve.base.rebound import rebound
from sageserve.core import admit, pace, response, route, signals
from sageserve.core.engine import timing

Row: TypeAlias = dict[str, float]
"""One row of a structured array: numbers by name of their column."""


def engines_of(rows: NDArray[Any]) -> list[timing.EngineRow]:
    """PROFILE rows as dictionaries, their curves as lists."""
    names = rows.dtype.names or ()
    return [cast("timing.EngineRow", {name: row[name].tolist() for name in names}) for row in rows]


_signal: Final = rebound(signals.signal)
expected_busy: Final = cast("Callable[[Mapping[str, float], Row, int], float]", rebound(route.expected_busy))
expected: Final = cast(
    "Callable[[Mapping[str, float], Row, int], float]", rebound(route.expected, signal=_signal, expected_busy=expected_busy)
)
expected_first: Final = cast(
    "Callable[[Mapping[str, float], Row, int, float, float], float]",
    rebound(route.expected_first, expected_busy=expected_busy),
)
pick_endpoint: Final = cast(
    "Callable[[Mapping[str, float], Sequence[Row], Sequence[int], int, int, int], int]",
    rebound(route.pick_endpoint, expected=expected),
)
note_request: Final = cast(
    "Callable[[list[float], float, float, float], None]",
    rebound(response.note_request, slack_bin=rebound(response.slack_bin)),
)
note_answer: Final = cast(
    "Callable[[list[float], int], None]", rebound(pace.note_answer, length_column=rebound(pace.length_column))
)
pick_instance: Final = cast("Callable[[Sequence[int], int, int], int]", rebound(route.pick_instance))
pick_affine: Final = cast(
    "Callable[[float, int, Sequence[int], int, Sequence[int], Sequence[int]], int]", rebound(route.pick_affine)
)
predicted_wait: Final = cast("Callable[[float, int, int, float, int], float]", rebound(admit.predicted_wait))
is_admitted: Final = cast("Callable[[float, float, int, int], bool]", rebound(admit.is_admitted))
