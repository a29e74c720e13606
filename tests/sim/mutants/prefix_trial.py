"""Try all faults of `prefixes.py` in one process: each is put into its function, compared, and taken out again.

`python -m tests.sim.mutants.prefix_trial`, without compilation (NUMBA_DISABLE_JIT=1), prints one JSON object: fault to the first
difference, empty where there is none; and the sound kernel's under "". A function keeps its identity and gets other code, so
whoever imported it plays the fault.
"""

import ast
import importlib
import json
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from functools import cache
from pathlib import Path
from types import CodeType, FunctionType

import sageserve
from tests.sim.cases import Case, Stop, make_case, seeded
from tests.sim.compare import first_difference, play, watched
from tests.sim.mutants.catalogue import Mutant
from tests.sim.mutants.prefixes import PREFIX_MUTANTS

DEFINED = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
PACKAGE = Path(str(sageserve.__file__)).parent
LARGER_FROM = 1000  # numbers of larger worlds are their seeds from here on
SEEDS = (79, 22, 23, *range(100), 163)  # of small worlds, of which two in five have hashes: first what no larger one shows
LARGER = (9, 48, 361, 710)  # chosen by what caches have, one block too many, equal hashes after others, prompts that lose places


def function_of(mutant: Mutant) -> str | None:
    """The qualified name of the function or method that the fault is in; None: it is in none."""
    text = (PACKAGE / mutant.module).read_text("utf-8")
    assert text.count(mutant.old) == 1, f"{mutant.module} no longer holds this text once: {mutant.old!r}"
    line = text[: text.index(mutant.old)].count("\n") + 1
    at, names = ast.parse(text).body, []
    while found := [one for one in at if isinstance(one, DEFINED) and one.lineno <= line <= (one.end_lineno or 0)]:
        names.append(found[0].name)
        if not isinstance(found[0], ast.ClassDef):
            return ".".join(names)
        at = found[0].body
    return None


@contextmanager
def changed(mutant: Mutant) -> Iterator[None]:
    """The package with this fault in it."""
    function, faulty = _faulty(mutant)
    sound = function.__code__
    function.__code__ = faulty
    try:
        yield
    finally:
        function.__code__ = sound


@cache
def _faulty(mutant: Mutant) -> tuple[FunctionType, CodeType]:
    module = importlib.import_module("sageserve." + mutant.module.removesuffix(".py").replace("/", "."))
    text, name = (PACKAGE / mutant.module).read_text("utf-8"), function_of(mutant)
    assert name is not None, f"{mutant.name} is in no function of {mutant.module}"
    at: object = module
    for part in name.split("."):
        at = vars(at)[part]
    assert isinstance(at, FunctionType)
    code = compile(text.replace(mutant.old, mutant.new), mutant.module, "exec")
    return at, next(each for each in _codes(code) if each.co_qualname == name)


def _codes(code: CodeType) -> Iterator[CodeType]:
    """All functions in it, however deep."""
    for one in code.co_consts:
        if isinstance(one, CodeType):
            yield one
            yield from _codes(one)


class Worlds:
    """Cases by a number, made and played by the reference once for all faults."""

    def __init__(self, make: Callable[[int], Case]) -> None:
        self._make = make
        self._played: dict[int, tuple[Case, list[Stop]]] = {}

    def first_difference(self, mutant: Mutant | None, numbers: Iterable[int]) -> str:
        """The first difference that a fault makes; empty when there is none."""
        for number in numbers:
            case, expected = self._sound(number)
            with changed(mutant) if mutant else nullcontext():
                try:
                    difference = first_difference(expected, watched(case))
                except (AssertionError, ArithmeticError, LookupError, ValueError) as wrong:
                    difference = f"{type(wrong).__name__}: {wrong}"
            if difference:
                return f"case {number}: {difference}"
        return ""

    def _sound(self, number: int) -> tuple[Case, list[Stop]]:
        if number not in self._played:
            case = self._make(number)
            self._played[number] = case, play(case)[0]
        return self._played[number]


def main() -> None:
    """Print what became of every fault."""
    hashed = [seed for seed in SEEDS if make_case(seeded(seed), 40).trace.blocks is not None]
    numbers = [*(LARGER_FROM + seed for seed in LARGER), *hashed]
    worlds = Worlds(lambda n: make_case(seeded(n), 40) if n < LARGER_FROM else make_case(seeded(n - LARGER_FROM)))
    found = {"": worlds.first_difference(None, numbers[:10])}
    found |= {mutant.name: worlds.first_difference(mutant, numbers) for mutant in PREFIX_MUTANTS}
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
