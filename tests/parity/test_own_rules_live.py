"""Rules of the user's decide in a gateway as they do in a simulation; one that fails there leaves the decision to a built-in one.

Read next: `test_front_door.py`, where the same is shown of built-in rules; `tests/sim/test_own_rules.py` for the kernel.
"""

from dataclasses import replace

from sageserve.core.own_rules import ADMISSION, INSTANCE, REGION, OwnRule, OwnRules
from sageserve.live.gateway.own_choices import OwnChoices
from sageserve.live.gateway.routing_state import RoutingState
from sageserve.live.wire import EndpointRow, InstanceRow, RoutingTable
from sageserve.sim.run import kernel_setup
from tests.core.small import layout_of, scenario
from tests.parity.live_cases import LiveCase, differs, make_live_case, play_kernel
from tests.sim.cases import seeded
from tests.sim.compare import first_difference

MINE = "tests.sim.rules_of_mine:"
TRIED = (
    {"region": "near_and_free", "instance": "least_full"},
    {"region": "calm", "instance": "packed", "admission": "strict"},
    {"instance": "by_tier", "admission": "generous"},
)
CASES = 24
MOVED = 16


def ruled(seed: int) -> LiveCase:
    """A case of `live_cases.py` whose scenario names rules of the user's."""
    one = make_live_case(seeded(seed))
    given = {kind: MINE + name for kind, name in TRIED[seed % len(TRIED)].items()}
    settings = one.scenario
    routing = settings.routing.model_copy(update={key: given[key] for key in ("region", "instance") if key in given})
    admission = settings.admission.model_copy(update={"rule": given.get("admission")})
    scenario = settings.model_copy(update={"routing": routing, "admission": admission})
    case = replace(one.case, setup=kernel_setup(scenario, one.layout))
    return replace(one, scenario=scenario, case=case)


def test_live_plane_and_simulator_agree_under_rules_of_mine() -> None:
    moved = 0
    for seed in range(CASES):
        one = ruled(seed)
        difference = differs(one)
        assert not difference, f"seed {seed}: {difference}"
        moved += first_difference(list(play_kernel(one)), play_kernel(make_live_case(seeded(seed)))) != ""
    assert moved >= MOVED, "the rules decide as built-in ones would"


def failing(kind: str) -> OwnRule:
    """A rule that was tried on nothing, and fails."""

    def divide(prompt: float) -> float:
        return prompt / 0

    return OwnRule(kind, "mine:divide", ("prompt",), (0,), divide, ())  # type: ignore[arg-type]  # a def is a FunctionType


def test_a_rule_that_fails_live_leaves_the_decision_to_the_built_in_one() -> None:
    settings = scenario(routing={"region": "threshold"}, admission={"wait": 1})
    layout = layout_of(settings)
    plain, state = (RoutingState(settings, layout) for _ in range(2))
    rules = OwnRules(*(failing(kind) for kind in (INSTANCE, REGION, ADMISSION)))
    state.choices = OwnChoices(rules, [(0, False)] * 3, state.rules)
    rows = tuple(InstanceRow(row, row // layout.slots, f"http://10.0.0.{row}:80", "", True, row, 0) for row in (0, 1))
    for routing in (plain, state):
        routing.replace(RoutingTable(1, "e", 1, 0, (EndpointRow(0.1, 0.1, 0.1, 0.1, 0.0, 9_000, 1),) * 4, rows, (9.0,) * 6, 1), 0)
    walk = plain.walk[0][0][0]
    expected, found = plain.choose(walk, 0), state.choose(walk, 0)
    assert expected is not None
    assert found is not None
    assert found.row == expected.row
    assert state.admits(state.weigh(found, 500, 0, 0)) == plain.admits(plain.weigh(expected, 500, 0, 0))
    assert state.choices.failures == 3
    assert "test_own_rules_live.py:" in state.choices.failed
    assert "the admission rule mine:divide: ZeroDivisionError: float division by zero, for prompt = 500" in state.choices.failed
