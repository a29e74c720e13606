"""Compiled functions: the `kernel` decorator, and views that turn an address inside a record into an array.

All state of a simulated world hangs on one record of addresses, because handing two dozen arrays to every compiled
function costs several times more than the work they do. `viewer(dtype)` makes the function that reads such an address.
With NUMBA_DISABLE_JIT=1 everything runs as plain Python, for debuggers and coverage; after `run_plain()` the compiler is not even
loaded, which spares a process that compiles nothing 70 MB. Knows nothing of what is stored; `sim/kernel/state.py` does.
"""

import ctypes
import sys
from collections.abc import Callable
from functools import cache
from typing import Any, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

F = TypeVar("F", bound=Callable[..., object])
Rec: TypeAlias = np.void
"""One row of a structured array; its fields are read as `row["name"]`."""

_OPTIONS = {"cache": True, "nogil": True, "error_model": "numpy", "fastmath": False, "no_cfunc_wrapper": True}
_PART = {"cache": False, "no_cpython_wrapper": True}
_plain: list[bool] = []  # something: nothing is compiled in this process


def run_plain() -> None:
    """Compile nothing in this process; to be called before anything with a kernel is imported."""
    _plain.append(True)


def is_plain() -> bool:
    """Whether compiled functions run as plain Python in this process."""
    if _plain:
        return True
    from numba import config  # noqa: PLC0415  # 70 MB

    return bool(config.DISABLE_JIT)


def kernel(function: F) -> F:
    """Compile a function over scalars, records and arrays; compiled code calls it without overhead.

    One whose first argument is `w`, a simulated world, is called by compiled code alone.
    """
    if _plain:
        return function
    from numba import njit  # noqa: PLC0415  # 70 MB

    if _is_part(function):
        part: F = njit(**_OPTIONS | _PART, pipeline_class=_part_compiler())(function)
        _widen(part)
        _keep_from_python(part)
        return part
    compiled: F = njit(**_OPTIONS)(function)
    _widen(compiled)
    _load_alone(compiled)
    return compiled


def _is_part(function: Callable[..., object]) -> bool:
    """Whether it is of a simulated world, by its first argument: compiled code alone calls it."""
    return function.__code__.co_varnames[:1] == ("w",)


def _keep_from_python(part: Any) -> None:  # noqa: ANN401  # numba has no types
    """Have Python refused with a sentence: there is no code that it could call."""

    def add(compiled: Any) -> None:  # noqa: ANN401  # as above
        part.overloads[tuple(compiled.signature.args)] = compiled

    def refuse(*_given: object, **_named: object) -> None:
        raise TypeError(f"{part.__name__} is a part of compiled code: call a kernel that calls it, as tests/sim do")

    part.add_overload, part._compile_for_args = add, refuse  # noqa: SLF001  # as numba's own


@cache
def _part_compiler() -> Any:  # noqa: ANN401  # numba has no types
    """Compile a function only as a part of those that call it: it is optimised and translated there, once, and not by itself too.

    That halves the time that all of them take.
    """
    from numba.core.codegen import JITCodeLibrary  # noqa: PLC0415  # 70 MB
    from numba.core.compiler import Compiler  # noqa: PLC0415  # as above

    class Part(JITCodeLibrary):  # type: ignore[misc]  # numba has no types
        def _optimize_final_module(self) -> None:
            """It is done where it is called."""

        def _finalize_final_module(self) -> None:
            self._finalized = True

        def get_pointer_to_function(self, _name: str) -> int:
            """Python cannot call it."""
            return 0

        @property
        def codegen(self) -> "Part":
            return self

        def set_env(self, _name: str, _env: object) -> None:
            """Only Python's objects need one."""

    class PartCompiler(Compiler):  # type: ignore[misc]  # numba has no types
        def compile_extra(self, func: Callable[..., object]) -> Any:  # noqa: ANN401  # numba has no types
            self.state.library = Part(self.state.targetctx.codegen(), func.__qualname__)
            return super().compile_extra(func)

    return PartCompiler


