"""The option --seeds of commands that play something more than once, and how its text is read. Knows no command.

Read next: `compare.py`.
"""

from typing import Annotated, Final

import typer

MOST_SEEDS: Final = 1000
"""More is a slip of the hand: each is a whole play of every strategy."""
_DIGITS: Final = 19  # of the greatest seed
_HINT: Final = "write 1..5 or 1,2,3"

Seeds = Annotated[str | None, typer.Option(metavar="1..5|1,2", help="play each so often", show_default="the scenario's")]


def parse_seeds(text: str) -> list[int]:
    """Seeds as written: `1..5`, `1,2,3`, or both; one that is named twice counts once.

    Raises:
        ConfigError: anything else, a range that runs backwards, or more than `MOST_SEEDS`.
    """
    from sageserve.base.errors import ConfigError

    found: dict[int, None] = {}
    for part in text.split(","):
        first, dots, last = (piece.strip() for piece in part.partition(".."))
        begin, end = _seed(text, part, first), _seed(text, part, last if dots else first)
        if end < begin:
            raise ConfigError(f"--seeds {text}: {first}..{last} runs backwards", hint=f"write {last}..{first}")
        if len(found) + end - begin >= MOST_SEEDS:
            raise ConfigError(f"--seeds {text}: these are more than {MOST_SEEDS:,} seeds", hint="five say how far chance reaches")
        found.update(dict.fromkeys(range(begin, end + 1)))
    return list(found)


def _seed(text: str, part: str, digits: str) -> int:
    from sageserve.base.errors import ConfigError

    if not part.strip():
        raise ConfigError(f"--seeds {text.strip() or repr(text)}: a seed is missing", hint=_HINT)
    if not (digits.isascii() and digits.isdecimal()):
        raise ConfigError(f"--seeds {text}: {part.strip()!r} is no seed", hint=_HINT)
    if len(digits) > _DIGITS or (seed := int(digits)) >= 2**63:
        raise ConfigError(f"--seeds: a seed of {len(digits)} digits is too great", hint=f"the greatest is {2**63 - 1}")
    return seed
