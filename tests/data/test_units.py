"""Laws of units: what is shown is read back exactly, and a number without its unit is refused with an example."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sageserve.base.units import (
    DAY,
    HOUR,
    MINUTE,
    SECOND,
    WEEK,
    duration_us,
    price_per_hour,
    share,
    show_duration,
    show_price,
    show_size,
    size_bytes,
)

bare = st.one_of(st.integers(min_value=1), st.floats(min_value=0.001), st.booleans(), st.none(), st.lists(st.integers()))


@given(st.integers(min_value=0, max_value=5200 * WEEK))
def test_a_shown_duration_reads_back(micros: int) -> None:
    assert duration_us(show_duration(micros)) == micros


@given(st.integers(min_value=0, max_value=2**60))
def test_a_shown_size_reads_back(size: int) -> None:
    assert size_bytes(show_size(size)) == size


@given(st.floats(min_value=0, max_value=1e6))
def test_a_shown_price_reads_back(price: float) -> None:
    assert price_per_hour(show_price(price)) == price


@given(st.floats(min_value=0, max_value=1))
def test_a_share_and_its_percentage_are_the_same(value: float) -> None:
    assert share(value) == value
    assert math.isclose(share(f"{value * 100:.9f}%"), value, abs_tol=1e-9)


@pytest.mark.parametrize(
    ("text", "micros"),
    [
        ("1s", SECOND),
        ("250ms", 250_000),
        ("7us", 7),
        ("1.5h", HOUR + 30 * MINUTE),
        ("1h30m", HOUR + 30 * MINUTE),
        ("2 d 1 h", 2 * DAY + HOUR),
        ("1w", WEEK),
        ("90min", HOUR + 30 * MINUTE),
        (0, 0),
    ],
)
def test_durations(text: object, micros: int) -> None:
    assert duration_us(text) == micros


@pytest.mark.parametrize(("size", "text"), [(80 * 2**30, "80GiB"), (10**9, "1GB"), (137_950_000_000, "137.95GB"), (1, "1B")])
def test_sizes_are_shown_as_people_write_them(size: int, text: str) -> None:
    assert show_size(size) == text


@given(bare)
def test_numbers_without_units_are_refused_with_an_example(value: object) -> None:
    for parse, example in ((duration_us, "24h|1h30m"), (size_bytes, "80GiB"), (price_per_hour, "98.32/h")):
        with pytest.raises(ValueError, match=example):
            parse(value)


@pytest.mark.parametrize("text", ["", " ", "1", "h", "1x", "1h 2", "-1h", "1e3s", "1h30", "nan s", "9999999999w"])
def test_what_is_not_a_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"duration|century"):
        duration_us(text)


@pytest.mark.parametrize("value", [1.1, -0.1, "101%", "x", "%", True, None, math.nan, "nan"])
def test_what_is_not_a_share_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="share"):
        share(value)
