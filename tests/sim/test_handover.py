"""Prefill and decode apart: small worlds worked out in comments, fleets that are played, and what is refused.

As in `test_reference_by_hand.py` an iteration takes 100 + 1 per prompt token + 10 per decoding sequence, microseconds. Worlds
that nobody worked out are in `test_kernel_against_reference.py`. Read next: docs/reference/kernel.md, "Prefill and decode apart".
"""

from dataclasses import replace

import numpy as np
import pytest

from sageserve.base.config import Scenario
from sageserve.base.errors import ConfigError, Infeasible
from sageserve.base.records import Labels
from sageserve.base.units import MINUTE, SECOND
from sageserve.core.engine.timing import decode_work, request_work, row_of
from sageserve.core.handover import Handover
from sageserve.core.route import ROUTES
from sageserve.data.billing.allocations import UNALLOCATED
from sageserve.live.simulated_only import refuse_simulated_only
from sageserve.sim.kernel.state import Setup
from sageserve.sim.oracle import oracle_bound
from sageserve.sim.results.summary import costs_of_run, summarise
from sageserve.sim.run import Run, simulate
from tests.core.small import ENGINE, row, scenario, trace
from tests.sim.test_reference_by_hand import PLAIN, Make, engine, make, rows, times  # noqa: F401 # a fixture

SENT = ENGINE | {"kv_per_token": "100kB"}
APART: dict[str, object] = {"link": "1GB/s", "latency": "5ms"}  # 100 us a token


def apart(*, token_us: float = 0.0, latency: int = 0, **fields: float) -> Setup:
    """The plain world with two roles: one instance prefills, one decodes."""
    handover = Handover((True,), (token_us,), (latency,))
    shape = {"roles": 2, "slots": 1, "slot_profile": np.zeros(2, np.int32), "feeds": np.zeros(2, bool)}
    return replace(PLAIN, profiles=engine(**fields), handover=handover, walk=np.zeros((1, 1, 1, 1), np.int32), **shape)  # type: ignore[arg-type] # fields by name


def test_the_first_token_is_out_when_the_kv_cache_is_let_in(make: Make) -> None:  # noqa: F811 # the fixture of the same name
    # prefilled at 150, sent for 50 x 2 us and 30 more: 280; then 9 tokens of 110 each. A single token stays where it was made
    assert times(make, apart(token_us=2, latency=30), (0, 50, 10)) == [(280, 1_270)]
    assert times(make, apart(token_us=2, latency=30), (0, 50, 1)) == [(150, 150)]


def test_a_link_sends_one_kv_cache_after_the_other(make: Make) -> None:  # noqa: F811 # the fixture of the same name
    # both are prefilled at 200; the first has the link until 300, the second until 400, and joins at 410: 200 + 100 + 110
    found = times(make, apart(token_us=2), (0, 50, 3), (0, 50, 2))
    assert found == [(300, 410 + 120), (410, 410 + 120)]


def test_prompts_do_not_hold_up_who_decodes(make: Make) -> None:  # noqa: F811 # the fixture of the same name
    # alone 110 a token, whatever is prefilled meanwhile
    found = times(make, apart(), (0, 50, 10), (160, 400, 1))
    assert found == [(150, 150 + 9 * 110), (660, 660)]


def test_a_full_decode_side_keeps_memory_of_the_prefill_side(make: Make) -> None:  # noqa: F811 # the fixture of the same name
    # two prompts take 102 of 104 tokens, and are filled at 200. One is let in at once: the third prompt has its memory. The other
    # needs 53 beside 52 that are used, and is let in when the first is done, at 200 + 9 x 110; the fourth prompt has its memory
    found = times(make, apart(kv_tokens=104), (0, 50, 10), (0, 50, 2), (0, 50, 1), (400, 80, 1))
    assert found == [(200, 1_190), (1_190, 1_300), (350, 350), (1_370, 1_370)]


