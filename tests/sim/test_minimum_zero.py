"""A fleet that may come down to nothing: played as it says, or refused with the reason, by every strategy and the bound alike.

Read next: `core/strategies/__init__.py`, `test_oracle.py`.
"""

import pytest

from sageserve.base.errors import ConfigError
from sageserve.base.units import MINUTE
from sageserve.core.strategies import STRATEGIES, kind_of
from sageserve.sim.oracle import oracle_bound
from sageserve.sim.results.summary import summarise
from sageserve.sim.run import Simulation, simulate
from tests.core.small import row, scenario, trace

NONE = {"start": 0, "minimum": 0, "maximum": 4}


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_strategy_that_cannot_start_from_nothing_says_so(name: str) -> None:
    settings = scenario(fleet=NONE, strategy={"name": name})
    with pytest.raises(ConfigError, match=rf"fleet\.minimum: 0: {name} keeps an instance of every model") as refused:
        Simulation(settings, trace(settings, [row(0)]))
    assert "--set fleet.minimum=1" in (refused.value.hint or "")
    one = scenario(fleet={"start": 1, "minimum": 1, "endpoints": {"east/*": {"start": 0, "minimum": 0}}}, strategy={"name": name})
    with pytest.raises(ConfigError) as refused:
        kind_of(one)
    assert "give east/big a minimum and a start of 1 in fleet.endpoints" in (refused.value.hint or "")
    kept = scenario(fleet={"start": 1, "minimum": 1, "maximum": 4}, strategy={"name": name})
    assert max(kind_of(kept).minimum(kept)) == 1


def test_fleets_of_constant_size_hold_none_where_none_is_asked_for() -> None:
    settings = scenario(fleet=NONE, strategy={"name": "fixed"})
    rows = trace(settings, [row(0)], window=10 * MINUTE)
    found = summarise(simulate(settings, rows), 1.0)
    assert (found.gpu_hours.total, found.gpu_hours.floor, found.requests.finished) == (0.0, 0.0, 0)
    two = scenario(fleet=NONE, strategy={"name": "fixed:2"})
    assert summarise(simulate(two, trace(two, [row(0)], window=10 * MINUTE)), 1.0).requests.finished == 1


def test_the_bound_asks_for_nothing_where_nothing_arrives() -> None:
    settings = scenario(fleet=NONE)
    assert oracle_bound(settings, trace(settings, [], window=10 * MINUTE)).gpu_hours == 0.0
    assert oracle_bound(settings, trace(settings, [row(0)], window=10 * MINUTE)).gpu_hours > 0.0
