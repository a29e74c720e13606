"""Engines with data parallel ranks: small worlds worked out in comments, and that ranks without step are engines side by side.

As in `test_reference_by_hand.py` an iteration takes 100 + 1 per prompt token + 10 per decoding sequence, microseconds. Worlds
that nobody worked out are in `test_kernel_against_reference.py`. Read next: docs/reference/kernel.md, "Data parallel ranks".
"""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from sageserve.base.config import ProfileSettings
from sageserve.base.rng import stream
from sageserve.core.perf import prefill_work, profile_rows, request_work
from sageserve.sim.kernel.engine import Kernel
from sageserve.sim.kernel.state import Setup
from sageserve.sim.replay import Arrivals, replay
from tests.sim.reference import Reference
from tests.sim.test_reference_by_hand import PLAIN, Make, engine, make, rows, times  # noqa: F401 # a fixture

CHUNKED = {"chunked": 1, "max_batched": 32}


def ranks(count: int, *, together: bool, **fields: float) -> Setup:
    """The plain world with an engine of so many ranks."""
    return replace(PLAIN, profiles=engine(ranks=count, per_rank=1 / count, lockstep=int(together), **fields))


@pytest.mark.parametrize("together", [False, True])
def test_requests_go_to_the_rank_that_has_fewest(make: Make, together: bool) -> None:  # noqa: F811 # the fixture of the same name
    # both are prefilled at once, each on a rank of its own: 1,000 + 150; on one rank the second would wait for the first
    assert times(make, ranks(2, together=together), (1_000, 50, 1), (1_000, 50, 1)) == [(1_150, 1_150)] * 2


def test_who_waits_counts_four_times(make: Make) -> None:  # noqa: F811 # the fixture of the same name
    # one sequence a rank: the third waits at rank 0 (1 running, 1 waiting: 5), so the fourth goes to rank 1 (1), not back (5)
    setup = ranks(2, together=False, max_sequences=1)
    found = times(make, setup, (0, 50, 9), (0, 50, 2), (0, 50, 1), (0, 50, 1))
    # rank 1: 150, 260; then its waiting one 410. rank 0: 150 + 8 x 110 = 1030; then 1180
    assert found == [(150, 1_030), (150, 260), (1_180, 1_180), (410, 410)]


def test_ranks_without_step_do_not_wait_for_each_other(make: Make) -> None:  # noqa: F811 # the fixture of the same name
    # rank 0 prefills 400, rank 1 prefills 10 and decodes meanwhile
    assert times(make, ranks(2, together=False), (0, 400, 2), (0, 10, 3)) == [(500, 610), (110, 330)]


def test_a_step_is_the_slowest_ranks(make: Make) -> None:  # noqa: F811 # the fixture of the same name
    # both prefill until 500, then decode together, 110 each
    assert times(make, ranks(2, together=True), (0, 400, 2), (0, 10, 3)) == [(500, 610), (500, 720)]


def test_a_request_at_an_idle_rank_waits_for_the_iteration_in_progress(make: Make) -> None:  # noqa: F811 # the fixture of the same name
    # rank 0 decodes from 150 on, 110 a token; what comes at 200 begins at 260: until 260 + 140, and rank 0 decodes beside it
    found = times(make, ranks(2, together=True), (0, 50, 4), (200, 40, 1))
    assert found == [(150, 150 + 110 + 140 + 110), (400, 400)]


def test_a_long_prompt_of_another_rank_is_cut_too(make: Make) -> None:  # noqa: F811 # the fixture of the same name
    # 32 a piece: rank 0 takes 132 for each whole budget; rank 1 gets its request at 140 and begins at 264, in step
    found = times(make, ranks(2, together=True, **CHUNKED), (0, 160, 1), (140, 10, 1))
    assert found == [(660, 660), (396, 396)]


def test_what_is_shared_goes_by_the_mean_tokens_of_all_ranks(make: Make) -> None:  # noqa: F811 # the fixture of the same name
    # half of what a token takes is shared: 401 tokens over two ranks are 200.5 for each. 100 + 200 + 100.25; alone 500
    setup = ranks(2, together=True)
    setup.profiles["shared_tokens"][0, :2], setup.profiles["shared_time"][0, 1] = (1, 501), 250
    setup.profiles["shared_slope"][0, :2] = 0.5
    setup.profiles["shared_time"][0, 0] = 0
    assert times(make, setup, (0, 400, 1)) == [(400, 400)]  # 500 - 199.5 + 99.75 = 400.25


