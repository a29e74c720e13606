"""What a file says does not depend on the pieces it is read in; each line is told of once, by its number.

Read next: `src/sageserve/live/batches/input_file.py`.
"""

import json
from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sageserve.base.config import LiveSettings
from sageserve.live.batches import input_file
from sageserve.live.batches.input_file import InputReader
from sageserve.live.store.models import LineError, NewJob

CHAT = "/v1/chat/completions"
BODY = 200  # bytes, the most of a body in these tests
LONGEST = BODY + 100
LINES = 6


def reader_of() -> InputReader:
    live = LiveSettings.model_validate({"limits": {"body": f"{BODY}B", "lines": LINES}})
    reader = InputReader(CHAT, ("big",), live)
    reader._longest = LONGEST
    return reader


def good(name: str, *, size: int = 0) -> bytes:
    """A good line, with a body of at least so many bytes."""
    body = json.dumps({"model": "big", "x": ""})
    body = json.dumps({"model": "big", "x": "x" * max(0, size - len(body))})
    return f'{{"custom_id": "{name}", "method": "POST", "url": "{CHAT}", "body": {body}}}'.encode()


def read(text: bytes, cuts: list[int]) -> tuple[list[NewJob], list[LineError], int]:
    reader, jobs = reader_of(), list[NewJob]()
    places = [0, *sorted(cut % (len(text) + 1) for cut in cuts), len(text)]
    for begin, end in pairwise(places):
        jobs += reader.take(text[begin:end])
    jobs += reader.end()
    return jobs, reader.errors, reader.lines


LINE = st.one_of(
    st.builds(good, st.sampled_from(["a", "b", "c", "d", "e", "f", "g"])),
    st.just(good("long", size=BODY)),
    st.just(good("longer", size=BODY + 1)),
    st.just(b"x" * LONGEST),
    st.just(b"x" * (LONGEST + 1)),
    st.just(b"x" * (3 * LONGEST)),
    st.just(b"{"),
    st.just(b""),
    st.just(b"  \r"),
)


@given(st.lists(LINE, max_size=9), st.booleans(), st.lists(st.integers(0, 10_000), max_size=12))
def test_what_is_said_of_a_file_does_not_depend_on_its_pieces(lines: list[bytes], ends: bool, cuts: list[int]) -> None:
    text = b"\n".join(lines) + (b"\n" if ends else b"")
    whole = read(text, [])
    assert read(text, cuts) == whole
    _, errors, count = whole
    numbers = Counter(error.line for error in errors if error.line is not None)
    assert all(times == 1 for times in numbers.values()), "a line is told of once"
    said = [number for number, line in enumerate(text.split(b"\n"), 1) if line.strip()]
    assert count == len(said)
    for error in errors:
        if error.code == "line_too_long":
            assert error.line is not None
            assert len(text.split(b"\n")[error.line - 1]) > LONGEST


@pytest.mark.parametrize("piece", [1, 7, 100, 1000, 10_000])
def test_one_line_that_is_too_long_is_one_error_with_its_number(piece: int) -> None:
    text = b"\n".join([good("a"), good("b"), b"x" * 3000, good("c")])
    jobs, errors, _ = read(text, list(range(0, len(text), piece)))
    assert [(error.code, error.line) for error in errors] == [("line_too_long", 3)]
    assert [job.custom_id for job in jobs] == ["a", "b", "c"]


def test_a_line_too_many_is_told_once_even_if_it_is_too_long() -> None:
    lines = [good(name) for name in "abcdef"] + [b"x" * 3000, good("g"), good("h")]
    for piece in (50, 10_000):
        jobs, errors, count = read(b"\n".join(lines), list(range(0, 10_000, piece)))
        assert [(error.code, error.line) for error in errors] == [("too_many_requests", 7)]
        assert (len(jobs), count) == (6, 9)


def test_a_body_of_the_limit_passes_and_one_byte_more_does_not() -> None:
    assert [error.code for error in read(good("a", size=BODY), [])[1]] == []
    assert [error.code for error in read(good("a", size=BODY + 1), [])[1]] == ["request_too_large"]
    assert input_file._FRAME > LONGEST - BODY, "the frame of real files has more room than that of these tests"
