"""What has arrived: whole bins of 15 minutes from events of a minute, behind history from before the first instant.

Read next: `src/sageserve/core/history.py`.
"""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sageserve.base.errors import PlanError
from sageserve.base.records import Demand, Floats
from sageserve.base.units import HOUR, MINUTE, Micros
from sageserve.core.events import DemandSeen
from sageserve.core.history import BIN, DemandHistory

SHAPE = (2, 1, 2)


def event(minute: int, tokens: tuple[int, ...], *, work: float = 1.0) -> DemandSeen:
    return DemandSeen(
        minute * MINUTE,
        MINUTE,
        prompt_tokens=tokens,
        output_tokens=(0,) * 4,
        requests=tuple(min(one, 1) for one in tokens),
        work=tuple(work * one for one in tokens),
    )


def earlier(bins: int, *, length: Micros = MINUTE, end: Micros = 0, shape: tuple[int, ...] = SHAPE) -> Demand:
    tokens: Floats = np.arange(bins * np.prod(shape), dtype=float).reshape(bins, *shape)
    return Demand(end - bins * length, length, tokens, tokens, tokens / 10)


@given(st.integers(0, 70), st.lists(st.integers(0, 1000), max_size=70))
def test_bins_hold_what_arrived_in_them_and_nothing_newer(before: int, minutes: list[int]) -> None:
    history = DemandHistory(SHAPE, earlier(before))
    for minute, tokens in enumerate(minutes):
        history.add(event(minute, (tokens, 0, 2 * tokens, 1)))
    whole = len(minutes) // 15
    assert history.end == whole * BIN
    assert history.start == -(before // 15) * BIN
    assert len(history.tokens()) == before // 15 + whole
    for k in range(whole):
        total = sum(minutes[15 * k : 15 * k + 15])
        assert history.tokens()[before // 15 + k].ravel().tolist() == [total, 0, 2 * total, 15]
    old = earlier(before).prompt_tokens[before % 15 :]
    assert history.tokens()[: before // 15].sum() == old.sum()


def test_rates_are_per_second_over_the_last_whole_bins() -> None:
    history = DemandHistory(SHAPE)
    assert history.rate(HOUR).tolist() == np.zeros(SHAPE).tolist()
    for minute in range(74):  # four whole bins, and 14 minutes that do not count yet
        history.add(event(minute, (60 * (minute // 15), 0, 0, 0)))
    assert history.rate(15 * MINUTE)[0, 0, 0] == 3
    assert history.rate(HOUR)[0, 0, 0] == pytest.approx((0 + 1 + 2 + 3) / 4)
    assert history.rate(24 * HOUR)[0, 0, 0] == pytest.approx(1.5), "what is not known is not counted as nothing"
    assert history.rate(MINUTE)[0, 0, 0] == 3, "never less than one bin"


def test_the_newest_minutes_count_before_their_bin_is_whole() -> None:
    history = DemandHistory(SHAPE)
    assert history.now(5 * MINUTE).tolist() == np.zeros(SHAPE).tolist()
    for minute in range(20):
        history.add(event(minute, (60 * minute, 0, 0, 0)))
    assert history.now(MINUTE)[0, 0, 0] == 19
    assert history.now(5 * MINUTE)[0, 0, 0] == pytest.approx((15 + 16 + 17 + 18 + 19) / 5)
    assert history.now(15 * MINUTE)[0, 0, 0] == pytest.approx(sum(range(5, 20)) / 15)
    assert history.rate(5 * MINUTE)[0, 0, 0] == pytest.approx(7), "of the last whole bin"


def test_engine_time_follows_the_mix_and_old_hours_fade() -> None:
    history = DemandHistory(SHAPE)
    prior = np.full((1, 2), 7.0)
    assert history.work_per_token(prior).tolist() == [[7, 7]]
    assert history.prompt_mean().tolist() == [1000]
    for minute in range(600):
        history.add(event(minute, (100, 0, 0, 0), work=2.0))
    assert history.work_per_token(prior).tolist() == [[pytest.approx(2.0), 7]]
    assert history.work_per_request(np.array([5.0])).tolist() == [pytest.approx(200.0)]
    assert history.prompt_mean().tolist() == [pytest.approx(100)]
    for minute in range(600, 960):
        history.add(event(minute, (100, 0, 0, 0), work=4.0))
    six_hours_later = history.work_per_token(prior)[0, 0]
    assert 3.0 < six_hours_later < 3.5


@pytest.mark.parametrize(
    "unfit",
    [
        earlier(30, end=MINUTE),  # reaches into the simulated window
        earlier(30, end=-MINUTE),
        earlier(30, length=4 * MINUTE),
        earlier(30, length=HOUR),
        earlier(30, shape=(1, 2, 2)),
    ],
)
def test_history_that_does_not_fit_is_refused(unfit: Demand) -> None:
    with pytest.raises(PlanError, match="must end at 0"):
        DemandHistory(SHAPE, unfit)
