"""Header lines as they go on to an engine: bytes, each with its end, in the order they came.

Knows no request. Read next: `request.py` and `record.py`, which drop some.
"""


def without(fields: bytes, name: bytes) -> bytes:
    """Header lines without those of a name, which is in lower case."""
    if name not in fields.lower():
        return fields
    return b"".join(without_named(fields.splitlines(keepends=True), name))


def without_named(lines: list[bytes], connection: bytes) -> list[bytes]:
    """Drop header lines that the Connection header says are for this hop only."""
    named = {word.strip().lower() for word in connection.split(b",")} - {b"close", b"keep-alive"}
    return [line for line in lines if line.partition(b":")[0].lower() not in named] if named else lines
