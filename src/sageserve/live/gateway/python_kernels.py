"""The decision functions of the core as plain Python, from the same source that the simulator compiles.

Handing one request's few numbers to a compiled function costs more than computing with them: measured per call, compiled and
plain, pick_endpoint 6.0 and 3.8 us, prefill_work 6.5 and 0.6, decode_work 9 and 1.9, pick_instance over six 1.4 and 1.7.
Rows become dictionaries and arrays become lists; results are the same, because both are IEEE doubles. Besides, a process that
compiles nothing holds 60 MB less. Knows no decision. Read next: `routing_state.py`, the caller.
"""

from collections.abc import Callable, Mapping, Sequence
from types import FunctionType
from typing import Any, Final, TypeAlias, cast

from numpy.typing import NDArray

from sageserve.core import admit, perf, route, signals

Row: TypeAlias = dict[str, float]
"""One row of a structured array: numbers by name of their column."""


def plain(function: Callable[..., object], **replaced: Callable[..., object]) -> Any:  # noqa: ANN401 # callers say its type
    """The Python function behind a compiled one, with the compiled functions it calls replaced by plain ones."""
    source = getattr(function, "py_func", function)
    assert isinstance(source, FunctionType)
    return FunctionType(source.__code__, {**source.__globals__, **replaced}, source.__name__, source.__defaults__)


def rows_of(rows: NDArray[Any]) -> list[Row]:
    """The rows of a structured array as dictionaries of Python numbers."""
    names = rows.dtype.names or ()
    return [{name: row[name].item() for name in names} for row in rows]


_signal: Final = plain(signals.signal)
expected: Final = cast("Callable[[Mapping[str, float], Row, int], float]", plain(route.expected, signal=_signal))
pick_endpoint: Final = cast(
    "Callable[[Mapping[str, float], Sequence[Row], Sequence[int], int, int, int], int]",
    plain(route.pick_endpoint, expected=expected),
)
pick_instance: Final = cast("Callable[[Sequence[int], int, int], int]", plain(route.pick_instance))
predicted_wait: Final = cast("Callable[[float, int, int, float, int], float]", plain(admit.predicted_wait))
is_admitted: Final = cast("Callable[[float, float, int, int], bool]", plain(admit.is_admitted))
prefill_work: Final = cast("Callable[[Row, int], float]", plain(perf.prefill_work))
decode_work: Final = cast("Callable[[Row, int, float], float]", plain(perf.decode_work))
