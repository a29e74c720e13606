"""What `sageserve tune` tries and takes, on summaries made by hand, and that all it tries can be loaded.

Read next: `tests/cli/test_tune.py` for the command.
"""

import msgspec
import pytest

from sageserve.data.results.summary import AfterWindow
from sageserve.data.scenarios.load import load_scenario
from sageserve.sim.sweep.tuning import CANDIDATES, NEAR, Candidate, Trial, choose, judge
from tests.show.made import PERCENTILE, summary_of
from tests.worlds import SMALL_FLEET


def trial(name: str, gpu_hours: float, shortfall: float) -> Trial:
    return Trial(Candidate(name, ()), gpu_hours, {}, shortfall)


def test_the_cheapest_of_those_that_keep_every_promise_is_taken() -> None:
    found = choose([trial("dear", 9.0, 0.0), trial("right", 5.0, 0.0), trial("late", 1.0, 2 * NEAR)])
    assert found.candidate.name == "right"


def test_promises_that_differ_by_less_than_can_be_told_are_kept_alike() -> None:
    assert choose([trial("dear", 9.0, 0.0), trial("near", 5.0, NEAR / 2)]).candidate.name == "near"


def test_where_none_keeps_them_the_cheapest_of_the_nearest_is_taken() -> None:
    found = choose([trial("far", 1.0, 0.3), trial("dear", 9.0, 0.1), trial("near", 5.0, 0.1 + NEAR / 2)])
    assert found.candidate.name == "near"


def test_the_first_of_equals_is_taken() -> None:
    assert choose([trial("first", 5.0, 0.0), trial("second", 5.0, 0.0)]).candidate.name == "first"


def test_a_trial_is_the_mean_over_seeds_and_falls_short_by_its_worst_tier() -> None:
    mine = Candidate("mine", ())
    first = summary_of("reactive", 1, 10.0, {"iw-f": 0.9, "iw-n": 1.0})
    owing = msgspec.structs.replace(first, after_window=AfterWindow(0, None, 6.0))
    found = judge(mine, [owing, summary_of("reactive", 2, 20.0, {"iw-f": 0.8, "iw-n": 0.99})])
    assert found.gpu_hours == pytest.approx((10 + 6 + 20) / 2)
    assert found.attainment == pytest.approx({"iw-f": 0.85, "iw-n": 0.995})
    assert found.shortfall == pytest.approx(PERCENTILE - 0.85)


def test_what_is_better_than_promised_is_no_credit() -> None:
    assert judge(Candidate("mine", ()), [summary_of("reactive", 1, 10.0, {"iw-f": 1.0})]).shortfall == 0.0


@pytest.mark.parametrize("strategy", CANDIDATES)
def test_every_candidate_is_a_scenario_of_its_own(strategy: str) -> None:
    tried = CANDIDATES[strategy]
    found = [load_scenario(SMALL_FLEET, overrides=[f"strategy.name={strategy}", *one.changes]) for one in tried]
    assert len({one.strategy.model_dump_json() for one in found}) == len({one.name for one in tried}) == len(tried)
