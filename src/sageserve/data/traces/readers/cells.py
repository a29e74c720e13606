"""Cells that hold JSON: what stands in them under a path of keys, and records laid flat under dotted names.

Read next: `json_file.py`, `csv_file.py`.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Final, TypeAlias

import msgspec
import pyarrow as pa

Json: TypeAlias = bool | int | float | str | list["Json"] | dict[str, "Json"] | None
DEPTH_MAX: Final = 32  # records nested deeper are kept as text from there on

_decoder: Final = msgspec.json.Decoder()


def parse_json(text: bytes | str) -> Json:
    """A JSON value; NaN and Infinity, which Python writes, are taken too.

    Raises:
        ValueError: it is none, or nested beyond reason.
    """
    try:
        found: Json = _decoder.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError):
        try:
            found = json.loads(text)
        except RecursionError:
            raise ValueError("nested too deeply") from None
    except RecursionError:
        raise ValueError("nested too deeply") from None
    return found


def flat(record: Mapping[str, Json]) -> dict[str, Json]:
    """The record with nested objects laid flat: {"usage": {"input": 3}} is {"usage.input": 3}."""
    found: dict[str, Json] = {}
    _lay(record, "", found, DEPTH_MAX)
    return found


def _lay(record: Mapping[str, Json], prefix: str, found: dict[str, Json], depth: int) -> None:
    for name, value in record.items():
        if isinstance(value, dict) and depth:
            _lay(value, f"{prefix}{name}.", found, depth - 1)
        else:
            found[prefix + name] = value


def dig(column: pa.Array, path: Sequence[str]) -> pa.Array:
    """Text cells of JSON objects become what stands in them under `path`; null where nothing does."""
    if not path:
        return column
    return pa.array([_inside(cell, ".".join(path)) for cell in column.to_pylist()], pa.string())


def _inside(cell: str | bytes | None, wanted: str) -> str | None:
    if not cell:
        return None
    try:
        record = parse_json(cell)
    except ValueError:
        return None
    value = flat(record).get(wanted) if isinstance(record, dict) else None
    return None if value is None else text_of(value)


def text_of(value: Json) -> str:
    """A value as text: what a CSV file would hold."""
    if isinstance(value, str):
        return value
    if isinstance(value, dict | list):
        return msgspec.json.encode(value).decode()
    return repr(value) if isinstance(value, float) else str(value)