@pytest.mark.parametrize("route", ROUTES)
def test_a_region_where_nobody_decodes_is_passed_over_while_another_has_somebody(make: Make, route: str) -> None:  # noqa: F811 # the fixture of the same name
    def served(*opened: int) -> int:
        """Where a request of the first region is, of four instances: prefill and decode here, and there."""
        walk = np.array([[0, 2], [2, 0]], np.int32).reshape(2, 1, 1, 2)
        wide = {"regions": 2, "walk": walk, "slot_profile": np.zeros(4, np.int32), "feeds": np.zeros(4, bool)}
        setup = replace(apart(), route=ROUTES.index(route), **wide)  # type: ignore[arg-type] # fields by name
        sim = make(setup, rows(setup, (0, 50, 10)))
        for i in opened:
            sim.open(i)
        sim.run_until(900_000)
        return int(sim.requests[0]["instance"])

    assert served(0, 1, 2, 3) == 1
    assert served(0, 2, 3) == 3
    assert served(0, 2) == 0, "nobody decodes anywhere: what is prefilled waits"
    assert served(1, 2, 3) == 3


def fleet(**changes: object) -> Scenario:
    """The small fleet, whose big model is prefilled and decoded apart."""
    settings: dict[str, object] = {"context": 8_000, "engines": {"h100": SENT}, "disaggregated": APART}
    small: dict[str, object] = {"context": 8_000, "engines": {"h100": ENGINE}}
    tree: dict[str, object] = {"gpus": 160, "models": {"big": settings | dict(changes.pop("big", {})), "small": small}}  # type: ignore[call-overload] # a dict
    return scenario(**tree | changes)  # type: ignore[arg-type] # as above


def play(settings: Scenario, rows: int = 400, **more: object) -> Run:
    stream = [row(k * 100_000, model=("big", "small")[k % 4 == 3], prompt=200 + k, output=1 + k % 60) for k in range(rows)]
    return simulate(settings, trace(settings, stream, window=10 * MINUTE), debug=True, **more)  # type: ignore[arg-type] # as above


@pytest.mark.parametrize("strategy", ["reactive", "hpa", "keda", "fixed:2", "lt-i", "lt-ua", "foresight"])
def test_pools_of_their_own_serve_everything_and_nothing_is_left_anywhere(strategy: str) -> None:
    run = play(fleet(strategy={"name": strategy}))
    rows, endpoints = run.requests, run.kernel.endpoints
    assert [pool.name for pool in run.layout.pools if pool.region == 0] == [
        "east/big/h100/prefill",
        "east/big/h100/decode",
        "east/small/h100",
    ]
    assert (rows["finish"] >= rows["first"]).all()
    assert (rows["first"] > rows["arrival"]).all()
    assert (endpoints["placed"] == endpoints["finished"]).all()
    assert int(endpoints["made"].sum()) == int(rows["output"].sum())
    assert not run.kernel.engines["used"].any()
    big = rows["model"] == 0
    decode = np.array([run.layout.pools[run.fleet.pool_of[i]].role for i in rows["instance"]])
    assert (decode[big] == (rows["output"][big] > 1)).all(), "who has one token to make is done where it is prefilled"
    # 10 ms, 20 us a token, 100 us a token on the link, 5 ms
    sent = rows["first"] - rows["arrival"] - (10_000 + 20 * rows["prompt"] + 100 * rows["prompt"] + 5_000)
    assert (sent[big & (rows["output"] > 1)] >= 0).all()
    assert summarise(run, 1.0).requests.finished == len(rows)


def test_each_pool_is_scaled_by_what_it_has_to_do() -> None:
    settings = fleet(
        strategy={"name": "reactive", "reactive": {"cooldown": "15s"}}, fleet={"start": 1, "minimum": 1, "maximum": 8}
    )
    long = [row(k * 20_000, prompt=7_000, output=2) for k in range(6_000)]
    run = simulate(settings, trace(settings, long, window=2 * MINUTE))
    held = {pool.name: run.fleet.serving(pool.number) + run.fleet.coming(pool.number) for pool in run.layout.pools}
    peaks = {run.layout.endpoint_name(e): int(run.timeline.column("starting")[:, e].max()) for e in range(run.layout.endpoints)}
    assert held["east/big/h100/decode"] == 1
    assert peaks["east/big/prefill"] > 0, "prompts are all there is to do"


