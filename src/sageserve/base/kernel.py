"""Compiled functions: the `kernel` decorator, and views that turn an address inside a record into an array.

All state of a simulated world hangs on one record of addresses, because handing two dozen arrays to every compiled
function costs several times more than the work they do. `viewer(dtype)` makes the function that reads such an address.
With NUMBA_DISABLE_JIT=1 everything runs as plain Python, for debuggers and coverage; after `run_plain()` the compiler is not even
loaded, which spares a process that compiles nothing 70 MB. Knows nothing of what is stored; `sim/kernel/state.py` does.
"""

import ctypes
import sys
from collections.abc import Callable, Sequence
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
    """Compile nothing in this process; to be called before anything with a kernel is imported.

    Where the compiler is loaded already nothing changes: a process that holds both kinds of functions would take an address of
    the one for the other's.
    """
    if "numba" not in sys.modules:
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
    if _is_part(function):
        part: F = _part(function)
        _keep_from_python(part)
        return part
    from numba import njit  # noqa: PLC0415  # 70 MB

    compiled: F = njit(**_OPTIONS, pipeline_class=_compilers()[0])(function)
    _load_alone(compiled)
    _call_part(compiled, function)
    return compiled


def _part(function: Callable[..., object], **more: bool) -> Any:  # noqa: ANN401  # numba has no types
    """A function as compiled code calls it."""
    from numba import njit  # noqa: PLC0415  # as above

    part = njit(**_OPTIONS | _PART | more, pipeline_class=_compilers()[1])(function)
    _widen(part)
    return part


def _is_part(function: Callable[..., object]) -> bool:
    """Whether it is of a simulated world, by its first argument: compiled code alone calls it."""
    return function.__code__.co_varnames[:1] == ("w",)


def _call_part(compiled: Any, function: Callable[..., object]) -> None:  # noqa: ANN401  # numba has no types
    """Have compiled callers take a part of their own: what Python calls is compiled when Python calls it."""
    if not hasattr(compiled, "get_call_template"):  # NUMBA_DISABLE_JIT=1
        return
    part = cache(lambda: _part(function))
    compiled.get_call_template = lambda args, kws: part().get_call_template(args, kws)
    compiled.get_overload = lambda signature: part().get_overload(signature)


def _keep_from_python(part: Any) -> None:  # noqa: ANN401  # numba has no types
    """Have Python refused with a sentence: there is no code that it could call."""

    def add(compiled: Any) -> None:  # noqa: ANN401  # as above
        part.overloads[tuple(compiled.signature.args)] = compiled

    def refuse(*_given: object, **_named: object) -> None:
        raise TypeError(f"{part.__name__} is a part of compiled code: call a kernel that calls it, as tests/sim do")

    part.add_overload, part._compile_for_args = add, refuse  # noqa: SLF001  # as numba's own


@cache
def _libraries() -> tuple[Any, Any]:
    """What holds the code of a function that Python calls, and of one that only compiled code does.

    A part is neither linked, optimised nor translated by itself. That is done in what Python calls, once for all that is reached.
    """
    from numba.core.codegen import JITCodeLibrary  # noqa: PLC0415  # 70 MB

    class Whole(JITCodeLibrary):  # type: ignore[misc]  # numba has no types
        _linking_libraries: list[Any]

        def finalize(self) -> None:
            """Parts have linked nothing: all that they call in turn is linked here, each once."""
            found = list(self._linking_libraries)
            for library in found:  # and those that are found on the way
                further = library.called if isinstance(library, Part) else ()
                found += [other for other in further if other not in found]
            self._linking_libraries = found
            super().finalize()

    class Part(JITCodeLibrary):  # type: ignore[misc]  # as above
        def finalize(self) -> None:
            """It is done where it is called."""
            self._raise_if_finalized()
            self._finalized = True

        def _optimize_functions(self, ll_module: Any) -> None:  # noqa: ANN401  # as above
            """The same; all but where data lies, which has to agree."""
            ll_module.data_layout = self._codegen._data_layout  # noqa: SLF001  # as in the one it stands for

        @property
        def called(self) -> Sequence[Any]:
            """What it calls itself."""
            found: Sequence[Any] = self._linking_libraries
            return found

        def get_pointer_to_function(self, _name: str) -> int:
            """Python cannot call it."""
            return 0

        @property
        def codegen(self) -> "Part":
            return self

        def set_env(self, _name: str, _env: object) -> None:
            """Only Python's objects need one."""

    return Whole, Part


@cache
def _compilers() -> tuple[Any, Any]:
    """Of what Python calls, and of what only compiled code does."""
    from numba.core.compiler import Compiler  # noqa: PLC0415  # 70 MB
    from numba.core.typed_passes import NopythonRewrites  # noqa: PLC0415  # as above
    from numba.core.untyped_passes import InlineClosureLikes  # noqa: PLC0415  # as above

    class KernelCompiler(Compiler):  # type: ignore[misc]  # numba has no types
        library = _libraries()[0]

        def define_pipelines(self) -> Any:  # noqa: ANN401  # as above
            """Without passes for what no kernel has: closures, expressions of whole arrays."""
            (passes,) = super().define_pipelines()
            passes.passes = [one for one in passes.passes if one[0] not in {InlineClosureLikes, NopythonRewrites}]
            passes.finalize()
            return [passes]

        def compile_extra(self, func: Callable[..., object]) -> Any:  # noqa: ANN401  # numba has no types
            self.state.library = self.library(self.state.targetctx.codegen(), func.__qualname__)
            self.state.library.enable_object_caching()
            return super().compile_extra(func)

    class PartCompiler(KernelCompiler):
        library = _libraries()[1]

    return KernelCompiler, PartCompiler


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
    made: F = _part(function, forceinline=True)
    return made


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
