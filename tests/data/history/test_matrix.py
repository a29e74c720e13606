"""Prometheus' JSON while it streams: any cut of the bytes gives the same series, and what is no answer is named."""

import json
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sageserve.data import digits
from sageserve.data.history import matrix as reading
from sageserve.data.history.matrix import WORDS_MAX, MatrixReader, NotMatrix
from sageserve.data.history.raw import RawSeries
from tests.data.history.made import BEGIN, matrix, series

LABEL = 'a "quoted" }]] {\\"values\\":[[1,"2"]] label'
WHOLE = [
    series("vllm:num_requests_running", [1, 2.5, float("nan"), float("inf")], odd=LABEL),
    series("vllm:num_requests_waiting", [0.0], pod="b"),
    series("vllm:x_total", list(range(3000)), pod="c"),
]


def read(body: bytes, cuts: list[int] | None = None, samples_max: int = 10_000) -> tuple[list[RawSeries], MatrixReader]:
    reader = MatrixReader(samples_max)
    found: list[RawSeries] = []
    edges = [0, *sorted(cuts or []), len(body)]
    for first, last in pairwise(edges):
        found += reader.feed(body[first:last])
    reader.close()
    return found, reader


def same(found: list[RawSeries], wanted: list[RawSeries]) -> bool:
    return len(found) == len(wanted) and all(
        dict(a.labels) == dict(b.labels) and (a.time == b.time).all() and np.array_equal(a.value, b.value, equal_nan=True)
        for a, b in zip(found, wanted, strict=True)
    )


@given(st.lists(st.integers(0, len(matrix(WHOLE))), max_size=12))
def test_any_cut_gives_the_same_series(cuts: list[int]) -> None:
    assert same(read(matrix(WHOLE), cuts)[0], WHOLE)


@pytest.mark.parametrize("indent", [None, 1, 4])
def test_printed_by_other_tools_it_is_the_same(indent: int | None) -> None:
    plain = json.loads(matrix(WHOLE, ["w"]))
    turned = {"warnings": plain["warnings"], "data": plain["data"], "status": plain["status"]}
    found, reader = read(json.dumps(turned, indent=indent).encode(), list(range(0, 100_000, 777)))
    assert same(found, WHOLE)
    assert reader.warnings == ("w",)


def test_a_partial_answer_says_so() -> None:
    assert read(matrix(WHOLE, isPartial=True))[1].warnings == ("the answer is partial",)


def test_nothing_found_is_no_series() -> None:
    assert read(matrix([]))[0] == []
    assert read(matrix([series("a", [])]))[0] == []


def test_native_histograms_are_passed_over() -> None:
    body = matrix(WHOLE).replace(b'"result":[', b'"result":[{"metric":{"a":"b"},"histograms":[[1,{"count":"1"}]]},')
    found, reader = read(body)
    assert same(found, WHOLE)
    assert reader.skipped == 1


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"<html>502</html>", "not-json"),
        (b"", "not-json"),
        (b'{"status":"error","errorType":"bad_data","error":"parse error"}', "refused"),
        (b'{"status":"success","data":{"resultType":"vector","result":[{"metric":{},"value":[1,"2"]}]}}', "not-raw"),
        (b'{"status":"success","data":{"resultType":"scalar","result":[1,"2"]}}', "not-raw"),
        (matrix(WHOLE)[:-20], "cut"),
        (matrix(WHOLE)[:200], "cut"),
        (matrix([series("a", range(20_000))]), "too-large"),
        (b'{"status":"success"' + b" " * (WORDS_MAX + 10), "too-large"),
        (matrix([series("a", [1, 2], BEGIN, -1)]), "order"),
        (matrix([series("a", [1, 2], BEGIN, 0)]), "order"),
        (matrix([series("a", [1])]).replace(b'"1.0"', b'"many"'), "not-samples"),
        (matrix([series("a", [1])]).replace(b'"1.0"', b'"1.0",7'), "not-samples"),
    ],
)
def test_what_is_no_answer_is_named(body: bytes, why: str) -> None:
    with pytest.raises(NotMatrix) as caught:
        read(body, list(range(0, len(body), 1000)))
    assert caught.value.why == why


def test_an_answer_without_an_end_is_given_up_early() -> None:
    reader = MatrixReader(5000)
    head = matrix([]).split(b"]}")[0] + b'{"metric":{},"values":['
    reader.feed(head)
    fed = iter(range(100_000))
    with pytest.raises(NotMatrix) as caught:
        any(reader.feed(b'[%d,"1"],' % i * 10) for i in fed)
    assert caught.value.why == "too-large"
    assert next(fed) < 3000


TIMES = st.one_of(st.integers(0, 10**10).map(str), st.decimals(0, 10**10, places=3).map(str), st.just("1e9"), st.just("1.0001"))
NUMBERS = st.one_of(
    st.integers(-(10**15), 10**17).map(str),
    st.decimals(-(10**6), 10**6, places=7).map(str),
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.sampled_from(["NaN", "+Inf", "-Inf", "-0", "007", "1.", "0.1", "12345678901234.5"]),
)


@given(st.lists(st.tuples(TIMES, NUMBERS), min_size=1), st.sampled_from(["[[", ",[", "["]), st.sampled_from([",[", ", ["]))
def test_compiled_samples_are_the_slow_ones_to_the_last_bit(pairs: list[tuple[str, str]], begin: str, between: str) -> None:
    text = (begin + between.join(f'{time},"{value}"]' for time, value in pairs)).encode()
    found = reading._compiled(text)
    plain = all(digits_of(time) and digits_of(value) for time, value in pairs) and between == ",["
    assert found is not None or not plain
    if found is not None:
        time, value = reading._slowly(text)
        assert (found[0] == time).all()
        assert (found[1].view(np.int64) == value.view(np.int64)).all()


def digits_of(text: str) -> bool:
    """Whether a number is as almost all of them are, which must not go the slow way."""
    whole, _, after = text.removeprefix("-").partition(".")
    return (whole + after).isdecimal() and len(whole + after) <= digits.DIGITS_MOST and (len(after) != 4)


@pytest.mark.parametrize(
    "text",
    [b"[[1,2]", b'[[1,"2"', b'[[1,"2"]]', b'1,"2"]', b'[[1,"2"],,[3,"4"]', b'[[,"2"]', b'[[1,""]', b'[[1,"2",3]', b"[", b""],
)
def test_what_is_not_plain_is_left_to_the_slow_way(text: bytes) -> None:
    found = reading._compiled(text)
    assert found is None or not text


def test_long_answers_are_read_the_fast_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "LONG", 0)
    monkeypatch.setattr(reading, "_slowly", None)
    wanted = [series("vllm:x_total", list(range(3000)), pod="c")]
    assert same(read(matrix(wanted))[0], wanted)
