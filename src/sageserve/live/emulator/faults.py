"""What can be made to go wrong with an emulated engine, at its start (`--fault`) and while it runs (POST /_fault).

    hang              takes requests and makes no token any more         errors=N        the next N requests get 500
    crash-after=N     dies at the N-th request from now; 0: now          plain-errors=N  the same, as plain text
    reset-after=N     cuts every stream after N tokens                   slow=X          iterations take X times as long
    metrics=silent    never answers a scrape (gone: 404, empty: no series)
    health=bad        answers 503 (silent: never answers)

A value of its own, so that tests and drills say in one line what breaks. Read next: `engine.py`, which obeys.
"""

from typing import Final, Literal

import msgspec
from msgspec import Struct

from sageserve.base.errors import ConfigError


class EngineFaults(Struct, rename="kebab", forbid_unknown_fields=True):
    """What is wrong at present; the default is nothing."""

    hang: bool = False
    crash_after: int | None = None
    errors: int = 0
    plain_errors: int = 0
    reset_after: int | None = None
    slow: float = 1.0
    metrics: Literal["ok", "silent", "gone", "empty"] = "ok"
    health: Literal["ok", "bad", "silent"] = "ok"


_NAMES: Final = ", ".join(field.encode_name for field in msgspec.structs.fields(EngineFaults))


def read_faults(words: list[str]) -> EngineFaults:
    """Faults from `name=value` words; a name alone stands for `name=true`.

    Raises:
        ConfigError: an unknown name or a value that does not fit.
    """
    given = {name: value or "true" for name, _, value in (word.partition("=") for word in words)}
    try:
        return msgspec.convert(given, EngineFaults, strict=False)
    except msgspec.ValidationError as error:
        raise ConfigError(f"--fault {' '.join(words)}: {error}", hint=f"faults: {_NAMES}") from None


def with_changes(faults: EngineFaults, data: bytes) -> EngineFaults:
    """These faults with the changes of a JSON object; `{}` changes nothing.

    Raises:
        msgspec.ValidationError: it is not an object of faults.
    """
    now = msgspec.to_builtins(faults)
    changes = msgspec.json.decode(data, type=dict[str, msgspec.Raw])
    plain = {name: msgspec.json.decode(value) for name, value in changes.items()}
    return msgspec.convert(now | plain, EngineFaults)
