"""What a world keeps for rules of the user's: their addresses, the numbers they are shown, and what they could not say.

A rule is compiled when a world is made, and is then compared with itself as plain Python, which is what a gateway runs: on the
same numbers it must give the same to the last bit. Read next: `sim/kernel/choices/own.py`, which calls it; `core/own_rules.py`.
"""

from functools import cache
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from sageserve.base.compiled_rule import call_rule, compiled_rule
from sageserve.base.errors import ConfigError, PluginError
from sageserve.base.kernel import kernel
from sageserve.core.own_rules import ADMISSION, INSTANCE, NUMBERS, PLACES, REGION, OwnRule, OwnRules, made_up
from sageserve.core.plugins import where

OWN_SIZES: Final = ("own_instance", "own_region", "own_admission", "own_finds", "own_failed")
OWN_ARRAYS: Final = ("numbers", "scores")
FAILED: Final = (INSTANCE, REGION, ADMISSION)
"""Whose numbers are kept in `numbers`, by what `own_failed` says less one."""


class OwnMemory:
    """Columns of a world, as `PrefixMemory` has them.

    Args:
        rules: of the scenario.
        slots: instances of an endpoint at most.

    Raises:
        ConfigError: a rule cannot be compiled, or is another one when it is.
    """

    def __init__(self, rules: OwnRules, slots: int) -> None:
        self._rules = rules
        self._kept: dict[str, object] = {}
        self.arrays: dict[str, NDArray[Any]] = {"numbers": np.zeros(PLACES), "scores": np.zeros(slots if rules.instance else 1)}
        self.sizes = dict.fromkeys(OWN_SIZES, 0) | {"own_" + rule.kind: self._compiled(rule) for rule in rules}
        self.sizes["own_finds"] = int(rules.instance is not None and "found" in rules.instance.wants)

    def _compiled(self, rule: OwnRule) -> int:
        address, self._kept[rule.kind] = _compiled(rule)
        return address

    def check(self, failed: int) -> None:
        """Say what a rule did when it gave no number.

        Raises:
            PluginError: it did.
        """
        kind = FAILED[failed - 1]
        rule = next(one for one in self._rules if one.kind == kind)
        rule.ask(dict(zip(NUMBERS[kind], self.arrays["numbers"].tolist(), strict=False)))
        said = f"the {kind} rule {rule.name} gave no number when compiled, and one as plain Python"
        raise PluginError(f"{where(rule.function)}: {said}", hint="write it with floats and + - * / alone, and it is the same")


@cache
def _compiled(rule: OwnRule) -> tuple[int, object]:
    """The address of a rule, and what must be kept while it is called.

    Raises:
        ConfigError: it cannot be compiled, or is another one when it is.
    """
    try:
        address, kept = compiled_rule(rule.function, rule.places, rule.helpers)
    except Exception as error:  # whatever numba says of it
        line = getattr(getattr(error, "loc", None), "line", rule.function.__code__.co_firstlineno)
        said = [text for text in str(error).splitlines() if text.strip() and not text.startswith("Failed in nopython")]
        raise ConfigError(
            f"{rule.function.__code__.co_filename}:{line}: the {rule.kind} rule {rule.name} cannot be compiled: {said[0]}",
            hint="write it with numbers alone; https://numba.readthedocs.io says which Python can be compiled",
        ) from error
    numbers = np.zeros(PLACES)
    for row in made_up(rule.kind):
        numbers[: len(row)] = list(row.values())
        plain, compiled = rule.ask(row), _call(address, numbers.ctypes.data)
        if plain != compiled:
            given = ", ".join(f"{name} = {row[name]:g}" for name in rule.wants)
            raise ConfigError(
                f"{where(rule.function)}: the {rule.kind} rule {rule.name} gives {plain!r} live and {compiled!r} simulated,"
                f" for {given}",
                hint="whole numbers beyond 2^63 and powers such as x ** 3 differ: write x * x * x, and stay with floats",
            )
    return address, kept


@kernel
def _call(address: int, numbers: int) -> float:
    return call_rule(address, numbers)
