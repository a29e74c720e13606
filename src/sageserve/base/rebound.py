"""The same function with other functions or numbers behind its names: from one source what is compiled and what is not.

Knows no function. Read next: `core/perf.py`, which compiles plain functions; `live/gateway/python_kernels.py`, which goes back.
"""

from collections.abc import Callable
from types import FunctionType
from typing import Any


def rebound(function: Callable[..., object], **replaced: object) -> Any:  # noqa: ANN401 # callers say its type
    """The Python function behind a function, compiled or not; the names in `replaced` mean these in it."""
    source = getattr(function, "py_func", function)
    assert isinstance(source, FunctionType)
    made = FunctionType(source.__code__, {**source.__globals__, **replaced}, source.__name__, source.__defaults__)
    made.__doc__, made.__qualname__ = source.__doc__, source.__qualname__
    return made
