"""Try all faults of `prefixes.py` in one process: each is put into its function, compared, and taken out again.

`python -m tests.sim.mutants.prefix_trial`, without compilation (NUMBA_DISABLE_JIT=1), prints one JSON object: fault to the first
difference, empty where there is none; and the sound kernel's under "". A function keeps its identity and gets other code, so
whoever imported it plays the fault.
"""

import ast
import importlib
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import CodeType, FunctionType

import sageserve
from tests.sim.cases import Case, make_case, seeded
from tests.sim.compare import differs
from tests.sim.mutants.catalogue import Mutant
from tests.sim.mutants.prefixes import PREFIX_MUTANTS

PACKAGE = Path(str(sageserve.__file__)).parent
SEEDS = range(100)  # of small worlds, of which two in five have hashes
LARGER = (9, 361, 519)  # instances chosen by what they have, equal hashes after other blocks, prompts that lose their places


def function_of(mutant: Mutant) -> str | None:
    """The name of the function that the fault is in; None: it is in none, or in a method."""
    text = (PACKAGE / mutant.module).read_text("utf-8")
    assert text.count(mutant.old) == 1, f"{mutant.module} no longer holds this text once: {mutant.old!r}"
    line = text[: text.index(mutant.old)].count("\n") + 1
    functions = [one for one in ast.parse(text).body if isinstance(one, ast.FunctionDef)]
    return next((one.name for one in functions if one.lineno <= line <= (one.end_lineno or 0)), None)


@contextmanager
def changed(mutant: Mutant) -> Iterator[None]:
    """The package with this fault in it."""
    module = importlib.import_module("sageserve." + mutant.module.removesuffix(".py").replace("/", "."))
    text, name = (PACKAGE / mutant.module).read_text("utf-8"), function_of(mutant)
    assert name is not None, f"{mutant.name} is in no function of {mutant.module}"
    code = compile(text.replace(mutant.old, mutant.new), mutant.module, "exec")
    function = getattr(module, name)
    assert isinstance(function, FunctionType)
    sound = function.__code__
    function.__code__ = next(each for each in code.co_consts if isinstance(each, CodeType) and each.co_name == name)
    try:
        yield
    finally:
        function.__code__ = sound


def first_difference(cases: list[tuple[int, Case]]) -> str:
    """The first difference over these cases; empty when there is none."""
    for seed, case in cases:
        try:
            difference = differs(case)
        except (AssertionError, ArithmeticError, LookupError, ValueError) as wrong:
            difference = f"{type(wrong).__name__}: {wrong}"
        if difference:
            return f"seed {seed}: {difference}"
    return ""


def main() -> None:
    """Print what became of every fault."""
    cases = [(seed, case) for seed in SEEDS if (case := make_case(seeded(seed), 40)).trace.blocks is not None]
    cases[:0] = [(seed, make_case(seeded(seed))) for seed in LARGER]
    found = {"": first_difference(cases[:10])}
    for mutant in PREFIX_MUTANTS:
        with changed(mutant):
            found[mutant.name] = first_difference(cases)
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
