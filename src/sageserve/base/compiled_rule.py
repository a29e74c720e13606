"""A function of the user's that compiled code calls by its address, so that nothing has to be compiled again for its sake.

It is given the address of its numbers, float64, and gives a number; NaN where it raised. Where nothing is compiled, an address is
a ticket for the Python function. Knows no rule. Read next: `core/own_rules.py`, which checks what comes here.
"""

import math
from collections.abc import Callable, Sequence
from types import FunctionType
from typing import Any, Final

import numpy as np

from sageserve.base.kernel import is_plain, viewer

_TICKETS: Final[list[Callable[[int], float]]] = []
_ENTER: Final = """
def enter(address):
    numbers = view(address, {count})
    try:
        return 0.0 + rule({given})
    except Exception:
        return nan
"""


def compiled_rule(function: FunctionType, places: Sequence[int], helpers: Sequence[FunctionType] = ()) -> tuple[int, object]:
    """The address of a function as compiled code calls it, and what must be kept as long as it is called.

    Args:
        function: of float64s; what it calls is among its globals.
        places: of its arguments among the numbers.
        helpers: other functions of Python that it calls, each after those that it calls itself.

    Raises:
        Exception: whatever numba says of a function that it cannot compile.
    """
    given = ", ".join(f"numbers[{at}]" for at in places)
    names: dict[str, Any] = {"view": viewer(np.dtype("f8")), "nan": math.nan}
    source = compile(_ENTER.format(count=max(places, default=0) + 1, given=given), "<rule>", "exec")
    if is_plain():
        names["rule"] = function
        exec(source, names)  # noqa: S102  # a few lines of our own, around places that are numbers
        _TICKETS.append(names["enter"])
        return len(_TICKETS), names["enter"]
    from numba import cfunc, njit, types  # noqa: PLC0415  # 70 MB

    made: dict[FunctionType, Any] = {}
    for one in (*helpers, function):
        scope = {name: made[value] if isinstance(value, FunctionType) else value for name, value in one.__globals__.items()}
        again = FunctionType(one.__code__, scope, one.__name__)
        made[one] = njit(nogil=True, error_model="python", fastmath=False, no_cfunc_wrapper=True)(again)
    names["rule"] = made[function]
    exec(source, names)  # noqa: S102  # as above
    entry = cfunc(types.float64(types.int64), nogil=True)(names["enter"])
    return int(entry.address), entry


def _caller() -> Callable[[int, int], float]:
    if is_plain():
        return lambda address, numbers: _TICKETS[address - 1](numbers)
    from numba import types  # noqa: PLC0415  # 70 MB
    from numba.extending import intrinsic  # noqa: PLC0415  # as above

    @intrinsic  # type: ignore[untyped-decorator]  # numba has no types
    def call(_typing: object, _address: object, _numbers: object) -> Any:  # noqa: ANN401  # numba has no types
        def build(_context: object, builder: Any, _signature: object, args: Any) -> Any:  # noqa: ANN401  # as above
            from llvmlite import ir  # noqa: PLC0415  # only while compiling

            kind = ir.FunctionType(ir.DoubleType(), [ir.IntType(64)])
            return builder.call(builder.inttoptr(args[0], kind.as_pointer()), [args[1]])

        return types.float64(types.int64, types.int64), build

    made: Callable[[int, int], float] = call
    return made


call_rule: Final = _caller()
"""`call_rule(address, numbers)`: what the function at an address gives for the numbers at another."""