def test_the_same_engine_prefills_and_decodes_as_much_as_it_does_both() -> None:
    engines = row_of(fleet().models["big"].engines["h100"])
    both, decode = request_work(engines, 1_000, 0, 200.0), decode_work(engines, 1_000, 200.0)
    assert 0 < decode < both
    assert decode_work(engines, 1_000, 1.0) == 0


def test_prompts_pay_for_prefill_and_answers_for_decoding() -> None:
    run = play(fleet(strategy={"name": "fixed:2"}))
    found = [one for one in costs_of_run(run) if (one.region, one.model) == ("east", "big") and one.tier != UNALLOCATED]
    prompts, outputs = sum(one.prompts for one in found), sum(one.outputs for one in found)
    assert prompts == pytest.approx(outputs, rel=0.01), "both pools hold two instances all the time"
    assert sum(one.requests for one in found) == int((run.requests["model"] == 0).sum())
    sides = {role: [one for one in found if one.role == role] for role in ("prefill", "decode")}
    assert sum(one.total for one in sides["prefill"]) == prompts, "each pool's cost is that of what it did"
    assert sum(one.total for one in sides["decode"]) == outputs


def test_engines_that_decode_may_be_others() -> None:
    decode = SENT | {"gpus": 4, "tp": 4}
    settings = fleet(big={"disaggregated": APART | {"decode": {"h100": decode}}})
    gpus = {pool.name: pool.gpus for pool in play(settings, 40).layout.pools}
    assert (gpus["east/big/h100/prefill"], gpus["east/big/h100/decode"]) == (8, 4)


def test_first_instances_are_counted_by_pool() -> None:
    starts = {"east/big/h100/prefill": 1, "east/big/h100/decode": 3}
    run = play(fleet(fleet={"start": 2, "minimum": 1, "maximum": 4, "starts": starts}, strategy={"name": "fixed"}), 40)
    serving = {pool.name: run.fleet.serving(pool.number) for pool in run.layout.pools}
    assert serving["east/big/h100/prefill"] == 1
    assert serving["east/big/h100/decode"] == 3
    assert serving["west/big/h100/decode"] == 2


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"big": {"engines": {"h100": ENGINE}}}, "how large it is per token is not known of the engine on h100"),
        ({"fleet": {"start": 1, "minimum": 0, "maximum": 4}}, "nobody asks a decode pool that sleeps"),
        ({"big": {"disaggregated": APART | {"decode": {"a100": SENT}}}}, "a100"),
        ({"fleet": {"start": 2, "minimum": 1, "maximum": 4, "starts": {"east/big/h100/decode": 0}}}, "none to decode at first"),
        ({"rollouts": [{"model": "big", "at": "5m"}]}, "replaces instances that do both"),
        ({"big": {"disaggregated": APART | {"decode": {"h100": SENT | {"kv_tokens": 7_000}}}}}, "kv_tokens 7000 < context 8000"),
    ],
)
def test_what_does_not_go_together_is_refused_when_it_is_read(changes: dict[str, object], words: str) -> None:
    with pytest.raises((ConfigError, Infeasible), match=words):
        fleet(**changes)


@pytest.mark.parametrize("strategy", ["siloed", "chiron"])
def test_strategies_whose_instances_do_everything_are_refused(strategy: str) -> None:
    with pytest.raises(ConfigError, match=f"{strategy} cannot scale prefill and decode as pools of their own"):
        play(fleet(strategy={"name": strategy}), 4)


def test_turns_that_wait_are_refused_unless_nothing_of_them_is_kept() -> None:
    def talk(settings: Scenario) -> None:
        turns = trace(settings, [row(0), row(SECOND)], window=MINUTE)
        session = Labels(np.zeros(2, np.int32), ("one",))
        simulate(settings, replace(turns, labels={"session": session}, delay=np.array([-1, 10_000])))

    with pytest.raises(ConfigError, match="what a prefill instance keeps of earlier prompts is not modelled"):
        talk(fleet())
    talk(fleet(big={"prefix_cache": False}))


def test_what_takes_instances_to_do_everything_says_that_it_cannot() -> None:
    settings = fleet()
    for ask in (
        lambda: refuse_simulated_only(settings),
        lambda: oracle_bound(settings, trace(settings, [row(0)])),
    ):
        with pytest.raises(ConfigError, match=r"models\.big\.disaggregated"):
            ask()