def test_a_block_ends_when_another_rank_becomes_the_slowest(make: Make) -> None:  # noqa: F811 # the fixture of the same name
    # KV costs 1 a token. Rank 0: one sequence of 200; rank 1: two of 90 each (the third request goes there: 1 < 4 waiting + ...)
    setup = ranks(2, together=True, kv=1, decode=1, kv_tokens=5_000, max_batched=900)
    found = times(make, setup, (0, 200, 40), (0, 90, 40), (0, 1, 1), (0, 90, 40))
    # prefill of all: 100 + 201 = 301 (rank 0 has the one of 1 token too; rank 1 prefills 180). Then iteration j takes 100 + 1 +
    # 201 + j on rank 0 and 100 + 2 + 182 + 2 j on rank 1: that is slower from 18 < j on, so 19 iterations of rank 0, then 20
    first = 301
    slow = sum(302 + j for j in range(19)) + sum(284 + 2 * j for j in range(19, 39))
    assert found == [(first, first + slow), (first, first + slow), (first, first), (first, first + slow)]


@pytest.mark.parametrize("together", [False, True])
def test_capacity_and_load_are_those_of_all_ranks(together: bool) -> None:
    # prompts of 400, 30 and 20 on three of four ranks; each holds its prompt and the token it makes: 453 of 4 x 1,000
    setup = replace(ranks(4, together=together), scrape=50)
    asked = rows(setup, (0, 400, 90), (0, 30, 90), (0, 20, 90))
    kernel, reference = Kernel(setup, asked.copy()), Reference(setup, asked.copy())
    for sim in (kernel, reference):
        sim.open(0)
        sim.run_until(101)  # after a scrape, while all three are prefilled
        assert sim.endpoints["kv"][0] == pytest.approx(453 / 4_000)
    assert kernel.endpoints["kv_tokens"][0] == 4_000
    assert kernel.endpoints["sequences"][0] == 32
    assert kernel.counted("used").tolist() == [453]
    kernel.drain(0)
    assert (kernel.endpoints["kv_tokens"][0], kernel.endpoints["sequences"][0]) == (0, 0)


def settings(**changes: object) -> ProfileSettings:
    """An engine."""
    return ProfileSettings.model_validate(
        {
            "gpu": "x",
            "tp": 1,
            "gpus": 1,
            "iteration_ms": ((1, 9.0), (512, 12.0), (8192, 200.0)),
            "decode_us_per_sequence": 30,
            "kv_ns_per_token": 60,
            "attention_ns_per_token2": 0.5,
            "kv_tokens": 30_000,
            "source": "made up",
        }
        | changes
    )


@pytest.mark.parametrize("dp", [2, 16])
@pytest.mark.parametrize("lockstep", [False, True])
def test_work_is_what_full_ranks_need(dp: int, lockstep: bool) -> None:
    (one,), (many,) = profile_rows([settings()]), profile_rows([settings(dp=dp, gpus=dp, lockstep=lockstep)])
    assert request_work(many, 900, 100, 150.0) == pytest.approx(request_work(one, 900, 100, 150.0) / dp)
    assert prefill_work(many, 900, 100) == pytest.approx(prefill_work(one, 900, 100) / dp)


def test_an_engine_of_ranks_sustains_what_so_many_engines_do() -> None:
    """Many alike, all at once: independent ranks are done when one engine is with its share, those in step little later."""
    n, dp = 800, 4
    random = stream(3, "tests/ranks")
    prompt, output = random.integers(200, 1_000, n), random.integers(50, 200, n)
    zeros: NDArray[Any] = np.zeros(n, np.int64)
    done = {
        name: int(replay(profile, Arrivals(zeros[:count], prompt[:count], output[:count])).finish.max())
        for name, profile, count in (
            ("one", settings(), n // dp),
            ("apart", settings(dp=dp, gpus=dp), n),
            ("together", settings(dp=dp, gpus=dp, ep=dp), n),
        )
    }
    assert done["apart"] == pytest.approx(done["one"], rel=0.1)
    assert done["apart"] < done["together"] < 1.5 * done["apart"]
