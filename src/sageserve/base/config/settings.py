"""What all settings share: the base of every node, names, and the rule that a description says why.

Every field carries a description. Where it has a default, the description gives the default's reason and
source; it is shown by `sageserve scenario show`, exported with the JSON Schema, and checked to be there by
a test. Knows no field. Read next: `scenario.py`.
"""

import re
from importlib.metadata import entry_points
from typing import Annotated, Final

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidatorFunctionWrapHandler,
    WithJsonSchema,
    WrapValidator,
)

Name = Annotated[
    str,
    Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]*$",
        max_length=100,
        description="letters, digits, '.', '_', '/' and '-', at most 100",
    ),
]


Pattern = Annotated[
    str,
    Field(
        pattern=r"^[A-Za-z0-9._/*?\[\]!-]+$",
        max_length=200,
        description="of names: '*' stands for any text, '/' included, '?' for a character, [ab] for one of some",
    ),
]


RuleName = Annotated[
    str,
    Field(
        pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]*(:[A-Za-z0-9_.]+)?$",
        max_length=100,
        description="letters, digits, '.', '_' and '-', at most 100; `fixed:8` and `module:Class` have a colon",
    ),
]


def own_rule_or(*words: str) -> tuple[WrapValidator, WithJsonSchema]:
    """Marks a RuleName that is one of these words, or a rule of the user's: `module:function`, or the name of an entry point."""

    def check(given: object, handler: ValidatorFunctionWrapHandler) -> object:
        known = given in words or not isinstance(given, str) or ":" in given
        if not known and not entry_points(group="sageserve.rules", name=str(given)):
            raise ValueError(f"{given!r} is not one of {', '.join(words)}, nor module:function of your own")
        return handler(given)

    own = {"type": "string", "pattern": "^[^:]+:[^:]+$", "maxLength": 100}
    return WrapValidator(check), WithJsonSchema({"anyOf": [{"type": "string", "enum": list(words)}, own]})


def refuse_code(given: object) -> object:
    """Say why `module:Class` is no value, where somebody hopes that it is."""
    if isinstance(given, str) and ":" in given:
        raise ValueError(
            f"{given!r} cannot take the place of this rule: strategies, forecasters, routers and admission can be code of yours"
            " (docs/how-to/own-routers.md)"
        )
    return given


CompiledRule = BeforeValidator(refuse_code)
"""Marks a setting that names a rule which is compiled into the simulator, and which no code of the user's takes the place of."""


_LISTEN: Final = re.compile(r"^(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+):[0-9]{1,5}$")
_PORT_MOST: Final = 65_535


def port_to_open(listen: str, such: str) -> str:
    """HOST:PORT, as it was given.

    Raises:
        ValueError: it is none; `such` is one.
    """
    if not _LISTEN.match(listen) or int(listen.rpartition(":")[2]) > _PORT_MOST:
        raise ValueError(f"write HOST:PORT, such as {such}; a port is 65535 at most")
    return listen


class Settings(BaseModel):
    """Base of every node: unknown keys are refused, values never change, numbers are finite."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, defer_build=True)