def _load_alone(compiled: Any) -> None:  # noqa: ANN401  # numba has no types
    """Load what was compiled once without what only the compiler needs: all that numba knows of Python and numpy, 0.25 s.

    It is loaded before a function is compiled all the same: every run of numba's compiler begins with it.
    """
    kept = getattr(compiled, "_cache", None)
    if kept is None:  # NUMBA_DISABLE_JIT=1
        return

    def load(signature: Any, context: Any) -> Any:  # noqa: ANN401  # numba has no types
        from numba.core.runtime import rtsys  # noqa: PLC0415  # as above

        rtsys.initialize(context)  # the functions that compiled code calls
        found = None
        with kept._guard_against_spurious_io_errors():  # noqa: SLF001  # as its own load_overload
            found = kept._load_overload(signature, context)  # noqa: SLF001  # as above
        if found is None:  # it is compiled now
            _spare_scipy()
        return found

    kept.load_overload = load


@cache
def _spare_scipy() -> None:
    """Load numba's array functions while scipy.linalg is out of its sight.

    They look whether it has a BLAS for `dot`, which no kernel calls; scipy is loaded for that look.
    """
    wanted = "scipy.linalg.cython_blas"
    if wanted in sys.modules:
        return
    sys.modules[wanted] = None  # type: ignore[assignment]  # Python's way to say: not there
    try:
        import numba.np.arraymath  # noqa: F401, PLC0415  # as above
    finally:
        del sys.modules[wanted]


def _widen(compiled: Any) -> None:  # noqa: ANN401  # numba has no types
    """Have compiled callers hand over every whole number as int64, so that one version of a function serves all of them.

    The columns of our records are of eight widths: numba would compile a third of the functions two to eleven times.
    """
    from numba import types  # noqa: PLC0415  # as above

    chosen = getattr(compiled, "get_call_template", None)
    if chosen is None:  # NUMBA_DISABLE_JIT=1
        return

    def widened(args: Any, kws: Any) -> Any:  # noqa: ANN401  # numba has no types
        plain = [types.unliteral(one) for one in args]
        small = [isinstance(one, types.Integer) and one != types.uint64 for one in plain]
        return chosen(tuple(types.int64 if is_small else one for one, is_small in zip(plain, small, strict=True)), kws)

    compiled.get_call_template = widened


def inlined(function: F) -> F:
    """As `kernel`, for what a loop runs through: it becomes part of whoever calls it, where a call would cost a few percent."""
    if _plain:
        return function
    from numba import njit  # noqa: PLC0415  # as above

    compiled: F = njit(**_OPTIONS, inline="always")(function)
    return compiled


def viewer(dtype: np.dtype[Any], *, counted: bool = False) -> Callable[[int, int], NDArray[Any]]:
    """A function `view(address, length)` that gives the array of `dtype` stored at an address.

    The caller keeps the array that owns the memory alive. Bounds are not checked.

    Args:
        dtype: of an element.
        counted: its length is asked for, or it is sliced. Where it is not, compiled code knows no length and takes every number
            as a row, without a look whether it counts from the end: a tenth of the simulator's loop.
    """
    if is_plain():
        return lambda address, length: _plain_view(dtype, address, length)
    from numba import from_dtype, types  # noqa: PLC0415  # as above
    from numba.extending import intrinsic  # noqa: PLC0415  # as above

    array_type = types.Array(from_dtype(dtype), 1, "C")

    @intrinsic  # type: ignore[untyped-decorator]  # numba has no types
    def view(_typing: object, _address: object, _length: object) -> Any:  # noqa: ANN401  # numba has no types
        def build(context: Any, builder: Any, _signature: object, args: Any) -> Any:  # noqa: ANN401  # as above
            from numba.np.arrayobj import populate_array  # noqa: PLC0415  # loads the compiler: only while compiling

            array = context.make_array(array_type)(context, builder)
            size = context.get_constant(types.intp, dtype.itemsize)
            populate_array(
                array,
                data=builder.inttoptr(args[0], array.data.type),
                shape=[args[1] if counted else context.get_constant(types.intp, 0)],
                strides=[size],
                itemsize=size,
                meminfo=None,
            )
            return array._getvalue()  # noqa: SLF001  # the documented end of every numba intrinsic

        return array_type(types.int64, types.int64), build

    result: Callable[[int, int], NDArray[Any]] = view
    return result


def _plain_view(dtype: np.dtype[Any], address: int, length: int) -> NDArray[Any]:
    buffer = (ctypes.c_char * (int(length) * dtype.itemsize)).from_address(int(address))
    array: NDArray[Any] = np.frombuffer(buffer, dtype=dtype)  # type: ignore[call-overload]  # ctypes arrays are buffers
    return array
